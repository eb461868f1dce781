"""IVW against R's MendelianRandomization and TwoSampleMR, its invariants, and what it says when it has no answer."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import assert_same_fit, draw, seeds, sizes
from tests.reference_numbers import Record, assert_close, inputs, load, mr_options, names, rtol_of, sources

Array = np.ndarray[Any, Any]

FIELDS = {
    "Estimate": "estimate",
    "StdError": "se",
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "Pvalue": "pvalue",
    "SNPs": "n_instruments",
    "RSE": "rse",
    "Q": "q",
    "Q.pval": "q_pvalue",
    "Fstat": "f_statistic",
}
# Where R stops with an error: NaN and a reason, or an estimate without the absent variant.
R_STOPS = {"mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR, "mr_edge_nan": Status.OK}


def is_ivw(record: Record) -> bool:
    return record.package == "MendelianRandomization" and record.function == "mr_ivw"


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_ivw_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in filter(is_ivw, dataset.records):
        options = mr_options(record, dataset)
        if (options.get("robust") and not record.correlated) or "single variants" in record.key:
            continue  # see test_mr_robust and below
        ignored = record.correlated and {"robust", "penalized", "weights"} & set(options)
        with pytest.warns(UserWarning, match="generalised least squares") if ignored else nullcontext():
            result = mr.ivw(*inputs(dataset), **options)
        compared += 1
        if record.value is None:
            assert result.status == R_STOPS[name], record.key
            assert np.isnan(result.estimate) == (result.status != Status.OK)
            continue
        kept = ("Estimate", "StdError", "RSE") if record.not_to_match else tuple(FIELDS)
        for theirs in kept:
            # Zero residuals are rounding in both programs; a p-value below the normal numbers may underflow.
            floor = {"RSE": 1e-12, "Q": 1e-12, "Pvalue": 1e-300}.get(theirs, rtol_of(name) * record.value["StdError"])
            actual = getattr(result, FIELDS[theirs])
            assert_close(actual, record.value[theirs], rtol=rtol_of(name), atol=floor, label=f"{record.key} {theirs}")
    assert compared >= 10


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_single_variant(source: str, name: str) -> None:
    dataset = load(source, name)
    for record in filter(is_ivw, dataset.records):
        if "single variants" not in record.key or record.value is None:
            continue
        result = mr.ivw(*(array[:, None] for array in inputs(dataset)), **mr_options(record, dataset))
        wanted = {ours: np.array(record.value[theirs]) for theirs, ours in list(FIELDS.items())[:2]}
        answered = np.isfinite(wanted["estimate"]) & np.isfinite(wanted["se"]) & (wanted["se"] > 0)
        size = answered.size
        assert np.all((result.status[:size] == Status.OK) == answered)
        for ours, values in wanted.items():
            actual = getattr(result, ours)[:size][answered]
            assert_close(actual, values[answered], rtol=1e-9, label=f"{record.key} {ours}")


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_two_sample_mr_forms(source: str, name: str) -> None:
    dataset = load(source, name)
    fixed, random = (mr.ivw(*inputs(dataset), model=model) for model in ("fixed", "random"))
    standard_errors = {"mr_ivw": random.se, "mr_ivw_fe": fixed.se, "mr_ivw_mre": fixed.se * fixed.rse}
    for record in dataset.records:
        if record.package != "TwoSampleMR" or record.function not in standard_errors:
            continue
        if record.value is None or np.isnan(record.value["b"]):
            assert not record.content["ok"] or fixed.n_instruments < 2 or np.isnan(fixed.estimate)
            continue
        se, rtol = standard_errors[record.function], rtol_of(name)
        assert_close(fixed.estimate, record.value["b"], rtol=rtol, label=record.key)
        assert_close(se, record.value["se"], rtol=rtol, atol=1e-15, label=record.key)
        if name != "mr_edge_linear":
            p = 2 * stats.norm.sf(abs(fixed.estimate / se))
            assert_close(p, record.value["pval"], rtol=rtol, atol=1e-300, label=record.key)
        if not record.not_to_match:
            assert_close(fixed.q, record.value["Q"], rtol=rtol, atol=1e-12, label=record.key)
            assert_close(fixed.q_pvalue, record.value["Q_pval"], rtol=rtol, label=record.key)


def test_the_committed_sets_are_part_of_the_full_ones() -> None:
    assert len(names("committed", "mr_")) >= 15
    if names("full", "mr_"):
        assert set(names("committed", "mr_")) <= set(names("full", "mr_"))


# Invariants that IVW and MR-Egger share.

ESTIMATORS: list[Callable[..., Any]] = [mr.ivw, mr.egger]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"distribution": "t-dist"},
    {"model": "fixed"},
    {"weights": "delta", "psi": 0.4},
    {"penalized": True},
    {"robust": True},
    {"robust": True, "penalized": True, "weights": "delta", "distribution": "t-dist"},
]
both = pytest.mark.parametrize("estimator", ESTIMATORS)
each = pytest.mark.parametrize("options", VARIANTS, ids=str)


@both
@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes, exposure=st.floats(1e-4, 1e4), outcome=st.floats(1e-4, 1e4))
def test_scale(
    estimator: Callable[..., Any], options: dict[str, Any], seed: int, n: int, exposure: float, outcome: float
) -> None:
    # Of three or four variants a robust fit may be almost undetermined.
    bx, bxse, by, byse = draw(seed, n + 3 * ("robust" in options))
    plain = estimator(bx, bxse, by, byse, **options)
    scaled = estimator(bx * exposure, bxse * exposure, by * outcome, byse * outcome, **options)
    for name in ("estimate", "se", "ci_low", "ci_high"):
        np.testing.assert_allclose(
            getattr(scaled, name) * exposure / outcome, getattr(plain, name), rtol=1e-7, atol=1e-9 * plain.se
        )
    for name in ("pvalue", "rse", "q", "q_pvalue", "n_used"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-6, atol=1e-12)


@both
@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_and_padding(estimator: Callable[..., Any], options: dict[str, Any], seed: int, n: int) -> None:
    # Of three or four variants a robust fit may be almost undetermined.
    robust = "robust" in options
    rtol = 1e-5 if robust else 1e-7
    bx, bxse, by, byse = draw(seed, n + 3 * robust)
    n = bx.size
    plain = estimator(bx, bxse, by, byse, **options)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    assert_same_fit(estimator(bx * sign, bxse, by * sign, byse, **options), plain, rtol=rtol)
    assert_same_fit(estimator(bx[order], bxse[order], by[order], byse[order], **options), plain, rtol=rtol)
    padded = [np.insert(array, [0, n, n], 9.0) for array in (bx, bxse, by, byse)]
    for position, which in ((0, 0), (n + 1, 2), (n + 2, 3)):
        padded[which][position] = np.nan
    assert_same_fit(estimator(*padded, **options), plain, rtol=rtol)


@both
@each
def test_batch_is_a_loop(estimator: Callable[..., Any], options: dict[str, Any]) -> None:
    columns = draw(1, 8, (2, 5))
    columns[0][0, 1, 2:] = np.nan
    columns[2][1, 3] = np.nan
    columns[0][0, 0, 3] = 0.0
    columns[3][1, 0, 0] = 0.0
    together = estimator(*columns, **options)
    assert together.estimate.shape == (2, 5)
    for index in np.ndindex(2, 5):
        alone = estimator(*(column[index] for column in columns), **options)
        for name in alone.arrays:
            actual, wanted = getattr(together, name)[index], getattr(alone, name)
            # A robust fit goes on until all fits of its block have converged to 1e-12.
            rtol = 1e-9 if "robust" in options else 1e-12
            np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=rtol / 100, err_msg=name)


@both
def test_leading_axes_broadcast(estimator: Callable[..., Any]) -> None:
    bx, bxse, _, _ = draw(2, 7, (3, 1))
    _, _, by, byse = draw(3, 7, (4,))
    crossed = estimator(bx, bxse, by, byse)
    assert crossed.estimate.shape == (3, 4)
    assert_same_fit(
        estimator(bx[1, 0], bxse[1, 0], by[2], byse[2]),
        SimpleNamespace(**{name: array[1, 2] for name, array in crossed.arrays.items()}),
    )


@both
def test_identity_correlation_is_no_correlation(estimator: Callable[..., Any]) -> None:
    columns = draw(4, 9, (3,))
    plain = estimator(*columns)
    assert_same_fit(estimator(*columns, correlation=np.eye(9)), plain, skip=("i2_gx",))
    stacked = np.broadcast_to(np.eye(9), (3, 9, 9))
    assert_same_fit(estimator(*columns, correlation=stacked), plain, skip=("i2_gx",))


@both
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_correlated_sign_order_and_padding(estimator: Callable[..., Any], seed: int) -> None:
    n = 7
    rng = np.random.default_rng(seed)
    bx, bxse, by, byse = draw(seed, n)
    root = rng.normal(size=(n, 20))
    matrix = np.corrcoef(root)
    plain = estimator(bx, bxse, by, byse, correlation=matrix)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    flipped = estimator(bx * sign, bxse, by * sign, byse, correlation=matrix * np.outer(sign, sign))
    assert_same_fit(flipped, plain)
    shuffled = estimator(bx[order], bxse[order], by[order], byse[order], correlation=matrix[np.ix_(order, order)])
    assert_same_fit(shuffled, plain)
    bx[2] = np.nan
    left = np.delete(np.arange(n), 2)
    removed = estimator(bx[left], bxse[left], by[left], byse[left], correlation=matrix[np.ix_(left, left)])
    assert_same_fit(estimator(bx, bxse, by, byse, correlation=matrix), removed)
    several = estimator(
        *(np.stack([a, b]) for a, b in zip((bx, bxse, by, byse), draw(1, n), strict=True)), correlation=matrix
    )
    np.testing.assert_allclose(several.estimate[0], removed.estimate, rtol=1e-9)


# Edges.


@both
def test_reasons(estimator: Callable[..., Any]) -> None:
    bx, bxse, by, byse = draw(5, 6, (9,))
    bx[0] = np.nan
    bx[1] = 0.0 if estimator is mr.ivw else 0.2
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bx[6, 1] = -np.inf
    by[7] *= 1e300
    byse[7] *= 1e-300
    result = estimator(bx, bxse, by, byse)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.INVALID_EFFECT,
        Status.NOT_FINITE,
        Status.OK,
    ]
    assert np.array_equal(np.isnan(result.estimate), result.status != Status.OK)
    for name in ("se", "ci_low", "ci_high", "pvalue", "rse", "q", "q_pvalue"):
        assert np.all(np.isnan(getattr(result, name)[:8])), name
    assert result.n_instruments[0] == 0


@both
def test_a_correlation_matrix_leaves_out_what_it_cannot_be_combined_with(estimator: Callable[..., Any]) -> None:
    columns, matrix = draw(2, 6), 0.3 + 0.7 * np.eye(6)
    plain = estimator(*columns, correlation=matrix)
    for options, named in (
        ({"robust": True}, "robust=True ignored"),
        ({"penalized": True, "weights": "delta"}, "penalized=True, weights='delta' ignored"),
    ):
        with pytest.warns(UserWarning, match=named) as caught:
            assert_same_fit(estimator(*columns, correlation=matrix, **options), plain)
        assert len(caught) == 1 and caught[0].filename == __file__


@both
def test_bad_correlations_spoil_only_their_own_fit(estimator: Callable[..., Any]) -> None:
    columns = draw(6, 5, (6,))
    matrix = np.broadcast_to(np.eye(5), (6, 5, 5)).copy()
    matrix[1] = 1.0
    matrix[2, 0, 1] = 0.5
    matrix[3, 0, 1] = matrix[3, 1, 0] = 1.5
    matrix[4, 0, 1] = matrix[4, 1, 0] = np.nan
    matrix[5, 0, :] = matrix[5, :, 0] = np.nan
    columns[0][5, 0] = np.nan
    result = estimator(*columns, correlation=matrix)
    assert list(result.status == Status.INVALID_CORRELATION) == [False, True, True, True, True, False]
    assert_close(result.estimate[0], estimator(*(column[0] for column in columns)).estimate, rtol=1e-9)
    shared = estimator(*draw(6, 5, (2,)), correlation=np.ones((5, 5)))
    assert np.all(shared.status == Status.INVALID_CORRELATION)


@both
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_no_variants_at_all(estimator: Callable[..., Any], batch: tuple[int, ...]) -> None:
    for options in ({}, {"penalized": True}, {"weights": "delta"}, {"correlation": np.zeros((0, 0))}):
        result = estimator(*(np.zeros((*batch, 0)) for _ in range(4)), **options)
        assert result.estimate.shape == batch
        assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


def test_one_to_four_instruments() -> None:
    bx, bxse, by, byse = draw(7, 4)
    by *= 3 * np.array([1, -1, 1, -1])
    counts = np.arange(1, 5)
    present = np.arange(4) < counts[:, None]
    stacked = [np.where(present, column, np.nan) for column in (bx, bxse, by, byse)]
    default, fixed, random = (mr.ivw(*stacked, model=model) for model in ("default", "fixed", "random"))
    assert list(default.n_instruments) == [1, 2, 3, 4]
    assert np.array_equal(default.se[:3], fixed.se[:3])
    assert default.se[3] == random.se[3] > fixed.se[3]
    assert default.rse[0] == 1
    assert np.isnan(default.q[0])
    t = mr.ivw(*stacked, distribution="t-dist")
    assert np.isnan(t.ci_low[0])
    assert t.pvalue[0] == default.pvalue[0]


def test_zero_effect_instruments_leave_delta_and_penalized_fits_but_are_counted() -> None:
    bx, bxse, by, byse = draw(8, 6)
    bx[1] = 0.0
    for options in ({"weights": "delta"}, {"penalized": True}):
        result = mr.ivw(bx, bxse, by, byse, **options)
        left = np.delete(np.arange(6), 1)
        assert (result.n_instruments, result.n_used) == (6, 5)
        if options == {"weights": "delta"}:
            without = mr.ivw(bx[left], bxse[left], by[left], byse[left], **options)
            assert_same_fit(result, without, skip=("n_instruments", "f_statistic"))


def test_psi_per_variant_and_per_fit() -> None:
    columns = draw(9, 5, (2,))
    per_fit = mr.ivw(*columns, weights="delta", psi=np.array([[0.1], [0.6]]))
    for row, psi in enumerate((0.1, 0.6)):
        alone = mr.ivw(*(column[row] for column in columns), weights="delta", psi=psi)
        assert_close(per_fit.estimate[row], alone.estimate, rtol=1e-12)
    psi = np.full(5, 0.3)
    psi[2] = np.nan
    removed = mr.ivw(*(np.delete(column[0], 2) for column in columns), weights="delta", psi=0.3)
    assert_same_fit(mr.ivw(*(column[0] for column in columns), weights="delta", psi=psi), removed)


def test_pvalues_come_from_the_tail() -> None:
    bx = np.full(5, 0.3) + np.arange(5) * 0.01
    result = mr.ivw(bx, bx / 10, bx, np.full(5, 0.02))
    assert 0 < result.pvalue < 1e-100
    slope = mr.egger(np.arange(1, 6) * 0.3, bx / 10, np.arange(1, 6) * 0.3, np.full(5, 0.04))
    assert 0 < slope.pvalue < 1e-100


@both
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0], [1.0], [1.0, 2.0], [1.0]), {}, "last axis must have one length"),
        ((1.0, 1.0, 1.0, 1.0), {}, r"shape \(..., J\)"),
        ((np.ones((2, 3)), np.ones((4, 3)), np.ones(3), np.ones(3)), {}, "do not broadcast"),
        ((["a"], [1.0], [1.0], [1.0]), {}, "bx must be an array of real numbers"),
        (None, {"model": "mixed"}, "'default', 'random', 'fixed'"),
        (None, {"weights": "second"}, "'simple', 'delta'"),
        (None, {"distribution": "t"}, "'normal', 't-dist'"),
        (None, {"penalized": "yes"}, "True, False"),
        (None, {"alpha": 5}, "between 0 and 1"),
        (None, {"psi": 2.0}, r"\[-1, 1\]"),
        (None, {"psi": [0.1, 0.2]}, "does not broadcast"),
        (None, {"correlation": np.eye(3)}, "correlation must have shape"),
    ],
)
def test_wrong_arguments(estimator: Callable[..., Any], arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(*(arguments or draw(0, 4)), **options)
