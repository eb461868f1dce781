"""Windows of a genome before their bases are read, and what became of the intervals that they come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ExposureReport:
    """What became of the intervals of one exposure.

    The counts add up: ``read`` is the sum of ``other_chromosome``, ``missing_contig``, ``off_contig``, ``duplicate``,
    ``many_n``, ``below_min_prediction`` and ``usable``.

    Attributes
    ----------
    exposure : str
        Name of the exposure.
    source : Path
        File of its intervals.
    read : int
        Intervals in the file.
    other_chromosome : int
        Intervals outside the chromosomes that were asked for.
    missing_contig : int
        Intervals on contigs that the FASTA file lacks.
    off_contig : int
        Intervals whose window leaves its contig.
    duplicate : int
        Intervals whose window the exposure already has: the same, or one within the merge distance.
    many_n : int
        Windows with too many unknown bases, of those that were inspected.
    below_min_prediction : int
        Windows that the model does not predict as bound, of those that were inspected; 0 without that filter.
    usable : int
        Windows left. The sampling stops once it has enough, so they include windows that were not inspected.
    selected : int
        Windows sampled for the exposure.
    requested : int
        Windows asked for; equal to ``usable`` when all were asked for.
    """

    exposure: str
    source: Path
    read: int
    other_chromosome: int
    missing_contig: int
    off_contig: int
    duplicate: int
    many_n: int
    below_min_prediction: int
    usable: int
    selected: int
    requested: int

    @property
    def losses(self) -> str:
        """Where the intervals of the file went, as text."""
        reasons = (
            (self.other_chromosome, "on other chromosomes"),
            (self.missing_contig, "on contigs missing from the FASTA file"),
            (self.off_contig, "too close to the end of their contig"),
            (self.duplicate, "duplicates"),
            (self.many_n, "with too many N"),
            (self.below_min_prediction, "predicted below min_prediction"),
        )
        lost = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        return f"{self.read} intervals in {self.source}" + (f", of which {lost}" if lost else "")

    @property
    def warnings(self) -> list[str]:
        """Sentences that the user should see."""
        sentences = []
        if self.selected < self.requested:
            sentences.append(
                f"{self.exposure}: only {self.selected} of {self.requested} sequences could be sampled, and all are"
                f" used ({self.losses})."
            )
        if 2 * self.missing_contig > self.read - self.other_chromosome:
            sentences.append(
                f"{self.exposure}: {self.missing_contig} of {self.read} intervals in {self.source} are on contigs that"
                " the FASTA file lacks. Check that both are of the same genome assembly."
            )
        return sentences


@dataclass(frozen=True, eq=False)
class Windows:
    """Where windows lie in a genome. Sampling has many candidates: they cost no bases.

    Attributes
    ----------
    chrom : numpy.ndarray, shape (S,), str
        Contig.
    start, end : numpy.ndarray, shape (S,), int64
        0-based half-open coordinates.
    strand : numpy.ndarray, shape (S,), str
        ``+`` or ``-``.
    """

    chrom: npt.NDArray[np.str_]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: npt.NDArray[np.str_]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.start)

    def rows(self) -> Iterator[tuple[str, int, int, str]]:
        """Yield contig, start, end and strand of each window."""
        columns = (self.chrom, self.start, self.end, self.strand)
        yield from zip(*(column.tolist() for column in columns), strict=True)

    def names(self) -> tuple[str, ...]:
        """Return names such as ``chr8:1000-2000(+)``."""
        return tuple(f"{chrom}:{start}-{end}({strand})" for chrom, start, end, strand in self.rows())

    def take(self, indices: Sequence[int] | npt.NDArray[np.bool_ | np.integer]) -> "Windows":
        """Return some of the windows, in the order of `indices` (integers, or a mask of shape (S,))."""
        chosen = np.arange(len(self))[indices if len(indices) else slice(0)]
        return Windows(self.chrom[chosen], self.start[chosen], self.end[chosen], self.strand[chosen])
