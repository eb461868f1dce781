"""MR-Egger against R's MendelianRandomization and TwoSampleMR, and its own edges; see test_mr_ivw for what is shared."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.reference_numbers import Record, assert_close, inputs, load, mr_options, rtol_of, sources

SLOPE = {
    "Estimate": "estimate",
    "StdError.Est": "se",
    "CILower.Est": "ci_low",
    "CIUpper.Est": "ci_high",
    "Pvalue.Est": "pvalue",
}
INTERCEPT = {
    "Intercept": "intercept",
    "StdError.Int": "intercept_se",
    "CILower.Int": "intercept_ci_low",
    "CIUpper.Int": "intercept_ci_high",
    "Pvalue.Int": "intercept_pvalue",
}
REST = {"SNPs": "n_instruments", "RSE": "rse", "Q": "q", "Q.pval": "q_pvalue", "I.sq": "i2_gx"}

# R prints a message or stops where there is no estimate.
NO_ESTIMATE = {
    "mr_edge_k1": Status.TOO_FEW_INSTRUMENTS,
    "mr_edge_k2": Status.TOO_FEW_INSTRUMENTS,
    "mr_edge_const_bx": Status.NO_EXPOSURE_VARIATION,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
# R counts the absent variant in SNPs, the t degrees of freedom and I.sq, and gives no Q.
COUNTS_THE_ABSENT = {"mr_edge_nan": ("SNPs", "Q", "Q.pval", "I.sq", "Pvalue.Est", "Pvalue.Int")}


def is_egger(record: Record) -> bool:
    return record.package == "MendelianRandomization" and record.function == "mr_egger"


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_egger_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in filter(is_egger, dataset.records):
        options = mr_options(record, dataset)
        if options.get("robust"):
            continue
        assert not record.not_to_match
        result = mr.egger(*inputs(dataset), **options)
        compared += 1
        if record.value is None:
            assert result.status == NO_ESTIMATE[name]
            assert np.isnan(result.estimate)
            continue
        for theirs, ours in (SLOPE | INTERCEPT | REST).items():
            if theirs in COUNTS_THE_ABSENT.get(name, ()):
                continue
            se = record.value["StdError.Int" if theirs in INTERCEPT else "StdError.Est"]
            # R computes p as 2 (1 - Phi): no digit below the rounding of 1.
            floor = {"RSE": 1e-12, "Q": 1e-12, "Pvalue.Est": 1e-15, "Pvalue.Int": 1e-15}.get(theirs, rtol_of(name) * se)
            label = f"{record.key} {theirs}"
            assert_close(getattr(result, ours), record.value[theirs], rtol=rtol_of(name), atol=floor, label=label)
    assert compared >= 2


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_two_sample_mr_egger(source: str, name: str) -> None:
    if name == "mr_edge_zero_bx":
        pytest.skip("TwoSampleMR takes sign(0) = +1 and keeps the outcome effect; see rucker_q")
    dataset, rtol = load(source, name), rtol_of(name)
    result = mr.egger(*inputs(dataset))
    for record in dataset.records:
        if record.package != "TwoSampleMR" or record.value is None:
            continue
        value = record.value
        if record.function == "mr_egger_regression":
            if np.isnan(value["b"]):
                assert result.status != Status.OK
                continue
            pairs = [("b", "estimate"), ("se", "se"), ("b_i", "intercept"), ("se_i", "intercept_se")]
            if not record.not_to_match:
                pairs += [("Q", "q"), ("Q_pval", "q_pvalue")]
                _compare_t_pvalues(result, value, rtol)
        elif record.function == "mr_pleiotropy_test":
            if np.isnan(value["egger_intercept"]):
                continue
            pairs = [("egger_intercept", "intercept"), ("se", "intercept_se")]
        else:
            continue
        for theirs, ours in pairs:
            actual = getattr(result, ours)
            assert_close(actual, value[theirs], rtol=rtol, atol=1e-12, label=f"{record.key} {theirs}")


def _compare_t_pvalues(result: Any, value: dict[str, float], rtol: float) -> None:
    """TwoSampleMR's p-values: t(n - 2) on the clipped standard error, without the wider-of-two rule."""
    for theirs, estimate, se in (
        ("pval", result.estimate, result.se),
        ("pval_i", result.intercept, result.intercept_se),
    ):
        p = 2 * stats.t.sf(abs(estimate / se), result.n_instruments - 2)
        assert_close(p, value[theirs], rtol=rtol, atol=1e-12, label=theirs)


