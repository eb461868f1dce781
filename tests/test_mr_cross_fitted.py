"""Cross-fitted IVW and MR-Egger against loops over pairs of draws, and what they are for: no dilution, no overlap."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.core import cross_fitting
from tests.mr_helpers import assert_same_fit, factors, seeds

Array = np.ndarray[Any, Any]
both = pytest.mark.parametrize("estimator", [mr.cross_fitted_ivw, mr.cross_fitted_egger])


def draws_of(
    seed: int, n: int = 12, variants: int = 9, batch: tuple[int, ...] = (), noise: float = 0.2
) -> tuple[Array, Array]:
    """Return draws of shape (*batch, n, variants) with the slope 0.8 and errors that depend on one another."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(0, 0.5, (*batch, 1, variants))
    factor = rng.normal(size=(*batch, n, 3))
    u = factor @ rng.normal(size=(*batch, 3, variants)) + rng.normal(size=(*batch, n, variants))
    v = 0.5 * u + factor @ rng.normal(size=(*batch, 3, variants)) + rng.normal(size=(*batch, n, variants))
    return effect + noise * u, 0.8 * effect + noise * v


def loop(x: Array, y: Array, *, weights: Any, folds: int, min_f: float, oriented: bool) -> dict[str, Any]:
    """One fit by loops over draws, pairs and variants, straight from the definition."""
    n, variants = x.shape
    bounds = np.linspace(0, n, min(folds, n) + 1).astype(int)
    fold = np.searchsorted(bounds, np.arange(n), side="right") - 1
    pairs = {}
    for a, b in itertools.permutations(range(n), 2):
        held = [k for k in range(n) if fold[k] not in (fold[a], fold[b])]
        w = 1 / y[held].var(axis=0, ddof=1) if isinstance(weights, str) else np.array(weights, dtype=float)
        if min_f:
            w = np.where(n * x[held].mean(axis=0) ** 2 / x[held].var(axis=0, ddof=1) >= min_f, w, 0)
        s = np.sign(x[held].mean(axis=0))
        mean_x, other_x, mean_y = ((w * s * values).sum() / w.sum() for values in (x[a], x[b], y[b]))
        if not oriented:
            mean_x = other_x = mean_y = 0.0
        pairs[a, b] = (
            sum(w[j] * (x[a, j] - s[j] * mean_x) * (y[b, j] - s[j] * mean_y) for j in range(variants)),
            sum(w[j] * (x[a, j] - s[j] * mean_x) * (x[b, j] - s[j] * other_x) for j in range(variants)),
            mean_x,
            mean_y,
        )

    def means(without: int | None) -> Array:
        return np.mean([values for pair, values in pairs.items() if without not in pair], axis=0)

    def covariance(first: Array, second: Array) -> float:
        return float((n - 1) ** 2 / n * np.cov(first, second)[0, 1])

    whole, each = means(None), np.array([means(k) for k in range(n)])
    slope = whole[0] / whole[1]
    e = (each[:, 0] - slope * each[:, 1]) / whole[1]
    intercept = each[:, 3] - (slope + e) * each[:, 2]
    return {
        "estimate": slope,
        "se": np.sqrt(covariance(e, e)),
        "intercept": whole[3] - slope * whole[2],
        "intercept_se": np.sqrt(covariance(intercept, intercept)),
        "f_statistic": whole[1] ** 2 / covariance(each[:, 1], each[:, 1]),
    }


@both
@pytest.mark.parametrize("weights", ["held_out", "array"])
@pytest.mark.parametrize(("folds", "min_f"), [(3, 0.0), (5, 2.0), (50, 0.0)])
def test_equals_loops_over_pairs(estimator: Callable[..., Any], weights: Any, folds: int, min_f: float) -> None:
    x, y = draws_of(3)
    if weights == "array":
        weights = np.arange(1.0, 10.0)
    result = estimator(x, y, weights=weights, folds=folds, min_f=min_f, model="fixed")
    wanted = loop(x, y, weights=weights, folds=folds, min_f=min_f, oriented=estimator is mr.cross_fitted_egger)
    assert result.status == Status.OK
    for name, value in wanted.items():
        if hasattr(result, name):
            np.testing.assert_allclose(getattr(result, name), value, rtol=1e-9, err_msg=name)


