"""Estimators that are told the correlation of the two errors of a variant: right where the errors correlate."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status

SLOPE, FITS, VARIANTS, DRAWS = 0.5, 80, 300, 40
CORRECT: dict[str, Callable[..., Any]] = {
    "maximum_likelihood": mr.maximum_likelihood,
    "overlap_debiased_ivw": partial(mr.overlap_debiased_ivw, draws=DRAWS),
    "raps": mr.raps,
    "raps, over-dispersed": partial(mr.raps, over_dispersion=True),
    "raps, huber": partial(mr.raps, loss="huber"),
}


@pytest.fixture(scope="module", params=[0.8, -0.6])
def stored(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    """Return bx, bxse, by, byse, psi from draws; the correlation varies over the variants about the parameter."""
    rng = np.random.default_rng(8)
    rho = np.clip(request.param + 0.3 * rng.uniform(-1, 1, VARIANTS), -1, 1)
    effect = rng.normal(0, np.sqrt(4 / DRAWS), (FITS, VARIANTS))
    u = rng.normal(size=(FITS, DRAWS, VARIANTS))
    v = rho * u + np.sqrt(1 - rho**2) * rng.normal(size=u.shape)
    deviations = u - u.mean(axis=1, keepdims=True), v - v.mean(axis=1, keepdims=True)
    psi = (deviations[0] * deviations[1]).mean(axis=1) / u.std(axis=1) / v.std(axis=1)
    root = np.sqrt(DRAWS)
    return effect + u.mean(axis=1), u.std(axis=1) / root, SLOPE * effect + v.mean(axis=1), v.std(axis=1) / root, psi


@pytest.mark.parametrize("name", CORRECT)
def test_unbiased_with_psi_and_biased_without(name: str, stored: tuple[Any, ...]) -> None:
    *columns, psi = stored
    told, blind = CORRECT[name](*columns, psi=psi), CORRECT[name](*columns)
    assert np.mean(told.status == Status.OK) > 0.99
    error = np.nanstd(told.estimate) / np.sqrt(FITS)
    # Both moments come from 40 draws: a variance as a weight leaves a bias of the order 1 / 40 of the one removed.
    remaining = 4 * error + 0.1 * abs(np.nanmean(blind.estimate) - SLOPE)
    assert abs(np.nanmean(told.estimate) - SLOPE) < remaining
    assert abs(np.nanmean(blind.estimate) - SLOPE) > 8 * error
    covered = np.nanmean((told.ci_low < SLOPE) & (told.ci_high > SLOPE))
    assert covered > 0.85
