"""Every method in the store equals the function of `kipoi_deepmr.mr` on the effects of one sequence at a time."""

import inspect
import itertools

import numpy as np
import pytest

from kipoi_deepmr import meta, mr, terms
from kipoi_deepmr.config import load_config
from kipoi_deepmr.config.estimation import OPTIONS, options_of
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.pipeline import re_estimate, run
from kipoi_deepmr.pipeline.methods import ESTIMATORS
from tests.kipoi_models import write_project

TWO_OUTCOMES = {
    "outcomes": {"open": {"task": "DNase"}, "other": {"task": "TF2", "occurrence": 1}},
    "uncertainty": {"draws": 6},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    config = load_config(write_project(folder, TWO_OUTCOMES))
    run(config, folder / "out.zarr", device="cpu", progress=False)
    return folder / "out.zarr"


def instruments(effects, e, o, s):
    """Return effects, errors and the errors' correlation of one sequence; NaN where a mutation has no error.

    The three mutants of a position come in the order of their bases.
    """
    read = {
        name: effects[name].values[index].astype(float)
        for name, index in (
            ("exposure_effect", (e, s)),
            ("exposure_se", (e, s)),
            ("outcome_effect", (o, s)),
            ("outcome_se", (o, s)),
            ("error_covariance", (e, o, s)),
        )
    }
    used = np.isfinite(read["exposure_effect"]) & (read["exposure_se"] > 0) & (read["outcome_se"] > 0)
    mutants = [[a for a in range(4) if np.isfinite(row[a])] for row in read["exposure_effect"]]
    place = tuple(np.array([(p, a) for p, alleles in enumerate(mutants) for a in alleles]).T)
    bx, bxse, by, byse, covariance = (np.where(used, array, np.nan)[place] for array in read.values())
    psi = np.where(used[place], np.clip(covariance / (bxse * byse), -1, 1), 0)
    return bx, bxse, by, byse, psi, effects["position"].values[place[0]]


def bound(effects):
    shape = (effects.sizes[dim] for dim in terms.LOCAL_DIMS)
    for e, o, s in itertools.product(*map(range, shape)):
        if effects["bound"].values[e, s]:
            yield e, o, s


def same(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def estimate_alone(effects, method, e, o, s):
    """Estimate one pair in one sequence with the function of `kipoi_deepmr.mr`."""
    bx, bxse, by, byse, psi, positions = instruments(effects, e, o, s)
    estimator = ESTIMATORS[method]
    options = dict(estimator.options)
    for name, value in {"psi": psi, "draws": 6, "groups": positions}.items():
        if options.get(name) in ("stored", "position"):
            options[name] = value
    if estimator.monte_carlo:
        bxse, byse = bxse / 6**0.5, byse / 6**0.5
    return getattr(mr, estimator.function)(bx, bxse, by, byse, **options)


@pytest.mark.parametrize("method", [name for name in terms.METHODS if not ESTIMATORS[name].draws])
def test_a_method_is_the_function_of_each_sequence(store, method):
    tree = re_estimate(store, mr={"methods": [method]})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    for e, o, s in bound(effects):
        result = estimate_alone(effects, method, e, o, s)
        one = local.isel(exposure=e, outcome=o, sequence=s, method=0)
        for name, term in terms.LOCAL.items():
            if terms.METHOD in term.dims and hasattr(result, name):
                same(one[name], getattr(result, name), f"{method}: {name}")
        assert one["status"] == result.status


def test_every_name_has_an_estimator_with_options_that_it_takes():
    assert list(ESTIMATORS) == list(terms.METHODS)
    assert all(any(name.startswith(family) for name in ESTIMATORS) for family in OPTIONS)
    for name, estimator in ESTIMATORS.items():
        parameters = set(inspect.signature(getattr(mr, estimator.function)).parameters)
        assert {*estimator.options, *options_of(name)} <= parameters, name


def test_a_method_with_options_of_its_own(store):
    own = {"name": "half", "estimator": "ivw_delta", "psi": 0.5, "model": "fixed"}
    tree = re_estimate(store, mr={"methods": ["ivw", own]})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    assert local["method"].values.tolist() == ["ivw", "half"]
    assert "half: IVW whose weights" in local["method"].attrs["description"]
    assert "with psi: 0.5, model: fixed" in local["method"].attrs["description"]
    for e, o, s in bound(effects):
        bx, bxse, by, byse, *_ = instruments(effects, e, o, s)
        expected = mr.ivw(bx, bxse, by, byse, weights="delta", psi=0.5, model="fixed")
        same(local["se"].values[e, o, s, 1], expected.se, "se")


def test_options_that_exclude_each_other_are_explained(store, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("penalized cannot be combined")

    monkeypatch.setattr(mr, "ivw", refuse)
    with pytest.raises(ConfigError, match=r"mr\.methods: ivw: penalized cannot be combined"):
        re_estimate(store, mr={"methods": ["ivw"]})


def test_both_directions_and_that_they_vanish_when_they_are_not_asked_for(store):
    tree = re_estimate(store, mr={"methods": ["egger", "ivw_delta"], "bidirectional": True})
    effects = tree["effects"].to_dataset().load()
    local, overall = tree["reverse/local"].to_dataset().load(), tree["reverse/global"].to_dataset().load()
    assert set(local.data_vars) == set(tree["local"].data_vars)
    assert set(overall.data_vars) == set(tree["global"].data_vars)
    assert local["estimate"].attrs["units"] == "exposure per outcome"
    assert overall["tau2"].attrs["units"] == "(exposure per outcome)^2"
    assert tree["local"]["estimate"].attrs["units"] == "outcome per exposure"
    for e, o, s in bound(effects):
        bx, bxse, by, byse, psi, _ = instruments(effects, e, o, s)
        egger, delta = mr.egger(by, byse, bx, bxse), mr.ivw(by, byse, bx, bxse, weights="delta", psi=psi)
        one = local.isel(exposure=e, outcome=o, sequence=s)
        same(one["estimate"], [egger.estimate, delta.estimate], "estimate")
        same(one["intercept"], [egger.intercept, np.nan], "intercept")
        same(one["f_statistic"], np.nanmean((by / byse) ** 2), "f_statistic")
    assert (np.isnan(local["estimate"]).all(("method", "outcome")) == ~effects["bound"]).all()
    for e, o, m in itertools.product(range(2), range(2), range(2)):
        expected = meta.random_effects(local["estimate"].values[e, o, :, m], local["se"].values[e, o, :, m])
        same(overall["estimate"].values[e, o, m], expected.estimate, "global")
    assert "reverse" not in re_estimate(store, mr={"bidirectional": False}).children


@pytest.mark.parametrize("method", ["REML", "DL", "PM", "ML", "EB", "HE", "SJ", "HS", "FE"])
def test_every_estimator_of_tau2_and_every_test(store, method):
    for test in ("z", "t", "knha", "adhoc"):
        tree = re_estimate(store, mr={"methods": ["ivw"]}, meta={"method": method, "test": test})
        local, overall = tree["local"].to_dataset().load(), tree["global"].to_dataset().load()
        for e, o in itertools.product(range(2), range(2)):
            expected = meta.random_effects(
                local["estimate"].values[e, o, :, 0], local["se"].values[e, o, :, 0], method=method, test=test
            )
            for name in ("estimate", "se", "ci_low", "tau2", "i2", "prediction_high"):
                same(overall[name].values[e, o, 0], getattr(expected, name), f"{method} {test} {name}")