@given(seeds, st.integers(4, 9), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_with_fixed_weights_the_estimate_is_the_one_of_the_moments(seed: int, n: int, variants: int) -> None:
    x, y = draws_of(seed, n, variants)
    weights = np.random.default_rng(seed).uniform(1, 2, variants)
    product = x.mean(axis=0) * y.mean(axis=0) - ((x - x.mean(axis=0)) * y).sum(axis=0) / (n - 1) / n
    square = x.mean(axis=0) ** 2 - x.var(axis=0, ddof=1) / n
    result = mr.cross_fitted_ivw(x, y, weights=weights)
    if result.status == Status.OK:
        np.testing.assert_allclose(result.estimate, (weights * product).sum() / (weights * square).sum(), rtol=1e-8)
    if variants > 1:
        sds = x.std(axis=0) / np.sqrt(n), y.std(axis=0) / np.sqrt(n)
        psi = ((x - x.mean(axis=0)) * y).mean(axis=0) / n / (sds[0] * sds[1])
        moments = mr.overlap_debiased_ivw(x.mean(axis=0), sds[0], y.mean(axis=0), sds[1], psi=psi, draws=n)
        by_weight = mr.cross_fitted_ivw(x, y, weights=1 / sds[1] ** 2)
        if moments.status == by_weight.status == Status.OK:
            np.testing.assert_allclose(by_weight.estimate, moments.estimate, rtol=1e-8)


@both
def test_a_batch_is_a_loop_whatever_the_blocks(estimator: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = draws_of(1, 8, 6, (3, 1), noise=0.05)
    _, y = draws_of(2, 8, 6, (1, 2), noise=0.05)
    weights = np.random.default_rng(3).uniform(1, 2, (2, 6))
    for given_weights in ("held_out", weights):
        whole = estimator(x, y, weights=given_weights)
        assert whole.estimate.shape == (3, 2)
        monkeypatch.setattr(cross_fitting, "_BLOCK_ELEMENTS", 100)
        assert_same_fit(whole, estimator(x, y, weights=given_weights), rtol=1e-10)
        monkeypatch.undo()
        for i, j in itertools.product(range(3), range(2)):
            alone = estimator(
                x[i, 0], y[0, j], weights=given_weights if isinstance(given_weights, str) else given_weights[j]
            )
            np.testing.assert_allclose(alone.estimate, whole.estimate[i, j], rtol=1e-10)
            np.testing.assert_allclose(alone.se, whole.se[i, j], rtol=1e-10)


@both
@given(seeds, factors, factors)
@settings(max_examples=25, deadline=None)
def test_units_signs_and_order_of_the_variants(
    estimator: Callable[..., Any], seed: int, exposure: float, outcome: float
) -> None:
    x, y = draws_of(seed, noise=0.05)
    plain = estimator(x, y)
    scaled = estimator(x * exposure, y * outcome)
    assert scaled.status == plain.status
    for name in ("estimate", "se", "ci_low", "ci_high"):
        np.testing.assert_allclose(getattr(scaled, name) * exposure / outcome, getattr(plain, name), rtol=1e-6)
    np.testing.assert_allclose(scaled.pvalue, plain.pvalue, rtol=1e-6)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1.0, 1.0], x.shape[-1]), rng.permutation(x.shape[-1])
    assert_same_fit(plain, estimator((x * sign)[:, order], (y * sign)[:, order]), rtol=1e-6)


@both
@pytest.mark.parametrize("absent", [np.nan, "weight"])
def test_absent_variants(estimator: Callable[..., Any], absent: Any) -> None:
    x, y = draws_of(5, noise=0.05)
    weights = np.arange(1.0, 10.0)
    without = estimator(np.delete(x, 4, axis=1), np.delete(y, 4, axis=1), weights=np.delete(weights, 4))
    if absent == "weight":
        weights[4] = np.nan
    else:
        y[7, 4] = absent
    assert_same_fit(estimator(x, y, weights=weights), without, rtol=1e-9)


