"""Intervals of tau2 and leaving out studies: against R's metafor, their definitions, coverage, and edges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import meta
from kipoi_deepmr.meta import MetaStatus, random_effects, tau2_interval
from tests.reference_numbers import assert_close, load, sources

Array = np.ndarray[Any, Any]
METHODS = ("ML", "REML")
kinds = st.sampled_from([("q_profile", "REML"), ("profile_likelihood", "ML"), ("profile_likelihood", "REML")])


@pytest.mark.parametrize(("source", "name"), sources("meta_"))
def test_every_confint(source: str, name: str) -> None:
    dataset, seen = load(source, name), set()
    y, s = dataset.data["yi"], dataset.data["sei"]
    for record in dataset.records:
        if record.function != "confint":
            continue
        seen.add("type='PL'" in record.key)
        if record.value is None:
            assert y.size == 1 or (name, "type='PL'" in record.key) == ("meta_k2", True), record.key
            continue
        if not record.content["ok"] or (record.not_to_match and "tight" not in record.key):
            continue
        if "type='PL'" in record.key:
            result = tau2_interval(y, s, kind="profile_likelihood")
            for end, actual in (("lb", result.tau2_low), ("ub", result.tau2_high)):
                assert_close(actual, record.value[f"ci.{end}"], rtol=1e-9, label=record.key)
            continue
        result = tau2_interval(y, s)
        # metafor's roots are good to 1e-14 in tau2 when tight, to 1.2e-4 by default, which also moves the relative ones.
        slack = 2e-14 if "tight" in record.key else 1.2e-4
        typical = float(result.tau2_high / (result.h2_high - 1)) if result.h2_high > 1 else 1.0
        for end in ("low", "high"):
            theirs = {trait: record.value[trait][f"ci.{end[0].replace('h', 'u')}b"] for trait in record.value}
            actual = getattr(result, f"tau2_{end}")
            assert_close(actual, theirs["tau^2"], rtol=1e-9, atol=slack, label=record.key)
            assert_close(getattr(result, f"h2_{end}"), theirs["H^2"], rtol=1e-9, atol=slack / typical, label=record.key)
            assert_close(getattr(result, f"i2_{end}"), theirs["I^2(%)"], rtol=1e-9, atol=100 * slack / typical)
    assert seen == {False, True} or y.size <= 2


def draw(seed: int, shape: tuple[int, ...] = (8,)) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    s = 10 ** rng.uniform(-1.5, 0.3, shape)
    return rng.normal(1, rng.choice([0.0, 0.3, 2.0]), shape) + s * rng.normal(size=shape), s


def q_at(y: Array, s: Array, tau2: float) -> float:
    w = 1 / (s**2 + tau2)
    return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.01, 0.05, 0.5]), k=st.integers(2, 12))
def test_q_profile_is_its_definition(seed: int, alpha: float, k: int) -> None:
    y, s = draw(seed, (k,))
    result = tau2_interval(y, s, alpha=alpha)
    for end, level in ((result.tau2_low, 1 - alpha / 2), (result.tau2_high, alpha / 2)):
        target = stats.chi2.ppf(level, k - 1)
        if end > 0:
            assert_close(q_at(y, s, float(end)), target, rtol=1e-9)
        else:
            assert q_at(y, s, 0.0) <= target * (1 + 1e-12)
    paule_mandel = random_effects(y, s, method="PM").tau2
    assert result.tau2_low <= paule_mandel <= result.tau2_high or alpha == 0.5 or paule_mandel == 0


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 12))
def test_profile_likelihood_is_its_definition(method: str, seed: int, k: int) -> None:
    y, s = draw(seed, (k,))
    result = tau2_interval(y, s, kind="profile_likelihood", method=method)
    best = float(random_effects(y, s, method=method).tau2)

    def drop(tau2: float) -> float:
        def height(at: float) -> float:
            w = 1 / (s**2 + at)
            value = 0.5 * (np.log(w).sum() - q_at(y, s, at))
            return float(value - 0.5 * np.log(w.sum()) if method == "REML" else value)

        return 2 * (height(best) - height(tau2))

    assert 0 <= result.tau2_low <= best <= result.tau2_high
    assert_close(drop(float(result.tau2_high)), stats.chi2.ppf(0.95, 1), rtol=1e-7)
    if result.tau2_low > 0:
        assert_close(drop(float(result.tau2_low)), stats.chi2.ppf(0.95, 1), rtol=1e-7)
    else:
        assert drop(0.0) <= stats.chi2.ppf(0.95, 1)
    for outside in np.geomspace(1.001, 1e4, 30) * result.tau2_high:
        assert drop(float(outside)) > stats.chi2.ppf(0.95, 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), kind=kinds, scale=st.floats(1e-6, 1e6), shift=st.floats(-3, 3))
def test_scale_shift_order_and_padding(seed: int, kind: tuple[str, str], scale: float, shift: float) -> None:
    y, s = draw(seed)
    options = {"kind": kind[0], "method": kind[1]}
    plain = tau2_interval(y, s, **options)
    moved = tau2_interval(np.append((y[::-1] + shift) * scale, np.nan), np.append(s[::-1], 1) * scale, **options)
    for end in ("low", "high"):
        wanted = getattr(plain, f"tau2_{end}") * scale**2
        np.testing.assert_allclose(getattr(moved, f"tau2_{end}"), wanted, rtol=1e-6, atol=1e-9 * scale**2)
        np.testing.assert_allclose(getattr(moved, f"i2_{end}"), getattr(plain, f"i2_{end}"), rtol=1e-6, atol=1e-5)
    i2 = random_effects(y, s, method="PM").i2
    assert plain.i2_low <= i2 <= plain.i2_high or plain.i2_high == 0 or kind[0] != "q_profile"


def test_q_profile_covers() -> None:
    rng = np.random.default_rng(3)
    runs, tau2 = 4000, 0.25
    s = np.broadcast_to(rng.uniform(0.2, 1.0, 10), (runs, 10))
    y = 1 + np.sqrt(s**2 + tau2) * rng.normal(size=s.shape)
    result = tau2_interval(y, s)
    covered = np.mean((result.tau2_low <= tau2) & (tau2 <= result.tau2_high))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)


def test_studies_that_agree_too_well() -> None:
    result = tau2_interval([1.0, 1.0, 1.0], [0.1, 0.2, 0.3])
    assert (result.tau2_low, result.tau2_high, result.i2_high, result.h2_high) == (0, 0, 0, 1)
    likely = tau2_interval([1.0, 1.0, 1.0], [0.1, 0.2, 0.3], kind="profile_likelihood")
    assert likely.tau2_low == 0 < likely.tau2_high


@pytest.mark.parametrize("kind", ["q_profile", "profile_likelihood"])
def test_batches_axes_and_reasons(kind: str) -> None:
    y, s = draw(1, (6, 5, 2))
    y[0] = np.nan
    y[1, 1:] = np.nan
    s[2, 0] = 0.0
    y[3, 0] = np.inf
    y[4], s[4] = y[4] * 1e200, s[4] * 1e-200
    result = tau2_interval(y, s, kind=kind, axis=1)
    assert result.tau2_low.shape == (6, 2)
    reasons = [
        MetaStatus.TOO_FEW_STUDIES,
        MetaStatus.TOO_FEW_STUDIES,
        MetaStatus.INVALID_STANDARD_ERROR,
        MetaStatus.INVALID_ESTIMATE,
        MetaStatus.NOT_FINITE,
        MetaStatus.OK,
    ]
    assert np.array_equal(result.status, np.stack([reasons, reasons], axis=1))
    for name in ("tau2_low", "tau2_high", "i2_low", "i2_high", "h2_low", "h2_high"):
        assert np.array_equal(np.isnan(getattr(result, name)), result.status != MetaStatus.OK), name
    alone = tau2_interval(y[5, :, 1], s[5, :, 1], kind=kind)
    for name in alone.arrays:
        np.testing.assert_allclose(getattr(result, name)[5, 1], getattr(alone, name), rtol=1e-12)
    assert tau2_interval(np.zeros((3, 0)), np.ones((3, 0)), kind=kind).tau2_low.shape == (3,)
    assert tau2_interval(np.zeros((0, 3)), np.ones((0, 3)), kind=kind).tau2_low.shape == (0,)


# Leaving out studies.


@pytest.mark.parametrize("method", ["REML", "DL", "FE"])
def test_leave_one_out_is_a_loop(method: str) -> None:
    y, s = draw(2, (3, 6, 2))
    y[0, 1, 0] = np.nan
    s[1, 2, 1] = 0.0
    result = meta.leave_one_out(y, s, method=method, test="knha", axis=1, prediction="riley")
    for study in range(6):
        others = np.delete(np.arange(6), study)
        alone = random_effects(y[:, others], s[:, others], method=method, test="knha", axis=1, prediction="riley")
        for name in alone.arrays:
            np.testing.assert_allclose(getattr(result, name)[:, study], getattr(alone, name), rtol=1e-9, err_msg=name)
    assert result.status[1, 2, 1] == MetaStatus.OK
    assert result.status[1, 1, 1] == MetaStatus.INVALID_STANDARD_ERROR


def test_leave_one_out_of_one_and_two_and_none() -> None:
    alone = meta.leave_one_out([0.5], [0.1])
    assert alone.status == [MetaStatus.TOO_FEW_STUDIES]
    two = meta.leave_one_out([0.5, 0.7], [0.1, 0.2])
    np.testing.assert_allclose(two.estimate, [0.7, 0.5])
    np.testing.assert_allclose(two.se, [0.2, 0.1])
    assert meta.leave_one_out(np.zeros((2, 0)), np.zeros((2, 0))).estimate.shape == (2, 0)


def test_leave_one_out_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    y, s = draw(3, (4, 5))
    whole = meta.leave_one_out(y, s)
    monkeypatch.setitem(meta.leave_one_out.__globals__, "_BLOCK", 12)
    parts = meta.leave_one_out(y, s)
    for name in whole.arrays:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wald"}, "'q_profile', 'profile_likelihood'"),
        ({"method": "DL"}, "'ML', 'REML'"),
        ({"alpha": 1}, "between 0 and 1"),
        ({"axis": 2}, "axis=2 is not an axis"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tau2_interval([1.0, 2.0], [1.0, 1.0], **options)
    if "method" in options or "kind" in options:
        return
    with pytest.raises(ValueError, match=message):
        meta.leave_one_out([1.0, 2.0], [1.0, 1.0], **options)
