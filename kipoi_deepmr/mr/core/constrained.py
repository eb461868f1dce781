"""Likelihoods without the K worst variants (cML): the two searches for the slope and for these variants.

The effects have byse = 1 and a typical slope of 1. With independent errors the likelihood of a variant with the true
exposure effect m and a direct effect r on the outcome is that of x about m and of y about b m + r; r is 0 but for the
K invalid variants.
"""

from dataclasses import dataclass, replace

import numpy as np

from kipoi_deepmr.mr.core.blocks import row_blocks
from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray
from kipoi_deepmr.mr.core.losses import LOSSES
from kipoi_deepmr.mr.core.score import ScoreRows
from kipoi_deepmr.mr.core.slopes import candidate_slopes, descend, polish

_L2 = LOSSES["l2"]
# Where R's mr_cML stops: so many rounds, or a change of the slope so small (there in the units of the data).
_ROUNDS, _CHANGE = 100, 1e-7
# The global search: points of the grid of slopes, wells of the trimmed likelihood that are followed for each K.
_GRID, _WELLS, _SETTLING = 401, 8, 50
_MOST_PSI = 1 - 1e-12


@dataclass(frozen=True, eq=False)
class Paths:
    """Slopes, half sums of squares, their second derivatives (F, K), and the invalid variants (F, K, J)."""

    slope: FloatArray
    loss: FloatArray
    information: FloatArray
    invalid: BoolArray


def coordinate_paths(rows: ScoreRows, most: int) -> Paths:
    """Descend from 0 by coordinates for 0 to `most` invalid variants, as published: slope, invalid variants, effects."""
    fit, number, kept = _cells(rows, most)
    return _paths(rows, most, fit, number, *_from_zero(rows, fit, number, kept))


def global_paths(rows: ScoreRows, most: int) -> Paths:
    """Search from the lowest points of a grid, from all ratios and from the slopes of `coordinate_paths`."""
    fit, number, kept = _cells(rows, most)
    slopes = candidate_slopes(rows, _GRID, rows.x.shape[1])
    start = [_from_zero(rows, fit, number, kept)[0][:, None], _wells(rows, slopes, fit, kept)]
    starts = np.concatenate(start, axis=-1)
    cell, place = np.nonzero(np.isfinite(starts))
    slope, loss = np.empty((2, cell.size))
    for block in row_blocks(cell.size, 8 * rows.x.shape[1]):
        each = cell[block]
        slope[block], loss[block] = _settle(rows[fit[each]], starts[each, place[block]], kept[each])
    # Of equal losses the slope nearer to zero, whatever the sign of the outcome.
    order = np.lexsort((np.abs(slope), loss, cell))
    _, first = np.unique(cell[order], return_index=True)
    best = slope[order][first]
    invalid = np.empty((fit.size, rows.x.shape[1]), dtype=np.bool_)
    for block in row_blocks(fit.size, 8 * rows.x.shape[1]):
        part = rows[fit[block]]
        valid = _smallest(part, best[block], kept[block])
        best[block] = polish(_masked(part, valid), _L2, best[block], np.zeros(best[block].size))
        invalid[block] = part.used & ~valid
    return _paths(rows, most, fit, number, best, invalid)


