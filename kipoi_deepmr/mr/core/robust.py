"""MM-estimation of a regression: bounded influence with the efficiency of least squares, as in R's lmrob.

An S-estimate first: the coefficients whose residuals have the smallest M-scale, a scale that ignores up to half of
them. Its coefficients start, and its scale standardises, a regression with Tukey's bisquare. lmrob looks for the
S-estimate from random subsets of as many variants as there are coefficients; here the subsets are all there are, or a
fixed selection of ranks of leverage, so that a result has no seed and depends on no order.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray

# Tukey's bisquare: breakdown at one half for the scale, 95% efficiency for the coefficients.
_SCALE_TUNING, _TUNING, _BREAKDOWN = 1.547640, 4.685061, 0.5
# Starts: so many subsets, fewer (but not below _FEWEST) where all variants of all would be more numbers to look at;
# the most promising ones are followed to the end.
_SUBSETS, _FEWEST, _LOOKED_AT, _FOLLOWED = 500, 100, 100_000, 6
_ITERATIONS, _REWEIGHTINGS, _TOLERANCE, _ROUNDING = 500, 30, 1e-12, 1e-13
# A scale of so many standard errors is rounding: the line is exact.
_ZERO_SCALE = 1e-10
# Numbers of a block of fits that are worked on together: a block stays in the cache.
_BLOCK = 1 << 15
_MAD = 0.6744897501960817

# Of residuals and the last scale: what is minimised, and the scale.
_Loss = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class RobustFit:
    """MM-estimates of regressions of y on p columns; NaN where a fit was not asked for.

    `unit_se` is the standard error divided by the scale; where the scale is 0 that of least squares.
    """

    coefficients: FloatArray
    unit_se: FloatArray
    scale: FloatArray
    residual: FloatArray


def mm_fit(columns: FloatArray, y: FloatArray, used: BoolArray, where: BoolArray) -> RobustFit:
    """Regress y (..., J) on columns (..., J, p), which are zero where not `used`, in the fits of `where`.

    The columns have to be independent there, and the fits need more than p variants.
    """
    *batch, n_variants, n_columns = columns.shape
    n_fits = math.prod(batch)
    x, outcome = columns.reshape(n_fits, n_variants, n_columns), y.reshape(n_fits, n_variants)
    present, asked = used.reshape(n_fits, n_variants), np.flatnonzero(where)
    coefficients, unit_se = np.full((2, n_fits, n_columns), np.nan)
    scale = np.full(n_fits, np.nan)
    size = max(1, _BLOCK // max(1, n_variants * _FOLLOWED))
    for block in (asked[start : start + size] for start in range(0, len(asked), size)):
        coefficients[block], unit_se[block], scale[block] = _fit(x[block], outcome[block], present[block])
    residual = outcome - np.einsum("bjp,bp->bj", x, coefficients)
    return RobustFit(
        coefficients.reshape(*batch, n_columns),
        unit_se.reshape(*batch, n_columns),
        scale.reshape(batch),
        residual.reshape(y.shape),
    )


def _fit(columns: FloatArray, y: FloatArray, used: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return coefficients, unit standard errors and scale of B fits of one block."""
    q, r = np.linalg.qr(columns)
    problem = _Problem(np.where(used[..., None], q, 0.0), y, used)
    start, scale = problem.s_estimate()
    exact = ~(scale > _ZERO_SCALE)
    safe = np.where(exact, 1.0, scale)
    final = problem.m_estimate(start, safe)
    final = np.where(exact[:, None], start, final)
    covariance = problem.covariance(start, final, safe)
    back = np.linalg.inv(r)
    covariance = back @ np.where(exact[:, None, None], np.eye(final.shape[-1]), covariance) @ np.swapaxes(back, -1, -2)
    unit_se = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    coefficients = np.einsum("bpq,bq->bp", back, final)
    return coefficients, unit_se, np.where(exact, 0.0, scale)


