"""Windows around the last bases of exons, with the length of each exon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from kipoi.data import Dataset
from kipoiseq.dataloaders import StringSeqIntervalDl
from kipoiseq.transforms.functional import one_hot_dna

LONGEST_EXON = 400


class ExonDl(Dataset):
    """Reads sequences through kipoiseq and finds the exon whose last base stands in the middle of each.

    Parameters
    ----------
    intervals_file : str
        BED file of windows of an odd number of bases.
    fasta_file : str
        The genome.
    exons_file : str
        Exons as narrowPeak or BED6 lines: contig, start, end, name, score, strand; further columns are not read.
    use_strand : bool
        Read windows on the strand ``-`` as reverse complement; the intervals are then BED6.
    num_chr_fasta : bool
        The contigs of the FASTA file have no ``chr``.
    """

    def __init__(
        self,
        intervals_file: str,
        fasta_file: str,
        exons_file: str,
        use_strand: bool = False,
        num_chr_fasta: bool = False,
    ) -> None:
        self.exons_file = exons_file
        self.lengths = read_exons(Path(exons_file))
        self.sequences = StringSeqIntervalDl(
            intervals_file, fasta_file, num_chr_fasta=num_chr_fasta, use_strand=use_strand, ignore_targets=True
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.sequences[index]
        ranges = item["metadata"]["ranges"]
        return {
            "inputs": {
                "seq": one_hot_dna(str(item["inputs"]), neutral_value=0.0).T,
                "exon_length": np.int64(self._length(ranges)),
            },
            "metadata": item["metadata"],
        }

    def _length(self, ranges: Any) -> int:
        strand = "-" if ranges.strand == "-" else "+"
        middle = (int(ranges.start) + int(ranges.end) - 1) // 2
        try:
            return self.lengths[str(ranges.chr).removeprefix("chr"), middle, strand]
        except KeyError:
            raise ValueError(
                f"{self.exons_file} has no exon on the strand {strand} whose last base is {ranges.chr}:{middle + 1}, the "
                f"middle of the window {ranges.chr}:{ranges.start}-{ranges.end}: give windows centred on the last bases "
                "of its exons (its narrowPeak summits), and use_strand: true for exons on the strand -"
            ) from None


def read_exons(path: Path) -> dict[tuple[str, int, str], int]:
    """Read exons.

    Parameters
    ----------
    path : pathlib.Path
        BED6 or narrowPeak.

    Returns
    -------
    dict
        Bases of each exon by contig without ``chr``, 0-based place of its last base and strand.

    Raises
    ------
    ValueError
        If a line has no strand, an exon is longer than 400 bases, or two of unlike length end at the same base.
    """
    exons: dict[tuple[str, int, str], int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t")
        if len(fields) < 6 or fields[5] not in ("+", "-"):
            raise ValueError(f"{path}, line {number}: an exon needs a strand, + or -, as column 6")
        start, end, strand = int(fields[1]), int(fields[2]), fields[5]
        if not 0 < end - start <= LONGEST_EXON:
            raise ValueError(
                f"{path}, line {number}: an exon of {end - start} bases; the window reaches 1 to {LONGEST_EXON} bases "
                "back from the 5' splice site: remove it"
            )
        last = end - 1 if strand == "+" else start
        if exons.setdefault((fields[0].removeprefix("chr"), last, strand), end - start) != end - start:
            raise ValueError(
                f"{path}, line {number}: a second exon with this 5' splice site and another 3' splice site: keep the one "
                "that is asked about"
            )
    return exons
