"""Predicting alone: a job that is handed no estimators keeps to effects."""

import numpy as np

from kipoi_deepmr.config import load_config
from kipoi_deepmr.cube import Cube
from kipoi_deepmr.estimate.from_draws import during_the_run
from kipoi_deepmr.predict.compute import write_effects
from kipoi_deepmr.predict.prepare import prepare
from tests.kipoi_models import write_project

CROSS_FITTED = {"mr": {"methods": ["cross_fitted_ivw"]}, "uncertainty": {"draws": 5}, "mutagenesis": {"engine": "full"}}


def test_effects_do_not_depend_on_who_estimates_from_the_draws(tmp_path):
    config = load_config(write_project(tmp_path, CROSS_FITTED))
    cubes = []
    for name, estimators in (("alone", ()), ("joined", (during_the_run(config),))):
        with prepare(config, *estimators, device="cpu") as job:
            cubes.append(Cube.create(tmp_path / f"{name}.zarr", job.template()))
            write_effects(job, cubes[-1], progress=False)
    alone, joined = cubes
    assert alone.drawn is None and joined.drawn is not None and joined.drawn.methods == ("cross_fitted_ivw",)
    assert alone.completed().all()
    for name in ("exposure_effect", "outcome_se", "error_covariance"):
        np.testing.assert_array_equal(alone.coordinate(name), joined.coordinate(name))
