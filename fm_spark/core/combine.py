"""How a round's blocks become one move: exact integer sums of what they learnt, then the adaptive sum.

Every number that is summed over blocks is first rounded to a fixed grid and kept as an integer. Integer addition
does not depend on the order, so the sum has the same bits for any partitioning, retry or speculative task.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.local_steps import Move
from fm_spark.core.parameters import Doubles, Floats, Parameters

# Grids: 1.5e-5 for displacements (factors move by 1e-3 and more a round; most rows then fit into 16 bits a number),
# 1e-6 for summed gradients, 2e-10 for squared gradients.
MOVE_GRID = 2.0**16
GRADIENT_GRID = 2.0**20
STATE_GRID = 2.0**32
LOSS_GRID = 2.0**20
# A displacement of one block above this is divergence; the sum over 2,000 blocks still fits into 32 bits.
LARGEST_MOVE = 16.0
# A bias is in units of log-odds and starts near its best value, the item's log popularity.
BIAS_REACH = 0.2


class RowSum(NamedTuple):
    """Sums over blocks for the rows of one array that any block touched.

    Attributes:
        rows: int32 [r], ascending.
        move: int32 [r, width], displacement / MOVE_GRID; with synchronous rounds int64, gradient / GRADIENT_GRID; with
            constant steps int64, phi(C_p) * displacement.
        state: int64 [r], added AdaGrad state s_p, / STATE_GRID; with constant steps C_p / CURVATURE_GRID.
        root: int64 [r], sum of sqrt(G_0 + s_p) - sqrt(G_0), / STATE_GRID; only with AdaGrad.
        blocks: int32 [r], how many blocks touched the row.
    """

    rows: npt.NDArray[np.int32]
    move: npt.NDArray[np.int32] | npt.NDArray[np.int64]
    state: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int32]

    def encoded(self) -> tuple[npt.NDArray[np.generic], ...]:
        """The arrays that travel: rows whose numbers fit are sent with 16 bits a number, zero columns not at all."""
        small = np.abs(self.move).max(axis=1, initial=0) < 2**15
        short, rest = self.move[small].astype(np.int16), self.move[~small]
        if np.abs(rest).max(initial=0) < 2**31:
            rest = rest.astype(np.int32)
        state, root = (column if column.any() else column[:0] for column in (self.state, self.root))
        # an empty array of the dtype of ``move``, which the others may be narrower than
        return (self.rows, np.packbits(small), short, rest, state, root, self.blocks, self.move[:0])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles :meth:`encoded`."""
        return _decoded, self.encoded()


def _decoded(
    rows: npt.NDArray[np.int32],
    packed: npt.NDArray[np.uint8],
    short: npt.NDArray[np.int16],
    rest: npt.NDArray[np.int32],
    state: npt.NDArray[np.int64],
    root: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int32],
    like: npt.NDArray[np.int32] | npt.NDArray[np.int64],
) -> RowSum:
    small = np.unpackbits(packed, count=len(rows)).astype(np.bool_)
    move = np.empty((len(rows), rest.shape[1]), like.dtype)
    move[small], move[~small] = short, rest
    full = [column if len(column) else np.zeros(len(rows), np.int64) for column in (state, root)]
    return RowSum(rows, move, full[0], full[1], blocks)


class MoveSum(NamedTuple):
    """What any number of blocks learnt in a round.

    Attributes:
        factors, bias: the touched rows' sums (bias with width 1).
        loss: summed loss / LOSS_GRID; events: summed weight / LOSS_GRID.
        seconds: kernel time summed over blocks (not part of any promise of equal bits).
        sent: bytes that tasks returned for this sum.
        problem: why a block's learning cannot be used; "" when all is well. It travels as a value, because an
            exception in a task would only make Spark try the same again.
    """

    factors: RowSum
    bias: RowSum
    loss: int
    events: int
    seconds: float
    sent: int = 0
    problem: str = ""

    def nbytes(self) -> int:
        """Bytes of what travels."""
        return sum(array.nbytes for part in (self.factors, self.bias) for array in part.encoded())


