"""Estimating again from a store, with other settings and without the model."""

import json

import numpy as np
import pytest

from kipoi_deepmr import mr
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import ConfigError, StoreError
from kipoi_deepmr.estimate.again import re_estimate
from tests.small_stores import write_store


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path)


def test_what_is_asked_for_changes_and_all_else_stays(store):
    before = open_results(store)["local"].to_dataset().load()
    tree = re_estimate(store, mr={"min_f": 4.0}, meta={"method": "DL"})
    settings = json.loads(tree["local"].attrs["settings"])
    assert (settings["mr"]["min_f"], settings["meta"]["method"]) == (4.0, "DL")
    assert (settings["mr"]["methods"], settings["meta"]["test"]) == (["egger", "ivw"], "z")
    assert (tree["local"]["n_instruments"] < before["n_instruments"]).any()
    assert tree["global"].attrs["tau2_method"] == "DL"
    assert json.loads(tree.attrs["config"])["mr"]["min_f"] == 4.0
    assert tree.attrs["history"].splitlines()[-1].endswith("estimated again")


def test_the_settings_of_the_last_estimates_are_those_that_go_on(store):
    re_estimate(store, mr={"min_f": 4.0, "methods": ["ivw"]})
    tree = re_estimate(store, meta={"test": "knha"})
    settings = json.loads(tree["local"].attrs["settings"])
    assert (settings["mr"]["min_f"], settings["mr"]["methods"], settings["meta"]["test"]) == (4.0, ["ivw"], "knha")


def test_the_estimates_are_those_of_the_stored_effects(store):
    tree = re_estimate(store, mr={"methods": ["weighted_mode", "ivw"], "min_f": 0})
    effects = tree["effects"].to_dataset().isel(exposure=2, outcome=0, sequence=3).load()
    columns = [
        effects[f"{side}_{kind}"].values.ravel() for side in ("exposure", "outcome") for kind in ("effect", "se")
    ]
    known = np.isfinite(columns[0])
    expected = mr.ivw(*(column[known].astype(np.float64) for column in columns))
    found = tree["local"].to_dataset().isel(exposure=2, outcome=0, sequence=3).sel(estimator="ivw")
    assert float(found["estimate"]) == pytest.approx(float(expected.estimate), rel=1e-12)
    assert float(found["se"]) == pytest.approx(float(expected.se), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mr": {"methods": ["ivv"]}}, "'ivv' is not allowed. Did you mean 'ivw'"),
        ({"mr": {"minimum": 3}}, "unknown key 'minimum'"),
        ({"meta": {"method": "reml"}}, "Did you mean 'REML'"),
        ({"controls": {"shuffled_sequence": 2}}, "shuffled_sequence"),
    ],
)
def test_what_is_not_allowed_changes_nothing(store, changes, message):
    before = open_results(store)
    with pytest.raises(ConfigError, match=message):
        re_estimate(store, **changes)
    after = open_results(store)
    assert after.attrs == before.attrs and after["local"].identical(before["local"])


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        re_estimate(tmp_path / "absent.zarr")
