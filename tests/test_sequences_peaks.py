import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import read_intervals

COLUMNS = ["chrom", "start", "end", "center", "summit", "name", "strand", "line"]


def write(folder: Path, text: str, name: str = "peaks.bed") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows(path: Path) -> list[list[object]]:
    return read_intervals(path).to_numpy().tolist()


def test_columns_and_types(tmp_path: Path) -> None:
    frame = read_intervals(write(tmp_path, "chr1\t10\t21\nchr2\t5\t6\n"))
    assert list(frame.columns) == COLUMNS
    assert all(frame[name].dtype == np.int64 for name in ("start", "end", "center", "line"))
    assert all(pd.api.types.is_string_dtype(frame[name]) for name in ("chrom", "name", "strand"))
    assert frame.to_numpy().tolist() == [
        ["chr1", 10, 21, 15, False, ".", ".", 1],
        ["chr2", 5, 6, 5, False, ".", ".", 2],
    ]


@pytest.mark.parametrize(
    ("line", "name", "strand", "center"),
    [
        ("chr1\t10\t20", ".", ".", 15),
        ("chr1\t10\t20\tp1", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t-", "p1", "-", 15),
        ("chr1\t10\t20\tp1\t7\t+\t10\t20\t0,0,0\t1\t10\t0", "p1", "+", 15),
        ("chr1\t10\t20\t\t0\tnone", ".", "none", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t3", "p1", ".", 13),
        ("chr1\t10\t20\tp1\t7\t+\t1.5\t2.5\t-1\t0", "p1", "+", 10),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t-1", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t9", "p1", ".", 19),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t10", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t99", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\tx", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t3.0", "p1", ".", 13),
        ("chr1\t10\t20\tp1\t7\t.\t1.5\t2.5\t-1\t3.5", "p1", ".", 15),
        ("chr1\t10\t20\tp1\t7\t.\t1e3\tinf\tNaN\t3\tmore\t1", "p1", ".", 13),
        ("chr1\t10\t20\tp1\t7\t+\tchr1\t8\t18\t8", "p1", "+", 15),
        ("chr1\t10\t20\tp1\t7\t+\t10\t20\t0,0,0\t2", "p1", "+", 15),
        ("chr1\t10\t20\tp1\t7\t+\t10\t20\t0\t2\t3,3,\t0,7,", "p1", "+", 15),
        ("chr1 10  20 p1", "p1", ".", 15),
        (" chr1 10 20", ".", ".", 15),
        ("chr1\t10\t20\tname with spaces", "name with spaces", ".", 15),
    ],
)
def test_bed_and_narrow_peak_lines(tmp_path: Path, line: str, name: str, strand: str, center: int) -> None:
    assert rows(write(tmp_path, line)) == [["chr1", 10, 20, center, center != 15, name, strand, 1]]


@pytest.mark.parametrize("summit", ["-1", "11", "."])
def test_the_middle_of_a_peak_without_summit_is_rounded_down(tmp_path: Path, summit: str) -> None:
    line = f"chr1\t10\t21\tp1\t7\t.\t1.5\t2.5\t-1\t{summit}"
    assert rows(write(tmp_path, line)) == [["chr1", 10, 21, 15, False, "p1", ".", 1]]


@pytest.mark.parametrize(
    "header", ["chrom\tstart\tend", "seqnames start end width", "V1\tV2\tV3", "chr\tchromStart\tchromEnd\tname"]
)
def test_header_and_comments_are_skipped(tmp_path: Path, header: str) -> None:
    text = (
        f"# comment\n\n   \ntrack name=peaks\nbrowser position chr1:1-2\n{header}\nchr1\t10\t20\n#end\ntrack2\t1\t3\n"
    )
    found = rows(write(tmp_path, text))
    assert found == [["chr1", 10, 20, 15, False, ".", ".", 7], ["track2", 1, 3, 2, False, ".", ".", 9]]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "peaks.bed"
    path.write_bytes(b"\xef\xbb\xbf" + newline.join(["chr1\t10\t20", "chr1\t30\t40", ""]).encode())
    assert [row[1] for row in rows(path)] == [10, 30]