def on_grid(move: Move, parameters: Parameters, seconds: float = 0.0) -> MoveSum:
    """Rounds one block's move to the grids.

    Args:
        parameters: the broadcast point, for G_0.

    Raises:
        FloatingPointError: a displacement is not finite or larger than LARGEST_MOVE.
    """
    factors = _rows_on_grid(move.rows, move.factors, move.state, parameters.factors_state)
    bias = _rows_on_grid(move.items, move.bias[:, None], move.bias_state, parameters.bias_state)
    return MoveSum(factors, bias, round(move.loss * LOSS_GRID), round(move.events * LOSS_GRID), seconds)


def _rows_on_grid(rows: npt.NDArray[np.int32], move: Floats, added: Doubles, initial: Doubles) -> RowSum:
    largest = np.abs(move).max(initial=0.0)
    if not largest <= LARGEST_MOVE:
        raise FloatingPointError(f"a parameter moved by {largest:g} in one round of one block")
    root = added / (np.sqrt(initial[rows] + added) + np.sqrt(initial[rows]))
    return RowSum(
        rows,
        np.rint(move * np.float32(MOVE_GRID)).astype(np.int32),
        np.rint(added * STATE_GRID).astype(np.int64),
        np.rint(root * STATE_GRID).astype(np.int64),
        np.ones(len(rows), np.int32),
    )


def unusable(problem: str, k: int) -> MoveSum:
    """The sum of a block that diverged: no rows, only the reason."""
    none = np.empty(0, np.int32)
    wide, narrow = np.empty((0, k), np.int32), np.empty((0, 1), np.int32)
    empty = np.empty(0, np.int64)
    return MoveSum(
        RowSum(none, wide, empty, empty, none), RowSum(none, narrow, empty, empty, none), 0, 0, 0.0, 0, problem
    )


def merge(first: MoveSum | None, second: MoveSum | None) -> MoveSum | None:
    """Adds two sums; ``None`` is the empty sum. Associative and commutative to the bit (but for ``seconds``)."""
    if first is None or second is None:
        return second if first is None else first
    return MoveSum(
        _merge_rows(first.factors, second.factors),
        _merge_rows(first.bias, second.bias),
        first.loss + second.loss,
        first.events + second.events,
        first.seconds + second.seconds,
        first.sent + second.sent,
        max(first.problem, second.problem),
    )


class Accumulator:
    """Adds the sums of a task's blocks in dense arrays, so that a row is not copied again for every block."""

    def __init__(self, shape: tuple[int, int], n_items: int, dtype: npt.DTypeLike = np.int32) -> None:
        self._factors, self._bias = _dense(*shape, dtype), _dense(n_items, 1, dtype)
        self._rest: MoveSum | None = None

    def add(self, one: MoveSum) -> None:
        """Adds the sum of one block."""
        for total, part in ((self._factors, one.factors), (self._bias, one.bias)):
            _add_rows(*part, *total[1:])
        rest = one._replace(factors=_no_rows(one.factors), bias=_no_rows(one.bias))
        self._rest = merge(self._rest, rest)

    def take(self) -> MoveSum | None:
        """The sum of what was added since the last call, None for nothing; empties the accumulator."""
        if self._rest is None:
            return None
        total = self._rest._replace(factors=_taken(self._factors), bias=_taken(self._bias))
        self._rest = None
        return total


def _dense(n_rows: int, width: int, dtype: npt.DTypeLike) -> RowSum:
    """Zeros for every row of an array; ``rows`` is empty."""
    nothing = np.zeros(n_rows, np.int64)
    move: npt.NDArray[np.int32] = np.zeros((n_rows, width), dtype)
    return RowSum(np.empty(0, np.int32), move, nothing, nothing.copy(), np.zeros(n_rows, np.int32))


def _no_rows(part: RowSum) -> RowSum:
    return RowSum(part.rows[:0], part.move[:0], part.state[:0], part.root[:0], part.blocks[:0])


@njit(cache=True, nogil=True)
def _add_rows(rows, move, state, root, blocks, total_move, total_state, total_root, total_blocks):  # type: ignore[no-untyped-def]
    for j in range(len(rows)):
        row = rows[j]
        for f in range(move.shape[1]):
            total_move[row, f] += move[j, f]
        total_state[row] += state[j]
        total_root[row] += root[j]
        total_blocks[row] += blocks[j]


def _taken(total: RowSum) -> RowSum:
    rows = np.flatnonzero(total.blocks).astype(np.int32)
    part = RowSum(rows, total.move[rows], total.state[rows], total.root[rows], total.blocks[rows])
    for array in total[1:]:
        array[rows] = 0
    return part


