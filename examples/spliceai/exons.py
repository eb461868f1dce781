"""Write internal exons as narrowPeak, the summit on each exon's last base, from the annotation of the package spliceai."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

LONGEST_EXON = 400  # what the window of the model holds


def annotation(assembly: str) -> Path:
    """Return the annotation file of the installed package spliceai, which is not imported."""
    try:
        distribution = importlib.metadata.distribution("spliceai")
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(
            "the package spliceai, which holds the annotation, is not installed: pip install --no-deps spliceai==1.3.1"
        ) from None
    return Path(str(distribution.locate_file(f"spliceai/annotations/{assembly}.txt")))


def internal_exons(text: str, genes: list[str]) -> Iterator[tuple[str, str, str, int, int, int]]:
    """Yield name, contig, strand, number, start and end (0-based, half-open) of exons with two splice sites.

    Parameters
    ----------
    text : str
        Annotation of the package: name, contig, strand, transcript start and end, exon starts, exon ends.
    genes : list of str
        Names of genes; empty for all.
    """
    rows = {fields[0]: fields for fields in (line.split("\t") for line in text.splitlines()[1:])}
    unknown = [gene for gene in genes if gene not in rows]
    if unknown:
        raise SystemExit(f"the annotation has no gene {', '.join(unknown)}; it names genes as GENCODE V24 does")
    for gene in genes or rows:
        _, contig, strand, _, _, starts, ends = rows[gene]
        pairs = list(zip(map(int, starts.split(",")[:-1]), map(int, ends.split(",")[:-1]), strict=True))
        if strand == "-":
            pairs.reverse()
        for number, (start, end) in list(enumerate(pairs, start=1))[1:-1]:
            yield gene, f"chr{contig.removeprefix('chr')}", strand, number, start, end


def narrow_peaks(text: str, genes: list[str], offset: int = 0) -> str:
    """Return narrowPeak lines, without exons that are longer than the model's window holds or end as an earlier one."""
    lines, seen = [], set()
    for gene, contig, strand, number, start, end in internal_exons(text, genes):
        site = (contig, strand, end if strand == "+" else start)
        if end - start <= LONGEST_EXON and site not in seen:
            seen.add(site)
            summit = end - start - 1 if strand == "+" else 0
            fields = (contig, start - offset, end - offset, f"{gene}_exon{number}", 0, strand, 0, -1, -1, summit)
            lines.append("\t".join(map(str, fields)) + "\n")
    return "".join(lines)


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("genes", nargs="*", metavar="GENE", help="names of genes, such as SLC5A1; default: all")
    parser.add_argument("--assembly", choices=["grch37", "grch38"], default="grch38", help="default: %(default)s")
    parser.add_argument("--offset", type=int, default=0, help="bases of the contig that the FASTA file lacks in front")
    parser.add_argument("-o", "--output", type=Path, required=True, help="narrowPeak file to write")
    arguments = parser.parse_args()
    text = annotation(arguments.assembly).read_text(encoding="utf-8")
    arguments.output.write_text(narrow_peaks(text, arguments.genes, arguments.offset), encoding="utf-8")


if __name__ == "__main__":
    main()
