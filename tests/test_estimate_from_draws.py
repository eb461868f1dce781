"""Effects of every draw: kept in the store, or used while they are in memory; stopped, resumed and asked for too late."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from kipoi_deepmr import mr, terms
from kipoi_deepmr.config import MRSection, load_config, parse_config
from kipoi_deepmr.cube import Drawn, open_results
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.estimate.from_draws import covers, during_the_run
from kipoi_deepmr.running import run
from tests.hand_made import make_effects
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


def test_a_block_is_estimated_pair_by_pair_where_sequences_count():
    bound = np.array([[True, False], [True, True]])
    effects = make_effects(sequences=2, bound=bound, kept=True)
    kept = [effects[f"{side}_draws"].values for side in ("exposure", "outcome")]
    draws = np.moveaxis(np.concatenate(kept), 0, -1)
    config = parse_config(
        {
            "model": {"name": "m", "source": "dir"},
            "exposures": {name: {"task": name, "peaks": "a.bed"} for name in ("E0", "E1")},
            "outcomes": {name: {"task": name} for name in ("O0", "O1")},
            "mr": {"methods": ["ivw", "cross_fitted_egger", "cross_fitted_ivw"], "bidirectional": True},
        },
        Path(),
    )
    during = during_the_run(config)
    assert during.drawn is not None
    assert during.drawn.methods == ("cross_fitted_egger", "cross_fitted_ivw")
    found = during.estimate(draws, bound, during.drawn, "posterior")
    assert set(found) == set(terms.FROM_DRAWS)
    for direction, e, o, s in np.ndindex(2, 2, 2, 2):
        here = {name: array[direction, e, o, s] for name, array in found.items()}
        if not bound[e, s]:
            assert here["status"].tolist() == [-1, -1] and np.isnan(here["estimate"]).all()
            continue
        pair = [side[index, s].reshape(16, -1).astype(float) for side, index in zip(kept, (e, o), strict=True)]
        pair = [side[:, np.isfinite(side[0])] for side in pair]
        for index, function in enumerate((mr.cross_fitted_egger, mr.cross_fitted_ivw)):
            expected = function(*(pair[::-1] if direction else pair))
            np.testing.assert_allclose(here["estimate"][index], expected.estimate, rtol=1e-6)
        assert np.isfinite(here["intercept"][0]) and np.isnan(here["intercept"][1])
    keeping = config.model_copy(update={"effects": config.effects.model_copy(update={"keep_draws": True})})
    assert during_the_run(keeping).drawn is None


def drawn_of(methods, directions=("forward",), **options):
    return Drawn(tuple(methods), directions, MRSection(methods=list(methods), **options).model_dump_json())


def test_estimates_cover_others_with_the_same_options_in_the_same_directions():
    made = drawn_of(["cross_fitted_ivw", "cross_fitted_egger"], ("forward", "reverse"), min_f=2.0)
    assert covers(made, drawn_of(["cross_fitted_egger"], min_f=2.0))
    assert not covers(made, drawn_of(["cross_fitted_egger"]))
    assert not covers(made, drawn_of(["cross_fitted_egger"], min_f=2.0, alpha=0.1))
    assert not covers(drawn_of(["cross_fitted_ivw"]), drawn_of(["cross_fitted_ivw"], ("forward", "reverse")))
    own = {"name": "cross_fitted", "estimator": "cross_fitted_ivw", "folds": 4}
    other = Drawn(("cross_fitted",), ("forward",), MRSection(methods=[own], min_f=2.0).model_dump_json())
    assert not covers(made, other)


@pytest.mark.parametrize("name", ["used.zarr", "kept.zarr"])
def test_every_array_of_a_store_is_as_its_term_says(folder, name):
    groups = {
        "effects": {**terms.EFFECTS, **terms.DRAWS, **terms.COORDS},
        "from_draws": terms.FROM_DRAWS,
        "local": {**terms.COORDS, **terms.LOCAL, **terms.LOCAL_INFLUENCE},
        "global": terms.GLOBAL,
    }
    tree = zarr.open_group(folder / name, mode="r", use_consolidated=False)
    for group, known in groups.items():
        for path, array in tree[group].arrays() if group in tree else ():
            term = {**terms.INDEXES, **terms.ESTIMATOR_COORDS, **known}[path]
            assert array.metadata.dimension_names == term.dims
            kind = "OTU" if term.dtype == "str" else np.dtype(term.dtype).kind
            assert array.dtype.kind in kind, path
            if term.dtype != "str":
                assert array.dtype == term.dtype, path
            if group in ("effects", "from_draws") and term.dtype in ("float32", "float64", "int8"):
                np.testing.assert_equal(array.fill_value, term.fill)


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
