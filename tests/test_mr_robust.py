"""Robust IVW and MR-Egger against R's lmrob, by way of MendelianRandomization, and the MM-estimator on its own.

lmrob stops its search for the S-estimate when the coefficients move by less than 1e-7, with a scale that is up to 3e-4
above the minimum; here the scale is the minimum, which a test below checks by brute force.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import optimize

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import Array, assert_mirrors, assert_scales, draw, factors, seeds
from tests.reference_numbers import Record, assert_close, inputs, load, mr_options, sources

# In standard errors for what has a unit; relative for the scale and its consequences.
ESTIMATE, SCALE = 1e-4, 1e-3
LOCATION = {"Estimate": "estimate", "Intercept": "intercept"}
ENDS = {
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "CILower.Int": "intercept_ci_low",
    "CIUpper.Int": "intercept_ci_high",
}
RELATIVE = {
    "StdError": "se",
    "StdError.Est": "se",
    "StdError.Int": "intercept_se",
    "RSE": "rse",
    "Q": "q",
    "SNPs": "n_instruments",
    "Fstat": "f_statistic",
    "I.sq": "i2_gx",
}
PVALUES = {"Pvalue": "pvalue", "Pvalue.Est": "pvalue", "Pvalue.Int": "intercept_pvalue", "Q.pval": "q_pvalue"}
# Where R stops, by estimator: lmrob on a perfect line, and what the ordinary fits tell about.
R_STOPS = {
    ("mr_ivw", "mr_edge_linear"): Status.OK,
    ("mr_ivw", "mr_edge_nan"): Status.OK,
    ("mr_ivw", "mr_edge_zero_byse"): Status.INVALID_STANDARD_ERROR,
    ("mr_egger", "mr_edge_linear"): Status.OK,
    ("mr_egger", "mr_edge_linear_icpt"): Status.OK,
    ("mr_egger", "mr_edge_k1"): Status.TOO_FEW_INSTRUMENTS,
    ("mr_egger", "mr_edge_k2"): Status.TOO_FEW_INSTRUMENTS,
    ("mr_egger", "mr_edge_const_bx"): Status.NO_EXPOSURE_VARIATION,
    ("mr_egger", "mr_edge_zero_byse"): Status.INVALID_STANDARD_ERROR,
}
# Where R counts the absent variant: also in the degrees of freedom of t.
COUNTS_THE_ABSENT = (
    "SNPs",
    "Q",
    "Q.pval",
    "I.sq",
    "Fstat",
    *PVALUES,
    *(end + part for end in ENDS for part in ("", ".Est")),
)


def is_robust(record: Record) -> bool:
    # With a correlation matrix R takes no notice of robust = TRUE: compared in test_mr_ivw.
    fits = record.package == "MendelianRandomization" and record.function in ("mr_ivw", "mr_egger")
    return fits and not record.correlated and record.options.get("robust", False)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_robust_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in filter(is_robust, dataset.records):
        estimator: Callable[..., Any] = mr.ivw if record.function == "mr_ivw" else mr.egger
        result = estimator(*inputs(dataset), **mr_options(record, dataset))
        compared += 1
        if record.value is None:
            assert result.status == R_STOPS[record.function, name], record.key
            continue
        if np.isnan(record.value.get("StdError", 0)):
            # A scale of 0 in R: no standard error. Here that of known errors.
            assert (record.value["RSE"], result.rse) == (0, 0)
            assert_close(result.estimate, record.value["Estimate"], rtol=1e-12)
            assert_close(
                result.se, mr.ivw(*inputs(dataset), **mr_options(record, dataset) | {"robust": False}).se, rtol=1e-9
            )
            continue
        left_out = COUNTS_THE_ABSENT if name == "mr_edge_nan" or record.not_to_match else ()
        _compare(record, result, left_out)
    assert compared >= 8


def _compare(record: Record, result: Any, left_out: tuple[str, ...]) -> None:
    slope_se = record.value.get("StdError", record.value.get("StdError.Est"))
    for theirs in set(record.value) - set(left_out):
        wanted, label = record.value[theirs], f"{record.key} {theirs}"
        se = record.value["StdError.Int"] if "Int" in theirs else slope_se
        if theirs in LOCATION:
            assert_close(getattr(result, LOCATION[theirs]), wanted, rtol=0, atol=ESTIMATE * se, label=label)
        elif theirs.removesuffix(".Est") in ENDS:
            actual = getattr(result, ENDS[theirs.removesuffix(".Est")])
            assert_close(actual, wanted, rtol=0, atol=(ESTIMATE + 13 * SCALE) * se, label=label)
        elif theirs in RELATIVE:
            assert_close(getattr(result, RELATIVE[theirs]), wanted, rtol=SCALE, atol=1e-12, label=label)
        elif theirs in PVALUES and not np.isnan(wanted):
            # An error of the scale multiplies z, and log p is about -z^2 / 2. R's MR-Egger computes 2 (1 - Phi(z)).
            actual = getattr(result, PVALUES[theirs])
            if wanted > 1e-12 or record.function == "mr_ivw":
                floor = 1e-300
                assert_close(
                    np.log(actual + floor), np.log(wanted + floor), rtol=4 * SCALE, atol=4 * SCALE, label=label
                )
            else:
                assert actual < 1e-11


def m_scale(residuals: Array, n_columns: int) -> float:
    """Return the scale s with mean rho(r / s) (n / (n - p)) = 1/2, by bisection."""

    def excess(log_scale: float) -> float:
        u = np.minimum((residuals / (1.547640 * np.exp(log_scale))) ** 2, 1)
        return float((3 * u - 3 * u**2 + u**3).sum() - 0.5 * (residuals.size - n_columns))

    return float(np.exp(optimize.brentq(excess, -30, 30, xtol=1e-13)))


@pytest.mark.parametrize("n", [4, 7, 30, 700])
def test_no_slope_has_a_smaller_scale(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5 if n < 100 else 1):
        bx, byse = rng.normal(size=n), rng.uniform(0.5, 2, n)
        by = np.where(rng.uniform(size=n) < 0.35, 3.0, 0.5) * bx + rng.normal(0, 0.3, n)
        result = mr.ivw(bx, byse, by, byse, robust=True)
        slopes = np.linspace(-2, 5, 1401 if n < 100 else 141)
        lowest = min(m_scale((by - slope * bx) / byse, 1) for slope in slopes)
        assert result.rse <= lowest * (1 + 1e-9)
        assert result.rse > 0.8 * lowest


def test_no_line_has_a_smaller_scale() -> None:
    rng = np.random.default_rng(8)
    for n in (6, 40):
        bx, byse = rng.uniform(0.1, 2, n), rng.uniform(0.5, 2, n)
        by = np.where(rng.uniform(size=n) < 0.3, 3.0, 0.5) * bx + 0.4 + rng.normal(0, 0.3, n)
        result = mr.egger(bx, byse, by, byse, robust=True)

        def scale(line: Array, bx: Array = bx, by: Array = by, byse: Array = byse) -> float:
            return m_scale((by - line[0] - line[1] * bx) / byse, 2)

        starts = rng.uniform([-1, -1], [2, 4], (40, 2))
        found = [optimize.minimize(scale, start, method="Nelder-Mead").fun for start in starts]
        assert result.rse <= min(found) * (1 + 1e-9)


@pytest.mark.parametrize("estimator", [mr.ivw, mr.egger])
def test_a_third_of_gross_outliers_is_ignored(estimator: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    bx = rng.uniform(0.2, 1, (20, 60))
    se = np.full(bx.shape, 0.05)
    by = 0.8 * bx + rng.normal(0, 0.05, bx.shape)
    clean = estimator(bx, se, by, se, robust=True)
    by[:, ::3] += rng.uniform(5, 50, (20, 20))
    robust, ordinary = estimator(bx, se, by, se, robust=True), estimator(bx, se, by, se)
    assert np.all(abs(robust.estimate - 0.8) < 5 * clean.se)
    assert np.all(abs(ordinary.estimate - 0.8) > abs(robust.estimate - 0.8))
    assert np.all(robust.se < ordinary.se / 10)


def test_without_outliers_it_is_almost_least_squares() -> None:
    rng = np.random.default_rng(1)
    bx = rng.normal(0, 1, (50, 400))
    by = 0.8 * bx + rng.normal(0, 1, bx.shape)
    ones = np.ones(bx.shape)
    robust, ordinary = mr.ivw(bx, ones, by, ones, robust=True), mr.ivw(bx, ones, by, ones)
    # 95% efficiency.
    assert abs(np.mean(robust.se / ordinary.se) - np.sqrt(1 / 0.95)) < 0.01
    assert abs(np.std(robust.estimate) / np.mean(robust.se) - 1) < 0.3
    assert_close(robust.rse.mean(), 1, rtol=0.02)


@pytest.mark.parametrize("estimator", [mr.ivw, mr.egger])
@settings(max_examples=15, deadline=None)
@given(seed=seeds, exposure=factors, outcome=factors)
def test_scale_and_mirror(estimator: Callable[..., Any], seed: int, exposure: float, outcome: float) -> None:
    columns = draw(seed, 10)
    assert_scales(lambda *data: estimator(*data, robust=True), columns, exposure, outcome)
    assert_mirrors(lambda *data: estimator(*data, robust=True), columns)


def test_equal_lines_and_small_numbers() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0, 0.75])
    se = np.full(5, 0.125)
    by = 0.75 * bx + 0.25 * np.sign(bx)
    line = mr.egger(bx, se, by, se, robust=True)
    assert_close([line.estimate, line.intercept], [0.75, 0.25], rtol=1e-9)
    assert_close(
        [line.se, line.intercept_se], [mr.egger(bx, se, by, se).se, mr.egger(bx, se, by, se).intercept_se], rtol=1e-9
    )
    assert line.rse == 0
    # More than half of the points on one line: the others do not count.
    by[2] = 9.0
    assert_close(mr.egger(bx, se, by, se, robust=True).estimate, 0.75, rtol=1e-9)
    one = mr.ivw([2.0], [0.1], [1.0], [0.2], robust=True)
    assert (one.estimate, one.se, one.rse) == (0.5, 0.1, 1)
    assert np.isfinite(mr.ivw(bx[:2], se[:2], by[:2] + 0.1, se[:2], robust=True).estimate)
    assert mr.egger(bx[:2], se[:2], by[:2], se[:2], robust=True).status == Status.TOO_FEW_INSTRUMENTS


def test_thousands_of_weak_instruments_do_not_hide_the_strong_ones() -> None:
    rng = np.random.default_rng(5)
    bx = np.where(np.arange(3000) < 40, rng.normal(0, 1, 3000), rng.normal(0, 0.01, 3000))
    se = np.full(3000, 0.02)
    by = 0.8 * bx + rng.normal(0, 0.02, 3000)
    by[:8] = -3 * bx[:8]
    order = rng.permutation(3000)
    result = mr.ivw(bx, se, by, se, robust=True)
    assert abs(result.estimate - 0.8) < 0.02
    shuffled = mr.ivw(bx[order], se, by[order], se, robust=True)
    assert_close(shuffled.estimate, result.estimate, rtol=1e-9)
