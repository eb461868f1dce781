"""The zarr store: template, writes by region, completion mask, estimates, open."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.effects import Effects
from kipoi_deepmr.errors import StoreError

EFFECTS_GROUP = "effects"
LOCAL_GROUP = "local"
GLOBAL_GROUP = "global"
REVERSE_GROUP = "reverse"
DRAWN_GROUP = "from_draws"
CONTROLS_GROUP = "controls"
_DIRECTIONS = (LOCAL_GROUP, GLOBAL_GROUP, REVERSE_GROUP)
_ESTIMATES = (*_DIRECTIONS, *(f"{CONTROLS_GROUP}/{name}" for name in _DIRECTIONS))
_FILES_PER_VARIABLE = 1000
_DIGEST = "config_sha256"
_ESTIMATES_OF = "estimates_of"


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
        return sum(4 * int(np.prod([self.size(dim) for dim in term.dims])) for term in self.variables.values())


class Cube:
    """A store open for writing effects.

    Parameters
    ----------
    path
        Folder of the store.
    folder
        Group of the store that holds these effects, such as `controls`; by default the store itself.
    """

    def __init__(self, path: Path, folder: str = "") -> None:
        self.path = path
        self._folder = f"{folder}/" if folder else ""
        with explained(path, "opened"):
            self._root = zarr.open_group(path, mode="r+", use_consolidated=False)
            self.shard = self._array("completed").chunks[0]
            self.drawn = self._drawn()

    @classmethod
    def create(cls, path: Path, template: Template, *, overwrite: bool = False) -> "Cube":
        """Make an empty store; nothing is there under its name before it is whole.

        Parameters
        ----------
        path
            Folder to make.
        template
            Its coordinates and attributes.
        overwrite
            Whether to replace a store that exists. A folder that is no store of kipoi_deepmr is never replaced.

        Raises
        ------
        StoreError
            If the path exists and `overwrite` is false, or it cannot be written.
        """
        if path.exists():
            if not overwrite:
                raise StoreError(
                    f"{path} exists: continue it with --resume, replace it with --overwrite, or choose another name"
                )
            check_replaceable(path)
        partial, replaced = (path.with_name(path.name + end) for end in (".partial", ".replaced"))
        with explained(path, "created"):
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in (partial, replaced):
                _clear(leftover, _DIGEST)
            _write_template(partial, template)
            _consolidate(partial)
            if path.exists():
                os.replace(path, replaced)
            os.replace(partial, path)
            shutil.rmtree(replaced, ignore_errors=True)
        return cls(path)

    @classmethod
    def attach(cls, path: Path, folder: str, template: Template) -> "Cube":
        """Open further effects of a store, in a group of their own; make it if it is not there.

        Parameters
        ----------
        path
            A store.
        folder
            Name of the group.
        template
            Its coordinates and attributes.

        Raises
        ------
        StoreError
            If the group cannot be written.
        """
        if not (path / folder / EFFECTS_GROUP).exists():
            partial = path.with_name(f"{path.name}.{folder}")
            with explained(path, "written"):
                _clear(partial, _ESTIMATES_OF)
                zarr.create_group(partial, attributes={_ESTIMATES_OF: path.name}, zarr_format=3)
                _write_template(partial / folder, template)
                os.replace(partial / folder, path / folder)
                shutil.rmtree(partial, ignore_errors=True)
                _consolidate(path)
        return cls(path, folder)

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the root."""
        return dict(self._root.attrs)

    def completed(self) -> NDArray[np.bool_]:
        """Return which sequences are written, shape (sequence,)."""
        array = self._array("completed")
        with suppress(OSError, ValueError, RuntimeError):
            return np.asarray(array[:], dtype=bool)
        done = np.zeros(array.shape, dtype=bool)
        for start in range(0, len(done), self.shard):
            # What cannot be read was cut off while it was written: the sequence is computed again.
            with suppress(OSError, ValueError, RuntimeError):
                done[start : start + self.shard] = array[start : start + self.shard]
        return done

    def coordinate(self, name: str) -> NDArray[Any]:
        """Return a coordinate of `/effects`."""
        with explained(self.path, "read"):
            return np.asarray(self._array(name)[...])

    def _array(self, name: str, group: str = EFFECTS_GROUP) -> "zarr.Array[Any]":
        array = self._root[f"{self._folder}{group}/{name}"]
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path} is damaged: {self._folder}{group}/{name} is no array")
        return array

    @property
    def keeps_draws(self) -> bool:
        """Whether the effects of every draw are stored."""
        return f"{self._folder}{EFFECTS_GROUP}/exposure_draws" in self._root

    def _drawn(self) -> Drawn | None:
        group = f"{self._folder}{DRAWN_GROUP}"
        if group not in self._root:
            return None
        methods, directions = (
            np.asarray(self._array(name, DRAWN_GROUP)[...]) for name in (terms.METHOD, terms.DIRECTION)
        )
        settings = str(self._root[group].attrs["settings"])
        return Drawn(tuple(map(str, methods)), tuple(map(str, directions)), settings)

    def write(
        self,
        start: int,
        effects: Effects,
        reference: NDArray[np.float64],
        reference_sd: NDArray[np.float64],
        *,
        draws: NDArray[np.float32] | None = None,
        drawn: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Write the effects of consecutive sequences, then mark them completed.

        Parameters
        ----------
        start
            Index of the first sequence, a multiple of `shard`.
        effects
            Their effects, (task, sequence, position, allele).
        reference, reference_sd
            Reference predictions and their SDs, shape (exposure + outcome, sequence).
        draws
            Effects in every draw, (exposure + outcome, sequence, draw, position, allele), for a store that keeps them.
        drawn
            Estimates from them, the variables of `terms.FROM_DRAWS`, for a store that has them.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written; sequences that were completed before stay as they are.
        """
        count = reference.shape[1]
        if start % self.shard:
            raise ValueError(f"start {start} is not a multiple of the shard of {self.shard} sequences")
        where = slice(start, start + count)
        exposures = len(effects.exposure_effect)
        blocks: dict[str, NDArray[Any]] = {
            "exposure_effect": effects.exposure_effect,
            "exposure_se": effects.exposure_se,
            "outcome_effect": effects.outcome_effect,
            "outcome_se": effects.outcome_se,
            "error_covariance": effects.error_covariance,
            "exposure_reference": reference[:exposures],
            "exposure_reference_sd": reference_sd[:exposures],
            "outcome_reference": reference[exposures:],
            "outcome_reference_sd": reference_sd[exposures:],
        }
        if draws is not None:
            blocks |= {"exposure_draws": draws[:exposures], "outcome_draws": draws[exposures:]}
        with explained(self.path, "written"):
            for name, block in blocks.items():
                leading = {**terms.EFFECTS, **terms.DRAWS}[name].dims.index(terms.SEQUENCE)
                self._array(name)[(slice(None),) * leading + (where,)] = block.astype(np.float32)
            for name, block in (drawn or {}).items():
                leading = terms.FROM_DRAWS[name].dims.index(terms.SEQUENCE)
                self._array(name, DRAWN_GROUP)[(slice(None),) * leading + (where,)] = block
            self._array("completed")[where] = True

    def note(self, line: str, **attrs: Any) -> None:
        """Add a line to the history and set attributes of the root."""
        with explained(self.path, "written"):
            history = str(self._root.attrs.get("history", ""))
            self._root.attrs.update({"history": f"{history}\n{line}".strip(), **attrs})
            _consolidate(self.path)


def is_store(path: Path) -> bool:
    """Tell whether a folder is a store of kipoi_deepmr."""
    try:
        return _DIGEST in zarr.open_group(path, mode="r", use_consolidated=False).attrs
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
    own = {"zarr.json", EFFECTS_GROUP, DRAWN_GROUP, CONTROLS_GROUP, *_DIRECTIONS}
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in own and entry.name[0] != ".")
    if foreign:
        raise StoreError(
            f"{path} holds files that kipoi_deepmr did not write ({', '.join(foreign[:5])}), which --overwrite would "
            "delete: move them, or choose another name"
        )


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
        _clear(partial, _ESTIMATES_OF)
        zarr.create_group(partial, attributes={_ESTIMATES_OF: path.name}, zarr_format=3)
        for name, dataset in groups.items():
            dataset.to_zarr(partial, group=name, mode="a", consolidated=False, zarr_format=3)
        # A process that dies from here on leaves a store without estimates, never old beside new ones.
        _forget_consolidated(path)
        for name in _ESTIMATES:
            if (path / name).exists():
                os.replace(path / name, partial / f"old-{name.replace('/', '-')}")
        for name in _ESTIMATES:
            if (partial / name).exists():
                os.replace(partial / name, path / name)
        _consolidate(path)
        shutil.rmtree(partial, ignore_errors=True)


def _write_template(path: Path, template: Template) -> None:
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
    group.create_array(
        "completed",
        shape=(sequences,),
        dtype="bool",
        chunks=(shard,),
        fill_value=False,
        dimension_names=(terms.SEQUENCE,),
        attributes=terms.attributes(terms.COORDS["completed"], template.scale),
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
            dtype="float32",
            chunks=one_task,
            shards=by_sequence if one_task != by_sequence else None,
            fill_value=np.nan,
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
        terms.METHOD: np.array(drawn.methods, dtype=object),
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
        dtype = "int8" if name == "status" else "float64"
        group.create_array(
            name,
            shape=tuple(len(coords[dim]) for dim in term.dims),
            dtype=dtype,
            chunks=tuple(shard if dim == terms.SEQUENCE else len(coords[dim]) for dim in term.dims),
            fill_value=-1 if name == "status" else np.nan,
            dimension_names=term.dims,
            attributes=terms.attributes(term, template.scale),
        )


def _consolidate(path: Path) -> None:
    """Gather the metadata in one place, which is where xarray looks first."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def _forget_consolidated(path: Path) -> None:
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    root.attrs.update(dict(root.attrs))


def _clear(leftover: Path, mark: str) -> None:
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


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what the file system and zarr raise into a `StoreError`.

    Parameters
    ----------
    path
        The store.
    what
        What is done to it: created, opened, read or written.

    Raises
    ------
    StoreError
        With the reason.
    """
    reading = what in ("opened", "read")
    low_level = (OSError, KeyError, ValueError, RuntimeError) if reading else (OSError, KeyError)
    try:
        yield
    except StoreError:
        raise
    except low_level as error:
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")
        raise StoreError(f"{path} cannot be {what}: {reason}. {_advice(error, what)}") from error


def _advice(error: Exception, what: str) -> str:
    kept = " Sequences that were completed are kept" if what == "written" else ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: free some space, then go on with --resume.{kept}"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return f"The folder cannot be written: choose another output, or ask for the rights.{kept}"
    if what in ("opened", "read"):
        return "The store is incomplete or damaged: write it anew with --overwrite"
    return f"Check the folder, then go on with --resume.{kept}"
