"""Forest plots: global effects of exposures, or local effects of the sequences of one exposure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import (
    BLUE,
    GREY,
    INK,
    SKY,
    VERMILLION,
    axes_for,
    decimals,
    few_ticks,
    figure_of_a_store,
    fixed,
    heading,
    plain,
    spaced,
    span,
    text_width,
)
from kipoi_deepmr.plots.choice import exposures_of, local_effects, one_of
from kipoi_deepmr.plots.labels import apart, ratio_label, short
from kipoi_deepmr.tables.tidy import group

_ROW = 0.2
_PALE: dict[str, Any] = {"color": SKY, "lw": 5.5, "alpha": 0.55, "solid_capstyle": "butt"}


@figure_of_a_store
def forest(
    results: xr.DataTree,
    exposure: str | Sequence[str] | None = None,
    *,
    outcome: str | None = None,
    estimator: str | None = None,
    rows: int = 40,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw estimates with their intervals, a row each.

    Parameters
    ----------
    results
        An open store.
    exposure
        A name draws the local effects of its sequences, and the global effect under them. Several names, or None for
        all, draw the global effects of exposures: the estimate with its confidence interval, the prediction interval
        of a new sequence's effect, and tau. Both are sorted by their estimates, highest first.
    outcome
        Default: the first one.
    estimator
        Estimator. Default: ivw where the store has it, else the first one.
    rows
        Most rows to draw. Of more, those at evenly spaced ranks, first and last included; a note says so.
    ax
        Where to draw; see `kipoi_deepmr.plots`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the store lacks what was asked for.
    StoreError
        If the store has no estimates.
    """
    outcome, estimator = one_of(results, terms.OUTCOME, outcome), one_of(results, terms.ESTIMATOR, estimator)
    if isinstance(exposure, str):
        return _local(results, one_of(results, terms.EXPOSURE, exposure), outcome, estimator, rows, ax)
    return _global(results, exposures_of(results, exposure), outcome, estimator, rows, ax)


