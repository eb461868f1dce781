"""Fits of many rows in blocks: the numbers of each row alone, whatever broadcasts, in bounded memory."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

from kipoi_deepmr import mr
from kipoi_deepmr.mr.core import blocks
from tests.mr_helpers import draw

FITS = {
    "ivw": mr.ivw,
    "egger": mr.egger,
    "rucker_q": mr.diagnostics.rucker_q,
}
SHAPES = [(7, 30), (2, 3, 5, 30), (1, 4, 0, 30), (3, 1, 30), (5, 0), (30,)]


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 61, 200])
def test_blocks_of_any_size_give_what_one_block_gives(name, shape, size, monkeypatch):
    random = np.random.default_rng(1)
    bx, by = random.normal(size=(2, *shape))
    bxse, byse = random.uniform(0.1, 1, (2, *shape))
    bx[random.random(shape) < 0.1] = np.nan
    whole = FITS[name](bx, bxse, by, byse, weights="delta", psi=0.3)
    monkeypatch.setattr(blocks, "_REGRESSION", size)
    parts = FITS[name](bx, bxse, by, byse, weights="delta", psi=0.3)
    for name in whole.arrays:
        one, other = (getattr(result, name) for result in (whole, parts))
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=0, err_msg=name)


@pytest.mark.parametrize("shape", [(), (1,), (30,), (4, 1), (5, 4, 30), (5, 1, 1)], ids=str)
def test_psi_of_any_shape_is_cut_with_its_rows(shape, monkeypatch):
    random = np.random.default_rng(2)
    bx, by = random.normal(size=(2, 5, 4, 30))
    psi = random.uniform(-1, 1, shape)
    se = np.full(bx.shape, 0.3)
    whole = mr.ivw(bx, se, by, se, weights="delta", psi=psi)
    monkeypatch.setattr(blocks, "_REGRESSION", 70)
    parts = mr.ivw(bx, se, by, se, weights="delta", psi=psi)
    np.testing.assert_allclose(whole.estimate, parts.estimate, rtol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_many_fits_take_no_more_memory_than_a_block_needs(name):
    bx, bxse, by, byse = (np.full((400, 3000), value) for value in (1.0, 0.2, 0.8, 0.3))
    bx[:, ::2] = -0.5
    tracemalloc.start()
    try:
        FITS[name](bx, bxse, by, byse)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bx.nbytes


RESAMPLED = {
    "simple_median": mr.simple_median,
    "weighted_median": mr.weighted_median,
    "penalized_weighted_median": mr.penalized_weighted_median,
    "simple_mode": mr.simple_mode,
    "weighted_mode": mr.weighted_mode,
    "penalized_ivw": partial(mr.penalized_ivw, ci="bootstrap"),
    "cml": partial(mr.cml, n_perturb=6, max_invalid=4),
}


@pytest.mark.parametrize("name", RESAMPLED)
def test_absent_variants_change_no_draw(name):
    columns = draw(3, 11, (4,))
    columns[2][1] += np.random.default_rng(1).normal(0, 0.3, 11)
    plain = RESAMPLED[name](*columns, seed=5)
    # Gaps within and at both ends, others in each fit, and a tail of absent variants.
    padded = [np.full((4, 20), np.nan) for _ in columns]
    for row, place in enumerate(
        (slice(0, 11), slice(9, 20), slice(None, None, 2), [0, 1, 2, 3, 7, 8, 11, 12, 15, 18, 19])
    ):
        places = np.arange(20)[place]
        places = places if len(places) == 11 else np.append(places, 19)
        for wide, column in zip(padded, columns, strict=True):
            wide[row, places] = column[row]
    other = RESAMPLED[name](*padded, seed=5)
    for field in ("estimate", "se", "ci_low", "ci_high", "pvalue"):
        np.testing.assert_allclose(getattr(other, field), getattr(plain, field), rtol=1e-9, err_msg=field)


def test_draws_of_a_variant_depend_on_neither_the_others_nor_the_block(monkeypatch):
    wide, narrow = (dict(_draws(300, 2, size, 7)) for size in (12, 5))
    monkeypatch.setattr(blocks, "_NORMALS", 1)
    small = dict(_draws(300, 2, 12, 7))
    assert len(wide) == len(narrow) == len(small) == 300
    for number, normals in wide.items():
        np.testing.assert_array_equal(normals[:, :5], narrow[number])
        np.testing.assert_array_equal(normals, small[number])


def _draws(*arguments):
    for where, block in blocks.normal_blocks(*arguments):
        yield from zip(range(where.start, where.stop), block, strict=True)
