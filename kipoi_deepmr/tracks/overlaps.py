"""Windows in the order of the genome, and whether their bases are those of a FASTA file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.coordinates import GenomeVariants, genome_positions
from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.reading import read, sequence_blocks
from kipoi_deepmr.sequences.genome import Genome, contig_hint


def genome_order(effects: xr.Dataset, contigs: Sequence[str] | None = None) -> NDArray[np.intp]:
    """Return the completed sequences by contig and by their first mutated base on the plus strand.

    Parameters
    ----------
    effects
        The group `/effects` of a store.
    contigs
        Order of the contigs. Default: by the bytes of their names, as ``sort -k1,1`` in the C locale and the tools of
        UCSC have it.

    Returns
    -------
    numpy.ndarray of int, shape (completed,)
        Indices of sequences.
    """
    done = np.flatnonzero(read(effects, "completed"))
    chrom, start, end, strand = (read(effects, name)[done] for name in ("chrom", "start", "end", "strand"))
    position = read(effects, terms.POSITION)
    first = genome_positions(start, end, strand, [position.min(), position.max()]).min(axis=1)
    known = sorted(set(chrom.tolist()), key=str.encode) if contigs is None else list(contigs)
    rank = {name: place for place, name in enumerate(known)}
    number = np.array([rank[name] for name in chrom.tolist()], dtype=np.int64)
    return np.asarray(done[np.lexsort((strand, end, start, first, number))])


def check_windows(effects: xr.Dataset, genome: Genome) -> None:
    """Check that every completed window holds the bases of the FASTA file, base by base and on its strand.

    Parameters
    ----------
    effects
        The group `/effects` of a store.
    genome
        The FASTA file.

    Raises
    ------
    SequenceError
        If a contig is missing, a window leaves its contig, or a base differs.
    """
    position = read(effects, terms.POSITION)
    for sequences in sequence_blocks(effects, np.flatnonzero(read(effects, "completed"))):
        names = (terms.SEQUENCE, "chrom", "start", "end", "strand", "reference_allele")
        columns = (read(effects, name, **{terms.SEQUENCE: sequences}) for name in names)
        for name, chrom, start, end, strand, bases in zip(*columns, strict=True):
            if str(chrom) not in genome.sizes:
                raise SequenceError(
                    f"{genome.path} has no contig {str(chrom)!r}, on which sequence {name} lies."
                    f"{contig_hint(str(chrom), genome.sizes)} Give the FASTA file of the run with --fasta."
                )
            codes = genome.codes(str(chrom), int(start), int(end), str(strand))[position]
            expected = np.array([*terms.ALLELES, terms.UNKNOWN_BASE])[codes]
            wrong = np.flatnonzero(expected != bases)
            if wrong.size:
                raise SequenceError(
                    f"{genome.path} is not the genome of this store: at position {position[wrong[0]]} of {name} it has "
                    f"{expected[wrong[0]]}, the store {bases[wrong[0]]} ({wrong.size} of {bases.size} bases differ). "
                    "Give the FASTA file of the run with --fasta."
                )


@dataclass(frozen=True, eq=False)
class Stretch:
    """Values of consecutive bases.

    Attributes
    ----------
    chrom : str
        Contig.
    start : int
        0-based coordinate of the first base.
    values : numpy.ndarray of float64, shape (bases,)
        A value per base, all finite.
    """

    chrom: str
    start: int
    values: NDArray[np.float64]


def read_variants(effects: xr.Dataset, order: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], GenomeVariants]]:
    """Yield blocks of sequences in an order, and where their variants lie."""
    for sequences in sequence_blocks(effects, order):
        yield sequences, GenomeVariants.read(effects, sequences)


class Overlaps:
    """Averages the values of windows that overlap, window after window in the order of the genome.

    A base keeps the mean over the windows that have a value for it. Nothing is held but the windows that the next one
    may still overlap.
    """

    def __init__(self) -> None:
        self._chrom = ""
        self._start = 0
        self._sum = np.zeros(0)
        self._count = np.zeros(0, dtype=np.int64)

    def add(self, chrom: str, coordinate: NDArray[np.int64], values: NDArray[np.float64]) -> Iterator[Stretch]:
        """Add a window and yield what no later window can change.

        Parameters
        ----------
        chrom
            Its contig.
        coordinate
            0-based coordinates of its positions, shape (position,).
        values
            Their values, shape (position,); NaN where there is none.
        """
        first, after = int(coordinate.min()), int(coordinate.max()) + 1
        if chrom != self._chrom or first >= self._start + self._sum.size:
            yield from self.rest()
            self._chrom, self._start = chrom, first
        yield from self._settle(first - self._start)
        missing = max(0, after - self._start - self._sum.size)
        self._sum, self._count = np.pad(self._sum, (0, missing)), np.pad(self._count, (0, missing))
        there = np.isfinite(values)
        at = coordinate[there] - self._start
        self._sum[at] += values[there]
        self._count[at] += 1

    def rest(self) -> Iterator[Stretch]:
        """Yield what is left after the last window."""
        yield from self._settle(self._sum.size)

    def _settle(self, bases: int) -> Iterator[Stretch]:
        total, count = self._sum[:bases], self._count[:bases]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], count > 0, [0]])))
        for start, end in edges.reshape(-1, 2).tolist():
            yield Stretch(self._chrom, self._start + start, total[start:end] / count[start:end])
        self._start += bases
        self._sum, self._count = self._sum[bases:], self._count[bases:]
