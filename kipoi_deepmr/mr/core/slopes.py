"""Slopes at which the profile loss is lowest: of all, or next to a start."""

from collections.abc import Callable

import numpy as np

from kipoi_deepmr.mr.core.inputs import FloatArray
from kipoi_deepmr.mr.core.losses import Loss
from kipoi_deepmr.mr.core.score import ScoreRows

# The loss is evaluated first on a logarithmic grid of slopes of both signs that ends some decades beyond the typical
# ones, and at the ratios of the strongest variants; the deepest wells are searched.
_GRID, _DECADES, _RATIOS, _WELLS = 97, 3.0, 48, 4
_GOLDEN, _NEWTON, _ROUNDING, _DESCENT = 24, 40, 2e-15, 60
_SHRINK = (np.sqrt(5) - 1) / 2


def lowest(rows: ScoreRows, loss: Loss, tau2: FloatArray) -> FloatArray:
    """Return the slopes of the lowest loss."""
    n_fits = rows.x.shape[0]
    if n_fits == 0:
        return np.zeros(0)
    slopes = candidate_slopes(rows)
    values = np.stack([rows.loss(loss, column, tau2) for column in slopes.T], axis=-1)
    edge = np.full((n_fits, 1), np.inf)
    before, after = np.hstack([edge, values[:, :-1]]), np.hstack([values[:, 1:], edge])
    wells = np.where((values <= before) & (values <= after), values, np.inf)
    deepest = np.argsort(wells, axis=-1, kind="stable")[:, :_WELLS]
    fit, place = np.nonzero(np.isfinite(np.take_along_axis(wells, deepest, axis=-1)))
    middle = deepest[fit, place]
    angles = np.arctan(slopes)
    low = angles[fit, np.maximum(middle - 1, 0)]
    high = angles[fit, np.minimum(middle + 1, slopes.shape[1] - 1)]
    part, spread = rows[fit], tau2[fit]
    found = _golden(lambda angle: part.loss(loss, np.tan(angle), spread), low, angles[fit, middle], high)
    polished = polish(part, loss, np.tan(found), spread)
    depth = np.where(np.isnan(polished), np.inf, part.loss(loss, polished, spread))
    # Of equal depths the slope nearer to zero, whatever the sign of the outcome.
    order = np.lexsort((np.abs(polished), depth, fit))
    result = np.full(n_fits, np.nan)
    held, first = np.unique(fit[order], return_index=True)
    result[held] = polished[order][first]
    return result


def candidate_slopes(rows: ScoreRows, grid: int = _GRID, ratios: int = _RATIOS) -> FloatArray:
    """Return ascending slopes, shape (F, M): a grid on both sides of 0, and the ratios of the strongest variants."""
    weight = np.where(rows.used, 1 / (rows.yy + rows.xx), 0.0)
    typical = np.sqrt((rows.y**2 * weight).sum(axis=-1) / (rows.x**2 * weight).sum(axis=-1))
    typical = np.where(np.isfinite(typical) & (typical > 0), np.log10(np.maximum(typical, 1e-300)), 0.0)
    start, stop = np.minimum(typical, 0) - _DECADES, np.maximum(typical, 0) + _DECADES
    positive = 10 ** (start[:, None] + (stop - start)[:, None] * np.linspace(0, 1, grid))
    strength = np.where(rows.used, rows.x**2 / (rows.yy + 1e-300), -1.0)
    count = min(ratios, rows.x.shape[1])
    strongest = np.argpartition(strength, -count, axis=-1)[:, -count:]
    ratio = np.take_along_axis(rows.y / rows.x, strongest, axis=-1)
    ratio = np.where(np.isfinite(ratio), ratio, 0.0)
    return np.sort(np.hstack([-positive, np.zeros((positive.shape[0], 1)), positive, ratio]), axis=-1)


def _golden(
    value: Callable[[FloatArray], FloatArray], low: FloatArray, middle: FloatArray, high: FloatArray
) -> FloatArray:
    """Return points no higher than the middle ones, by golden section with a first probe in the wider part."""
    best, height = middle, value(middle)
    for _ in range(_GOLDEN):
        upper = high - best > best - low
        probe = best + (1 - _SHRINK) * np.where(upper, high - best, low - best)
        probed = value(probe)
        better = probed < height
        low = np.where(better & upper, best, np.where(~better & ~upper, probe, low))
        high = np.where(better & ~upper, best, np.where(~better & upper, probe, high))
        best, height = np.where(better, probe, best), np.where(better, probed, height)
    return best


def polish(rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
    """Return the stationary points next to slopes that are almost there, by Newton's method."""
    first, second = rows.score(loss, slope, tau2)
    limit = 0.1 * (np.abs(slope) + 1e-3)
    for _ in range(_NEWTON):
        step = np.where((second > 0) & np.isfinite(first), -first / second, 0.0)
        step = np.clip(step, -limit, limit)
        moved = slope + step
        new_first, new_second = rows.score(loss, moved, tau2)
        better = np.abs(new_first) < np.abs(first)
        slope = np.where(better, moved, slope)
        # Where a step does not help, rounding or a kink of the loss is in the way: try half of it.
        limit = np.where(better, limit, np.abs(step) / 2)
        first, second = np.where(better, new_first, first), np.where(better, new_second, second)
        if not np.any((np.abs(step) > _ROUNDING * np.abs(slope)) & (first != 0)):
            break
    return slope


def descend(rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
    """Return the minima that lie downhill: Newton's steps where the loss is convex, halved until it is lower."""
    value = rows.loss(loss, slope, tau2)
    limit = 0.5 * (np.abs(slope) + 1e-3)
    for _ in range(_DESCENT):
        first, second = rows.score(loss, slope, tau2)
        step = np.clip(np.where(second > 0, -first / second, -np.sign(first) * limit), -limit, limit)
        moved = rows.loss(loss, slope + step, tau2)
        lower = moved < value
        slope, value = np.where(lower, slope + step, slope), np.where(lower, moved, value)
        limit = np.where(lower, limit, np.abs(step) / 2)
        if not np.any(np.abs(step) > 1e-6 * np.abs(slope)):
            break
    return polish(rows, loss, slope, tau2)
