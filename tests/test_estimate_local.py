"""Local effects from hand-made numbers: what is blank, what is counted, what the attributes say."""

import numpy as np
import pytest

from kipoi_deepmr import mr, terms
from kipoi_deepmr.config import MRSection
from kipoi_deepmr.estimate.from_draws import DrawnEstimates
from kipoi_deepmr.estimate.local import describe, flags, local_estimates
from kipoi_deepmr.estimate.summary import summaries
from tests.hand_made import make_effects, mutants

BOUND = np.array([[True, True, False], [False, True, True]])


def estimates(effects, *methods, **options):
    section = MRSection(
        methods=list(methods), **{key: options.pop(key) for key in ("min_f", "alpha") if key in options}
    )
    return local_estimates(effects, section, DrawnEstimates(effects, None), **options)


def test_where_a_sequence_does_not_count_everything_is_as_its_term_says():
    local = estimates(make_effects(bound=BOUND), "ivw", "cross_fitted_ivw")
    for name, term in terms.LOCAL.items():
        assert local[name].dims == term.dims
        assert local[name].dtype == term.dtype
        blank = local[name].values[~BOUND[:, None].repeat(2, axis=1)]
        np.testing.assert_array_equal(blank, np.full(blank.shape, term.fill, term.dtype), err_msg=name)
    assert np.isfinite(local["estimate"].sel(estimator="ivw").values[BOUND[:, None].repeat(2, axis=1)]).all()


def test_every_status_is_told_apart_and_explained():
    effects = make_effects(bound=BOUND)
    effects["exposure_se"].values[0, 0] = 0.0  # no instrument is left
    local = estimates(effects, "ivw", "cross_fitted_ivw")
    meanings = dict(
        zip(local["status"].attrs["flag_values"], local["status"].attrs["flag_meanings"].split(), strict=True)
    )
    status = local["status"].isel(exposure=0, outcome=0).values
    assert [[meanings[code] for code in row] for row in status.tolist()] == [
        ["too_few_instruments", "draws_not_in_store"],
        ["ok", "draws_not_in_store"],
        ["not_bound_or_not_completed", "not_bound_or_not_completed"],
    ]
    assert "draws_not_in_store" not in estimates(effects, "ivw")["status"].attrs["flag_meanings"]


def test_a_variable_that_an_estimator_does_not_have_is_blank():
    local = estimates(make_effects(), "ivw", "egger", "weighted_median")
    known = {name: np.isfinite(local[name].values[0, 0, 0]).tolist() for name in ("intercept", "q", "tau2", "se")}
    assert known == {
        "intercept": [False, True, False],
        "q": [True, True, False],
        "tau2": [False] * 3,
        "se": [True] * 3,
    }


def test_an_estimator_that_needs_draws_is_fitted_from_those_that_are_kept():
    effects = make_effects(kept=True)
    local = estimates(effects, "cross_fitted_ivw", reverse=True)
    x, y = (
        effects[name].isel({side: 1, "sequence": 2}).values.reshape(16, -1)
        for name, side in (("outcome_draws", "outcome"), ("exposure_draws", "exposure"))
    )
    one = local.isel(exposure=1, outcome=1, sequence=2, estimator=0)
    known = np.isfinite(x[0])
    assert float(one["estimate"]) == pytest.approx(float(mr.cross_fitted_ivw(x[:, known], y[:, known]).estimate))
    assert int(one["status"]) == 0


def test_what_is_left_out_is_counted():
    effects = make_effects(exposures=1, outcomes=1, sequences=1, positions=4)
    effects["exposure_effect"].values[0, 0, 0, 1:] = 0.0  # weak
    effects["outcome_se"].values[0, 0, 1, 0] = 0.0
    effects["exposure_se"].values[0, 0, 1, 2:] = 0.0
    chosen = next(summaries(effects)).selected(1e-9)
    found = describe(chosen)
    assert {name: int(found[name].item()) for name in ("n_instruments", "n_weak", "n_without_error")} == {
        "n_instruments": 6,
        "n_weak": 3,
        "n_without_error": 3,
    }
    used = np.isfinite(chosen.bx[0, 0])
    bx, bxse, by, byse = (getattr(chosen, name)[0, 0, used] for name in ("bx", "bxse", "by", "byse"))
    assert found["f_statistic"].item() == pytest.approx(np.mean((bx / bxse) ** 2))
    assert found["steiger_share"].item() == pytest.approx(np.mean(np.abs(bx / bxse) > np.abs(by / byse)))


def test_shares_without_instruments_are_unknown():
    effects = make_effects(exposures=1, outcomes=1, sequences=1)
    effects["outcome_se"].values[:] = 0.0
    found = describe(next(summaries(effects)).selected(0.0))
    assert int(found["n_instruments"].item()) == 0
    assert np.isnan([found[name].item() for name in ("f_statistic", "i2_gx", "steiger_share", "q_difference")]).all()


def test_attributes_say_how_estimates_were_made():
    own = {"name": "wide", "estimator": "raps", "loss": "huber"}
    local = estimates(make_effects(), "ivw", own, "debiased_ivw", min_f=2.0, alpha=0.1)
    assert local["standard_error"].values.tolist() == ["posterior", "monte_carlo", "monte_carlo"]
    assert local.attrs["min_f"] == 2.0
    assert local["ci_low"].attrs["confidence_level"] == local["ci_high"].attrs["confidence_level"] == 0.9
    described = local["estimator"].attrs["description"].split("; ")
    assert described[0] == "ivw: inverse-variance weighted, random effects from 4 instruments on (Burgess 2013)"
    assert described[1].startswith("wide: robust adjusted profile score")
    assert described[1].endswith("(Monte-Carlo errors) with loss: huber")
    assert "comment" not in local["estimator"].attrs
    assert float(local["estimate"].sel(estimator="wide")[0, 0, 0]) == float(local["estimate"][0, 0, 0, 1])


def test_progress_counts_the_sequences_of_every_method():
    seen = []
    estimates(make_effects(bound=BOUND), "ivw", "egger", "cross_fitted_ivw", progress=seen.append)
    assert sum(seen) == 3 * BOUND.sum()


def test_in_reverse_the_outcome_is_the_cause():
    effects = make_effects()
    local = estimates(effects, "ivw", reverse=True)
    here = [
        mutants(effects, f"{side}_{what}", **{side: 1, "sequence": 0})
        for side in ("outcome", "exposure")
        for what in ("effect", "se")
    ]
    assert float(local["estimate"][1, 1, 0, 0]) == pytest.approx(float(mr.ivw(*here).estimate))
    assert local["estimate"].attrs["units"] == "exposure per outcome"


def test_flags_are_those_of_cf():
    assert flags(mr.Status, {-1: "absent"}) == {
        "flag_values": [-1, *(int(member) for member in mr.Status)],
        "flag_meanings": " ".join(["absent", *(member.name.lower() for member in mr.Status)]),
    }
