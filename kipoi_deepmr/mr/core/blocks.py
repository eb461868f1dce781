"""Many fits in bounded memory: blocks of rows, and the seeded parametric bootstrap over blocks of draws."""

import math
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from kipoi_deepmr.mr.core.inputs import Associations, BoolArray, FloatArray

# Elements of a tile that stays in the cache of a core, of the normal draws, and of the estimates held at once.
_TILE = 2**17
_NORMALS = 2**21
_HELD = 2**23
# Draws that share a stream of random numbers: part of what a seed means.
_STREAM = 128
# Elements of the arrays of a regression that stay in the cache of a core.
_REGRESSION = 2**16

Found = TypeVar("Found")


def over_blocks(fit: Callable[..., Found], *arrays: FloatArray) -> Found:
    """Return the `Result` of `fit`, with arrays (...) or (..., J), computed block by block of the leading axes.

    The first array has the shape (..., J); the others have it or broadcast to it. Only the blocks of which `fit` makes
    copies are in memory beside the result.
    """
    shape = arrays[0].shape
    if math.prod(shape) <= _REGRESSION or len(shape) < 2:
        return fit(*arrays)
    padded = [array.reshape((1,) * (len(shape) - array.ndim) + array.shape) for array in arrays]
    whole: dict[str, Any] = {}
    for where in _leading_blocks(shape[:-1], max(1, _REGRESSION // max(1, shape[-1]))):
        # What broadcasts along an axis has one element there.
        parts = [
            array[tuple(slice(None) if size == 1 else one for size, one in zip(array.shape, where, strict=False))]
            for array in padded
        ]
        result = fit(*parts)
        for name, part in vars(result).items():
            if not isinstance(part, np.ndarray):
                whole[name] = part
                continue
            if name not in whole:
                whole[name] = np.empty((*shape[:-1], *part.shape[len(where) :]), part.dtype)
            whole[name][where] = part
    return type(result)(**whole)


def over_associations(fit: Callable[[Associations, FloatArray], Found], data: Associations, psi: FloatArray) -> Found:
    """Return the result of `fit` as `over_blocks` does, of a function of associations and psi."""

    def fit_block(bx: FloatArray, bxse: FloatArray, by: FloatArray, byse: FloatArray, psi: FloatArray) -> Found:
        return fit(Associations(bx, bxse, by, byse), psi)

    return over_blocks(fit_block, data.bx, data.bxse, data.by, data.byse, psi)


def _leading_blocks(shape: tuple[int, ...], rows: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices of every axis that hold at most about `rows` elements, the last axes whole where they fit."""
    steps, left = [], rows
    for size in reversed(shape):
        steps.append(max(1, min(size, left)))
        left //= max(1, size)
    starts = [range(0, size, step) for size, step in zip(shape, reversed(steps), strict=True)]
    for index in np.ndindex(*(len(start) for start in starts)):
        firsts = [start[i] for start, i in zip(starts, index, strict=True)]
        yield tuple(slice(first, first + start.step) for first, start in zip(firsts, starts, strict=True))


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield slices of rows that hold about 2 million elements each."""
    step = max(1, _NORMALS // max(1, n_columns))
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))


def check_bootstrap(n_boot: int, seed: int) -> None:
    """Raise ValueError unless the number of draws and the seed can be used."""
    if not isinstance(n_boot, Integral) or isinstance(n_boot, bool) or n_boot < 0 or n_boot == 1:
        raise ValueError(f"n_boot={n_boot!r} must be 0 (no standard errors) or an integer of at least 2")
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed={seed!r} must be an integer of at least 0")


def bootstrap(
    estimate: Callable[[slice, FloatArray], FloatArray],
    spread: Callable[[FloatArray], FloatArray],
    *,
    n_fits: int,
    n_variants: int,
    normals: int,
    n_boot: int,
    seed: int,
) -> FloatArray:
    """Return the spread over draws of every fit's estimate.

    `estimate` maps a slice of fits and standard normal draws (draws, normals, variants) to (fits, draws). All fits
    see the same normal draws, so that the answer for one does not depend on which others are in the batch; with the
    variants `packed`, nor on absent ones.
    """
    result = np.full(n_fits, np.nan)
    if n_boot == 0 or n_variants == 0:
        return result
    held = max(1, _HELD // n_boot)
    for first in range(0, n_fits, held):
        last = min(first + held, n_fits)
        replicates = np.empty((last - first, n_boot))
        for draws, z in normal_blocks(n_boot, normals, n_variants, seed):
            for fits, part in _tiles(last - first, z.shape[0], n_variants):
                shifted = slice(first + fits.start, first + fits.stop)
                filled = slice(draws.start + part.start, draws.start + part.stop)
                replicates[fits, filled] = estimate(shifted, z[part])
        result[first:last] = spread(replicates)
    return result


def normal_blocks(n_draws: int, normals: int, n_variants: int, seed: int) -> Iterator[tuple[slice, FloatArray]]:
    """Yield standard normal draws (draws, normals, variants); those of a variant do not depend on how many follow it."""
    step = _STREAM * max(1, _NORMALS // (_STREAM * normals * n_variants))
    for first in range(0, n_draws, step):
        last = min(first + step, n_draws)
        streams = [
            np.random.default_rng([seed, start]).standard_normal((n_variants, normals, _STREAM))
            for start in range(first, last, _STREAM)
        ]
        block = np.concatenate(streams, axis=-1)[..., : last - first]
        yield slice(first, last), np.ascontiguousarray(block.transpose(2, 1, 0))


def packed(present: BoolArray, *columns: FloatArray) -> tuple[FloatArray, ...]:
    """Return columns (..., J) with the present variants first, in their order, cut after the last of any fit."""
    count = int(np.count_nonzero(present, axis=-1).max(initial=0))
    if present.all():
        return columns
    order = np.argsort(~present, axis=-1, kind="stable")[..., :count]
    return tuple(np.take_along_axis(column, order, axis=-1) for column in columns)


def _tiles(n_fits: int, n_draws: int, n_variants: int) -> Iterator[tuple[slice, slice]]:
    wide = max(1, min(n_draws, _TILE // n_variants))
    high = max(1, _TILE // (wide * n_variants))
    for fit in range(0, n_fits, high):
        for draw in range(0, n_draws, wide):
            yield slice(fit, min(fit + high, n_fits)), slice(draw, min(draw + wide, n_draws))
