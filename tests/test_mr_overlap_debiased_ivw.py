"""Overlap-debiased IVW: its formula, its invariants, and what it removes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import assert_mirrors, assert_same_fit, assert_scales, draw, factors, seeds

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("draws", [None, 10])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2, 2, 5]])
def test_equals_the_formula(draws: int | None, groups: list[int] | None) -> None:
    bx, bxse, by, byse = draw(4, 8)
    psi = np.linspace(-0.5, 0.9, 8)
    factor = 1 if draws is None else draws / (draws - 1)
    w = 1 / byse**2
    denominator = sum(w[j] * (bx[j] ** 2 - factor * bxse[j] ** 2) for j in range(8))
    slope = sum(w[j] * (bx[j] * by[j] - factor * psi[j] * bxse[j] * byse[j]) for j in range(8)) / denominator
    error = w * (bx * by - factor * psi * bxse * byse - slope * (bx**2 - factor * bxse**2))
    labels = list(range(8)) if groups is None else groups
    sums = [sum(error[j] for j in range(8) if labels[j] == label) for label in sorted(set(labels))]
    count = len(sums)
    se = np.sqrt(count / (count - 1) * sum(value**2 for value in sums)) / denominator
    result = mr.overlap_debiased_ivw(bx, bxse, by, byse, psi=psi, draws=draws, groups=groups, alpha=0.1)
    np.testing.assert_allclose([result.estimate, result.se], [slope, se], rtol=1e-10)
    np.testing.assert_allclose(result.ci_high, slope + stats.t(count - 1).ppf(0.95) * se, rtol=1e-10)
    np.testing.assert_allclose(result.pvalue, 2 * stats.t(count - 1).sf(abs(slope / se)), rtol=1e-8)
    np.testing.assert_allclose(
        result.condition, denominator / np.sqrt(2 * (w**2 * factor**2 * bxse**4).sum()), rtol=1e-10
    )
    assert (result.n_groups, result.n_instruments, result.status) == (count, 8, Status.OK)


@given(seeds, factors, factors)
@settings(max_examples=25, deadline=None)
def test_invariants(seed: int, exposure: float, outcome: float) -> None:
    columns = draw(seed, 7, (2,))
    assert_scales(mr.overlap_debiased_ivw, columns, exposure, outcome)
    assert_mirrors(mr.overlap_debiased_ivw, columns)
    psi = np.random.default_rng(seed).uniform(-1, 1, 7)
    bx, bxse, by, byse = columns
    sign, order = np.random.default_rng(seed).choice([-1.0, 1.0], 7), np.random.default_rng(seed).permutation(7)
    whole = mr.overlap_debiased_ivw(*columns, psi=psi)
    turned = [array[:, order] for array in (bx * sign, bxse, by * sign, byse)]
    assert_same_fit(whole, mr.overlap_debiased_ivw(*turned, psi=psi[order]))
    padded = [np.insert(array, 3, np.nan, axis=1) for array in columns]
    assert_same_fit(whole, mr.overlap_debiased_ivw(*padded, psi=np.insert(psi, 3, np.nan)))
    for row in range(2):
        alone = mr.overlap_debiased_ivw(*(array[row] for array in columns), psi=psi)
        np.testing.assert_allclose([alone.estimate, alone.se], [whole.estimate[row], whole.se[row]], rtol=1e-12)


def test_without_overlap_it_is_the_debiased_ivw() -> None:
    columns = draw(2, 20)
    usual, here = mr.debiased_ivw(*columns), mr.overlap_debiased_ivw(*columns)
    np.testing.assert_allclose(here.estimate, usual.estimate, rtol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_removes_dilution_and_overlap_and_covers(rho: float) -> None:
    rng = np.random.default_rng(3)
    effect = rng.normal(0, 2, (400, 300))
    u, v = rng.normal(size=(2, 400, 300))
    one = np.ones(effect.shape)
    data = (effect + u, one, 0.5 * effect + rho * u + np.sqrt(1 - rho**2) * v, one)
    result, usual = mr.overlap_debiased_ivw(*data, psi=rho), mr.ivw(*data)
    error = result.estimate.std() / 20
    assert abs(result.estimate.mean() - 0.5) < 4 * error < 0.02 < abs(usual.estimate.mean() - 0.5)
    np.testing.assert_allclose(result.se.mean(), result.estimate.std(), rtol=0.1)
    assert 0.92 < ((result.ci_low < 0.5) & (0.5 < result.ci_high)).mean() < 0.98


def test_what_has_no_answer() -> None:
    bx, bxse, by, byse = draw(1, 6)
    estimate = mr.overlap_debiased_ivw
    assert estimate(bx[:1], bxse[:1], by[:1], byse[:1]).status == Status.TOO_FEW_INSTRUMENTS
    assert estimate(bx, bxse, by, byse, groups=np.zeros(6)).status == Status.TOO_FEW_INSTRUMENTS
    assert estimate(bx[:0], bxse[:0], by[:0], byse[:0]).status == Status.TOO_FEW_INSTRUMENTS
    assert estimate(bx * 0, bxse, by, byse).status == Status.NO_EXPOSURE_VARIATION
    assert estimate(bx, bxse * 100, by, byse).status == Status.WEAK_INSTRUMENTS
    assert estimate(bx, bxse, by, byse * 0).status == Status.INVALID_STANDARD_ERROR
    assert estimate(bx, -bxse, by, byse).status == Status.INVALID_STANDARD_ERROR
    for result in (estimate(bx * 0, bxse, by, byse), estimate(bx, bxse * 100, by, byse)):
        assert np.isnan([result.estimate, result.se, result.ci_low, result.pvalue]).all()
    exact = estimate(bx, bxse * 0, by, byse, psi=0.5)
    np.testing.assert_allclose(exact.estimate, mr.ivw(bx, bxse, by, byse).estimate, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, "draws=1"),
        ({"draws": 2.5}, "draws=2.5"),
        ({"psi": 2.0}, r"\[-1, 1\]"),
        ({"groups": [1]}, "one label per variant"),
        ({"alpha": 2}, "between 0 and 1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.overlap_debiased_ivw(*draw(0, 4), **options)


def test_the_denominator_is_above_zero_at_the_two_sided_level_of_5_percent() -> None:
    rng = np.random.default_rng(5)
    bx, by = rng.normal(0, 1, (400, 20)), rng.normal(0, 1, (400, 20))
    bxse = np.linspace(0.75, 1.15, 400)[:, None] * np.ones(20)
    result = mr.overlap_debiased_ivw(bx, bxse, by, np.ones(20), alpha=0.3)
    denominator = (bx**2 - bxse**2).sum(axis=1) / np.sqrt(2 * (bxse**4).sum(axis=1))
    np.testing.assert_allclose(result.condition, denominator, rtol=1e-9)
    strong = denominator > stats.norm.isf(0.025)
    assert 30 < strong.sum() < 370 and np.any(np.abs(denominator - 1.8) < 0.1)
    np.testing.assert_array_equal(result.status, np.where(strong, Status.OK, Status.WEAK_INSTRUMENTS))
