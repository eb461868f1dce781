"""Leave-one-out in closed form against R and against a plain loop over the estimators."""

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.core import blocks
from kipoi_deepmr.mr.diagnostics import LeaveOneOut, leave_one_out
from tests.reference_numbers import DataSet, Record, assert_close, inputs, load, rtol_of, sources

Array = np.ndarray[Any, Any]
ESTIMATORS = {"ivw": mr.ivw, "egger": mr.egger}
COMMON = ("estimate", "se", "ci_low", "ci_high", "pvalue", "rse", "n_instruments", "status")
LIMITS = {
    "Estimate": "estimate",
    "CILower": "ci_low",
    "CILower_first200": "ci_low",
    "CIUpper": "ci_high",
}
# Zero residuals are rounding in both programs, and so are p-values of an estimate without error.
PERFECT = {"mr_edge_linear": 1e-14, "mr_edge_linear_icpt": 1e-14}
OF_THE_LINE = ("intercept", "intercept_se", "intercept_ci_low", "intercept_ci_high", "intercept_pvalue")


def records(dataset: DataSet, function: str) -> list[Record]:
    return [r for r in dataset.records if r.function == function and r.content["ok"] and r.value is not None]


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_mr_loo(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    result = leave_one_out(*inputs(dataset))
    for record in records(dataset, "mr_loo"):
        assert len(record.value["Estimate"]) == result.estimate.size
        for theirs, values in record.value.items():
            if theirs == "all":
                continue
            # The lower ends for 3000 instruments are kept for the first 200 of them.
            actual = getattr(result, LIMITS[theirs])[: len(values)]
            assert_close(actual, values, rtol=rtol, atol=rtol * float(result.se.max()), label=theirs)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_mr_leaveoneout(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    bx, bxse, by, byse = inputs(dataset)
    # TwoSampleMR takes sign(0) as +1 and keeps by; `egger` would make it (0, 0).
    bx = np.where(bx == 0, 1e-200, bx)
    for record in records(dataset, "mr_leaveoneout"):
        estimator = "egger" if "egger" in record.key else "ivw"
        result = leave_one_out(bx, bxse, by, byse, estimator=estimator, model="random")
        values = {key: np.array(record.value[key][:-1], dtype=float) for key in ("b", "se", "p")}
        if not values["b"].size:
            assert result.estimate.size < 3, "R leaves one out from three instruments on"
            continue
        z, df = np.abs(result.estimate / result.se), result.n_instruments - 2
        p = 2 * (stats.t.sf(z, df) if estimator == "egger" else stats.norm.sf(z))
        if name == "mr_edge_nan":
            # Its degrees of freedom count the variant that is not there.
            assert_close(result.estimate, values["b"], rtol=rtol)
            continue
        if name == "mr_edge_zero_byse":
            assert np.all(result.status == Status.INVALID_STANDARD_ERROR)
            continue
        for actual, key in ((result.estimate, "b"), (result.se, "se"), (p, "p")):
            assert_close(actual, values[key], rtol=rtol, atol=PERFECT.get(name, 1e-300), label=f"{record.key} {key}")


def example(seed: int, n: int = 9, batch: tuple[int, ...] = (2,)) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, n))
    bxse, byse = rng.uniform(0.01, 0.05, bx.shape), 10 ** rng.uniform(-3, 0, bx.shape)
    by = 0.8 * bx + rng.normal(0, rng.choice([0.3, 1, 3]), bx.shape) * byse
    return bx, bxse, by, byse


def assert_is_the_loop(columns: Any, groups: Array | None, estimator: str, **options: Any) -> LeaveOneOut:
    result = leave_one_out(*columns, estimator=estimator, groups=groups, **options)
    labels = np.arange(columns[0].shape[-1]) if groups is None else groups
    assert np.array_equal(result.left_out, np.unique(labels))
    for position, label in enumerate(result.left_out):
        kept = np.where(labels == label, np.nan, columns[0])
        alone = ESTIMATORS[estimator](kept, *columns[1:], **options)
        for name in COMMON + (OF_THE_LINE if estimator == "egger" else ()):
            actual, wanted = getattr(result, name)[..., position], getattr(alone, name)
            np.testing.assert_allclose(actual, wanted, rtol=1e-8, atol=1e-11, err_msg=f"{name} without {label}")
    return result


@pytest.mark.parametrize("estimator", ["ivw", "egger"])
@pytest.mark.parametrize("options", [{}, {"distribution": "t-dist"}, {"model": "fixed"}, {"weights": "delta"}], ids=str)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9))
def test_it_is_the_loop(estimator: str, options: dict[str, Any], seed: int, n: int) -> None:
    columns = example(seed, n)
    rng = np.random.default_rng(seed)
    columns[0][0, rng.integers(n)] = np.nan
    columns[0][1, rng.integers(n)] = 0.0
    for groups in (None, rng.integers(0, 4, n), rng.choice(["a", "b"], n)):
        assert_is_the_loop(columns, groups, estimator, **options)


