"""The Wald ratio against R's MendelianRandomization and TwoSampleMR, and its edges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import assert_same_fit, draw, factors, seeds
from tests.reference_numbers import assert_close, inputs, load, sources

FIELDS = {
    "Estimate": "estimate",
    "StdError": "se",
    "CILower": "ci_low",
    "CIUpper": "ci_high",
    "Pvalue": "pvalue",
}


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_single_variant_of_mendelian_randomization(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if "single variants" not in record.key or record.value is None:
            continue
        order = "second" if record.options.get("weights") == "delta" else "first"
        result = mr.wald_ratio(*inputs(dataset), order=order, psi=record.options.get("psi", 0.0))
        wanted = {ours: np.array(record.value[theirs]) for theirs, ours in FIELDS.items() if theirs in record.value}
        size = wanted["estimate"].size
        answered = np.isfinite(wanted["estimate"]) & np.isfinite(wanted["se"]) & (wanted["se"] > 0)
        assert np.array_equal(result.status[:size] == Status.OK, answered)
        for ours, values in wanted.items():
            actual = getattr(result, ours)[:size][answered]
            assert_close(actual, values[answered], rtol=1e-9, atol=1e-300, label=f"{record.key} {ours}")
        compared += 1
    assert compared


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_two_sample_mr_ratios(source: str, name: str) -> None:
    dataset = load(source, name)
    for record in dataset.records:
        if record.function not in ("mr_wald_ratio", "mr_singlesnp") or record.value is None:
            continue
        result = mr.wald_ratio(*inputs(dataset))
        size = dataset.data["bx"].size
        b, se, p = (
            np.atleast_1d(np.asarray(record.value[key], dtype=float))[:size]
            for key in ("b", "se", "pval" if "pval" in record.value else "p")
        )
        answered = np.isfinite(b) & (se > 0)
        assert_close(result.estimate[answered], b[answered], rtol=1e-9, label=record.key)
        assert_close(result.se[answered], se[answered], rtol=1e-9, label=record.key)
        assert_close(result.pvalue[answered], p[answered], rtol=1e-9, atol=1e-300, label=record.key)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, exposure=factors, outcome=factors)
def test_scale_and_sign(seed: int, exposure: float, outcome: float) -> None:
    bx, bxse, by, byse = draw(seed, 6)
    for options in ({}, {"order": "second", "psi": 0.4}):
        plain = mr.wald_ratio(bx, bxse, by, byse, **options)
        scaled = mr.wald_ratio(bx * exposure, bxse * exposure, by * outcome, byse * outcome, **options)
        assert_close(scaled.estimate * exposure / outcome, plain.estimate, rtol=1e-9)
        assert_close(scaled.se * exposure / outcome, plain.se, rtol=1e-9)
        assert_same_fit(mr.wald_ratio(-bx, bxse, -by, byse, **options), plain)


def test_the_second_order_counts_the_error_of_the_exposure() -> None:
    result = mr.wald_ratio([2.0], [0.3], [3.0], [0.4], order="second", psi=0.5)
    variance = 0.4**2 / 4 + 9 * 0.3**2 / 16 - 2 * 0.5 * 3 * 0.3 * 0.4 / 8
    assert_close(result.se, [np.sqrt(variance)], rtol=1e-14)
    assert_close(result.pvalue, 2 * stats.norm.sf(1.5 / result.se), rtol=1e-12)
    assert mr.wald_ratio([2.0], [np.nan], [3.0], [0.4]).status == Status.OK


def test_reasons() -> None:
    bx = [np.nan, 0.0, 1.0, 1.0, np.inf, 1e-300, 1.0]
    byse = [1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 0.5]
    by = [1.0, 1.0, 1.0, 1.0, 1.0, 1e100, 1.0]
    expected = [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
    ]
    for options in ({}, {"order": "second"}):
        result = mr.wald_ratio(bx, np.zeros(7), by, byse, **options)
        assert list(result.status[:5]) == expected
        assert result.status[5] != Status.OK
        assert result.status[6] == Status.OK
        assert np.array_equal(np.isnan(result.estimate), result.status != Status.OK)
        assert list(result.n_instruments) == [0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (2, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    result = mr.wald_ratio(*(np.ones(shape) for _ in range(4)))
    assert result.estimate.shape == result.status.shape == shape


@pytest.mark.parametrize(
    ("options", "message"), [({"order": "third"}, "'first', 'second'"), ({"alpha": 2}, "alpha"), ({"psi": 3}, "psi")]
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.wald_ratio([1.0], [1.0], [1.0], [1.0], **options)
