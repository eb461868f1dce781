"""Cluster-robust standard errors against statsmodels, the matrices of their definition, and a simulation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status

Array = np.ndarray[Any, Any]
ESTIMATORS: list[Callable[..., Any]] = [mr.clustered_ivw, mr.clustered_egger]
PLAIN = {mr.clustered_ivw: mr.ivw, mr.clustered_egger: mr.egger}
both = pytest.mark.parametrize("estimator", ESTIMATORS)


def draw(seed: int, n: int = 15, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, n))
    bxse, byse = rng.uniform(0.01, 0.05, bx.shape), rng.uniform(0.01, 0.1, bx.shape)
    return bx, bxse, 0.8 * bx + rng.normal(0, 2, bx.shape) * byse, byse


def whitened(estimator: Callable[..., Any], bx: Array, by: Array, byse: Array) -> tuple[Array, Array]:
    x, y = np.abs(bx) / byse, by * np.sign(bx) / byse
    return (x[:, None] if estimator is mr.clustered_ivw else np.stack([x, 1 / byse], axis=1)), y


@both
def test_cr1_is_that_of_statsmodels(estimator: Callable[..., Any]) -> None:
    bx, bxse, by, byse = draw(1)
    groups = np.repeat(np.arange(5), 3)
    design, y = whitened(estimator, bx, by, byse)
    fit = sm.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    result = estimator(bx, bxse, by, byse, groups=groups, correction="CR1")
    np.testing.assert_allclose([result.estimate, result.se], [fit.params[0], fit.bse[0]], rtol=1e-10)
    np.testing.assert_allclose(result.pvalue, fit.pvalues[0], rtol=1e-8)
    np.testing.assert_allclose([result.ci_low, result.ci_high], fit.conf_int()[0], rtol=1e-8)
    assert result.df == 4
    if estimator is mr.clustered_egger:
        np.testing.assert_allclose([result.intercept, result.intercept_se], [fit.params[1], fit.bse[1]], rtol=1e-10)
        np.testing.assert_allclose(result.intercept_pvalue, fit.pvalues[1], rtol=1e-8)


@both
def test_groups_of_one_give_hc2(estimator: Callable[..., Any]) -> None:
    bx, bxse, by, byse = draw(2)
    design, y = whitened(estimator, bx, by, byse)
    fit = sm.OLS(y, design).fit(cov_type="HC2")
    result = estimator(bx, bxse, by, byse, groups=np.arange(15))
    np.testing.assert_allclose(result.se, fit.bse[0], rtol=1e-10)


def cr2_by_definition(design: Array, y: Array, groups: Array, column: int) -> tuple[float, float]:
    """The variance and the degrees of freedom from matrices as large as the data."""
    n = len(y)
    bread = np.linalg.inv(design.T @ design)
    annihilator = np.eye(n) - design @ bread @ design.T
    residual, combined = annihilator @ y, []
    for label in np.unique(groups):
        rows = groups == label
        root = linalg.sqrtm(annihilator[np.ix_(rows, rows)]).real
        weight = np.zeros(n)
        weight[rows] = np.linalg.pinv(root, rcond=1e-8) @ design[rows] @ bread[:, column]
        combined.append(weight)
    matrix = np.array(combined)
    gram = matrix @ annihilator @ matrix.T
    return float(((matrix @ residual) ** 2).sum()), float(np.trace(gram) ** 2 / (gram**2).sum())


@both
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cr2_is_its_definition(estimator: Callable[..., Any], seed: int) -> None:
    bx, bxse, by, byse = draw(seed, 12)
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), 3))
    design, y = whitened(estimator, bx, by, byse)
    result = estimator(bx, bxse, by, byse, groups=groups)
    variance, df = cr2_by_definition(design, y, groups, 0)
    np.testing.assert_allclose([result.se**2, result.df], [variance, df], rtol=1e-6)
    np.testing.assert_allclose(result.pvalue, 2 * stats.t.sf(abs(result.estimate / result.se), df), rtol=1e-5)
    if estimator is mr.clustered_egger:
        np.testing.assert_allclose(result.intercept_se**2, cr2_by_definition(design, y, groups, 1)[0], rtol=1e-6)


@both
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), correction=st.sampled_from(["CR1", "CR2"]))
def test_invariants(estimator: Callable[..., Any], seed: int, scale: float, correction: str) -> None:
    columns = draw(seed, 12)
    groups = np.repeat(np.arange(4), 3)
    options = {"correction": correction}
    plain = estimator(*columns, groups=groups, **options)
    same = PLAIN[estimator](*columns)
    np.testing.assert_allclose(plain.estimate, same.estimate, rtol=1e-12)
    order = np.random.default_rng(seed).permutation(13)
    bx, bxse, by, byse = (np.append(column, np.nan)[order] for column in columns)
    sign = np.random.default_rng(seed).choice([-scale, scale], 13)
    names = np.append(np.array(["d", "a", "c", "b"])[groups], "e")[order]
    changed = estimator(bx * sign, bxse * scale, by * np.sign(sign), byse, groups=names, **options)
    np.testing.assert_allclose([changed.estimate * scale, changed.se * scale], [plain.estimate, plain.se], rtol=1e-6)
    for name in ("pvalue", "df", "n_instruments", "n_groups", "intercept_pvalue"):
        np.testing.assert_allclose(getattr(changed, name), getattr(plain, name), rtol=1e-5)


@both
def test_batch_is_a_loop(estimator: Callable[..., Any]) -> None:
    columns = draw(3, 12, (2, 3))
    columns[0][0, 1, :6] = np.nan
    columns[0][1, 1, 2:] = np.nan
    columns[3][1, 2, 3] = 0.0
    groups = np.repeat(np.arange(4), 3)
    for correction in ("CR1", "CR2"):
        together = estimator(*columns, groups=groups, correction=correction)
        for index in np.ndindex(2, 3):
            alone = estimator(*(column[index] for column in columns), groups=groups, correction=correction)
            for name in alone.arrays:
                np.testing.assert_allclose(
                    getattr(together, name)[index], getattr(alone, name), rtol=1e-10, err_msg=name
                )
        few = Status.OK if estimator is mr.clustered_ivw else Status.TOO_FEW_INSTRUMENTS
        assert together.status[0, 1] == few
        assert list(together.status[1]) == [Status.OK, Status.TOO_FEW_INSTRUMENTS, Status.INVALID_STANDARD_ERROR]
        assert np.array_equal(np.isnan(together.se), together.status != Status.OK)
        assert list(together.n_groups[:, 1]) == [2, 1]


def test_one_group_with_all_weight() -> None:
    bx, bxse, by, byse = draw(5, 6)
    byse[0] = 1e-12
    result = mr.clustered_ivw(bx, bxse, by, byse, groups=[0, 0, 1, 1, 2, 2])
    assert result.status == Status.TOO_FEW_INSTRUMENTS
    assert np.isnan(result.estimate)
    byse[0] = 1e-4
    result = mr.clustered_ivw(bx, bxse, by, byse, groups=[0, 0, 1, 1, 2, 2])
    assert result.status == Status.OK
    assert 1 <= result.df < 1.3


@both
def test_no_variants(estimator: Callable[..., Any]) -> None:
    result = estimator(*(np.zeros((3, 0)) for _ in range(4)), groups=[])
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


def test_mutants_that_err_together_need_it() -> None:
    # Three mutants of a position share half of their error: IVW as if independent is too sure, CR2 is not.
    rng = np.random.default_rng(8)
    positions, runs = 20, 4000
    groups = np.repeat(np.arange(positions), 3)
    bx = np.repeat(rng.uniform(0.1, 0.5, positions), 3)
    shared = np.repeat(rng.normal(size=(runs, positions)), 3, axis=-1)
    by = (np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=shared.shape)) * 0.1
    byse = np.full(by.shape, 0.1)
    wrong = np.mean(mr.ivw(bx, 0.01 * bx, by, byse, model="fixed").pvalue < 0.05)
    right = np.mean(mr.clustered_ivw(bx, 0.01 * bx, by, byse, groups=groups).pvalue < 0.05)
    assert wrong > 0.12
    assert abs(right - 0.05) < 4 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [1, 2]}, "one label per variant"),
        ({"groups": [1, 2, 3], "correction": "CR3"}, "'CR1', 'CR2'"),
        ({"groups": [1, 2, 3], "distribution": "t"}, "'normal', 't-dist'"),
    ],
)
@both
def test_wrong_options(estimator: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(*(np.ones(3) for _ in range(4)), **options)
