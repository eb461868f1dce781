"""Estimates as tidy tables: one row per estimate, the store's own names."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import CONTROLS_GROUP, GLOBAL_GROUP, LOCAL_GROUP, REVERSE_GROUP
from kipoi_deepmr.errors import StoreError


def global_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the global effects, one row per exposure, outcome and estimator.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, estimator and the variables of `/global`.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    return _tidy(group(results, GLOBAL_GROUP), (*terms.GLOBAL_DIMS, terms.ESTIMATOR))


def local_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the local effects, one row per exposure, outcome, sequence and estimator, where the sequence is bound.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, sequence, estimator and the variables of `/local`.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    table = _tidy(group(results, LOCAL_GROUP), (*terms.LOCAL_DIMS, terms.ESTIMATOR))
    return table[table["bound"]].drop(columns="bound").reset_index(drop=True)


def global_records(results: xr.DataTree) -> list[dict[str, Any]]:
    """Return all global effects as records for JSON: those of `global_table` of both directions and of the controls.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    list of dict
        The columns of `global_table`, with null for NaN and `status` in words; `direction` (forward: of the exposure on the
        outcome, or reverse) and `control` (null, or shuffled: in shuffled sequences).

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    group(results, GLOBAL_GROUP)
    records = []
    for way, control, tree in every_estimate(results):
        table = global_table(tree)
        table["status"] = in_words(table["status"], group(tree, GLOBAL_GROUP)["status"])
        # JSON has neither NaN nor infinity.
        finite = table.replace([np.inf, -np.inf], np.nan).astype(object)
        rows = finite.where(finite.notna(), None).to_dict("records")
        origin = {"direction": way, "control": control}
        records += [{**{str(name): value for name, value in row.items()}, **origin} for row in rows]
    return records


def every_estimate(results: xr.DataTree) -> Iterator[tuple[str, str | None, xr.DataTree]]:
    """Yield the direction, the control (None or ``shuffled``) and the tree of all estimates in a store.

    Parameters
    ----------
    results
        An open store.
    """
    for control, tree in ((None, results), ("shuffled", results.children.get(CONTROLS_GROUP))):
        if tree is None:
            continue
        for way, found in zip(terms.DIRECTIONS, (tree, tree.children.get(REVERSE_GROUP)), strict=True):
            if found is not None and GLOBAL_GROUP in found.children:
                yield way, control, found


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
