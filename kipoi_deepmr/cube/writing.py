"""A store open for writing effects: regions first, then the completion mask."""

import datetime
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from kipoi_deepmr import __version__, terms
from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.cube.folders import (
    attributes_of,
    check_readable,
    check_replaceable,
    clear_unfinished,
    consolidate,
    update_attributes,
    workshop,
)
from kipoi_deepmr.cube.groups import DRAWN_GROUP, EFFECTS_GROUP, FORMAT, FORMAT_NUMBER, RUN_ID
from kipoi_deepmr.cube.template import Drawn, Template, write_template
from kipoi_deepmr.effects import Effects
from kipoi_deepmr.errors import StoreError


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
        check_readable(path)
        with explained(path, "opened"):
            self._root = zarr.open_group(path, mode="r+", use_consolidated=False)
            self._run_id = self._root.attrs.get(RUN_ID)
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
        identified = replace(template, attrs={FORMAT: FORMAT_NUMBER, **template.attrs, RUN_ID: os.urandom(8).hex()})
        with explained(path, "created"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with workshop(path) as partial:
                write_template(partial / "new", identified)
                consolidate(partial / "new")
                if path.exists():
                    os.replace(path, partial / "old")
                os.replace(partial / "new", path)
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
            with explained(path, "written"), workshop(path) as partial:
                write_template(partial / "new", template)
                os.replace(partial / "new", path / folder)
                consolidate(path)
        return cls(path, folder)

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the root."""
        with explained(self.path, "read"):
            return attributes_of(self.path)

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
            np.asarray(self._array(name, DRAWN_GROUP)[...]) for name in (terms.ESTIMATOR, terms.DIRECTION)
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
            self._check_same()
            for name, block in blocks.items():
                term = {**terms.EFFECTS, **terms.DRAWS}[name]
                leading = term.dims.index(terms.SEQUENCE)
                self._array(name)[(slice(None),) * leading + (where,)] = block.astype(term.dtype)
            for name, block in (drawn or {}).items():
                leading = terms.FROM_DRAWS[name].dims.index(terms.SEQUENCE)
                self._array(name, DRAWN_GROUP)[(slice(None),) * leading + (where,)] = block
            self._array("completed")[where] = True

    def note(self, what: str, **attrs: Any) -> None:
        """Add a line to the history, with the time and the version, and set attributes of the root."""
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = f"{time} kipoi_deepmr {__version__}: {what}"
        with explained(self.path, "written"):
            stored = self._check_same()
            update_attributes(self.path, {"history": f"{stored.get('history', '')}\n{line}".strip(), **attrs})

    def clear_unfinished(self) -> None:
        """Delete files that a killed process left unfinished in the store."""
        with explained(self.path, "written"):
            clear_unfinished(self.path)

    def _check_same(self) -> dict[str, Any]:
        """Return the attributes of the root, if it is still that of the store that was opened."""
        stored = attributes_of(self.path)
        if stored.get(RUN_ID) != self._run_id:
            raise StoreError(
                f"{self.path} was replaced by another process meanwhile: nothing more is written into it; choose another name"
            )
        return stored
