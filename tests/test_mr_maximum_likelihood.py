"""Maximum likelihood against exact solutions of the profile likelihood, R's mr_maxlik where it converges, and brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

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
from tests.reference_numbers import Record, assert_close, inputs, load, mr_options, sources

FIELDS = {
    "Estimate": "estimate",
    "StdError": "se",
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "RSE": "rse",
    "Q": "q",
}
# How far R's optimisers stop from the optimum where they say nothing, in standard errors: BFGS, and on ldlc_chd.
BFGS, BFGS_ON_LDLC, NELDER_MEAD = 1e-3, 0.05, 0.05


def is_own(record: Record) -> bool:
    return record.package == "own" and record.function == "profile_ml"


def is_maxlik(record: Record) -> bool:
    return record.package == "MendelianRandomization" and record.function == "mr_maxlik"


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_exact_solution(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in filter(is_own, dataset.records):
        compared += 1
        options = mr_options(record, dataset)
        fixed, random = (
            mr.maximum_likelihood(*inputs(dataset), model=model, **options) for model in ("fixed", "random")
        )
        if record.value is None:
            # R's solver stops at the NaN, and at byse = 0.
            assert (name, fixed.status) in (
                ("mr_edge_nan", Status.OK),
                ("mr_edge_zero_byse", Status.INVALID_STANDARD_ERROR),
            )
            continue
        value = record.value
        assert_close(
            fixed.estimate, value["Estimate"], rtol=1e-9, atol=1e-9 * value["StdError_fixed"], label=record.key
        )
        assert_close(fixed.se, value["StdError_fixed"], rtol=1e-9, label=record.key)
        if value["Q_df"]:
            assert_close(random.se, value["StdError_random"], rtol=1e-9, label=record.key)
            assert_close(fixed.q, value["Q"], rtol=1e-9, atol=1e-12, label=record.key)
        if "Q_pval" in value and value["Q_df"]:
            assert_close(fixed.q_pvalue, value["Q_pval"], rtol=1e-8, label=record.key)
    assert compared


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_mr_maxlik_and_two_sample_mr_where_they_converge(source: str, name: str) -> None:
    dataset = load(source, name)
    for record in dataset.records:
        if record.value is None or record.not_to_match:
            continue
        if record.function == "mr_two_sample_ml":
            result = mr.maximum_likelihood(*inputs(dataset), model="fixed")
            if np.isfinite(record.value["b"]):
                assert abs(result.estimate - record.value["b"]) <= NELDER_MEAD * result.se, record.key
        if not is_maxlik(record):
            continue
        options = mr_options(record, dataset)
        tolerance = NELDER_MEAD
        if options.pop("method", None) == "BFGS":
            tolerance = BFGS_ON_LDLC if name == "mr_ldlc_chd" else BFGS
        result = mr.maximum_likelihood(*inputs(dataset), **options)
        assert result.n_instruments == record.value["SNPs"]
        for theirs, ours in FIELDS.items():
            if result.n_instruments == 1 and theirs in ("RSE", "Q", "StdError", "CILower", "CIUpper"):
                continue
            wanted = record.value[theirs]
            slack = tolerance * (1 if ours in ("q", "rse") else result.se)
            assert_close(getattr(result, ours), wanted, rtol=tolerance, atol=slack, label=f"{record.key} {theirs}")


def criterion(b: Array, columns: tuple[Array, ...], psi: Array | float) -> Array:
    bx, bxse, by, byse = columns
    b = b[:, None]
    return ((by - b * bx) ** 2 / (byse**2 + b**2 * bxse**2 - 2 * b * psi * bxse * byse)).sum(axis=-1)


@pytest.mark.parametrize("strongest", [0.0, 0.9, 0.99])
def test_no_lower_minimum_exists(strongest: float) -> None:
    rng = np.random.default_rng(3)
    several = 0
    for _ in range(60):
        n = int(rng.integers(2, 40))
        bx, by = rng.standard_t(2, n), rng.standard_t(2, n)
        bxse, byse = np.exp(rng.normal(-1, 1.5, n)), np.exp(rng.normal(-1, 1.5, n))
        psi = rng.uniform(-strongest, strongest, n)
        columns = (bx, bxse, by, byse)
        result = mr.maximum_likelihood(*columns, psi=psi)
        b = np.tan(np.linspace(-np.pi / 2, np.pi / 2, 40_001)[1:-1])
        values = criterion(b, columns, psi)
        q = criterion(np.array([float(result.estimate)]), columns, psi)[0]
        assert q <= values.min() * (1 + 1e-9)
        several += np.count_nonzero((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])) > 1
    assert several > 10


def test_the_standard_error_is_the_curvature() -> None:
    columns = draw(3, 9)
    psi = np.linspace(-0.5, 0.8, 9)
    result = mr.maximum_likelihood(*columns, psi=psi, model="fixed")
    step = 1e-3 * float(result.se)
    b = float(result.estimate) + step * np.array([-1, 0, 1])
    low, middle, high = criterion(b, columns, psi)
    assert_close(result.se, np.sqrt(2 * step**2 / (low - 2 * middle + high)), rtol=1e-4)


@pytest.mark.parametrize("psi", [0.0, 0.6])
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes, exposure=factors, outcome=factors)
def test_scale(psi: float, seed: int, n: int, exposure: float, outcome: float) -> None:
    assert_scales(lambda *columns: mr.maximum_likelihood(*columns, psi=psi), draw(seed, n), exposure, outcome)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_padding_and_mirror(seed: int, n: int) -> None:
    for options in ({}, {"model": "fixed", "distribution": "t-dist"}):
        estimator = lambda *columns: mr.maximum_likelihood(*columns, **options)  # noqa: B023, E731
        assert_sign_order_and_padding(estimator, draw(seed, n), seed)
        assert_mirrors(estimator, draw(seed, n))


def test_batch_is_a_loop() -> None:
    assert_batch_is_a_loop(mr.maximum_likelihood)
    correlation = np.full((8, 8), 0.3) + 0.7 * np.eye(8)
    assert_batch_is_a_loop(lambda *columns: mr.maximum_likelihood(*columns, psi=0.4, correlation=correlation))


def test_exposure_and_outcome_change_places() -> None:
    bx, bxse, by, byse = draw(5, 20)
    there, back = mr.maximum_likelihood(bx, bxse, by, byse), mr.maximum_likelihood(by, byse, bx, bxse)
    assert_close(back.estimate, 1 / there.estimate, rtol=1e-9)
    assert_close(back.q, there.q, rtol=1e-9)


def test_without_errors_of_the_exposure_it_is_ivw() -> None:
    bx, bxse, by, byse = draw(6, 10, (3,))
    result, ivw = mr.maximum_likelihood(bx, 0 * bxse, by, byse), mr.ivw(bx, bxse, by, byse)
    for name in ("estimate", "se", "q", "rse", "pvalue"):
        assert_close(getattr(result, name), getattr(ivw, name), rtol=1e-9, label=name)


def test_psi_per_variant_and_correlated_instruments() -> None:
    columns = draw(7, 6)
    mixed = mr.maximum_likelihood(*columns, psi=np.linspace(0, 0.5, 6))
    assert mixed.estimate != mr.maximum_likelihood(*columns, psi=0.25).estimate
    identity = mr.maximum_likelihood(*columns, psi=0.25, correlation=np.eye(6))
    assert_same_fit(identity, mr.maximum_likelihood(*columns, psi=0.25))
    with pytest.raises(ValueError, match="one value per fit"):
        mr.maximum_likelihood(*columns, psi=np.linspace(0, 0.5, 6), correlation=np.eye(6))
    bad = mr.maximum_likelihood(*columns, correlation=np.ones((6, 6)))
    assert bad.status == Status.INVALID_CORRELATION
    gap = [column.copy() for column in columns]
    gap[1][2] = np.nan
    matrix = np.full((6, 6), 0.3) + 0.7 * np.eye(6)
    matrix[2] = matrix[:, 2] = np.nan
    left = [0, 1, 3, 4, 5]
    removed = mr.maximum_likelihood(*(column[left] for column in gap), correlation=matrix[np.ix_(left, left)])
    assert_same_fit(mr.maximum_likelihood(*gap, correlation=matrix), removed)


def test_one_to_four_instruments() -> None:
    bx, bxse, by, byse = draw(7, 4)
    by *= 3 * np.array([1, -1, 1, -1])
    present = np.arange(4) < np.arange(1, 5)[:, None]
    stacked = [np.where(present, column, np.nan) for column in (bx, bxse, by, byse)]
    default, fixed, random = (mr.maximum_likelihood(*stacked, model=model) for model in ("default", "fixed", "random"))
    assert np.array_equal(default.se[:3], fixed.se[:3])
    assert default.se[3] == random.se[3] > fixed.se[3]
    assert_close(default.estimate[0], by[0] / bx[0], rtol=1e-12)
    assert (default.rse[0], default.n_instruments[0]) == (1, 1)
    assert np.isnan(default.q[0])


def test_a_perfect_line() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    result = mr.maximum_likelihood(bx, abs(bx) / 8, 0.75 * bx, np.full(4, 0.125))
    assert_close(result.estimate, 0.75, rtol=1e-12)
    assert result.q < 1e-20
    assert 0 < result.se < 1


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (10,))
    bxse[0] = np.nan
    bx[1] = 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bx[6, 1] = -np.inf
    by[7] *= 1e300
    byse[7] *= 1e-300
    bxse[8, 2] = np.inf
    result = mr.maximum_likelihood(bx, bxse, by, byse)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        *[Status.INVALID_STANDARD_ERROR] * 3,
        *[Status.INVALID_EFFECT] * 2,
        Status.NOT_FINITE,
        Status.INVALID_STANDARD_ERROR,
        Status.OK,
    ]
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue", "rse", "q", "q_pvalue"):
        assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_no_variants_at_all(batch: tuple[int, ...]) -> None:
    for options in ({}, {"correlation": np.zeros((0, 0))}):
        result = mr.maximum_likelihood(*(np.zeros((*batch, 0)) for _ in range(4)), **options)
        assert result.estimate.shape == batch
        assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mixed"}, "'default', 'random', 'fixed'"),
        ({"distribution": "t"}, "'normal', 't-dist'"),
        ({"alpha": 1}, "between 0 and 1"),
        ({"psi": 2}, r"\[-1, 1\]"),
        ({"correlation": np.eye(3)}, "correlation must have shape"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.maximum_likelihood(*draw(0, 4), **options)
