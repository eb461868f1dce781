"""Negative control: the estimates that come about when the exposure effects are permuted within each sequence."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import meta, terms
from kipoi_deepmr.config import Config, ControlsSection
from kipoi_deepmr.cube import CONTROLS_GROUP
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.estimate.from_draws import DrawnEstimates
from kipoi_deepmr.estimate.local import Progress, fit, unseen
from kipoi_deepmr.estimate.summary import FloatArray, Summary, summaries
from kipoi_deepmr.seeds import generator_of


def made_controls(tree: xr.DataTree) -> dict[str, Any]:
    """Return the settings with which the shuffled sequences of a store were made; that there are none where it has none."""
    if CONTROLS_GROUP not in tree.children:
        return {"shuffled_sequence": 0}
    made: dict[str, Any] = json.loads(tree.children[CONTROLS_GROUP].attrs["settings"])
    return made


def check_controls(tree: xr.DataTree, section: ControlsSection) -> None:
    """Check that settings ask for the shuffled sequences that a store holds.

    Raises
    ------
    ConfigError
        If they ask for others, which cannot be made without the model.
    """
    made = made_controls(tree)
    for name in made:
        if getattr(section, name) != made[name]:
            raise ConfigError(
                f"controls.{name}: {getattr(section, name)}: the shuffled sequences in the store were made with "
                f"{', '.join(f'{key}: {value}' for key, value in made.items())}, and others need the model: leave it as it is, "
                "or use run with another name"
            )


def as_made(tree: xr.DataTree, section: ControlsSection) -> ControlsSection:
    """Return settings with the shuffled sequences that a store holds, though none are asked for any more.

    Raises
    ------
    ConfigError
        If the seed, which permutations take too, is not theirs.
    """
    made = made_controls(tree)
    found = section.model_copy(update={name: value for name, value in made.items() if name != "seed"})
    check_controls(tree, found)
    return found


@np.errstate(divide="ignore", invalid="ignore")
def with_permutations(
    effects: xr.Dataset,
    local: xr.Dataset,
    overall: xr.Dataset,
    config: Config,
    drawn: DrawnEstimates,
    *,
    reverse: bool = False,
    progress: Progress = unseen,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Add to estimates what they are when the effects on the cause are permuted over the positions of each sequence.

    Parameters
    ----------
    effects
        The group `/effects`, from `read_effects`.
    local, overall
        The groups `/local` and `/global`.
    config
        Its `controls` say how often, the sections `mr` and `meta` how estimates are made.
    drawn
        Knows the draws, where the store keeps them.
    reverse
        Whether the outcomes count as causes.
    progress
        Called with the number of sequences that a method has done for an exposure in a permutation.

    Returns
    -------
    local, overall : xarray.Dataset
        With the variables of `terms.LOCAL_PERMUTED` and `terms.GLOBAL_PERMUTED`; NaN for methods that need every draw of
        a store that does not keep them.

    Notes
    -----
    The three mutants of a position move together, with their errors, to another position of the same sequence, so that
    the sizes of the effects and their likeness within a position stay, and only the pairing with the other side is
    broken. Instruments are selected anew. Permutations are drawn by seed and name of the sequence. An estimate without
    an intercept is not centred at zero under permutation where both sides have effects of one sign: see
    `permuted_mean`.

    The local p-value compares estimate / se, the global one the mean over sequences in units of its error, by their SD.
    Comparing estimates would not do: a permutation pairs most strong mutations with outcome effects near zero, and gives
    estimates closer to zero than one that is off by no more than its own error. Studentised, the test holds for "no
    effect", not for "nothing in common" alone (DiCiccio and Romano 2017, JASA 112:1211), as far as the error allows for
    unequal variances: that between sequences does, that of `ivw_clustered` does, that of `ivw` does not.
    """
    found_local = _blank(terms.LOCAL_PERMUTED, local)
    found_global = _blank(terms.GLOBAL_PERMUTED, overall)
    for exposure in range(effects.sizes[terms.EXPOSURE]):
        sequences, estimate, se = _permuted(effects, exposure, config, drawn, reverse, progress)
        own = [local[name].values[exposure][:, sequences] for name in ("estimate", "se")]
        distances = np.abs(estimate / se), np.abs(own[0] / own[1])
        for name, array in _described(estimate, *distances, config.mr.alpha).items():
            found_local[name][exposure][:, sequences] = array
        pooled = meta.random_effects(estimate, se, axis=2, alpha=config.mr.alpha, **config.meta.model_dump()).estimate
        distances = _distance_of_mean(estimate, axis=2), _distance_of_mean(own[0], axis=1)
        for name, array in _described(pooled, *distances, config.mr.alpha).items():
            found_global[name][exposure] = array
    scale, controls = str(effects.attrs["scale"]), config.controls
    both = []
    for dataset, known, found in (
        (local, terms.LOCAL_PERMUTED, found_local),
        (overall, terms.GLOBAL_PERMUTED, found_global),
    ):
        added = {
            name: (term.dims, found[name], terms.attributes(term, scale, reverse=reverse))
            for name, term in known.items()
        }
        both.append(dataset.assign(added).assign_attrs(permutations=controls.permuted_exposure, seed=controls.seed))
    return both[0], both[1]