@both
def test_interval_and_pvalue_agree(estimator: Callable[..., Any]) -> None:
    x, y = draws_of(8, 10, 20, (60,), noise=0.25)
    y -= np.linspace(0, 0.8, 60)[:, None, None] * x.mean(axis=-2, keepdims=True)
    for alpha in (0.05, 0.3):
        result = estimator(x, y, alpha=alpha)
        fine = result.status == Status.OK
        outside = (result.ci_low > 0) | (result.ci_high < 0)
        assert 10 < fine.sum() and 3 < (outside & fine).sum() < fine.sum()
        np.testing.assert_array_equal(outside[fine], (result.pvalue < alpha)[fine])
        assert np.all((result.ci_low <= result.estimate) & (result.estimate <= result.ci_high) | ~fine)
        assert np.all(np.isnan(result.estimate) == ~fine)
    wide = estimator(x, y, alpha=1e-9)
    assert np.isneginf(wide.ci_low).any()


@both
@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
def test_few_draws(estimator: Callable[..., Any], n: int) -> None:
    x, y = draws_of(2, n, 30, noise=1e-3)
    for weights in ("held_out", "equal"):
        result = estimator(x, y, weights=weights)
        needed = 3 if estimator is mr.cross_fitted_ivw and weights == "equal" else 4
        assert (result.status == Status.TOO_FEW_DRAWS) == (n < needed)
        assert np.isnan(result.estimate) == (result.status != Status.OK)
        if weights == "equal" and n >= needed:
            np.testing.assert_allclose(result.estimate, 0.8, atol=0.05)
            assert result.se > 0
    assert n < 12 or result.status == estimator(x, y).status == Status.OK


@both
@pytest.mark.parametrize("variants", [0, 1, 2, 3])
def test_few_instruments(estimator: Callable[..., Any], variants: int) -> None:
    x, y = draws_of(2, 10, variants, noise=1e-3)
    needed = 3 if estimator is mr.cross_fitted_egger else 1
    result = estimator(x, y)
    assert result.n_instruments == variants
    assert result.status == (Status.OK if variants >= needed else Status.TOO_FEW_INSTRUMENTS)


