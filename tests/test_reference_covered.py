"""Calls that the tests read by their full name: one with another option, or of another package, must not go unnoticed.

What belongs to functions whose tests read every call of theirs, option by option, is checked there; that every function is
compared or listed, in `test_mr_ivw.py` and `test_mr_multivariable.py`.
"""

import pytest

from tests.reference_numbers import load, names, sources

CALLS = {
    "MendelianRandomization": {"mr_loo()"},
    "MRPRESSO": {
        "global test observed RSS",
        "global test observed RSS (multivariable)",
        "mr_presso()",
        "mr_presso(OUTLIERtest=TRUE,DISTORTIONtest=TRUE,NbDistribution=1000,seed)",
    },
    "TwoSampleMR": {
        *("mr_ivw()", "mr_ivw_mre()", "mr_ivw_fe()", "mr_egger_regression()", "mr_two_sample_ml()", "mr_mode()"),
        *("mr_simple_median()", "mr_weighted_median()", "mr_penalised_weighted_median()"),
        *("mr_heterogeneity()", "mr_pleiotropy_test()", "Isq(abs(bx),bxse)", "Isq(abs(bx)/byse,bxse/byse)"),
        *("mr_rucker(test_dist='z')", "mr_rucker(test_dist='t')", "mr_rucker_cooksdistance()"),
        *("directionality_test()", "mr_steiger(r from bsen)", "mr_steiger(r from bsen,r_xxo=0.9,r_yyo=0.8)"),
        *("mr_steiger2(r from bsen)", "get_r_from_pn()", "get_r_from_bsen()", "steiger_filtering()"),
        *("mr_leaveoneout(mr_ivw)", "mr_leaveoneout(mr_egger_regression)", "mr_singlesnp()", "mr_wald_ratio()"),
        *(
            f"{function}(intercept={intercept},instrument_specific={specific})"
            for function in ("mv_multiple", "mv_residual")
            for intercept in ("FALSE", "TRUE")
            for specific in ("FALSE", "TRUE")
        ),
        # No estimators of this project: listed in test_mr_ivw.py.
        *("mr_uwr()", "mr_sign()", "mr_grip()", "mr_egger_regression_bootstrap()", "mr_meta_fixed_simple()"),
    },
    "MVMR": {
        "ivw_mvmr(gencov=0)",
        *(f"{name}_mvmr(gencov={value})" for name in ("strength", "pleiotropy") for value in ("0", "phenocov(0.3)")),
    },
    "own": {"profile_ml", "profile_ml(psi=0.3)", "correl:profile_ml(psi=0)", "correl:profile_ml(psi=0.3)"},
}
# Functions whose tests read every call; what they find in a key that they do not know fails there.
READ_WHOLE = {
    "MendelianRandomization": {
        *("mr_ivw", "mr_egger", "mr_median", "mr_mbe", "mr_conmix", "mr_lasso", "mr_divw", "mr_pivw", "mr_maxlik"),
        *("mr_cML", "cML_estimate_random", "mr_mvivw", "mr_mvegger"),
        # No estimators of this project: listed in test_mr_multivariable.py.
        *("mr_mvgmm", "mr_mvmedian", "mr_mvlasso", "mr_mvcML", "condFstat"),
    },
    "mr.raps": {"mr.raps.mle", "mr.raps.shrinkage"},
    "mr.raps_CRAN_0.2": {"mr.raps"},
    "RadialMR": {"ivw_radial", "egger_radial"},
    "own": {"raps"},
}
MV_AND_MR = [*sources("mr_"), *sources("mv_")]


@pytest.mark.parametrize(("source", "name"), MV_AND_MR)
def test_every_call_is_known(source: str, name: str) -> None:
    unknown = [
        f"{record.package}: {record.key}"
        for record in load(source, name).records
        if record.function not in READ_WHOLE.get(record.package, set())
        and record.key not in CALLS.get(record.package, set())
    ]
    assert not unknown, "neither compared nor listed"


def test_no_data_set_has_another_kind_of_name() -> None:
    kinds = ("mr_", "mv_", "meta_")
    for source in ("committed", "full"):
        assert all(name.startswith(kinds) for name in names(source, ""))
