"""A hint to the processor to bring a row into its cache, for kernels that visit rows in an order known beforehand.

The tables are larger than the caches and rows are visited in the order of a user's events, which the hardware cannot
guess; without the hint a kernel mostly waits for memory.
"""

from __future__ import annotations

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 8  # rows between asking for one and reading it: about the time that one takes to come from memory
LINE = 64  # bytes of a cache line


@intrinsic
def _prefetch(context, array, at):  # type: ignore[no-untyped-def]
    """Prefetches byte ``at`` of a contiguous array; out of bounds is harmless."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, number = cgutils.voidptr_t, cgutils.int32_t
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        address = cgutils.pointer_add(builder, data, values[1], byte)  # type: ignore[no-untyped-call]
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(inline="always")
def prefetch_row(array, row):  # type: ignore[no-untyped-def]
    """Asks for a row of a C-contiguous two-dimensional array."""
    width = array.shape[1] * array.itemsize
    begin = row * width
    for at in range(begin, begin + width, LINE):
        _prefetch(array, at)  # type: ignore[call-arg]


@njit(inline="always")
def prefetch_item(array, index):  # type: ignore[no-untyped-def]
    """Asks for one element of a contiguous one-dimensional array."""
    _prefetch(array, index * array.itemsize)  # type: ignore[call-arg]
