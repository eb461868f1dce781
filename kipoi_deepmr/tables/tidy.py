"""Estimates as tidy tables: one row per estimate, the store's own names."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP, LOCAL_GROUP, REVERSE_GROUP
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


def global_records(results: xr.DataTree) -> list[dict[str, Any]]:
    """Return the global effects as records for JSON: those of `global_table`, with null for NaN and `status` in words.

    Parameters
    ----------
    results
        An open store.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    table = global_table(results)
    table["status"] = in_words(table["status"], group(results, GLOBAL_GROUP)["status"])
    # JSON has neither NaN nor infinity.
    finite = table.replace([np.inf, -np.inf], np.nan).astype(object)
    rows = finite.where(finite.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def group(results: xr.DataTree, name: str) -> xr.Dataset:
    """Return `/local` or `/global`, or say what to do when the store has no estimates.

    Raises
    ------
    StoreError
        If it has none.
    """
    if name not in results.children:
        raise StoreError("the store has no estimates yet: finish it with `run --resume`, or use `mr`")
    return results[name].to_dataset()


def direction(results: xr.DataTree, reverse: bool) -> tuple[xr.DataTree, tuple[str, str]]:
    """Return the estimates of a direction and the dimensions of its cause and its effect.

    Parameters
    ----------
    results
        An open store.
    reverse
        Whether the outcomes are the causes, as `mr --bidirectional` estimates it.

    Raises
    ------
    StoreError
        If the store does not have that direction.
    """
    if not reverse:
        return results, (terms.EXPOSURE, terms.OUTCOME)
    if REVERSE_GROUP not in results.children:
        raise StoreError("the store has no effects of outcomes on exposures: use `mr --bidirectional`")
    return results.children[REVERSE_GROUP], (terms.OUTCOME, terms.EXPOSURE)


def _tidy(dataset: xr.Dataset, index: tuple[str, ...]) -> pd.DataFrame:
    frame = dataset.to_dataframe(dim_order=list(index)).reset_index()
    # A store lists its variables in any order.
    known = {name: number for number, name in enumerate((*index, *terms.COORDS, *terms.LOCAL, *terms.GLOBAL))}
    frame = frame[sorted(frame, key=lambda name: (known.get(str(name), len(known)), str(name)))]
    return frame.astype({name: str for name in index if name in frame})


def in_words(values: Iterable[int], status: xr.DataArray) -> list[str]:
    """Return what the numbers of a `status` mean, by the variable's own attributes."""
    known = dict(zip(status.attrs["flag_values"], status.attrs["flag_meanings"].split(), strict=True))
    return [known.get(int(value), str(value)) for value in values]
