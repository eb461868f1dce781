"""What every estimator accepts as data and options."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from kipoi_deepmr import mr
from tests.mr_helpers import assert_same_fit, draw

ESTIMATORS: dict[str, Callable[..., Any]] = {
    "ivw": mr.ivw,
    "egger": mr.egger,
    "weighted_median": partial(mr.weighted_median, n_boot=10),
    "maximum_likelihood": mr.maximum_likelihood,
    "raps": mr.raps,
    "contamination_mixture": partial(mr.contamination_mixture, invalid_sd=1.0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("which", range(4))
def test_a_mask_hides_a_variant(name: str, which: int) -> None:
    if name in ("ivw", "egger") and which == 1:
        pytest.skip("bxse does not enter the estimate")
    columns = draw(4, 9)
    hidden = np.zeros(9, dtype=bool)
    hidden[[2, 5]] = True
    masked: list[Any] = list(columns)
    masked[which] = np.ma.masked_array(columns[which], hidden)
    absent = [np.where(hidden, np.nan, column) if place == which else column for place, column in enumerate(columns)]
    assert_same_fit(ESTIMATORS[name](*masked), ESTIMATORS[name](*absent))


def test_a_mask_of_whole_numbers_and_one_that_hides_nothing() -> None:
    bx = np.ma.masked_array([1, 2, 3, 4], [False, True, False, False])
    ones = np.ones(4)
    assert mr.ivw(bx, ones, ones, ones).n_instruments == 3
    assert mr.ivw(np.ma.masked_array(ones), ones, ones, ones).n_instruments == 4


def test_options_may_be_numbers_of_numpy() -> None:
    columns = draw(1, 8)
    for yes in (True, np.True_):
        assert_same_fit(mr.ivw(*columns, penalized=yes), mr.ivw(*columns, penalized=True))
    assert_same_fit(mr.raps(*columns, over_dispersion=np.False_), mr.raps(*columns))
    bx = np.stack([columns[0], draw(2, 8)[0]])
    bxse = np.full(bx.shape, 0.05)
    first = mr.multivariable_egger(bx, bxse, *columns[2:], orientation=np.int64(1))
    assert_same_fit(first, mr.multivariable_egger(bx, bxse, *columns[2:], orientation=1))
    with pytest.raises(ValueError, match="orientation=True"):
        mr.multivariable_egger(bx, bxse, *columns[2:], orientation=True)


WIDE: dict[str, Callable[..., Any]] = ESTIMATORS | {
    "simple_mode": partial(mr.simple_mode, n_boot=10),
    "debiased_ivw": mr.debiased_ivw,
    "penalized_ivw": mr.penalized_ivw,
    "overlap_debiased_ivw": partial(mr.overlap_debiased_ivw, draws=50),
    "raps with over-dispersion": partial(mr.raps, over_dispersion=True),
    "lasso": mr.lasso,
    "cml": mr.cml,
    "contamination_mixture": mr.contamination_mixture,
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(("exposure", "outcome"), [(1e-150, 1.0), (1.0, 1e-150), (1e150, 1.0), (1.0, 1e150)])
def test_units_far_from_one(name: str, exposure: float, outcome: float) -> None:
    bx, bxse, by, byse = draw(3, 12)
    plain = WIDE[name](bx, bxse, by, byse)
    scaled = WIDE[name](bx * exposure, bxse * exposure, by * outcome, byse * outcome)
    for field in ("estimate", "se", "ci_low", "ci_high"):
        wanted = getattr(plain, field) / exposure * outcome
        np.testing.assert_allclose(getattr(scaled, field), wanted, rtol=1e-6, err_msg=field)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("exposure", [1e-150, 1e150])
def test_units_beyond_all_numbers_are_no_error(name: str, exposure: float) -> None:
    bx, bxse, by, byse = draw(3, 12)
    result = WIDE[name](bx * exposure, bxse * exposure, by / exposure, byse / exposure)
    assert np.isnan(result.estimate) == (result.status != mr.Status.OK)


@pytest.mark.parametrize("name", ["ivw", "maximum_likelihood", "raps", "overlap_debiased_ivw", "cml"])
def test_psi_is_a_correlation(name: str) -> None:
    columns = draw(1, 5)
    options = {"weights": "delta"} if name == "ivw" else {}
    for psi in (-1.0, 1.0):
        getattr(mr, name)(*columns, psi=psi, **options)
    for psi in (-1.001, 1.001, np.full(5, 1.001)):
        with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
            getattr(mr, name)(*columns, psi=psi, **options)