def _cells(rows: ScoreRows, most: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return fit, number of invalid variants and number of others, where two are left or none is invalid."""
    count = np.count_nonzero(rows.used, axis=-1)
    fit, number = np.nonzero((np.arange(most + 1) == 0) | (count[:, None] - np.arange(most + 1) >= 2))
    return fit, number, count[fit] - number


def _paths(rows: ScoreRows, most: int, fit: IntArray, number: IntArray, slope: FloatArray, invalid: BoolArray) -> Paths:
    shape = rows.x.shape[0], most + 1
    values, masks = np.full((3, *shape), np.nan), np.zeros((*shape, rows.x.shape[1]), dtype=np.bool_)
    masks[fit, number] = invalid
    for block in row_blocks(fit.size, 8 * rows.x.shape[1]):
        part, nothing = _masked(rows[fit[block]], ~invalid[block]), np.zeros(slope[block].size)
        found = slope[block], part.loss(_L2, slope[block], nothing), part.score(_L2, slope[block], nothing)[1]
        values[:, fit[block], number[block]] = found
    slopes, losses, information = values
    return Paths(slopes, losses, information, masks)


def _from_zero(rows: ScoreRows, fit: IntArray, number: IntArray, kept: IntArray) -> tuple[FloatArray, BoolArray]:
    """Return slopes and invalid variants of the descent by coordinates."""
    slope, invalid = np.zeros(fit.size), np.zeros((fit.size, rows.x.shape[1]), dtype=np.bool_)
    for block in row_blocks(fit.size, 8 * rows.x.shape[1]):
        slope[block], invalid[block] = _descent(rows[fit[block]], number[block])
    return slope, invalid


def _descent(rows: ScoreRows, number: IntArray) -> tuple[FloatArray, BoolArray]:
    """Set direct effects, exposure effects and slope in turn to where the likelihood of all is highest.

    With correlated errors the outcome is looked at given the error of the exposure.
    """
    spread = np.sqrt(rows.xx)
    shared = np.clip(np.where(spread > 0, rows.xy / np.where(spread > 0, spread, 1.0), 0.0), -_MOST_PSI, _MOST_PSI)
    slope, effect, error = np.zeros(number.size), np.zeros(rows.x.shape), np.zeros(rows.x.shape)
    invalid = np.zeros(rows.x.shape, dtype=np.bool_)
    active = np.arange(number.size)
    x, y, used, v, rho = rows.x, rows.y, rows.used, spread, shared
    for _ in range(_ROUNDS):
        b = slope[active, None]
        direct = y - b * effect - rho * error
        chosen = _largest(np.where(used, direct**2 / (1 - rho**2), -1.0), number[active])
        outcome = np.where(chosen, y - direct, y)
        lean = v * b
        error = (rho - lean) * (outcome - b * x) / (1 + lean * (lean - 2 * rho))
        effect = x - v * error
        moved = np.einsum("fj,fj->f", effect, outcome - rho * error) / np.einsum("fj,fj->f", effect, effect)
        going = np.abs(moved - slope[active]) > _CHANGE
        slope[active], invalid[active] = moved, chosen
        if not going.all():
            active = active[going]
            x, y, used, v, rho, effect, error = (part[going] for part in (x, y, used, v, rho, effect, error))
        if active.size == 0:
            break
    return slope, invalid


def _largest(values: FloatArray, number: IntArray) -> BoolArray:
    """Return the places of the largest values, as many of each row as asked for."""
    mask = np.zeros(values.shape, dtype=np.bool_)
    most = int(number.max(initial=0))
    if most == 0:
        return mask
    top = np.argpartition(values, values.shape[1] - most, axis=-1)[:, -most:]
    order = np.argsort(-np.take_along_axis(values, top, axis=-1), axis=-1, kind="stable")
    ranked = np.take_along_axis(top, order, axis=-1)
    np.put_along_axis(mask, ranked, np.arange(most) < number[:, None], axis=-1)
    return mask


def _wells(rows: ScoreRows, slopes: FloatArray, fit: IntArray, kept: IntArray) -> FloatArray:
    """Return the slopes of the deepest wells of the trimmed likelihood for each cell (C, wells); NaN where fewer."""
    found = np.full((fit.size, _WELLS), np.nan)
    for one in range(rows.x.shape[0]):
        where = np.flatnonzero(fit == one)
        part = rows[np.full(1, one)]
        values = np.stack([_trimmed(part, slopes[one, [m]], kept[where]) for m in range(slopes.shape[1])])
        edge = np.full((1, where.size), np.inf)
        before, after = np.concatenate([edge, values[:-1]]), np.concatenate([values[1:], edge])
        wells = np.where((values <= before) & (values <= after), values, np.inf)
        deepest = np.argsort(wells, axis=0, kind="stable")[:_WELLS]
        depth = np.take_along_axis(wells, deepest, axis=0)
        found[where, : len(deepest)] = np.where(np.isfinite(depth), slopes[one, deepest], np.nan).T
    return found


def _squares(rows: ScoreRows, slope: FloatArray) -> FloatArray:
    squares = rows.residual(slope) ** 2 / rows.variance(slope, np.zeros(slope.size))
    return np.where(rows.used, squares, np.inf)


def _trimmed(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> FloatArray:
    """Return half the sums of the smallest squared residuals of one fit, for each number that is kept."""
    total = np.cumsum(np.sort(_squares(rows, slope)[0]))
    return np.asarray(total[np.maximum(kept - 1, 0)] / 2, dtype=np.float64)


def _smallest(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> BoolArray:
    order = np.argsort(_squares(rows, slope), axis=-1, kind="stable")
    mask = np.zeros(rows.x.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, np.arange(rows.x.shape[1]) < kept[:, None], axis=-1)
    return mask


def _settle(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> tuple[FloatArray, FloatArray]:
    """Fit the variants with the smallest residuals, and choose them again, until they stay; return slope and loss."""
    slope, active = slope.copy(), np.arange(slope.size)
    chosen = np.zeros(rows.x.shape, dtype=np.bool_)
    for _ in range(_SETTLING):
        part = rows[active]
        mask = _smallest(part, slope[active], kept[active])
        moved = (mask != chosen[active]).any(axis=-1)
        active, part, mask = active[moved], part[moved], mask[moved]
        if active.size == 0:
            break
        chosen[active] = mask
        slope[active] = descend(_masked(part, mask), _L2, slope[active], np.zeros(active.size))
    return slope, _masked(rows, chosen).loss(_L2, slope, np.zeros(slope.size))


def _masked(rows: ScoreRows, mask: BoolArray) -> ScoreRows:
    mask = mask & rows.used
    return replace(rows, used=mask, x=np.where(mask, rows.x, 0.0), y=np.where(mask, rows.y, 0.0))
