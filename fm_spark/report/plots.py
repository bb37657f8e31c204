"""The plots of the HTML report, as inline SVG whose text and lines take the colour of the page around them."""

from __future__ import annotations

import io
import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fm_spark.report import words
from fm_spark.report.facts import Curve, ItemFacts, RunFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# drawn in this colour, then replaced by the page's own text colour
_INK = "#010203"
_FM, _OTHER = "#2f7ed8", "#9aa3ad"
_LEGEND_WIDTH = 34
_PALETTE = (
    "#2f7ed8",
    "#e07b39",
    "#3fa66b",
    "#c94f5d",
    "#8a6fd1",
    "#b0892f",
    "#d76fae",
    "#4db2bd",
    "#7f8c2b",
    "#8d99a6",
)


def draw_plots(facts: RunFacts) -> dict[str, str]:
    """SVG by name: ``metrics``, ``training``, ``popularity`` and ``clusters``; a plot without data is left out."""
    import matplotlib  # takes half a second, which only the report pays

    style: Any = {
        "svg.fonttype": "path",
        "svg.hashsalt": "fm_spark",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "legend.frameon": False,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    }
    plots = {}
    with matplotlib.rc_context(style):
        for name, draw in (
            ("metrics", _metrics),
            ("training", _training),
            ("popularity", _popularity),
            ("clusters", _clusters),
        ):
            figure = draw(facts)
            if figure is not None:
                plots[name] = _svg(figure)
    return plots


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # as wide as the page allows, up to the size at which its letters are as large as the page's
    width = f'<svg style="max-width: {96 * figure.get_figwidth():.0f}px"'
    return width + re.sub(r' (width|height)="[^"]*"', "", text[4 : text.index(">")]) + text[text.index(">") :]


def _metrics(facts: RunFacts) -> Figure | None:
    rows = [(name, fm or 0.0, other or 0.0) for name, fm, other, _ in words.metric_rows(facts.metrics)]
    if not rows:
        return None
    figure, (axes,) = _figure(7.2, 0.55 * len(rows) + 1.0)
    place = np.arange(len(rows))
    for offset, values, colour, label in (
        (-0.19, [row[1] for row in rows], _FM, "fm_spark"),
        (0.19, [row[2] for row in rows], _OTHER, "popularity"),
    ):
        bars = axes.barh(place + offset, values, height=0.36, color=colour, label=label)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=9, color=_INK)
    axes.set_yticks(place, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlabel("value on the held-out test part (0 to 1, more is better)")
    axes.set_title("Test metrics beside popularity's")
    axes.legend(loc="lower right")
    return figure


def _training(facts: RunFacts) -> Figure | None:
    curves = [curve for curve in facts.training.curves if curve.epochs]
    validated = [curve for curve in curves if curve.validated]
    if not curves:
        return None
    figure, axes = _figure(9.6, 3.8, columns=2 if validated else 1)
    for number, curve in enumerate(curves):
        style: dict[str, Any] = {
            "color": _PALETTE[number % len(_PALETTE)],
            "linewidth": 1.8,
            "marker": ".",
            "markersize": 5,
        }
        axes[0].plot(curve.epochs, curve.loss, label=_fit_name(curve, curves), **style)
        if curve.validated:
            _validation(axes[1], curve, style)
    axes[0].set_title("Training loss")
    axes[0].set_ylabel("mean loss")
    if validated:
        name = {**words.METRIC_NAMES, **words.PREDICTION_NAMES}[validated[0].measured or "ndcg_at_10"]
        axes[1].set_title(f"Validation {name} (ring: best epoch)")
        axes[1].set_ylabel(name)
    for each in axes:
        each.set_xlabel("epoch")
        each.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize=9)
    return figure


def _validation(axes: Any, curve: Curve, style: dict[str, Any]) -> None:
    name = curve.measured or "ndcg_at_10"
    points = [(e, v) for e, v in zip(curve.epochs, getattr(curve, name), strict=True) if v is not None]
    axes.plot(*zip(*points, strict=True), **style)
    sign = -1.0 if name in ("rmse", "log_loss") else 1.0
    best = max(points, key=lambda point: sign * point[1])
    axes.plot(*best, "o", markersize=9, markerfacecolor="none", markeredgecolor=style["color"], markeredgewidth=1.5)


def _fit_name(curve: Curve, curves: list[Curve]) -> str:
    several = sum(other.stage == curve.stage for other in curves) > 1
    return f"{curve.stage} {curve.candidate}" if several else curve.stage


def _popularity(facts: RunFacts) -> Figure | None:
    items = facts.items
    if not items.count.sum() or not items.listed.sum():
        return None
    figure, (axes,) = _figure(7.2, 4.0)
    order = np.argsort(-items.count, kind="stable")
    place = 100.0 * np.arange(1, len(order) + 1) / len(order)
    for values, colour, label in ((items.listed, _FM, "places in the lists"), (items.count, _OTHER, "events")):
        share = 100.0 * np.cumsum(values[order]) / values.sum()
        axes.plot(np.append(0.0, place), np.append(0.0, share), color=colour, linewidth=2.2, label=label)
    axes.set(xlim=(0, 100), ylim=(0, 102))
    axes.set_xlabel("items, best known first (% of the catalogue)")
    axes.set_ylabel("cumulative share (%)")
    listed = int((items.listed > 0).sum())
    axes.set_title(f"{listed:,} of {len(order):,} items are in a list")
    axes.legend(loc="lower right")
    return figure


def _clusters(facts: RunFacts) -> Figure | None:
    if len(facts.items.map_clusters) < 3:
        return None
    figure, (axes,) = _figure(9.6, 5.6)
    points = project(facts.items)
    on_map = Counter(facts.items.map_clusters.tolist())
    shown = sorted(on_map, key=lambda cluster: (-on_map[cluster], cluster))[: len(_PALETTE)]
    other = ~np.isin(facts.items.map_clusters, shown)
    if other.any():
        label = f"{len(on_map) - len(shown)} other clusters"
        axes.scatter(*points[other].T, s=7, color=_OTHER, alpha=0.35, linewidths=0, label=label, rasterized=True)
    for colour, cluster in zip(_PALETTE, shown, strict=False):
        at = facts.items.map_clusters == cluster
        label = _legend_entry(facts.cluster_labels.get(cluster, f"cluster {cluster}"))
        axes.scatter(*points[at].T, s=13, color=colour, alpha=0.85, linewidths=0, label=label, rasterized=True)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("first principal component of the normalised item vectors")
    axes.set_ylabel("second principal component")
    axes.set_title(f"Map of the {len(points):,} best known items")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, markerscale=2, borderaxespad=0)
    return figure


def project(items: ItemFacts) -> npt.NDArray[np.float64]:
    """The mapped vectors, scaled to length 1, on their first two principal components: float64 [n_mapped, 2].

    The sign of a component is chosen so that its largest coordinate is positive, which makes the map repeatable.
    """
    vectors = items.map_vectors.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    centred = vectors - vectors.mean(axis=0)
    # components are the eigenvectors of the small k x k matrix
    _, directions = np.linalg.eigh(centred.T @ centred)
    points = np.zeros((len(vectors), 2))
    found = centred @ directions[:, ::-1][:, :2]
    points[:, : found.shape[1]] = found
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    return points * np.where(largest < 0, -1.0, 1.0)


def _legend_entry(label: str) -> str:
    """A legend entry: broken into lines, with dollar signs that matplotlib would read as mathematics escaped."""
    return textwrap.fill(label, _LEGEND_WIDTH).replace("$", r"\$")
