"""Everything of a store that is known before the first prediction, and its empty arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.cube.groups import DRAWN_GROUP, EFFECTS_GROUP

_FILES_PER_VARIABLE = 1000


@dataclass(frozen=True)
class Drawn:
    """Estimates that are made while the draws are in memory, and written with the effects.

    Attributes
    ----------
    methods : tuple of str
        Names of the methods.
    directions : tuple of str
        Those of `terms.DIRECTIONS` that are estimated.
    settings : str
        JSON of all that decides the estimates.
    """

    methods: tuple[str, ...]
    directions: tuple[str, ...]
    settings: str


@dataclass(frozen=True)
class Template:
    """Everything of a store that is known before the first prediction.

    Attributes
    ----------
    coords : mapping of str to array
        Coordinates of `/effects` by the names of `terms.INDEXES` and `terms.COORDS` (without `completed`). With the
        coordinate `draw` the effects of every draw are kept.
    scale : str
        Scale of the effects.
    standard_error : str
        Meaning of the standard errors.
    attrs : mapping
        Attributes of the root: title, configuration, digests, versions.
    drawn : Drawn, optional
        Estimates to be made from draws.
    """

    coords: Mapping[str, NDArray[Any]]
    scale: str
    standard_error: str
    attrs: Mapping[str, Any]
    drawn: Drawn | None = None

    @property
    def variables(self) -> Mapping[str, terms.Term]:
        """Variables of `/effects`."""
        return {**terms.EFFECTS, **(terms.DRAWS if terms.DRAW in self.coords else {})}

    def size(self, dim: str) -> int:
        """Length of a dimension."""
        return len(self.coords[dim])

    @property
    def nbytes(self) -> int:
        """Bytes of the effects before compression."""
        return sum(
            np.dtype(term.dtype).itemsize * int(np.prod([self.size(dim) for dim in term.dims]))
            for term in self.variables.values()
        )


def write_template(path: Path, template: Template) -> None:
    """Write the group of the template with its coordinates and empty arrays."""
    zarr.create_group(path, attributes=dict(template.attrs), zarr_format=3)
    known = {**terms.INDEXES, **terms.COORDS}
    coords = {
        name: (known[name].dims, values, terms.attributes(known[name], template.scale))
        for name, values in template.coords.items()
    }
    xr.Dataset(coords=coords).to_zarr(path, group=EFFECTS_GROUP, mode="a", consolidated=False, zarr_format=3)
    group = zarr.open_group(path, path=EFFECTS_GROUP, mode="r+")
    sequences = template.size(terms.SEQUENCE)
    shard = max(1, -(-sequences // _FILES_PER_VARIABLE))
    completed = terms.COORDS["completed"]
    group.create_array(
        "completed",
        shape=(sequences,),
        dtype=completed.dtype,
        chunks=(shard,),
        fill_value=completed.fill,
        dimension_names=completed.dims,
        attributes=terms.attributes(completed, template.scale),
    )
    for name, term in template.variables.items():
        shape = tuple(template.size(dim) for dim in term.dims)
        by_sequence = tuple(
            shard if dim == terms.SEQUENCE else size for dim, size in zip(term.dims, shape, strict=True)
        )
        one_task = tuple(
            1 if dim in (terms.EXPOSURE, terms.OUTCOME) else size
            for dim, size in zip(term.dims, by_sequence, strict=True)
        )
        group.create_array(
            name,
            shape=shape,
            dtype=term.dtype,
            chunks=one_task,
            shards=by_sequence if one_task != by_sequence else None,
            fill_value=term.fill,
            dimension_names=term.dims,
            attributes=terms.attributes(term, template.scale, standard_error=template.standard_error),
        )
    spare = [name for name in (*template.coords, "completed") if name not in terms.INDEXES]
    group.attrs["coordinates"] = " ".join(spare)
    if template.drawn is not None:
        _write_drawn(path, template, template.drawn, shard)


def _write_drawn(path: Path, template: Template, drawn: Drawn, shard: int) -> None:
    coords: dict[str, NDArray[Any]] = {
        terms.DIRECTION: np.array(drawn.directions, dtype=object),
        **{dim: template.coords[dim] for dim in terms.LOCAL_DIMS},
        terms.ESTIMATOR: np.array(drawn.methods, dtype=object),
    }
    indexes = {
        name: (name, values, terms.attributes(terms.INDEXES[name], template.scale)) for name, values in coords.items()
    }
    attrs = {"title": "local effects estimated from every draw during the run", "settings": drawn.settings}
    xr.Dataset(coords=indexes, attrs=attrs).to_zarr(
        path, group=DRAWN_GROUP, mode="a", consolidated=False, zarr_format=3
    )
    group = zarr.open_group(path, path=DRAWN_GROUP, mode="r+")
    for name, term in terms.FROM_DRAWS.items():
        group.create_array(
            name,
            shape=tuple(len(coords[dim]) for dim in term.dims),
            dtype=term.dtype,
            chunks=tuple(shard if dim == terms.SEQUENCE else len(coords[dim]) for dim in term.dims),
            fill_value=term.fill,
            dimension_names=term.dims,
            attributes=terms.attributes(term, template.scale),
        )
