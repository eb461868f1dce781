"""Writers of the formats: tab-separated text, parquet, bigWig, bgzip."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pandas as pd

from kipoi_deepmr.errors import DependencyError, OutputError
from kipoi_deepmr.tracks import Stretch

_NOTHING = "NA"
_LARGEST_TBI = 2**29
_BASES_AT_ONCE = 2**20


def library(name: str, purpose: str) -> ModuleType:
    """Import an optional library.

    Raises
    ------
    DependencyError
        If it is not installed, with the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(f"{purpose} needs {name}: pip install 'kipoi_deepmr[export]'") from error


class TextTable:
    """A table of tab-separated columns to which frames of the same columns are added, as R reads it.

    Parameters
    ----------
    handle
        File to write to.
    """

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle
        self._empty = True

    def add(self, frame: pd.DataFrame) -> None:
        """Write the rows of a frame: NA where there is nothing, TRUE and FALSE, all digits.

        Raises
        ------
        OutputError
            If a text is ``NA``, which reads back as nothing.
        """
        for name in frame.select_dtypes(exclude=["number", "bool"]):
            if (frame[name] == _NOTHING).any():
                raise OutputError(
                    f"column {name} of the table holds the name '{_NOTHING}', which programs read as a missing value: "
                    "export as parquet, or give it another name in the configuration"
                )
        logical = frame.select_dtypes(bool)
        as_r = frame.assign(**{str(name): logical[name].map({True: "TRUE", False: "FALSE"}) for name in logical})
        as_r.to_csv(self._handle, sep="\t", index=False, na_rep=_NOTHING, header=self._empty)
        self._empty = False


class ParquetTable:
    """A parquet file to which frames of the same columns are added.

    Parameters
    ----------
    path
        File to write.
    """

    def __init__(self, path: Path) -> None:
        self._arrow: Any = library("pyarrow", "parquet")
        self._parquet: Any = library("pyarrow.parquet", "parquet")
        self._path = path
        self._writer: Any = None

    def add(self, frame: pd.DataFrame) -> None:
        """Write a frame as a row group."""
        schema = None if self._writer is None else self._writer.schema
        table = self._arrow.Table.from_pandas(frame, schema=schema, preserve_index=False)
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.close()


def write_bigwig(path: Path, sizes: Mapping[str, int], stretches: Iterable[Stretch]) -> None:
    """Write a bigWig file.

    Parameters
    ----------
    path
        File to write.
    sizes
        Length of each contig in bp.
    stretches
        Values, sorted by contig name and start, without overlap.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    big: Any = library("pyBigWig", "bigWig")
    try:
        with big.open(str(path), "w") as file:
            # Readers search the contigs by name.
            file.addHeader(sorted(sizes.items(), key=lambda item: item[0].encode()))
            for stretch in _pieces(stretches):
                file.addEntries(stretch.chrom, stretch.start, values=stretch.values.tolist(), span=1, step=1)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _pieces(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    for stretch in stretches:
        for start in range(0, stretch.values.size, _BASES_AT_ONCE):
            yield Stretch(stretch.chrom, stretch.start + start, stretch.values[start : start + _BASES_AT_ONCE])


def write_bgzip(path: Path, lines: Iterable[str]) -> None:
    """Write lines in blocks of gzip, as htslib's programs want them.

    Parameters
    ----------
    path
        File to write.
    lines
        Its lines.
    """
    pysam: Any = library("pysam", "bgzip")
    with pysam.BGZFile(str(path), "wb") as file:
        for line in lines:
            file.write(line.encode())


def index_vcf(path: Path, sizes: Mapping[str, int]) -> None:
    """Index a bgzipped VCF file; the index stands beside it, its name ends in `index_ending`.

    Parameters
    ----------
    path
        The VCF file; its name ends in ``.gz``.
    sizes
        Length of each contig in bp.
    """
    pysam: Any = library("pysam", "the index")
    pysam.tabix_index(str(path), preset="vcf", force=True, csi=index_ending(sizes) == ".csi")


def index_ending(sizes: Mapping[str, int]) -> str:
    """Return ``.tbi``, or ``.csi`` where a contig is too long for it."""
    return ".csi" if max(sizes.values()) > _LARGEST_TBI else ".tbi"
