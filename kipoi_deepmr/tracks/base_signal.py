"""Effects along the genome: one value per base and task, for bedGraph and bigWig."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.reading import read
from kipoi_deepmr.tracks.overlaps import Overlaps, Stretch, genome_order, read_variants


def _strongest(effects: "np.ma.MaskedArray[Any, Any]") -> "np.ma.MaskedArray[Any, Any]":
    largest, smallest = effects.max(-1), effects.min(-1)
    return np.ma.where(abs(smallest) > abs(largest), smallest, largest)


SUMMARIES: Mapping[str, Callable[["np.ma.MaskedArray[Any, Any]"], Any]] = {
    "mean": lambda effects: effects.mean(-1),
    "mean_abs": lambda effects: abs(effects).mean(-1),
    "max": lambda effects: effects.max(-1),
    "min": lambda effects: effects.min(-1),
    "strongest": _strongest,
}
SUMMARY_MEANINGS: Mapping[str, str] = {
    "mean": "mean effect of the mutations of a base",
    "mean_abs": "mean absolute effect of the mutations of a base",
    "max": "largest effect of the mutations of a base",
    "min": "smallest effect of the mutations of a base",
    "strongest": "effect of the largest absolute value, with its sign, of the mutations of a base",
}


def summarized(effects: NDArray[np.floating[Any]], summary: str) -> NDArray[np.float64]:
    """Return one value per position.

    Parameters
    ----------
    effects
        Effects of mutations, shape (..., allele); NaN at the reference.
    summary
        One of `SUMMARIES`.

    Returns
    -------
    numpy.ndarray of float64, shape (...)
        NaN where a position has no mutation.
    """
    known = np.ma.masked_invalid(np.asarray(effects, dtype=np.float64))
    return np.asarray(np.ma.filled(SUMMARIES[summary](known), np.nan), dtype=np.float64)


def signal(effects: xr.Dataset, side: str, task: int, summary: str = "mean") -> Iterator[Stretch]:
    """Yield the effects on one task along the genome.

    All completed sequences contribute, since each was mutated once and predicted for every task, whether it is bound
    for it or not. Where windows overlap, a base has the mean of their values: they differ, because a model reads a
    base in its context.

    Parameters
    ----------
    effects
        The group `/effects` of a store.
    side
        ``exposure`` or ``outcome``.
    task
        Index of the task.
    summary
        What stands for the three mutations of a base, one of `SUMMARIES`; ``mean`` unless told.

    Yields
    ------
    Stretch
        Sorted by contig name and start, without overlap; bases without a mutation (N) are left out.

    Raises
    ------
    StoreError
        If the store is damaged.
    """
    overlaps = Overlaps()
    for sequences, variants in read_variants(effects, genome_order(effects)):
        block = read(effects, f"{side}_effect", **{side: task, terms.SEQUENCE: sequences})
        rows = zip(variants.chrom.tolist(), variants.coordinate, summarized(block, summary), strict=True)
        for chrom, coordinate, values in rows:
            yield from overlaps.add(chrom, coordinate, values)
    yield from overlaps.rest()


def bedgraph_lines(stretches: Iterator[Stretch]) -> Iterator[str]:
    """Yield the lines of a bedGraph file: contig, start (0-based), end, value to float32's precision."""
    for stretch in stretches:
        values = stretch.values.astype(np.float32).astype(str).tolist()
        for start, value in enumerate(values, stretch.start):
            yield f"{stretch.chrom}\t{start}\t{start + 1}\t{value}\n"
