"""The folder of a store: whole or not there, its metadata in one place, leftovers of killed processes."""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr

from kipoi_deepmr import __version__, terms
from kipoi_deepmr.cube.groups import (
    CONTROLS_GROUP,
    DIGEST,
    DIRECTION_GROUPS,
    DRAWN_GROUP,
    EFFECTS_GROUP,
    ESTIMATE_GROUPS,
    FORMAT,
    FORMAT_NUMBER,
)
from kipoi_deepmr.errors import StoreError

_METADATA = "zarr.json"
_MARK = "temporary folder of kipoi_deepmr"
_CHUNK = re.compile(r"c|\d+")
# What zarr calls a file until it is whole.
_UNFINISHED = re.compile(r"(zarr|c|\d+)\.[0-9a-f]{32}\.partial")
# `method` is what `estimator` was called in format 1.
_NODES = {EFFECTS_GROUP, DRAWN_GROUP, CONTROLS_GROUP, *DIRECTION_GROUPS, "method"} | terms.VARIABLES


def check_readable(path: Path) -> None:
    """Check that a path is a store, and of the format that this version reads.

    Parameters
    ----------
    path
        What the user calls a store.

    Raises
    ------
    StoreError
        If there is none, or it is of another format; it then says which version reads it.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist")
    attrs = _stored_attributes(path)
    if DIGEST not in attrs:
        raise StoreError(f"{path} is no store of kipoi_deepmr: name another path")
    found = attrs.get(FORMAT, 1)
    if found != FORMAT_NUMBER:
        reader = "kipoi_deepmr<0.2" if found == 1 else f"kipoi_deepmr>{__version__}"
        raise StoreError(
            f"{path} is a store of format {found}, written by {attrs.get('source', 'kipoi_deepmr')}, and kipoi_deepmr "
            f"{__version__} reads format {FORMAT_NUMBER}: make it again with `run --overwrite`, or read it with the version that "
            f'`pip install "{reader}"` gives'
        )


def _stored_attributes(path: Path) -> Mapping[str, Any]:
    try:
        return zarr.open_group(path, mode="r", use_consolidated=False).attrs
    except (OSError, ValueError, KeyError):
        return {}


def check_replaceable(path: Path) -> None:
    """Check that `--overwrite` would delete nothing but a store.

    Parameters
    ----------
    path
        An existing file or folder.

    Raises
    ------
    StoreError
        If it is no store of kipoi_deepmr, or holds other files, however deep.
    """
    if DIGEST not in _stored_attributes(path):
        raise StoreError(f"{path} exists and is no store of kipoi_deepmr: choose another name")
    foreign = sorted(str(entry.relative_to(path)) for entry in _foreign(path, _NODES))
    if foreign:
        raise StoreError(
            f"{path} holds files that kipoi_deepmr did not write ({', '.join(foreign[:5])}), which --overwrite would "
            "delete: move them, or choose another name"
        )


def _foreign(folder: Path, nodes: frozenset[str] | set[str]) -> Iterator[Path]:
    """Yield what zarr did not write for a group, an array or (without `nodes`) its chunks."""
    for entry in os.scandir(folder):
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and (entry.name in nodes or _CHUNK.fullmatch(entry.name)):
            yield from _foreign(Path(entry.path), nodes if entry.name in nodes else frozenset())
        elif is_folder or not (
            entry.name == _METADATA or _CHUNK.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name)
        ):
            yield Path(entry.path)


def clear_unfinished(path: Path) -> None:
    """Delete the files that zarr had not finished when a process was killed."""
    for file in path.rglob("*.partial"):
        if _UNFINISHED.fullmatch(file.name):
            file.unlink(missing_ok=True)


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """Lend a folder beside a store for what is not whole yet and for what is to be deleted.

    After an error it stays, and the next process clears it: it may hold what is no longer in the store.

    Parameters
    ----------
    path
        The store.

    Raises
    ------
    StoreError
        If something else is called like it.
    """
    folder = path.with_name(f"{path.name}.partial")
    if folder.exists() or folder.is_symlink():
        _clear(folder)
    folder.mkdir()
    (folder / _MARK).touch()
    yield folder
    _clear(folder)


def _clear(folder: Path) -> None:
    """Delete what carries our mark, the mark last, so that a process that dies meanwhile leaves a folder that is known."""
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not (folder / _MARK).is_file()):
        raise StoreError(
            f"{folder} is in the way, and kipoi_deepmr did not write it: move it, or choose another output"
        )
    for entry in folder.iterdir():
        if entry.name != _MARK:
            shutil.rmtree(entry)
    (folder / _MARK).unlink(missing_ok=True)
    folder.rmdir()


def consolidate(path: Path) -> None:
    """Gather the metadata in one place, which is where xarray looks first."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def hide_estimates(path: Path) -> None:
    """Take the estimates out of the gathered metadata: readers then see a store that has none yet."""
    metadata = json.loads((path / _METADATA).read_text())
    gathered = (metadata.get("consolidated_metadata") or {}).get("metadata", {})
    for key in [key for key in gathered if any(f"{key}/".startswith(f"{group}/") for group in ESTIMATE_GROUPS)]:
        del gathered[key]
    _write(path, metadata)


def update_attributes(path: Path, attrs: Mapping[str, Any]) -> None:
    """Set attributes of the root in one step; the gathered metadata stay."""
    metadata = json.loads((path / _METADATA).read_text())
    metadata["attributes"] |= attrs
    _write(path, metadata)


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of the root as they are now on the disk."""
    attributes: dict[str, Any] = json.loads((path / _METADATA).read_text())["attributes"]
    return attributes


def _write(path: Path, metadata: Mapping[str, Any]) -> None:
    unfinished = path / f"zarr.{os.urandom(16).hex()}.partial"
    unfinished.write_text(json.dumps(metadata, indent=2, allow_nan=False))
    os.replace(unfinished, path / _METADATA)