def _merge_rows(a: RowSum, b: RowSum) -> RowSum:
    at_a, at_b = np.empty(len(a.rows), np.int32), np.empty(len(b.rows), np.int32)
    rows = np.empty(len(a.rows) + len(b.rows), np.int32)
    n = _union(a.rows, b.rows, rows, at_a, at_b)
    out = _dense(n, a.move.shape[1], a.move.dtype)._replace(rows=rows[:n])
    for at, part in ((at_a, a), (at_b, b)):
        _add_rows(at, *part[1:], *out[1:])
    return out


@njit(cache=True, nogil=True)
def _union(a, b, rows, at_a, at_b):  # type: ignore[no-untyped-def]
    """Writes the union of two ascending lists and where each one's numbers are in it; returns its length."""
    i = j = n = 0
    while i < len(a) or j < len(b):
        from_a = j == len(b) or (i < len(a) and a[i] <= b[j])
        from_b = i == len(a) or (j < len(b) and b[j] <= a[i])
        rows[n] = a[i] if from_a else b[j]
        if from_a:
            at_a[i] = n
            i += 1
        if from_b:
            at_b[j] = n
            j += 1
        n += 1
    return n


def adaptive_sum(
    parameters: Parameters, total: MoveSum, n_blocks: int, trust_region: float, context: tuple[int, ...] = ()
) -> None:
    """Applies a round to ``parameters`` in place: theta += gamma sum_p d_p, row by row.

    gamma = (sqrt(G_0 + sum s_p) - sqrt(G_0)) / sum_p (sqrt(G_0 + s_p) - sqrt(G_0)), clipped to [1 / blocks that touched
    the row, 1]: the ratio of how far AdaGrad would have moved in one sequential pass and how far the blocks moved
    together. One block alone is sequential SGD, and is taken as it is.

    Args:
        n_blocks: blocks of the round; with more than one the moves are bounded.
        trust_region: the bound of a factor row, as a share of max(norm of the row, root mean square of the row norms
            of its table); 0 sets none. A bias moves by at most BIAS_REACH.
        context: rows of each context field; each is a table of its own.
    """
    reach: Floats | None = None
    bias_reach: Floats | None = None
    if n_blocks > 1 and trust_region > 0.0:
        norms = np.linalg.norm(parameters.factors, axis=1)
        edges = _table_edges(parameters, context)
        table_rms = np.sqrt([np.square(norms[begin:end]).mean() for begin, end in itertools.pairwise(edges)])
        rows = total.factors.rows
        own = table_rms[np.searchsorted(edges, rows, side="right") - 1]
        reach = trust_region * np.maximum(norms[rows], own)
        bias_reach = np.full(len(total.bias.rows), BIAS_REACH, np.float32)
    _apply(total.factors, parameters.factors, parameters.factors_state, reach)
    _apply(total.bias, parameters.bias.reshape(-1, 1), parameters.bias_state, bias_reach)


def _table_edges(parameters: Parameters, context: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """First row of every table, and the number of rows: history tables, context fields, items."""
    n_rows, n_items = len(parameters.factors), parameters.n_items
    history = np.arange(0, n_rows - n_items - sum(context) + 1, n_items)
    return np.concatenate([history, history[-1] + np.cumsum(context, dtype=np.int64), [n_rows]])


def _apply(total: RowSum, values: Floats, state: Doubles, reach: Floats | None) -> None:
    rows = total.rows
    initial, added = state[rows], total.state / STATE_GRID
    blocks_moved = total.root / STATE_GRID
    sequential = added / (np.sqrt(initial + added) + np.sqrt(initial))
    gamma = np.where(
        (total.blocks > 1) & (blocks_moved > 0), sequential / np.where(blocks_moved > 0, blocks_moved, 1.0), 1.0
    )
    gamma = np.clip(gamma, 1.0 / total.blocks, 1.0)
    move = total.move * (gamma / MOVE_GRID)[:, None]
    if reach is not None:
        length = np.linalg.norm(move, axis=1)
        move *= np.minimum(1.0, reach / np.where(length > 0, length, 1.0))[:, None]
    values[rows] += move.astype(np.float32)
    state[rows] = initial + added
