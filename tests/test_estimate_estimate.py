"""From a store to its estimates: settings, directions, controls, what is left out or asked for in vain."""

import json
import logging

import numpy as np
import pytest
import zarr

from kipoi_deepmr.config import Config, MRSection, parse_config
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.estimate import estimate_store, settings_of_estimates
from tests.small_stores import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("estimate"))


def config_of(store, *, controls=None, **mr) -> Config:
    with open_results(store) as tree:
        settings = json.loads(tree.attrs["config"])
    return parse_config({**settings, "mr": {"methods": ["ivw"], **mr}, "controls": controls or {}}, store.parent)


def test_all_groups_of_a_store_hold_the_settings_with_which_they_were_made(store):
    config = config_of(store, min_f=1.0, bidirectional=True)
    assert estimate_store(store, config) == config
    with open_results(store) as tree:
        assert settings_of_estimates(tree) == json.loads(config.model_dump_json(include={"mr", "meta", "controls"}))
        for name in ("local", "global", "reverse/local", "reverse/global"):
            assert json.loads(tree[name].attrs["settings"])["mr"]["min_f"] == 1.0
    estimate_store(store, config_of(store))
    with open_results(store) as tree:
        assert "reverse" not in tree.children


def test_a_store_without_estimates_has_no_settings(store):
    with open_results(store) as tree:
        del tree["local"]
        assert settings_of_estimates(tree) == {}


def test_without_a_completed_sequence_there_is_nothing_to_estimate(tmp_path):
    path = write_store(tmp_path)
    zarr.open_group(path, path="effects", mode="r+", use_consolidated=False)["completed"][:] = False
    with pytest.raises(StoreError, match=r"out\.zarr has no completed sequence yet: run it with --resume"):
        estimate_store(path, config_of(path))


def test_a_part_is_estimated_with_a_warning(tmp_path, caplog):
    path = write_store(tmp_path, completed=3)
    assert "only 3 of 8 sequences are completed: go on with run --resume" in caplog.text
    with open_results(path) as tree:
        assert np.isnan(tree["local"]["estimate"].values[:, :, 3:]).all()
        assert tree["global"]["n_sequences"].values.max() == 3


def test_methods_without_their_draws_are_left_out_unless_they_were_named(store, caplog):
    config = config_of(store, methods=["ivw", "cross_fitted_ivw"])
    with pytest.raises(StoreError, match=r"cross_fitted_ivw needs the effects of every draw"):
        estimate_store(store, config)
    found = estimate_store(store, config, named=False)
    assert "left out: cross_fitted_ivw, which need the effects of every draw" in caplog.text
    # They come back with their draws.
    assert found.mr.methods == config.mr.methods
    with open_results(store) as tree:
        assert tree["local"]["estimator"].values.tolist() == ["ivw"]
    alone = config.model_copy(update={"mr": MRSection(methods=["cross_fitted_ivw"])})
    with pytest.raises(StoreError, match="needs the effects of every draw"):
        estimate_store(store, alone, named=False)


@pytest.mark.parametrize(("min_f", "warned"), [(0.0, True), (0.1, False)])
def test_methods_that_near_zero_mutations_decide_are_named(store, caplog, min_f, warned):
    with caplog.at_level(logging.WARNING):
        estimate_store(store, config_of(store, methods=["ivw", "simple_mode", "raps"], min_f=min_f))
    assert ("mr.methods: in simple_mode, raps the many mutations" in caplog.text) == warned


def test_permutations_stand_beside_both_groups_and_do_not_change_them(store):
    estimate_store(store, config_of(store))
    with open_results(store) as tree:
        before = {name: tree[name].to_dataset().load() for name in ("local", "global")}
    estimate_store(store, config_of(store, controls={"permuted_exposure": 3, "seed": 2}))
    with open_results(store) as tree:
        for name, dataset in before.items():
            assert tree[name].attrs["permutations"] == 3
            assert int(tree[name]["n_permuted"].max()) == 3
            assert tree[name].to_dataset()[list(dataset)].drop_attrs().equals(dataset.drop_attrs())
