"""The adjusted profile score of RAPS: its global solution for slope and over-dispersion, and the sandwich formulas."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr._inputs import BoolArray, FloatArray
from kipoi_deepmr.mr._losses import LOSSES, Loss

# The loss is evaluated first on a logarithmic grid of slopes of both signs that ends some decades beyond the typical
# ones, and at the ratios of the strongest variants; the deepest wells are searched.
_GRID, _DECADES, _RATIOS, _WELLS = 97, 3.0, 48, 4
_GOLDEN, _NEWTON, _ROUNDING = 24, 40, 2e-15
_SHRINK = (np.sqrt(5) - 1) / 2
# Powers of 4 in which the equation for over-dispersion is looked at, in units of the typical outcome variance.
_POWERS = np.arange(-10.0, 21.0)
_ROOT_STEPS = 200
_ROUNDS, _NEAR, _SETTLED, _DIFFERENCE = 200, 1e-2, 1e-12, 1e-7


@dataclass(frozen=True, eq=False)
class Score:
    """Solutions, one for each fit."""

    slope: FloatArray
    se: FloatArray
    tau2: FloatArray
    tau2_se: FloatArray
    q: FloatArray
    converged: BoolArray


@dataclass(frozen=True, eq=False)
class ScoreRows:
    """Fits (F, J): effects, the variances of their errors and the covariance; what is not used is 0."""

    x: FloatArray
    y: FloatArray
    xx: FloatArray
    yy: FloatArray
    xy: FloatArray
    used: BoolArray

    def __getitem__(self, rows: npt.NDArray[np.intp] | BoolArray | slice) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def variance(self, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the residual variances."""
        b = slope[:, None]
        total = self.yy + b * (b * self.xx - 2 * self.xy) + tau2[:, None]
        return np.where(self.used, total, 1.0)

    def residual(self, slope: FloatArray) -> FloatArray:
        """Return the residuals."""
        return self.y - slope[:, None] * self.x

    def loss(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the sums of the losses."""
        t = self.residual(slope) / np.sqrt(self.variance(slope, tau2))
        return np.asarray(loss.rho(t).sum(axis=-1), dtype=np.float64)

    def score(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the first and the second derivative of the loss with respect to the slope."""
        variance = self.variance(slope, tau2)
        spread, residual = np.sqrt(variance), self.residual(slope)
        lean = (slope[:, None] * self.xx - self.xy) / variance
        adjusted = self.x + residual * lean
        turned = residual * (self.xx / variance - 2 * lean**2) - self.x * lean
        t = residual / spread
        pull = loss.slope(t) / spread
        first = -(pull * adjusted).sum(axis=-1)
        second = loss.bend(t) * adjusted**2 / variance - pull * (turned - adjusted * lean)
        return first, np.asarray(second.sum(axis=-1), dtype=np.float64)

    def excess(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the left side of the equation for tau2: positive where the residuals are too large."""
        variance = self.variance(slope, tau2)
        t = self.residual(slope) / np.sqrt(variance)
        terms = self.xx * (t * loss.slope(t) - loss.delta) / variance
        return np.asarray(terms.sum(axis=-1), dtype=np.float64)


def solve(rows: ScoreRows, loss: Loss, over_dispersion: bool) -> Score:
    """Return slope, tau2 (NaN without over-dispersion), their standard errors and the sum of squared residuals."""
    tau2 = np.zeros(rows.x.shape[0])
    slope = _lowest(rows, loss, tau2)
    converged = np.ones(slope.size, dtype=np.bool_)
    if over_dispersion:
        slope, tau2, converged = _alternate(rows, loss, slope)
    se, tau2_se = _sandwich(rows, loss, slope, tau2, over_dispersion)
    q = 2 * rows.loss(LOSSES["l2"], slope, tau2)
    return Score(slope, se, tau2 if over_dispersion else np.full(slope.shape, np.nan), tau2_se, q, converged)


def _alternate(rows: ScoreRows, loss: Loss, slope: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Solve the two equations in turn until they agree to _NEAR, then together; where that fails, go on in turn."""
    slope, tau2 = slope.copy(), np.zeros(slope.size)
    active, change = np.arange(slope.size), np.full(slope.size, np.inf)
    tried = np.zeros(slope.size, dtype=np.bool_)
    for _ in range(_ROUNDS):
        part = rows[active]
        dispersed = _dispersion(part, loss, slope[active])
        far = change[active] > _NEAR
        moved = slope[active].copy()
        moved[far] = _lowest(part[far], loss, dispersed[far])
        moved[~far] = polish(part[~far], loss, moved[~far], dispersed[~far])
        change[active] = _relative(moved, slope[active]) + _relative(dispersed, tau2[active])
        slope[active], tau2[active] = moved, dispersed
        together = np.flatnonzero((change > _SETTLED) & (change <= _NEAR) & (tau2 > 0) & ~tried)
        if together.size:
            tried[together] = True
            b, t, found = _together(rows[together], loss, slope[together], tau2[together])
            solved = together[found]
            slope[solved], tau2[solved], change[solved] = b[found], t[found], 0.0
        active = np.flatnonzero(change > _SETTLED)
        if active.size == 0:
            break
    return slope, tau2, change <= _SETTLED


def _together(
    rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return the solution of both equations next to a point, by Newton's method, and where it was found."""
    b, t = slope, tau2
    done = np.zeros(slope.size, dtype=np.bool_)
    for _ in range(_NEWTON):
        score, score_b = rows.score(loss, b, t)
        excess = rows.excess(loss, b, t)
        db, dt = _DIFFERENCE * (np.abs(b) + _DIFFERENCE), _DIFFERENCE * t
        score_t = (rows.score(loss, b, t + dt)[0] - score) / dt
        excess_t = (rows.excess(loss, b, t + dt) - excess) / dt
        excess_b = (rows.excess(loss, b + db, t) - excess) / db
        determinant = score_b * excess_t - score_t * excess_b
        step_b = (score_t * excess - excess_t * score) / determinant
        step_t = (excess_b * score - score_b * excess) / determinant
        b, t = np.where(done, b, b + step_b), np.where(done, t, t + step_t)
        done |= np.abs(step_b) + np.abs(step_t * b / t) < _SETTLED * np.abs(b)
        if np.all(done | ~np.isfinite(b) | (t <= 0)):
            break
    near = _relative(b, slope) + _relative(t, tau2) < 10 * _NEAR
    return b, t, done & near & (t > 0) & (rows.score(loss, b, t)[1] > 0)


def _relative(new: FloatArray, old: FloatArray) -> FloatArray:
    return np.abs(new - old) / np.maximum(np.maximum(np.abs(new), np.abs(old)), 1e-300)


def _lowest(rows: ScoreRows, loss: Loss, tau2: FloatArray) -> FloatArray:
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


def candidate_slopes(rows: ScoreRows) -> FloatArray:
    """Return ascending slopes, shape (F, M)."""
    weight = np.where(rows.used, 1 / (rows.yy + rows.xx), 0.0)
    typical = np.sqrt((rows.y**2 * weight).sum(axis=-1) / (rows.x**2 * weight).sum(axis=-1))
    typical = np.where(np.isfinite(typical) & (typical > 0), np.log10(np.maximum(typical, 1e-300)), 0.0)
    start, stop = np.minimum(typical, 0) - _DECADES, np.maximum(typical, 0) + _DECADES
    positive = 10 ** (start[:, None] + (stop - start)[:, None] * np.linspace(0, 1, _GRID))
    strength = np.where(rows.used, rows.x**2 / (rows.yy + 1e-300), -1.0)
    count = min(_RATIOS, rows.x.shape[1])
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


def _dispersion(rows: ScoreRows, loss: Loss, slope: FloatArray) -> FloatArray:
    """Return the first root of the equation for tau2, found by powers of 4; 0 where there is none."""
    tau2 = np.zeros(slope.size)
    held = np.flatnonzero(rows.excess(loss, slope, tau2) > 0)
    if held.size == 0:
        return tau2
    part, b = rows[held], slope[held]
    grid = np.concatenate([[0.0], 4.0**_POWERS])
    values = np.stack([part.excess(loss, b, np.full(held.size, point)) for point in grid], axis=-1)
    end = np.argmax(values <= 0, axis=-1)
    each = np.arange(held.size)
    low, high = grid[end - 1], grid[end]
    f_low, f_high = values[each, end - 1], values[each, end]
    for _ in range(_ROOT_STEPS):
        # The Illinois form of the false position: an end that stays halves its weight.
        point = np.where(f_low > f_high, (low * -f_high + high * f_low) / (f_low - f_high), low)
        value = part.excess(loss, b, point)
        above = value > 0
        f_high = np.where(above, f_high / 2, value)
        f_low = np.where(above, value, f_low / 2)
        low, high = np.where(above, point, low), np.where(above, high, point)
        if not np.any((np.abs(high - low) > 1e-15 * np.abs(high)) & (value != 0)):
            break
    tau2[held] = point
    return tau2


def _sandwich(
    rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray, over_dispersion: bool
) -> tuple[FloatArray, FloatArray]:
    variance = rows.variance(slope, tau2)
    outcome = rows.yy + tau2[:, None]
    # An unbiased estimate of the squared true exposure effect times the residual variance.
    signal = (
        (rows.x**2 - rows.xx) * outcome + (rows.y**2 - outcome) * rows.xx - 2 * (rows.x * rows.y - rows.xy) * rows.xy
    )
    noise = rows.xx * outcome - rows.xy**2
    square = np.where(rows.used, 1 / variance**2, 0.0)
    information = loss.delta * (signal * square).sum(axis=-1)
    slope_variance = loss.c1 * ((signal + noise) * square).sum(axis=-1)
    if not over_dispersion:
        return np.sqrt(slope_variance) / np.abs(information), np.full(slope.shape, np.nan)
    crossed = loss.delta * ((slope[:, None] * rows.xx - rows.xy) * square).sum(axis=-1)
    curvature = (loss.delta + loss.c3) / 2 * (rows.xx * square).sum(axis=-1)
    tau2_variance = loss.c2 * (rows.xx**2 * square).sum(axis=-1) / curvature**2
    se = np.sqrt(slope_variance + crossed**2 * tau2_variance) / np.abs(information)
    return np.asarray(se), np.sqrt(tau2_variance)
