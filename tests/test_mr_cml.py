"""Constrained maximum likelihood against R's mr_cML and brute force, its invariants and edges."""

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.core.blocks import normal_blocks
from tests.mr_helpers import (
    Array,
    Estimator,
    assert_batch_is_a_loop,
    assert_mirrors,
    assert_same_fit,
    assert_scales,
    draw,
    factors,
    seeds,
)
from tests.reference_numbers import assert_close, inputs, load, names, sources

# R stops: a NaN, a standard error of 0; here only an outcome error of 0 is one.
R_STOPS = {
    "mr_edge_nan": Status.OK,
    "mr_edge_zero_bxse": Status.OK,
    "mr_edge_zero_byse": Status.INVALID_STANDARD_ERROR,
}
ESTIMATORS: list[Estimator] = [
    mr.cml,
    partial(mr.cml, sample_size=1000, model_averaging=False, psi=0.4),
    partial(mr.cml, sample_size=1000, search="global"),
    partial(mr.cml, sample_size=50, n_perturb=5),
]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=["averaged", "best", "global", "perturbed"])
# R's descent stops by the size of a change in the units of the data: so do slopes of K on which no weight falls.
STOPS_ELSEWHERE = {"mr_ldlc_chd": 2e-4}
# The mean of R's 200 draws has few different slopes there, and one of them far away.
UNEVEN_DRAWS = {("mr_edge_linear_icpt", False), ("mr_edge_se_range", False)}


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_number_of_invalid_variants(source: str, name: str) -> None:
    dataset = load(source, name)
    for record in dataset.records:
        if record.function != "cML_estimate_random":
            continue
        result = mr.cml(*inputs(dataset))
        if record.value is None:
            assert result.status == R_STOPS[name]
            continue
        number = np.array(record.value["K"], dtype=int)
        theirs, loss, size = (np.array(record.value[key], dtype=float) for key in ("theta", "neg_loglik", "se"))
        if name in {"mr_edge_linear", "mr_edge_se_range"}:
            # All residuals are rounding, or all slopes: any variants may be the worst.
            number, theirs, loss, size = number[:1], theirs[:1], loss[:1], size[:1]
        ours = result.estimates[number]
        assert_close(ours, theirs, rtol=STOPS_ELSEWHERE.get(name, 1e-5), label=record.key)
        # R has the likelihood at the exposure effects before the last change of the slope.
        assert_close(result.negative_log_likelihood[number], loss, rtol=1e-6, atol=0.03, label=record.key)
        assert_close(result.standard_errors[number], size, rtol=5e-3, label=record.key)


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_mr_cml_call(source: str, name: str) -> None:
    dataset = load(source, name)
    for record in dataset.records:
        if record.function != "mr_cML" or record.options["DP"]:
            continue
        assert set(record.options) <= {"MA", "DP", "n", "K_vec"}
        assert record.options.get("K_vec", "0:60") == "0:60"
        options = {"sample_size": record.options["n"], "model_averaging": record.options["MA"]}
        result = mr.cml(*inputs(dataset), **options)
        if record.value is None:
            assert result.status == R_STOPS[name]
            continue
        value = record.value
        for theirs, ours in (("Estimate", "estimate"), ("CILower", "ci_low"), ("CIUpper", "ci_high")):
            atol = 4e-5 * value["StdError"]
            assert_close(getattr(result, ours), value[theirs], rtol=1e-5, atol=atol, label=f"{record.key} {theirs}")
        assert_close(result.se, value["StdError"], rtol=2e-5, label=record.key)
        if not options["model_averaging"]:
            invalid = np.zeros(dataset.data["bx"].size, dtype=bool)
            invalid[np.array(value["BIC_invalid"], dtype=int).ravel() - 1] = True
            assert np.array_equal(result.invalid, invalid), record.key
            assert result.n_invalid == invalid.sum()


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_data_perturbation(source: str, name: str) -> None:
    if source == "full" and name in names("committed", "mr_"):
        pytest.skip("compared among the committed sets")
    dataset = load(source, name)
    for record in dataset.records:
        if record.function != "mr_cML" or not record.options["DP"]:
            continue
        averaging, size = record.options["MA"], record.options["n"]
        result = mr.cml(*inputs(dataset), sample_size=size, model_averaging=averaging, n_perturb=100)
        if record.value is None:
            assert result.status == R_STOPS[name]
        elif (name, averaging) not in UNEVEN_DRAWS:
            # Means of other draws, 200 in R: their difference has an SD of 0.12 standard errors.
            assert abs(result.estimate - record.value["Estimate"]) < 0.5 * record.value["StdError"]
            assert_close(result.se, record.value["StdError"], rtol=0.3, label=record.key)


