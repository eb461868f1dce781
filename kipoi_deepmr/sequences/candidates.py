"""The candidate windows: what a file of intervals offers on a genome, and the priority of each window."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences.genome import Genome, contig_hint, examples
from kipoi_deepmr.sequences.peaks import read_intervals
from kipoi_deepmr.sequences.windows import Windows

Integers = npt.NDArray[np.int64]

_STRANDS = np.array(["+", "-"])


class Axis:
    """Puts all windows of a genome on one line, so that a window is one integer that sorts in the order of output."""

    def __init__(self, genome: Genome, length: int) -> None:
        self.genome = genome
        self.length = length
        self.names = pd.Index(list(genome.sizes), dtype=object)
        self.sizes = np.fromiter(genome.sizes.values(), np.int64, len(genome.sizes))
        self.offsets = np.cumsum(self.sizes) - self.sizes
        self._labels = self.names.to_numpy().astype(np.str_)

    def contigs(self, chromosomes: Sequence[str] | None) -> Integers | None:
        """Return the indices of the named contigs, or None for all."""
        if chromosomes is None:
            return None
        if isinstance(chromosomes, str) or not len(chromosomes):
            raise SequenceError(f"chromosomes is {chromosomes!r}. Give a list of names, or leave it out to use all.")
        names = [str(chrom) for chrom in chromosomes]
        for chrom in names:
            if chrom not in self.genome.sizes:
                hint = contig_hint(chrom, self.genome.sizes)
                raise SequenceError(f"chromosomes names {chrom!r}, which {self.genome.path} does not have.{hint}")
        return self.names.get_indexer(pd.Index(names, dtype=object)).astype(np.int64)

    def keys(self, contig: Integers, start: Integers, reverse: npt.NDArray[np.bool_]) -> Integers:
        """Return the integers of windows, given by contig index, start and whether they are reversed."""
        return (self.offsets[contig] + start) * 2 + reverse

    def contig(self, keys: Integers) -> Integers:
        """Return the contig index of each window."""
        return np.searchsorted(self.offsets, keys >> 1, side="right") - 1

    def span(self, key: int) -> tuple[int, int]:
        """Return the smallest and the largest key on the contig of a window."""
        contig = self._contig(key)
        lowest = 2 * int(self.offsets[contig])
        return lowest, lowest + 2 * int(self.sizes[contig]) - 1

    def _contig(self, key: int) -> int:
        return int(self.contig(np.array([key]))[0])

    def bases(self, key: int) -> npt.NDArray[np.int8]:
        """Read the bases of a window, on its strand."""
        contig = self._contig(key)
        start = (key >> 1) - int(self.offsets[contig])
        return self.genome.codes(self.names[contig], start, start + self.length, _STRANDS[key & 1])

    def windows(self, keys: Integers) -> Windows:
        """Return the windows of some keys."""
        contig = self.contig(keys)
        start = (keys >> 1) - self.offsets[contig]
        return Windows(self._labels[contig], start, start + self.length, _STRANDS[keys & 1])


@dataclass(frozen=True, eq=False)
class Intervals:
    """The distinct windows of one file that lie within the genome, and the counts of the others."""

    keys: Integers
    read: int
    other_chromosome: int
    missing_contig: int
    off_contig: int
    duplicate: int


def read_source(path: Path, axis: Axis, wanted: Integers | None, use_strand: bool) -> Intervals:
    """Read a file and sort its intervals into windows that can be used and those that cannot."""
    intervals = read_intervals(path)
    if use_strand:
        _check_strands(path, intervals)
    contig = axis.names.get_indexer(pd.Index(intervals["chrom"], dtype=object)).astype(np.int64)
    if (contig < 0).all():
        raise SequenceError(_mismatch(path, list(dict.fromkeys(intervals["chrom"])), axis.genome))
    other = np.zeros(len(contig), np.bool_) if wanted is None else ~np.isin(contig, wanted)
    missing = ~other & (contig < 0)
    start = intervals["center"].to_numpy() - axis.length // 2
    off = ~other & ~missing & ((start < 0) | (start + axis.length > axis.sizes[contig]))
    left = ~(other | missing | off)
    reverse = (intervals["strand"] == "-").to_numpy(np.bool_) & use_strand
    keys = axis.keys(contig[left], start[left], reverse[left])
    distinct = np.unique(keys)
    return Intervals(
        keys=distinct,
        read=len(contig),
        other_chromosome=int(other.sum()),
        missing_contig=int(missing.sum()),
        off_contig=int(off.sum()),
        duplicate=len(keys) - len(distinct),
    )


def _check_strands(path: Path, intervals: pd.DataFrame) -> None:
    unknown = intervals[~intervals["strand"].isin(["+", "-", "."])]
    if len(unknown):
        raise SequenceError(
            f"{path}, line {unknown['line'].iloc[0]}: the strand is {unknown['strand'].iloc[0]!r}; with use_strand column 6 has to be"
            f" + or - (or . for either, which is read as +). {len(unknown)} of {len(intervals)} lines are like that: write + and -, or"
            " leave use_strand out."
        )


def _mismatch(path: Path, names: list[str], genome: Genome) -> str:
    read = "zcat" if path.suffix == ".gz" else "cat"
    if any(f"chr{name}" in genome.sizes for name in names):
        fix = f"Add the prefix that the FASTA file has: `{read} {path} | sed 's/^/chr/' > fixed.bed`"
    elif any(name.removeprefix("chr") in genome.sizes for name in names):
        fix = f"Drop the prefix that the FASTA file lacks: `{read} {path} | sed 's/^chr//' > fixed.bed`"
    else:
        fix = "Check that both are of the same genome assembly and spell the names alike (chr1 or 1)"
    return (
        f"No contig of {path} ({examples(names)}) is in {genome.path} ({examples(genome.sizes)}). {fix}, or use a"
        " FASTA file with matching names."
    )


def priorities(windows: Windows, seed: int) -> npt.NDArray[np.uint64]:
    """Return the priority of each window: a hash of the seed and its coordinates, the same on every machine."""
    digests = (
        hashlib.blake2b(f"{seed}\t{chrom}\t{start}\t{end}\t{strand}".encode(), digest_size=8).digest()
        for chrom, start, end, strand in windows.rows()
    )
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