def _global(
    results: xr.DataTree, exposures: list[str], outcome: str, estimator: str, rows: int, ax: Axes | Figure | None
) -> Axes:
    where = {terms.EXPOSURE: exposures, terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    table = group(results, GLOBAL_GROUP).sel(where).load()
    ranked = np.argsort(-table["estimate"].values, kind="stable")
    shown = ranked[spaced(len(ranked), rows)]
    table = table.isel({terms.EXPOSURE: shown})
    estimate, low, high = (table[name].values for name in ("estimate", "ci_low", "ci_high"))
    outer = table["prediction_low"].values, table["prediction_high"].values
    ax = axes_for(ax, 1.35 + 1.25 * _ROW * (len(shown) + 1))
    at = np.arange(len(shown))
    limits = span(np.concatenate([estimate, low, high, *outer]), 0.0, *estimate)
    _bars(ax, at, *outer, limits, **_PALE)
    _bars(ax, at, low, high, limits, color=BLUE, lw=1.6)
    ax.plot(estimate, at, "s", ms=4.5, color=BLUE, mec="white", mew=0.5)
    digits = decimals((high - low) / 2)
    columns = {
        f"{_level(table)} interval": _intervals(estimate, low, high, digits),
        "τ": [fixed(value, digits) for value in np.sqrt(table["tau2"].values)],
    }
    labels = apart([str(name) for name in table[terms.EXPOSURE].values], 22)
    _frame(ax, labels, limits, columns)
    ax.set_ylim(len(shown) - 0.4, -1.5)
    ax.set_xlabel(ratio_label(results, "", outcome, labels))
    note = f"{len(shown)} of {len(ranked)} exposures, evenly spaced by rank" if len(shown) < len(ranked) else ""
    handles = [
        Line2D([], [], marker="s", ms=4.5, color=BLUE, lw=1.6, label=f"{_level(table)} interval"),
        Line2D([], [], **_PALE, label="prediction interval"),
    ]
    heading(
        ax,
        f"Global effects on {short(results, outcome, 18)}, {label_of(estimator)}",
        note,
        handles,
        labels=labels,
    )
    return ax


def _local(
    results: xr.DataTree, exposure: str, outcome: str, estimator: str, rows: int, ax: Axes | Figure | None
) -> Axes:
    table = local_effects(results, exposure, outcome, estimator)
    known = int(np.isfinite(table["estimate"].values).sum())
    absent = table.sizes[terms.SEQUENCE] - known
    table = table.isel({terms.SEQUENCE: spaced(known, rows)})
    where = {terms.EXPOSURE: exposure, terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    overall = group(results, GLOBAL_GROUP).sel(where).load()
    estimate, low, high = (table[name].values for name in ("estimate", "ci_low", "ci_high"))
    middle, inner_low, inner_high = (float(overall[name]) for name in ("estimate", "ci_low", "ci_high"))
    outer = [float(overall["prediction_low"])], [float(overall["prediction_high"])]
    at, foot = np.arange(len(estimate)), len(estimate)
    ax = axes_for(ax, 1.6 + _ROW * (foot + 2))
    limits = span(np.concatenate([estimate, low, high, *outer]), 0.0, *estimate, middle, inner_low, inner_high)
    _bars(ax, at, low, high, limits, color=BLUE, lw=1.3)
    ax.plot(estimate, at, "s", ms=4, color=BLUE, mec="white", mew=0.4)
    _bars(ax, [foot], *outer, limits, **_PALE)
    if np.isfinite(middle):
        ax.axvline(middle, color=VERMILLION, lw=0.9, ls="--", zorder=1)
        ax.fill(
            [inner_low, middle, inner_high, middle], [foot, foot - 0.4, foot, foot + 0.4], color=VERMILLION, zorder=3
        )
    digits = decimals((high - low) / 2)
    columns = _intervals([*estimate, middle], [*low, inner_low], [*high, inner_high], digits)
    labels = apart([str(name) for name in table[terms.SEQUENCE].values], 28)
    _frame(ax, [*labels, "global effect"], limits, {f"{_level(table)} interval": columns})
    ax.tick_params(axis="y", labelsize="small")
    ax.set_ylim(foot + 0.9, -1.5)
    ax.set_xlabel(ratio_label(results, exposure, outcome, labels))
    notes = [f"{len(at)} of {known} sequences, evenly spaced by rank"] if len(at) < known else []
    notes += [f"{absent} more without an estimate"] if absent else []
    handles = [
        Line2D([], [], marker="D", ms=5, color=VERMILLION, lw=0, label="global"),
        Line2D([], [], **_PALE, label="prediction interval"),
    ]
    title = f"Local effects of {short(results, exposure, 20)}, {label_of(estimator)}"
    heading(ax, title, "; ".join(notes), handles, labels=labels, size="small")
    return ax


def _level(table: xr.Dataset) -> str:
    return f"{100 * float(table['ci_low'].attrs.get('confidence_level', 0.95)):.4g}%"


def _bars(
    ax: Axes, at: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, limits: tuple[float, float], **line: Any
) -> None:
    """Draw horizontal bars; an arrow head shows that one goes on beyond the axis."""
    for y, start, stop in zip(*(np.asarray(array, dtype=float) for array in (at, low, high)), strict=True):
        if not np.isfinite([start, stop]).all():
            continue
        ax.plot([max(start, limits[0]), min(stop, limits[1])], [y, y], zorder=2, **line)
        for beyond, edge, marker in ((start < limits[0], limits[0], "<"), (stop > limits[1], limits[1], ">")):
            if beyond:
                ax.plot(edge, y, marker, ms=4.5, color=line["color"], clip_on=False, zorder=3)


def _frame(ax: Axes, labels: list[str], limits: tuple[float, float], columns: Mapping[str, list[str]]) -> None:
    """Label the rows: names on the left, columns of numbers on the right, their heads over the first row."""
    plain(ax, grid="x")
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    ax.set_xlim(*limits)
    few_ticks(ax, 4)
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    shift = 6.0
    for head, texts in columns.items():
        for row, text in enumerate([head, *texts], start=-1):
            ax.annotate(
                text,
                (1, row),
                (shift, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize="small",
                color=INK if row >= 0 else GREY,
                annotation_clip=False,
            )
        shift += text_width([head, *texts], "small") + 8


def _intervals(estimate: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, digits: int) -> list[str]:
    rows = zip(*(np.asarray(array, dtype=float) for array in (estimate, low, high)), strict=True)
    return [
        f"{fixed(middle, digits)} [{fixed(start, digits)}, {fixed(stop, digits)}]"
        if np.isfinite(middle)
        else "no estimate"
        for middle, start, stop in rows
    ]
