"""Contamination mixture against R's mr_conmix and a fine grid, its confidence sets, and its edges."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import (
    Array,
    assert_batch_is_a_loop,
    assert_mirrors,
    assert_same_fit,
    assert_sign_order_and_padding,
    draw,
    factors,
    seeds,
)
from tests.reference_numbers import assert_close, inputs, load, sources

# Where R stops: one variant, a range that is empty because all bx are negative, bx = 0, byse = 0, a NaN.
R_STOPS = {
    "mr_edge_k1": Status.TOO_FEW_INSTRUMENTS,
    "mr_edge_k4": Status.OK,
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_bx": Status.OK,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
# R's grid ends before the maximum, or steps over it.
BEYOND_THE_GRID = {
    ("mr_ism_small_outliers", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.002)"),
    ("mr_ism_small_pleio", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.002)"),
    ("mr_ism_full_pleio", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.01)"),
    ("mr_ldlc_chd", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.002)"),
}
# Variants that are valid at only one of the two estimates, R's point of the grid and the maximum: so many.
VALID_AT_ONE = {
    ("mr_edge_se_range", "mr_conmix()"): 5,
    ("mr_ism_full", "mr_conmix(CIMin=-2,CIMax=3,CIStep=0.01)"): 1,
    ("mr_ism_full_negslope", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.01)"): 2,
    ("mr_ism_full_outliers", "mr_conmix(psi=0.5,CIMin=-2,CIMax=3,CIStep=0.01)"): 1,
}


def twice_log_likelihood(columns: Any, psi: float, theta: Array) -> Array:
    bx, _, by, byse = (column[:, None] for column in columns)
    ratio, se = by / bx, byse / np.abs(bx)
    valid = stats.norm.logpdf(theta, ratio, se)
    invalid = stats.norm.logpdf(ratio, 0, np.sqrt(psi**2 + se**2))
    return np.asarray(2 * np.maximum(valid, invalid).sum(axis=0))


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_conmix_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    columns = inputs(dataset)
    for record in dataset.records:
        if record.function != "mr_conmix":
            continue
        assert set(record.options) <= {"psi", "CIMin", "CIMax", "CIStep"}
        result = mr.contamination_mixture(*columns, invalid_sd=record.options.get("psi"))
        compared += 1
        value = record.value
        if value is None:
            # The default grid of 3000 variants has too many points for R.
            assert (
                record.content.get("skipped") or "not run" in record.content["error"] or result.status == R_STOPS[name]
            )
            continue
        assert_close(result.invalid_sd, value["Psi"], rtol=1e-9, atol=1e-12, label=record.key)
        step = value["CIStep"] * 1.001
        if (name, record.key) in BEYOND_THE_GRID:
            assert abs(result.estimate - value["Estimate"]) > step
            both = twice_log_likelihood(columns, value["Psi"], np.array([result.estimate, value["Estimate"]]))
            assert both[0] > both[1]
            continue
        assert_close(result.estimate, value["Estimate"], rtol=0, atol=step, label=record.key)
        valid = np.zeros(result.valid.size, dtype=bool)
        valid[np.array(value["Valid"], dtype=int).ravel() - 1] = True
        assert np.count_nonzero(valid != result.valid) == VALID_AT_ONE.get((name, record.key), 0), record.key
        if np.array_equal(valid, result.valid) and not np.isnan(value["Pvalue"]) and value["Pvalue"] > 1e-300:
            # R's statistic is multiplied by the squared over-dispersion, ours divided by it.
            ours = stats.chi2.isf(result.pvalue, 1) * result.over_dispersion**4
            assert_close(ours, stats.chi2.isf(value["Pvalue"], 1), rtol=1e-2, label=record.key)
        ours = np.clip(result.intervals[: result.n_intervals], value["CIMin"], value["CIMax"])
        ours = ours[ours[:, 0] < ours[:, 1]]
        theirs = np.column_stack([np.ravel(value["CILower"]), np.ravel(value["CIUpper"])])
        assert ours.shape == theirs.shape, record.key
        assert_close(ours, theirs, rtol=0, atol=step, label=record.key)
    assert compared >= 2


def mixed(seed: int, n: int) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx, bxse, by, byse = draw(seed, n)
    return bx, bxse, by + (rng.random(n) < 0.4) * rng.normal(0, 1, n), byse


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds, n=st.integers(2, 40), psi=st.sampled_from([None, 0.3, 3.0]), alpha=st.sampled_from([0.3, 0.05, 1e-4])
)
def test_maximum_and_confidence_set_on_a_fine_grid(seed: int, n: int, psi: float | None, alpha: float) -> None:
    columns = mixed(seed, n)
    result = mr.contamination_mixture(*columns, invalid_sd=psi, alpha=alpha)
    ratio = columns[2] / columns[0]
    grid = np.sort(np.concatenate([np.linspace(-5, 5, 20001), ratio, np.linspace(ratio.min(), ratio.max(), 5001)]))
    values = twice_log_likelihood(columns, float(result.invalid_sd), grid)
    top = twice_log_likelihood(columns, float(result.invalid_sd), np.array([result.estimate]))[0]
    assert values.max() <= top + 1e-9
    threshold = top - stats.chi2.isf(alpha, 1) * result.over_dispersion**2
    intervals = result.intervals[: result.n_intervals]
    inside = ((grid[:, None] >= intervals[:, 0]) & (grid[:, None] <= intervals[:, 1])).any(axis=1)
    clear = np.abs(values - threshold) > 1e-7
    assert np.array_equal(inside[clear], (values > threshold)[clear])
    assert np.all(intervals[1:, 0] > intervals[:-1, 1])
    assert (result.ci_low, result.ci_high) == (intervals[0, 0], intervals[-1, 1])
    covers_zero = ((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).any()
    assert covers_zero == (result.pvalue > alpha) or abs(result.pvalue / alpha - 1) < 1e-6


def test_two_groups_give_two_intervals() -> None:
    bx, byse = np.ones(8), np.full(8, 0.1)
    by = np.array([1.0, 1.01, 0.99, 1.0, -0.99, -1.0, -0.98, -0.99])
    result = mr.contamination_mixture(bx, byse, by, byse, invalid_sd=2.0)
    assert result.n_intervals == 2
    assert_close(result.estimate, 1.0, rtol=1e-12)
    assert list(result.valid) == [True] * 4 + [False] * 4
    assert_close(result.se, 0.05, rtol=1e-12)
    assert result.over_dispersion == 1


def test_no_evidence_is_the_whole_line() -> None:
    result = mr.contamination_mixture([1.0, 1.0, -1.0], [1.0] * 3, [0.1, -0.2, 0.1], [1.0] * 3, invalid_sd=0.1)
    assert (result.ci_low, result.ci_high, result.n_intervals) == (-np.inf, np.inf, 1)
    assert result.pvalue > 0.5


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(3, 15), exposure=factors, outcome=factors)
def test_scale(seed: int, n: int, exposure: float, outcome: float) -> None:
    bx, bxse, by, byse = mixed(seed, n)
    plain = mr.contamination_mixture(bx, bxse, by, byse)
    scaled = mr.contamination_mixture(bx * exposure, bxse * exposure, by * outcome, byse * outcome)
    unit = outcome / exposure
    for name in ("estimate", "se", "ci_low", "ci_high", "invalid_sd", "intervals"):
        assert_close(getattr(scaled, name) / unit, getattr(plain, name), rtol=1e-7, atol=1e-9 * plain.se, label=name)
    for name in ("pvalue", "over_dispersion", "valid", "n_intervals"):
        assert_close(getattr(scaled, name), getattr(plain, name), rtol=1e-6, atol=1e-12, label=name)


def without(name: str, *columns: Array) -> Any:
    """Return the estimates without one of their arrays."""
    arrays = mr.contamination_mixture(*columns).arrays
    del arrays[name]
    return SimpleNamespace(arrays=arrays, **arrays)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(3, 15))
def test_sign_order_padding_and_mirror(seed: int, n: int) -> None:
    assert_sign_order_and_padding(partial(without, "valid"), mixed(seed, n), seed)
    assert_mirrors(mr.contamination_mixture, mixed(seed, n))


def test_batch_is_a_loop() -> None:
    assert_batch_is_a_loop(partial(without, "intervals"))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = tuple(np.stack(parts) for parts in zip(*(mixed(seed, 9) for seed in range(7)), strict=True))
    whole = mr.contamination_mixture(*columns)
    monkeypatch.setattr("kipoi_deepmr.mr.core.blocks._NORMALS", 20)
    assert_same_fit(mr.contamination_mixture(*columns), whole, rtol=1e-12)


def test_one_instrument_needs_the_spread_of_the_invalid() -> None:
    one = ([0.5], [0.1], [0.3], [0.1])
    assert mr.contamination_mixture(*one).status == Status.TOO_FEW_INSTRUMENTS
    result = mr.contamination_mixture(*one, invalid_sd=1.0)
    assert_close(result.estimate, 0.6, rtol=1e-12)
    assert_close(result.se, 0.2, rtol=1e-12)


def test_a_perfect_line() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    result = mr.contamination_mixture(bx, np.full(4, 0.01), 0.75 * bx, np.full(4, 0.01))
    assert_close(result.estimate, 0.75, rtol=1e-12)
    assert result.valid.all()


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (8,))
    bx[0] = np.nan
    bx[1, 1:] = 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    by[4, 0] = np.inf
    bxse[5] = np.nan
    by[6], byse[6] = by[6] * 1e300, byse[6] * 1e-300
    result = mr.contamination_mixture(bx, bxse, by, byse)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.OK,
        Status.NOT_FINITE,
        Status.OK,
    ]
    bad = result.status != Status.OK
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
        assert np.array_equal(np.isnan(getattr(result, name)), bad), name
    assert not result.valid[bad].any()


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_nothing_to_see(batch: tuple[int, ...]) -> None:
    result = mr.contamination_mixture(*(np.ones((*batch, 0)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"invalid_sd": 0}, "positive number"),
        ({"invalid_sd": "1"}, "positive number"),
        ({"alpha": 1}, "between 0 and 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partial(mr.contamination_mixture, **options)(*draw(0, 4))
