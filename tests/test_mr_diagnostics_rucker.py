"""Rucker's choice of a model against TwoSampleMR, and its parts against the estimators."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr import mr
from kipoi_deepmr.mr import Status
from kipoi_deepmr.mr.diagnostics import RUCKER_MODELS, rucker
from tests.reference_numbers import DataSet, assert_close, inputs, load, rtol_of, sources

Array = np.ndarray[Any, Any]
NAMES = ("IVW fixed effects", "IVW random effects", "Egger fixed effects", "Egger random effects")
# R's sums count the variant that is not there; a line without residuals leaves rounding to choose by.
NOT_COMPARED = ("mr_edge_nan", "mr_edge_linear", "mr_edge_linear_icpt")


def answers(dataset: DataSet, key: str) -> Any:
    found = [record.value for record in dataset.records if record.package == "TwoSampleMR" and record.key == key]
    return found[0] if found else None


@pytest.mark.parametrize("test", ["z", "t"])
@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_models_and_choice(source: str, name: str, test: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    value = answers(dataset, f"mr_rucker(test_dist='{test}')")
    result = rucker(*inputs(dataset), distribution="normal" if test == "z" else "t-dist")
    if not isinstance(value, dict) or "rucker" not in value or name in NOT_COMPARED:
        if value is None:
            assert source == "committed" or result.status != Status.OK
        return
    # R multiplies the standard errors of all four models by min(RSE, 1).
    rse = np.sqrt(
        [value["Q"]["Q_ivw"]["Q"] / value["Q"]["Q_ivw"]["df"]] * 2
        + [value["Q"]["Q_egger"]["Q"] / value["Q"]["Q_egger"]["df"]] * 2
    )
    shrunk = result.standard_errors * np.minimum(rse, 1)
    n = result.n_instruments
    for position, label in enumerate(NAMES):
        theirs, slope = value["rucker"][label], result.estimates[position]
        assert_close(slope, theirs["Estimate"], rtol=rtol, atol=rtol * theirs["SE"], label=label)
        assert_close(shrunk[position], theirs["SE"], rtol=rtol, label=label)
        z = abs(slope / shrunk[position])
        p = 2 * (stats.norm.sf(z) if position < 2 and test == "z" else stats.t.sf(z, n - 1 - position // 2))
        assert_close(p, theirs["P"], rtol=rtol * (1 + z**2), atol=1e-300, label=label)
    for position, label in enumerate(NAMES[2:]):
        theirs = value["intercept"][label]
        assert_close(result.intercept, theirs["Estimate"], rtol=rtol, atol=rtol * theirs["SE"], label=label)
        se = result.intercept_se[position] * min(rse[2], 1)
        assert_close(se, theirs["SE"], rtol=rtol, label=label)
        z = abs(result.intercept / se)
        p = 2 * (stats.norm.sf(z) if test == "z" else stats.t.sf(z, n - 2))
        assert_close(p, theirs["P"], rtol=rtol * (1 + z**2), atol=1e-300, label=label)
    chosen = "ABCD".index(value["res"])
    assert result.model == chosen
    assert_close(result.estimate, value["selected"]["Estimate"], rtol=rtol, atol=rtol * float(result.se))
    assert_close(result.se * min(rse[chosen], 1), value["selected"]["SE"], rtol=rtol)
    # Of 3000 instruments the first 100 are kept.
    distance = result.cooks_distance[: 100 if n == 3000 else None]
    assert_close(distance, value["cooksdistance"], rtol=1e-7, atol=1e-12, label="Cook's distance")


@pytest.mark.parametrize(("source", "name"), sources("mr_"))
def test_without_influential_instruments(source: str, name: str) -> None:
    dataset, rtol = load(source, name), rtol_of(name)
    value = answers(dataset, "mr_rucker_cooksdistance()")
    result = rucker(*inputs(dataset), remove_influential=True)
    if not isinstance(value, dict) or "selected" not in value or name in NOT_COMPARED:
        return
    wanted = [f"snp_{position + 1}" for position in np.flatnonzero(result.removed)]
    given_names = value["removed_snps"]
    assert sorted(wanted) == sorted([given_names] if isinstance(given_names, str) else given_names or [])
    assert "ABCD".index(value["res"]) == result.model
    assert_close(result.n_instruments, value["selected"]["nsnp"], rtol=0)
    assert_close(result.estimate, value["selected"]["Estimate"], rtol=rtol, atol=rtol * float(result.se))
    q, df = (
        (result.heterogeneity.q, result.heterogeneity.df)
        if result.model < 2
        else (result.heterogeneity.q_egger, result.heterogeneity.df - 1)
    )
    assert_close(result.se * min(np.sqrt(q / df), 1), value["selected"]["SE"], rtol=rtol)


def draw(seed: int, n: int = 12, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, n))
    bxse, byse = rng.uniform(0.01, 0.05, bx.shape), rng.uniform(0.01, 0.05, bx.shape)
    lift = rng.choice([0.0, 0.1]) * np.sign(bx)
    return bx, bxse, 0.8 * bx + lift + rng.normal(0, rng.choice([0.5, 1, 3]), bx.shape) * byse, byse


def test_each_model_is_chosen_and_is_its_estimator() -> None:
    seen = set()
    for seed in range(40):
        columns = draw(seed)
        result = rucker(*columns)
        seen.add(int(result.model))
        name, kind = RUCKER_MODELS[int(result.model)].split("_")
        same = {"ivw": mr.ivw, "egger": mr.egger}[name](*columns, model=kind)
        for field in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
            assert_close(getattr(result, field), getattr(same, field), rtol=1e-12, label=field)
    assert seen == {0, 1, 2, 3}


def test_cooks_distance_is_that_of_statsmodels() -> None:
    for seed in range(20):
        bx, bxse, by, byse = draw(seed)
        result = rucker(bx, bxse, by, byse)
        x, y = np.abs(bx) / byse, by * np.sign(bx) / byse
        design = x[:, None] if result.model < 2 else np.stack([1 / byse, x], axis=1)
        wanted = sm.OLS(y, design).fit().get_influence().cooks_distance[0]
        assert_close(result.cooks_distance, wanted, rtol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), remove=st.booleans())
def test_sign_order_and_padding(seed: int, remove: bool) -> None:
    columns = draw(seed)
    plain = rucker(*columns, remove_influential=remove)
    rng = np.random.default_rng(seed)
    order, sign = rng.permutation(13), rng.choice([-1.0, 1.0], 13)
    bx, bxse, by, byse = (np.append(column, np.nan)[order] for column in columns)
    changed = rucker(bx * sign, bxse, by * sign, byse, remove_influential=remove)
    for name in ("estimate", "se", "pvalue", "model", "n_instruments", "standard_errors", "intercept_pvalue"):
        np.testing.assert_allclose(getattr(changed, name), getattr(plain, name), rtol=1e-7, err_msg=name)
    assert np.array_equal(np.append(plain.removed, False)[order], changed.removed)


@pytest.mark.parametrize("remove", [False, True])
def test_batch_is_a_loop(remove: bool) -> None:
    columns = draw(3, 9, (2, 3))
    columns[2][0, 1, 4] += 2.0
    columns[0][1, 0, 2:] = np.nan
    columns[3][1, 1, 0] = 0.0
    columns[0][1, 2] = 0.3
    together = rucker(*columns, remove_influential=remove)
    assert list(together.status[1]) == [
        Status.TOO_FEW_INSTRUMENTS,
        Status.INVALID_STANDARD_ERROR,
        Status.NO_EXPOSURE_VARIATION,
    ]
    assert np.all(together.model[1] == -1)
    assert np.all(np.isnan(together.estimate[1]))
    assert bool(together.removed[0, 1, 4]) == remove
    for index in np.ndindex(2, 3):
        alone = rucker(*(column[index] for column in columns), remove_influential=remove)
        for name in alone.arrays:
            if name != "heterogeneity":
                actual, wanted = getattr(together, name)[index], getattr(alone, name)
                np.testing.assert_allclose(actual, wanted, rtol=1e-11, err_msg=name)
        assert_close(together.heterogeneity.q_difference[index], alone.heterogeneity.q_difference, rtol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_instruments(n: int) -> None:
    result = rucker(*draw(1, n))
    assert (result.status == Status.OK) == (n == 3)
    assert result.cooks_distance.shape == (n,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "between 0 and 1"),
        ({"weights": "none"}, "'simple', 'delta'"),
        ({"distribution": "t"}, "'normal', 't-dist'"),
        ({"remove_influential": 2}, "True, False"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rucker(*draw(1), **options)


@pytest.mark.parametrize(("n", "removed"), [(4, []), (5, [4]), (6, [4, 5])])
def test_instruments_are_removed_while_more_than_three_are_left(n: int, removed: list[int]) -> None:
    bx, se = np.linspace(0.2, 1, n), np.full(n, 0.05)
    by = 0.5 * bx + 0.02 * np.resize([1.0, -1, 0], n)
    by[-1] += 1
    assert np.nanmax(rucker(bx, se / 5, by, se).cooks_distance) > 4 / n
    result = rucker(bx, se / 5, by, se, remove_influential=True)
    assert list(np.flatnonzero(result.removed)) == removed and result.n_instruments == 4
