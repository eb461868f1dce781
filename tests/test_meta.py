"""Meta-analysis against R's metafor, the global maximum of its likelihoods, its invariants and its edges."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr import meta
from kipoi_deepmr.meta import MetaStatus, random_effects
from tests.reference_numbers import DataSet, Record, assert_close, load, names, sources

Array = np.ndarray[Any, Any]

FIELDS = {
    "b": "estimate",
    "se": "se",
    "pval": "pvalue",
    "ci.lb": "ci_low",
    "ci.ub": "ci_high",
    "pi.lb": "prediction_low",
    "pi.ub": "prediction_high",
    "tau2": "tau2",
    "se.tau2": "tau2_se",
    "I2": "i2",
    "H2": "h2",
    "QE": "q",
    "QEp": "q_pvalue",
    "k": "n_studies",
}
LEFT_OUT = {"estimate": "estimate", "se": "se", "Q": "q", "tau2": "tau2", "I2": "i2"}


def best_records(dataset: DataSet) -> list[Record]:
    """The rma calls iterated to convergence: ',tight' where metafor's default stops short."""
    keys = {record.key for record in dataset.records}
    return [
        record
        for record in dataset.records
        if record.function == "rma" and record.key.replace(")", ",tight)") not in keys
    ]


@pytest.mark.parametrize(("source", "name"), sources("meta_"))
def test_every_rma_call(source: str, name: str) -> None:
    dataset, combinations = load(source, name), set()
    y, s = dataset.data["yi"], dataset.data["sei"]
    for record in best_records(dataset):
        method, test = record.options["method"], record.options["test"]
        combinations.add((method, test))
        assert not record.not_to_match
        result = random_effects(y, s, method=method, test=test)
        value = record.value
        z2 = 1 + (value["b"] / value["se"]) ** 2 if value["se"] > 0 else 1.0
        floors = {
            # An error of 1e-10 in z, which is R's, is one of z^2 times that in a p-value.
            "pval": 1e-9 * z2 * value["pval"],
            "tau2": 1e-12 * float(np.mean(s**2)),
            "I2": 1e-9,
        }
        for theirs, ours in FIELDS.items():
            floor = floors.get(theirs, 1e-9 * value["se"])
            actual = getattr(result, ours)
            assert_close(actual, value[theirs], rtol=1e-9, atol=floor, label=f"{record.key} {theirs}")
        riley = random_effects(y, s, method=method, test=test, prediction="riley")
        for end, actual in (("lb", riley.prediction_low), ("ub", riley.prediction_high)):
            # Student's t has no k - 2 = 0 degrees of freedom; R's has one then.
            expected = value[f"riley.{end}"] if y.size > 2 else np.nan
            assert_close(actual, expected, rtol=1e-9, atol=1e-9 * value["se"], label=f"{record.key} riley {end}")
        assert_close(riley.ci_high, result.ci_high, rtol=0)
    assert combinations == {(method, test) for method in meta.METHODS for test in meta.TESTS}


@pytest.mark.parametrize(("source", "name"), sources("meta_"))
def test_leave_one_out(source: str, name: str) -> None:
    dataset = load(source, name)
    y, s = dataset.data["yi"], dataset.data["sei"]
    # metafor was told to stop at a change of tau2 below 1e-14, which is 1e-8 of these tau2.
    rtol = 1e-8 if name == "meta_smallscale" else 1e-9
    for record in dataset.records:
        if record.function == "leave1out" and record.value is not None:
            result = meta.leave_one_out(y, s, method=record.key.split("'")[1])
            for theirs, ours in LEFT_OUT.items():
                assert_close(getattr(result, ours), record.value[theirs], rtol=rtol, atol=1e-14, label=theirs)


@pytest.mark.parametrize(("source", "name"), sources("meta_"))
def test_nothing_in_the_reference_is_left_out(source: str, name: str) -> None:
    for record in load(source, name).records:
        assert record.package == "metafor"
        assert record.function in {"rma", "confint", "leave1out"}
        if record.function == "rma":
            assert set(record.options) <= {"method", "test"}, record.key


