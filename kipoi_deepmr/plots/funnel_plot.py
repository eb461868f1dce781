"""Funnel plot: the estimate of each instrument against its precision."""

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
    few_ticks,
    figure_of_a_store,
    heading,
    plain,
    span,
    style_of,
    three_digits,
)
from kipoi_deepmr.plots.choice import lines_of, mutations, one_of, sequence_of
from kipoi_deepmr.plots.labels import ratio_label
from kipoi_deepmr.tables.tidy import group

_RASTERIZED_FROM = 400


@figure_of_a_store
def funnel(
    results: xr.DataTree,
    exposure: str,
    *,
    outcome: str | None = None,
    estimator: str | None = None,
    sequence: str | None = None,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw the ratio of each instrument, outcome effect / exposure effect, against its precision.

    The precision is |exposure effect| / SE of the outcome effect, to first order the inverse of the ratio's standard
    error. Points that scatter evenly about the estimate speak against directional pleiotropy.

    Parameters
    ----------
    results
        An open store.
    exposure
        Its name.
    outcome
        Default: the first one.
    estimator
        Draw the line of this estimator alone. Default: up to six.
    sequence
        Default: the one whose local effect is the median.
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
    sequence, rank = sequence_of(results, exposure, outcome, one_of(results, terms.ESTIMATOR, estimator), sequence)
    found = mutations(results, exposure, outcome, sequence)
    moved = found.used & (found.bx != 0)
    ratio = found.by[moved] / found.bx[moved]
    precision = np.abs(found.bx[moved]) / found.byse[moved]
    local = group(results, LOCAL_GROUP).sel({"exposure": exposure, "outcome": outcome, "sequence": sequence}).load()
    # Joint ones hold the effects of other exposures fixed, which the ratios do not.
    drawn, some = lines_of(results, estimator, lambda row: not row.joint)
    estimates = {name: float(local["estimate"].sel({terms.ESTIMATOR: name})) for name in drawn}
    ax = axes_for(ax, 3.7)
    precise = precision >= np.median(precision) if len(precision) else moved[moved]
    limits = span([*ratio[precise], *estimates.values()], 0.0, reach=2.0)
    beyond = int(((ratio < limits[0]) | (ratio > limits[1])).sum())
    ax.plot(ratio, precision, "o", ms=3.6, color=INK, alpha=0.45, mec="none", rasterized=len(ratio) >= _RASTERIZED_FROM)
    handles = []
    far = []
    for name, estimate in estimates.items():
        if limits[0] <= estimate <= limits[1]:
            color, line = style_of(name, drawn)
            ax.axvline(estimate, color=color, ls=line, lw=1.8, zorder=2)
            handles.append(Line2D([], [], color=color, ls=line, lw=1.8, label=label_of(name)))
        elif np.isfinite(estimate):
            far.append(f"{label_of(name)} {three_digits(estimate)}")
    plain(ax)
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    ax.set_xlim(*limits)
    ax.set_ylim(bottom=0)
    few_ticks(ax)
    ax.set_xlabel(ratio_label(results, exposure, outcome))
    ax.set_ylabel("precision of the ratio (1 / SE)")
    note = f"{len(ratio)} mutations" + (f"; {beyond} lie beyond the axis" if beyond else "")
    note += f"\nbeyond the axis: {', '.join(far)}" if far else ""
    heading(ax, sequence, f"{rank}{some}\n{note}", handles)
    return ax
