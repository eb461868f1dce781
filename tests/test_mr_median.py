"""Median estimators against R's MendelianRandomization and TwoSampleMR, their invariants and edges."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.estimators import median
from tests.mr_helpers import (
    Array,
    Estimator,
    assert_batch_is_a_loop,
    assert_same_fit,
    assert_scales,
    assert_sign_order_and_padding,
    draw,
    factors,
    seeds,
    sizes,
)
from tests.reference_numbers import Record, assert_close, inputs, load, sources

R_FUNCTIONS: dict[str, Estimator] = {
    "simple": mr.simple_median,
    "weighted": mr.weighted_median,
    "penalized": mr.penalized_weighted_median,
    "mr_simple_median": mr.simple_median,
    "mr_weighted_median": partial(mr.weighted_median, weights="delta"),
    "mr_penalised_weighted_median": partial(mr.penalized_weighted_median, weights="delta"),
}
# Where R prints a message, stops or returns nothing: NaN and a reason, or the estimate without the absent variant.
R_HAS_NONE = {
    "mr_edge_k1": Status.TOO_FEW_INSTRUMENTS,
    "mr_edge_k2": Status.TOO_FEW_INSTRUMENTS,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_bx": Status.OK,
}
# Standard errors whose bootstrap has no second moment to speak of: a few draws make the number, in R as here.
HEAVY_TAILS = {"mr_edge_weak", "mr_edge_se_range", "mr_edge_zero_byse", "mr_edge_k3", "mr_edge_k4"}
ESTIMATORS = list(R_FUNCTIONS.items())
each = pytest.mark.parametrize("estimator", [made for _, made in ESTIMATORS], ids=[name for name, _ in ESTIMATORS])


def medians(source: str, name: str) -> list[tuple[Record, Estimator, dict[str, Any]]]:
    calls = []
    for record in load(source, name).records:
        if record.function == "mr_median":
            options = record.options
            assert set(options) <= {"weighting", "distribution", "iterations"}
            kept = {key: options[key] for key in ("distribution",) if key in options}
            calls.append((record, R_FUNCTIONS[options["weighting"]], kept))
        elif record.function in R_FUNCTIONS:
            calls.append((record, R_FUNCTIONS[record.function], {}))
    return calls


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_call_in_r(source: str, name: str) -> None:
    dataset, calls = load(source, name), medians(source, name)
    assert len(calls) >= 6
    for record, estimator, options in calls:
        result = estimator(*inputs(dataset), n_boot=4000, **options)
        value = record.value or {}
        theirs = np.ravel(value.get("Estimate", value.get("b", np.nan)))
        if theirs.size == 0 or np.isnan(theirs[0]):
            assert result.status == R_HAS_NONE[name], record.key
            continue
        if record.not_to_match:
            assert name == "mr_edge_nan"
            continue
        if name != "mr_edge_nan":
            assert_close(result.estimate, theirs[0], rtol=1e-9, label=record.key)
        se = value.get("StdError", value.get("se"))
        if name not in HEAVY_TAILS | {"mr_edge_nan"}:
            assert_close(result.se, se, rtol=0.12, label=record.key)
        if "CILower" in value and name != "mr_edge_nan":
            for ours, end in ((result.ci_low, "CILower"), (result.ci_high, "CIUpper")):
                quantile = (value[end] - value["Estimate"]) / value["StdError"]
                assert_close((ours - result.estimate) / result.se, quantile, rtol=1e-8, label=record.key)
        assert result.n_instruments == dataset.data["bx"].size - (name == "mr_edge_nan")


def test_pvalues() -> None:
    columns = draw(0, 9)
    normal, t = (mr.weighted_median(*columns, distribution=name) for name in ("normal", "t-dist"))
    z = abs(normal.estimate / normal.se)
    assert_close(normal.pvalue, 2 * stats.norm.sf(z), rtol=1e-12)
    assert_close(t.pvalue, 2 * stats.t.sf(z, 8), rtol=1e-12)


def test_by_hand() -> None:
    # Cumulative weights less half the own: 0.125, 0.5, 0.875 of the total, then 0.1, 0.3, 0.7: interpolate.
    bx, se = np.ones(3), np.ones(3)
    by = np.array([3.0, 1.0, 2.0])
    assert mr.simple_median(bx, se, by, se).estimate == 2.0
    assert mr.weighted_median(bx, se, by, 1 / np.sqrt([1.0, 1.0, 2.0])).estimate == 2.0
    heavy_high = mr.weighted_median(bx, se, by, 1 / np.sqrt([3.0, 1.0, 1.0]))
    assert_close(heavy_high.estimate, 2 + (0.5 - 0.3) / (0.7 - 0.3), rtol=1e-12)
    even = mr.simple_median(np.ones(4), np.ones(4), [1.0, 2.0, 4.0, 9.0], np.ones(4))
    assert even.estimate == 3.0
    dominated = mr.weighted_median(bx, se, by, [1e-20, 1.0, 1.0])
    assert_close(dominated.estimate, 3.0, rtol=1e-12)
    assert_close(mr.weighted_median(bx, se, by, [1.0, 1e-20, 1.0]).estimate, 1.0, rtol=1e-12)


def test_the_second_order_weights_know_psi() -> None:
    bx, bxse, by, byse = draw(3, 9)
    weight = 1 / (byse**2 / bx**2 + by**2 * bxse**2 / bx**4 - 2 * 0.6 * by * bxse * byse / bx**3)
    same = mr.weighted_median(bx, bxse, by, np.abs(bx) / np.sqrt(weight), n_boot=0)
    assert_close(
        mr.weighted_median(bx, bxse, by, byse, weights="delta", psi=0.6, n_boot=0).estimate, same.estimate, rtol=1e-12
    )


def test_penalties_take_outliers_away() -> None:
    bx, bxse = np.full(9, 0.5), np.full(9, 1e-3)
    by = np.array([0.40, 0.401, 0.402, 0.403, 0.404, 0.8, 0.81, 0.82, 0.83])
    byse = np.full(9, 2e-3)
    plain, penalised = (f(bx, bxse, by, byse) for f in (mr.weighted_median, mr.penalized_weighted_median))
    assert penalised.estimate < plain.estimate
    assert_close(penalised.estimate, 0.402 / 0.5, rtol=1e-3)
    far = mr.penalized_weighted_median(bx, bxse, by, byse / 100)
    assert (far.n_instruments, far.status) == (9, Status.OK)
    assert far.n_used < 9


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes, exposure=factors, outcome=factors)
def test_scale_and_mirror(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    few = partial(estimator, n_boot=20)
    assert_scales(few, draw(seed, n), exposure, outcome)
    point = partial(estimator, n_boot=0)
    bx, bxse, by, byse = draw(seed, n)
    assert_close(point(bx, bxse, -by, byse).estimate, -point(bx, bxse, by, byse).estimate, rtol=1e-9, atol=1e-12)


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_and_padding(estimator: Estimator, seed: int, n: int) -> None:
    assert_sign_order_and_padding(partial(estimator, n_boot=0), draw(seed, n), seed)


@each
def test_order_moves_the_standard_error_by_chance_alone(estimator: Estimator) -> None:
    columns = draw(11, 12)
    padded = [np.insert(column[::-1], 4, np.nan) for column in columns]
    assert_close(estimator(*padded, n_boot=8000).se, estimator(*columns, n_boot=8000).se, rtol=0.08)


@each
def test_batch_is_a_loop_with_the_same_seed(estimator: Estimator) -> None:
    assert_batch_is_a_loop(partial(estimator, n_boot=50, seed=3))


@each
def test_blocks_do_not_show(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = draw(5, 7, (9,))
    whole = estimator(*columns, n_boot=30)
    for name, size in (("_TILE", 40), ("_NORMALS", 60), ("_HELD", 100)):
        monkeypatch.setattr(f"kipoi_deepmr.mr.core.blocks.{name}", size)
    assert_same_fit(estimator(*columns, n_boot=30), whole, rtol=1e-12)


def test_seeds() -> None:
    columns = draw(5, 15)
    first, again, other = (mr.weighted_median(*columns, seed=seed).se for seed in (1, 1, 2))
    assert first == again != other
    assert_close(first, other, rtol=0.2)


@pytest.mark.parametrize("n", [6, 150, 600])
@pytest.mark.parametrize("strong", [1.0, 0.2])
def test_the_bootstrap_is_the_one_of_its_definition(n: int, strong: float) -> None:
    bx, bxse, by, byse = draw(8, n)
    # A share of the variants has nearly all of the weight.
    bx, by = (np.where(np.arange(n) < max(3, strong * n), value, 0.01 * value) for value in (bx, by))
    # A stream of 128 draws has the variants one after another.
    z = np.random.default_rng([4, 0]).standard_normal((bx.size, 2, 128)).T[:40]
    weight = (bx / byse) ** 2
    weighted, simple = [], []
    for x, y in z:
        ratio = (by + y * byse) / (bx + x * bxse)
        order = np.argsort(ratio)
        share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
        weighted.append(np.interp(0.5, share, ratio[order]))
        simple.append(np.median(ratio))
    for estimator, loop in ((mr.weighted_median, weighted), (mr.simple_median, simple)):
        assert_close(estimator(bx, bxse, by, byse, n_boot=40, seed=4).se, np.std(loop, ddof=1), rtol=1e-9)


@np.errstate(all="ignore")
@pytest.mark.parametrize("strong", [1.0, 0.2, 0.01])
def test_few_ratios_are_sorted_and_the_medians_are_those_of_all(strong: float) -> None:
    rng = np.random.default_rng(3)
    weight = rng.uniform(1, 2, (3, 1000)) * np.where(np.arange(1000) < 1000 * strong, 1.0, 1e-4)
    ratio = rng.standard_cauchy((3, 20, 1000)) * rng.choice([1.0, 1e-6], 1000) + 1e3 * (np.arange(20) == 7)[:, None]
    fit = np.repeat(np.arange(3), 20)
    expected = median._crossing(*median._sorted(ratio.reshape(-1, 1000), weight, fit))
    found = median._between(ratio.reshape(-1, 1000), weight, fit, *median._bracket(ratio[:, 0], weight))
    known = np.isfinite(found)
    # Draw 7 lies elsewhere; with the weight in ten variants nothing is said beforehand.
    assert not known.reshape(3, 20)[:, 7].any()
    assert known.sum() >= 50 if strong > 0.1 else not known.any()
    assert_close(found[known], expected[known], rtol=1e-9, atol=1e-15)
    assert_close(median._weighted_medians(ratio, weight).ravel(), expected, rtol=1e-9, atol=1e-15)


def test_no_exposure_effect() -> None:
    bx, bxse, by, byse = draw(2, 7)
    bx[2] = 0.0
    simple, weighted = (f(bx, bxse, by, byse) for f in (mr.simple_median, mr.weighted_median))
    left = np.delete(np.arange(7), 2)
    alone = mr.weighted_median(bx[left], bxse[left], by[left], byse[left])
    assert (weighted.n_instruments, weighted.n_used, simple.n_used) == (7, 6, 7)
    assert weighted.estimate == alone.estimate
    by[2] = 0.0
    nothing = mr.simple_median(bx, bxse, by, byse)
    assert (nothing.n_used, nothing.status) == (6, Status.OK)
    assert_close(nothing.estimate, np.median(by[left] / bx[left]), rtol=1e-12)


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (9,))
    bx[0] = np.nan
    bx[1] = 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bxse[6, :4] = np.nan
    bxse[7] = 0.0
    expected = [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.TOO_FEW_INSTRUMENTS,
        Status.OK,
        Status.OK,
    ]
    for estimator in (mr.weighted_median, mr.penalized_weighted_median):
        result = estimator(bx, bxse, by, byse)
        assert list(result.status) == expected
        for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
            assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name
    simple = mr.simple_median(bx, bxse, by, byse)
    assert (simple.status[1], simple.status[2], simple.status[3]) == (Status.NOT_FINITE, Status.OK, expected[3])


def test_without_bootstrap() -> None:
    result = mr.simple_median(*draw(1, 5), n_boot=0)
    assert np.isfinite(result.estimate)
    assert np.isnan([result.se, result.ci_low, result.ci_high, result.pvalue]).all()


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_see(estimator: Estimator, batch: tuple[int, ...], n: int) -> None:
    result = estimator(*(np.ones((*batch, n)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


def test_a_perfect_line() -> None:
    bx: Array = np.array([0.5, -0.25, 1.0, 2.0])
    for _, estimator in ESTIMATORS:
        result = estimator(bx, np.full(4, 0.01), 0.75 * bx, np.full(4, 0.01))
        assert result.estimate == 0.75
        assert result.se > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_boot": 1}, "at least 2"),
        ({"n_boot": 2.5}, "at least 2"),
        ({"seed": -1}, "at least 0"),
        ({"distribution": "t"}, "'normal', 't-dist'"),
        ({"alpha": 0}, "between 0 and 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    for _, estimator in ESTIMATORS:
        with pytest.raises(ValueError, match=message):
            estimator(*draw(0, 4), **options)
    with pytest.raises(ValueError, match="'simple', 'delta'"):
        mr.weighted_median(*draw(0, 4), weights="first")
