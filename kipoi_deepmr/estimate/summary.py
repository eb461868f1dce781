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

_BLOCK_ELEMENTS = 2**18
_MUTANTS = len(terms.ALLELES) - 1
_VARIANT = (terms.SEQUENCE, terms.POSITION, terms.ALLELE)


@dataclass(frozen=True, eq=False)
class Joint:
    """Instruments for several causes at once.

    Attributes
    ----------
    causes, cause_se : numpy.ndarray, shape=(cause, sequence, variant), float64
        Effects on all causes and their standard errors; NaN where a mutation is no instrument.
    effects, effect_se : numpy.ndarray, shape=(effect, sequence, variant), float64
        Likewise on what the causes may have an effect on.
    pairs : list of (int, int)
        Index of the cause and of the effect for each outcome of the run.
    """

    causes: FloatArray
    cause_se: FloatArray
    effects: FloatArray
    effect_se: FloatArray
    pairs: list[tuple[int, int]]


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
    others, others_se : numpy.ndarray or None, shape=(exposure, sequence, variant), float64
        Effects on all exposures, for methods that take them at once.
    reverse : bool
        Whether the outcomes count as causes.
    joint : Joint or None
        Instruments for all causes at once, once instruments are selected.
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
    others: FloatArray | None = None
    others_se: FloatArray | None = None
    reverse: bool = False
    joint: Joint | None = None
    n_weak: NDArray[np.int64] | int = 0
    n_without_error: NDArray[np.int64] | int = 0

    @property
    def n_positions(self) -> int:
        """Number of positions that are mutated."""
        return len(self.positions) // _MUTANTS

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
        covariance = self.covariance / self.draws
        return replace(
            self, bxse=self.bxse / root, byse=self.byse / root, covariance=covariance, standard_error="monte_carlo"
        )

    def reversed(self) -> "Summary":
        """Return the same with cause and effect exchanged."""
        return replace(self, bx=self.by, bxse=self.byse, by=self.bx, byse=self.bxse, reverse=not self.reverse)

    def permuted(self, orders: NDArray[np.int64]) -> "Summary":
        """Return the same with the effects on the cause moved to other positions.

        Parameters
        ----------
        orders
            For each sequence and position the position from which the three mutants come, shape (sequence, position).
            The errors of different mutations are taken as uncorrelated.
        """

        def moved(array: FloatArray) -> FloatArray:
            by_position = array.reshape(*array.shape[:-1], -1, _MUTANTS)
            return np.take_along_axis(by_position, orders[None, ..., None], axis=-2).reshape(array.shape)

        bx, bxse = moved(self.bx), moved(self.bxse)
        others, others_se = self.others, self.others_se
        if others is not None and others_se is not None and not self.reverse:
            own = (np.arange(len(others)) == self.exposure)[:, None, None]
            others, others_se = np.where(own, bx[0], others), np.where(own, bxse[0], others_se)
        nothing = np.zeros(self.covariance.shape)
        return replace(self, bx=bx, bxse=bxse, covariance=nothing, others=others, others_se=others_se)

    def selected(self, min_f: float) -> "Summary":
        """Return the same with NaN where a mutation is no instrument."""
        chosen = instruments.select(self.bx, self.bxse, self.by, self.byse, min_f=min_f)
        return replace(
            self,
            bx=chosen.bx,
            bxse=chosen.bxse,
            by=chosen.by,
            byse=chosen.byse,
            joint=self._joint(min_f),
            n_weak=chosen.n_weak,
            n_without_error=chosen.n_without_error,
        )

    def _joint(self, min_f: float) -> Joint | None:
        """Select what has an error for every cause and is strong enough for one of them."""
        outcomes = range(len(self.bx))
        if self.others is None or self.others_se is None:
            return None
        if self.reverse:
            causes, cause_se, effects, effect_se = self.bx, self.bxse, self.by[:1], self.byse[:1]
            pairs = [(outcome, 0) for outcome in outcomes]
        else:
            causes, cause_se, effects, effect_se = self.others, self.others_se, self.by, self.byse
            pairs = [(self.exposure, outcome) for outcome in outcomes]
        with_error = (cause_se > 0).all(0)
        strength = np.divide(causes, cause_se, out=np.zeros(causes.shape), where=with_error) ** 2
        use = with_error & (strength >= min_f).any(0)
        causes, cause_se = (np.where(use, array, np.nan) for array in (causes, cause_se))
        effects, effect_se = (np.where(effect_se > 0, array, np.nan) for array in (effects, effect_se))
        return Joint(causes, cause_se, effects, effect_se, pairs)


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


def summaries(effects: xr.Dataset, *, jointly: bool = False, only: int | None = None) -> Iterator[Summary]:
    """Yield every exposure (or `only` one) with the sequences that count for it, in blocks of bounded memory.

    Parameters
    ----------
    effects
        The group `/effects` of a store, from `read_effects`.
    jointly
        Whether to read the effects on all exposures for each of them.
    """
    tasks = effects.sizes[terms.OUTCOME] + jointly * effects.sizes[terms.EXPOSURE]
    size = max(1, _BLOCK_ELEMENTS // (effects.sizes[terms.POSITION] * _MUTANTS * tasks))
    counts = effects["bound"].values & effects["completed"].values
    for exposure in range(len(counts)) if only is None else [only]:
        sequences = np.flatnonzero(counts[exposure])
        for start in range(0, len(sequences), size):
            yield _read(effects, exposure, sequences[start : start + size], jointly)


def _read(effects: xr.Dataset, exposure: int, sequences: NDArray[np.int64], jointly: bool) -> Summary:
    def read(name: str, exposures: int | slice = exposure) -> FloatArray:
        one = {terms.EXPOSURE: exposures} if terms.EXPOSURE in terms.EFFECTS[name].dims else {}
        with explained(Path(effects.encoding["source"]), "read"):
            chosen = effects[name].isel({**one, terms.SEQUENCE: sequences}).values.astype(np.float64)
        return chosen if chosen.ndim > len(_VARIANT) else chosen[None]

    order = np.argsort(np.isnan(read("exposure_effect")), axis=-1, kind="stable")[..., :_MUTANTS]

    def mutants(array: FloatArray) -> FloatArray:
        """Leave out the reference base."""
        kept = np.take_along_axis(array, order, axis=-1)
        return kept.reshape(*kept.shape[:-2], -1)

    names = ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se", "error_covariance")
    bx, bxse, by, byse, covariance = np.broadcast_arrays(*(mutants(read(name)) for name in names))
    others = [mutants(read(name, slice(None))) for name in names[:2]] if jointly else [None, None]
    return Summary(
        exposure=exposure,
        sequences=sequences,
        bx=bx,
        bxse=bxse,
        by=by,
        byse=byse,
        covariance=covariance,
        positions=np.repeat(effects[terms.POSITION].values, _MUTANTS),
        draws=int(effects.attrs["draws"]),
        standard_error=str(effects.attrs["standard_error"]),
        others=others[0],
        others_se=others[1],
    )
