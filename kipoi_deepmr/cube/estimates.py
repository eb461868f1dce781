"""Estimates of a store, replaced as a whole, and the store as a user opens it."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import xarray as xr
import zarr

from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.cube.folders import clear, consolidate, forget_consolidated, is_store
from kipoi_deepmr.cube.groups import ESTIMATE_GROUPS, ESTIMATES_OF
from kipoi_deepmr.errors import StoreError


def open_results(path: str | Path) -> xr.DataTree:
    """Open a store.

    Parameters
    ----------
    path
        Folder that `run` wrote.

    Returns
    -------
    xarray.DataTree
        Groups `effects`, `local` and `global`; arrays are read when they are used.

    Raises
    ------
    StoreError
        If there is no store of kipoi_deepmr at the path.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise StoreError(f"{path} does not exist")
    if not is_store(path):
        raise StoreError(f"{path} is no store of kipoi_deepmr")
    with explained(path, "opened"):
        # Not the consolidated metadata, which a process that died while it replaced the estimates left behind.
        return xr.open_datatree(path, engine="zarr", chunks=None, consolidated=False)


def write_estimates(path: Path, groups: Mapping[str, xr.Dataset]) -> None:
    """Replace all estimates of a store once the new ones are complete.

    Parameters
    ----------
    path
        The store.
    groups
        Datasets by the names of their groups, such as `local` and `reverse/local`. Groups of estimates that are not
        among them are deleted.

    Raises
    ------
    StoreError
        If they cannot be written; the old groups then stay.
    """
    partial = path.with_name(path.name + ".estimates")
    with explained(path, "written"):
        clear(partial, ESTIMATES_OF)
        zarr.create_group(partial, attributes={ESTIMATES_OF: path.name}, zarr_format=3)
        for name, dataset in groups.items():
            dataset.to_zarr(partial, group=name, mode="a", consolidated=False, zarr_format=3)
        # A process that dies from here on leaves a store without estimates, never old beside new ones.
        forget_consolidated(path)
        for name in ESTIMATE_GROUPS:
            if (path / name).exists():
                os.replace(path / name, partial / f"old-{name.replace('/', '-')}")
        for name in ESTIMATE_GROUPS:
            if (partial / name).exists():
                os.replace(partial / name, path / name)
        consolidate(path)
        shutil.rmtree(partial, ignore_errors=True)