def _permuted(
    effects: xr.Dataset, exposure: int, config: Config, drawn: DrawnEstimates, reverse: bool, progress: Progress
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Return sequences, and estimates and errors, shape (permutation, outcome, sequence, method)."""
    names = effects[terms.SEQUENCE].values
    count, sequences, parts = config.controls.permuted_exposure, [], []
    methods = config.mr.methods
    from_draws = [index for index, method in enumerate(methods) if drawn.kept and method.row.draws]
    jointly = any(method.row.joint for method in methods)
    for summary in summaries(effects, jointly=jointly, only=exposure):
        turned = summary.reversed() if reverse else summary
        orders_of = partial(_orders, turned, names[summary.sequences], config.controls)
        rounds = []
        for orders in zip(*map(orders_of, range(len(summary.sequences))), strict=True):
            permuted = turned.permuted(np.stack(orders)).selected(config.mr.min_f)
            values = fit(permuted, config.mr, ("estimate", "se"), progress)
            rounds.append([values["estimate"], values["se"]])
        found = np.array(rounds)
        for index in from_draws:
            found[..., index] = drawn.permuted(
                methods[index],
                config.mr,
                exposure,
                summary.sequences,
                orders_of,
                count,
                reverse=reverse,
                progress=progress,
            )
        sequences.append(summary.sequences)
        parts.append(found)
    if not parts:
        shape = (count, effects.sizes[terms.OUTCOME], 0, len(config.mr.methods))
        return np.zeros(0, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    whole = np.concatenate(parts, axis=3)
    return np.concatenate(sequences), whole[:, 0], whole[:, 1]


def _orders(
    summary: Summary, names: NDArray[np.str_], controls: ControlsSection, row: int
) -> Iterator[NDArray[np.int64]]:
    """Permute the positions of a sequence that have mutants with errors on both sides; the others stay."""
    with_error = ((summary.bxse[:, row] > 0) & (summary.byse[:, row] > 0)).any(0)
    usable = np.flatnonzero(with_error.reshape(summary.n_positions, -1).any(1))
    generator = generator_of(controls.seed, "permuted", str(names[row]))
    for _ in range(controls.permuted_exposure):
        order = np.arange(summary.n_positions)
        order[usable] = generator.permutation(usable)
        yield order


def _distance_of_mean(estimate: FloatArray, axis: int) -> FloatArray:
    """Return how many of its standard errors the mean over sequences is from zero; NaN for fewer than two."""
    known = np.isfinite(estimate)
    count = known.sum(axis)
    mean = estimate.sum(axis, where=known) / count
    squares = ((estimate - np.expand_dims(mean, axis)) ** 2).sum(axis, where=known)
    return np.where(count > 1, np.abs(mean) / np.sqrt(squares / (count - 1) / count), np.nan)


def _described(
    permuted: FloatArray, distances: FloatArray, distance: FloatArray, alpha: float
) -> Mapping[str, NDArray[np.generic]]:
    """Describe estimates on the first axis, and in how many the distance from zero is as large as that of the estimate."""
    known = np.isfinite(permuted)
    count = known.sum(0)
    some = count > 0
    first = np.where(some, permuted, 0.0)
    mean, sd = (np.where(some, statistic(first, axis=0), np.nan) for statistic in (np.nanmean, np.nanstd))
    low, high = np.where(some, np.nanquantile(first, [alpha / 2, 1 - alpha / 2], axis=0), np.nan)
    compared = ~np.isnan(distances)
    beyond, of = (distances >= distance).sum(0, where=compared), compared.sum(0)
    pvalue = np.where((of > 0) & ~np.isnan(distance), (1 + beyond) / (1 + of), np.nan)
    values = (mean, sd, low, high, pvalue, count)
    return dict(zip(terms.LOCAL_PERMUTED, values, strict=True))


def _blank(known: Mapping[str, terms.Term], like: xr.Dataset) -> dict[str, NDArray[np.generic]]:
    return {
        name: np.full([like.sizes[dim] for dim in term.dims], term.fill, term.dtype) for name, term in known.items()
    }
