import gzip
import os
import time
from pathlib import Path

import numpy as np
import pytest

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import Genome

DATA = Path(__file__).parents[2] / "shared" / "data" / "hg38_chr22_32000000_32300000.fa"
BASES = "ACGT"


def write(folder: Path, contigs: dict[str, str], width: int = 7, newline: str = "\n") -> Path:
    path = folder / "genome.fa"
    lines = []
    for name, text in contigs.items():
        lines += [f">{name} description"] + [text[at : at + width] for at in range(0, len(text), width)]
    path.write_bytes(newline.join([*lines, ""]).encode())
    return path


def encode(text: str) -> list[int]:
    return [BASES.find(base) for base in text.upper()]


def test_sizes_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    with Genome(write(tmp_path, {"chr2": "ACGT" * 5, "chr10": "A", "chr1": "GATTACA"})) as genome:
        assert list(genome.sizes.items()) == [("chr2", 20), ("chr10", 1), ("chr1", 7)]
        assert genome.path == tmp_path / "genome.fa"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_codes_of_every_interval(tmp_path: Path, newline: str) -> None:
    text = "ACGTNacgtnRYWSKMGATTACAggC"
    with Genome(write(tmp_path, {"other": "TT", "chr1": text}, newline=newline)) as genome:
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                codes = genome.codes("chr1", start, end)
                assert codes.dtype == np.int8
                assert codes.tolist() == encode(text[start:end])


def test_reverse_complement(tmp_path: Path) -> None:
    with Genome(write(tmp_path, {"chr1": "AACGTNRa"})) as genome:
        assert genome.codes("chr1", 0, 8, "-").tolist() == encode("TNNACGTT")
        assert genome.codes("chr1", 0, 8, "-")[::-1].tolist() == [3, 3, 2, 1, 0, -1, -1, 3]


def test_real_genome(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is absent")
    path = tmp_path / DATA.name
    path.write_bytes(DATA.read_bytes())
    text = "".join(DATA.read_text().split("\n")[1:])
    with Genome(path) as genome:
        assert dict(genome.sizes) == {"chr22": 300_000}
        assert genome.codes("chr22", 123_000, 124_000).tolist() == encode(text[123_000:124_000])
        assert genome.codes("chr22", 299_000, 300_000).tolist() == encode(text[299_000:])


@pytest.mark.parametrize(
    ("chrom", "start", "end", "message"),
    [
        ("chr1", -1, 3, "not within"),
        ("chr1", 0, 9, "has 8 bp"),
        ("chr1", 3, 3, "start < end"),
        ("1", 0, 3, "Did you mean 'chr1'"),
        ("Chr1", 0, 3, "Did you mean 'chr1'"),
        ("weird", 0, 3, "It has chr1, 2"),
        ("chr2", 0, 3, "Did you mean '2'"),
    ],
)
def test_intervals_outside_the_genome(tmp_path: Path, chrom: str, start: int, end: int, message: str) -> None:
    with Genome(write(tmp_path, {"chr1": "ACGTACGT", "2": "A"})) as genome, pytest.raises(SequenceError, match=message):
        genome.codes(chrom, start, end)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"chr1": "ACGT"})
    monkeypatch.setenv("HOME", str(tmp_path))
    with Genome(Path("~/genome.fa")) as genome:
        assert genome.path == tmp_path / "genome.fa"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.fa", b"", "is empty"),
        ("not.fa", b"hello\n", "not FASTA"),
        ("binary.fa", b"\x00\x01\x02", "not FASTA"),
        ("plain.fa.gz", gzip.compress(b">chr1\nACGT\n", mtime=0), "not with bgzip"),
        ("renamed.fa", gzip.compress(b">chr1\nACGT\n", mtime=0), "not with bgzip"),
        ("fake.fa.gz", b">chr1\nACGT\n", "not with bgzip"),
        ("ragged.fa", b">chr1\nACGT\nAC\nACGT\n", "cannot be indexed"),
        ("twice.fa", b">chr1\nACGT\n>chr1\nACGT\n", "cannot be indexed .* Duplicate key"),
    ],
)
def test_bad_fasta(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SequenceError, match=message) as caught:
        Genome(path)
    assert str(path) in str(caught.value)


def test_missing_fasta_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SequenceError, match=r"absent\.fa does not exist"):
        Genome(tmp_path / "absent.fa")
    with pytest.raises(SequenceError, match="cannot be read"):
        Genome(tmp_path)


def test_no_right_to_write_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"chr1": "ACGT"})
    monkeypatch.setattr(os, "access", lambda target, mode: False)
    with pytest.raises(SequenceError, match=r"no up-to-date index .*samtools faidx .*link the FASTA"):
        Genome(path)
    assert not Path(f"{path}.fai").exists()


def test_index_that_cannot_be_made_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"chr1": "ACGT"})
    Genome(path).close()
    now = time.time()
    os.utime(f"{path}.fai", (now - 99, now - 99))
    monkeypatch.setattr(os, "access", lambda target, mode: False)
    with pytest.raises(SequenceError, match=r"older than the FASTA file and cannot be written.*touch"):
        Genome(path)


def test_read_only_index_that_is_up_to_date_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"chr1": "ACGT"})
    Genome(path).close()
    monkeypatch.setattr(os, "access", lambda target, mode: False)
    with Genome(path) as genome:
        assert genome.sizes == {"chr1": 4}


def test_index_of_another_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"chr1": "ACGT"})
    Path(f"{path}.fai").write_text("chr1\t100\t6\t7\t8\n")
    with pytest.raises(SequenceError, match=r"index .* does not fit .*: delete"):
        Genome(path)


def test_broken_index(tmp_path: Path) -> None:
    path = write(tmp_path, {"chr1": "ACGT"})
    Path(f"{path}.fai").write_text("nonsense\n")
    with pytest.raises(SequenceError, match=r"index .* is broken"):
        Genome(path)
