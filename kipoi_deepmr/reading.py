"""Parts of an open store: some tasks and sequences, some variants at a time."""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.cube import CONTROLS_GROUP, EFFECTS_GROUP, explained
from kipoi_deepmr.errors import SelectionError, suggestion

_VARIANTS_AT_ONCE = 2**15


def select(
    results: xr.DataTree,
    *,
    exposure: Sequence[str] = (),
    outcome: Sequence[str] = (),
    sequence: Sequence[str] = (),
) -> xr.DataTree:
    """Return a part of a store; nothing is read from the disk but names.

    Parameters
    ----------
    results
        An open store.
    exposure, outcome, sequence
        Names, or patterns such as ``HepG2_*`` and ``chr8:*``. Default: all.

    Returns
    -------
    xarray.DataTree
        The same groups with the same attributes, in the order of the store; of shuffled sequences those that come from
        the chosen ones.

    Raises
    ------
    SelectionError
        If a name or pattern fits nothing in the store.
    """
    asked = {terms.EXPOSURE: exposure, terms.OUTCOME: outcome, terms.SEQUENCE: sequence}
    effects = results[EFFECTS_GROUP].to_dataset()
    kept = {dim: _matching(read(effects, dim), wanted, dim) for dim, wanted in asked.items() if len(wanted)}
    of_controls = kept
    if terms.SEQUENCE in kept and CONTROLS_GROUP in results.children:
        chosen = read(effects, terms.SEQUENCE)[kept[terms.SEQUENCE]]
        names = read(results[CONTROLS_GROUP][EFFECTS_GROUP].to_dataset(), terms.SEQUENCE)
        origins = [name.rpartition(terms.SHUFFLE)[0] for name in names]
        of_controls = {**kept, terms.SEQUENCE: np.flatnonzero(np.isin(origins, chosen))}
    groups = {}
    for node in results.subtree:
        dataset = node.to_dataset()
        indices = of_controls if node.path.startswith(f"/{CONTROLS_GROUP}/") else kept
        groups[node.path] = dataset.isel({dim: index for dim, index in indices.items() if dim in dataset.dims})
    return xr.DataTree.from_dict(groups)


def read(effects: xr.Dataset, name: str, **where: Any) -> NDArray[Any]:
    """Read a part of a variable of `/effects`.

    Parameters
    ----------
    effects
        The group, whose arrays are read when they are used.
    name
        Variable or coordinate.
    **where
        Indices by dimension: a number, which drops the dimension, a slice or an array.

    Returns
    -------
    numpy.ndarray
        Its values; text as fixed-width text, which numpy compares and concatenates.

    Raises
    ------
    StoreError
        If the store is damaged.
    """
    with explained(Path(effects.encoding.get("source", "the store")), "read"):
        values: NDArray[Any] = effects[name].isel(where).values
    return np.array(values.tolist(), dtype=np.str_) if values.dtype.kind in "OT" else values


def sequence_blocks(effects: xr.Dataset, sequences: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Split sequences into blocks whose variants fit comfortably into memory.

    Parameters
    ----------
    effects
        The group `/effects`.
    sequences
        Their indices.

    Yields
    ------
    numpy.ndarray of int
        Consecutive parts of `sequences`.
    """
    size = max(1, _VARIANTS_AT_ONCE // (effects.sizes[terms.POSITION] * effects.sizes[terms.ALLELE]))
    for start in range(0, len(sequences), size):
        yield sequences[start : start + size]


def _matching(names: NDArray[np.str_], wanted: Sequence[str], what: str) -> NDArray[np.intp]:
    words = [wanted] if isinstance(wanted, str) else list(wanted)
    found = np.zeros(names.size, dtype=bool)
    for word in words:
        fits = names == word
        if not fits.any():
            fits = np.array([fnmatch.fnmatchcase(name, word) for name in names], dtype=bool)
        if not fits.any():
            shown = ", ".join(names[:5]) + (", ..." if names.size > 5 else "")
            raise SelectionError(
                f"the store has no {what} '{word}'.{suggestion(word, names)} It has {names.size}: {shown}"
            )
        found |= fits
    return np.flatnonzero(found)
