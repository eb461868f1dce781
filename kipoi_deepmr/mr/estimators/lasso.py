"""MR-Lasso: pleiotropic effects with an L1 penalty tell the valid instruments, and IVW is fitted to those."""

from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.blocks import row_blocks
from kipoi_deepmr.mr.core.design import build_design, keep_zero_outcomes
from kipoi_deepmr.mr.core.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    read_associations,
)
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import fit_status, inference, through_origin
from kipoi_deepmr.mr.core.result import CausalResult

# The path of R's glmnet: 100 penalties down to 1e-4 of the first, at least 5; it ends where the share of explained
# variance exceeds 0.999 or grows by less than 1e-5 of itself.
_PATH, _RATIO, _LEAST, _GAIN, _EXPLAINED = 100, 1e-4, 5, 1e-5, 0.999
_STEPS = 200
# MR-Lasso's stopping rule: heterogeneity grows by more than this over the number of valid instruments.
_JUMP = float(special.chdtri(1, 0.05))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LassoResult(CausalResult):
    """Estimates of `lasso`: IVW of the valid instruments, of which fewer than 2 are too few.

    Standard errors, intervals and p-values take the choice of the valid instruments as given.

    Attributes
    ----------
    n_used, n_valid : ndarray of int64, shape (...)
        Instruments with a positive weight, and those of them that are valid.
    penalized_estimate : ndarray of float64, shape (...)
        Causal effect in the penalised fit.
    penalty : ndarray of float64, shape (...)
        Weight lambda of the L1 penalty, without unit.
    pleiotropy : ndarray of float64, shape (..., J)
        Pleiotropic effects in outcome units, oriented to a positive exposure effect; 0 where valid, NaN where not used.
    valid : ndarray of bool, shape (..., J)
        Instruments whose pleiotropic effect is 0.
    """

    estimator: str = "lasso"
    n_used: IntArray
    n_valid: IntArray
    penalized_estimate: FloatArray
    penalty: FloatArray
    pleiotropy: FloatArray
    valid: BoolArray


