"""Slope and over-dispersion together: the two equations of RAPS, solved in turn.

Squared error and Huber's loss grow without bound, and each turn takes the lowest of all slopes. A redescending loss has
a bound that every far slope comes close to once tau2 is small, so that the lowest of all slopes is often in a far tail:
it starts from the solution for Huber's loss and goes downhill only, as do the other two where the turns do not settle.
"""

from collections.abc import Callable

import numpy as np

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray
from kipoi_deepmr.mr.core.losses import LOSSES, Loss
from kipoi_deepmr.mr.core.score import ScoreRows
from kipoi_deepmr.mr.core.slopes import descend, lowest, polish

# The loss whose solution each loss starts from, and those that start nowhere else than at a start.
_GENTLER = {"huber": "l2", "tukey": "huber"}
_REDESCENDING = {"tukey"}
# Powers of 4 in which the equation for over-dispersion is looked at, in units of the typical outcome variance.
_POWERS = np.arange(-10.0, 21.0)
_ROOT_STEPS, _NEWTON = 200, 40
_ROUNDS, _NEAR, _SETTLED, _DIFFERENCE = 200, 1e-2, 1e-12, 1e-7

Solution = tuple[FloatArray, FloatArray, BoolArray]
# From rows, slopes and tau2 to the slopes of the next turn.
Move = Callable[[ScoreRows, Loss, FloatArray, FloatArray], FloatArray]


def solve_both(rows: ScoreRows, name: str) -> Solution:
    """Return slope, tau2 and where both equations hold; NaN elsewhere."""
    loss, n_fits = LOSSES[name], rows.x.shape[0]
    slope, tau2 = np.full((2, n_fits), np.nan)
    solved = np.zeros(n_fits, dtype=np.bool_)
    if name not in _REDESCENDING:
        slope, tau2, solved = _alternate(rows, loss, lowest(rows, loss, np.zeros(n_fits)), _globally)
    gentler = _GENTLER.get(name)
    starts = [] if gentler is None else [lambda part: solve_both(part, gentler)[0]]
    for start in [*starts, _median_ratio]:
        left = np.flatnonzero(~solved)
        if left.size == 0:
            break
        part = rows[left]
        slope[left], tau2[left], solved[left] = _alternate(part, loss, start(part), descend)
    return np.where(solved, slope, np.nan), np.where(solved, tau2, np.nan), solved


def _globally(rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
    return lowest(rows, loss, tau2)


def _median_ratio(rows: ScoreRows) -> FloatArray:
    """Return the medians of the ratios, weighted by the squared strength of their variants."""
    ratio = np.where(rows.used & (rows.x != 0), rows.y / rows.x, np.inf)
    weight = np.where(np.isfinite(ratio), rows.x**2 / np.where(rows.yy > 0, rows.yy, 1.0), 0.0)
    order = np.argsort(ratio, axis=-1, kind="stable")
    total = np.cumsum(np.take_along_axis(weight, order, axis=-1), axis=-1)
    middle = np.argmax(total >= total[:, -1:] / 2, axis=-1)[:, None]
    found = np.take_along_axis(ratio, np.take_along_axis(order, middle, axis=-1), axis=-1)
    return np.asarray(found[:, 0], dtype=np.float64)


def _alternate(rows: ScoreRows, loss: Loss, start: FloatArray, move: Move) -> Solution:
    """Solve the two equations in turn until they agree to _NEAR, then together; where that fails, go on in turn."""
    slope, tau2 = start.copy(), np.zeros(start.size)
    active, change = np.flatnonzero(np.isfinite(start)), np.full(start.size, np.inf)
    tried = np.zeros(start.size, dtype=np.bool_)
    for _ in range(_ROUNDS):
        if active.size == 0:
            break
        part = rows[active]
        dispersed = _dispersion(part, loss, slope[active])
        far = change[active] > _NEAR
        moved = slope[active].copy()
        moved[far] = move(part[far], loss, moved[far], dispersed[far])
        moved[~far] = polish(part[~far], loss, moved[~far], dispersed[~far])
        change[active] = _relative(moved, slope[active]) + _relative(dispersed, tau2[active])
        slope[active], tau2[active] = moved, dispersed
        together = np.flatnonzero((change > _SETTLED) & (change <= _NEAR) & (tau2 > 0) & ~tried)
        if together.size:
            tried[together] = True
            b, t, found = _together(rows[together], loss, slope[together], tau2[together])
            solved = together[found]
            slope[solved], tau2[solved], change[solved] = b[found], t[found], 0.0
        active = np.flatnonzero(np.isfinite(slope) & (change > _SETTLED))
    return slope, tau2, change <= _SETTLED


def _together(rows: ScoreRows, loss: Loss, slope: FloatArray, tau2: FloatArray) -> Solution:
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
