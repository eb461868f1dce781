"""From the window as the model reads it to the plus strand of the genome."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.reading import read


def genome_positions(start: ArrayLike, end: ArrayLike, strand: ArrayLike, position: ArrayLike) -> NDArray[np.int64]:
    """Return where positions of windows lie in the genome.

    Position 0 is the first base that the model reads: the window's first base on the plus strand, its last on the minus
    strand.

    Parameters
    ----------
    start, end
        0-based half-open windows, shape (sequence,), bp.
    strand
        ``+`` or ``-``, shape (sequence,).
    position
        Positions in the window as the model reads it, from 0, shape (position,).

    Returns
    -------
    numpy.ndarray of int64, shape (sequence, position)
        0-based coordinates on the contig.
    """
    first, after, counted = (np.asarray(values, dtype=np.int64) for values in (start, end, position))
    reverse = np.asarray(strand) == "-"
    return np.where(reverse[..., None], after[..., None] - 1 - counted, first[..., None] + counted)


def plus_strand(bases: ArrayLike, strand: ArrayLike) -> NDArray[np.str_]:
    """Return bases as they stand on the plus strand: complemented where the window is read on the minus strand.

    Parameters
    ----------
    bases
        Letters as the model reads them, shape (sequence, ...).
    strand
        ``+`` or ``-``, shape (sequence,).

    Returns
    -------
    numpy.ndarray of str, shape (sequence, ...)
        The order of the positions stays: `genome_positions` has their coordinates.
    """
    letters = np.asarray(bases, dtype="U1")
    reverse = (np.asarray(strand) == "-").reshape(-1, *[1] * (letters.ndim - 1))
    complement = np.select([letters == base for base in terms.ALLELES], list(reversed(terms.ALLELES)), letters)
    return np.where(reverse, complement, letters)


@dataclass(frozen=True, eq=False)
class GenomeVariants:
    """Where the mutations of some sequences lie, and what they change.

    Attributes
    ----------
    sequence, chrom, strand : numpy.ndarray of str, shape (sequence,)
        Names of the windows, their contigs, and the strand on which the model reads them.
    position : numpy.ndarray of int64, shape (position,)
        Positions in the window as the model reads it, from 0.
    coordinate : numpy.ndarray of int64, shape (sequence, position)
        0-based coordinates on the contig.
    reference : numpy.ndarray of str, shape (sequence, position)
        Bases of the reference on the plus strand.
    mutant : numpy.ndarray of str, shape (sequence, allele)
        The store's alleles on the plus strand.
    """

    sequence: NDArray[np.str_]
    chrom: NDArray[np.str_]
    strand: NDArray[np.str_]
    position: NDArray[np.int64]
    coordinate: NDArray[np.int64]
    reference: NDArray[np.str_]
    mutant: NDArray[np.str_]

    @classmethod
    def read(cls, effects: xr.Dataset, sequences: NDArray[np.intp]) -> "GenomeVariants":
        """Read them from `/effects` for the sequences with the given indices.

        Raises
        ------
        StoreError
            If the store is damaged.
        """

        def some(name: str) -> NDArray[Any]:
            return read(effects, name, **{terms.SEQUENCE: sequences})

        strand, position = some("strand"), read(effects, terms.POSITION)
        return cls(
            sequence=some(terms.SEQUENCE),
            chrom=some("chrom"),
            strand=strand,
            position=position,
            coordinate=genome_positions(some("start"), some("end"), strand, position),
            reference=plus_strand(some("reference_allele"), strand),
            mutant=plus_strand(np.tile(terms.ALLELES, (len(sequences), 1)), strand),
        )