@both
def test_what_has_no_answer(estimator: Callable[..., Any]) -> None:
    x, y = draws_of(2, 10, 5, noise=0.01)
    assert estimator(np.zeros((10, 5)), y).status == Status.NO_EXPOSURE_VARIATION
    assert estimator(np.random.default_rng(0).normal(size=(10, 5)), y).status == Status.WEAK_INSTRUMENTS
    assert estimator(np.where(np.arange(5) == 2, np.inf, x), y).status == Status.INVALID_EFFECT
    # Rounding of equal draws must not become a weight.
    constant = np.broadcast_to(np.array([0.1, 0.2, 0.3, 0.7, 0.9]), (10, 5))
    assert estimator(constant, constant).status == Status.TOO_FEW_INSTRUMENTS
    one = estimator(x, np.where(np.arange(5) == 2, 0.1, y), weights="held_out")
    assert one.n_used == 4 and one.n_instruments == 5
    exact = mr.cross_fitted_ivw(constant, constant, weights="equal")
    np.testing.assert_allclose([exact.estimate, exact.se, exact.ci_low], [1, 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones(3), np.ones(3)), {}, r"\(..., N, J\)"),
        ((np.ones((5, 3)), np.ones((4, 3))), {}, r"\(..., N, J\)"),
        ((np.ones((2, 5, 3)), np.ones((3, 5, 3))), {}, "do not broadcast"),
        ((np.array([["a"]]), np.ones((1, 1))), {}, "bx_draws must be an array of real numbers"),
        (None, {"weights": "same"}, "'held_out', 'equal'"),
        (None, {"weights": np.ones(4)}, "J = 3"),
        (None, {"weights": [1.0, -1.0, 1.0]}, "at least 0"),
        (None, {"weights": np.ones((2, 3))}, "do not broadcast"),
        (None, {"folds": 2}, "at least 3"),
        (None, {"min_f": -1}, "min_f"),
        (None, {"model": "mixed"}, "'random', 'fixed'"),
        (None, {"groups": [1, 2]}, "one label per variant"),
        (None, {"alpha": 0}, "between 0 and 1"),
    ],
)
@both
def test_wrong_arguments(estimator: Callable[..., Any], arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(*(arguments or (np.ones((5, 3)), np.ones((5, 3)))), **options)


@both
def test_unbiased_where_dilution_and_overlap_bias_the_others(estimator: Callable[..., Any]) -> None:
    rng = np.random.default_rng(12)
    fits, n, variants, slope = 150, 20, 60, 0.5
    effect = rng.normal(0, np.sqrt(4 / n), (fits, 1, variants))
    u, v = rng.normal(size=(2, fits, n, variants))
    x, y = effect + u, slope * effect + 0.7 * u + np.sqrt(1 - 0.7**2) * v
    result = estimator(x, y)
    usual = mr.ivw(x.mean(axis=1), x.std(axis=1) / np.sqrt(n), y.mean(axis=1), y.std(axis=1) / np.sqrt(n))
    fine = result.status == Status.OK
    assert fine.mean() > 0.9
    error = result.estimate[fine].std() / np.sqrt(fine.sum())
    assert abs(result.estimate[fine].mean() - slope) < 4 * error < 0.1
    assert usual.estimate.mean() - slope > 0.03
    covered = ((result.ci_low < slope) & (slope < result.ci_high))[fine].mean()
    assert 0.9 <= covered


def test_weights_of_the_same_draws_leave_a_bias_that_held_out_ones_do_not() -> None:
    rng = np.random.default_rng(4)
    fits, n, variants = 4000, 8, 40
    u = rng.normal(size=(fits, n, variants))
    effect = rng.normal(0, 0.3, (fits, 1, variants))
    x, y = effect + u, 0.9 * u + 0.3 * rng.normal(size=u.shape)
    numerators = {}
    for name, weights in (("same", 1 / y.var(axis=1, ddof=1)), ("held_out", "held_out")):
        choices = cross_fitting.read_choices(x.shape, weights, 0.0, 4, "fixed", None, oriented=False)
        numerators[name] = cross_fitting.cross_fit(x, y, choices).xy.mean
    z = {name: values.mean() / (values.std() / np.sqrt(fits)) for name, values in numerators.items()}
    assert abs(z["held_out"]) < 3.5 and z["same"] > 8


def test_intercept_of_directional_pleiotropy() -> None:
    rng = np.random.default_rng(7)
    effect = rng.normal(0, 1, (80, 1, 60))
    errors = rng.normal(0, 0.5, (2, 80, 20, 60))
    x, y = effect + errors[0], 0.5 * effect + 0.3 * np.sign(effect) + errors[1]
    result = mr.cross_fitted_egger(x, y, min_f=20)
    assert np.all(result.status == Status.OK)
    np.testing.assert_allclose([result.estimate.mean(), result.intercept.mean()], [0.5, 0.3], atol=0.02)
    covered = ((result.intercept_ci_low < 0.3) & (0.3 < result.intercept_ci_high)).mean()
    assert covered > 0.85
    assert (mr.cross_fitted_ivw(x, y).estimate - 0.5).mean() > 0.1


def pleiotropy_loop(x: Array, y: Array, slope: float, *, weights: Array, labels: Array) -> float:
    """Variance of numerator - slope x denominator by differences between groups, from the definition."""
    n = len(x)

    def share(chosen: list[int]) -> Array:
        pairs = list(itertools.permutations(chosen, 2))
        each = sum(weights * x[a] * (y[b] - slope * x[b]) for a, b in pairs) / len(pairs)
        return np.array([each[labels == label].sum() for label in np.unique(labels)])

    whole = share(list(range(n)))
    without = np.array([share([k for k in range(n) if k != left]) for left in range(n)])
    noise = (n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return float(max((whole**2 - noise).sum(), 0) * len(whole) / (len(whole) - 1))


@pytest.mark.parametrize("labels", [np.arange(9), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])])
def test_pleiotropy_equals_a_loop(labels: Array) -> None:
    x, y = draws_of(3, noise=0.05)
    y = y + np.linspace(-0.3, 0.3, 9)
    weights = np.arange(1.0, 10.0)
    fixed, random = (
        mr.cross_fitted_ivw(x, y, weights=weights, groups=labels, model=model) for model in ("fixed", "random")
    )
    choices = cross_fitting.read_choices(x.shape, weights, 0.0, 5, "fixed", None, oriented=False)
    denominator = cross_fitting.cross_fit(x, y, choices).xx.mean
    added = pleiotropy_loop(x, y, float(fixed.estimate), weights=weights, labels=labels)
    assert random.estimate == fixed.estimate and added > 0
    np.testing.assert_allclose(random.se**2 - fixed.se**2, added / denominator**2, rtol=1e-8)
    assert random.pvalue > fixed.pvalue
    assert random.ci_low < fixed.ci_low and fixed.ci_high < random.ci_high