@dataclass(frozen=True, eq=False)
class _Problem:
    """B regressions on orthonormal columns (B, J, p); coefficients have shape (B, p) or (B, M, p) for M at once."""

    x: FloatArray
    y: FloatArray
    used: BoolArray

    @property
    def free(self) -> FloatArray:
        """Residual degrees of freedom, of shape (B,)."""
        return np.asarray(np.count_nonzero(self.used, axis=-1) - self.x.shape[-1], dtype=np.float64)

    def residuals(self, coefficients: FloatArray) -> FloatArray:
        """Return the residuals of M candidates per fit, of shape (B, M, J)."""
        return self.y[:, None, :] - coefficients @ np.swapaxes(self.x, -1, -2)

    def s_estimate(self) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients with the smallest M-scale, and that scale."""

        def loss(residuals: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = self._scale(residuals, scale)
            return found, found

        candidates, scales = self._screened()
        best = _smallest_of_different(scales, _FOLLOWED)
        followed = np.take_along_axis(candidates, best[..., None], axis=1)
        followed, scale = self._descend(followed, np.take_along_axis(scales, best, axis=-1), _SCALE_TUNING, loss)
        lowest = np.argmin(scale, axis=-1)[:, None]
        coefficients = np.take_along_axis(followed, lowest[..., None], axis=1)[:, 0]
        return coefficients, np.take_along_axis(scale, lowest, axis=-1)[:, 0]

    def m_estimate(self, start: FloatArray, scale: FloatArray) -> FloatArray:
        """Return the coefficients of the bisquare regression with this scale, from this start."""

        def loss(residuals: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
            outlying = _rho(residuals / (_TUNING * scale[..., None]))
            return np.where(self.used[:, None, :], outlying, 0.0).sum(axis=-1), scale

        return self._descend(start[:, None, :], scale[:, None], _TUNING, loss)[0][:, 0]

    def _descend(
        self, coefficients: FloatArray, scale: FloatArray, tuning: float, loss: _Loss
    ) -> tuple[FloatArray, FloatArray]:
        """Return coefficients and scale at the local minimum of the loss: reweighting, then Newton where that is lower."""
        value, scale = loss(self.residuals(coefficients), scale)
        for iteration in range(_ITERATIONS):
            u = self.residuals(coefficients) / (tuning * scale[..., None])
            weights = _weights(u) * self.used[:, None, :]
            moved = self._solved(weights, weights * self.y[:, None, :], coefficients)
            moved_value, moved_scale = loss(self.residuals(moved), scale)
            if iteration >= _REWEIGHTINGS:
                bend = np.where(np.abs(u) < 1, (1 - u**2) * (1 - 5 * u**2), 0.0) * self.used[:, None, :]
                still = np.zeros(coefficients.shape)
                newton = coefficients + self._solved(bend, weights * u * tuning * scale[..., None], still)
                newton_value, newton_scale = loss(self.residuals(newton), scale)
                lower = newton_value <= moved_value * (1 + _ROUNDING)
                moved = np.where(lower[..., None], newton, moved)
                moved_value, moved_scale = (
                    np.fmin(newton_value, moved_value),
                    np.where(lower, newton_scale, moved_scale),
                )
            # A step of reweighting never raises the loss, but for rounding: near the minimum it is flat.
            better = moved_value <= value * (1 + _ROUNDING)
            change = np.where(better, np.abs(moved - coefficients).max(axis=-1), 0.0)
            coefficients = np.where(better[..., None], moved, coefficients)
            value, scale = np.where(better, moved_value, value), np.where(better, moved_scale, scale)
            if np.all((change <= _TOLERANCE * np.abs(coefficients).max(axis=-1)) | (scale <= _ZERO_SCALE)):
                break
        return coefficients, scale

    def _solved(self, weights: FloatArray, right: FloatArray, fallback: FloatArray) -> FloatArray:
        """Return (X' W X)^-1 X' right for M diagonals W per fit, or `fallback` where that matrix is singular."""
        n_columns = self.x.shape[-1]
        pairs = self.x[..., :, None] * self.x[..., None, :]
        normal = weights @ pairs.reshape(*pairs.shape[:2], -1)
        return _solve(normal.reshape(*weights.shape[:2], n_columns, n_columns), right @ self.x, fallback)

    def covariance(self, start: FloatArray, final: FloatArray, scale: FloatArray) -> FloatArray:
        """Return the covariance of the coefficients divided by the squared scale.

        The joint asymptotic covariance of coefficients and scale, without the assumption of symmetric errors: Croux,
        Dhaene and Hoorelbeke (2003).
        """
        first, last = (self.residuals(b[:, None, :])[:, 0] / scale[:, None] for b in (start, final))
        away = (last / _TUNING) ** 2
        inside = self.used & (away < 1)
        psi = np.where(inside, last * (1 - away) ** 2, 0.0)
        psi_slope = np.where(inside, (1 - away) * (1 - 5 * away), 0.0)
        chi = np.where(self.used, _rho(first / _SCALE_TUNING), 0.0)
        chi_slope = 6 * first / _SCALE_TUNING**2 * _weights(first / _SCALE_TUNING)
        bread = np.linalg.pinv(np.einsum("bj,bjp,bjq->bpq", psi_slope, self.x, self.x))
        per_scale = np.where(self.used, chi_slope * first, 0.0).sum(axis=-1)
        turned = np.einsum("bj,bjp->bp", psi_slope * last, self.x) / per_scale[:, None]
        # What a variant does to the coefficients: itself, and by way of the scale.
        through_scale = np.einsum("bpq,bq->bp", bread, turned)
        score = np.einsum("bpq,bjq->bjp", bread, psi[..., None] * self.x)
        itself = np.einsum("bjp,bjq->bpq", score, score)
        crossed = np.einsum("bjp,bj,bq->bpq", score, chi, through_scale)
        size = np.where(self.used, chi**2 - _BREAKDOWN**2, 0.0).sum(axis=-1)
        outer = through_scale[:, :, None] * through_scale[:, None, :]
        joint = itself - crossed - np.swapaxes(crossed, -1, -2) + size[:, None, None] * outer
        # lmrob's form counts n where the scale counts n - p, and may lose its sign over it in small samples.
        negative = np.linalg.eigvalsh(np.where(np.isfinite(joint), joint, 0.0))[:, 0] < 0
        lost = np.where(negative, _BREAKDOWN * self.x.shape[-1], 0.0)
        return np.asarray(joint + lost[:, None, None] * outer, dtype=np.float64)

    def _screened(self) -> tuple[FloatArray, FloatArray]:
        """Return many candidates and a first idea of their scales, after one step towards the S-estimate each."""
        exact = self._through_subsets()
        chunk = max(1, _BLOCK // max(1, self.y.size))
        parts = [self._step(exact[:, low : low + chunk]) for low in range(0, exact.shape[1], chunk)]
        candidates, scales = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return candidates, scales

    def _step(self, candidates: FloatArray) -> tuple[FloatArray, FloatArray]:
        residuals = self.residuals(candidates)
        scale = np.maximum(self._median_size(residuals) / _MAD, np.finfo(np.float64).tiny)
        weights = _weights(residuals / (_SCALE_TUNING * scale[..., None])) * self.used[:, None, :]
        moved = self._solved(weights, weights * self.y[:, None, :], candidates)
        return moved, self._scale(self.residuals(moved), scale, iterations=4)

    def _median_size(self, residuals: FloatArray) -> FloatArray:
        middle = np.count_nonzero(self.used, axis=-1) // 2
        ordered = np.where(self.used[:, None, :], np.abs(residuals), np.inf)
        ordered.partition(np.unique(middle), axis=-1)
        return np.take_along_axis(ordered, middle[:, None, None], axis=-1)[..., 0]

    def _scale(self, residuals: FloatArray, start: FloatArray, iterations: int = 100) -> FloatArray:
        """Return the M-scale: s with sum of rho(residual / s) = (n - p) / 2, by Newton's method in log s; 0 is exact."""
        scale = np.maximum(start, _ZERO_SCALE)
        wanted = _BREAKDOWN * self.free[:, None]
        square = np.where(self.used[:, None, :], (residuals / _SCALE_TUNING) ** 2, 0.0)
        for _ in range(iterations):
            size = np.minimum(square / (scale**2)[..., None], 1)
            rest = 1 - size
            weight = rest * rest
            # rho is 1 - rest^3.
            excess = size.shape[-1] - np.einsum("bmj,bmj->bm", weight, rest) - wanted
            slope = 6 * np.einsum("bmj,bmj->bm", size, weight)
            step = np.clip(excess / np.maximum(slope, 1e-300), -math.log(4), math.log(4))
            scale = np.maximum(scale * np.exp(step), _ZERO_SCALE / 2)
            if np.all((np.abs(step) < 1e-13) | (scale < _ZERO_SCALE)):
                break
        return scale

    def _through_subsets(self) -> FloatArray:
        """Return coefficients (B, M, p) through p variants each, and those of least squares first."""
        leverage = np.where(self.used, np.einsum("bjp,bjp->bj", self.x, self.x), -1.0)
        order = np.argsort(-leverage, axis=-1, kind="stable")
        ranks = _subset_ranks(np.count_nonzero(self.used, axis=-1), *self.x.shape[1:])
        chosen = np.take_along_axis(order, ranks.reshape(len(ranks), -1), axis=-1).reshape(ranks.shape)
        fits = np.arange(len(chosen))[:, None, None]
        rows, values = self.x[fits, chosen], self.y[fits, chosen]
        squares = np.einsum("bj,bjp->bp", self.y * self.used, self.x)[:, None, :]
        through = _solve(rows, values, np.broadcast_to(squares, values.shape))
        return np.concatenate([squares, through], axis=1)


def _subset_ranks(count: IntArray, n_variants: int, n_columns: int) -> IntArray:
    """Return ranks below `count` (B,), of shape (B, M, p): all subsets of p for a fit which has at most M of them."""
    limit = max(_FEWEST, min(_SUBSETS, _LOOKED_AT // max(n_variants, 1)))
    few = next(k for k in itertools.count(n_columns) if k >= n_variants or math.comb(k, n_columns) >= limit)
    # In the order of the largest rank the first subsets are those of a fit with fewer variants.
    every = sorted(itertools.combinations(range(few), n_columns), key=lambda subset: subset[::-1])[:limit]
    ranks = np.minimum(np.array(every, dtype=np.int64), count[:, None, None] - 1)
    if math.comb(n_variants, n_columns) <= limit:
        return ranks
    if n_columns == 1:
        fractions = ((np.arange(limit) + 0.5) / limit)[:, None]
    else:
        fractions = np.random.default_rng(0).uniform(size=(limit, n_columns))
    # Half of the subsets prefer variants of high leverage: among thousands of weak instruments the strong ones decide.
    fractions[::2] **= 3
    spread = (fractions * count[:, None, None]).astype(np.int64)
    most = np.array([math.comb(int(size), n_columns) for size in count])
    return np.where((most <= limit)[:, None, None], ranks, spread)


def _smallest_of_different(values: FloatArray, count: int) -> IntArray:
    """Return the places of the smallest values of each row, of equal values one."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    repeated = np.zeros(values.shape, dtype=np.bool_)
    repeated[:, 1:] = ordered[:, 1:] - ordered[:, :-1] <= 1e-9 * ordered[:, 1:]
    first = np.argsort(repeated, axis=-1, kind="stable")[:, :count]
    return np.take_along_axis(order, first, axis=-1)


def _solve(matrix: FloatArray, right: FloatArray, fallback: FloatArray) -> FloatArray:
    """Return matrix^-1 right for (..., p, p) and (..., p), and `fallback` where the matrix is singular."""
    size = np.sqrt(np.einsum("...pq,...pq->...p", matrix, matrix)).prod(axis=-1)
    sound = np.abs(np.linalg.det(matrix)) > 1e-12 * size
    safe = np.where(sound[..., None, None], matrix, np.eye(matrix.shape[-1]))
    solved = np.linalg.solve(safe, right[..., None])[..., 0]
    return np.asarray(np.where(sound[..., None], solved, fallback), dtype=np.float64)


def _rho(u: FloatArray) -> FloatArray:
    """Return the bisquare's rho, 1 beyond 1."""
    size = np.minimum(u**2, 1)
    return np.asarray(size * (3 - 3 * size + size**2), dtype=np.float64)


def _weights(u: FloatArray) -> FloatArray:
    """Return the bisquare's weight psi(u) / u, 0 beyond 1."""
    return (1 - np.minimum(u**2, 1)) ** 2
