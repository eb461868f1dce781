"""Local effects by methods that need every draw: while the draws are in memory, or from a store that kept them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.config import Config, Method, MRSection
from kipoi_deepmr.cube import Drawn, explained
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.methods import check_draws, check_methods, estimate_from_draws, results_of

# A status: the method needs draws that the store does not have.
WITHOUT_DRAWS = -2


def covers(made: Drawn, wanted: Drawn) -> bool:
    """Tell whether estimates hold others, with all that decides them."""
    one, other = (MRSection.model_validate_json(drawn.settings) for drawn in (made, wanted))
    same = (one.min_f, one.alpha) == (other.min_f, other.alpha)
    return same and set(wanted.directions) <= set(made.directions) and all(m in one.methods for m in other.methods)


def estimate_block(
    draws: NDArray[np.float32], bound: NDArray[np.bool_], drawn: Drawn, standard_error: str
) -> dict[str, NDArray[Any]]:
    """Estimate the effects of a block of sequences from its draws.

    Parameters
    ----------
    draws
        Effects in every draw, shape (sequence, draw, position, allele, exposure + outcome).
    bound
        Which sequences count for which exposure, shape (exposure, sequence).
    drawn
        What is estimated.
    standard_error
        What the standard errors of the store mean.

    Returns
    -------
    dict of str to array, shape=(direction, exposure, outcome, sequence, estimator)
        The variables of `terms.FROM_DRAWS`.
    """
    section = MRSection.model_validate_json(drawn.settings)
    columns = np.moveaxis(draws.reshape(*draws.shape[:2], -1, draws.shape[-1]), -1, 0)
    exposures, outcomes = columns[: len(bound)], columns[len(bound) :]
    shape = (len(drawn.directions), len(exposures), len(outcomes), len(draws), len(section.methods))
    found = _blank(shape)
    for exposure, counts in enumerate(bound):
        for sequence in np.flatnonzero(counts):
            for outcome in range(len(outcomes)):
                pair = exposures[exposure, sequence], outcomes[outcome, sequence]
                for direction in range(len(drawn.directions)):
                    values = _fit(*(pair[::-1] if direction else pair), section, standard_error)
                    for name, array in values.items():
                        found[name][direction, exposure, outcome, sequence] = array
    return found


@dataclass(frozen=True)
class DuringTheRun:
    """The estimators of a configuration, as a run knows them: as `predict.from_draws.FromDraws`.

    Attributes
    ----------
    config : Config
        The settings.
    drawn : Drawn or None
        What has to be estimated while the draws are there; None where nothing has, or the store keeps the draws.
    """

    config: Config
    drawn: Drawn | None

    def check_members(self, members: int) -> None:
        """Check that draws of so many networks are independent where the error of their mean is asked for."""
        check_draws(self.config, members)

    estimate = staticmethod(estimate_block)


def during_the_run(config: Config) -> DuringTheRun:
    """Return the estimators of a configuration for a run, after trying them.

    Raises
    ------
    ConfigError
        If a method cannot be called with its options.
    """
    check_methods(config.mr)
    section = config.mr
    methods = [method for method in section.methods if method.row.draws]
    if config.effects.keep_draws or not methods:
        return DuringTheRun(config, None)
    drawn = Drawn(
        methods=tuple(method.name for method in methods),
        directions=terms.DIRECTIONS[: 1 + section.bidirectional],
        settings=section.model_copy(update={"methods": methods}).model_dump_json(),
    )
    return DuringTheRun(config, drawn)


@dataclass(frozen=True, eq=False)
class DrawnEstimates:
    """Estimates from draws, wherever they are: in the store already, or to be made from draws that it keeps.

    Parameters
    ----------
    effects
        The group `/effects`, from `read_effects`.
    stored
        The group of estimates made during the run; None where there is none.
    """

    effects: xr.Dataset
    stored: xr.Dataset | None

    @property
    def kept(self) -> bool:
        """Whether the store keeps the draws themselves."""
        return "exposure_draws" in self.effects

    def has(self, method: Method, section: MRSection, *, reverse: bool) -> bool:
        """Tell whether a method can be estimated in a direction: it needs no draws, or they or its estimates are there."""
        if not method.row.draws or self.kept:
            return True
        return self._number(method, section, reverse) is not None

    def of(
        self,
        method: Method,
        section: MRSection,
        exposure: int,
        sequences: NDArray[np.int64],
        *,
        reverse: bool,
    ) -> Mapping[str, NDArray[Any]]:
        """Return the estimates of a method, shape (outcome, sequence) each; a status alone where the draws are missing.

        Parameters
        ----------
        method
            A method that needs draws.
        section
            Its options that all methods share.
        exposure, sequences
            Indices.
        reverse
            Whether the effect is that of the outcomes on the exposure.
        """
        if self.kept:
            return self._made(method, section, exposure, sequences, reverse)
        number = self._number(method, section, reverse)
        if self.stored is None or number is None:
            shape = (self.effects.sizes[terms.OUTCOME], len(sequences))
            return {"status": np.full(shape, WITHOUT_DRAWS, dtype=np.int8)}
        one = {
            terms.DIRECTION: int(reverse),
            terms.EXPOSURE: exposure,
            terms.SEQUENCE: sequences,
            terms.ESTIMATOR: number,
        }
        with explained(Path(self.effects.encoding["source"]), "read"):
            return {name: self.stored[name].isel(one).values for name in terms.FROM_DRAWS}

    def _made(
        self, method: Method, section: MRSection, exposure: int, sequences: NDArray[np.int64], reverse: bool
    ) -> Mapping[str, NDArray[Any]]:
        alone = section.model_copy(update={"methods": [method]})
        shape = self.effects.sizes[terms.OUTCOME], len(sequences)
        found = _blank(shape)
        for outcome, index, cause, effect in self._pairs(exposure, sequences, reverse):
            values = _fit(_flat(cause), _flat(effect), alone, self.effects.attrs["standard_error"])
            for name, array in values.items():
                found[name][outcome, index] = array[0]
        return found

    def permuted(
        self,
        method: Method,
        section: MRSection,
        exposure: int,
        sequences: NDArray[np.int64],
        orders_of: Callable[[int], Iterable[NDArray[np.int64]]],
        count: int,
        *,
        reverse: bool,
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        """Estimate from kept draws of which those of the cause are moved to other positions, in all draws the same way.

        Parameters
        ----------
        method, section, exposure, sequences, reverse
            As in `of`.
        orders_of
            Gives for a number in `sequences` its permutations: for each position the one its three mutants come from.
        count
            Number of permutations.
        progress
            Called with the number of permutations of a sequence that are done.

        Returns
        -------
        numpy.ndarray, shape=(permutation, 2, outcome, sequence)
            Estimates and standard errors.
        """
        alone = section.model_copy(update={"methods": [method]})
        outcomes = self.effects.sizes[terms.OUTCOME]
        found = np.full((count, 2, outcomes, len(sequences)), np.nan)
        for outcome, index, cause, effect in self._pairs(exposure, sequences, reverse):
            mutants = np.argsort(np.isnan(cause[0]), axis=-1, kind="stable")[None, :, : len(terms.ALLELES) - 1]
            cause, effect = (np.take_along_axis(array, mutants, axis=-1) for array in (cause, effect))
            for number, order in enumerate(orders_of(index)):
                values = _fit(_flat(cause[:, order]), _flat(effect), alone, self.effects.attrs["standard_error"])
                found[number, :, outcome, index] = values["estimate"][0], values["se"][0]
            if outcome == outcomes - 1:
                progress(count)
        return found

    def _pairs(
        self, exposure: int, sequences: NDArray[np.int64], reverse: bool
    ) -> Iterator[tuple[int, int, NDArray[np.float32], NDArray[np.float32]]]:
        """Yield outcome, number of the sequence, and kept draws of cause and effect, shape (draw, position, allele)."""
        path = Path(self.effects.encoding["source"])
        for index, sequence in enumerate(sequences):
            one = self.effects.isel({terms.EXPOSURE: exposure, terms.SEQUENCE: sequence})
            with explained(path, "read"):
                of_exposure = one["exposure_draws"].values
            for outcome in range(self.effects.sizes[terms.OUTCOME]):
                with explained(path, "read"):
                    of_outcome = one["outcome_draws"].isel({terms.OUTCOME: outcome}).values
                pair = (of_outcome, of_exposure) if reverse else (of_exposure, of_outcome)
                yield outcome, index, *pair

    def _number(self, method: Method, section: MRSection, reverse: bool) -> int | None:
        """Return which of the stored methods is the one that is asked for."""
        if self.stored is None:
            return None
        made = MRSection.model_validate_json(self.stored.attrs["settings"])
        same = (made.min_f, made.alpha) == (section.min_f, section.alpha) and made.bidirectional >= reverse
        return made.methods.index(method) if same and method in made.methods else None

    def missing(self, method: Method, section: MRSection) -> StoreError:
        """Return the error for a method that was asked for by name."""
        made = "no estimates from draws"
        if self.stored is not None:
            settings = json.loads(self.stored.attrs["settings"])
            made = "those of " + ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
        wanted = f"min_f: {section.min_f:g}, alpha: {section.alpha:g}"
        return StoreError(
            f"mr.methods: {method.name} needs the effects of every draw, which {self.effects.encoding['source']} does "
            f"not keep (it has {made}). Run the model again with {method.name} in mr.methods ({wanted}), or with "
            "`effects: {keep_draws: true}`, which lets every such method be estimated without the model"
        )


def _fit(
    cause: NDArray[np.float32], effect: NDArray[np.float32], section: MRSection, standard_error: str
) -> dict[str, NDArray[Any]]:
    """Return the variables of one pair and sequence, shape (method,); draws have shape (draw, variant)."""
    found = _blank((len(section.methods),))
    # The F of the stored errors, in terms of the error of the mean over draws.
    min_f = section.min_f * (len(cause) if standard_error == "posterior" else 1)
    for index, method in enumerate(section.methods):
        result = estimate_from_draws(method, cause, effect, min_f=min_f, alpha=section.alpha)
        for name in results_of(method, terms.FROM_DRAWS):
            found[name][index] = getattr(result, name)
    return found


def _blank(shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    return {name: np.full(shape, term.fill, term.dtype) for name, term in terms.FROM_DRAWS.items()}


def _flat(draws: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (draw, position, allele) as (draw, variant)."""
    return draws.reshape(len(draws), -1)
