"""The degrees of freedom that the docstrings tell, where present, used and all variants are three different numbers."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from kipoi_deepmr import meta, mr
from kipoi_deepmr.mr import diagnostics
from tests.mr_helpers import Array, draw

ALPHA = 0.1
T = {"distribution": "t-dist", "alpha": ALPHA}
# Of 10 variants one is absent and one has no weight: 9 instruments of which 8 are used.
PRESENT, USED = 9, 8


def columns(unused: str) -> tuple[Array, Array, Array, Array]:
    """Return heterogeneous variants of which the second is absent and the third has no weight, or no direction."""
    bx, bxse, by, byse = draw(2, 10)
    by = by + 4 * byse * np.resize([1, -1, 1, 1, -1], 10)
    bx[1] = np.nan
    if unused == "byse":
        byse[2] = np.inf
    elif unused == "bx":
        bx[2] = 0.0
    return bx, bxse, by, byse


def two(unused: str = "byse") -> tuple[Array, Array, Array, Array]:
    bx, bxse, by, byse = columns(unused)
    return np.stack([bx, bx[::-1] + bx**2]), np.stack([bxse, bxse]), by, byse


GROUPS = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
# Result, degrees of freedom of Student's t, and those of q.
CASES: dict[str, tuple[Any, float, int | None]] = {
    "ivw": (lambda: mr.ivw(*columns("byse"), **T), PRESENT - 1, USED - 1),
    "ivw, delta weights": (lambda: mr.ivw(*columns("bx"), weights="delta", **T), PRESENT - 1, USED - 1),
    "egger": (lambda: mr.egger(*columns("byse"), **T), PRESENT - 2, USED - 2),
    "egger, delta weights": (lambda: mr.egger(*columns("bx"), weights="delta", **T), PRESENT - 2, USED - 2),
    "radial_ivw": (lambda: mr.radial_ivw(*columns("byse"), **T), USED - 1, USED - 1),
    "radial_egger": (lambda: mr.radial_egger(*columns("bx"), **T), USED - 2, USED - 2),
    "simple_median": (lambda: mr.simple_median(*columns(""), **T), PRESENT - 1, None),
    "weighted_median": (lambda: mr.weighted_median(*columns("bx"), **T), PRESENT - 1, None),
    "penalized_weighted_median": (lambda: mr.penalized_weighted_median(*columns("bx"), **T), PRESENT - 1, None),
    "simple_mode": (lambda: mr.simple_mode(*columns("bx"), **T), PRESENT - 1, None),
    "weighted_mode": (lambda: mr.weighted_mode(*columns("bx"), **T), PRESENT - 1, None),
    "maximum_likelihood": (lambda: mr.maximum_likelihood(*columns(""), **T), PRESENT - 1, PRESENT - 1),
    "clustered_ivw": (
        lambda: mr.clustered_ivw(*columns("byse"), groups=GROUPS, correction="CR1", alpha=ALPHA),
        4,
        None,
    ),
    "clustered_egger": (
        lambda: mr.clustered_egger(*columns("byse"), groups=GROUPS, correction="CR1", alpha=ALPHA),
        4,
        None,
    ),
    "overlap_debiased_ivw": (lambda: mr.overlap_debiased_ivw(*columns(""), groups=GROUPS, alpha=ALPHA), 4, None),
    "multivariable_ivw": (lambda: mr.multivariable_ivw(*two(), **T), PRESENT - 1 - 2, USED - 1 - 2),
    "multivariable_egger": (lambda: mr.multivariable_egger(*two(), **T), PRESENT - 1 - 3, USED - 1 - 3),
    "leave_one_out of ivw": (lambda: diagnostics.leave_one_out(*columns("byse"), **T), PRESENT - 2, None),
    "leave_one_out of egger": (
        lambda: diagnostics.leave_one_out(*columns("byse"), estimator="egger", **T),
        PRESENT - 3,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_student_and_chi_squared(name: str) -> None:
    make, df, q_df = CASES[name]
    result = make()
    estimate, se, low, high, p = (
        np.atleast_1d(getattr(result, field))[-1] for field in ("estimate", "se", "ci_low", "ci_high", "pvalue")
    )
    np.testing.assert_allclose(p, 2 * stats.t.sf(abs(estimate / se), df), rtol=1e-9)
    margin = stats.t.isf(ALPHA / 2, df) * se
    np.testing.assert_allclose([low, high], [estimate - margin, estimate + margin], rtol=1e-9)
    if hasattr(result, "intercept") and np.isfinite(result.intercept).all():
        level, level_se, level_p = (
            np.atleast_1d(getattr(result, f"intercept{part}"))[-1] for part in ("", "_se", "_pvalue")
        )
        np.testing.assert_allclose(level_p, 2 * stats.t.sf(abs(level / level_se), df), rtol=1e-9)
    if hasattr(result, "rse"):
        assert np.all(result.rse > 1), "the two intervals of MR-Egger are one above 1"
    if q_df is not None:
        np.testing.assert_allclose(result.q_pvalue, stats.chi2.sf(result.q, q_df), rtol=1e-9)
        np.testing.assert_allclose(result.rse, np.sqrt(result.q / q_df), rtol=1e-9)


def test_lasso_counts_the_valid() -> None:
    result = mr.lasso(*columns("byse"), penalty=1.0, **T)
    assert 2 < result.n_valid < result.n_used == USED
    p = 2 * stats.t.sf(abs(result.estimate / result.se), result.n_valid - 1)
    np.testing.assert_allclose(result.pvalue, p, rtol=1e-9)


def test_raps_counts_what_enters() -> None:
    bx, bxse, by, byse = columns("")
    bxse[2] = 11 * np.nanmedian(np.where(np.isnan(bx), np.nan, bxse))
    result = mr.raps(bx, bxse, by, byse, over_dispersion=True)
    assert (result.n_instruments, result.n_used) == (PRESENT, USED)
    np.testing.assert_allclose(result.q_pvalue, stats.chi2.sf(result.q, USED - 1), rtol=1e-9)
    bxse[2] *= 9 / 11
    assert mr.raps(bx, bxse, by, byse, over_dispersion=True).n_used == PRESENT


def test_models_of_rucker() -> None:
    result = diagnostics.rucker(*columns("byse"), **T)
    df = PRESENT - np.array([1, 1, 2, 2])
    p = 2 * stats.t.sf(np.abs(result.estimates / result.standard_errors), df)
    np.testing.assert_allclose(result.pvalues, p, rtol=1e-9)
    np.testing.assert_allclose(
        result.intercept_pvalue, 2 * stats.t.sf(np.abs(result.intercept / result.intercept_se), PRESENT - 2), rtol=1e-9
    )
    tests = result.heterogeneity
    assert tests.df == USED - 1
    for name, df in (("q", USED - 1), ("q_egger", USED - 2), ("q_difference", 1)):
        np.testing.assert_allclose(
            getattr(tests, f"{name}_pvalue"), stats.chi2.sf(getattr(tests, name), df), rtol=1e-9, err_msg=name
        )
    cochran = diagnostics.cochran_q(*columns("byse"))
    assert cochran.df == USED - 1
    np.testing.assert_allclose(cochran.pvalue, stats.chi2.sf(cochran.q, USED - 1), rtol=1e-9)


def test_presso_and_meta_analysis() -> None:
    result = diagnostics.presso(*columns(""), draws=10)
    p = 2 * stats.t.sf(abs(result.estimate / result.se), PRESENT - 1)
    np.testing.assert_allclose(result.estimate_pvalue, p, rtol=1e-9)
    bx, bxse, _, _ = columns("")
    pooled = meta.random_effects(bx, bxse, test="t", prediction="riley", alpha=ALPHA)
    np.testing.assert_allclose(pooled.pvalue, 2 * stats.t.sf(abs(pooled.estimate / pooled.se), PRESENT - 1), rtol=1e-9)
    np.testing.assert_allclose(pooled.q_pvalue, stats.chi2.sf(pooled.q, PRESENT - 1), rtol=1e-9)
    spread = np.sqrt(pooled.se**2 + pooled.tau2)
    wide = stats.t.isf(ALPHA / 2, PRESENT - 2) * spread
    np.testing.assert_allclose(pooled.prediction_high - pooled.estimate, wide, rtol=1e-9)
