"""Every method in the store equals the function of `kipoi_deepmr.mr` on the effects of one sequence at a time."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from kipoi_deepmr import meta, mr, terms
from kipoi_deepmr.config import MRSection, load_config, parse_config
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.estimate.methods import check_draws, check_methods, estimate
from kipoi_deepmr.estimate.summary import summaries
from kipoi_deepmr.estimators import ESTIMATORS
from kipoi_deepmr.running import check, run
from tests.hand_made import make_effects
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
    options = dict(estimator.fixed)
    for name, value in {"psi": psi, "draws": 6, "sample_size": 6 * len(bx), "groups": positions}.items():
        if options.get(name) in ("stored", "position"):
            options[name] = value
    if estimator.of_the_mean:
        bxse, byse = bxse / 6**0.5, byse / 6**0.5
    return getattr(mr, estimator.function or method)(bx, bxse, by, byse, **options)


def alone(name):
    return not ESTIMATORS[name].draws and not ESTIMATORS[name].joint


@pytest.mark.parametrize("method", [name for name in ESTIMATORS if alone(name)])
def test_a_method_is_the_function_of_each_sequence(store, method):
    tree = re_estimate(store, mr={"methods": [method]})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    for e, o, s in bound(effects):
        result = estimate_alone(effects, method, e, o, s)
        one = local.isel(exposure=e, outcome=o, sequence=s, estimator=0)
        for name, term in terms.LOCAL.items():
            if terms.ESTIMATOR in term.dims and hasattr(result, name):
                same(one[name], getattr(result, name), f"{method}: {name}")
        assert one["status"] == result.status


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("min_f", [0.0, 2.0])
def test_multivariable_methods_take_all_exposures_of_the_run(store, reverse, min_f):
    methods = ["multivariable_ivw", "multivariable_egger"]
    tree = re_estimate(store, mr={"methods": methods, "bidirectional": True, "min_f": min_f})
    effects, local = tree["effects"].to_dataset().load(), tree["reverse/local" if reverse else "local"].to_dataset()
    cause, effect = ("outcome", "exposure") if reverse else ("exposure", "outcome")
    for e, o, s in bound(effects):
        own, other = (o, e) if reverse else (e, o)
        bx, bxse = (effects[f"{cause}_{name}"].values[:, s].reshape(2, -1).astype(float) for name in ("effect", "se"))
        by, byse = (effects[f"{effect}_{name}"].values[other, s].ravel().astype(float) for name in ("effect", "se"))
        used = np.isfinite(by) & (byse > 0) & (bxse > 0).all(0) & ((bx / bxse) ** 2 >= min_f).any(0)
        data = bx[:, used], bxse[:, used], by[used], byse[used]
        ivw, egger = mr.multivariable_ivw(*data), mr.multivariable_egger(*data, orientation=own)
        one = local.isel(exposure=e, outcome=o, sequence=s)
        same(one["estimate"], [ivw.estimate[own], egger.estimate[own]], "estimate")
        same(one["se"], [ivw.se[own], egger.se[own]], "se")
        same(one["conditional_f"], [ivw.conditional_f[own], np.nan], "conditional_f")
        same(one["intercept"], [np.nan, egger.intercept], "intercept")
        assert one["status"].values.tolist() == [0, 0]
    re_estimate(store, mr={"min_f": 0.0, "bidirectional": False})


def test_diagnostics_and_the_influence_of_each_sequence(store):
    tree = re_estimate(store, mr={"methods": ["ivw", "egger"]}, meta={"method": "DL", "test": "knha"})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    for e, o, s in bound(effects):
        bx, bxse, by, byse, *_ = instruments(effects, e, o, s)
        one = local.isel(exposure=e, outcome=o, sequence=s)
        same(one["q_difference"], one["q"].values[0] - one["q"].values[1], "q_difference")
        assert 0 <= float(one["q_difference_pvalue"]) <= 1
        same(one["steiger_share"], np.nanmean(np.where(np.isnan(bx), np.nan, abs(bx / bxse) > abs(by / byse))), "share")
    for e, o, m in itertools.product(range(2), range(2), range(2)):
        y, v = (local[name].values[e, o, :, m] for name in ("estimate", "se"))
        for s in range(4):
            found = local["leave_one_out"].values[e, o, s, m], local["leave_one_out_se"].values[e, o, s, m]
            if np.isnan(y[s]):
                assert np.isnan(found).all()
                continue
            expected = meta.random_effects(np.delete(y, s), np.delete(v, s), method="DL", test="knha")
            same(found, (expected.estimate, expected.se), "leave_one_out")


def test_a_method_with_options_of_its_own(store):
    own = {"name": "half", "estimator": "ivw_delta", "psi": 0.5, "model": "fixed"}
    tree = re_estimate(store, mr={"methods": ["ivw", own]})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    assert local["estimator"].values.tolist() == ["ivw", "half"]
    assert "half: IVW whose weights" in local["estimator"].attrs["description"]
    assert "with psi: 0.5, model: fixed" in local["estimator"].attrs["description"]
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
    plain = {"method": "REML", "test": "z"}
    tree = re_estimate(store, mr={"methods": ["egger", "ivw_delta"], "bidirectional": True}, meta=plain)
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
    assert (np.isnan(local["estimate"]).all(("estimator", "outcome")) == ~effects["bound"]).all()
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
            interval = meta.tau2_interval(local["estimate"].values[e, o, :, 0], local["se"].values[e, o, :, 0])
            same(overall["tau2_low"].values[e, o, 0], interval.tau2_low, "tau2_low")
            same(overall["tau2_high"].values[e, o, 0], interval.tau2_high, "tau2_high")
            for name in ("estimate", "se", "ci_low", "tau2", "i2", "h2", "prediction_high"):
                same(overall[name].values[e, o, 0], getattr(expected, name), f"{method} {test} {name}")


def test_the_prediction_interval_of_riley(store):
    for kind in ("default", "riley"):
        tree = re_estimate(store, mr={"methods": ["ivw"]}, meta={"method": "REML", "test": "z", "prediction": kind})
        local, overall = tree["local"].to_dataset().load(), tree["global"].to_dataset().load()
        y, v = (local[name].values[0, 0, :, 0] for name in ("estimate", "se"))
        expected = meta.random_effects(y, v, prediction=kind)
        same(overall["prediction_low"].values[0, 0, 0], expected.prediction_low, kind)
        assert overall.attrs["prediction"] == kind


def test_methods_that_correct_for_errors_of_measurement_take_those_of_the_mean(store):
    methods = ["ivw", "maximum_likelihood", "cml", "debiased_ivw"]
    tree = re_estimate(store, mr={"methods": methods})
    described = tree["local"]["estimator"].attrs["description"].split("; ")
    assert ["(Monte-Carlo errors)" in line for line in described] == [False, True, True, True]
    for name in ("local", "global"):
        assert tree[name]["standard_error"].values.tolist() == ["posterior", *["monte_carlo"] * 3]
        assert tree[name]["standard_error"].dims == ("estimator",)


def test_a_warning_names_the_methods_in_which_weak_mutations_decide(store, caplog):
    methods = ["ivw", "raps", "simple_mode", "weighted_median"]
    re_estimate(store, mr={"methods": methods})
    assert "in raps, simple_mode the many mutations" in caplog.text
    caplog.clear()
    re_estimate(store, mr={"methods": methods, "min_f": 1.0})
    assert "the many mutations" not in caplog.text
    re_estimate(store, mr={"min_f": 0.0})


def test_a_bar_shows_how_far_estimates_are(store, monkeypatch, capsys):
    monkeypatch.setattr("kipoi_deepmr.estimate.estimate._PATIENCE", 0)
    re_estimate(store, mr={"methods": ["ivw", "egger"]}, controls={"permuted_exposure": 2}, progress=True)
    # 2 methods, 3 times each, for every exposure and sequence that it binds.
    count = 6 * int(open_results(store)["effects"]["bound"].sum())
    assert f"{count}/{count}" in capsys.readouterr().err
    re_estimate(store, controls={"permuted_exposure": 0})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "weighted_mode", "phi": 0}, "a finite number above 0"),
        ({"estimator": "weighted_mode", "phi": float("inf")}, "a finite number above 0"),
        ({"estimator": "weighted_mode", "phi": 1e-300}, "mr.methods: mine:"),
        ({"estimator": "weighted_median", "n_boot": 10**12}, "a whole number from 2 to 1000000"),
        ({"estimator": "contamination_mixture", "invalid_sd": 0}, "a finite number above 0"),
        ({"estimator": "lasso", "penalty": 0}, "mr.methods: mine:"),
        ({"estimator": "penalized_ivw", "penalty": float("inf")}, "a finite number of at least 0"),
        ({"estimator": "cml", "sample_size": float("inf")}, "a finite number above 1"),
        ({"estimator": "cml", "n_perturb": 1}, "mr.methods: mine:"),
        ({"estimator": "ivw", "weights": "delta", "robust": True, "penalized": True, "psi": 2}, "from -1 to 1"),
    ],
)
def test_options_that_a_method_refuses_are_known_before_any_work(tmp_path, options, said):
    path = write_project(tmp_path, {"mr": {"methods": [{"name": "mine", **options}]}})
    with pytest.raises(ConfigError, match=re.escape(said)):
        check(load_config(path), device="cpu")
    store = tmp_path / "out.zarr"
    with pytest.raises(ConfigError, match=re.escape(said)):
        run(load_config(path), store, device="cpu", progress=False)
    assert not store.exists()


def test_every_estimator_can_be_tried():
    section = MRSection(methods=list(ESTIMATORS), min_f=1.0)
    check_methods(section)


def test_the_error_of_the_mean_needs_independent_draws():
    def config(**sections):
        tasks = {"exposures": {"A": {"task": "a", "peaks": "a.bed"}}, "outcomes": {"D": {"task": "d"}}}
        return parse_config({"model": {"name": "m", "source": "dir"}, **tasks, **sections}, Path())

    asked = config(mr={"methods": ["ivw", "raps", "cross_fitted_ivw"]}, uncertainty={"draws": 5})
    with pytest.raises(
        ConfigError, match=r"mr\.methods: raps, mr\.methods: cross_fitted_ivw: .* the 5 thinned networks"
    ):
        check_draws(asked, members=2)
    check_draws(asked, members=1)
    alone = {"method": "ensemble", "members": ["a", "b"], "draws": 1}
    check_draws(config(mr={"methods": ["raps"]}, uncertainty=alone), members=2)
    plain = config(mr={"methods": ["ivw"]}, uncertainty={"draws": 5}, effects={"standard_error": "monte_carlo"})
    with pytest.raises(ConfigError, match=r"^effects\.standard_error: monte_carlo: "):
        check_draws(plain, members=3)


def test_what_stands_for_stored_numbers_is_put_in():
    one = next(summaries(make_effects(draws=16))).selected(0.0)
    seen = {}

    def called(*data, **options):
        seen.update(options, bxse=data[1])
        return None

    def fitted(name):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mr, name, called)
            estimate(MRSection(methods=[name]).methods[0], one, 0.1)
        return seen

    assert fitted("cml")["sample_size"] == 16 * len(one.positions)
    np.testing.assert_array_equal(seen["psi"], one.correlation)
    np.testing.assert_array_equal(seen["bxse"], one.bxse / 4)
    assert fitted("overlap_debiased_ivw")["draws"] == 16
    np.testing.assert_array_equal(seen["groups"], one.positions)
    assert set(fitted("ivw")) == {"alpha", "bxse"}
    np.testing.assert_array_equal(seen["bxse"], one.bxse)
    assert seen["alpha"] == 0.1
