"""Change the first intron base G>A behind each exon and ask for both splice sites: a table for the README."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import kipoi
import numpy as np
import pandas as pd
from make_figure import load_exons, markdown, number, update_readme

HERE = Path(__file__).resolve().parent
BASES = "ACGT"
MARKERS = ("<!-- donors: written by break_donors.py -->", "<!-- end of donors -->")


def windows(model: kipoi.model.BaseModel, fasta: Path, exons: Path, folder: Path) -> dict[str, np.ndarray]:
    """Load the windows of the model that are centred on the last bases of the exons, in the order of the gene."""
    length = model.schema.inputs["seq"].shape[1]
    contig = pd.read_csv(exons, sep="\t", header=None)[0].iloc[0]
    starts = load_exons(exons)["last"] - length // 2
    bed = folder / "windows.bed"
    bed.write_text("".join(f"{contig}\t{start}\t{start + length}\n" for start in starts))
    loader = model.default_dataloader(intervals_file=str(bed), fasta_file=str(fasta), exons_file=str(exons))
    return loader.load_all()["inputs"]


def broken(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs with the first intron base G>A."""
    sequences = inputs["seq"].copy()
    first = sequences.shape[2] // 2 + 1
    assert (sequences[:, BASES.index("G"), first] == 1).all(), "an intron does not begin with G"
    sequences[:, :, first] = np.eye(4, dtype=np.float32)[BASES.index("A")]
    return {**inputs, "seq": sequences}


def main() -> None:
    """Read the command line, predict, and update the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fasta", type=Path, default=HERE / "hg38_chr22_32000000_32300000.fa", help="FASTA file")
    parser.add_argument("--exons", type=Path, default=HERE / "exons.narrowPeak", help="exons on the strand +")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", help="README whose table to replace")
    arguments = parser.parse_args()
    model = kipoi.get_model(str(HERE / "model"), source="dir")
    with tempfile.TemporaryDirectory() as folder:
        inputs = windows(model, arguments.fasta.resolve(), arguments.exons.resolve(), Path(folder))
    before, after = (model.predict_on_batch(given) for given in (inputs, broken(inputs)))
    exons = load_exons(arguments.exons)
    columns = {
        "exon": exons["number"].astype(str),
        "length, bp": exons["length"].astype(str),
        "donor": [f"{number(a)} → {number(b)}" for a, b in zip(before[:, 1], after[:, 1], strict=True)],
        "acceptor": [f"{number(a)} → {number(b)}" for a, b in zip(before[:, 0], after[:, 0], strict=True)],
    }
    table = markdown(pd.DataFrame(columns))
    update_readme(arguments.readme, table, MARKERS)
    print(table)


if __name__ == "__main__":
    main()
