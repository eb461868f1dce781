"""One process at a time writes a store."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.errors import StoreError

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a store for writing, from before it is there until it is done; a process that dies lets go of it.

    Parameters
    ----------
    path
        The store; the lock is a hidden file beside it.
    what
        What is done to it, for the error that others get.

    Raises
    ------
    StoreError
        If another process holds it, or the folder cannot be written.
    """
    with explained(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock")
        held = _acquire(file, path)
    try:
        os.ftruncate(held, 0)
        os.write(held, f"process {os.getpid()} on {socket.gethostname()} ({what})".encode())
        yield
    finally:
        # While it is still held: a process that opens the file now finds that it is no longer the one of this name.
        with suppress(OSError):
            file.unlink()
        os.close(held)


def _acquire(file: Path, path: Path) -> int:
    while True:
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(held, 200).decode(errors="replace")
            if error.errno in _NO_LOCKS_HERE:
                return held
            os.close(held)
            if error.errno not in _HELD:
                raise
            raise StoreError(
                f"{path} is being written by {owner or 'another process'}: wait until it has ended, or choose another name"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), os.stat(file)):
                return held
        os.close(held)