@both
def test_balanced_pleiotropy_counts(estimator: Callable[..., Any]) -> None:
    rng = np.random.default_rng(5)
    effect, own = rng.normal(0, 1, (200, 1, 60)), rng.normal(0, 0.3, (200, 1, 20)).repeat(3, axis=-1)
    errors = rng.normal(0, 0.3, (2, 200, 15, 60))
    x, y = effect + errors[0], 0.5 * effect + own + errors[1]
    groups = np.arange(60) // 3
    random, fixed = estimator(x, y, groups=groups), estimator(x, y, model="fixed")
    np.testing.assert_allclose(random.estimate, fixed.estimate)
    np.testing.assert_allclose(np.sqrt((random.se**2).mean()), random.estimate.std(), rtol=0.15)
    assert ((random.ci_low < 0.5) & (0.5 < random.ci_high)).mean() > 0.9
    assert ((fixed.ci_low < 0.5) & (0.5 < fixed.ci_high)).mean() < 0.75
    if estimator is mr.cross_fitted_egger:
        np.testing.assert_allclose(np.sqrt((random.intercept_se**2).mean()), random.intercept.std(), rtol=0.25)


def test_held_out_selection_equals_a_loop() -> None:
    x, _ = draws_of(6, 11, 8, (2,), noise=0.5)
    x[1, 3, 2] = np.nan
    chosen = mr.held_out_selection(x, min_f=3, folds=4)
    bounds = np.linspace(0, 11, 5).astype(int)
    assert chosen.shape == (2, 4, 8)
    for row, fold, variant in np.ndindex(chosen.shape):
        rest = np.delete(x[row, :, variant], np.arange(bounds[fold], bounds[fold + 1]))
        strength = 11 * rest.mean() ** 2 / rest.var(ddof=1)
        assert chosen[row, fold, variant] == bool(strength >= 3)
    assert 0 < chosen.sum() < chosen.size
    assert not chosen[1, :, 2].any()


def test_held_out_selection_at_the_edges() -> None:
    constant = np.broadcast_to(np.array([0.0, 0.1]), (6, 2))
    np.testing.assert_array_equal(mr.held_out_selection(constant, min_f=10), [[False, True]] * 5)
    assert not mr.held_out_selection(np.ones((2, 3)), min_f=1, folds=2).any()
    assert mr.held_out_selection(np.ones((4, 0)), min_f=1, folds=2).shape == (2, 0)
    with pytest.raises(ValueError, match=r"\(..., N, J\)"):
        mr.held_out_selection(np.ones(3), min_f=1)
    with pytest.raises(ValueError, match="folds=1"):
        mr.held_out_selection(constant, min_f=1, folds=1)
    with pytest.raises(ValueError, match="min_f"):
        mr.held_out_selection(constant, min_f=np.nan)


def test_selection_by_held_out_draws_has_no_winners_curse() -> None:
    rng = np.random.default_rng(9)
    fits, n, variants = 300, 20, 50
    effect = rng.normal(0, 0.5, (fits, 1, variants))
    x = effect + rng.normal(size=(fits, n, variants))
    y = 0.5 * effect + rng.normal(size=(fits, n, variants))
    strength = n * x.mean(axis=1) ** 2 / x.var(axis=1, ddof=1)
    same = mr.cross_fitted_ivw(x, y, weights=np.where(strength >= 4, 1.0, 0.0))
    held_out = mr.cross_fitted_ivw(x, y, weights="equal", min_f=4)
    fine = held_out.status == Status.OK
    error = held_out.estimate[fine].std() / np.sqrt(fine.sum())
    assert fine.mean() > 0.9 and abs(held_out.estimate[fine].mean() - 0.5) < 4 * error
    assert np.nanmean(same.estimate) < 0.5 - 5 * error


