"""Effects of every draw: kept in the store, or used while they are in memory; stopped, resumed and asked for too late."""

import itertools
import json

import numpy as np
import pytest

from kipoi_deepmr import mr, terms
from kipoi_deepmr.config import load_config
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.running import run
from tests.kipoi_models import plain_loop, write_project
from tests.test_running import assert_same_results, stop_after, windows_of

DRAWS = 8
COLUMNS = [0, 2, 3, 1]
SETTINGS = {
    "outcomes": {"open": {"task": "DNase"}, "other": {"task": "TF2", "occurrence": 1}},
    "uncertainty": {"draws": DRAWS},
    "mr": {
        "methods": ["ivw", "cross_fitted_ivw", {"name": "equal", "estimator": "cross_fitted_egger", "folds": 4}],
        "bidirectional": True,
    },
}


def go(folder, name, changes=None, **options):
    settings = {
        section: {**SETTINGS.get(section, {}), **(changes or {}).get(section, {})}
        for section in {**SETTINGS, **(changes or {})}
    }
    config = load_config(write_project(folder, settings))
    return run(config, folder / name, device="cpu", progress=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with a store whose estimates were made during the run, and one that keeps the draws."""
    path = tmp_path_factory.mktemp("draws")
    go(path, "used.zarr")
    go(path, "kept.zarr", {"effects": {"keep_draws": True}})
    return path


def test_the_kept_draws_are_those_of_a_plain_loop(folder):
    effects = open_results(folder / "kept.zarr")["effects"].to_dataset().load()
    draws, _ = plain_loop(folder / "model", windows_of(folder), COLUMNS, range(20, 28), draws=DRAWS)
    assert effects["exposure_draws"].dims == ("exposure", "sequence", "draw", "position", "allele")
    assert effects["exposure_draws"].dtype == np.float32
    assert effects["draw"].values.tolist() == list(range(DRAWS))
    largest = np.nanmax(np.abs(draws))
    for side, columns in (("exposure", [0, 1]), ("outcome", [2, 3])):
        expected = draws[..., columns].transpose(4, 0, 3, 1, 2)
        np.testing.assert_allclose(effects[f"{side}_draws"], expected, rtol=0, atol=1e-5 * largest)
        np.testing.assert_allclose(
            effects[f"{side}_draws"].mean("draw"), effects[f"{side}_effect"], atol=1e-6 * largest
        )
    for name in terms.DRAWS:
        assert effects[name].attrs["long_name"] and effects[name].attrs["units"] == "1"


def test_estimates_are_those_of_the_functions_and_need_no_stored_draws(folder):
    kept, used = (open_results(folder / name) for name in ("kept.zarr", "used.zarr"))
    assert "from_draws" in used.children and "from_draws" not in kept.children
    assert "exposure_draws" not in used["effects"]
    effects = kept["effects"].to_dataset().load()
    for group in ("local", "reverse/local"):
        local, other = kept[group].to_dataset().load(), used[group].to_dataset().load()
        for e, o, s in itertools.product(range(2), range(2), range(4)):
            one = local.isel(exposure=e, outcome=o, sequence=s)
            if not effects["bound"].values[e, s]:
                assert (one["status"] == -1).all()
                continue
            x = effects["exposure_draws"].values[e, s].reshape(DRAWS, -1).astype(float)
            y = effects["outcome_draws"].values[o, s].reshape(DRAWS, -1).astype(float)
            moving = (x.std(0) > 0) & (y.std(0) > 0)
            pair = (x[:, moving], y[:, moving])
            expected = [
                function(*(pair if group == "local" else pair[::-1]), **options)
                for function, options in ((mr.cross_fitted_ivw, {}), (mr.cross_fitted_egger, {"folds": 4}))
            ]
            for index, result in enumerate(expected, start=1):
                for name in terms.FROM_DRAWS:
                    if hasattr(result, name):
                        np.testing.assert_allclose(one[name][index], getattr(result, name), rtol=1e-8, err_msg=name)
        for name in local.data_vars:
            np.testing.assert_array_equal(local[name], other[name], err_msg=name)
    assert np.isfinite(used["local"]["estimate"].sel({"estimator": "cross_fitted_ivw"})).any()
    assert np.isfinite(used["global"]["estimate"].sel({"estimator": "cross_fitted_ivw"})).any()


def test_the_smallest_f_is_that_of_the_mean_over_draws(folder):
    tree = re_estimate(folder / "kept.zarr", mr={"methods": ["cross_fitted_ivw"], "min_f": 0.5})
    effects, local = tree["effects"].to_dataset().load(), tree["local"].to_dataset().load()
    x = effects["exposure_draws"].values[0, 0].reshape(DRAWS, -1).astype(float)
    y = effects["outcome_draws"].values[0, 0].reshape(DRAWS, -1).astype(float)
    expected = mr.cross_fitted_ivw(x, np.where((x.std(0) > 0) & (y.std(0) > 0), y, np.nan), min_f=0.5 * DRAWS)
    np.testing.assert_allclose(local["se"].values[0, 0, 0, 0], expected.se, rtol=1e-8)
    re_estimate(folder / "kept.zarr", mr={"methods": SETTINGS["mr"]["methods"], "min_f": 0.0})


def test_other_estimates_are_made_again_beside_them(folder):
    before = open_results(folder / "used.zarr")["local"].to_dataset().load()
    tree = re_estimate(folder / "used.zarr", mr={"methods": ["cross_fitted_ivw", "egger"]}, meta={"method": "DL"})
    one = {"estimator": "cross_fitted_ivw"}
    np.testing.assert_array_equal(tree["local"]["estimate"].sel(one), before["estimate"].sel(one))
    assert tree["global"].attrs["tau2_method"] == "DL"
    re_estimate(folder / "used.zarr", mr={"methods": SETTINGS["mr"]["methods"]}, meta={"method": "REML"})


@pytest.mark.parametrize(
    "changes",
    [{"methods": ["cross_fitted_egger"]}, {"min_f": 1.0}, {"alpha": 0.1}],
    ids=["method", "min_f", "alpha"],
)
def test_what_needs_draws_that_are_gone_is_explained(folder, changes):
    before = open_results(folder / "used.zarr").attrs["history"]
    with pytest.raises(StoreError) as caught:
        re_estimate(folder / "used.zarr", mr={"methods": SETTINGS["mr"]["methods"], **changes})
    said = str(caught.value)
    assert "needs the effects of every draw" in said
    assert "effects: {keep_draws: true}" in said
    assert "used.zarr" in said
    assert open_results(folder / "used.zarr").attrs["history"] == before


def test_a_store_without_any_draws_says_what_to_set(tmp_path):
    go(tmp_path, "plain.zarr", {"mr": {"methods": ["ivw"]}})
    with pytest.raises(StoreError, match=r"cross_fitted_ivw needs .* no estimates from draws.*keep_draws: true"):
        re_estimate(tmp_path / "plain.zarr", mr={"methods": ["cross_fitted_ivw"]})


@pytest.mark.parametrize("name", ["used", "kept"])
def test_a_stopped_run_resumes_to_the_same(folder, tmp_path, monkeypatch, name):
    changes = {"effects": {"keep_draws": True}} if name == "kept" else {}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 2, KeyboardInterrupt())
        go(tmp_path, "out.zarr", changes, batch_size=1)
    stopped = open_results(tmp_path / "out.zarr")
    assert stopped["effects"]["completed"].values.tolist() == [True, True, False, False]
    if name == "used":
        with pytest.raises(StoreError, match=r"begun without cross_fitted_ivw, equal in mr\.methods"):
            go(tmp_path, "out.zarr", {"mr": {"min_f": 2.0}}, resume=True)
    resumed = go(tmp_path, "out.zarr", changes, resume=True, batch_size=1)
    whole = open_results(folder / f"{name}.zarr")
    assert_same_results(resumed, whole)
    if name == "kept":
        largest = float(np.abs(whole["effects"]["outcome_draws"]).max())
        for side in ("exposure", "outcome"):
            found, expected = (tree["effects"][f"{side}_draws"] for tree in (resumed, whole))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_a_resumed_run_may_ask_for_fewer_of_its_methods(folder, tmp_path):
    go(tmp_path, "out.zarr")
    tree = go(tmp_path, "out.zarr", {"mr": {"methods": ["cross_fitted_ivw"], "bidirectional": False}}, resume=True)
    assert tree["local"]["estimator"].values.tolist() == ["cross_fitted_ivw"]


def test_methods_that_nobody_named_and_that_miss_their_draws_are_left_out_with_a_warning(folder, caplog):
    results = re_estimate(folder / "used.zarr", mr={"min_f": 1.0})
    assert results["local"]["estimator"].values.tolist() == ["ivw"]
    assert "left out: cross_fitted_ivw, equal" in caplog.text
    with pytest.raises(StoreError, match="needs the effects of every draw"):
        re_estimate(folder / "used.zarr", mr={"min_f": 1.0, "methods": ["cross_fitted_ivw"]})


@pytest.mark.parametrize(
    ("uncertainty", "more"),
    [({"draws": 10}, ["cross_fitted_egger", "cross_fitted_ivw"]), ({"draws": 9}, []), ({"method": "ensemble"}, [])],
)
def test_the_default_methods_use_the_draws_where_there_are_enough(tmp_path, uncertainty, more):
    config = load_config(write_project(tmp_path, {"uncertainty": uncertainty, "mr": None}))
    assert [method.name for method in config.mr.methods] == ["egger", "ivw", *more]
    named = load_config(write_project(tmp_path, {"uncertainty": uncertainty, "mr": {"methods": ["ivw"]}}))
    assert [method.name for method in named.mr.methods] == ["ivw"]


def test_methods_that_miss_their_draws_come_back_with_them(tmp_path, caplog):
    go(tmp_path, "out.zarr", {"mr": {"bidirectional": False}})
    names = ["ivw", "cross_fitted_ivw", "equal"]
    tree = re_estimate(tmp_path / "out.zarr", mr={"min_f": 1.0})
    assert tree["global"]["estimator"].values.tolist() == ["ivw"]
    assert [method["name"] if isinstance(method, dict) else method for method in methods_of(tree)] == names
    tree = re_estimate(tmp_path / "out.zarr", mr={"min_f": 0.0})
    assert tree["global"]["estimator"].values.tolist() == names
    caplog.clear()
    tree = re_estimate(tmp_path / "out.zarr", mr={"bidirectional": True})
    assert "no effects of the outcomes on the exposures by cross_fitted_ivw, equal" in caplog.text
    assert "left out" not in caplog.text
    forward, reverse = tree["local"].to_dataset().load(), tree["reverse/local"].to_dataset().load()
    assert np.isfinite(forward["estimate"].sel({"estimator": "cross_fitted_ivw"})).any()
    bound = tree["effects"]["bound"].values[:, None]
    for index in (1, 2):
        status = reverse["status"].isel(estimator=index)
        assert np.isnan(reverse["estimate"].isel(estimator=index)).all()
        assert (np.where(bound, status, -2) == -2).all()
    meanings = reverse["status"].attrs
    assert meanings["flag_meanings"].split()[list(meanings["flag_values"]).index(-2)] == "draws_not_in_store"


def methods_of(tree):
    return json.loads(tree["local"].attrs["settings"])["mr"]["methods"]


def test_the_settings_stand_with_the_estimates_whenever_a_process_is_killed(tmp_path, monkeypatch):
    go(tmp_path, "out.zarr", {"mr": {"methods": ["ivw"]}})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kipoi_deepmr.cube.Cube.note", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        re_estimate(tmp_path / "out.zarr", mr={"methods": ["egger"], "min_f": 1.0})
    assert methods_of(open_results(tmp_path / "out.zarr")) == ["egger"]
    tree = re_estimate(tmp_path / "out.zarr")
    assert tree["local"]["estimator"].values.tolist() == ["egger"]
    assert tree["local"].attrs["min_f"] == 1
    assert json.loads(tree.attrs["config"])["mr"]["methods"] == ["egger"]
    before = tree.attrs["config"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "kipoi_deepmr.estimate.estimate.write_estimates", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        go(tmp_path, "out.zarr", {"mr": {"methods": ["weighted_median"]}}, resume=True)
    assert open_results(tmp_path / "out.zarr").attrs["config"] == before
