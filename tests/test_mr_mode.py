"""Mode estimators against exact maxima and R's MendelianRandomization and TwoSampleMR, their invariants and edges."""

from functools import partial
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
    Estimator,
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
from tests.reference_numbers import assert_close, inputs, load, sources

WEIGHTING = {"unweighted": mr.simple_mode, "weighted": mr.weighted_mode}
# Where R stops: no bandwidth on a perfect line, no ratio, an infinite weight, a NaN.
R_STOPS = {
    "mr_edge_linear": Status.OK,
    "mr_edge_zero_bx": Status.OK,
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
# The rows of TwoSampleMR's mr_mode; the penalised mode has no counterpart here.
ROWS: dict[str, Estimator] = {
    "Simple mode": mr.simple_mode,
    "Weighted mode": mr.weighted_mode,
    "Simple mode (NOME)": partial(mr.simple_mode, stderr="simple"),
    "Weighted mode (NOME)": partial(mr.weighted_mode, stderr="simple"),
}
ESTIMATORS: dict[str, Estimator] = ROWS | {"phi": partial(mr.weighted_mode, phi=0.5)}
each = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_mbe_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if record.function != "mr_mbe":
            continue
        options = record.options
        assert set(options) == {"weighting", "stderror", "phi", "iterations"}
        estimator = WEIGHTING[options["weighting"]]
        columns = inputs(dataset)
        well_resolved = False
        if record.value is not None:
            exact = record.content["own_exact"]
            well_resolved = exact["density_grid_step"] < 0.1 * exact["bandwidth"] and len(columns[0]) < 100
        n_boot = 1000 if well_resolved else 0
        result = estimator(*columns, phi=options["phi"], stderr=options["stderror"], n_boot=n_boot)
        compared += 1
        if record.value is None:
            assert result.status == R_STOPS[name], record.key
            continue
        assert_close(result.bandwidth, exact["bandwidth"], rtol=1e-9, label=record.key)
        # The exact mode of the reference stops within 1e-6 bandwidths of the maximum.
        assert_close(result.estimate, exact["exact_mode"], rtol=0, atol=1e-6 * result.bandwidth, label=record.key)
        if not record.not_to_match:
            step = 1.01 * exact["density_grid_step"]
            assert_close(result.estimate, record.value["Estimate"], rtol=0, atol=step, label=record.key)
            if well_resolved:
                assert_close(result.se, record.value["StdError"], rtol=0.3, label=record.key)
                quantile = (record.value["CIUpper"] - record.value["Estimate"]) / record.value["StdError"]
                assert_close((result.ci_high - result.estimate) / result.se, quantile, rtol=1e-8)
    assert compared == 8 or name == "mr_edge_k1"


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_two_sample_mr_modes(source: str, name: str) -> None:
    dataset = load(source, name)
    records = {record.key: record for record in dataset.records}
    record = records["mr_mode()"]
    if record.value is None:
        assert name in {"mr_edge_k1", "mr_edge_k2", "mr_edge_zero_bx", "mr_edge_nan", "mr_edge_zero_byse"}
        return
    assert set(record.value) == {*ROWS, "Penalised mode"}
    if record.not_to_match:
        return
    for row, estimator in ROWS.items():
        result = estimator(*inputs(dataset), n_boot=0)
        # A perfect line has no bandwidth: R takes 1e-8.
        step = 1e-9
        if name != "mr_edge_linear":
            key = next(key for key in records if key.startswith("mr_mbe") and "phi=1," in key)
            step = 1.01 * records[key].content["own_exact"]["density_grid_step"]
        assert_close(result.estimate, record.value[row]["b"], rtol=0, atol=step, label=row)


def density(ratio: Array, weight: Array, width: float, at: Array) -> Array:
    return np.array([(weight * np.exp(-0.5 * ((point - ratio) / width) ** 2)).sum() for point in at])


@settings(max_examples=60, deadline=None)
@given(seed=seeds, n=st.integers(2, 60), df=st.sampled_from([0.5, 1.0, 3.0]), phi=st.sampled_from([0.1, 0.5, 1.0, 4.0]))
def test_no_point_of_a_fine_grid_is_higher(seed: int, n: int, df: float, phi: float) -> None:
    rng = np.random.default_rng(seed)
    ratio = rng.standard_t(df, n) * 10.0 ** rng.integers(-3, 4)
    byse = rng.uniform(0.1, 1, n) ** rng.choice([1, 6])
    for estimator, weight in ((mr.simple_mode, np.ones(n)), (mr.weighted_mode, 1 / byse**2)):
        result = estimator(np.ones(n), byse, ratio, byse, phi=phi, stderr="simple", n_boot=0)
        width = result.bandwidth
        grid = (ratio[:, None] + np.linspace(-1, 1, 201) * width).ravel()
        top = density(ratio, weight, width, np.array([result.estimate]))[0]
        assert density(ratio, weight, width, grid).max() <= top * (1 + 1e-12)
        distance = (result.estimate - ratio) / width
        slope = (weight * distance * np.exp(-0.5 * distance**2)).sum()
        assert abs(slope) <= 1e-10 * weight.sum()


def test_a_mode_far_outside_of_the_bulk_is_found() -> None:
    rng = np.random.default_rng(0)
    ratio = np.concatenate([rng.normal(0, 1, 200), [1e6, 1e6 + 0.05, -3e7]])
    byse = np.concatenate([np.ones(200), [0.02, 0.02, 1.0]])
    result = mr.weighted_mode(np.ones(203), byse, ratio, byse, stderr="simple", n_boot=50)
    assert_close(result.estimate, 1e6 + 0.025, rtol=1e-9)
    assert_close(result.se, 0.02 / np.sqrt(2), rtol=0.5)


def test_equal_modes_give_the_one_nearer_to_zero() -> None:
    ratio = np.array([3.0, 1.0, 1.1, 2.9])
    se = np.full(4, 0.1)
    for sign in (1, -1):
        result = mr.simple_mode(np.ones(4), se, sign * ratio, se, phi=0.3, n_boot=0)
        assert_close(result.estimate, sign * 1.05, rtol=1e-6)


def test_half_of_the_ratios_equal_is_the_limit_of_no_bandwidth() -> None:
    ratio = np.array([2.0, 2.0, 2.0, 5.0, 5.0])
    byse = np.array([1.0, 1.0, 1.0, 0.5, 0.5])
    simple, weighted = (f(np.ones(5), byse, ratio, byse, stderr="simple") for f in (mr.simple_mode, mr.weighted_mode))
    assert (simple.estimate, weighted.estimate, simple.bandwidth) == (2.0, 5.0, 0.0)
    assert simple.se > 0


def test_weights_know_psi() -> None:
    bx, bxse, by, byse = draw(3, 12)
    se = np.sqrt(byse**2 / bx**2 + by**2 * bxse**2 / bx**4 - 2 * 0.6 * by * bxse * byse / bx**3)
    same = mr.weighted_mode(bx, bxse, by, np.abs(bx) * se, stderr="simple", n_boot=100)
    ours = mr.weighted_mode(bx, bxse, by, byse, psi=0.6, n_boot=100)
    assert_same_fit(ours, same, rtol=1e-9)


def test_the_bootstrap_is_the_one_of_its_definition() -> None:
    bx, bxse, by, byse = draw(8, 20)
    result = mr.weighted_mode(bx, bxse, by, byse, stderr="simple", n_boot=40, seed=4)
    se = byse / abs(bx)
    modes = []
    for z in np.random.default_rng([4, 0]).standard_normal((20, 1, 128)).T[:40]:
        # Exact modes of the drawn ratios under the weights of the data.
        drawn = by / bx + z[0] * se
        modes.append(mr.weighted_mode(1 / se, np.ones(20), drawn / se, np.ones(20), stderr="simple", n_boot=0).estimate)
    assert_close(result.se, stats.median_abs_deviation(modes, scale=1 / 1.4826), rtol=0.02)


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes, exposure=factors, outcome=factors)
def test_scale(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    assert_scales(partial(estimator, n_boot=20), draw(seed, n), exposure, outcome)


@each
@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_padding_and_mirror(estimator: Estimator, seed: int, n: int) -> None:
    point = partial(estimator, n_boot=0)
    assert_sign_order_and_padding(point, draw(seed, n), seed)
    assert_mirrors(point, draw(seed, n))


@each
def test_batch_is_a_loop_with_the_same_seed(estimator: Estimator) -> None:
    assert_batch_is_a_loop(partial(estimator, n_boot=50, seed=3))


@each
def test_blocks_do_not_show(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = draw(5, 9, (9,))
    whole = estimator(*columns, n_boot=30)
    for name, size in (("_TILE", 40), ("_NORMALS", 60), ("_HELD", 100)):
        monkeypatch.setattr(f"kipoi_deepmr.mr.core.blocks.{name}", size)
    assert_same_fit(estimator(*columns, n_boot=30), whole, rtol=1e-9)


def test_no_exposure_effect_is_no_ratio() -> None:
    bx, bxse, by, byse = draw(2, 7)
    bx[2] = 0.0
    left = np.delete(np.arange(7), 2)
    for estimator in WEIGHTING.values():
        result = estimator(bx, bxse, by, byse, n_boot=0)
        assert (result.n_instruments, result.n_used) == (7, 6)
        alone = estimator(bx[left], bxse[left], by[left], byse[left], n_boot=0)
        assert_same_fit(result, alone, skip=("n_instruments",))


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (8,))
    bx[0, 1:] = np.nan
    bx[1] = 0.0
    byse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bxse[6] = 0.0
    expected = [
        Status.TOO_FEW_INSTRUMENTS,
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.OK,
        Status.OK,
    ]
    weighted = mr.weighted_mode(bx, bxse, by, byse, stderr="simple")
    assert list(weighted.status) == expected
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue", "bandwidth"):
        assert np.array_equal(np.isnan(getattr(weighted, name)), weighted.status != Status.OK), name
    simple = mr.simple_mode(bx, bxse, by, byse, stderr="simple")
    assert (simple.status[2], simple.status[3]) == (Status.OK, expected[3])


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_see(estimator: Estimator, batch: tuple[int, ...], n: int) -> None:
    result = estimator(*(np.ones((*batch, n)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phi": 0}, "phi=0 must be a positive number"),
        ({"phi": "1"}, "positive number"),
        ({"stderr": "first"}, "'delta', 'simple'"),
        ({"n_boot": 1}, "at least 2"),
        ({"distribution": "t"}, "'normal', 't-dist'"),
        ({"alpha": 0}, "between 0 and 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    for estimator in WEIGHTING.values():
        with pytest.raises(ValueError, match=message):
            estimator(*draw(0, 4), **options)
