"""Negative controls: permuted exposures and shuffled sequences, against plain loops; stopped and resumed."""

import itertools
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from kipoi_deepmr import meta, mr, terms
from kipoi_deepmr.config import ControlsSection, MetaSection, MRSection, load_config
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import ConfigError, StoreError
from kipoi_deepmr.estimate import permuted
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.estimate.from_draws import DrawnEstimates
from kipoi_deepmr.estimate.local import local_estimates
from kipoi_deepmr.estimate.overall import global_estimates
from kipoi_deepmr.estimate.permuted import with_permutations
from kipoi_deepmr.estimate.summary import summaries
from kipoi_deepmr.exports import export
from kipoi_deepmr.reading import select
from kipoi_deepmr.running import run
from tests.hand_made import make_effects
from tests.kipoi_models import plain_loop, write_project
from tests.test_running import assert_same_results, stop_after, windows_of

DRAWS = 6
PERMUTED = 19
SETTINGS = {
    "uncertainty": {"draws": DRAWS},
    "mutagenesis": {"positions": [10, 40], "engine": "delta"},
    "controls": {"shuffled_sequence": 2, "permuted_exposure": PERMUTED, "seed": 3},
}


def go(folder, name="out.zarr", changes=None, **options):
    config = load_config(write_project(folder, {**SETTINGS, **(changes or {})}))
    return run(config, folder / name, device="cpu", progress=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("controls")
    go(path)
    return path


def without_permutations(effects, e, s, order=None):
    """Return the four arrays of an exposure and the outcome, (position, mutant), the exposure's moved by an order."""
    mutant = np.array([np.flatnonzero(np.isfinite(row)) for row in effects["exposure_effect"].values[e, s]])
    arrays = [
        np.take_along_axis(effects[name].values[index, s].astype(float), mutant, 1)
        for name, index in (("exposure_effect", e), ("exposure_se", e), ("outcome_effect", 0), ("outcome_se", 0))
    ]
    if order is not None:
        arrays[:2] = [array[order] for array in arrays[:2]]
    kept = (arrays[1] > 0) & (arrays[3] > 0)
    return [np.where(kept, array, np.nan).ravel() for array in arrays]


def orders_of(effects, e, s):
    """Return the orders of positions of all permutations of a sequence, from seed and name alone."""
    from kipoi_deepmr.seeds import generator_of

    bx, _, by, _ = (array.reshape(30, 3) for array in without_permutations(effects, e, s))
    usable = np.flatnonzero(np.isfinite(bx * by).any(1))
    random = generator_of(3, "permuted", str(effects["sequence"].values[s]))
    orders = np.tile(np.arange(30), (PERMUTED, 1))
    for order in orders:
        order[usable] = random.permutation(usable)
    return orders


def test_permuted_estimates_are_those_of_a_plain_loop(folder):
    tree = open_results(folder / "out.zarr")
    effects, local, overall = (tree[name].to_dataset().load() for name in ("effects", "local", "global"))
    for e in range(2):
        bound = np.flatnonzero(effects["bound"].values[e])
        found = np.empty((PERMUTED, len(bound), 2, 2))
        for index, s in enumerate(bound):
            for n, order in enumerate(orders_of(effects, e, s)):
                data = without_permutations(effects, e, s, order)
                found[n, index] = [(r.estimate, r.se) for r in (mr.egger(*data), mr.ivw(*data))]
        for index, s in enumerate(bound):
            for m in range(2):
                one = local.isel(exposure=e, outcome=0, sequence=s, estimator=m)
                z = abs(found[:, index, m, 0] / found[:, index, m, 1])
                _same(one, found[:, index, m, 0], z, abs(one["estimate"] / one["se"]).item())
        for m in range(2):
            pooled = meta.random_effects(found[:, :, m, 0], found[:, :, m, 1])
            here = local["estimate"].values[e, 0, bound, m]
            t = abs(stats.ttest_1samp(found[:, :, m, 0], 0, axis=1).statistic)
            _same(
                overall.isel(exposure=e, outcome=0, estimator=m),
                pooled.estimate,
                t,
                abs(stats.ttest_1samp(here, 0).statistic),
            )
    assert np.isnan(local["permuted_mean"].values[0, 0, 3]).all()
    assert local.attrs["permutations"] == PERMUTED
    for known, dataset in ((terms.LOCAL_PERMUTED, local), (terms.GLOBAL_PERMUTED, overall)):
        for name, term in known.items():
            assert dataset[name].dims == term.dims
            assert dataset[name].attrs["long_name"]


def _same(found, permuted, distances, distance):
    np.testing.assert_allclose(found["permuted_mean"], permuted.mean(), rtol=1e-8)
    np.testing.assert_allclose(found["permuted_sd"], permuted.std(), rtol=1e-8)
    np.testing.assert_allclose(found["permuted_low"], np.quantile(permuted, 0.025), rtol=1e-8)
    np.testing.assert_allclose(found["permuted_high"], np.quantile(permuted, 0.975), rtol=1e-8)
    beyond = (distances >= distance).sum()
    np.testing.assert_allclose(found["permuted_pvalue"], (1 + beyond) / (PERMUTED + 1))
    assert int(found["n_permuted"]) == PERMUTED


def test_kept_draws_are_permuted_as_a_plain_loop_does(tmp_path):
    changes = {
        "effects": {"keep_draws": True},
        "mr": {"methods": ["cross_fitted_ivw", "ivw", "cross_fitted_egger"], "bidirectional": True},
        "controls": {"permuted_exposure": PERMUTED, "seed": 3},
    }
    tree = go(tmp_path, changes=changes)
    effects = tree["effects"].to_dataset().load()
    mutant = np.isnan(effects["exposure_effect"].values).argsort(-1, kind="stable")[..., :3]
    for e, path in itertools.product(range(2), ("", "reverse/")):
        local = tree[f"{path}local"].to_dataset().load()
        for s in np.flatnonzero(effects["bound"].values[e]):
            draws = [effects[f"{side}_draws"].values[i, s] for side, i in (("exposure", e), ("outcome", 0))]
            cause, effect = (np.take_along_axis(d, mutant[e, s][None], -1) for d in (draws[::-1] if path else draws))
            for m, method in ((0, mr.cross_fitted_ivw), (2, mr.cross_fitted_egger)):
                found = []
                for order in orders_of(effects, e, s):
                    x, y = (a.reshape(DRAWS, -1) for a in (cause[:, order], effect))
                    y = np.where((np.ptp(x, axis=0) == 0) | (np.ptp(y, axis=0) == 0), np.nan, y)
                    found.append(method(x, y))
                one = local.isel(exposure=e, outcome=0, sequence=s, estimator=m)
                estimate, se = (np.array([getattr(result, name) for result in found]) for name in ("estimate", "se"))
                answered = np.isfinite(estimate)
                assert int(one["n_permuted"]) == answered.sum()
                if answered.any():
                    np.testing.assert_allclose(one["permuted_mean"], estimate[answered].mean(), rtol=1e-6)
                    np.testing.assert_allclose(one["permuted_sd"], estimate[answered].std(), rtol=1e-6)
                if answered.any() and np.isfinite(one["estimate"]):
                    beyond = (abs(estimate / se)[answered] >= abs(one["estimate"] / one["se"]).item()).sum()
                    np.testing.assert_allclose(one["permuted_pvalue"], (1 + beyond) / (1 + answered.sum()))
    assert (tree["local"]["n_permuted"].values > 0).any((0, 1, 2)).all()
    again = re_estimate(tmp_path / "out.zarr", controls={"permuted_exposure": PERMUTED, "seed": 3})
    assert_same_results(again, tree)


def test_chosen_sequences_bring_their_own_shuffles(folder):
    whole = open_results(folder / "out.zarr")
    chosen = whole["effects"]["sequence"].values[[1, 3]].tolist()
    part = select(whole, sequence=chosen)
    for name in ("effects", "local"):
        assert part[name]["sequence"].values.tolist() == chosen
        shuffles = part[f"controls/{name}"]["sequence"].values.tolist()
        assert sorted(shuffles) == sorted(f"{origin} shuffle {number}" for origin in chosen for number in (1, 2))
        xr.testing.assert_identical(
            part[f"controls/{name}"].to_dataset(), whole[f"controls/{name}"].to_dataset().sel(sequence=shuffles)
        )


def test_chosen_sequences_without_shuffles_leave_empty_tables(tmp_path):
    tree = go(tmp_path, changes={"controls": {"shuffled_sequence": 1, "shuffled_per_exposure": 1}})
    shuffled = {name.rpartition(" shuffle ")[0] for name in tree["controls/effects"]["sequence"].values}
    bound = tree["effects"]["sequence"].values[tree["effects"]["bound"].values.any(0)]
    without = [name for name in bound if name not in shuffled]
    assert without
    export(tmp_path / "out.zarr", "tsv", tmp_path / "tables", sequence=without)
    local, controls = (pd.read_csv(tmp_path / f"tables/{name}.tsv", sep="\t") for name in ("local", "control_local"))
    assert set(local["sequence"]) == set(without)
    assert controls.empty
    assert controls.columns.tolist() == local.columns.tolist()


def test_tables_of_shuffled_sequences_are_written_beside_the_others(folder, tmp_path):
    paths = export(folder / "out.zarr", "tsv", tmp_path / "tables")
    tree = open_results(folder / "out.zarr")
    assert {"control_local.tsv", "control_global.tsv", "local.tsv"} < {path.name for path in paths}
    local = pd.read_csv(tmp_path / "tables/control_local.tsv", sep="\t")
    expected = tree["controls/local"]["estimate"].transpose("exposure", "outcome", "sequence", "estimator")
    bound = tree["controls/local"]["bound"].values
    values = np.concatenate([expected.values[e][:, bound[e]].ravel() for e in range(len(bound))])
    np.testing.assert_allclose(local["b"], values, rtol=1e-6)
    assert local["sequence"].str.contains(" shuffle ").all()


def make_store(folder, effect, seed=0):
    """Replace the effects of a finished store by simulated ones with a known effect of exposures on the outcome."""
    path = folder / "simulated.zarr"
    go(folder, path.name, {"controls": {}}, overwrite=path.exists())
    import zarr

    group = zarr.open_group(path, mode="r+", path="effects", use_consolidated=False)
    random = np.random.default_rng(seed)
    hole = np.isnan(group["exposure_effect"][:])
    bx = random.normal(size=hole.shape)
    by = effect * bx[:1] + random.normal(size=(1, *hole.shape[1:]))
    group["exposure_effect"][:] = np.where(hole, np.nan, bx)
    group["exposure_se"][:] = np.where(hole, np.nan, 0.05)
    group["outcome_effect"][:] = np.where(hole[:1], np.nan, by)
    group["outcome_se"][:] = np.where(hole[:1], np.nan, 1.0)
    return path


def test_without_an_effect_estimates_lie_among_the_permuted_ones_and_with_one_beyond_them(tmp_path):
    path = make_store(tmp_path, 0.0)
    pvalues = []
    for seed in range(3):
        tree = re_estimate(path, controls={"permuted_exposure": 99, "seed": seed})
        pvalues += tree["local"]["permuted_pvalue"].values[np.isfinite(tree["local"]["estimate"].values)].tolist()
    overall = tree["global"].to_dataset().load()
    assert stats.kstest(pvalues[: len(pvalues) // 3], "uniform").pvalue > 1e-3
    assert (abs(overall["permuted_mean"]) < 0.2).all()
    ratio = overall["permuted_sd"] / overall["se"]
    assert ((ratio > 0.5) & (ratio < 2)).all()
    tree = re_estimate(make_store(tmp_path, 1.0), controls={"permuted_exposure": 99})
    local, overall = (tree[name].sel(exposure="A") for name in ("local", "global"))
    np.testing.assert_allclose(local["permuted_pvalue"].values[:, tree["effects"]["bound"].values[0]], 0.01)
    assert (overall["permuted_pvalue"] < 0.06).all()  # Of two or three sequences a mean tells little.
    assert "permuted_mean" not in re_estimate(path, controls={"permuted_exposure": 0})["local"]


def test_permutations_do_not_depend_on_blocks_and_hold_for_both_directions(folder, tmp_path, monkeypatch):
    from kipoi_deepmr.estimate import summary

    settings = {"methods": ["ivw", "multivariable_ivw"], "bidirectional": True}
    tree = re_estimate(folder / "out.zarr", mr=settings)
    before = {name: tree[name].to_dataset().load() for name in ("local", "global", "reverse/local", "reverse/global")}
    monkeypatch.setattr(summary, "_BLOCK_ELEMENTS", 1)
    tree = re_estimate(folder / "out.zarr", mr=settings)
    for name, dataset in before.items():
        assert np.isfinite(dataset["permuted_mean"]).any()
        xr.testing.assert_allclose(tree[name].to_dataset().load(), dataset, rtol=1e-10)
    re_estimate(folder / "out.zarr", mr={"methods": ["egger", "ivw"], "bidirectional": False})


def test_shuffled_sequences_are_mutated_as_a_plain_loop_would(folder):
    tree = open_results(folder / "out.zarr")
    effects = tree["controls/effects"].to_dataset().load()
    names = effects["sequence"].values.tolist()
    windows = windows_of(folder)
    assert names == [f"{name} shuffle {number}" for name in windows for number in (1, 2)]
    assert (effects["bound"].values == np.repeat(tree["effects"]["bound"].values, 2, axis=1)).all()
    assert effects["completed"].all()
    from kipoi_deepmr.seeds import generator_of
    from kipoi_deepmr.sequences import dinucleotide_shuffle

    shuffled = {}
    for name in names:
        read = windows[name.partition(" ")[0]]
        codes = np.array(["ACGT".index(base) for base in read], dtype=np.int8)
        order = dinucleotide_shuffle(codes, generator_of(3, name))
        shuffled[name] = "".join(read[i] for i in order)
        assert Counter(itertools.pairwise(shuffled[name])) == Counter(itertools.pairwise(read))
        assert shuffled[name] != read
    assert ["".join(row) for row in effects["reference_allele"].values] == [s[10:40] for s in shuffled.values()]
    draws, _ = plain_loop(folder / "model", shuffled, [0, 2, 3], range(10, 40), draws=DRAWS)
    largest = np.nanmax(np.abs(draws))
    expected = np.moveaxis(draws.mean(3), -1, 0)
    np.testing.assert_allclose(effects["exposure_effect"], expected[:2], rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(effects["outcome_effect"], expected[2:], rtol=0, atol=1e-5 * largest)
    local, overall = tree["controls/local"].to_dataset(), tree["controls/global"].to_dataset()
    assert overall["n_sequences"].values.max() == 6
    data = without_permutations(effects, 0, 0)
    np.testing.assert_allclose(local["estimate"].values[0, 0, 0, 1], mr.ivw(*data).estimate, rtol=1e-9)
    assert "permuted_mean" not in local


@pytest.mark.parametrize("after", [2, 6])
def test_a_stopped_run_resumes_with_its_controls(folder, tmp_path, monkeypatch, after):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, after, KeyboardInterrupt())
        go(tmp_path, batch_size=1)
    stopped = open_results(tmp_path / "out.zarr")
    assert ("controls" in stopped.children) == (after > 4)
    assert int(stopped["effects"]["completed"].sum()) == min(after, 4)
    if after > 4:
        assert int(stopped["controls/effects"]["completed"].sum()) == after - 4
        with pytest.raises(StoreError, match=r"other data \(.*differs\): controls or the sequences have changed"):
            go(tmp_path, changes={"controls": {"shuffled_sequence": 2, "seed": 4}}, resume=True)
    resumed, whole = go(tmp_path, resume=True, batch_size=1), open_results(folder / "out.zarr")
    assert_same_results(resumed, whole)
    assert_same_results(resumed["controls"], whole["controls"])
    assert sorted(p.name for p in tmp_path.iterdir() if "zarr" in p.name) == ["out.zarr"]


def test_controls_can_be_added_to_a_finished_store_and_drawn_methods_work_for_them(folder, tmp_path):
    plain = {"mr": {"methods": ["ivw", "cross_fitted_ivw"]}, "controls": {}}
    go(tmp_path, changes=plain)
    tree = go(tmp_path, changes={**plain, "controls": SETTINGS["controls"]}, resume=True)
    found, whole = (t["controls/effects"].to_dataset().load() for t in (tree, open_results(folder / "out.zarr")))
    largest = float(np.abs(whole["exposure_effect"]).max())
    np.testing.assert_allclose(found["exposure_effect"], whole["exposure_effect"], rtol=0, atol=1e-5 * largest)
    assert (tree["controls/local"]["status"].isel(estimator=1).values[whole["bound"].values[:, None]] >= 0).all()
    assert np.isnan(tree["local"]["permuted_mean"].isel(estimator=1)).all()
    assert (tree["local"]["n_permuted"].isel(estimator=1) == 0).all()
    go(tmp_path, overwrite=True, changes=plain)
    assert "controls" not in open_results(tmp_path / "out.zarr").children


def test_settings_and_shuffled_sequences_do_not_drift_apart(tmp_path):
    go(tmp_path, changes={"mr": {"methods": ["ivw"]}})
    store = tmp_path / "out.zarr"
    for changes in ({"seed": 9}, {"shuffled_sequence": 1}):
        with pytest.raises(ConfigError, match=r"were made with .*shuffled_sequence: 2.*seed: 3"):
            re_estimate(store, controls=changes)
    plain = {"mr": {"methods": ["ivw", "egger"]}, "controls": {"shuffled_sequence": 0, "seed": 3}}
    with pytest.raises(ConfigError, match=r"controls\.seed: 4"):
        go(tmp_path, changes={**plain, "controls": {"shuffled_sequence": 0, "seed": 4}}, resume=True)
    tree = go(tmp_path, changes=plain, resume=True)
    assert tree["controls/local"]["estimator"].values.tolist() == ["ivw", "egger"]
    made = json.loads(tree["controls"].attrs["settings"])
    assert made == {"shuffled_sequence": 2, "shuffled_per_exposure": None, "seed": 3}
    assert json.loads(tree.attrs["config"])["controls"] == {**made, "permuted_exposure": 0}
    re_estimate(store, controls={"permuted_exposure": 1})


def test_shuffled_sequences_cannot_be_asked_for_without_the_model(tmp_path):
    go(tmp_path, changes={"controls": {}})
    with pytest.raises(ConfigError, match=r"controls\.shuffled_sequence: 1: .* need the model"):
        re_estimate(tmp_path / "out.zarr", controls={"shuffled_sequence": 1})


def test_methods_whose_draws_the_controls_lack_have_a_status_there(tmp_path, caplog):
    go(tmp_path, changes={"mr": {"methods": ["ivw", "cross_fitted_ivw"]}, "controls": {}})
    go(tmp_path, changes={"mr": {"methods": ["ivw"]}}, resume=True)
    tree = re_estimate(tmp_path / "out.zarr", mr={"methods": ["ivw", "cross_fitted_ivw"]})
    assert "of shuffled sequences by cross_fitted_ivw" in caplog.text
    assert (tree["local"]["status"].isel(estimator=1).values[tree["effects"]["bound"].values[:, None]] >= 0).all()
    status = tree["controls/local"]["status"].values
    bound = tree["controls/effects"]["bound"].values[:, None]
    assert (status[bound] == [0, -2]).all()


def permuted_by_hand(effects, **controls):
    config = MRSection(methods=["ivw", "multivariable_ivw"]), MetaSection(), ControlsSection(**controls)
    settings = SimpleNamespace(**dict(zip(("mr", "meta", "controls"), config, strict=True)))
    drawn = DrawnEstimates(effects, None)
    local = local_estimates(effects, settings.mr, drawn)
    overall = global_estimates(local, settings.meta, settings.mr.alpha, "identity")
    return with_permutations(effects, local, overall, settings, drawn)


def test_permutations_depend_on_seed_and_names_alone():
    effects = make_effects(sequences=4, positions=8)
    local, overall = permuted_by_hand(effects, permuted_exposure=5, seed=3)
    part, _ = permuted_by_hand(effects.isel(sequence=[2, 0]).assign_attrs(effects.attrs), permuted_exposure=5, seed=3)
    for name, term in terms.LOCAL_PERMUTED.items():
        np.testing.assert_array_equal(part[name], local[name].isel(sequence=[2, 0]), err_msg=name)
        assert local[name].dtype == term.dtype
    other, _ = permuted_by_hand(effects, permuted_exposure=5, seed=4)
    assert not np.isclose(other["permuted_mean"], local["permuted_mean"]).any()
    assert (local["n_permuted"] == 5).all() and (overall["n_permuted"] == 5).all()
    assert (local["permuted_pvalue"] >= 1 / 6).all()


def test_positions_without_an_error_stay_where_they_are():
    effects = make_effects(sequences=1, positions=8)
    effects["exposure_se"].values[0, 0, [2, 5]] = 0.0
    one = next(summaries(effects))
    for order in permuted._orders(one, np.array(["s0"]), ControlsSection(permuted_exposure=6), 0):
        assert order[[2, 5]].tolist() == [2, 5]
        assert sorted(order.tolist()) == list(range(8))


def test_shuffles_that_are_asked_for_are_those_of_the_store():
    made = ControlsSection(shuffled_sequence=2, seed=5)
    tree = xr.DataTree.from_dict({"controls": xr.Dataset(attrs={"settings": made.of_shuffles()})})
    assert permuted.as_made(tree, ControlsSection(seed=5, permuted_exposure=9)).shuffled_sequence == 2
    with pytest.raises(ConfigError, match=r"controls\.seed: 1: .* made with shuffled_sequence: 2, .*seed: 5"):
        permuted.as_made(tree, ControlsSection())
    with pytest.raises(ConfigError, match=r"controls\.shuffled_sequence: 1: "):
        permuted.check_controls(xr.DataTree(), ControlsSection(shuffled_sequence=1))