def test_a_perfect_line_with_an_intercept() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    result = mr.egger(bx, abs(bx) / 8, 0.75 * bx + 0.125 * np.sign(bx), np.full(4, 0.125), distribution="t-dist")
    assert_close(result.estimate, 0.75, rtol=1e-12)
    assert_close(result.intercept, 0.125, rtol=1e-12)
    assert result.rse < 1e-12
    assert result.se > 0
    assert 0 <= result.pvalue < 1


def test_exact_zeros_give_no_nan_interval() -> None:
    bx = np.array([0.5, 0.25, 1.0, 2.0])
    result = mr.egger(bx, bx / 8, np.zeros(4), np.full(4, 0.125), distribution="t-dist")
    assert result.status == Status.OK
    assert (result.estimate, result.rse, result.pvalue, result.intercept_pvalue) == (0, 0, 1, 1)
    assert result.ci_low < 0 < result.ci_high


def test_an_instrument_without_exposure_effect_is_the_origin() -> None:
    bx = np.array([0.0, 0.5, -0.25, 1.0, 0.7])
    by = np.array([9.0, 0.4, -0.3, 0.8, 0.5])
    moved = by.copy()
    moved[0] = 0.0
    se = np.full(5, 0.1)
    assert mr.egger(bx, se, by, se).estimate == mr.egger(bx, se, moved, se).estimate
    correlation = np.full((5, 5), 0.2) + 0.8 * np.eye(5)
    assert np.isfinite(mr.egger(bx, se, by, se, correlation=correlation).estimate)


def test_fixed_takes_the_residual_error_as_one() -> None:
    bx = np.array([0.2, 0.5, 0.3, 1.0, 0.7])
    by = np.array([0.9, 0.4, -0.3, 0.8, 0.5])
    se = np.full(5, 0.1)
    random, fixed = mr.egger(bx, se, by, se), mr.egger(bx, se, by, se, model="fixed")
    assert random.rse > 1
    assert_close(random.se, fixed.se * fixed.rse, rtol=1e-12)
    assert_close(random.intercept_se, fixed.intercept_se * fixed.rse, rtol=1e-12)


@pytest.mark.parametrize(("spread", "status"), [(1e-5, Status.OK), (1e-9, Status.NO_EXPOSURE_VARIATION)])
def test_how_equal_exposure_effects_may_be(spread: float, status: Status) -> None:
    # lm() calls a column collinear where less than 1e-7 of its norm is left.
    shift = np.array([-2.0, -1, 0, 1, 2]) * spread
    bx, ones = 0.5 + shift, np.ones(5)
    result = mr.egger(bx, ones, 3 * shift + 0.25, ones)
    assert result.status == status
    if status == Status.OK:
        assert_close([result.estimate, result.intercept], [3, 0.25 - 3 * 0.5], rtol=1e-6)
    left = mr.diagnostics.leave_one_out(bx, ones, 3 * shift + 0.25, ones, estimator="egger")
    assert set(left.status) == {status}


@pytest.mark.parametrize("distribution", ["normal", "t-dist"])
def test_under_dispersion_takes_the_wider_interval_and_the_larger_p(distribution: str) -> None:
    bx, se = np.linspace(1, 2, 5), np.full(5, 0.1)
    for small in (0.02, 0.6):
        by = 0.05 * bx + small * se * np.array([1, -1, 0, -1, 1])
        result = mr.egger(bx, se, by, se, distribution=distribution)
        assert result.rse < 1
        z, normal = abs(result.estimate / result.se), stats.norm.isf(0.025) * result.se
        margin, p = normal, 2 * stats.norm.sf(z)
        if distribution == "t-dist":
            margin = max(normal, stats.t.isf(0.025, 3) * result.se * result.rse)
            p = max(p, 2 * stats.t.sf(z / result.rse, 3))
        assert_close(result.ci_high - result.estimate, margin, rtol=1e-9)
        assert_close(result.pvalue, p, rtol=1e-9)
