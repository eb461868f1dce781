"""What the file system and zarr raise, explained to the user."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zarr.errors import BaseZarrError

from kipoi_deepmr.errors import StoreError


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what the file system and zarr raise into a `StoreError`.

    Parameters
    ----------
    path
        The store.
    what
        What is done to it: created, opened, read or written.

    Raises
    ------
    StoreError
        With the reason.
    """
    reading = what in ("opened", "read")
    low_level = (OSError, KeyError, ValueError, RuntimeError) if reading else (OSError, KeyError, BaseZarrError)
    try:
        yield
    except StoreError:
        raise
    except low_level as error:
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")
        raise StoreError(f"{path} cannot be {what}: {reason}. {_advice(error, what)}") from error


def _advice(error: Exception, what: str) -> str:
    kept = " Sequences that were completed are kept" if what == "written" else ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: free some space, then go on with --resume.{kept}"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return f"The folder cannot be written: choose another output, or ask for the rights.{kept}"
    if what in ("opened", "read"):
        return "The store is incomplete or damaged: write it anew with --overwrite"
    return f"Check the folder, then go on with --resume.{kept}"
