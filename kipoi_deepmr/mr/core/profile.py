"""The profile likelihood of a slope when both effects have errors, and its global optimum.

With effects and standard errors divided by byse, each variant adds (y - b x)^2 / (1 + b^2 v^2 - 2 b psi v), v being
bxse / byse. As functions of log |b| the terms are smooth on the scale of 1, whatever their size, and where all b v
are small or all are large their sum is convex in b or 1/b. So a grid in log |b| on both sides of 0, which ends shortly
after the smallest and the largest 1/v, separates all minima; each is then refined by Newton's method within its
neighbours on the grid. On the grid of angles atan(b) the two ends are neighbours through the vertical line.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray

# Steps of the grid in log |b|; errors that correlate by psi make features of width acos(|psi|).
_STEP, _FINEST, _POINTS = 0.125, 0.01, 4001
# How far the grid goes on beyond the terms' own scales.
_MARGIN = 3.0
_MINIMA = 6
_ITERATIONS = 100
# Errors that determine one another have no likelihood.
_MOST = 1 - 1e-12

Powers = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class Profile:
    """The criterion Q of a line through the origin with direction (c, s): sum of (c y - s x)^2 over its variance.

    `outcome`, `exposure` and `cross` are the parts of the variance that go with c^2, s^2 and -2 c s, of shape (..., J)
    for independent variants and (..., J, J) for correlated ones. Exposure effects are in the `unit` which makes their
    errors about as large as those of the outcome.
    """

    x: FloatArray
    y: FloatArray
    outcome: FloatArray
    exposure: FloatArray
    cross: FloatArray
    unit: FloatArray
    widest: FloatArray
    step: float

    @property
    def dense(self) -> bool:
        """Whether the variants correlate."""
        return self.exposure.ndim > self.x.ndim

    @classmethod
    def independent(
        cls, x: FloatArray, y: FloatArray, spread: FloatArray, psi: FloatArray, *, where: BoolArray
    ) -> Self:
        """Return the criterion of independent variants: effects divided by byse, and spread = bxse / byse."""
        unit, scaled, widest = _in_units(x, y, spread)
        shared = np.where(where, np.clip(psi, -_MOST, _MOST), 0.0)
        return cls(x / unit[..., None], y, np.ones(x.shape), scaled**2, shared * scaled, unit, widest, _step(shared))

    @classmethod
    def correlated(
        cls, x: FloatArray, y: FloatArray, spread: FloatArray, psi: FloatArray, correlation: FloatArray
    ) -> Self:
        """Return the criterion of variants whose errors have the given correlation; one psi per fit."""
        unit, scaled, widest = _in_units(x, y, spread)
        shared = np.clip(psi, -_MOST, _MOST)
        pairs = scaled[..., :, None] + scaled[..., None, :]
        exposure = correlation * scaled[..., :, None] * scaled[..., None, :]
        cross = correlation * pairs * shared[..., None] / 2
        return cls(x / unit[..., None], y, correlation, exposure, cross, unit, widest, _step(shared))

    def value(self, c: FloatArray, s: FloatArray) -> FloatArray:
        """Return Q in the directions (c, s) of shape (..., M)."""
        residual = self._line(c, s)
        return _dot(residual, self._solve(self._variance(c * c, s * s, c * s), residual))

    def derivatives(self, c: Powers, s: Powers) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return Q and its first two derivatives, given those of the directions along a path."""
        (c0, c1, c2), (s0, s1, s2) = c, s
        residual, slope, bend = self._line(c0, s0), self._line(c1, s1), self._line(c2, s2)
        variance = self._variance(c0 * c0, s0 * s0, c0 * s0)
        variance_slope = self._variance(2 * c0 * c1, 2 * s0 * s1, c1 * s0 + c0 * s1)
        variance_bend = self._variance(
            2 * (c1 * c1 + c0 * c2), 2 * (s1 * s1 + s0 * s2), c2 * s0 + 2 * c1 * s1 + c0 * s2
        )
        weighted = self._solve(variance, residual)
        moved = slope - self._times(variance_slope, weighted)
        first = _dot(slope, weighted) + _dot(moved, weighted)
        second = 2 * _dot(bend, weighted) + 2 * _dot(moved, self._solve(variance, moved))
        second = second - _dot(weighted, self._times(variance_bend, weighted))
        return _dot(residual, weighted), first, second

    def _line(self, c: FloatArray, s: FloatArray) -> FloatArray:
        return c[..., None] * self.y[..., None, :] - s[..., None] * self.x[..., None, :]

    def _variance(self, cc: FloatArray, ss: FloatArray, cs: FloatArray) -> FloatArray:
        axis = -3 if self.dense else -2
        parts = (np.expand_dims(part, axis) for part in (self.outcome, self.exposure, self.cross))
        trailing = (-1, -2) if self.dense else (-1,)
        a, b, twice = (np.expand_dims(factor, trailing) for factor in (cc, ss, 2 * cs))
        outcome, exposure, cross = parts
        return a * outcome + b * exposure - twice * cross

    def _solve(self, variance: FloatArray, vector: FloatArray) -> FloatArray:
        if not self.dense:
            return vector / variance
        return np.asarray(np.linalg.solve(variance, vector[..., None])[..., 0], dtype=np.float64)

    def _times(self, variance: FloatArray, vector: FloatArray) -> FloatArray:
        if not self.dense:
            return variance * vector
        product: FloatArray = (variance @ vector[..., None])[..., 0]
        return product


