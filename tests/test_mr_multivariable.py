"""Multivariable IVW, MR-Egger and the conditional F statistic against R, their invariants and edges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from tests.mr_helpers import Array, assert_same_fit, factors, seeds
from tests.reference_numbers import DataSet, Record, assert_close, load, names, sources

SEVERAL = {"Estimate": "estimate", "CILower": "ci_low", "CIUpper": "ci_high", "StdError": "se", "Pvalue": "pvalue"}
INTERCEPT = {
    "Intercept": "intercept",
    "StdError.Int": "intercept_se",
    "CILower.Int": "intercept_ci_low",
    "CIUpper.Int": "intercept_ci_high",
    "Pvalue.Int": "intercept_pvalue",
}
REST = {"SNPs": "n_instruments", "RSE": "rse", "Q": "q", "Q.pval": "q_pvalue"}


def several(dataset: DataSet) -> list[Array]:
    data = dataset.data
    return [data["bx"].T, data["bxse"].T, data["by"], data["byse"]]


def arguments(record: Record, dataset: DataSet) -> dict[str, Any]:
    options = {key: value for key, value in record.options.items() if key in ("distribution", "model", "robust")}
    if "orientate" in record.options:
        options["orientation"] = int(record.options["orientate"]) - 1
    if record.correlated:
        options["correlation"] = dataset.data["correlation"]
    return options


@pytest.mark.parametrize(("source", "name"), sources("mv_"))
def test_every_mr_mvivw_and_mr_mvegger_call(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    for record in dataset.records:
        if record.function not in ("mr_mvivw", "mr_mvegger"):
            continue
        options = arguments(record, dataset)
        egger = record.function == "mr_mvegger"
        result: Any = (mr.multivariable_egger if egger else mr.multivariable_ivw)(*several(dataset), **options)
        robust = options.get("robust", False)
        rtol = 1e-3 if robust else 1e-9
        compared += 1
        for theirs, value in record.value.items():
            label = f"{record.key} {theirs}"
            field = (SEVERAL | INTERCEPT | REST).get(theirs.removesuffix(".Est"))
            if field is None:
                assert theirs in ("Model", "Robust", "Orientate", "Alpha", "CondFstat"), label
                continue
            actual = getattr(result, field)
            if field.endswith("pvalue"):
                _compare_pvalues(record, result, field, actual, value, label)
                continue
            se = result.intercept_se if theirs in INTERCEPT else result.se
            # The scale is 1e-4 lower than lmrob's.
            atol = (3e-3 if robust else 1e-9) * se if np.shape(actual) == np.shape(se) else 0.0
            np.testing.assert_allclose(
                actual - np.array(value),
                0 * np.array(value),
                atol=np.max(atol + rtol * abs(np.array(value))),
                err_msg=label,
            )
    assert compared >= 7


def _compare_pvalues(record: Record, result: Any, field: str, actual: Array, value: Any, label: str) -> None:
    wanted = np.array(value)
    if (
        record.function == "mr_mvegger"
        and record.options.get("distribution") == "t-dist"
        and not record.correlated
        and field != "q_pvalue"
    ):
        # R: one degree of freedom more than in the interval.
        slope = field == "pvalue"
        z = result.estimate / result.se if slope else result.intercept / result.intercept_se
        df = result.n_instruments - result.estimate.shape[-1]
        assert np.all(actual > wanted)
        actual = 2 * stats.t.sf(abs(z), df)
    rtol = 1e-2 if record.options.get("robust") else 1e-8
    assert_close(np.log(actual), np.log(wanted), rtol=rtol, atol=rtol, label=label)


@pytest.mark.parametrize(("source", "name"), sources("mv_"))
def test_mvmr_and_two_sample_mr(source: str, name: str) -> None:
    dataset, compared = load(source, name), 0
    result = mr.multivariable_ivw(*several(dataset), model="fixed")
    for record in dataset.records:
        if record.function == "ivw_mvmr":
            assert_close(result.estimate, record.value["Estimate"], rtol=1e-9)
            assert_close(result.se * result.rse, record.value["SE"], rtol=1e-9)
        elif record.key == "mv_multiple(intercept=FALSE,instrument_specific=FALSE)":
            assert_close(result.estimate, record.value["b"], rtol=1e-9)
            assert_close(result.se * result.rse, record.value["se"], rtol=1e-9)
        elif record.function == "strength_mvmr":
            correlated = "phenocov" in record.key
            matrix = 0.3 + 0.7 * np.eye(len(result.estimate)) if correlated else None
            bx, bxse, by, byse = several(dataset)
            assert_close(mr.conditional_f(bx, bxse, exposure_correlation=matrix), record.value, rtol=1e-9)
            whole = mr.multivariable_ivw(bx, bxse, by, byse, exposure_correlation=matrix)
            assert_close(whole.conditional_f, record.value, rtol=1e-9)
        else:
            continue
        compared += 1
    assert compared >= 3


def test_the_committed_sets_are_part_of_the_full_ones() -> None:
    assert len(names("committed", "mv_")) == 3


def draw(seed: int, n: int, k: int = 2, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, k, n))
    bxse = rng.uniform(0.01, 0.05, bx.shape)
    byse = rng.uniform(0.01, 0.05, (*batch, n))
    by = (np.array([0.8, -0.3, 0.2])[:k, None] * bx).sum(axis=-2) + rng.normal(0, 2, byse.shape) * byse
    return bx, bxse, by, byse


ESTIMATORS = [mr.multivariable_ivw, mr.multivariable_egger]
both = pytest.mark.parametrize("estimator", ESTIMATORS)


@both
@settings(max_examples=15, deadline=None)
@given(seed=seeds, first=factors, second=factors, outcome=factors)
def test_scale(estimator: Any, seed: int, first: float, second: float, outcome: float) -> None:
    bx, bxse, by, byse = draw(seed, 9)
    unit = np.array([first, second])
    plain, scaled = (
        estimator(bx, bxse, by, byse),
        estimator(bx * unit[:, None], bxse * unit[:, None], by * outcome, byse * outcome),
    )
    for name in ("estimate", "se", "ci_low", "ci_high"):
        assert_close(getattr(scaled, name) * unit / outcome, getattr(plain, name), rtol=1e-7, atol=1e-8)
    for name in ("pvalue", "rse", "q", "q_pvalue"):
        assert_close(getattr(scaled, name), getattr(plain, name), rtol=1e-6, atol=1e-12)
    if estimator is mr.multivariable_ivw:
        assert_close(scaled.conditional_f, plain.conditional_f, rtol=1e-7)


@both
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_sign_order_padding_and_exposures(estimator: Any, seed: int) -> None:
    n = 10
    bx, bxse, by, byse = draw(seed, n, 3)
    rng = np.random.default_rng(seed)
    plain = estimator(bx, bxse, by, byse)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    assert_same_fit(estimator(bx * sign, bxse, by * sign, byse), plain)
    assert_same_fit(estimator(bx[:, order], bxse[:, order], by[order], byse[order]), plain)
    padded = [np.insert(column, [0, n, n], 9.0, axis=-1) for column in (bx, bxse, by, byse)]
    padded[0][1, 0] = padded[2][n + 1] = padded[3][n + 2] = np.nan
    assert_same_fit(estimator(*padded), plain)
    turned = estimator(bx[[0, 2, 1]], bxse[[0, 2, 1]], by, byse)
    assert_close(turned.estimate[[0, 2, 1]], plain.estimate, rtol=1e-8)


@both
def test_batch_is_a_loop_and_leading_axes_broadcast(estimator: Any) -> None:
    bx, bxse, _, _ = draw(1, 8, 2, (2, 1))
    _, _, by, byse = draw(2, 8, 2, (3,))
    bx[0, 0, 1, 3] = np.nan
    by[1, 4] = np.nan
    byse[2, 0] = 0.0
    bx[1, 0, 0, 5] = 0.0
    together = estimator(bx, bxse, by, byse)
    assert together.estimate.shape == (2, 3, 2)
    for i, j in np.ndindex(2, 3):
        alone = estimator(bx[i, 0], bxse[i, 0], by[j], byse[j])
        for name in alone.arrays:
            assert_close(getattr(together, name)[i, j], getattr(alone, name), rtol=1e-9, atol=1e-12, label=name)


def test_one_exposure_is_the_univariable_estimate() -> None:
    bx, bxse, by, byse = draw(3, 9, 1)
    for options in ({}, {"robust": True}, {"correlation": 0.3 + 0.7 * np.eye(9)}, {"distribution": "t-dist"}):
        one, several = mr.ivw(bx[0], bxse[0], by, byse, **options), mr.multivariable_ivw(bx, bxse, by, byse, **options)
        for name in ("estimate", "se", "ci_low", "pvalue", "rse", "q"):
            assert_close(np.ravel(getattr(several, name)), np.ravel(getattr(one, name)), rtol=1e-9, label=name)
    assert_close(mr.conditional_f(bx, bxse), [mr.ivw(bx[0], bxse[0], by, byse).f_statistic], rtol=1e-12)
    bx[0, 2] = 0.0
    for options in ({}, {"correlation": 0.3 + 0.7 * np.eye(9)}):
        one, several = (
            mr.egger(bx[0], bxse[0], by, byse, **options),
            mr.multivariable_egger(bx, bxse, by, byse, **options),
        )
        for name in ("estimate", "se", "intercept", "intercept_se", "rse"):
            assert_close(np.ravel(getattr(several, name)), np.ravel(getattr(one, name)), rtol=1e-9, label=name)


@both
def test_identity_correlation_is_no_correlation(estimator: Any) -> None:
    columns = draw(4, 9)
    assert_same_fit(estimator(*columns, correlation=np.eye(9)), estimator(*columns), skip=("conditional_f",))
    assert estimator(*columns, correlation=np.ones((9, 9))).status == Status.INVALID_CORRELATION


def test_a_perfect_plane() -> None:
    bx, bxse, _, byse = draw(5, 8)
    by = 0.5 * bx[0] - 0.25 * bx[1]
    result = mr.multivariable_ivw(bx, bxse, by, byse)
    assert_close(result.estimate, [0.5, -0.25], rtol=1e-12)
    assert result.q < 1e-20
    assert np.all(result.se > 0)
    egger = mr.multivariable_egger(bx, bxse, by + 0.1 * np.sign(bx[1]), byse, orientation=1)
    assert_close([*egger.estimate, egger.intercept], [0.5, -0.25, 0.1], rtol=1e-10)


@both
def test_reasons(estimator: Any) -> None:
    bx, bxse, by, byse = draw(6, 6, 2, (9,))
    bx[0, 1, 1:] = np.nan
    bx[1, 1] = 2 * bx[1, 0]
    bx[2, 1] = 0.0
    byse[3, 0] = 0.0
    byse[4, 0] = -1.0
    bxse[5, 1, 0] = -1.0
    bx[6, 1, 0] = np.inf
    by[7, 0] = -np.inf
    result = estimator(bx, bxse, by, byse)
    assert list(result.status) == [
        Status.TOO_FEW_INSTRUMENTS,
        *[Status.NO_EXPOSURE_VARIATION] * 2,
        *[Status.INVALID_STANDARD_ERROR] * 3,
        *[Status.INVALID_EFFECT] * 2,
        Status.OK,
    ]
    for name in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
        assert np.array_equal(np.isnan(getattr(result, name)).any(axis=-1), result.status != Status.OK), name
    for name in ("rse", "q", "q_pvalue"):
        assert np.array_equal(np.isnan(getattr(result, name)), result.status != Status.OK), name


@both
def test_as_many_instruments_as_coefficients(estimator: Any) -> None:
    needed = 2 if estimator is mr.multivariable_ivw else 3
    bx, bxse, by, byse = draw(7, needed)
    result = estimator(bx, bxse, by, byse)
    assert (result.status, result.rse) == (Status.OK, 1)
    assert np.isnan(result.q)
    fewer = estimator(bx[:, 1:], bxse[:, 1:], by[1:], byse[1:])
    assert fewer.status == Status.TOO_FEW_INSTRUMENTS
    for batch in ((), (0,), (2, 3)):
        nothing = estimator(
            np.zeros((*batch, 2, 0)), np.zeros((*batch, 2, 0)), np.zeros((*batch, 0)), np.zeros((*batch, 0))
        )
        assert nothing.estimate.shape == (*batch, 2)
        assert np.all(nothing.status == Status.TOO_FEW_INSTRUMENTS)


def test_conditional_f_is_low_where_exposures_go_together() -> None:
    rng = np.random.default_rng(8)
    first = rng.normal(0, 1, 200)
    bx = np.stack([first, first + rng.normal(0, 0.01, 200)])
    se = np.full(bx.shape, 0.1)
    assert np.all(mr.conditional_f(bx, se) < 1)
    bx[1] = rng.normal(0, 1, 200)
    assert np.all(mr.conditional_f(bx, se) > 50)
    assert np.all(np.isinf(mr.conditional_f(bx, 0 * se)))
    # The first exposure is explained by nothing but the other two, which are one.
    collinear = np.stack([first, bx[1], 2 * bx[1]])
    assert list(np.isnan(mr.conditional_f(collinear, np.full(collinear.shape, 0.1)))) == [True, False, False]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({0: np.ones(4)}, {}, r"bx must have shape \(..., K, J\)"),
        ({1: np.ones((3, 4))}, {}, "bxse must have the exposures"),
        ({2: np.ones(3)}, {}, "by and byse must have shape"),
        ({0: np.ones((3, 2, 4)), 2: np.ones((2, 4))}, {}, "do not broadcast"),
        ({}, {"distribution": "t"}, "'normal', 't-dist'"),
        ({}, {"correlation": np.eye(3)}, "correlation must have shape"),
    ],
)
@both
def test_wrong_arguments(estimator: Any, change: dict[int, Array], options: dict[str, Any], message: str) -> None:
    columns = [change.get(index, column) for index, column in enumerate(draw(0, 4))]
    with pytest.raises(ValueError, match=message):
        estimator(*columns, **options)


def test_wrong_options_of_one() -> None:
    columns = draw(0, 5)
    for orientation in (2, -1, "x"):
        with pytest.raises(ValueError, match="index of one of the 2 exposures"):
            mr.multivariable_egger(*columns, orientation=orientation)
    with pytest.warns(UserWarning, match="robust=True ignored"):
        mr.multivariable_ivw(*columns, robust=True, correlation=np.eye(5))
    with pytest.raises(ValueError, match="exposure_correlation must have shape"):
        mr.multivariable_ivw(*columns, exposure_correlation=np.eye(3))
    with pytest.raises(ValueError, match="the same K and J"):
        mr.conditional_f(columns[0], columns[1][:1])


def test_conditional_f_needs_as_many_instruments_as_exposures() -> None:
    rng = np.random.default_rng(1)
    bx, se = rng.normal(size=(3, 6)), np.full((3, 6), 0.1)
    for n in range(7):
        cut = np.where(np.arange(6) < n, bx, np.nan)
        found = mr.conditional_f(cut, se)
        assert np.isfinite(found).all() if n >= 3 else np.isnan(found).all(), n
        assert np.array_equal(mr.conditional_f(bx, se, where=np.arange(6) < n), found, equal_nan=True)
        assert n >= 3 or np.isnan(mr.conditional_f(bx[:, :n], se[:, :n])).all()


def test_how_much_alike_exposures_may_be() -> None:
    rng = np.random.default_rng(2)
    first, second, third = rng.normal(size=(3, 12))
    se = np.full((3, 12), 0.1)
    for difference, answered in ((1e-5, True), (1e-9, False)):
        # The other two exposures of the first, in which little or nothing tells them apart.
        bx = np.stack([first, second, second + difference * third])
        assert np.isfinite(mr.conditional_f(bx, se)[0]) == answered
        result = mr.multivariable_ivw(bx[1:], se[1:], second, se[0])
        assert result.status == (Status.OK if answered else Status.NO_EXPOSURE_VARIATION)
    close = np.stack([first, second, second + 1e-5 * third])
    others, residual, _, _ = np.linalg.lstsq(np.stack([second, third], axis=-1), first, rcond=None)
    # In terms of the second and their difference the coefficients are those of second and third.
    contrast = np.array([others[0] - others[1] / 1e-5, others[1] / 1e-5])
    assert_close(mr.conditional_f(close, se)[0], residual[0] / (0.1**2 * (1 + contrast @ contrast)) / 12, rtol=1e-3)
