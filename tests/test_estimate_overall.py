"""Global effects from hand-made local ones: meta-analysis, sequences left out, what is missing."""

import numpy as np
import pytest
import xarray as xr

from kipoi_deepmr import meta, terms
from kipoi_deepmr.config import MetaSection
from kipoi_deepmr.estimate.overall import global_estimates, with_leave_one_out

ESTIMATE = np.array([0.3, 0.5, 0.4, np.nan, 0.9])
SE = np.array([0.1, 0.2, 0.1, np.nan, 0.3])
BOUND = np.array([[True, True, True, True, False]])


def make_local(estimate=ESTIMATE, se=SE, bound=BOUND):
    text = {terms.EXPOSURE: ["E"], terms.OUTCOME: ["O"], terms.SEQUENCE: list("abcde"), terms.ESTIMATOR: ["ivw"]}
    estimate, se = (np.where(bound, array, np.nan) for array in (estimate, se))
    dims = (*terms.LOCAL_DIMS, terms.ESTIMATOR)
    local = xr.Dataset(
        {"estimate": (dims, estimate[:, None, :, None]), "se": (dims, se[:, None, :, None])},
        {
            **{name: np.array(words, dtype=object) for name, words in text.items()},
            "bound": ((terms.EXPOSURE, terms.SEQUENCE), bound),
            "standard_error": (terms.ESTIMATOR, np.array(["posterior"], dtype=object)),
        },
    )
    local[terms.ESTIMATOR].attrs["description"] = "ivw: a sentence"
    return local


def test_the_global_effect_is_the_meta_analysis_of_what_there_is():
    found = global_estimates(make_local(), MetaSection(method="DL", test="knha"), 0.1, "logit")
    expected = meta.random_effects(ESTIMATE[:3], SE[:3], method="DL", test="knha", alpha=0.1)
    for name in ("estimate", "se", "ci_low", "ci_high", "tau2", "i2", "prediction_high"):
        assert found[name].item() == getattr(expected, name), name
    assert found["n_sequences"].item() == 3
    interval = meta.tau2_interval(ESTIMATE[:3], SE[:3], alpha=0.1)
    assert found["tau2_high"].item() == interval.tau2_high


def test_every_variable_is_as_its_term_says():
    found = global_estimates(make_local(), MetaSection(), 0.05, "identity")
    assert list(found.data_vars) == list(terms.GLOBAL)
    for name, term in terms.GLOBAL.items():
        assert (found[name].dims, found[name].dtype) == (term.dims, np.dtype(term.dtype)), name


def test_attributes_say_how_it_was_made():
    found = global_estimates(make_local(), MetaSection(method="PM", test="t"), 0.1, "log", reverse=True)
    assert (found.attrs["tau2_method"], found.attrs["test"], found.attrs["prediction"]) == ("PM", "t", "default")
    assert found.attrs["direction"] == "effect of the outcome on the exposure"
    assert found["estimate"].attrs["units"] == "exposure per outcome"
    assert found["estimate"].attrs["scale"] == "log"
    assert found["prediction_low"].attrs["confidence_level"] == found["tau2_high"].attrs["confidence_level"] == 0.9
    assert found["standard_error"].values.tolist() == ["posterior"]
    assert found[terms.ESTIMATOR].attrs["description"] == "ivw: a sentence"


def test_without_any_estimate_the_status_says_so():
    found = global_estimates(make_local(np.full(5, np.nan)), MetaSection(), 0.05, "identity")
    assert np.isnan(found["estimate"].item())
    assert found["n_sequences"].item() == 0
    codes = found["status"].attrs["flag_values"]
    assert found["status"].attrs["flag_meanings"].split()[codes.index(found["status"].item())] != "ok"


@pytest.mark.parametrize("method", ["REML", "DL"])
def test_leave_one_out_is_plain_meta_analysis_of_the_others(method):
    section = MetaSection(method=method)
    found = with_leave_one_out(make_local(), section, "identity")
    for left in range(3):
        others = np.delete(np.arange(3), left)
        expected = meta.random_effects(ESTIMATE[others], SE[others], method=method)
        assert found["leave_one_out"].values[0, 0, left, 0] == pytest.approx(float(expected.estimate), rel=1e-12)
        assert found["leave_one_out_se"].values[0, 0, left, 0] == pytest.approx(float(expected.se), rel=1e-12)
    # The one without an estimate, and the one that does not count.
    assert np.isnan(found["leave_one_out"].values[0, 0, 3:, 0]).all()
    assert found["leave_one_out"].attrs["units"] == "outcome per exposure"
