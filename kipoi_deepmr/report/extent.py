"""Which figures a report draws: few enough to stay small and quick, chosen by rules that the page states."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.plots.choice import local_effects, names, one_of

FOREST_ROWS = 40
FORESTS = 3
OUTCOMES = 4
DIVES = 40
TWO_FORESTS = 12
SEQUENCES = 36
SEQUENCES_OF_A_PAIR = 3
TABLE_ROWS = 1000
RANKED_ROWS = 30


@dataclass(frozen=True)
class Dive:
    """A deep dive: one exposure and outcome, and the sequences whose figures are drawn.

    Attributes
    ----------
    exposure, outcome
        Their names.
    sequences : tuple of (str, str)
        Names of sequences and why each is drawn.
    """

    exposure: str
    outcome: str
    sequences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Extent:
    """What is drawn.

    Attributes
    ----------
    estimator : str
        Estimator of forests, densities and ranks.
    forest_estimators : tuple of str
        Estimators of the forests of local effects.
    outcomes : tuple of str
        Outcomes whose forests and densities are drawn.
    dives : tuple of Dive
        Deep dives in the order of the page.
    left_out : tuple of str
        What is not drawn, in plain words.
    """

    estimator: str
    forest_estimators: tuple[str, ...]
    outcomes: tuple[str, ...]
    dives: tuple[Dive, ...]
    left_out: tuple[str, ...]


def select(results: xr.DataTree, exposures: Sequence[str] | None = None, estimator: str | None = None) -> Extent:
    """Choose what to draw.

    Parameters
    ----------
    results
        An open store.
    exposures
        Exposures of the deep dives. Default: all, as far as there is room.
    estimator
        Estimator. Default: ivw where the store has it, else the first one.

    Raises
    ------
    SelectionError
        If the store lacks an exposure or the estimator.
    StoreError
        If the store has no estimates.
    """
    estimator = one_of(results, terms.ESTIMATOR, estimator)
    outcomes = names(results, terms.OUTCOME)
    wanted = [one_of(results, terms.EXPOSURE, name) for name in exposures or names(results, terms.EXPOSURE)]
    pairs = [(exposure, outcome) for outcome in outcomes for exposure in wanted]
    each = int(np.clip(SEQUENCES // min(len(pairs), DIVES), 1, SEQUENCES_OF_A_PAIR))
    dives = []
    for rank, (exposure, outcome) in enumerate(pairs[:DIVES]):
        drawn = _sequences(results, exposure, outcome, estimator, each if rank < SEQUENCES // each else 0)
        dives.append(Dive(exposure, outcome, drawn))
    others = (
        [name for name in names(results, terms.ESTIMATOR) if name != estimator] if len(pairs) <= TWO_FORESTS else []
    )
    return Extent(
        estimator,
        (estimator, *others[:1]),
        tuple(outcomes[:OUTCOMES]),
        tuple(dives),
        tuple(_left_out(pairs, each, outcomes)),
    )


def _sequences(
    results: xr.DataTree, exposure: str, outcome: str, estimator: str, count: int
) -> tuple[tuple[str, str], ...]:
    ranked = local_effects(results, exposure, outcome, estimator)
    known = int(np.isfinite(ranked["estimate"].values).sum())
    middle = (known - 1) // 2
    ranks = {1: [(middle, "median")], 2: [(0, "highest"), (known - 1, "lowest")]}.get(
        count, [(0, "highest"), (middle, "median"), (known - 1, "lowest")]
    )
    if not known or not count:
        return ()
    first_of = dict(reversed(ranks))
    sequences = ranked[terms.SEQUENCE].values
    return tuple((str(sequences[rank]), f"{word} local effect") for rank, word in sorted(first_of.items()))


def _left_out(pairs: Sequence[tuple[str, str]], each: int, outcomes: Sequence[str]) -> list[str]:
    words = {1: "the one with the median", 2: "those with the highest and the lowest"}
    chosen = words.get(each, "those with the highest, the median and the lowest")
    notes = [
        f"Of the sequences of each exposure, {chosen} local effect {'is' if each == 1 else 'are'} drawn. "
        "`kipoi deepmr plot` draws any other."
    ]
    if len(pairs) > DIVES:
        notes.append(
            f"Deep dives of the first {DIVES} of {len(pairs)} pairs of exposure and outcome, in the order of the "
            "configuration. `kipoi deepmr report --exposure NAME ...` chooses others."
        )
    drawn = SEQUENCES // each
    if min(len(pairs), DIVES) > drawn:
        notes.append(f"Figures of single sequences for the first {drawn} deep dives.")
    if len(outcomes) > OUTCOMES:
        notes.append(
            f"Forest plots and densities for the first {OUTCOMES} of {len(outcomes)} outcomes; the heat map and the "
            "table have all."
        )
    return notes
