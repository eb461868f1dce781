"""The folder of a store: whole or not there, its metadata in one place, leftovers of killed processes."""

import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import zarr

from kipoi_deepmr.cube.groups import CONTROLS_GROUP, DIGEST, DIRECTION_GROUPS, DRAWN_GROUP, EFFECTS_GROUP
from kipoi_deepmr.errors import StoreError


def is_store(path: Path) -> bool:
    """Tell whether a folder is a store of kipoi_deepmr."""
    try:
        return DIGEST in zarr.open_group(path, mode="r", use_consolidated=False).attrs
    except (OSError, ValueError, KeyError):
        return False


def check_replaceable(path: Path) -> None:
    """Check that `--overwrite` would delete nothing but a store.

    Parameters
    ----------
    path
        An existing file or folder.

    Raises
    ------
    StoreError
        If it is no store of kipoi_deepmr, or holds other files.
    """
    if not is_store(path):
        raise StoreError(f"{path} exists and is no store of kipoi_deepmr: choose another name")
    own = {"zarr.json", EFFECTS_GROUP, DRAWN_GROUP, CONTROLS_GROUP, *DIRECTION_GROUPS}
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in own and entry.name[0] != ".")
    if foreign:
        raise StoreError(
            f"{path} holds files that kipoi_deepmr did not write ({', '.join(foreign[:5])}), which --overwrite would "
            "delete: move them, or choose another name"
        )


def consolidate(path: Path) -> None:
    """Gather the metadata in one place, which is where xarray looks first."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def forget_consolidated(path: Path) -> None:
    """Write the metadata of the root anew, without those of the groups: readers then look at the groups themselves."""
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    root.attrs.update(dict(root.attrs))


def clear(leftover: Path, mark: str) -> None:
    """Delete what a killed process left behind, known by an attribute of its group, and nothing else."""
    if not leftover.exists():
        return
    with suppress(OSError, ValueError, KeyError):
        # A process that dies in its very first write leaves zarr's temporary file, or nothing.
        begun = all(entry.name.startswith("zarr.") and entry.suffix == ".partial" for entry in leftover.iterdir())
        if begun or mark in zarr.open_group(leftover, mode="r", use_consolidated=False).attrs:
            shutil.rmtree(leftover)
            return
    raise StoreError(f"{leftover} is in the way, and kipoi_deepmr did not write it: move it, or choose another output")