def test_perturbed_numbers_are_means_over_draws() -> None:
    bx, bxse, by, byse = draw(6, 9)
    result = mr.cml(bx, bxse, by, byse, sample_size=100, n_perturb=7, seed=3, psi=0.5)
    slopes, losses = [], []
    ((_, draws),) = normal_blocks(7, 2, 9, 3)
    for first, second in draws:
        outcome = 0.5 * first + np.sqrt(0.75) * second
        once = mr.cml(bx + bxse * first, bxse, by + byse * outcome, byse, sample_size=100, psi=0.5)
        slopes.append(once.estimates)
        losses.append(once.negative_log_likelihood)
    assert_close(result.estimates, np.mean(slopes, axis=0), rtol=1e-7)
    assert_close(result.standard_errors, np.std(slopes, axis=0, ddof=1), rtol=1e-6)
    assert_close(result.negative_log_likelihood, np.mean(losses, axis=0), rtol=1e-7)


def mixed(seed: int, n: int, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx, bxse, by, byse = draw(seed, n, batch)
    return bx, bxse, by + (rng.random(by.shape) < 0.3) * rng.normal(0, 0.5, by.shape), byse


@settings(max_examples=12, deadline=None)
@given(seed=seeds, n=st.integers(3, 7), psi=st.sampled_from([0.0, 0.6]))
def test_no_subset_and_no_slope_is_better(seed: int, n: int, psi: float) -> None:
    bx, bxse, by, byse = mixed(seed, n)
    result = mr.cml(bx, bxse, by, byse, search="global", psi=psi)

    def squares(slope: Any) -> Array:
        b = np.asarray(slope)[..., None]
        variance = byse**2 + b**2 * bxse**2 - 2 * psi * b * bxse * byse
        return np.asarray((by - b * bx) ** 2 / variance / 2)

    grid = np.tan(np.linspace(-1.5707, 1.5707, 4001))
    values = squares(np.sort(np.append(grid, by / bx)))
    for number in range(n - 1):
        lowest = min(values[:, list(kept)].sum(axis=1).min() for kept in combinations(range(n), n - number))
        assert result.negative_log_likelihood[number] <= lowest + 1e-9
        at = np.sort(squares(result.estimates[number]))[: n - number].sum()
        assert_close(at, result.negative_log_likelihood[number], rtol=1e-9, atol=1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=seeds, n=st.integers(8, 30), psi=st.sampled_from([0.0, 0.6]))
def test_the_global_search_is_never_worse_than_the_descent(seed: int, n: int, psi: float) -> None:
    columns = mixed(seed, n)
    found, descent = (mr.cml(*columns, search=search, psi=psi) for search in ("global", "coordinate"))
    lowest, other = found.negative_log_likelihood, descent.negative_log_likelihood
    assert np.all(lowest <= other * (1 + 1e-12) + 1e-12)


def published(bx: Array, bxse: Array, by: Array, byse: Array, number: int) -> float:
    """Return the slope with so many invalid variants as the paper's algorithm 1 finds it from 0."""
    slope, last, rounds, effect = 0.0, -1.0, 0, np.zeros(len(bx))
    while abs(slope - last) > 1e-7 and rounds < 100:
        last, rounds = slope, rounds + 1
        direct = by - slope * effect
        direct[np.argsort(-((direct / byse) ** 2), kind="stable")[number:]] = 0.0
        effect = (bx / bxse**2 + slope * (by - direct) / byse**2) / (1 / bxse**2 + slope**2 / byse**2)
        slope = float(((by - direct) * effect / byse**2).sum() / (effect**2 / byse**2).sum())
    return slope


@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=st.integers(3, 20))
def test_the_default_is_the_published_algorithm(seed: int, n: int) -> None:
    bx, bxse, by, byse = mixed(seed, n)
    unit = np.sqrt(((bx / byse) ** 2).sum() / ((by / byse) ** 2).sum())
    columns = (bx, bxse, by * unit, byse * unit)
    wanted = [published(*columns, number) for number in range(n - 1)]
    assert_close(mr.cml(*columns).estimates, np.array(wanted), rtol=1e-6, atol=1e-6)


def test_the_default_sample_size_is_the_number_of_variants() -> None:
    columns = mixed(2, 14, (3,))
    columns[0][0, 5:] = np.nan
    together = mr.cml(*columns)
    for row, size in enumerate((5, 14, 14)):
        alone = mr.cml(*(column[row] for column in columns), sample_size=size)
        assert_close(together.estimate[row], alone.estimate, rtol=1e-9)
        assert_close(together.se[row], alone.se, rtol=1e-9)


def test_standard_errors_are_the_curvature() -> None:
    bx, bxse, by, byse = mixed(3, 12)
    result = mr.cml(bx, bxse, by, byse, sample_size=100, search="global", model_averaging=False, psi=0.3)
    held = ~result.invalid

    def loss(b: float) -> float:
        square = (by - b * bx) ** 2 / (byse**2 + b**2 * bxse**2 - 0.6 * b * bxse * byse)
        return float(square[held].sum() / 2)

    h = 1e-3 * float(result.se)
    b = float(result.estimate)
    curvature = (loss(b + h) - 2 * loss(b) + loss(b - h)) / h**2
    assert_close(result.se, 1 / np.sqrt(curvature), rtol=1e-4)
    near = optimize.minimize_scalar(loss, bounds=(b - 0.1, b + 0.1), method="bounded", options={"xatol": 1e-10})
    assert_close(result.estimate, near.x, rtol=0, atol=1e-5 * result.se)


