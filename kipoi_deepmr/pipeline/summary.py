"""Stored effects as summary data of Mendelian randomization, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import instruments, terms
from kipoi_deepmr.cube import EFFECTS_GROUP, explained
from kipoi_deepmr.errors import StoreError

FloatArray = NDArray[np.float64]

_BLOCK_ELEMENTS = 2**21
_MUTANTS = len(terms.ALLELES) - 1


@dataclass(frozen=True, eq=False)
class Summary:
    """Mutations of some sequences that one exposure binds, with their effects on it and on every outcome.

    Attributes
    ----------
    exposure : int
        Index of the exposure.
    sequences : numpy.ndarray, shape=(sequence,), int64
        Indices of the sequences.
    bx, bxse, by, byse : numpy.ndarray, shape=(outcome, sequence, variant), float64
        Effects on what counts as cause and as effect, and their standard errors; the three mutants of a position stand
        side by side, NaN where there is none.
    covariance : numpy.ndarray, shape=(outcome, sequence, variant), float64
        Covariance of the two errors of a mutation.
    positions : numpy.ndarray, shape=(variant,), int64
        Position of each mutation in the window.
    draws : int
        Number of draws that made the effects.
    standard_error : str
        ``posterior`` or ``monte_carlo``.
    n_weak, n_without_error : numpy.ndarray, shape=(outcome, sequence), int64
        Mutations that are left out, once instruments are selected.
    """

    exposure: int
    sequences: NDArray[np.int64]
    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray
    covariance: FloatArray
    positions: NDArray[np.int64]
    draws: int
    standard_error: str
    n_weak: NDArray[np.int64] | int = 0
    n_without_error: NDArray[np.int64] | int = 0

    @property
    def correlation(self) -> FloatArray:
        """Correlation of the two errors of a mutation, within [-1, 1]; 0 where an error is zero."""
        product = self.bxse * self.byse
        known = product > 0
        found = np.divide(self.covariance, product, out=np.zeros(product.shape), where=known)
        return np.clip(found, -1, 1)

    def of_the_mean(self) -> "Summary":
        """Return the same with the errors of the mean over draws."""
        if self.standard_error == "monte_carlo":
            return self
        root = np.sqrt(self.draws)
        return replace(
            self,
            bxse=self.bxse / root,
            byse=self.byse / root,
            covariance=self.covariance / self.draws,
            standard_error="monte_carlo",
        )

    def reversed(self) -> "Summary":
        """Return the same with cause and effect exchanged."""
        return replace(self, bx=self.by, bxse=self.byse, by=self.bx, byse=self.bxse)

    def selected(self, min_f: float) -> "Summary":
        """Return the same with NaN where a mutation is no instrument."""
        chosen = instruments.select(self.bx, self.bxse, self.by, self.byse, min_f=min_f)
        return replace(
            self,
            bx=chosen.bx,
            bxse=chosen.bxse,
            by=chosen.by,
            byse=chosen.byse,
            n_weak=chosen.n_weak,
            n_without_error=chosen.n_without_error,
        )


def read_effects(path: Path, tree: xr.DataTree, group: str = EFFECTS_GROUP) -> xr.Dataset:
    """Return effects of a store with coordinates in memory and what their errors mean.

    Parameters
    ----------
    path
        The store, for errors.
    tree
        The open store.
    group
        Which effects.

    Raises
    ------
    StoreError
        If something is missing or cannot be read.
    """
    with explained(path, "read"):
        effects = tree[group].to_dataset()
        absent = [name for name in (*terms.EFFECTS, *terms.COORDS) if name not in effects.variables]
        if absent:
            raise StoreError(f"{path} is incomplete: {group} lacks {', '.join(absent)}; use run --overwrite")
        effects = effects.assign_coords({name: effects[name].load() for name in effects.coords})
    effects.encoding["source"] = str(path)
    effects.attrs.update({name: tree.attrs[name] for name in ("draws", "standard_error", "scale")})
    return effects


def summaries(effects: xr.Dataset) -> Iterator[Summary]:
    """Yield every exposure with the sequences that count for it, in blocks of bounded memory.

    Parameters
    ----------
    effects
        The group `/effects` of a store, from `read_effects`.
    """
    variants = effects.sizes[terms.POSITION] * _MUTANTS * effects.sizes[terms.OUTCOME]
    size = max(1, _BLOCK_ELEMENTS // variants)
    counts = effects["bound"].values & effects["completed"].values
    for exposure in range(len(counts)):
        sequences = np.flatnonzero(counts[exposure])
        for start in range(0, len(sequences), size):
            yield _read(effects, exposure, sequences[start : start + size])


def _read(effects: xr.Dataset, exposure: int, sequences: NDArray[np.int64]) -> Summary:
    def read(name: str) -> FloatArray:
        one = {terms.EXPOSURE: exposure} if terms.EXPOSURE in terms.EFFECTS[name].dims else {}
        with explained(Path(effects.encoding.get("source", "the store")), "read"):
            found = effects[name].isel({**one, terms.SEQUENCE: sequences}).values.astype(np.float64)
        return found if terms.OUTCOME in terms.EFFECTS[name].dims else found[None]

    order = None
    values: list[FloatArray] = []
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se", "error_covariance"):
        array = read(name)
        if order is None:
            order = np.argsort(np.isnan(array), axis=-1, kind="stable")[..., :_MUTANTS]
        mutants = np.take_along_axis(array, order, axis=-1)
        values.append(mutants.reshape(*mutants.shape[:-2], -1))
    bx, bxse, by, byse, covariance = np.broadcast_arrays(*values)
    return Summary(
        exposure,
        sequences,
        bx,
        bxse,
        by,
        byse,
        covariance,
        positions=np.repeat(effects[terms.POSITION].values, _MUTANTS),
        draws=int(effects.attrs["draws"]),
        standard_error=str(effects.attrs["standard_error"]),
    )
