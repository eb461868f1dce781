"""Reads peaks: BED3 to BED6 and more, narrowPeak, plain or gzip."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from kipoi_deepmr.errors import SequenceError

_GZIP = b"\x1f\x8b"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w. -]*", re.ASCII)
_CHROMOSOME = re.compile(r"chr(\d+\w*|[XYWZMUN]|MT|Un\w*)", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_NOT_DATA = ("#", "track", "browser")
_STRANDS = frozenset("+-.")
_LARGEST = 2**48
_NARROW_PEAK_COLUMNS = 10


def read_intervals(path: Path) -> pd.DataFrame:
    """Read the intervals of a BED or narrowPeak file.

    Blank lines, lines that start with ``#``, ``track`` or ``browser`` and a first line of column names are skipped.
    Columns are separated by tabs; a line without a tab is split at white space. In a narrowPeak line (10 columns,
    the last one an integer) the centre is the summit; where there is none (-1), or where it lies outside the peak,
    and in every BED line, the centre is the middle, ``(start + end) // 2``.

    Parameters
    ----------
    path : Path
        The file, plain or gzip (recognised by its content). ``~`` is expanded.

    Returns
    -------
    pandas.DataFrame
        One row an interval, in the order of the file: ``chrom`` (str), ``start``, ``end``, ``center`` (int64, 0-based
        half-open), ``name`` (str, ``.`` when absent), ``strand`` (``+``, ``-`` or ``.``), ``line`` (int64, from 1).

    Raises
    ------
    SequenceError
        The file is missing, unreadable, binary or empty, or a line has fewer than 3 columns, coordinates that are not
        whole numbers, a negative start, or a start that is not less than its end. The message names file and line.
    """
    path = Path(path).expanduser()
    rows = list(_rows(path, _read_text(path)))
    if not rows:
        raise SequenceError(
            f"{path} holds no intervals. It needs lines of at least 3 tab-separated columns: chrom, start, end."
        )
    chrom, start, end, center, name, strand, line = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "chrom": pd.Series(chrom, dtype=str),
            "start": np.array(start, np.int64),
            "end": np.array(end, np.int64),
            "center": np.array(center, np.int64),
            "name": pd.Series(name, dtype=str),
            "strand": pd.Series(strand, dtype=str),
            "line": np.array(line, np.int64),
        }
    )


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SequenceError(f"{path} does not exist. Give the path of a BED or narrowPeak file.") from error
    except OSError as error:
        raise SequenceError(f"{path} cannot be read: {error.strerror or error}. Give a readable file.") from error
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise SequenceError(
                f"{path} is a damaged gzip file ({error}). Copy or download it again; `gzip -t {path}` tests it."
            ) from error
    elif content and path.suffix == ".gz":
        raise SequenceError(
            f"{path} ends in .gz but is not a gzip file. Compress it (`gzip`), or drop .gz from its name if it is text."
        )
    if _CONTROL.search(content, 0, 1 << 16) or b"\0" in content:
        raise SequenceError(
            f"{path} is a binary file. BED or narrowPeak text is needed, plain or gzip: convert bigBed with"
            " `bigBedToBed`, unpack other archives, save spreadsheets as tab-separated UTF-8 text."
        )
    return content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _rows(path: Path, text: str) -> Iterator[tuple[str, int, int, int, str, str, int]]:
    first = True
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace() or _is_comment(line):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if first and _is_header(fields):
            first = False
            continue
        first = False
        start, end = _coordinates(path, number, fields)
        name = fields[3].strip() if len(fields) > 3 else ""
        strand = fields[5].strip() if len(fields) > 5 else "."
        yield (
            fields[0].strip(),
            start,
            end,
            _center(fields, start, end),
            name or ".",
            strand if strand in _STRANDS else ".",
            number,
        )


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(_NOT_DATA) and (
        line.lstrip().startswith("#") or line.split(maxsplit=1)[0] in _NOT_DATA
    )


def _is_header(fields: list[str]) -> bool:
    head = [field.strip() for field in fields[:3]]
    return (
        len(head) == 3 and all(map(_COLUMN_NAME.fullmatch, head)) and not _CHROMOSOME.fullmatch(head[0].split(".")[0])
    )


def _coordinates(path: Path, number: int, fields: list[str]) -> tuple[int, int]:
    where = f"{path}, line {number}"
    if len(fields) < 3 or not fields[0].strip():
        hint = " Its columns seem to be separated by commas." if len(fields) == 1 and "," in fields[0] else ""
        raise SequenceError(
            f"{where} has {sum(map(bool, fields))} column(s).{hint} BED needs at least 3, separated by tabs:"
            " chrom, start, end."
        )
    start, end = (_integer(where, name, field) for name, field in zip(("start", "end"), fields[1:3], strict=True))
    if start < 0:
        raise SequenceError(f"{where}: start {start} is negative. BED counts from 0: clip the interval or remove it.")
    if start == end:
        raise SequenceError(
            f"{where}: start and end are both {start}, so the interval is empty. BED is half-open:"
            f" the single base at {start} is written {start}, {start + 1}."
        )
    if start > end:
        raise SequenceError(
            f"{where}: start {start} is greater than end {end}. BED needs start < end on both strands: swap them"
            " and give the strand in column 6."
        )
    return start, end


def _integer(where: str, name: str, field: str) -> int:
    text = field.strip()
    if not _INTEGER.fullmatch(text):
        raise SequenceError(
            f"{where}: {name} is {text!r}, not a whole number. BED needs chrom, start, end in columns 1 to 3, without"
            " thousands separators, decimals or exponents (in R, write with options(scipen = 999))."
        )
    value = int(text[:20])
    if value > _LARGEST:
        raise SequenceError(f"{where}: {name} {text} is larger than any contig. Check the columns of this line.")
    return value


def _center(fields: list[str], start: int, end: int) -> int:
    if len(fields) == _NARROW_PEAK_COLUMNS and _INTEGER.fullmatch(summit := fields[9].strip()):
        offset = int(summit[:20])
        if 0 <= offset < end - start:
            return start + offset
    return (start + end) // 2
