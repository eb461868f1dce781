"""A store open for writing effects: regions first, then the completion mask."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.cube.folders import check_replaceable, clear, consolidate
from kipoi_deepmr.cube.groups import DIGEST, DRAWN_GROUP, EFFECTS_GROUP, ESTIMATES_OF
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
                clear(leftover, DIGEST)
            write_template(partial, template)
            consolidate(partial)
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
                clear(partial, ESTIMATES_OF)
                zarr.create_group(partial, attributes={ESTIMATES_OF: path.name}, zarr_format=3)
                write_template(partial / folder, template)
                os.replace(partial / folder, path / folder)
                shutil.rmtree(partial, ignore_errors=True)
                consolidate(path)
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
            consolidate(self.path)