def minimise(profile: Profile) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the slope of the lowest Q, that Q, and its second derivative with respect to the slope."""
    angles = _grid(profile)
    values = np.concatenate(
        [profile.value(np.cos(one), np.sin(one)) for one in np.split(angles, angles.shape[-1], axis=-1)], axis=-1
    )
    lower = (values <= np.roll(values, 1, axis=-1)) & (values <= np.roll(values, -1, axis=-1))
    candidates = np.where(lower, values, np.inf)
    count = min(_MINIMA, max(1, int(np.count_nonzero(lower, axis=-1).max(initial=0))))
    chosen = np.asarray(np.argsort(candidates, axis=-1, kind="stable")[..., :count], dtype=np.int64)
    slope = np.tan(_refine(profile, angles, chosen))
    one, zero = np.ones(slope.shape), np.zeros(slope.shape)
    for _ in range(2):
        # The slope has more digits than the angle near 0 and near the vertical.
        _, first, second = profile.derivatives((one, zero, zero), (slope, one, zero))
        step = first / second
        near = (second > 0) & (np.abs(step) < 1e-6 * np.abs(slope))
        slope = np.where(near, slope - step, slope)
    value, _, curvature = profile.derivatives((one, zero, zero), (slope, one, zero))
    best = np.argmin(np.where(np.isnan(value), np.inf, value), axis=-1)[..., None]
    lowest = (np.take_along_axis(array, best, axis=-1)[..., 0] for array in (slope, value, curvature))
    minimum, value, curvature = lowest
    return minimum / profile.unit, value, curvature * profile.unit**2


def _refine(profile: Profile, angles: FloatArray, chosen: IntArray) -> FloatArray:
    """Return the angles of the minima that lie about the chosen points of the grid, by Newton within a bracket."""
    last = angles.shape[-1] - 1
    angle = np.take_along_axis(angles, chosen, axis=-1)
    low = np.take_along_axis(angles, np.where(chosen == 0, last, chosen - 1), axis=-1)
    high = np.take_along_axis(angles, np.where(chosen == last, 0, chosen + 1), axis=-1)
    low = np.where(chosen == 0, low - np.pi, low)
    high = np.where(chosen == last, high + np.pi, high)
    for _ in range(_ITERATIONS):
        c, s = np.cos(angle), np.sin(angle)
        _, first, second = profile.derivatives((c, -s, -c), (s, c, -s))
        high = np.where(first > 0, angle, high)
        low = np.where(first < 0, angle, low)
        newton = angle - first / second
        inside = (second > 0) & (newton > low) & (newton < high)
        moved = np.where(first == 0, angle, np.where(inside, newton, (low + high) / 2))
        done = ~(np.abs(moved - angle) > 4 * np.finfo(np.float64).eps * np.abs(angle))
        angle = moved
        if done.all():
            break
    return angle


def _grid(profile: Profile) -> FloatArray:
    """Return angles in ascending order, of shape (..., odd number)."""
    points = min(_POINTS, 1 + int(np.ceil(2 * (profile.widest.max(initial=0.0) + _MARGIN) / profile.step)))
    steps = np.linspace(-1, 1, points)
    positive = np.arctan(np.exp((profile.widest[..., None] + _MARGIN) * steps))
    middle = np.zeros((*profile.widest.shape, 1))
    return np.concatenate([-positive[..., ::-1], middle, positive], axis=-1)


def _in_units(x: FloatArray, y: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the unit of the exposure, the spreads in it, and the largest |log spread|."""
    positive = (spread > 0) & np.isfinite(spread)
    logs = np.where(positive, np.log(np.where(positive, spread, 1.0)), 0.0)
    exact = ~positive.any(axis=-1)
    unit = np.exp(logs.sum(axis=-1) / np.maximum(np.count_nonzero(positive, axis=-1), 1))
    size = np.sqrt(np.einsum("...j,...j->...", x, x) / np.einsum("...j,...j->...", y, y))
    unit = np.where(exact & np.isfinite(size) & (size > 0), size, unit)
    away = np.where(positive, np.abs(logs - np.log(unit)[..., None]), 0.0)
    return unit, spread / unit[..., None], np.asarray(away.max(axis=-1, initial=0.0))


def _step(psi: FloatArray) -> float:
    strongest = np.abs(np.where(np.isnan(psi), 0.0, psi)).max(initial=0.0)
    return float(np.clip(np.arccos(strongest) / 3, _FINEST, _STEP))


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("...j,...j->...", a, b), dtype=np.float64)
