"""Sequence logo of the effects of mutations, and their profile along the whole window."""

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kipoi_deepmr import terms
from kipoi_deepmr.errors import DependencyError, SelectionError
from kipoi_deepmr.plots.canvas import (
    BASES,
    BLUE,
    GREY,
    SKY,
    VERMILLION,
    axes_for,
    figure_of_a_store,
    heading,
    plain,
)
from kipoi_deepmr.plots.choice import Mutations, mutations, one_of, sequence_of
from kipoi_deepmr.plots.labels import fall_label, genome_axis, short
from kipoi_deepmr.tables.terminal import cut

_NEARLY = 0.98


@figure_of_a_store
def logo(
    results: xr.DataTree,
    exposure: str,
    *,
    outcome: str | None = None,
    sequence: str | None = None,
    of: str = "exposure",
    region: tuple[int, int] | None = None,
    width: int = 50,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw the reference bases, as high as the prediction falls on average when they are mutated.

    A letter stands above the line where its mutations lower the prediction, below it where they raise it. Positions and
    letters are those of the plus strand of the contig, also where the model reads the minus strand.

    Parameters
    ----------
    results
        An open store.
    exposure
        Its name.
    outcome
        Default: the first one.
    sequence
        Default: the one whose local effect is the median.
    of
        Which effects: those on the `exposure` or on the `outcome`.
    region
        First and last position to draw, counted from 1 on the contig. Default: the `width` positions with the largest
        effects on the exposure.
    width
        Length of the default region in bp.
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
    DependencyError
        If logomaker is not installed.
    """
    try:
        import logomaker
    except ModuleNotFoundError as error:
        raise DependencyError("logos need logomaker: pip install 'kipoi_deepmr[plots]'") from error
    if width < 1:
        raise SelectionError(f"width is {width}: a logo has at least 1 position")
    found, sequence, task = _choose(results, exposure, outcome, sequence, of)
    coordinate, height = found.coordinate, _fall(found, of)
    first, last = region or strongest_region(found, width)
    shown = (coordinate >= first) & (coordinate <= last)
    if not shown.any():
        raise SelectionError(
            f"positions {first} to {last} lie outside of {sequence}: choose among {coordinate[0]} to {coordinate[-1]}"
        )
    ax = axes_for(ax, 2.3)
    for position, letter, value in zip(coordinate[shown], found.reference[shown], height[shown], strict=True):
        # logomaker.Logo would lay out all four letters of every position; there is but one.
        if letter in BASES and value:
            span = (0.0, float(value)) if value > 0 else (float(value), 0.0)
            logomaker.Glyph(
                int(position),
                str(letter),
                ax=ax,
                floor=span[0],
                ceiling=span[1],
                color=BASES[letter],
                font_name="DejaVu Sans",
            )
    plain(ax)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlim(first - 0.6, last + 0.6)
    ax.autoscale_view(scalex=False)
    genome_axis(ax, found.chrom, found.strand)
    ax.set_ylabel(fall_label(results, task))
    heading(
        ax,
        f"{short(results, task, 24)}, {cut(sequence, 34)}",
        "up: mutations lower the prediction; down: they raise it",
    )
    return ax


@figure_of_a_store
def profile(
    results: xr.DataTree,
    exposure: str,
    *,
    outcome: str | None = None,
    sequence: str | None = None,
    of: str = "exposure",
    region: tuple[int, int] | None = None,
    ax: Axes | Figure | None = None,
) -> Axes:
    """Draw the mean effect of the mutations of each position along the whole window, with the sign of `logo`.

    Parameters
    ----------
    results, exposure, outcome, sequence, of, ax
        As in `logo`.
    region
        First and last position of a stretch to mark.

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
    found, sequence, task = _choose(results, exposure, outcome, sequence, of)
    coordinate = found.coordinate
    ax = axes_for(ax, 2.1)
    edges = np.append(coordinate - 0.5, coordinate[-1] + 0.5)
    ax.stairs(_fall(found, of), edges, fill=True, color=BLUE if of == "exposure" else VERMILLION)
    if region:
        ax.axvspan(region[0] - 0.5, region[1] + 0.5, color=SKY, alpha=0.25, lw=0, zorder=0)
    plain(ax)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlim(edges[0], edges[-1])
    genome_axis(ax, found.chrom, found.strand)
    ax.set_ylabel(fall_label(results, task))
    heading(ax, f"{short(results, task, 24)}, {cut(sequence, 34)}", "mean over the mutations of each position")
    return ax


def strongest_region(found: Mutations, width: int = 50) -> tuple[int, int]:
    """Return first and last position of the stretch with the largest effects on the exposure.

    Parameters
    ----------
    found
        The mutations of a sequence.
    width
        Length of the stretch in bp. Of stretches that hold nearly the same effects the middle one is taken.
    """
    strength = _mean(np.abs(found.exposure_effect))
    width = min(width, len(strength))
    sums = np.convolve(strength, np.ones(width), "valid")
    good = np.flatnonzero(sums >= _NEARLY * sums.max())
    start = int(good[len(good) // 2])
    return int(found.coordinate[start]), int(found.coordinate[start + width - 1])


def _choose(
    results: xr.DataTree, exposure: str, outcome: str | None, sequence: str | None, of: str
) -> tuple[Mutations, str, str]:
    exposure, outcome = one_of(results, terms.EXPOSURE, exposure), one_of(results, terms.OUTCOME, outcome)
    if of not in (terms.EXPOSURE, terms.OUTCOME):
        raise SelectionError(f"effects are those on the exposure or the outcome, not on '{of}'")
    sequence, _ = sequence_of(results, exposure, outcome, one_of(results, terms.ESTIMATOR, None), sequence)
    task = exposure if of == terms.EXPOSURE else outcome
    return mutations(results, exposure, outcome, sequence), sequence, task


def _fall(found: Mutations, of: str) -> npt.NDArray[np.float64]:
    """Return the height of the letters: minus the mean effect of the mutations of each position."""
    return -_mean(found.exposure_effect if of == terms.EXPOSURE else found.outcome_effect)


def _mean(effect: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean over alleles, 0 at positions without a mutation."""
    known = np.isfinite(effect)
    return np.asarray(np.where(known, effect, 0.0).sum(-1) / np.maximum(known.sum(-1), 1))