def test_the_committed_sets_are_all_of_the_full_ones() -> None:
    assert len(names("committed", "meta_")) == 9
    assert set(names("full", "meta_")) <= set(names("committed", "meta_"))


def likelihood(y: Array, v: Array, tau2: Array, restricted: bool) -> Array:
    total = v + tau2[:, None]
    w = 1 / total
    mean = (w * y).sum(axis=-1) / w.sum(axis=-1)
    height = -0.5 * (np.log(total) + w * (y - mean[:, None]) ** 2).sum(axis=-1)
    return height - 0.5 * np.log(w.sum(axis=-1)) if restricted else height


def hard_case(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 12))
    kind = seed % 4
    if kind == 0:  # effects and errors over six orders of magnitude
        return rng.normal(size=k) * 10 ** rng.uniform(-3, 3, k), 10 ** rng.uniform(-4, 2, k)
    if kind == 1:  # I2 of 0.9999
        return rng.normal(size=k), np.full(k, 0.01) * rng.uniform(0.5, 2, k)
    if kind == 2:  # two groups of very different precision: several maxima
        precise = np.arange(k) < k // 2
        spread = np.where(precise, 1e-3, 1.0)
        return rng.normal(size=k) * spread * 10 ** rng.uniform(-1, 1.5), spread * rng.uniform(0.1, 1, k)
    return 1e6 + rng.standard_t(1.2, k), 10 ** rng.uniform(-3, 1, k)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_maximum_is_the_global_one(method: str) -> None:
    several = 0
    for seed in range(200):
        y, s = hard_case(seed)
        result = random_effects(y, s, method=method)
        assert result.status == MetaStatus.OK
        grid = np.concatenate([[0.0], np.geomspace(1e-12, 1e9, 2001)])
        heights = likelihood(y, s**2, grid, method == "REML")
        found = likelihood(y, s**2, result.tau2[None], method == "REML")[0]
        assert found >= heights.max() - 1e-9 * max(1.0, abs(found)), seed
        inner = (heights[1:-1] > heights[:-2] + 1e-6) & (heights[1:-1] > heights[2:] + 1e-6)
        several += int(inner.sum() + (heights[0] > heights[1] + 1e-9) > 1)
    assert several > 0, "no example with several maxima: this test shows nothing"


def exact_reml_score(y: Array, s: Array, tau2: float) -> Fraction:
    w = [1 / (Fraction(error) ** 2 + Fraction(tau2)) for error in s]
    total = sum(w)
    mean = sum(a * Fraction(b) for a, b in zip(w, y, strict=True)) / total
    squares = sum(a * a for a in w)
    return sum(a * a * (Fraction(b) - mean) ** 2 for a, b in zip(w, y, strict=True)) - total + squares / total


def test_reml_is_exact() -> None:
    for seed in range(12):
        y, s = hard_case(seed)
        tau2 = float(random_effects(y, s).tau2)
        if tau2 > 0:
            assert exact_reml_score(y, s, tau2 * (1 - 1e-10)) > 0 > exact_reml_score(y, s, tau2 * (1 + 1e-10)), seed


def test_two_maxima() -> None:
    # One tight cluster of precise studies and one far, imprecise one that wants a large variance.
    y = np.array([0.0, 0.004, -0.004, 0.002, 30.0, -30.0, 25.0])
    s = np.array([0.001, 0.001, 0.001, 0.001, 1.0, 1.0, 1.0])
    for method in ("ML", "REML"):
        result = random_effects(y, s, method=method)
        grid = np.geomspace(1e-9, 1e5, 20001)
        heights = likelihood(y, s**2, grid, method == "REML")
        assert_close(result.tau2, grid[heights.argmax()], rtol=2e-3)


methods = st.sampled_from(meta.METHODS)
tests = st.sampled_from(meta.TESTS)
seeds = st.integers(0, 10**6)


def draw(seed: int, shape: tuple[int, ...] = (6,)) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    s = 10 ** rng.uniform(-1.5, 0, shape)
    return rng.normal(1, rng.choice([0, 0.3, 2]), shape) + s * rng.normal(size=shape), s


