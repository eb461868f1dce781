"""Estimates as tidy tables: one row per estimate, the store's own names."""

import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP, LOCAL_GROUP
from kipoi_deepmr.errors import StoreError


def global_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the global effects, one row per exposure, outcome and method.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, method and the variables of `/global`.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    return _tidy(group(results, GLOBAL_GROUP), (*terms.GLOBAL_DIMS, terms.METHOD))


def local_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the local effects, one row per exposure, outcome, sequence and method, where the sequence is bound.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, sequence, method and the variables of `/local`.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    table = _tidy(group(results, LOCAL_GROUP), (*terms.LOCAL_DIMS, terms.METHOD))
    return table[table["bound"]].drop(columns="bound").reset_index(drop=True)


def group(results: xr.DataTree, name: str) -> xr.Dataset:
    """Return `/local` or `/global`, or say what to do when the store has no estimates."""
    if name not in results.children:
        raise StoreError("the store has no estimates yet: finish it with `run --resume`, or use `mr`")
    return results[name].to_dataset()


def _tidy(dataset: xr.Dataset, index: tuple[str, ...]) -> pd.DataFrame:
    frame = dataset.to_dataframe(dim_order=list(index)).reset_index()
    return frame.astype({name: str for name in index if name in frame})
