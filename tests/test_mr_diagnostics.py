"""Strength, dilution and heterogeneity of instruments against R, and their edges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status, diagnostics
from tests.reference_numbers import DataSet, assert_close, inputs, load, rtol_of, sources

Array = np.ndarray[Any, Any]


def two_sample(dataset: DataSet) -> dict[str, Any]:
    return {r.key: r.value for r in dataset.records if r.package == "TwoSampleMR" and r.value is not None}


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_i2_gx_and_mean_f(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    bx, bxse, by, byse = inputs(dataset)
    reference = two_sample(dataset)
    if name != "mr_edge_zero_byse":
        weighted = diagnostics.i2_gx(bx, bxse, byse)
        assert_close(weighted, reference["Isq(abs(bx)/byse,bxse/byse)"], rtol=rtol, label="weighted")
    assert_close(diagnostics.i2_gx(bx, bxse), reference["Isq(abs(bx),bxse)"], rtol=rtol, label="unweighted")
    if not np.isnan(by).any():
        for record in dataset.records:
            if record.key == "mr_ivw()" and record.package == "MendelianRandomization" and record.value:
                assert_close(diagnostics.mean_f_statistic(bx, bxse), record.value["Fstat"], rtol=rtol)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_heterogeneity(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    value = two_sample(dataset).get("mr_heterogeneity()")
    rucker = diagnostics.rucker_q(*inputs(dataset))
    if value is None or name == "mr_edge_nan":
        assert name in ("mr_edge_zero_byse", "mr_edge_nan", "mr_edge_k1")
        return
    for label, q, p in (
        ("Inverse variance weighted", rucker.q, rucker.q_pvalue),
        ("MR Egger", rucker.q_egger, rucker.q_egger_pvalue),
    ):
        if label not in value:
            assert np.isnan(q)
            continue
        assert_close(q, value[label]["Q"], rtol=rtol, atol=1e-12, label=label)
        assert_close(p, value[label]["Q_pval"], rtol=rtol, label=label)
    cochran = diagnostics.cochran_q(*inputs(dataset))
    assert_close(cochran.q, rucker.q, rtol=1e-12)
    assert_close(cochran.pvalue, rucker.q_pvalue, rtol=1e-12)
    if np.isfinite(cochran.q):
        assert_close(np.nansum(cochran.contributions), rucker.q, rtol=1e-12)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_rucker_difference(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    value = two_sample(dataset).get("mr_rucker(test_dist='z')")
    result = diagnostics.rucker_q(*inputs(dataset))
    if not isinstance(value, dict) or "Q" not in value or name == "mr_edge_nan":
        assert name in ("mr_edge_nan", "mr_edge_zero_byse", "mr_edge_const_bx", "mr_edge_k1", "mr_edge_k2")
        return
    # Q - Q' loses the digits that the two have in common.
    lost = rtol * float(result.q)
    assert_close(result.q_difference, value["Q"]["Q_diff"]["Q"], rtol=rtol, atol=lost + 1e-12)
    if name != "mr_edge_linear":
        assert_close(result.q_difference_pvalue, value["Q"]["Q_diff"]["P"], rtol=1e-7, atol=1e-300)


def example(seed: int, n: int = 6) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, n)
    return bx, rng.uniform(0.01, 0.05, n), 0.8 * bx + rng.normal(0, 0.1, n), rng.uniform(0.01, 0.05, n)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_invariants(seed: int, scale: float) -> None:
    bx, bxse, by, byse = example(seed)
    plain = diagnostics.rucker_q(bx, bxse, by, byse)
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], bx.size)
    changed = diagnostics.rucker_q(*(np.append(a, np.nan) for a in (bx * sign * scale, bxse, by * sign, byse)))
    for field in ("q", "q_egger", "df"):
        np.testing.assert_allclose(getattr(changed, field), getattr(plain, field), rtol=1e-8)
    np.testing.assert_allclose(plain.q_difference, plain.q - plain.q_egger, atol=1e-9 * plain.q)
    assert plain.q_difference >= 0
    np.testing.assert_allclose(
        diagnostics.i2_gx(bx * sign * scale, bxse * scale, byse), diagnostics.i2_gx(bx, bxse, byse), rtol=1e-8
    )
    np.testing.assert_allclose(plain.q, mr.ivw(bx, bxse, by, byse).q, rtol=1e-12)
    np.testing.assert_allclose(plain.q_egger, mr.egger(bx, bxse, by, byse).q, rtol=1e-12)


def test_f_statistics_of_exact_and_absent_instruments() -> None:
    bx, bxse = np.array([2.0, 3.0, 0.0, np.nan]), np.array([1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(diagnostics.f_statistics(bx, bxse), [4, np.inf, np.nan, np.nan])
    assert diagnostics.mean_f_statistic(bx[[0, 2, 3]], bxse[[0, 2, 3]]) == 4
    assert diagnostics.mean_f_statistic(bx, bxse) == np.inf
    assert np.isnan(diagnostics.mean_f_statistic([np.nan], [1.0]))
    assert diagnostics.mean_f_statistic([1.0, 5.0], [1.0, 1.0], where=[True, False]) == 1


def test_i2_gx_needs_two_instruments_and_errors() -> None:
    assert np.isnan(diagnostics.i2_gx([1.0], [0.1]))
    assert np.isnan(diagnostics.i2_gx([1.0, 2.0], [0.0, 0.1]))
    assert diagnostics.i2_gx([1.0, -1.0], [0.1, 0.1]) == 0
    assert diagnostics.i2_gx(np.ones((4, 0)), np.ones((4, 0))).shape == (4,)


def test_batches_and_reasons() -> None:
    columns = [np.stack([array] * 4) for array in example(3)]
    columns[0][1, 1:] = np.nan
    columns[3][2, 0] = 0.0
    columns[0][3] = 0.3
    q = diagnostics.cochran_q(*columns)
    assert list(q.status) == [
        Status.OK,
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.OK,
    ]
    assert np.array_equal(np.isnan(q.q), q.status != Status.OK)
    assert q.contributions.shape == (4, 6)
    assert np.all(np.isnan(q.contributions[1:3]))
    assert 0 <= q.i2[0] <= 1
    rucker = diagnostics.rucker_q(*columns)
    assert rucker.status[3] == Status.NO_EXPOSURE_VARIATION
    assert np.isfinite(rucker.q[3])
    assert np.isnan(rucker.q_egger[3])
    assert np.isnan(rucker.q_difference[3])


def test_delta_weights_pass_through() -> None:
    columns = example(4)
    fit = mr.ivw(*columns, weights="delta", psi=0.3)
    assert_close(diagnostics.cochran_q(*columns, weights="delta", psi=0.3).q, fit.q, rtol=1e-12)
    with pytest.raises(ValueError, match="'simple', 'delta'"):
        diagnostics.cochran_q(*columns, weights="none")
    with pytest.raises(ValueError, match="'simple', 'delta'"):
        diagnostics.rucker_q(*columns, weights="none")