def assert_same(a: Any, b: Any, *, rtol: float = 1e-8) -> None:
    for name in a.arrays:
        first, second = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(first, second, rtol=rtol, atol=1e-10, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, method=methods, test=tests, scale=st.floats(1e-6, 1e6), shift=st.floats(-3, 3))
def test_scale_and_shift(seed: int, method: str, test: str, scale: float, shift: float) -> None:
    y, s = draw(seed)
    plain = random_effects(y, s, method=method, test=test)
    moved = random_effects((y + shift) * scale, s * scale, method=method, test=test)
    for name in ("estimate", "ci_low", "ci_high", "prediction_low", "prediction_high"):
        wanted = (getattr(plain, name) + shift) * scale
        np.testing.assert_allclose(getattr(moved, name), wanted, rtol=1e-8, atol=1e-8 * scale, err_msg=name)
    np.testing.assert_allclose(moved.tau2, plain.tau2 * scale**2, rtol=1e-8, atol=1e-12 * scale**2)
    for name in ("i2", "h2", "q", "q_pvalue"):
        np.testing.assert_allclose(getattr(moved, name), getattr(plain, name), rtol=1e-7, atol=1e-8, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, method=methods, test=tests)
def test_order_and_padding(seed: int, method: str, test: str) -> None:
    y, s = draw(seed)
    plain = random_effects(y, s, method=method, test=test)
    order = np.random.default_rng(seed).permutation(y.size)
    assert_same(random_effects(y[order], s[order], method=method, test=test), plain)
    padded_y, padded_s = np.insert(y, [0, 3], [np.nan, 7.0]), np.insert(s, [0, 3], [1.0, np.nan])
    assert_same(random_effects(padded_y, padded_s, method=method, test=test), plain)


