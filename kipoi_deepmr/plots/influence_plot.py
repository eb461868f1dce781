"""How the estimate of a sequence changes when a position is left out."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kipoi_deepmr import mr, terms
from kipoi_deepmr.cube import LOCAL_GROUP
from kipoi_deepmr.errors import SelectionError
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import (
    BLUE,
    INK,
    SKY,
    VERMILLION,
    axes_for,
    figure_of_a_store,
    heading,
    plain,
    span,
)
from kipoi_deepmr.plots.choice import mutations, one_of, sequence_of
from kipoi_deepmr.plots.labels import genome_axis
from kipoi_deepmr.tables.tidy import group

_ESTIMATORS = ("ivw", "egger")
_NAMED = 3
# Of the estimate: a smaller change is rounding of float32 effects.
_NOISE = 1e-6
_RASTERIZED_FROM = 300


@figure_of_a_store
def leave_one_out(
    results: xr.DataTree,
    exposure: str,
    *,
    outcome: str | None = None,
    estimator: str = "ivw",
    sequence: str | None = None,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw the estimate without the mutations of each position, in turn, with its interval.

    A position without which the estimate changes much carries it; the three that change it most are named, and those without which there is no estimate.

    Parameters
    ----------
    results
        An open store.
    exposure
        Its name.
    outcome
        Default: the first one.
    estimator
        `ivw` or `egger`, estimated again here with their default options.
    sequence
        Default: the one whose local effect by the store's ivw, or first estimator, is the median.
    ax
        Where to draw; see `kipoi_deepmr.plots`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the store lacks what was asked for, or the estimator is another one.
    StoreError
        If the store has no estimates, or not yet the effects of the sequence.
    """
    if estimator not in _ESTIMATORS:
        raise SelectionError(f"leave-one-out is drawn for {' and '.join(_ESTIMATORS)}, not for '{estimator}'")
    exposure, outcome = one_of(results, terms.EXPOSURE, exposure), one_of(results, terms.OUTCOME, outcome)
    sequence, rank = sequence_of(results, exposure, outcome, one_of(results, terms.ESTIMATOR, None), sequence)
    found = mutations(results, exposure, outcome, sequence)
    level = float(group(results, LOCAL_GROUP)["ci_low"].attrs.get("confidence_level", 0.95))
    data = [array.reshape(-1) for array in (found.bx, found.bxse, found.by, found.byse)]
    labels = np.repeat(found.coordinate, found.bx.shape[1])
    without = mr.diagnostics.leave_one_out(*data, groups=labels, estimator=estimator, alpha=1 - level)
    full = float(getattr(mr, estimator)(*data).estimate)
    ax = axes_for(ax, 3.0)
    limits = span(np.concatenate([without.estimate, without.ci_low, without.ci_high]), full, *without.estimate)
    low, high = (np.clip(array, *limits) for array in (without.ci_low, without.ci_high))
    many = len(low) > _RASTERIZED_FROM
    interval = f"{100 * level:.4g}% interval"
    ax.fill_between(
        without.left_out, low, high, color=SKY, alpha=0.4, lw=0, step="mid", label=interval, rasterized=many
    )
    ax.axhline(full, color=VERMILLION, lw=1, ls="--", label="none left out")
    ax.step(without.left_out, without.estimate, where="mid", color=BLUE, lw=1.1, label="one left out")
    plain(ax)
    ax.set_ylim(*limits)
    ax.set_xlim(found.coordinate.min() - 0.5, found.coordinate.max() + 0.5)
    genome_axis(ax, found.chrom, found.strand)
    ax.set_ylabel(f"{label_of(estimator)} estimate\n(outcome per exposure,\n{results.attrs['scale']} scale)")
    change = np.nan_to_num(np.abs(without.estimate - full))
    strongest = [int(index) for index in np.argsort(-change)[:_NAMED] if change[index] > _NOISE * abs(full)]
    ax.plot(without.left_out[strongest], without.estimate[strongest], "o", ms=4, color=BLUE, mec=INK, mew=0.6)
    notes = [rank]
    if strongest:
        notes.append(f"largest changes: {_listed(without.left_out[strongest])}")
    needed = without.left_out[~np.isfinite(without.estimate)]
    if len(needed) and np.isfinite(full):
        more = f" or {len(needed) - _NAMED} more" if len(needed) > _NAMED else ""
        notes.append(f"no estimate without {_listed(needed[:_NAMED])}{more}")
    heading(ax, f"{label_of(estimator)} of {sequence}", "\n".join(notes), ax.get_legend_handles_labels()[0])
    return ax


def _listed(positions: Iterable[int]) -> str:
    return ", ".join(f"{int(position):,}" for position in positions)
