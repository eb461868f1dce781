"""Effects on the outcome against effects on the exposure in one sequence, and the lines of the estimators."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kipoi_deepmr import terms
from kipoi_deepmr.cube import LOCAL_GROUP
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import (
    GREY,
    INK,
    axes_for,
    decimals,
    few_ticks,
    figure_of_a_store,
    fixed,
    heading,
    plain,
    style_of,
)
from kipoi_deepmr.plots.choice import lines_of, mutations, one_of, sequence_of
from kipoi_deepmr.plots.labels import effect_label
from kipoi_deepmr.tables.tidy import group

_RASTERIZED_FROM = 400


@figure_of_a_store
def scatter(
    results: xr.DataTree,
    exposure: str,
    *,
    outcome: str | None = None,
    estimator: str | None = None,
    sequence: str | None = None,
    error_bars: int = 60,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw a point for each mutation that is an instrument, and the line of each estimator in the store.

    Mutations that lower the exposure are drawn with both signs turned, as MR-Egger takes them: the horizontal axis is
    the size of the effect on the exposure.

    Parameters
    ----------
    results
        An open store.
    exposure
        Its name.
    outcome
        Default: the first one.
    estimator
        Draw the line of this estimator alone. Default: up to six; the median of `sequence` is then that of ivw.
        Multivariable estimators and radial MR-Egger have no line in this plane.
    sequence
        Default: the one whose local effect is the median.
    error_bars
        How many points have error bars of one standard error: those with the largest effects on the exposure.
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
        If the store has no estimates, or not yet the effects of the sequence.
    """
    exposure, outcome = one_of(results, terms.EXPOSURE, exposure), one_of(results, terms.OUTCOME, outcome)
    ranking = one_of(results, terms.ESTIMATOR, estimator)
    sequence, rank = sequence_of(results, exposure, outcome, ranking, sequence)
    found = mutations(results, exposure, outcome, sequence)
    sign = np.where(found.bx[found.used] < 0, -1.0, 1.0)
    x, y = sign * found.bx[found.used], sign * found.by[found.used]
    xse, yse = found.bxse[found.used], found.byse[found.used]
    ax = axes_for(ax, 3.7)
    barred = np.argsort(-x)[:error_bars]
    ax.errorbar(
        x[barred], y[barred], yse[barred], xse[barred], fmt="none", ecolor=GREY, elinewidth=0.7, alpha=0.55, zorder=2
    )
    ax.plot(x, y, "o", ms=3.6, color=INK, alpha=0.45, mec="none", zorder=3, rasterized=len(x) >= _RASTERIZED_FROM)
    _limits(ax, x, y, yse[barred])
    local = group(results, LOCAL_GROUP).sel({"exposure": exposure, "outcome": outcome, "sequence": sequence}).load()
    digits = decimals(((local["ci_high"] - local["ci_low"]) / 2).values)
    handles = []
    drawn, some = lines_of(results, estimator, lambda row: not (row.joint or row.radial))
    for name in drawn:
        one = local.sel({terms.ESTIMATOR: name})
        slope, start = float(one["estimate"]), float(np.nan_to_num(one["intercept"]))
        if np.isfinite(slope):
            color, line = style_of(name, drawn)
            ax.axline((0, start), slope=slope, color=color, ls=line, lw=1.8, zorder=2.5)
            label = f"{label_of(name)} {fixed(slope, digits)}"
            handles.append(Line2D([], [], color=color, ls=line, lw=1.8, label=label))
    plain(ax)
    ax.axhline(0, color=GREY, lw=0.8, zorder=1)
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    few_ticks(ax)
    ax.set_xlabel(effect_label(results, exposure, "size of effect"))
    ax.set_ylabel(effect_label(results, outcome))
    bars = f" of the {len(barred)} largest x" if len(barred) < len(x) else ""
    kind = results.attrs["standard_error"].replace("_", " ")
    note = f"{rank}{some}\n{len(x)} mutations; ± SE ({kind}){bars}"
    heading(ax, sequence, note, handles)
    return ax


def _limits(ax: Axes, x: np.ndarray, y: np.ndarray, bars: np.ndarray) -> None:
    """Show all points, and error bars as far as they do not press the points together."""
    if not len(x):
        ax.set(xlim=(0, 1), ylim=(-1, 1))
        return
    right = float(x.max()) or 1.0
    low, high = min(0.0, float(y.min())), max(0.0, float(y.max()))
    margin = max(0.06 * (high - low), min(float(bars.max(initial=0)), 0.3 * (high - low))) or 1.0
    ax.set(xlim=(-0.03 * right, 1.12 * right), ylim=(low - margin, high + margin))
