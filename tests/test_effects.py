"""Moments over draws in one pass, and what a standard error means."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kipoi_deepmr.effects import Moments, from_moments

DRAWS = hnp.arrays(
    float,
    st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(2, 5)),
    elements=st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-6),
)


def moments(draws, exposures, convert=np.asarray):
    found = Moments(exposures)
    for values in draws:
        found.add(convert(values))
    return found


@settings(max_examples=60, deadline=None)
@given(DRAWS, st.sampled_from([np.array, torch.tensor]))
def test_moments_equal_those_over_stored_draws(draws, convert):
    count, _, columns = draws.shape
    exposures = columns // 2
    found = moments(draws, exposures, convert)
    deviations = draws - draws.mean(0)
    scale = max(np.abs(draws).max(), 1e-12)
    close = {"rtol": 1e-9, "atol": 1e-9 * scale**2}
    assert found.draws == count
    np.testing.assert_allclose(found.mean, draws.mean(0), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(found.squares, count * draws.var(0), **close)
    np.testing.assert_allclose(
        found.cross, np.einsum("nrx,nry->rxy", deviations[..., :exposures], deviations[..., exposures:]), **close
    )


@settings(max_examples=40, deadline=None)
@given(DRAWS, st.sampled_from(["posterior", "monte_carlo"]))
def test_effects_equal_numpy_mean_sd_and_covariance(draws, kind):
    count, rows, columns = draws.shape
    exposures = columns // 2
    found = moments(draws, exposures)
    effects = from_moments(found.mean, found.squares, found.cross, count, kind)
    divisor = 1 if kind == "posterior" else count
    scale = max(np.abs(draws).max(), 1e-12)
    sd = draws.std(0) / np.sqrt(divisor)
    np.testing.assert_allclose(effects.exposure_effect, draws.mean(0).T[:exposures], atol=1e-12 * scale)
    np.testing.assert_allclose(effects.outcome_effect, draws.mean(0).T[exposures:], atol=1e-12 * scale)
    np.testing.assert_allclose(effects.exposure_se, sd.T[:exposures], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(effects.outcome_se, sd.T[exposures:], rtol=1e-6, atol=1e-6 * scale)
    assert effects.error_covariance.shape == (exposures, columns - exposures, rows)
    for row in range(rows):
        covariance = np.cov(draws[:, row].T, ddof=0)[:exposures, exposures:] / divisor
        np.testing.assert_allclose(effects.error_covariance[..., row], covariance, rtol=1e-6, atol=1e-9 * scale**2)
    bound = effects.exposure_se[:, None] * effects.outcome_se[None]
    assert (np.abs(effects.error_covariance) <= bound + 1e-6 * scale**2).all()


def test_a_large_common_offset_loses_no_digits():
    draws = np.random.default_rng(0).normal(size=(50, 4, 3))
    np.testing.assert_allclose(moments(draws + 1e7, 1).squares, 50 * draws.var(0), rtol=1e-6)


def test_the_monte_carlo_error_is_the_posterior_sd_over_the_root_of_the_draws():
    draws = np.random.default_rng(1).normal(size=(25, 4, 3))
    found = moments(draws, 1)
    posterior, monte_carlo = (
        from_moments(found.mean, found.squares, found.cross, 25, kind) for kind in ("posterior", "monte_carlo")
    )
    np.testing.assert_allclose(posterior.exposure_se / monte_carlo.exposure_se, 5)
    np.testing.assert_allclose(posterior.error_covariance / monte_carlo.error_covariance, 25)
    np.testing.assert_array_equal(posterior.exposure_effect, monte_carlo.exposure_effect)


def test_adding_a_draw_does_not_change_what_was_given():
    values = np.ones((2, 3))
    found = Moments(1)
    found.add(values)
    found.add(values * 3)
    np.testing.assert_array_equal(values, 1)


def test_identical_draws_have_an_error_of_exactly_zero():
    found = moments(np.full((7, 2, 3), 0.1), 1)
    effects = from_moments(found.mean, found.squares, found.cross, 7)
    assert (effects.exposure_se == 0).all() and (effects.error_covariance == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_unusable_draw_stays_visible_in_its_row_alone(bad):
    draws = np.random.default_rng(2).normal(size=(4, 2, 2))
    draws[1, 0, 0] = bad
    with np.errstate(invalid="ignore"):
        found = moments(draws, 1)
    assert not np.isfinite(found.mean[0, 0]) and np.isfinite(found.mean[1]).all()


def test_variants_without_a_mutant_stay_nan_and_unfold_to_their_shape():
    rows = np.full((2 * 3 * 4, 3), np.nan)
    rows[5] = [1, 2, 3]
    effects = from_moments(rows, np.abs(rows), rows[:, :1, None] * rows[:, None, 1:], 10).reshaped((2, 3, 4))
    assert effects.exposure_effect.shape == (1, 2, 3, 4)
    assert effects.error_covariance.shape == (1, 2, 2, 3, 4)
    assert effects.exposure_effect[0, 0, 1, 1] == 1
    assert np.isnan(effects.outcome_se).sum() == 2 * 23
