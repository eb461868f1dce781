"""MR-Lasso against R's mr_lasso and the optimality conditions, its invariants and edges."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import (
    Array,
    Estimator,
    assert_batch_is_a_loop,
    assert_mirrors,
    assert_same_fit,
    assert_scales,
    draw,
    factors,
    seeds,
)
from tests.reference_numbers import assert_close, inputs, load, rtol_of, sources

FIELDS = {
    "Estimate": "estimate",
    "StdError": "se",
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "Pvalue": "pvalue",
    "SNPs": "n_instruments",
    "Valid": "n_valid",
}
# R stops: its rule meets a penalty without a valid instrument, byse = 0, a NaN, a single variant.
R_STOPS = {
    "mr_edge_k2": Status.OK,
    "mr_ism_corr": Status.OK,
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
ESTIMATORS: list[Estimator] = [mr.lasso, partial(mr.lasso, penalty=0.2, distribution="t-dist")]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=["rule", "penalty"])


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_lasso_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if record.function != "mr_lasso":
            continue
        options = record.options
        assert set(options) <= {"lambda", "distribution"}
        if "lambda" in options:
            options["penalty"] = options.pop("lambda")
        result = mr.lasso(*inputs(dataset), **options)
        compared += 1
        if record.value is None:
            assert result.status == R_STOPS[name], record.key
            continue
        value = record.value
        if np.isnan(value["Estimate"]):
            assert (name, result.status) == ("mr_edge_k2", Status.TOO_FEW_INSTRUMENTS)
            continue
        for theirs, ours in FIELDS.items():
            rtol, floor = rtol_of(name), rtol_of(name) * value["StdError"]
            atol = {"Pvalue": 1e-14, "SNPs": 0, "Valid": 0}.get(theirs, floor)
            assert_close(getattr(result, ours), value[theirs], rtol=rtol, atol=atol, label=f"{record.key} {theirs}")
        # The first penalty of a perfect line is rounding.
        assert_close(result.penalty, value["Lambda"], rtol=1e-7, atol=1e-12, label=record.key)
        # glmnet's coordinate descent stops within 1e-3 of the solution.
        assert_close(result.penalized_estimate, value["RegEstimate"], rtol=1e-3, label=record.key)
        if "RegIntercept" in value and np.size(value["RegIntercept"]) == result.pleiotropy.size:
            size = np.abs(dataset.data["by"]).max()
            assert_close(result.pleiotropy, value["RegIntercept"], rtol=1e-3, atol=1e-3 * size, label=record.key)
    assert compared or name == "mr_edge_k1"


def mixed(seed: int, n: int, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx, bxse, by, byse = draw(seed, n, batch)
    return bx, bxse, by + (rng.random(by.shape) < 0.3) * rng.normal(0, 1, by.shape), byse


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(3, 40), penalty=st.floats(1e-3, 3))
def test_the_optimality_conditions(seed: int, n: int, penalty: float) -> None:
    bx, bxse, by, byse = mixed(seed, n)
    result = mr.lasso(bx, bxse, by, byse, penalty=penalty)
    x, y, a = np.abs(bx), by * np.sign(bx), result.pleiotropy
    # The columns that glmnet scales: those of the pleiotropic effects with the causal effect projected out.
    unit = x / byse
    columns = (np.eye(n) - np.outer(unit, unit) / (unit @ unit)) / byse
    spread = columns.std(axis=0)
    pull = columns.T @ (columns @ (y - a)) / n
    held = a != 0
    bound = penalty * spread
    assert_close(pull[held], np.sign(a[held]) * bound[held], rtol=1e-6, atol=1e-9 / byse.min())
    assert np.all(np.abs(pull[~held]) <= bound[~held] * (1 + 1e-6) + 1e-9)
    assert np.array_equal(result.valid, ~held)
    assert_close(result.penalized_estimate, (unit @ ((y - a) / byse)) / (unit @ unit), rtol=1e-7, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(3, 30))
def test_the_estimate_is_ivw_of_the_valid(seed: int, n: int) -> None:
    columns = mixed(seed, n)
    result = mr.lasso(*columns)
    alone = mr.ivw(*(column[result.valid] for column in columns), model="random")
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
        assert_close(getattr(result, name), getattr(alone, name), rtol=1e-9, label=name)
    assert result.n_valid == result.valid.sum() >= 2
    again = mr.lasso(*columns, penalty=float(result.penalty))
    assert np.array_equal(again.valid, result.valid)


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=st.integers(4, 15), exposure=factors, outcome=factors)
def test_scale_and_mirror(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    assert_scales(estimator, mixed(seed, n), exposure, outcome)
    assert_mirrors(estimator, mixed(seed, n))


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=st.integers(4, 15))
def test_sign_order_and_padding(estimator: Estimator, seed: int, n: int) -> None:
    bx, bxse, by, byse = mixed(seed, n)
    plain = estimator(bx, bxse, by, byse)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    assert_same_fit(estimator(bx * sign, bxse, by * sign, byse), plain)
    shuffled = estimator(bx[order], bxse[order], by[order], byse[order])
    assert_same_fit(shuffled, plain, skip=("pleiotropy", "valid"))
    assert_close(shuffled.pleiotropy, plain.pleiotropy[order], rtol=1e-7, atol=1e-9)
    padded = estimator(*(np.insert(column, 1, np.nan) for column in (bx, bxse, by, byse)))
    assert_same_fit(padded, plain, skip=("pleiotropy", "valid"))
    assert np.isnan(padded.pleiotropy[1])
    assert not padded.valid[1]


@each
def test_batch_is_a_loop(estimator: Estimator) -> None:
    assert_batch_is_a_loop(estimator)


@each
def test_blocks_do_not_show(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = mixed(3, 9, (7,))
    whole = estimator(*columns)
    monkeypatch.setattr("kipoi_deepmr.mr.core.blocks._NORMALS", 20)
    assert_same_fit(estimator(*columns), whole, rtol=1e-12)


def test_outliers_are_found() -> None:
    bx, bxse, _, byse = draw(1, 20)
    by = 0.8 * bx
    by[[3, 8]] += np.array([1.0, -1.0]) * np.sign(bx[[3, 8]])
    result = mr.lasso(bx, bxse, by, byse)
    assert not result.valid[[3, 8]].any()
    assert result.pleiotropy[3] > 0 > result.pleiotropy[8]
    assert_close(result.estimate, 0.8, rtol=1e-9)


def test_a_perfect_line() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    result = mr.lasso(bx, np.full(4, 0.01), 0.75 * bx, np.full(4, 0.01))
    assert_close(result.estimate, 0.75, rtol=1e-12)
    assert result.valid.all()


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (8,))
    bx[0] = np.nan
    bx[1] = 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    by[4, 0] = np.inf
    bxse[5] = np.nan
    bx[6, 1:] = np.nan
    expected = [
        Status.TOO_FEW_INSTRUMENTS,
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.OK,
        Status.TOO_FEW_INSTRUMENTS,
        Status.OK,
    ]
    for estimator in ESTIMATORS:
        result = estimator(bx, bxse, by, byse)
        expected[1] = Status(int(result.status[1]))
        assert expected[1] in (Status.TOO_FEW_INSTRUMENTS, Status.NO_EXPOSURE_VARIATION)
        assert list(result.status) == expected
        for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
            assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_nothing_to_see(estimator: Estimator, batch: tuple[int, ...]) -> None:
    result = estimator(*(np.ones((*batch, 0)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": 0}, "positive number"),
        ({"penalty": "1"}, "positive number"),
        ({"distribution": "t"}, "'normal', 't-dist'"),
        ({"alpha": 1}, "between 0 and 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.lasso(*draw(0, 4), **options)
