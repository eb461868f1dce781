"""Whether a FASTA file is laid out as its index says: a header before each contig, lines of one length, letters alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kipoi_deepmr.errors import SequenceError

_HEADER = 1 << 16
_CHUNK = 1 << 23
_OTHER, _LETTER, _NEWLINE, _RETURN = range(4)
_KINDS = np.full(256, _OTHER, np.uint8)
_KINDS[[*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1), ord("*"), ord("-"), ord(".")]] = _LETTER
_KINDS[ord("\n")], _KINDS[ord("\r")] = _NEWLINE, _RETURN
_LINE_ENDS = {0: [], 1: [_NEWLINE], 2: [_RETURN, _NEWLINE]}
_NAMED = {
    ord(" "): "a blank",
    ord("\t"): "a tab",
    0: "a NUL byte",
    ord("\n"): "an early line end",
    ord("\r"): "a carriage return",
    ord(">"): "the sign >",
}


@dataclass(frozen=True)
class Record:
    """What an index says of a contig, in the words of samtools' fai format.

    Attributes
    ----------
    name : str
        Contig.
    length : int
        Bases, bp.
    offset : int
        Byte of its first base.
    line_bases, line_width : int
        Bases in a line, and bytes with the line end.
    """

    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int

    @property
    def end(self) -> int:
        """Byte behind the last base."""
        if not self.length:
            return self.offset
        lines, last = divmod(self.length - 1, self.line_bases)
        return self.offset + lines * self.line_width + last + 1


def check_index(path: Path, records: list[Record]) -> None:
    """Check that before each contig stands its header, and behind it the next header or the end of the file.

    Parameters
    ----------
    path
        A FASTA file, not compressed.
    records
        Its contigs as the index has them.

    Raises
    ------
    SequenceError
        If the index belongs to another file. The message names the contig and the line.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        for record in records:
            start = max(0, record.offset - _HEADER)
            handle.seek(start)
            before = handle.read(record.offset - start)
            header = before.removesuffix(b"\n").rpartition(b"\n")[2]
            if record.offset > size or not before.endswith(b"\n") or header[:1] != b">":
                raise _other_file(path, record, record.offset, "no header stands before it there")
            words = header[1:].split()
            if not words or words[0] != record.name.encode():
                found = words[0].decode("utf-8", "replace") if words else ""
                raise _other_file(path, record, record.offset, f"'{found}' begins there")
            if not record.length:
                continue
            handle.seek(record.end)
            behind = _next_letter(handle)
            if record.end > size or behind[:1] not in (b"", b">"):
                raise _other_file(path, record, record.end, "it does not end there")


def check_contig(path: Path, record: Record) -> None:
    """Check every line of a contig: all of one length but the last, letters alone, one kind of line end.

    Parameters
    ----------
    path
        A FASTA file, not compressed, whose index fits it.
    record
        The contig.

    Raises
    ------
    SequenceError
        If a line cannot be read rightly. The message names the contig and the line.
    """
    line_end = _LINE_ENDS.get(record.line_width - record.line_bases)
    if line_end is None:
        raise _unreadable(path, record, record.offset + record.line_bases, "more than a line end")
    line = np.array([_LETTER] * record.line_bases + line_end, np.uint8)
    lines = np.tile(line, max(1, _CHUNK // len(line)))
    with path.open("rb") as handle:
        handle.seek(record.offset)
        for start in range(record.offset, record.end, len(lines)):
            part = np.frombuffer(handle.read(min(len(lines), record.end - start)), np.uint8)
            wrong = _KINDS[part] != lines[: len(part)]
            if wrong.any():
                first = int(wrong.argmax())
                code = int(part[first])
                what = _NAMED.get(code, f"the sign {chr(code)!r}")
                if _KINDS[code] == _LETTER:
                    what = "more letters than in the lines before"
                raise _unreadable(path, record, start + first, what)


def _next_letter(handle: BinaryIO) -> bytes:
    """Return the next byte of a file that is no line end."""
    while part := handle.read(256):
        if left := part.lstrip(b"\r\n"):
            return left[:1]
    return b""


def _line(path: Path, byte: int) -> int:
    """Return the number of the line that holds a byte, from 1."""
    number = 1
    with path.open("rb") as handle:
        while byte > 0 and (part := handle.read(min(byte, _CHUNK))):
            number += part.count(b"\n")
            byte -= len(part)
    return number


def _other_file(path: Path, record: Record, byte: int, reason: str) -> SequenceError:
    return SequenceError(
        f"The index {path}.fai does not fit {path}, line {_line(path, byte)}: by the index the contig {record.name!r} has"
        f" {record.length} bp from byte {record.offset} on, but {reason}. The FASTA file was replaced: delete {path}.fai, and it is"
        " made again."
    )


def _unreadable(path: Path, record: Record, byte: int, what: str) -> SequenceError:
    return SequenceError(
        f"{path}, line {_line(path, byte)}: {what} in the sequence of the contig {record.name!r}. Positions are counted by lines of one"
        f" length (but the last) that hold letters alone: write the file anew, for example with `seqkit seq -g -w 60`, and delete"
        f" {path}.fai."
    )
