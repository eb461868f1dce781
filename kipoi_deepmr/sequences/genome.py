"""A read-only view of a FASTA file."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyfaidx

from kipoi_deepmr.errors import SequenceError, suggestion
from kipoi_deepmr.sequences.fasta_layout import Record, check_contig, check_index
from kipoi_deepmr.terms import ALLELES

_UNKNOWN = -1
_CODES = np.full(256, _UNKNOWN, np.int8)
for _code, _base in enumerate(ALLELES):
    _CODES[[ord(_base), ord(_base.lower())]] = _code
_COMPLEMENT = np.array([3, 2, 1, 0, _UNKNOWN], np.int8)
_COMPRESSED = (".gz", ".bgz", ".bz2", ".zip", ".xz", ".zst")


class Genome:
    """A read-only view of a FASTA file through its index.

    A missing or outdated index (``.fai``) is written beside the file, where the dataloaders of Kipoi expect it too.

    Parameters
    ----------
    fasta : Path
        The FASTA file. ``~`` is expanded.

    Attributes
    ----------
    path : Path
        The FASTA file.
    sizes : Mapping[str, int]
        Length of each contig in bp, in the order of the file.

    Raises
    ------
    SequenceError
        The file is missing, unreadable, empty, compressed with something else than bgzip, or not FASTA, or its index
        is broken or cannot be written.
    """

    path: Path
    sizes: Mapping[str, int]

    def __init__(self, fasta: Path) -> None:
        self.path = Path(fasta).expanduser()
        is_compressed = _check_fasta(self.path)
        _check_index(self.path)
        try:
            self._faidx = pyfaidx.Faidx(str(self.path), as_raw=True)
        except ImportError as error:
            raise SequenceError(
                f"{self.path} is compressed; reading it needs biopython: `pip install biopython`, or unpack the file."
            ) from error
        except pyfaidx.UnsupportedCompressionFormat as error:
            raise SequenceError(_compressed(self.path)) from error
        except OSError as error:
            raise SequenceError(_no_index(self.path, str(error))) from error
        except (ValueError, pyfaidx.FastaIndexingError) as error:
            raise SequenceError(
                f"{self.path} cannot be indexed or its index {self.path}.fai is broken: {error}. Each contig needs its"
                " own name and lines of one length; delete the .fai file if the FASTA is fine."
            ) from error
        records = [Record(name, one.rlen, one.offset, one.lenc, one.lenb) for name, one in self._faidx.index.items()]
        self.sizes = MappingProxyType({record.name: record.length for record in records})
        # Compressed files have no lines that could be found by their bytes.
        self._unchecked = {} if is_compressed else {record.name: record for record in records}
        if not is_compressed:
            check_index(self.path, records)

    def codes(self, chrom: str, start: int, end: int, strand: str = "+") -> npt.NDArray[np.int8]:
        """Return the bases of an interval as numbers.

        Parameters
        ----------
        chrom : str
            Contig.
        start, end : int
            0-based half-open interval, within the contig.
        strand : str, default "+"
            ``-`` gives the reverse complement.

        Returns
        -------
        numpy.ndarray, shape (end - start,), int8
            0, 1, 2, 3 for A, C, G, T in either case; -1 for anything else.

        Raises
        ------
        SequenceError
            The contig is unknown or the interval leaves it.
        """
        if chrom not in self.sizes:
            raise SequenceError(f"{self.path} has no contig {chrom!r}.{contig_hint(chrom, self.sizes)}")
        if not 0 <= start < end <= self.sizes[chrom]:
            raise SequenceError(
                f"{chrom}:{start}-{end} is not within {self.path}, where {chrom} has {self.sizes[chrom]} bp."
                " Intervals are 0-based and half-open, with start < end."
            )
        if chrom in self._unchecked:
            check_contig(self.path, self._unchecked.pop(chrom))
        text = self._faidx.fetch(chrom, int(start) + 1, int(end))
        codes = _CODES[np.frombuffer(text.encode("latin-1"), np.uint8)]
        if codes.size != end - start:
            raise SequenceError(
                f"{self.path} gave {codes.size} of the {end - start} bases of {chrom}:{start}-{end}: its index does"
                f" not fit it. Delete {self.path}.fai and try again."
            )
        return _COMPLEMENT[codes[::-1]] if strand == "-" else codes

    def close(self) -> None:
        """Close the file."""
        self._faidx.close()

    def __enter__(self) -> Self:
        """Return the genome itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def contig_hint(chrom: str, contigs: Mapping[str, int]) -> str:
    """Return a sentence that says how a contig is spelled in the FASTA file, or which contigs there are."""
    for spelling in (f"chr{chrom}", chrom.removeprefix("chr")):
        if spelling != chrom and spelling in contigs:
            return f" Did you mean {spelling!r}?"
    return suggestion(chrom, contigs) or f" It has {examples(contigs)}."


def examples(names: Mapping[str, int] | list[str]) -> str:
    """Return the first few of some names as text."""
    shown = list(names)[:3]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def _check_fasta(path: Path) -> bool:
    """Check that a file is FASTA, and tell whether it is compressed."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1 << 16)
    except FileNotFoundError as error:
        raise SequenceError(f"The FASTA file {path} does not exist. Give the path of the genome as FASTA.") from error
    except OSError as error:
        raise SequenceError(
            f"The FASTA file {path} cannot be read: {error.strerror or error}. Give a readable file."
        ) from error
    if path.name.lower().endswith(_COMPRESSED) or head.startswith(b"\x1f\x8b"):
        bgzip = head.startswith(b"\x1f\x8b\x08\x04") and b"BC\x02\x00" in head[:32]
        if not (bgzip and path.name.lower().endswith((".gz", ".bgz"))):
            raise SequenceError(_compressed(path))
        return True
    if not head.lstrip().startswith((b">", b";")):
        raise SequenceError(f"{path} is {'not FASTA' if head else 'empty'}: a FASTA file begins with '>' and a name.")
    if b"\r" in head and b"\n" not in head:
        raise SequenceError(
            f"{path} has carriage returns for line ends, as old Macintosh programs write them: convert it with"
            f" `tr '\\r' '\\n' < {path} > fixed.fa`."
        )
    return False


def _check_index(path: Path) -> None:
    index = Path(f"{path}.fai")
    if index.exists():
        stale = path.stat().st_mtime > index.stat().st_mtime
        if stale and not os.access(index, os.W_OK):
            raise SequenceError(_no_index(path, f"{index} is older than the FASTA file and cannot be written"))
    elif not os.access(path.parent, os.W_OK):
        raise SequenceError(_no_index(path, f"the folder {path.parent} cannot be written"))


def _no_index(path: Path, reason: str) -> str:
    return (
        f"{path} has no up-to-date index and none can be made: {reason}. Run `samtools faidx {path}` with the rights to"
        " write there (or `touch` the .fai file if it is right), or link the FASTA file into a folder of your own."
    )


def _compressed(path: Path) -> str:
    return f"{path} is compressed, but not with bgzip, so it has no random access. Unpack it, e.g. `gunzip {path}`."