@pytest.mark.parametrize("estimator", ["ivw", "egger"])
def test_leaving_out_nearly_all_weight(estimator: str) -> None:
    bx, bxse, by, byse = example(4, 8, ())
    byse[3] = 1e-9
    assert_is_the_loop((bx, bxse, by, byse), None, estimator)


def test_exact_where_one_weight_is_almost_all() -> None:
    bx, bxse, by, byse = example(4, 8, ())
    byse[3] = 1e-9
    slopes = leave_one_out(bx, bxse, by, byse, estimator="egger").estimate
    for left_out, slope in enumerate(slopes):
        kept = np.delete(np.arange(8), left_out)
        x, y = ([Fraction(v) for v in column[kept]] for column in (np.abs(bx), by * np.sign(bx)))
        w = [1 / Fraction(v) ** 2 for v in byse[kept]]
        mean = sum(a * b for a, b in zip(w, x, strict=True)) / sum(w)
        sxx = sum(a * (b - mean) ** 2 for a, b in zip(w, x, strict=True))
        sxy = sum(a * (b - mean) * c for a, b, c in zip(w, x, y, strict=True))
        assert_close(slope, float(sxy / sxx), rtol=1e-12)


def test_what_is_left_may_say_nothing() -> None:
    bx, se = np.array([0.3, 0.3, 0.3, 1000.0]), np.full(4, 0.1)
    by = 0.5 * bx + np.array([0.1, -0.1, 0.05, 0])
    result = assert_is_the_loop((bx, se, by, se), None, "egger")
    assert list(result.status) == [Status.OK] * 3 + [Status.NO_EXPOSURE_VARIATION]
    single = leave_one_out([0.0, 0.0, 0.4], se[:3], by[:3], se[:3])
    assert list(single.status) == [Status.OK, Status.OK, Status.NO_EXPOSURE_VARIATION]
    assert np.array_equal(np.isnan(single.estimate), single.status != Status.OK)


def test_absent_variants_change_nothing_and_invalid_ones_everything() -> None:
    bx, bxse, by, byse = example(5, 6, (2,))
    by[0, 2] = np.nan
    byse[1, 4] = 0.0
    result = leave_one_out(bx, bxse, by, byse)
    assert_close(result.estimate[0, 2], mr.ivw(bx[0], bxse[0], by[0], byse[0]).estimate, rtol=1e-12)
    assert np.all(result.status[1] == Status.INVALID_STANDARD_ERROR)
    assert np.all(np.isnan(result.estimate[1]))


@pytest.mark.parametrize("estimator", ["ivw", "egger"])
def test_batch_is_a_loop_and_leading_axes_broadcast(estimator: str) -> None:
    bx, bxse, _, _ = example(6, 7, (3, 1))
    _, _, by, byse = example(7, 7, (2,))
    together = leave_one_out(bx, bxse, by, byse, estimator=estimator, groups=[0, 0, 1, 1, 2, 2, 3])
    assert together.estimate.shape == (3, 2, 4)
    for i, j in np.ndindex(3, 2):
        alone = leave_one_out(bx[i, 0], bxse[i, 0], by[j], byse[j], estimator=estimator, groups=[0, 0, 1, 1, 2, 2, 3])
        for name in alone.arrays:
            if name != "left_out":
                np.testing.assert_allclose(getattr(together, name)[i, j], getattr(alone, name), rtol=1e-10)


def test_no_variants() -> None:
    for estimator in ESTIMATORS:
        assert leave_one_out(*(np.zeros((3, 0)) for _ in range(4)), estimator=estimator).estimate.shape == (3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "median"}, "'ivw', 'egger'"),
        ({"groups": [1, 2]}, r"one label per variant, shape \(3,\)"),
        ({"groups": [1.0, np.nan, 2.0]}, "without NaN"),
        ({"model": "none"}, "'default', 'random', 'fixed'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leave_one_out(*(np.ones(3) for _ in range(4)), **options)


@pytest.mark.parametrize("estimator", ["ivw", "egger"])
def test_many_fits_take_no_more_memory_than_their_result(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_REGRESSION", 3000)
    columns = example(6, 500, (200,))
    groups = np.arange(500) // 3
    whole = leave_one_out(*columns, estimator=estimator, groups=groups, psi=np.full((200, 1), 0.2), weights="delta")
    tracemalloc.start()
    try:
        leave_one_out(*columns, estimator=estimator, groups=groups)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kept = sum(getattr(whole, name).nbytes for name in whole.arrays)
    assert peak < kept + columns[0].nbytes
    for row in (0, 131, 199):
        alone = leave_one_out(
            *(column[row] for column in columns), estimator=estimator, groups=groups, psi=0.2, weights="delta"
        )
        assert_close(whole.estimate[row], alone.estimate, rtol=1e-12)