def test_no_invalid_variant_is_maximum_likelihood() -> None:
    columns = mixed(4, 15, (3,))
    result = mr.cml(*columns, search="global", max_invalid=0, psi=0.2)
    assert result.estimates.shape == (3, 1)
    assert_close(mr.cml(*columns, max_invalid=0, psi=0.2).estimate, result.estimate, rtol=1e-5)
    assert_close(result.estimate, mr.maximum_likelihood(*columns, psi=0.2, model="fixed").estimate, rtol=1e-9)
    assert_close(result.se, mr.maximum_likelihood(*columns, psi=0.2, model="fixed").se, rtol=1e-7)


def test_large() -> None:
    rng = np.random.default_rng(0)
    n = 800
    truth = rng.normal(0, 0.02, n)
    bxse, byse = np.full(n, 0.005), np.full(n, 0.004)
    bx = truth + bxse * rng.normal(size=n)
    by = 0.8 * truth + byse * rng.normal(size=n)
    by[:10] += 0.1
    result = mr.cml(bx, bxse, by, byse, sample_size=1e7, max_invalid=15)
    assert result.n_invalid == 10
    assert list(np.flatnonzero(result.invalid)) == list(range(10))
    assert abs(result.estimate - 0.8) < 3 * result.se


@each
@settings(max_examples=8, deadline=None)
@given(seed=seeds, n=st.integers(3, 10), exposure=factors, outcome=factors)
def test_scale(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    assert_scales(estimator, mixed(seed, n), exposure, outcome)


def test_mirror() -> None:
    for seed in range(10):
        assert_mirrors(ESTIMATORS[0], mixed(seed, 9))


@pytest.mark.parametrize("estimator", ESTIMATORS[:2], ids=["averaged", "best"])
@settings(max_examples=8, deadline=None)
@given(seed=seeds, n=st.integers(3, 10))
def test_sign_order_and_padding(estimator: Estimator, seed: int, n: int) -> None:
    columns = mixed(seed, n)
    plain = estimator(*columns)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    bx, bxse, by, byse = columns
    assert_same_fit(estimator(bx * sign, bxse, by * sign, byse), plain, rtol=1e-6, atol=1e-9)
    shuffled = estimator(*(column[order] for column in columns))
    assert_same_fit(shuffled, plain, skip=("invalid",), rtol=1e-6, atol=1e-9)
    assert np.array_equal(shuffled.invalid, plain.invalid[order])
    padded = estimator(*(np.insert(column, [0, n], np.nan) for column in columns))
    wider = ("invalid", "estimates", "standard_errors", "negative_log_likelihood")
    assert_same_fit(padded, plain, skip=wider, rtol=1e-6, atol=1e-9)
    assert np.isnan(padded.estimates[n - 1 :]).all()
    assert_close(padded.estimates[: n - 1], plain.estimates, rtol=1e-6, atol=1e-9)


@each
def test_batch_is_a_loop(estimator: Estimator) -> None:
    assert_batch_is_a_loop(estimator, rtol=1e-7)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = mixed(3, 7, (5,))
    for estimator in ESTIMATORS:
        whole = estimator(*columns)
        with monkeypatch.context() as patched:
            patched.setattr("kipoi_deepmr.mr.core.blocks._NORMALS", 100)
            assert_same_fit(estimator(*columns), whole, rtol=1e-9)


def test_one_two_and_three_instruments() -> None:
    columns = draw(7, 3)
    for n in (1, 2, 3):
        result = mr.cml(*(column[:n] for column in columns), sample_size=100)
        assert result.status == Status.OK
        assert result.estimates.shape == (max(1, n - 1),)
    single = mr.cml(*(column[:1] for column in columns), sample_size=100)
    assert_close(single.estimate, columns[2][0] / columns[0][0], rtol=1e-6)


def test_a_perfect_line() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    for search in ("coordinate", "global"):
        result = mr.cml(bx, np.full(4, 0.01), 0.75 * bx, np.full(4, 0.01), search=search, model_averaging=False)
        assert_close(result.estimate, 0.75, rtol=1e-6 if search == "coordinate" else 1e-9)
        assert result.n_invalid == 0


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (7,))
    bx[0] = np.nan
    bx[1] = 0.0
    byse[2, 0] = 0.0
    bxse[3, 0] = -1.0
    by[4, 0] = np.inf
    bxse[5] = 0.0
    result = mr.cml(bx, bxse, by, byse, sample_size=100)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.OK,
        Status.OK,
    ]
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
        assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_nothing_to_see(estimator: Estimator, batch: tuple[int, ...]) -> None:
    result = estimator(*(np.ones((*batch, 0)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_size": 1}, "above 1"),
        ({"search": "local"}, "'coordinate', 'global'"),
        ({"sample_size": "many"}, "above 1"),
        ({"max_invalid": -1}, "max_invalid=-1"),
        ({"n_perturb": 1}, "n_perturb=1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"model_averaging": "yes"}, "True, False"),
        ({"psi": 2}, r"\[-1, 1\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.cml(*draw(0, 4), **({"sample_size": 100} | options))
