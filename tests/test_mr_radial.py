"""Radial IVW and radial MR-Egger against R's RadialMR, and their invariants and edges."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.reference_numbers import assert_close, inputs, load, rtol_of, sources

Array = np.ndarray[Any, Any]
WEIGHTS = ("simple", "delta", "modified")
ESTIMATORS: list[Callable[..., Any]] = [mr.radial_ivw, mr.radial_egger]
both = pytest.mark.parametrize("estimator", ESTIMATORS)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_radial_call(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    for record in dataset.records:
        if record.package != "RadialMR" or record.value is None:
            continue
        estimator = mr.radial_ivw if record.function == "ivw_radial" else mr.radial_egger
        result = estimator(*inputs(dataset), weights=WEIGHTS[int(record.options["weights"]) - 1])
        if name == "mr_edge_linear":
            assert_close(result.estimate, 0.75, rtol=1e-12)
            continue
        if name == "mr_edge_const_bx" and result.status == Status.NO_EXPOSURE_VARIATION:
            continue
        value, rows = record.value, list(record.value["coef"].items())
        label, slope = rows[0] if estimator is mr.radial_ivw else rows[1]
        assert label.startswith(("Effect (", "Wj"))
        # RadialMR multiplies standard errors by the RSE even where that is below 1.
        shrink = min(float(result.rse), 1)
        assert_close(result.estimate, slope["Estimate"], rtol=rtol, atol=rtol * slope["SE"], label=record.key)
        assert_close(result.se * shrink, slope["SE"], rtol=rtol, label=record.key)
        z = abs(slope["Estimate"] / slope["SE"])
        df = result.n_used - 2
        p = 2 * (stats.norm.sf(z) if estimator is mr.radial_ivw else stats.t.sf(z, df))
        assert_close(p, slope["p"], rtol=1e-7 * (1 + z**2), atol=1e-300, label=record.key)
        if estimator is mr.radial_egger:
            line = rows[0][1]
            assert_close(result.intercept, line["Estimate"], rtol=rtol, atol=rtol * line["SE"], label=record.key)
            assert_close(result.intercept_se * shrink, line["SE"], rtol=rtol, label=record.key)
        assert_close(result.q, value["Q"], rtol=rtol, atol=1e-20, label=record.key)
        assert_close(result.contributions, value["Qj"], rtol=1e-7, atol=1e-11, label=record.key)
        if "Qj_p" in value:
            assert_close(result.contribution_pvalues, value["Qj_p"], rtol=1e-6, label=record.key)
        outliers = list(np.flatnonzero(result.contribution_pvalues < 0.05) + 1)
        theirs = value["outliers"]
        assert outliers == ([] if theirs == "No significant outliers" else list(np.atleast_1d(theirs)))


def draw(seed: int, n: int = 9, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, n))
    bxse, byse = rng.uniform(0.01, 0.05, bx.shape), rng.uniform(0.01, 0.05, bx.shape)
    return bx, bxse, 0.8 * bx + rng.normal(0, rng.choice([0.5, 2]), bx.shape) * byse, byse


@pytest.mark.parametrize("weights", ["simple", "delta"])
def test_radial_ivw_is_ivw(weights: str) -> None:
    columns = draw(1)
    radial, plain = mr.radial_ivw(*columns, weights=weights), mr.ivw(*columns, weights=weights)
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue", "q", "q_pvalue", "rse"):
        assert_close(getattr(radial, name), getattr(plain, name), rtol=1e-12, label=name)
    contributions = mr.diagnostics.cochran_q(*columns, weights=weights).contributions
    assert_close(radial.contributions, contributions, rtol=1e-12)


@both
@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), distribution=st.sampled_from(["normal", "t-dist"]))
def test_invariants(estimator: Callable[..., Any], weights: str, seed: int, scale: float, distribution: str) -> None:
    columns = draw(seed)
    plain = estimator(*columns, weights=weights, distribution=distribution)
    rng = np.random.default_rng(seed)
    order, sign = rng.permutation(10), rng.choice([-1.0, 1.0], 10)
    bx, bxse, by, byse = (np.append(column, np.nan)[order] for column in columns)
    changed = estimator(bx * sign * scale, bxse * scale, by * sign, byse, weights=weights, distribution=distribution)
    for name in ("estimate", "se", "ci_low", "ci_high"):
        assert_close(getattr(changed, name) * scale, getattr(plain, name), rtol=1e-6, atol=1e-9, label=name)
    for name in ("pvalue", "intercept", "intercept_se", "intercept_pvalue", "q", "n_used"):
        assert_close(getattr(changed, name), getattr(plain, name), rtol=1e-6, atol=1e-9, label=name)
    expected = np.append(plain.contributions, np.nan)[order]
    assert_close(changed.contributions, expected, rtol=1e-6, atol=1e-9)
    assert_close(np.nansum(changed.contributions), changed.q, rtol=1e-10)


@both
def test_batches_and_reasons(estimator: Callable[..., Any]) -> None:
    columns = draw(3, 6, (5,))
    columns[0][0] = np.nan
    columns[0][1] = 0.0
    columns[3][2, 0] = 0.0
    columns[1][3, 2] = -1.0
    together = estimator(*columns)
    nothing = Status.NO_EXPOSURE_VARIATION if estimator is mr.radial_ivw else Status.TOO_FEW_INSTRUMENTS
    bad = Status.INVALID_STANDARD_ERROR
    assert list(together.status) == [Status.TOO_FEW_INSTRUMENTS, nothing, bad, bad, Status.OK]
    assert np.array_equal(np.isnan(together.estimate), together.status != Status.OK)
    assert np.all(np.isnan(together.contributions[:4]))
    for row in range(5):
        alone = estimator(*(column[row] for column in columns))
        for name in alone.arrays:
            np.testing.assert_allclose(getattr(together, name)[row], getattr(alone, name), rtol=1e-11)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_instruments(n: int) -> None:
    assert (mr.radial_ivw(*draw(2, n)).status == Status.OK) == (n > 0)
    assert (mr.radial_egger(*draw(2, n)).status == Status.OK) == (n == 3)


@both
def test_wrong_options(estimator: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="'simple', 'delta', 'modified'"):
        estimator(*draw(1), weights="third")
    with pytest.raises(ValueError, match="'normal', 't-dist'"):
        estimator(*draw(1), distribution="t")
