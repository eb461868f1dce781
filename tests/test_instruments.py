"""Which mutations serve as instruments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kipoi_deepmr import instruments

effect = st.floats(-1e3, 1e3) | st.just(np.nan)
error = st.floats(0, 1e3) | st.just(np.nan)


@settings(max_examples=60, deadline=None)
@given(
    *(hnp.arrays(float, (3, 7), elements=elements) for elements in (effect, error, effect, error)),
    st.floats(0, 20),
)
def test_every_known_variant_is_an_instrument_or_counted_as_left_out(bx, bxse, by, byse, min_f):
    found = instruments.select(bx, bxse, by, byse, min_f=min_f)
    used = np.isfinite(found.bx)
    known = np.isfinite(bx) & np.isfinite(bxse) & np.isfinite(by) & np.isfinite(byse)
    np.testing.assert_array_equal(used.sum(-1) + found.n_weak + found.n_without_error, known.sum(-1))
    for kept, given_ in zip((found.bx, found.bxse, found.by, found.byse), (bx, bxse, by, byse), strict=True):
        np.testing.assert_array_equal(np.isfinite(kept), used)
        np.testing.assert_array_equal(kept[used], given_[used])
    with np.errstate(over="ignore"):
        assert ((found.bx[used] / found.bxse[used]) ** 2 >= min_f).all()


def test_a_weak_variant_and_one_without_error_are_told_apart():
    found = instruments.select([1.0, 3, 3, 3], [1.0, 1, 0, 1], [1.0, 1, 1, 1], [1.0, 1, 1, 0], min_f=4)
    np.testing.assert_array_equal(np.isfinite(found.bx), [False, True, False, False])
    assert (found.n_weak, found.n_without_error) == (1, 2)


def test_the_minimum_itself_is_strong_enough():
    assert instruments.select([2.0], [1.0], [1.0], [1.0], min_f=4).n_weak == 0


def test_strength_is_of_the_exposure_alone():
    assert instruments.select([9.0], [1.0], [0.001], [1.0], min_f=10).n_weak == 0


def test_exposures_are_broadcast_against_outcomes():
    rng = np.random.default_rng(0)
    found = instruments.select(
        rng.normal(size=(2, 1, 5)), np.ones((2, 1, 5)), rng.normal(size=(3, 5)), np.ones((3, 5)), min_f=1
    )
    assert found.bx.shape == found.byse.shape == (2, 3, 5)
    assert found.n_weak.shape == (2, 3)
    np.testing.assert_array_equal(found.bx[:, 0], found.bx[:, 2])


def test_float32_is_taken_exactly_and_nothing_given_is_changed():
    given_ = [np.array([1, np.nan, 3], np.float32), *(np.ones(3, np.float32) for _ in range(3))]
    found = instruments.select(*given_, min_f=4)
    assert found.bx.dtype == np.float64
    np.testing.assert_array_equal(given_[0], [1, np.nan, 3])
    np.testing.assert_array_equal(found.by, [np.nan, np.nan, 1])


@pytest.mark.parametrize(("bx", "bxse"), [(1.0, 5e-324), (1e300, 1e-300)])
def test_an_effect_that_dwarfs_its_error_is_strong_without_a_warning(bx, bxse):
    assert instruments.select([bx], [bxse], [1.0], [1.0], min_f=10).n_weak == 0