def equal_sums(x: Array, y: Array) -> tuple[float, float, Array, Array]:
    """Mean numerator and denominator over pairs of distinct draws, and those without each draw."""

    def mean(first: Array, second: Array) -> float:
        return float(np.mean([(first[a] * second[b]).sum() for a, b in itertools.permutations(range(len(first)), 2)]))

    without = [[mean(np.delete(x, k, 0), np.delete(other, k, 0)) for k in range(len(x))] for other in (y, x)]
    return mean(x, y), mean(x, x), np.array(without[0]), np.array(without[1])


def jackknife_se(without: Array) -> float:
    return float(np.sqrt((len(without) - 1) * without.var()))


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_student_has_one_degree_of_freedom_less_than_draws(alpha: float) -> None:
    x, y = draws_of(4, 5, 9, noise=0.02)
    result = mr.cross_fitted_ivw(x, y, weights="equal", model="fixed", alpha=alpha)
    xy, xx, xy_without, xx_without = equal_sums(x, y)
    np.testing.assert_allclose(result.pvalue, 2 * stats.t.sf(abs(xy) / jackknife_se(xy_without), 4), rtol=1e-7)
    for end in (result.ci_low, result.ci_high):
        distance = abs(xy - end * xx) / jackknife_se(xy_without - end * xx_without)
        np.testing.assert_allclose(distance, stats.t.isf(alpha / 2, 4), rtol=1e-7)
    line = mr.cross_fitted_egger(x, y, weights="equal", alpha=alpha)
    assert result.status == line.status == Status.OK
    p = 2 * stats.t.sf(abs(line.intercept / line.intercept_se), 4)
    np.testing.assert_allclose(line.intercept_pvalue, p, rtol=1e-9)
    margin = stats.t.isf(alpha / 2, 4) * line.intercept_se
    ends = [line.intercept - margin, line.intercept + margin]
    np.testing.assert_allclose([line.intercept_ci_low, line.intercept_ci_high], ends, rtol=1e-9)


def test_an_answer_needs_a_denominator_above_zero_at_the_level_of_5_percent() -> None:
    statuses = []
    for seed in range(150):
        x, y = draws_of(seed, 5, 3, noise=0.15)
        _, xx, _, xx_without = equal_sums(x, y)
        strong = xx > stats.t.isf(0.025, 4) * jackknife_se(xx_without)
        # The level of the interval has no part in it.
        for alpha in (0.05, 0.3):
            result = mr.cross_fitted_ivw(x, y, weights="equal", alpha=alpha)
            assert result.status == (Status.OK if strong else Status.WEAK_INSTRUMENTS), seed
        statuses.append(strong)
    assert 30 < np.sum(statuses) < 120


def test_an_f_of_exactly_the_minimum_is_enough() -> None:
    # Draws outside of one fold of three have mean 2 and variance 4/3: F = 6 x 4 / (4/3) = 18; outside of two 6 x 4 / 2 = 12.
    x = np.array([[1.0, 9], [3, 11]] * 3)
    for min_f, chosen in ((18.0, [True, True]), (18.001, [False, True])):
        np.testing.assert_array_equal(mr.held_out_selection(x, min_f=min_f, folds=3), [chosen] * 3)
    y = x + np.random.default_rng(0).normal(size=x.shape)
    # Of the pairs of folds three are of one fold and three of two.
    for min_f, used in ((12.0, 2), (12.001, 1.5), (18.001, 1)):
        assert mr.cross_fitted_ivw(x, y, folds=3, min_f=min_f, weights="equal").n_used == used


def test_two_draws_outside_of_a_fold_are_enough_to_choose_by() -> None:
    x, _ = draws_of(1, 3, 6, noise=0.01)
    assert mr.held_out_selection(x, min_f=1, folds=3).all()
    # Folds of one and of two draws: outside of the second is one draw.
    np.testing.assert_array_equal(mr.held_out_selection(x, min_f=0, folds=2).any(axis=1), [True, False])