@np.errstate(all="ignore")
def lasso(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    penalty: float | None = None,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> LassoResult:
    r"""MR-Lasso with the path and the stopping rule of R's `mr_lasso`.

    .. math:: \min_{\theta, a} \frac{1}{2n} \sum_j \frac{(y_j - \theta x_j - a_j)^2}{s_j^2}
              + \lambda \sum_j d_j |a_j|

    with d the standard deviation of the column that belongs to a_j, as glmnet scales it. With a profiled out this is
    one equation with a Huber function, which is solved exactly for each of 100 penalties; glmnet's coordinate descent
    leaves 1e-5. The penalty is the one before the residual standard error of the valid instruments exceeds 1 and
    grows by more than the 95% point of the chi-squared distribution over their number.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where bx, by or byse is NaN; bxse does not enter. As in R, a variant with
        bx = 0 becomes the point (0, 0).
    penalty : float, optional
        Weight lambda of the L1 penalty; by default chosen by the rule.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_valid - 1 degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    LassoResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Rees et al. (2019), PLoS ONE 14:e0222362.
    """
    check_inference(distribution, alpha)
    if penalty is not None and (not isinstance(penalty, Real) or not 0 < penalty < np.inf):
        raise ValueError(f"penalty={penalty!r} must be a positive number, or None to choose it")
    data = read_associations(bx, bxse, by, byse)
    design = keep_zero_outcomes(build_design(data, weights="simple", psi=0.0, penalized=False), data)
    batch, n_variants = data.shape[:-1], data.shape[-1]
    soluble = (design.invalid == Status.OK) & (design.x != 0).any(axis=-1) & np.isfinite(design.y).all(axis=-1)
    held = np.flatnonzero(soluble)
    numbers, effects = np.full((2, soluble.size), np.nan), np.full((soluble.size, n_variants), np.nan)
    valid = np.zeros((soluble.size, n_variants), dtype=np.bool_)
    if held.size:
        sign = np.where(data.bx < 0, -1.0, 1.0)
        x, y, weight = (
            array.reshape(-1, n_variants)[held] for array in (np.abs(design.x), design.y * sign, np.abs(design.sign))
        )
        used = design.used.reshape(-1, n_variants)[held]
        for block in row_blocks(held.size, n_variants):
            rows, problem = held[block], _Problem.build(x[block], y[block], weight[block], used[block])
            lam, slope = _choose(problem) if penalty is None else _solve_at(problem, float(penalty))
            residual, limit = y[block] - slope[:, None] * x[block], lam[:, None] * problem.scale
            outside = np.abs(residual) > limit
            shrunk = np.sign(residual) * np.maximum(np.abs(residual) - limit, 0) / weight[block]
            numbers[:, rows], valid[rows] = (slope, lam), used[block] & ~outside
            effects[rows] = np.where(used[block], np.where(outside, shrunk, 0.0), np.nan)
    valid = valid.reshape(data.shape)
    kept = replace(
        design,
        x=np.where(valid, design.x, 0.0),
        y=np.where(valid, design.y, 0.0),
        used=design.used & (valid | ~soluble[..., None]),
    )
    fit = through_origin(kept)
    status = fit_status(design.invalid, kept.n_used, 2, np.asarray(~(kept.x != 0).any(axis=-1)), fit.slope)
    answered = status == Status.OK
    estimate, se = (
        np.where(answered, fit.slope, np.nan),
        np.where(answered, fit.slope_se * np.maximum(fit.rse, 1), np.nan),
    )
    n_valid = np.asarray(np.count_nonzero(valid, axis=-1), dtype=np.int64)
    t_df = n_valid - 1 if distribution == "t-dist" else None
    slope, lam = numbers.reshape(2, *batch)
    return LassoResult(
        **inference(estimate, se, alpha=alpha, df=t_df),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        n_valid=n_valid,
        penalized_estimate=slope,
        penalty=lam,
        pleiotropy=effects.reshape(data.shape),
        valid=valid,
        status=status,
    )


@dataclass(frozen=True, eq=False)
class _Problem:
    """Fits (F, J): standardised effects, and how far a standardised residual may go per unit of the penalty."""

    x: FloatArray
    y: FloatArray
    scale: FloatArray
    used: BoolArray
    slope: FloatArray

    @classmethod
    def build(cls, x: FloatArray, y: FloatArray, weight: FloatArray, used: BoolArray) -> "_Problem":
        """Return the problem with the slope of IVW."""
        count = np.count_nonzero(used, axis=-1)[:, None].astype(np.float64)
        square = (x**2).sum(axis=-1, keepdims=True)
        mean = (1 - x * x.sum(axis=-1, keepdims=True) / square) / count
        spread = np.sqrt(np.maximum((1 - x**2 / square) / count - mean**2, 0))
        slope = (x * y).sum(axis=-1) / square[:, 0]
        return cls(x, y, np.where(used, spread * count, 0.0), used, slope)

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> "_Problem":
        return _Problem(self.x[rows], self.y[rows], self.scale[rows], self.used[rows], self.slope[rows])

    def residual(self, slope: FloatArray) -> FloatArray:
        """Return the standardised residuals."""
        return self.y - slope[:, None] * self.x


def _huber_slope(problem: _Problem, lam: FloatArray, start: FloatArray) -> FloatArray:
    """Return the slopes at which the clipped residuals have no correlation with x: Newton within a bracket."""
    limit = lam[:, None] * problem.scale
    ratio = problem.y / problem.x
    low = np.where(np.isfinite(ratio), ratio, np.inf).min(axis=-1)
    high = np.where(np.isfinite(ratio), ratio, -np.inf).max(axis=-1)
    slope = np.clip(start, low, high)
    settled = np.zeros(slope.shape, dtype=np.bool_)
    for step in range(_STEPS):
        residual = problem.residual(slope)
        score = (np.clip(residual, -limit, limit) * problem.x).sum(axis=-1)
        curvature = (np.where(np.abs(residual) <= limit, problem.x, 0.0) ** 2).sum(axis=-1)
        low, high = np.where(score > 0, slope, low), np.where(score < 0, slope, high)
        newton = slope + score / curvature
        settled |= (score == 0) | (np.abs(newton - slope) <= 1e-15 * np.abs(slope)) | (low >= high)
        if settled.all():
            break
        # Newton's method can go back and forth between the ends of the bracket: halve it now and then.
        inside = (newton > low) & (newton < high) & (step % 4 != 3)
        slope = np.where(settled, slope, np.where(inside, newton, (low + high) / 2))
    return slope


def _largest(problem: _Problem) -> FloatArray:
    """Return the smallest penalty at which all pleiotropic effects are 0."""
    pull = np.abs(problem.residual(problem.slope)) / problem.scale
    return np.asarray(np.where(problem.used & (problem.scale > 0), pull, 0.0).max(axis=-1), dtype=np.float64)


def _solve_at(problem: _Problem, penalty: float) -> tuple[FloatArray, FloatArray]:
    lam = np.full(problem.slope.size, penalty)
    return lam, _huber_slope(problem, lam, problem.slope)


def _choose(problem: _Problem) -> tuple[FloatArray, FloatArray]:
    """Return the penalties of the stopping rule, and the slopes there."""
    largest = _largest(problem)
    # The first penalty is the largest itself: rounding must not make its variant invalid.
    lam = largest[:, None] * _RATIO ** (np.arange(_PATH) / (_PATH - 1))
    lam[:, 0] *= 1 + 1e-12
    shape = lam.shape
    slopes, rse, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    total = (problem.residual(problem.slope) ** 2).sum(axis=-1)
    explained = np.zeros(shape[0])
    active, slope = np.arange(shape[0]), problem.slope.copy()
    for step in range(_PATH):
        part, weight = problem[active], lam[active, step]
        slope[active] = _huber_slope(part, weight, slope[active]) if step else part.slope
        slopes[active, step] = slope[active]
        residual, limit = part.residual(slope[active]), weight[:, None] * part.scale
        rse[active, step], count[active, step] = _spread(part, part.used & (np.abs(residual) <= limit))
        share = 1 - (np.clip(residual, -limit, limit) ** 2).sum(axis=-1) / total[active]
        ends = (share - explained[active] < _GAIN * share) | (share > _EXPLAINED)
        explained[active] = share
        if step + 1 >= _LEAST:
            active = active[~ends]
            if active.size == 0:
                break
    # Read from the smallest penalty on: the one before the first jump, but one with two valid instruments.
    jump = (rse[:, :-1] > 1) & (rse[:, :-1] - rse[:, 1:] > _JUMP / count[:, :-1])
    place = np.arange(_PATH)
    last_jump = np.where(jump, place[1:], 0).max(axis=-1)
    enough = np.where(count > 1, place, 0).max(axis=-1)
    chosen = np.minimum(last_jump, enough)
    rows = np.arange(shape[0])
    return lam[rows, chosen], slopes[rows, chosen]


def _spread(problem: _Problem, valid: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the residual standard error of IVW in the valid instruments, and their number."""
    count = np.count_nonzero(valid, axis=-1).astype(np.float64)
    x, y = np.where(valid, problem.x, 0.0), np.where(valid, problem.y, 0.0)
    slope = (x * y).sum(axis=-1) / (x**2).sum(axis=-1)
    square = ((y - slope[:, None] * x) ** 2).sum(axis=-1)
    return np.where(count > 1, np.sqrt(square / (count - 1)), np.nan), count
