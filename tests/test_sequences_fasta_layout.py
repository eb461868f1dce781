import os
from pathlib import Path

import numpy as np
import pyfaidx
import pytest

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import Genome

BASES = "".join(np.random.default_rng(0).choice(list("ACGT"), 300))


def lines(text: str, width: int = 60, end: str = "\n") -> str:
    return "".join(text[at : at + width] + end for at in range(0, len(text), width))


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "genome.fa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def replaced(folder: Path, indexed: str, text: str, *, newer: bool) -> Path:
    """A FASTA file with the index of another one, which looks older or newer than the file."""
    path = write(folder, indexed)
    pyfaidx.Faidx(str(path))
    path.write_text(text)
    os.utime(path, (1e9, 1e9))
    os.utime(f"{path}.fai", (1e9 - newer, 1e9 - newer))
    return path


def one_line(**contigs: str) -> str:
    return "".join(f">{name}\n{text}\n" for name, text in contigs.items())


OTHERS = {
    "shorter header": (">chr1 assembly two\n" + BASES + "\n", one_line(chr1=BASES)),
    "contigs that changed places": (one_line(chr1=BASES, chr2=BASES[::-1]), one_line(chr2=BASES[::-1], chr1=BASES)),
    "another name": (one_line(chr1=BASES), one_line(chr3=BASES)),
    "a longer contig": (one_line(chr1=BASES), one_line(chr1=BASES + "A")),
    "a shorter contig": (one_line(chr1=BASES), one_line(chr1=BASES[:-9])),
    "other lines": (">chr1\n" + lines(BASES, 60), ">chr1\n" + lines(BASES, 50)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_index_of_another_file_is_an_error(tmp_path: Path, kind: str) -> None:
    path = replaced(tmp_path, *OTHERS[kind], newer=False)
    with pytest.raises(SequenceError, match=r"genome\.fa, line \d+: .*'chr[12]'"), Genome(path) as genome:
        genome.codes("chr1", 100, 140)


@pytest.mark.parametrize("kind", OTHERS)
def test_an_index_that_is_older_is_made_again(tmp_path: Path, kind: str) -> None:
    indexed, text = OTHERS[kind]
    with Genome(replaced(tmp_path, indexed, text, newer=True)) as genome:
        assert genome.codes(next(iter(genome.sizes)), 0, 40).shape == (40,)
        assert "chr1" not in genome.sizes or genome.codes("chr1", 100, 140).tolist() == [
            "ACGT".index(b) for b in BASES[100:140]
        ]


def with_sign(sign: bytes) -> bytes:
    text = bytearray(f">chr2\nACGT\n>chr1\n{lines(BASES)}".encode())
    text[18 + 2 * 61 + 5 : 18 + 2 * 61 + 6] = sign
    return bytes(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">chr1\n" + lines(BASES, end=" \n"), "line 2: a blank in the sequence of the contig 'chr1'"),
        (with_sign(b" "), "line 6: a blank in the sequence"),
        (with_sign(b"\t"), "line 6: a tab"),
        (with_sign(b"\0"), "line 6: a NUL byte"),
        (with_sign(b"5"), "line 6: the sign '5'"),
        (">chr1\r" + lines(BASES, end="\r"), "carriage returns for line ends"),
        (">chr1\n" + lines(BASES[:120]) + lines(BASES[120:], 50), "not consistent"),
    ],
)
def test_lines_that_cannot_be_read_rightly_are_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SequenceError, match=message), Genome(path) as genome:
        genome.codes("chr1", 0, 4)


def test_a_line_end_that_moved_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, ">chr1\n" + lines(BASES))
    pyfaidx.Faidx(str(path))
    text = path.read_text()
    path.write_text(text[:126] + "\n" + text[126] + text[128:])
    os.utime(path, (1e9, 1e9))
    with (
        Genome(path) as genome,
        pytest.raises(SequenceError, match="line 3: an early line end in the sequence of the contig"),
    ):
        genome.codes("chr1", 200, 240)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [50, 60, 300, 400])
@pytest.mark.parametrize("tail", ["", "\n\n"])
def test_sound_files_are_read(tmp_path: Path, end: str, width: int, tail: str) -> None:
    body = lines(BASES, width, end)
    path = write(tmp_path, f">chr1 a b{end}{body}>chr2{end}{lines(BASES[::-1], width, end).rstrip()}{tail}")
    with Genome(path) as genome:
        assert genome.codes("chr1", 0, 300).tolist() == ["ACGT".index(base) for base in BASES]
        assert genome.codes("chr2", 0, 300).tolist() == ["ACGT".index(base) for base in BASES[::-1]]


def test_a_contig_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("kipoi_deepmr.sequences.genome.check_contig", lambda path, record: seen.append(record.name))
    with Genome(write(tmp_path, one_line(chr1=BASES, chr2=BASES))) as genome:
        for _ in range(3):
            genome.codes("chr1", 0, 40)
    assert seen == ["chr1"]
