"""Steiger's test of direction against TwoSampleMR, and where R loses the strongest instruments."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.diagnostics import steiger, steiger_filter
from tests.reference_numbers import DataSet, Record, assert_close, inputs, load, rtol_of, sources

Array = np.ndarray[Any, Any]
# R's arrays of the variants that are not NaN run into those of all.
MISPLACED = ("mr_edge_nan",)


def answers(dataset: DataSet, function: str) -> list[Record]:
    found = [r for r in dataset.records if r.package == "TwoSampleMR" and r.function == function]
    return [record for record in found if record.value is not None]


def sizes(dataset: DataSet) -> dict[str, Array]:
    return {"n_exposure": dataset.data["n_exp"], "n_outcome": dataset.data["n_out"]}


def underflows(dataset: DataSet) -> bool:
    """Whether a p-value is 0 in R, which then drops the instrument."""
    bx, bxse, by, byse = inputs(dataset)
    with np.errstate(all="ignore"):
        return bool((np.abs(bx / bxse) > 38).any() or (np.abs(by / byse) > 38).any())


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_r_of_each_instrument(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    for function, convention in (("get_r_from_bsen", "f"), ("get_r_from_pn", "p")):
        result = steiger_filter(*inputs(dataset), **sizes(dataset), convention=convention)
        for record in answers(dataset, function):
            for trait, r2 in (("exposure", result.r2_exposure), ("outcome", result.r2_outcome)):
                theirs = np.abs(np.array(record.value[trait], dtype=float))
                size = theirs.size
                known = np.isfinite(theirs)
                ours = np.sqrt(r2)[:size]
                if name not in MISPLACED:
                    # An R value of NA is a p-value of 0, or an effect without error: there r is known here, too.
                    assert np.all(ours[~known] > 0.03) or name in ("mr_edge_zero_bxse", "mr_edge_zero_byse")
                both = known & np.isfinite(ours)
                # R's quantile of a p-value near 1 has few digits.
                assert_close(ours[both], theirs[both], rtol=max(rtol, 1e-8), atol=1e-11, label=record.key)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_steiger_filtering(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    result = steiger_filter(*inputs(dataset), **sizes(dataset))
    for record in answers(dataset, "steiger_filtering"):
        value = {key: np.array(column, dtype=float) for key, column in record.value.items()}
        known = np.isfinite(value["rsq.exposure"]) & np.isfinite(value["rsq.outcome"]) & np.isfinite(result.r2_outcome)
        assert known.any() or name == "mr_edge_zero_bxse"
        assert_close(result.r2_exposure[known], value["rsq.exposure"][known], rtol=rtol)
        assert_close(result.r2_outcome[known], value["rsq.outcome"][known], rtol=rtol)
        assert np.array_equal(result.keep[known], value["steiger_dir"][known] == 1)
        assert_close(result.pvalue[known], value["steiger_pval"][known], rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_mr_steiger(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    if name in MISPLACED:
        return
    for record in answers(dataset, "mr_steiger") + answers(dataset, "mr_steiger2"):
        reliability = (0.9, 0.8) if "r_xxo" in record.key else (1.0, 1.0)
        for suffix, (of_x, of_y) in (("", (1.0, 1.0)), ("_adj", reliability)):
            result = steiger(*inputs(dataset), **sizes(dataset), reliability_exposure=of_x, reliability_outcome=of_y)
            assert_close(result.r2_exposure, record.value[f"r2_exp{suffix}"], rtol=rtol, label=record.key)
            assert_close(result.r2_outcome, record.value[f"r2_out{suffix}"], rtol=rtol, label=record.key)
            assert (result.direction == 1) == record.value[f"correct_causal_direction{suffix}"]
            assert_close(result.pvalue, record.value[f"steiger_test{suffix}"], rtol=1e-7, label=record.key)
            if np.isfinite(record.value["sensitivity_ratio"]):
                assert_close(result.sensitivity_ratio, record.value["sensitivity_ratio"], rtol=1e-7, label=record.key)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_directionality_test(source: str, name: str) -> None:
    dataset = load(source, name)
    result = steiger(*inputs(dataset), **sizes(dataset), convention="p")
    for record in answers(dataset, "directionality_test"):
        if name in MISPLACED:
            continue
        value = record.value
        if underflows(dataset):
            # R has lost instruments with p = 0, of the exposure or of the outcome or of both.
            assert result.r2_exposure > value["snp_r2.exposure"] or result.r2_outcome > value["snp_r2.outcome"]
            continue
        assert_close(result.r2_exposure, value["snp_r2.exposure"], rtol=1e-8)
        assert_close(result.r2_outcome, value["snp_r2.outcome"], rtol=1e-8)
        assert (result.direction == 1) == value["correct_causal_direction"]
        assert_close(result.pvalue, value["steiger_pval"], rtol=1e-7)


def test_the_strongest_instruments_stay() -> None:
    strong = steiger([1.0, 0.1], [0.01, 0.05], [0.2, 0.02], [0.01, 0.05], n_exposure=1e5, n_outcome=1e5, convention="p")
    plain = steiger([1.0, 0.1], [0.01, 0.05], [0.2, 0.02], [0.01, 0.05], n_exposure=1e5, n_outcome=1e5)
    assert strong.direction == plain.direction == 1
    assert_close(strong.r2_exposure, plain.r2_exposure, rtol=1e-3)
    exact = steiger([1.0], [0.0], [0.2], [0.1], n_exposure=100, n_outcome=100)
    assert (exact.r2_exposure, exact.direction, exact.status) == (1, 1, Status.OK)
    assert np.isnan(exact.pvalue)


def draw(seed: int, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.05, (*batch, 7))
    bxse, byse = rng.uniform(0.01, 0.05, bx.shape), rng.uniform(0.01, 0.05, bx.shape)
    return bx, bxse, 0.5 * bx + rng.normal(size=bx.shape) * byse, byse


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), convention=st.sampled_from(["f", "p"]))
def test_invariants(seed: int, scale: float, convention: str) -> None:
    bx, bxse, by, byse = draw(seed)
    n: dict[str, Any] = {"n_exposure": 5000, "n_outcome": 800, "convention": convention}
    plain = steiger(bx, bxse, by, byse, **n)
    padded = (np.append(column, np.nan) for column in (-bx[::-1] * scale, bxse[::-1] * scale, by[::-1], byse[::-1]))
    changed = steiger(*padded, **n)
    for name in plain.arrays:
        np.testing.assert_allclose(getattr(changed, name), getattr(plain, name), rtol=1e-7)
    swapped = steiger(by, byse, bx, bxse, n_exposure=800, n_outcome=5000, convention=convention)
    assert_close(swapped.z, -plain.z, rtol=1e-9)
    assert swapped.direction == -plain.direction
    single = steiger_filter(bx, bxse, by, byse, **n)
    assert_close(single.r2_exposure.sum(), plain.r2_exposure, rtol=1e-12)


def test_batches_and_reasons() -> None:
    columns = draw(1, (6,))
    columns[0][0] = np.nan
    columns[1][1, 0] = -1.0
    columns[2][2, 0] = np.inf
    columns[2][3, 0] = columns[3][3, 0] = 0.0
    columns[1][5] = 1e-9
    result = steiger(*columns, n_exposure=1000, n_outcome=1000)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.INVALID_STANDARD_ERROR,
        Status.OK,
        Status.OK,
    ]
    assert np.array_equal(np.isnan(result.r2_exposure), result.status != Status.OK)
    assert list(np.isnan(result.pvalue)) == [True, True, True, True, False, True]
    assert list(result.direction) == [0, 0, 0, 0, int(np.sign(result.z[4])), 1]
    assert not steiger_filter(*columns, n_exposure=1000, n_outcome=1000).keep[0].any()
    alone = steiger(*(column[4] for column in columns), n_exposure=np.full(7, 1000), n_outcome=[1000])
    assert_close(result.pvalue[4], alone.pvalue, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_exposure": 3}, "n_exposure must be more than 3"),
        ({"n_outcome": [5.0, 6.0]}, "n_outcome of shape"),
        ({"convention": "z"}, "'f', 'p'"),
        ({"reliability_outcome": 0}, r"reliability_outcome=0 is a correlation"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steiger(*draw(1), **{"n_exposure": 100, "n_outcome": 100, **options})
