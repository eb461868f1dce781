"""Distribution of the local effects of each exposure."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP, LOCAL_GROUP
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import (
    BLUE,
    GREY,
    INK,
    SKY,
    VERMILLION,
    FloatArray,
    axes_for,
    few_ticks,
    figure_of_a_store,
    heading,
    plain,
    spaced,
    span,
)
from kipoi_deepmr.plots.choice import exposures_of, one_of
from kipoi_deepmr.plots.labels import apart, ratio_label, short
from kipoi_deepmr.tables.tidy import group

_ROW = 0.34
_SMOOTHED_FROM = 5
_GRID = 200
# In bandwidths: there a density has fallen to a hundredth.
_TAIL = 3.0
_RASTERIZED_FROM = 200


@figure_of_a_store
def density(
    results: xr.DataTree,
    exposure: str | Sequence[str] | None = None,
    *,
    outcome: str | None = None,
    estimator: str | None = None,
    rows: int = 40,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw the local effects of each exposure: a tick for each sequence, a density, the median and the global effect.

    Densities are Gaussian kernel estimates (bandwidth by Silverman's rule), each scaled to the same height; fewer than
    five sequences have ticks alone. That of all is the mixture of those of the exposures, or where one has none the
    estimate from all their values.

    Parameters
    ----------
    results
        An open store.
    exposure
        One name or several. Default: all, and in the lowest row all their local effects together.
    outcome
        Default: the first one.
    estimator
        Estimator. Default: ivw where the store has it, else the first one.
    rows
        Most exposures to draw. Of more, those at evenly spaced ranks of their medians; a note says so.
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
    wanted = exposures_of(results, exposure)
    where = {terms.EXPOSURE: wanted, terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    estimates = group(results, LOCAL_GROUP)["estimate"].sel(where).transpose(terms.EXPOSURE, terms.SEQUENCE).values
    middle = group(results, GLOBAL_GROUP)["estimate"].sel(where).values
    values = [row[np.isfinite(row)] for row in estimates]
    ranked = sorted(range(len(values)), key=lambda row: -np.median(values[row]) if values[row].size else np.inf)
    shown = [ranked[rank] for rank in spaced(len(ranked), rows)]
    everything = np.concatenate(values)
    # A mixture would leave out rows without a density of their own.
    pooled = any(len(local) and not _bandwidth(local) > 0 for local in values)
    smoothed = [values[row] for row in shown] + [everything] * pooled
    limits = _with_tails(smoothed, span(everything, 0.0, *middle[shown]))
    ax = axes_for(ax, 1.35 + _ROW * (len(shown) + (len(values) > 1)))
    grid = np.linspace(*limits, _GRID)
    curves = [_smoothed(local, grid) for local in values]
    for place, row in enumerate(shown):
        _draw(ax, place, values[row], grid, curves[row], BLUE)
        ax.plot(middle[row], place, "D", ms=5, color=VERMILLION, mec="white", zorder=5)
    shortened = apart([wanted[row] for row in shown], 22)
    labels = [f"{name}  (n = {len(values[row])})" for name, row in zip(shortened, shown, strict=True)]
    if len(values) > 1:
        parts = zip(values, curves, strict=True)
        mixture = sum((len(local) * curve for local, curve in parts), np.zeros(_GRID))
        _draw(ax, len(shown), everything, grid, _smoothed(everything, grid) if pooled else mixture, GREY)
        labels.append(f"all  (n = {len(everything)})")
    plain(ax, grid="x")
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    ax.set_xlim(*limits)
    few_ticks(ax)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.6, -0.95)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(ratio_label(results, "", outcome, labels))
    notes = [f"{len(shown)} of {len(ranked)} exposures, evenly spaced by median"] if len(shown) < len(ranked) else []
    beyond = int(((everything < limits[0]) | (everything > limits[1])).sum())
    notes += [f"{beyond} of {len(everything)} local effects lie beyond the axis"] if beyond else []
    handles = [
        Line2D([], [], marker="|", ms=7, mew=1.2, color=BLUE, lw=0, label="sequence"),
        Line2D([], [], marker="|", ms=10, mew=2.2, color=INK, lw=0, label="median"),
        Line2D([], [], marker="D", ms=5, color=VERMILLION, lw=0, label="global effect"),
    ]
    heading(
        ax,
        f"Local effects on {short(results, outcome, 18)}, {label_of(estimator)}",
        "\n".join(notes),
        handles,
        labels=labels,
    )
    return ax


def _bandwidth(local: FloatArray) -> float:
    """Return Silverman's bandwidth, zero with too few values or values all alike."""
    if len(local) < _SMOOTHED_FROM:
        return 0.0
    quartiles = np.percentile(local, (25, 75))
    spread = min(float(np.std(local, ddof=1)), float(np.ptp(quartiles)) / 1.34)
    return 0.9 * spread * len(local) ** -0.2


def _with_tails(values: Sequence[FloatArray], limits: tuple[float, float]) -> tuple[float, float]:
    """Widen limits such that the densities of the values in them are not cut."""
    low, high = limits
    for local in values:
        inside, tail = local[(local >= limits[0]) & (local <= limits[1])], _TAIL * _bandwidth(local)
        if len(inside):
            low, high = min(low, inside.min() - tail), max(high, inside.max() + tail)
    return low, high


def _smoothed(local: FloatArray, grid: FloatArray) -> FloatArray:
    """Return a Gaussian kernel density, zero where there is no bandwidth."""
    width = _bandwidth(local)
    if not width > 0:
        return np.zeros(len(grid))
    kernel = np.exp(-0.5 * ((grid[:, None] - local) / width) ** 2)
    return np.asarray(kernel.mean(axis=1) / (width * np.sqrt(2 * np.pi)))


def _draw(ax: Axes, row: int, local: FloatArray, grid: FloatArray, curve: FloatArray, color: str) -> None:
    if curve.any():
        seen = curve > curve.max() / 500
        ax.fill_between(grid, row, row - 0.78 * curve / curve.max(), where=seen, color=SKY, alpha=0.45, lw=0, zorder=2)
    inside = local[(local >= grid[0]) & (local <= grid[-1])]
    many = len(inside) > _RASTERIZED_FROM
    at = np.full(len(inside), row + 0.1)
    ax.plot(inside, at, "|", ms=6, mew=0.9, color=color, alpha=0.35 if many else 0.7, zorder=3, rasterized=many)
    if len(local):
        ax.plot([np.median(local)] * 2, [row - 0.3, row + 0.24], color=INK, lw=2, solid_capstyle="butt", zorder=4)