@pytest.mark.parametrize("name", ["peaks.narrowPeak.gz", "peaks.bed"])
def test_gzip_is_recognised_by_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"chr1\t10\t20\n", mtime=0))
    assert rows(path) == [["chr1", 10, 20, 15, False, ".", ".", 1]]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "chr1\t10\t20\n")
    assert len(read_intervals(Path("~/peaks.bed"))) == 1


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["holds no intervals", "chrom, start, end"]),
        ("# only\ntrack x\n\n", ["holds no intervals"]),
        ("chrom\tstart\tend\n", ["holds no intervals"]),
        ("chr1\t10\t20\nchr1\t30\n", ["line 2", "2 column(s)", "at least 3"]),
        ("chr1:10-20\n", ["line 1", "1 column(s)"]),
        ("chr1,10,20\n", ["line 1", "commas"]),
        ("\t10\t20\n", ["line 1", "column(s)"]),
        ("chr1\tabc\t20\n", ["line 1", "start is 'abc'", "whole number"]),
        ("chr1\tabc\tdef\n", ["line 1", "start is 'abc'"]),
        ("chr1\t10\t20.5\n", ["end is '20.5'"]),
        ("chr1\t100000\t1e+06\n", ["end is '1e+06'", "scipen"]),
        ("chr1\t1_0\t20\n", ["start is '1_0'"]),
        ("chr1\t10\t\n", ["end is ''"]),
        ("chr1\t10\t99999999999999999999999\n", ["larger than any contig"]),
        ("chr1\t10\t20\nchrom\tstart\tend\n", ["line 2", "start is 'start'"]),
        ("chr1\t20\t10\n", ["line 1", "start 20 is greater than end 10", "swap"]),
        ("chr1\t10\t10\n", ["line 1", "both 10", "10, 11"]),
        ("\n\nchr1\t-5\t10\n", ["line 3", "start -5 is negative"]),
        ("chr1\tHAVANA\tgene\t10\t20\n", ["start is 'HAVANA'"]),
    ],
)
def test_bad_lines(tmp_path: Path, text: str, messages: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SequenceError) as caught:
        read_intervals(path)
    assert all(message in str(caught.value) for message in [str(path), *messages])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("peaks.bed.gz", b"chr1\t10\t20\n", "ends in .gz but is not a gzip file"),
        ("peaks.bed.gz", gzip.compress(b"chr1\t10\t20\n" * 99, mtime=0)[:-12], "damaged gzip"),
        ("peaks.bed.gz", gzip.compress(b"chr1\t10\t20\n" * 99, mtime=0)[:20] + b"xxxxxxxxxxxxxxxxxxxx", "damaged gzip"),
        ("peaks.bb", b"\xeb\xf2\x89\x87\x04\x00\x0a\x00", "binary file"),
        ("peaks.bed", "chr1\t10\t20\n".encode("utf-16"), "binary file"),
        ("peaks.bed.gz", gzip.compress(b"BAM\x01\x00\x00", mtime=0), "binary file"),
        ("peaks.bed.gz", b"", "holds no intervals"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SequenceError, match=message) as caught:
        read_intervals(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SequenceError, match="does not exist"):
        read_intervals(tmp_path / "absent.bed")
    with pytest.raises(SequenceError, match="cannot be read"):
        read_intervals(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SequenceError, match=r"cannot be read: Permission denied. Give a readable file"):
        read_intervals(tmp_path / "peaks.bed")


@pytest.mark.parametrize(
    "text",
    [
        "# This file is generated by MACS version 2.2.7\n# name\n\nchr\tstart\tend\tlength\tabs_summit\nchr1\t11\t20\t10\t15\n",
        "chr\tstart\tend\tlength\tsummit\ttags\nchr1\t11\t20\t10\t5\t3\n",
    ],
)
def test_the_table_of_macs_counts_from_1_and_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SequenceError, match=r"table of MACS, whose coordinates count from 1.*narrowPeak"):
        read_intervals(write(tmp_path, text))