@pytest.mark.parametrize("method", meta.METHODS)
def test_batch_is_a_loop_and_any_axis(method: str) -> None:
    y, s = draw(0, (3, 5, 7))
    y[0, :, 1] = np.nan
    y[:, 2, 2] = np.nan
    together = random_effects(y, s, method=method, axis=1, test="knha")
    assert together.estimate.shape == (3, 7)
    for i, j in np.ndindex(3, 7):
        alone = random_effects(y[i, :, j], s[i, :, j], method=method, test="knha")
        for name in alone.arrays:
            np.testing.assert_allclose(getattr(together, name)[i, j], getattr(alone, name), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", meta.METHODS)
def test_reasons(method: str) -> None:
    y, s = draw(1, (7, 4))
    y[0] = np.nan
    s[1, 0] = 0.0
    s[2, 0] = -1.0
    s[3, 0] = np.inf
    y[4, 0] = np.inf
    y[5], s[5] = y[5] * 1e200, s[5] * 1e-200
    result = random_effects(y, s, method=method)
    assert list(result.status) == [
        MetaStatus.TOO_FEW_STUDIES,
        MetaStatus.INVALID_STANDARD_ERROR,
        MetaStatus.INVALID_STANDARD_ERROR,
        MetaStatus.INVALID_STANDARD_ERROR,
        MetaStatus.INVALID_ESTIMATE,
        MetaStatus.NOT_FINITE,
        MetaStatus.OK,
    ]
    for name in result.arrays:
        if name not in ("status", "n_studies"):
            assert np.all(np.isnan(getattr(result, name)[:6])), name
    assert list(result.n_studies[:2]) == [0, 4]


def test_one_study_speaks_for_itself() -> None:
    for test in meta.TESTS:
        result = random_effects([0.5, np.nan], [0.1, 0.2], test=test)
        assert (result.estimate, result.se, result.tau2, result.i2, result.h2, result.q, result.q_pvalue) == (
            *(0.5, 0.1, 0, 0, 1, 0, 1),
        )
        assert_close(result.ci_low, 0.5 - 1.959963984540054 * 0.1, rtol=1e-12)
        assert np.isnan(result.tau2_se)


@pytest.mark.parametrize("method", meta.METHODS)
@pytest.mark.parametrize("unit", [1e-150, 1e-80, 1e80, 1e150])
def test_units_whose_squares_leave_the_range_of_numbers(method: str, unit: float) -> None:
    y, s = np.array([0.1, 0.5, 0.9, 0.2]), np.array([0.1, 0.2, 0.1, 0.15])
    plain, scaled = random_effects(y, s, method=method), random_effects(y * unit, s * unit, method=method)
    powers = {
        "tau2": 2,
        "tau2_se": 2,
        "i2": 0,
        "h2": 0,
        "q": 0,
        "q_pvalue": 0,
        "pvalue": 0,
        "n_studies": 0,
        "status": 0,
    }
    for name in plain.arrays:
        wanted = getattr(plain, name)
        for _ in range(powers.get(name, 1)):
            wanted = wanted * unit
        assert_close(getattr(scaled, name), wanted, rtol=1e-9, label=name)
    interval, wide = meta.tau2_interval(y, s), meta.tau2_interval(y * unit, s * unit)
    assert_close(wide.tau2_high, interval.tau2_high * unit * unit, rtol=1e-9)
    assert_close(wide.i2_low, interval.i2_low, rtol=1e-9)


def test_a_tau2_beyond_the_largest_number_is_no_answer() -> None:
    result = random_effects(np.array([0.1, 0.5, 0.9]) * 1e200, np.full(3, 1e199))
    assert result.status == MetaStatus.NOT_FINITE
    assert np.isnan(result.estimate)


def test_a_mask_hides_a_study() -> None:
    y, s = np.array([0.1, 0.5, 9.0, 0.2]), np.array([0.1, 0.2, 0.1, 0.15])
    masked = random_effects(np.ma.masked_equal(y, 9.0), s)
    assert_close(masked.estimate, random_effects(np.delete(y, 2), np.delete(s, 2)).estimate, rtol=1e-12)
    assert masked.n_studies == 3


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_no_studies_or_no_batches(shape: tuple[int, ...]) -> None:
    for method in meta.METHODS:
        result = random_effects(np.zeros(shape), np.ones(shape), method=method)
        assert result.estimate.shape == shape[:-1]
        assert np.all(result.status == MetaStatus.TOO_FEW_STUDIES)


def test_one_study_of_overwhelming_precision() -> None:
    y, s = np.array([1.0, 3.0, 2.0]), np.array([1e-9, 1.0, 1.5])
    result = random_effects(y, s, method="DL")
    w, w0 = 1 / s[1:] ** 2, 1e18
    assert_close(result.q, (w * (y[1:] - 1) ** 2).sum(), rtol=1e-9)
    trace = (2 * w0 * w.sum() + w.sum() ** 2 - (w**2).sum()) / (w0 + w.sum())
    assert_close(result.tau2, max(0.0, (float(result.q) - 2) / trace), rtol=1e-9)


@pytest.mark.parametrize(
    ("estimate", "se", "options", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], {"method": "reml"}, "'FE', 'DL'"),
        ([1.0, 2.0], [1.0, 2.0], {"test": "hk"}, "'z', 't', 'knha', 'adhoc'"),
        ([1.0, 2.0], [1.0, 2.0], {"prediction": "t"}, "'default', 'riley'"),
        ([1.0, 2.0], [1.0, 2.0], {"alpha": 0}, "between 0 and 1"),
        ([1.0, 2.0], [1.0, 2.0], {"alpha": "0.05"}, "between 0 and 1"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": 1}, "axis=1 is not an axis"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": None}, "axis=None must be one integer"),
        (np.ones((2, 2)), np.ones((2, 2)), {"axis": (0, 1)}, r"axis=\(0, 1\) must be one integer"),
        (1.0, 1.0, {}, "is not an axis"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], {}, "do not broadcast"),
        (["a"], [1.0], {}, "estimate must be an array of real numbers"),
    ],
)
def test_wrong_arguments(estimate: Any, se: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_effects(estimate, se, **options)
