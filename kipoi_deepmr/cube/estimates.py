"""Estimates of a store, replaced as a whole, and the store as a user opens it."""

import os
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.cube.folders import check_readable, consolidate, hide_estimates, workshop
from kipoi_deepmr.cube.groups import ESTIMATE_GROUPS


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
        If there is no store of kipoi_deepmr at the path, or one of another format.
    """
    path = Path(path).expanduser()
    check_readable(path)
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
    with explained(path, "written"), workshop(path) as partial:
        for name, dataset in groups.items():
            dataset.to_zarr(partial / "new", group=name, mode="a", consolidated=False, zarr_format=3)
        # A process that dies from here on leaves a store without estimates, never old beside new ones.
        hide_estimates(path)
        for name in ESTIMATE_GROUPS:
            if (path / name).exists():
                os.replace(path / name, partial / f"old-{name.replace('/', '-')}")
        for name in ESTIMATE_GROUPS:
            if (partial / "new" / name).exists():
                os.replace(partial / "new" / name, path / name)
        consolidate(path)
