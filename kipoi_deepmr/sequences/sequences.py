"""The sequences of a run as one value: windows, bases and names, read once from the genome."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences.genome import Genome, examples
from kipoi_deepmr.sequences.shuffle import dinucleotide_shuffle
from kipoi_deepmr.sequences.windows import ExposureReport, Windows
from kipoi_deepmr.terms import SHUFFLE


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of one length that are to be mutated: all that a run, or a worker of it, needs to know of them.

    About one byte a base (three for shuffled copies), also when pickled; the FASTA file is needed by `read` and
    `recentred` only.

    Attributes
    ----------
    windows : Windows
        Where they lie in the genome; shuffled copies lie where their origin does.
    names : tuple of str
        Unique names, which decide the draws of each: coordinates, for shuffled copies with the number of the shuffle.
    bases : numpy.ndarray, shape (S, L), int8
        0, 1, 2, 3 for A, C, G, T as the model reads them (the strand of the window); -1 for anything else.
    bound : numpy.ndarray, shape (E, S), bool
        Whether the sequence counts for the exposure.
    exposures : tuple of str
        Names of the exposures.
    report : tuple of ExposureReport
        What became of the intervals of each exposure.
    order : numpy.ndarray, shape (S, L), unsigned integers, or None
        For shuffled copies: the position in the window of each base. What a dataloader gives for the window becomes the
        input of the copy by taking its positions in this order.
    """

    windows: Windows
    names: tuple[str, ...]
    bases: npt.NDArray[np.int8]
    bound: npt.NDArray[np.bool_]
    exposures: tuple[str, ...]
    report: tuple[ExposureReport, ...]
    order: npt.NDArray[np.unsignedinteger] | None = None

    @classmethod
    def read(
        cls,
        windows: Windows,
        genome: Genome,
        *,
        bound: npt.NDArray[np.bool_],
        exposures: tuple[str, ...],
        report: tuple[ExposureReport, ...] = (),
    ) -> "Sequences":
        """Read the bases of windows, each once.

        Parameters
        ----------
        windows
            Windows of one length.
        genome
            The FASTA file.
        bound, exposures, report
            See the attributes.

        Raises
        ------
        SequenceError
            If a window leaves its contig, or the FASTA file does not have it.
        """
        length = int((windows.end - windows.start).max(initial=0))
        bases = np.empty((len(windows), length), np.int8)
        for row, window in enumerate(windows.rows()):
            bases[row] = genome.codes(*window)
        return cls(windows, windows.names(), bases, bound, exposures, report)

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.names)

    @property
    def length(self) -> int:
        """Length of each sequence in bp."""
        return self.bases.shape[1]

    @property
    def digest(self) -> str:
        """sha256 of the bases."""
        return hashlib.sha256(self.bases.tobytes()).hexdigest()

    @property
    def bases_of_windows(self) -> npt.NDArray[np.int8]:
        """Bases before they were shuffled, as they stand in the genome, shape (S, L), int8."""
        if self.order is None:
            return self.bases
        original = np.empty_like(self.bases)
        np.put_along_axis(original, self.order.astype(np.intp), self.bases, axis=1)
        return original

    def mutants(self, positions: range) -> npt.NDArray[np.int64]:
        """Return how many mutants each sequence has: three at each known base, none at N.

        Parameters
        ----------
        positions
            The positions to mutate.

        Returns
        -------
        numpy.ndarray, shape (S,), int64
        """
        known: npt.NDArray[np.int64] = (self.bases[:, positions.start : positions.stop] >= 0).sum(axis=1)
        return 3 * known

    def take(self, indices: Sequence[int] | npt.NDArray[np.bool_ | np.integer]) -> "Sequences":
        """Return some of the sequences, in the order of `indices` (integers, or a mask of shape (S,))."""
        chosen = np.arange(len(self))[indices if len(indices) else slice(0)]
        return replace(
            self,
            windows=self.windows.take(chosen),
            names=tuple(self.names[index] for index in chosen),
            bases=self.bases[chosen],
            bound=self.bound[:, chosen],
            order=None if self.order is None else self.order[chosen],
        )

    def shuffled(self, count: int, generator: Callable[[str], np.random.Generator]) -> "Sequences":
        """Return copies that keep the dinucleotides of each sequence, but not their order.

        Parameters
        ----------
        count
            Copies of each sequence; they stand side by side.
        generator
            Source of randomness of the copy with a name.

        Raises
        ------
        SequenceError
            If these are shuffled copies already.
        """
        self._check_genomic("shuffled")
        copies = self.take(np.repeat(np.arange(len(self)), count))
        numbers = np.tile(np.arange(1, count + 1), len(self))
        names = tuple(f"{name}{SHUFFLE}{number}" for name, number in zip(copies.names, numbers, strict=True))
        order = np.empty(copies.bases.shape, np.min_scalar_type(self.length))
        for row, (name, bases) in enumerate(zip(names, copies.bases, strict=True)):
            order[row] = dinucleotide_shuffle(bases, generator(name))
        bases = np.take_along_axis(copies.bases, order.astype(np.intp), axis=1)
        return replace(copies, names=names, bases=bases, order=order)

    def recentred(self, length: int, genome: Genome) -> "Sequences":
        """Read windows of another length around the same centres, as another model needs them.

        The centre of a window of `n` bases is ``start + n // 2`` on either strand, as in `sample_sequences`.

        Parameters
        ----------
        length
            Length of the new windows in bp.
        genome
            The FASTA file.

        Raises
        ------
        SequenceError
            If windows would leave their contig; the message counts and names them. Or if these are shuffled copies,
            which are not in the genome.
        """
        self._check_genomic("recentred")
        old = self.windows
        start = old.start + (old.end - old.start) // 2 - length // 2
        windows = replace(old, start=start, end=start + length)
        sizes = np.array([genome.sizes.get(chrom, length) for chrom in old.chrom.tolist()], np.int64)
        outside = np.flatnonzero((windows.start < 0) | (windows.end > sizes))
        if outside.size:
            raise SequenceError(
                f"{outside.size} of {len(self)} windows leave their contig when they are {length} bp long"
                f" ({examples([self.names[row] for row in outside])}). Leave these sequences out, or use a model of"
                " shorter sequences."
            )
        return Sequences.read(windows, genome, bound=self.bound, exposures=self.exposures, report=self.report)

    def _check_genomic(self, what: str) -> None:
        if self.order is not None:
            raise SequenceError(f"Shuffled sequences cannot be {what}: start from the sequences that they come from.")
