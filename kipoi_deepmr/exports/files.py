"""Files that appear under their names together, once all of them are whole."""

import errno
import gzip
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from kipoi_deepmr.errors import DeepMRError, OutputError

_PARTIAL = ".partial-"


class Files:
    """New files of one folder, written under hidden names and renamed at the end of the ``with`` block.

    An error in the block deletes what was written and leaves older files as they are.

    Parameters
    ----------
    folder
        Where to write; made when it is missing.
    names
        Names of the files.
    overwrite
        Whether files of these names may be replaced. Others in the folder are never touched.

    Raises
    ------
    OutputError
        If a file exists and `overwrite` is false, or the folder cannot be written.
    """

    def __init__(self, folder: Path, names: Iterable[str], *, overwrite: bool) -> None:
        self.folder = folder
        self._names = list(names)
        for path in map(folder.joinpath, self._names):
            if path.is_dir():
                raise OutputError(f"{path} is a folder: choose another output folder")
            if path.exists() and not overwrite:
                raise OutputError(f"{path} exists: replace it with --overwrite, or choose another folder")

    def __enter__(self) -> Self:
        """Make the folder."""
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the files their names, or delete them after an error."""
        if error is not None:
            for name in self._names:
                with suppress(OSError):
                    self.partial(name).unlink(missing_ok=True)
            return
        with self._explained():
            for name in self._names:
                os.replace(self.partial(name), self.folder / name)

    @property
    def paths(self) -> list[Path]:
        """The files under their final names."""
        return [self.folder / name for name in self._names]

    def partial(self, name: str) -> Path:
        """Return where a file is written until it is whole."""
        return self.folder / f"{_PARTIAL}{name}"

    @contextmanager
    def text(self, name: str) -> Iterator[IO[str]]:
        """Open a file for text, gzipped when its name ends in ``.gz``."""
        with self.writing(name) as path, path.open("wb") as raw:
            if not name.endswith(".gz"):
                with io.TextIOWrapper(raw, encoding="utf-8", newline="") as handle:
                    yield handle
                return
            # Without name and time: the same results give the same bytes.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="") as handle,
            ):
                yield handle

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield where to write a file, and explain what goes wrong."""
        with self._explained(name):
            yield self.partial(name)

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except DeepMRError:
            raise
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise OutputError(f"{self.folder / name} cannot be written: {reason}. {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free some space or choose another folder. Nothing of this export is left behind."
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "A file stands where a folder is needed: choose another folder."
    return "Choose another folder, or ask for the rights to write there."
