"""RAPS against exact solutions and R's mr.raps, its global search, its errors with correlation, and its edges."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.core.losses import LOSSES
from kipoi_deepmr.mr.core.score import ScoreRows
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
from tests.reference_numbers import Record, assert_close, inputs, load, sources

FIELDS = {"beta.hat": "estimate", "beta.se": "se", "tau2.hat": "tau2", "tau2.se": "tau2_se", "chi.sq.test": "q"}
# Where R and the exact solutions stop with an error.
NONE = {"mr_edge_nan": Status.OK, "mr_edge_zero_bx": Status.OK, "mr_edge_zero_bxse": Status.INVALID_STANDARD_ERROR}
# The solution of the reference is a local minimum there, as the test below shows.
NOT_GLOBAL = {("mr_edge_se_range", "tukey")}
VARIANTS: list[dict[str, Any]] = [
    *({"loss": loss, "over_dispersion": over} for loss in LOSSES for over in (False, True)),
    {"loss": "huber", "psi": 0.5},
    {"loss": "tukey", "over_dispersion": True, "psi": -0.4},
]
ESTIMATORS = [partial(mr.raps, **options) for options in VARIANTS]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=[str(options) for options in VARIANTS])


def options_of(record: Record) -> dict[str, Any]:
    given = record.options
    assert set(given) <= {"over.dispersion", "loss", "loss.function", "shrinkage"}
    return {"over_dispersion": given["over.dispersion"], "loss": given.get("loss") or given["loss.function"]}


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_exact_solutions(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if (record.package, record.function) != ("own", "raps"):
            continue
        options = options_of(record)
        result = mr.raps(*inputs(dataset), **options)
        compared += 1
        assert result.converged
        if record.value is None:
            assert result.status == NONE[name]
            continue
        if (name, options["loss"]) in NOT_GLOBAL:
            continue
        for theirs, ours in FIELDS.items():
            if theirs in record.value and not (theirs == "chi.sq.test" and result.n_used == 1):
                actual, wanted = getattr(result, ours), record.value[theirs]
                assert_close(actual, wanted, rtol=1e-8, atol=1e-12, label=f"{record.key} {theirs}")
    assert compared == 6


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_every_call_of_mr_raps(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if not record.package.startswith("mr.raps") or record.not_to_match:
            continue
        compared += 1
        options = options_of(record)
        over, robust = options["over_dispersion"], options["loss"] != "l2"
        shrinkage = record.function == "mr.raps.shrinkage"
        if record.value is None or (shrinkage and over) or (name, options["loss"]) in NOT_GLOBAL:
            # shrinkage weighs the equation for tau2 otherwise: another estimator.
            continue
        result = mr.raps(*inputs(dataset), **options)
        if record.package == "mr.raps_CRAN_0.2" and result.n_used < result.n_instruments:
            # That version does not leave out variants with large bxse.
            continue
        if over and robust:
            # R's root finder leaves 1e-2 standard errors and several percent of tau2.
            assert_close(result.estimate, record.value["beta.hat"], rtol=0, atol=0.05 * result.se, label=record.key)
            continue
        # R's tau2 of l2 is never quite 0.
        atol = (1e-2 if over else 1e-4) * result.se
        assert_close(result.estimate, record.value["beta.hat"], rtol=0, atol=atol, label=record.key)
        if not shrinkage:
            # Their standard errors turn on a tau2 of rounding size, and on an information that almost vanishes.
            rtol = 0.1 if name in {"mr_edge_weak", "mr_edge_se_range"} else 1e-4
            assert_close(result.se, record.value["beta.se"], rtol=rtol, label=record.key)
    assert compared or name == "mr_edge_nan"


def total(loss: str, columns: tuple[Array, ...], slope: Array, psi: float = 0.0) -> Array:
    bx, bxse, by, byse = (column[:, None] for column in columns)
    spread = np.sqrt(byse**2 + slope**2 * bxse**2 - 2 * psi * slope * bxse * byse)
    return np.asarray(LOSSES[loss].rho((by - slope * bx) / spread).sum(axis=0))


def test_the_reference_missed_a_lower_minimum() -> None:
    dataset = load("committed", "mr_edge_se_range")
    theirs = dataset.record("own", "raps(over.dispersion=FALSE,loss='tukey')").value["beta.hat"]
    ours = mr.raps(*inputs(dataset), loss="tukey").estimate
    lowest, local = total("tukey", tuple(inputs(dataset)), np.array([ours, theirs]))
    assert lowest < local - 3


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(2, 25), strength=st.sampled_from([1.0, 5.0, 50.0]), psi=st.sampled_from([0.0, 0.7]))
def test_no_slope_of_a_fine_grid_is_lower(loss: str, seed: int, n: int, strength: float, psi: float) -> None:
    rng = np.random.default_rng(seed)
    bxse, byse = rng.uniform(0.5, 2, (2, n))
    truth = rng.normal(0, strength, n)
    bx = truth + bxse * rng.normal(size=n)
    by = 0.8 * truth + byse * rng.normal(size=n) + (rng.random(n) < 0.3) * rng.normal(0, 3 * strength, n)
    result = mr.raps(bx, bxse, by, byse, loss=loss, psi=psi)
    grid = np.tan(np.linspace(-1.5707, 1.5707, 40001))
    lowest = total(loss, (bx, bxse, by, byse), np.append(grid, by / bx), psi).min()
    ours = total(loss, (bx, bxse, by, byse), np.array([result.estimate]), psi)[0]
    assert ours <= lowest * (1 + 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives(loss: str) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3, 7))
    sx, sy = rng.uniform(0.5, 2, (2, 3, 7))
    rows = ScoreRows(x, y, sx**2, sy**2, 0.4 * sx * sy, np.ones(x.shape, bool))
    slope, tau2, h = np.array([0.3, -1.0, 2.0]), np.array([0.0, 0.5, 2.0]), 1e-5
    first, second = rows.score(LOSSES[loss], slope, tau2)
    up, down = (rows.loss(LOSSES[loss], slope + step, tau2) for step in (h, -h))
    assert_close(first, (up - down) / (2 * h), rtol=1e-6, atol=1e-6)
    up, down = (rows.score(LOSSES[loss], slope + step, tau2)[0] for step in (h, -h))
    assert_close(second, (up - down) / (2 * h), rtol=1e-5, atol=1e-5)


def test_both_equations_hold() -> None:
    bx, bxse, by, byse = draw(4, 40)
    by = by + np.random.default_rng(0).normal(0, 0.1, 40)
    psi = np.full(40, 0.3)
    for loss in LOSSES:
        result = mr.raps(bx, bxse, by, byse, over_dispersion=True, loss=loss, psi=psi)
        assert result.tau2 > 0
        rows = ScoreRows(*(c[None] for c in (bx, by, bxse**2, byse**2, psi * bxse * byse)), np.ones((1, 40), bool))
        at = (LOSSES[loss], np.array([result.estimate]), np.array([result.tau2]))
        first, second = rows.score(*at)
        assert abs(first) < 1e-8 * second
        assert abs(rows.excess(*at)) < 1e-6


def test_errors_that_correlate_are_counted() -> None:
    rng = np.random.default_rng(2)
    fits, n, psi, slope = 200, 100, 0.8, 0.5
    truth = rng.normal(0, 0.05, n)
    bxse, byse = rng.uniform(0.02, 0.05, (2, n))
    shared = rng.normal(size=(fits, n))
    bx = truth + bxse * shared
    by = slope * truth + rng.normal(0, 0.03, (fits, n))
    by = by + byse * (psi * shared + np.sqrt(1 - psi**2) * rng.normal(size=(fits, n)))
    for loss in ("l2", "tukey"):
        right = mr.raps(bx, bxse, by, byse, over_dispersion=True, loss=loss, psi=psi)
        z = (right.estimate - slope) / right.se
        assert abs(z.mean()) < 0.25
        assert abs(z.std() - 1) < 0.2
        assert_close(np.median(right.tau2), 0.03**2, rtol=0.2)
        wrong = mr.raps(bx, bxse, by, byse, over_dispersion=True, loss=loss)
        assert np.mean((wrong.estimate - slope) / wrong.se) > 0.8


def test_psi_per_variant_and_per_fit() -> None:
    columns = draw(9, 9, (2,))
    together = mr.raps(*columns, psi=np.array([[0.1], [0.6]]))
    for row, psi in enumerate((0.1, 0.6)):
        alone = mr.raps(*(column[row] for column in columns), psi=np.full(9, psi))
        assert_close(together.estimate[row], alone.estimate, rtol=1e-12)


def test_squared_error_without_over_dispersion_is_maximum_likelihood() -> None:
    columns = draw(10, 12, (6,))
    assert_close(mr.raps(*columns, psi=0.4).estimate, mr.maximum_likelihood(*columns, psi=0.4).estimate, rtol=1e-9)


@each
@settings(max_examples=10, deadline=None)
@given(seed=seeds, n=sizes, exposure=factors, outcome=factors)
def test_scale(estimator: Estimator, seed: int, n: int, exposure: float, outcome: float) -> None:
    assert_scales(estimator, draw(seed, n), exposure, outcome)


@each
@settings(max_examples=10, deadline=None)
@given(seed=seeds, n=sizes)
def test_sign_order_and_padding(estimator: Estimator, seed: int, n: int) -> None:
    assert_sign_order_and_padding(estimator, draw(seed, n), seed)
    if "psi" not in estimator.keywords:  # type: ignore[attr-defined]
        assert_mirrors(estimator, draw(seed, n))


@each
def test_batch_is_a_loop(estimator: Estimator) -> None:
    assert_batch_is_a_loop(estimator)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = draw(5, 7, (9,))
    for options in VARIANTS:
        whole = mr.raps(*columns, **options)
        with monkeypatch.context() as patched:
            patched.setattr("kipoi_deepmr.mr.core.blocks._NORMALS", 60)
            assert_same_fit(mr.raps(*columns, **options), whole, rtol=1e-9)


def outlying(seed: int) -> tuple[Array, Array, Array, Array]:
    """Return a small mutagenesis with a few strong instruments, in which three of ten have large effects of their own."""
    rng = np.random.default_rng([5, seed])
    n = int(rng.integers(6, 40))
    truth = np.where(rng.random(n) < 0.3, rng.normal(0, 0.3, n), rng.normal(0, 0.02, n))
    bxse = 0.1 * np.abs(truth) + rng.uniform(0.005, 0.02, n)
    byse = 0.096 * np.abs(truth) + rng.uniform(0.005, 0.02, n)
    own = (rng.random(n) < 0.3) * rng.normal(0.05, 0.1, n)
    return truth + bxse * rng.normal(size=n), bxse, 0.8 * truth + own + byse * rng.normal(size=n), byse


@pytest.mark.parametrize("loss", LOSSES)
def test_over_dispersion_is_solved_or_said_to_be_unsolved(loss: str) -> None:
    answered = 0
    for seed in range(40):
        bx, bxse, by, byse = outlying(seed)
        result = mr.raps(bx, bxse, by, byse, over_dispersion=True, loss=loss)
        answered += int(result.converged)
        if not result.converged:
            assert result.status == Status.NOT_CONVERGED
            for name in ("estimate", "se", "ci_low", "ci_high", "pvalue", "tau2", "tau2_se", "q", "q_pvalue"):
                assert np.isnan(getattr(result, name)), name
            continue
        assert result.status == Status.OK
        kept = bxse <= 10 * np.median(bxse)
        columns = (column[kept][None] for column in (bx, by, bxse**2, byse**2, 0 * bx))
        rows = ScoreRows(*columns, np.ones((1, kept.sum()), bool))
        at = (LOSSES[loss], np.array([result.estimate]), np.array([result.tau2]))
        first, second = rows.score(*at)
        assert second > 0 and abs(first) * result.se < 1e-6
        excess = rows.excess(*at)
        assert excess < 1e-6 if result.tau2 == 0 else abs(excess) < 1e-6
    assert answered >= 38


def test_a_redescending_loss_does_not_run_into_a_far_tail() -> None:
    near = [mr.raps(*outlying(seed), over_dispersion=True, loss="tukey") for seed in range(40)]
    huber = [mr.raps(*outlying(seed), over_dispersion=True, loss="huber") for seed in range(40)]
    solved = [(one, other) for one, other in zip(near, huber, strict=True) if one.converged and other.converged]
    assert all(abs(one.estimate - other.estimate) < 3 * other.se + 0.5 for one, other in solved)


def test_variants_with_large_exposure_errors_leave_the_over_dispersed_fit() -> None:
    bx, bxse, by, byse = draw(3, 10)
    bxse[4] = 20 * np.median(bxse)
    result = mr.raps(bx, bxse, by, byse, over_dispersion=True)
    left = np.delete(np.arange(10), 4)
    assert (result.n_instruments, result.n_used) == (10, 9)
    alone = mr.raps(bx[left], bxse[left], by[left], byse[left], over_dispersion=True)
    assert_same_fit(result, alone, skip=("n_instruments",))


def test_one_instrument_is_the_ratio() -> None:
    for estimator in ESTIMATORS:
        result = estimator([0.5], [0.1], [0.3], [0.1])
        assert_close(result.estimate, 0.6, rtol=1e-12)
        assert np.isnan(result.q)


def test_a_perfect_line() -> None:
    bx = np.array([0.5, -0.25, 1.0, 2.0])
    for estimator in ESTIMATORS:
        result = estimator(bx, np.full(4, 0.01), 0.75 * bx, np.full(4, 0.01))
        assert_close(result.estimate, 0.75, rtol=1e-12)


def test_reasons() -> None:
    bx, bxse, by, byse = draw(5, 6, (9,))
    bx[0] = np.nan
    bx[1] = 0.0
    byse[2, 0] = bxse[2, 0] = 0.0
    byse[3, 0] = -1.0
    bxse[4, 0] = -1.0
    by[5, 0] = np.inf
    bxse[6, 0] = np.inf
    bxse[7] = 0.0
    expected = [
        Status.TOO_FEW_INSTRUMENTS,
        Status.NO_EXPOSURE_VARIATION,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_STANDARD_ERROR,
        Status.INVALID_EFFECT,
        Status.INVALID_STANDARD_ERROR,
        Status.OK,
        Status.OK,
    ]
    for estimator in ESTIMATORS:
        over = estimator.keywords.get("over_dispersion", False)
        result = estimator(bx, bxse, by, byse)
        if over:
            expected[7] = Status.INVALID_STANDARD_ERROR
            # A bxse above 10 times the median is not used.
            assert result.status[6] == Status.OK
        assert list(np.delete(result.status, 6)) == list(np.delete(expected, 6))
        assert np.array_equal(np.isnan(result.estimate), result.status != Status.OK)
        expected[7] = Status.OK


@each
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_nothing_to_see(estimator: Estimator, batch: tuple[int, ...]) -> None:
    result = estimator(*(np.ones((*batch, 0)) for _ in range(4)))
    assert result.estimate.shape == batch
    assert np.all(result.status == Status.TOO_FEW_INSTRUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l1"}, "'l2', 'huber', 'tukey'"),
        ({"over_dispersion": "yes"}, "True, False"),
        ({"psi": 2}, r"\[-1, 1\]"),
        ({"alpha": 0}, "between 0 and 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mr.raps(*draw(0, 4), **options)
