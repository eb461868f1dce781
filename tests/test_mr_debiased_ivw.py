"""Debiased and penalised IVW against R's MendelianRandomization, their invariants and edges."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import (
    Array,
    assert_batch_is_a_loop,
    assert_mirrors,
    assert_same_fit,
    assert_scales,
    assert_sign_order_and_padding,
    draw,
    factors,
    seeds,
    sizes,
)
from tests.reference_numbers import assert_close, inputs, load, rtol_of, sources

FIELDS = {
    "Estimate": "estimate",
    "StdError": "se",
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "Pvalue": "pvalue",
    "SNPs": "n_instruments",
    "Condition": "condition",
    "Tau2": "tau2",
}
# R divides by bxse = 0, multiplies 0 by Inf, and does not drop the absent variant.
WITHOUT_AN_ANSWER_IN_R = {
    "mr_edge_zero_bxse": Status.OK,
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
# Two samples of 1000 draws: their quantiles differ by some percent of the interval's width.
BOOTSTRAP = 0.15


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_divw_and_mr_pivw_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if record.function not in ("mr_divw", "mr_pivw"):
            continue
        options = record.options
        over_dispersion, drawn = options.pop("over.dispersion"), options.pop("Boot.Fieller", False)
        assert not options
        assert not record.not_to_match
        result: Any
        if record.function == "mr_divw":
            result = mr.debiased_ivw(*inputs(dataset), over_dispersion=over_dispersion)
        else:
            ci = "bootstrap" if drawn else "normal"
            result = mr.penalized_ivw(*inputs(dataset), over_dispersion=over_dispersion, ci=ci)
        compared += 1
        value, rtol = record.value, rtol_of(name)
        if name in WITHOUT_AN_ANSWER_IN_R:
            assert value is None or np.isnan(value["StdError"])
            assert result.status == WITHOUT_AN_ANSWER_IN_R[name]
            assert np.isfinite(result.se) == (result.status == Status.OK)
            continue
        for theirs, ours in FIELDS.items():
            actual, wanted = getattr(result, ours), value.get(theirs)
            if wanted is None:
                continue
            if drawn and theirs in ("CILower", "CIUpper"):
                assert abs(actual - wanted) < BOOTSTRAP * (value["CIUpper"] - value["CILower"]), record.key
            elif drawn and theirs == "Pvalue":
                assert abs(actual - wanted) < 0.03, record.key
            else:
                floor = rtol * value["StdError"] if theirs != "Pvalue" else 1e-300
                assert_close(actual, wanted, rtol=rtol, atol=floor, label=f"{record.key} {theirs}")
    assert compared == 6


Estimator = Callable[..., Any]
ESTIMATORS: list[Estimator] = [
    mr.debiased_ivw,
    partial(mr.debiased_ivw, over_dispersion=False),
    mr.penalized_ivw,
    partial(mr.penalized_ivw, penalty=3.0, over_dispersion=False),
    partial(mr.penalized_ivw, ci="fieller"),
]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=["debiased", "fixed", "penalized", "lambda", "fieller"])


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes, exposure=factors, outcome=factors)
def test_scale(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    columns = draw(seed, n)
    assert_scales(estimator, columns, exposure, outcome)
    bx, bxse, by, byse = columns
    scaled = estimator(bx * exposure, bxse * exposure, by * outcome, byse * outcome)
    assert_close(scaled.condition, estimator(*columns).condition, rtol=1e-8)
    assert_close(scaled.tau2 / outcome**2, estimator(*columns).tau2, rtol=1e-6, atol=1e-12)


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_padding_and_mirror(estimator: Estimator, seed: int, n: int) -> None:
    assert_sign_order_and_padding(estimator, draw(seed, n), seed)
    assert_mirrors(estimator, draw(seed, n))


@pytest.mark.parametrize("estimator", [*ESTIMATORS, partial(mr.penalized_ivw, ci="bootstrap")])
def test_batch_is_a_loop(estimator: Estimator) -> None:
    assert_batch_is_a_loop(estimator)


def weak(n_fits: int, n: int, seed: int, strength: float = 1.0) -> tuple[Array, Array, Array, Array]:
    """Return instruments of mean F 1 + strength, with the slope 0.8."""
    rng = np.random.default_rng(seed)
    se = np.full((n_fits, n), 0.1)
    truth = rng.normal(0, 0.1 * np.sqrt(strength), n)
    bx = truth + rng.normal(0, 0.1, se.shape)
    by = 0.8 * truth + rng.normal(0, 0.1, se.shape)
    return bx, se, by, se


def test_weak_instruments_dilute_ivw_alone() -> None:
    columns = weak(400, 300, 0)
    assert abs(mr.ivw(*columns).estimate.mean() - 0.4) < 0.05
    for result in (mr.debiased_ivw(*columns), mr.penalized_ivw(*columns)):
        assert abs(result.estimate.mean() - 0.8) < 0.03
        covered = (result.ci_low < 0.8) & (result.ci_high > 0.8)
        assert 0.91 < covered.mean() < 0.98
        assert_close(result.se.mean(), result.estimate.std(), rtol=0.15)


def in_set(slope: Array | float, result: Any) -> Array:
    low, high = slope >= result.ci_low, slope <= result.ci_high
    return np.where(result.ci_low > result.ci_high, low | high, low & high)


def test_fieller_sets_cover() -> None:
    columns = weak(400, 100, 1)
    for ci in ("fieller", "bootstrap"):
        result = mr.penalized_ivw(*columns, ci=ci, over_dispersion=False)
        assert in_set(0.8, result).mean() > 0.91
        assert np.all(in_set(result.estimate, result))


def test_fieller_sets_of_weak_instruments_may_be_unbounded() -> None:
    result = mr.penalized_ivw(*weak(400, 40, 1, 0.3), ci="bootstrap", over_dispersion=False)
    assert np.all(result.status == Status.OK)
    outside, everything = result.ci_low > result.ci_high, np.isinf(result.ci_low)
    assert 0.1 < outside.mean() < 0.5
    assert 0.01 < everything.mean() < 0.2
    assert np.all(in_set(result.estimate, result))


def test_the_ends_of_a_fieller_set_are_as_significant_as_alpha() -> None:
    """Shifting the outcome by an end of the set makes "no effect" exactly borderline, without errors of the exposure."""
    bx, bxse, by, byse = draw(11, 8)
    result = mr.penalized_ivw(bx, 0 * bxse, by, byse, ci="fieller", alpha=0.1, over_dispersion=False)
    normal = mr.penalized_ivw(bx, 0 * bxse, by, byse, alpha=0.1, over_dispersion=False)
    assert_close(result.ci_low, normal.ci_low, rtol=1e-9)
    assert_close(result.ci_high, normal.ci_high, rtol=1e-9)
    assert_close(result.pvalue, normal.pvalue, rtol=1e-6)


def test_without_errors_of_the_exposure_both_are_ivw() -> None:
    bx, bxse, by, byse = draw(6, 10, (3,))
    ivw = mr.ivw(bx, bxse, by, byse, model="fixed")
    for result in (
        mr.debiased_ivw(bx, 0 * bxse, by, byse, over_dispersion=False),
        mr.penalized_ivw(bx, 0 * bxse, by, byse, over_dispersion=False),
    ):
        for name in ("estimate", "se", "pvalue"):
            assert_close(getattr(result, name), getattr(ivw, name), rtol=1e-9, label=name)
        assert np.all(np.isinf(result.condition))


def test_no_penalty_is_the_debiased_estimate() -> None:
    columns = draw(6, 10, (3,))
    assert_same_fit(mr.penalized_ivw(*columns, penalty=0.0), mr.debiased_ivw(*columns))


def test_the_bootstrap_repeats_with_its_seed() -> None:
    columns = draw(6, 10)
    first, again, other = (mr.penalized_ivw(*columns, ci="bootstrap", seed=seed) for seed in (1, 1, 2))
    assert_same_fit(first, again)
    assert first.ci_low != other.ci_low


def test_the_bootstrap_has_1000_draws() -> None:
    bx, bxse, by, byse = draw(6, 10, (40,))
    counts = 1000 * mr.penalized_ivw(bx, bxse, by * 0.1, 5 * byse, ci="bootstrap").pvalue
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert np.gcd.reduce(np.rint(counts).astype(int)) == 1


def test_over_dispersion_is_found() -> None:
    rng = np.random.default_rng(3)
    bx = rng.normal(0, 1, (200, 100))
    by = 0.5 * bx + rng.normal(0, np.sqrt(0.01 + 0.04), bx.shape)
    columns = (bx, np.full(bx.shape, 0.01), by, np.full(bx.shape, 0.1))
    for result in (mr.debiased_ivw(*columns), mr.penalized_ivw(*columns)):
        assert_close(result.tau2.mean(), 0.04, rtol=0.05)
        assert abs(stats.norm.cdf((result.estimate - 0.5) / result.se).mean() - 0.5) < 0.08


def test_one_instrument_and_a_perfect_line() -> None:
    one = mr.debiased_ivw([2.0], [0.5], [3.0], [1.0])
    assert_close(one.estimate, 6 / 3.75, rtol=1e-14)
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    for estimator in (mr.debiased_ivw, mr.penalized_ivw):
        line = estimator(bx, abs(bx) / 80, 0.75 * bx, np.full(4, 0.125))
        assert_close(line.estimate, 0.75, rtol=1e-2)
        assert line.tau2 == 0


@each
def test_reasons(estimator: Estimator) -> None:
    bx, bxse, by, byse = draw(5, 6, (10,))
    bxse[0] = np.nan
    bx[1], bxse[1] = 0.0, 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bx[6, 1] = -np.inf
    by[7] *= 1e300
    byse[7] *= 1e-300
    bxse[8, 2] = np.inf
    result = estimator(bx, bxse, by, byse)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        *[Status.INVALID_STANDARD_ERROR] * 3,
        *[Status.INVALID_EFFECT] * 2,
        Status.NOT_FINITE,
        Status.INVALID_STANDARD_ERROR,
        Status.OK,
    ]
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue", "tau2"):
        assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name


def test_no_root_of_the_denominator() -> None:
    # One exposure effect that is far below its error.
    result = mr.penalized_ivw([0.0, np.nan], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    assert result.status == Status.NO_EXPOSURE_VARIATION


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_no_variants_at_all(estimator: Estimator, batch: tuple[int, ...]) -> None:
    result = estimator(*(np.zeros((*batch, 0)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over_dispersion": "yes"}, "True, False"),
        ({"ci": "wald"}, "'normal', 'fieller', 'bootstrap'"),
        ({"penalty": -1}, "not negative"),
        ({"alpha": 1}, "between 0 and 1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.penalized_ivw(*draw(0, 4), **options)
