"""Robust adjusted profile score (RAPS), with errors of exposure and outcome that may correlate."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import row_blocks
from kipoi_deepmr.mr.core.design import masked_median
from kipoi_deepmr.mr.core.inputs import (
    Associations,
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.losses import LOSSES, Loss
from kipoi_deepmr.mr.core.over_dispersion import solve_both
from kipoi_deepmr.mr.core.regression import chi2_pvalue, fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.core.score import ScoreRows
from kipoi_deepmr.mr.core.slopes import lowest

# mr.raps leaves out variants with bxse above this multiple of the median when it estimates over-dispersion.
_FAR_BXSE = 10.0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RAPSResult(CausalResult):
    """Estimates of `raps`; intervals and p-values from the normal distribution.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments that enter the fit (over-dispersion leaves out variants with bxse above 10 times the median).
    tau2, tau2_se : ndarray of float64, shape (...)
        Variance of the pleiotropic effects, in squared outcome units, and its standard error; NaN without
        over-dispersion.
    q, q_pvalue : ndarray of float64, shape (...)
        Sum of the squared standardised residuals, and its chi-squared tail with n_used - 1 degrees of freedom.
    converged : ndarray of bool, shape (...)
        Whether the two equations for slope and over-dispersion were solved together; True without over-dispersion.
        Where not there is no estimate, and the status is `Status.NOT_CONVERGED`.
    """

    estimator: str = "raps"
    n_used: IntArray
    tau2: FloatArray
    tau2_se: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    converged: BoolArray


@dataclass(frozen=True, eq=False)
class _Score:
    """Solutions, one for each fit; NaN where the two equations of over-dispersion were not solved."""

    slope: FloatArray
    se: FloatArray
    tau2: FloatArray
    tau2_se: FloatArray
    q: FloatArray
    converged: BoolArray


@np.errstate(all="ignore")
def raps(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    over_dispersion: bool = False,
    loss: str = "l2",
    psi: npt.ArrayLike = 0.0,
    alpha: float = 0.05,
) -> RAPSResult:
    r"""Robust adjusted profile score, with the formulas of R's `mr.raps.mle` and GRAPPLE's correlated errors.

    .. math:: \hat\beta = \arg\min_\beta \sum_j \rho(t_j), \qquad t_j = \frac{y_j - \beta x_j}{s_j}, \qquad
              s_j^2 = s_{yj}^2 + \tau^2 + \beta^2 s_{xj}^2 - 2 \beta \psi_j s_{xj} s_{yj}

    and with over-dispersion, alternately until both hold,

    .. math:: \sum_j s_{xj}^2 (t_j \rho'(t_j) - E[Z \rho'(Z)]) / s_j^2 = 0

    Without over-dispersion the minimum is the lowest of all slopes, and so it is in every turn with "l2" and "huber"
    (R's search may stop in a far tail). Tukey's loss is bounded: with the tau2 of a turn a far slope may be lower than
    any that explains the data. With over-dispersion it starts from the solution for "huber" and goes downhill only;
    so do the others, from the solution for "l2" or from the weighted median ratio, where their turns do not settle.
    Without a positive solution tau2 is 0; of several the smallest is taken.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four, or psi, is NaN.
    over_dispersion : bool, default False
        Estimate tau2, the variance of balanced pleiotropy. Its equation weighs by bxse^2: where all bxse are 0 there
        is no answer. As in R, variants with bxse above 10 times the median are left out.
    loss : {"l2", "huber", "tukey"}, default "l2"
        Squared error, or a robust loss (Huber k = 1.345, Tukey's biweight k = 4.685). With "l2", psi = 0 and without
        over-dispersion the estimate is the one of `maximum_likelihood`.
    psi : array_like, default 0
        Correlation of the two errors of a variant; broadcasts to (..., J).
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    RAPSResult
        Arrays of shape (...). Standard errors are the sandwich formulas at the true exposure effects' moment
        estimates; they are NaN where those give no positive variance.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Zhao et al. (2020), Annals of Statistics 48:1742; Wang et al. (2021), PLoS Genetics 17:e1009575 (GRAPPLE).
    """
    check_option("over_dispersion", over_dispersion, (True, False))
    check_option("loss", loss, tuple(LOSSES))
    check_alpha(alpha)
    data = read_associations(bx, bxse, by, byse)
    shared = np.broadcast_to(read_psi(psi, data.shape), data.shape)
    columns = (data.bx, data.bxse, data.by, data.byse, shared)
    present = ~np.any([np.isnan(column) for column in columns], axis=0)
    used = present
    if over_dispersion:
        used = present & ~(data.bxse > _FAR_BXSE * masked_median(data.bxse, present)[..., None])
    invalid = _invalid(data, used, over_dispersion)
    nothing = np.asarray(~(used & (data.bx != 0)).any(axis=-1))
    fit = _fit(data, shared, used, (invalid == Status.OK) & ~nothing, loss, over_dispersion)

    n_used = np.asarray(np.count_nonzero(used, axis=-1), dtype=np.int64)
    status = fit_status(invalid, n_used, 1, nothing, fit.slope)
    status = np.where((status == Status.NOT_FINITE) & ~fit.converged, Status.NOT_CONVERGED, status)
    q = np.where(n_used > 1, fit.q, np.nan)
    return RAPSResult(
        **inference(fit.slope, fit.se, alpha=alpha),
        n_instruments=np.asarray(np.count_nonzero(present, axis=-1), dtype=np.int64),
        n_used=n_used,
        tau2=fit.tau2,
        tau2_se=fit.tau2_se,
        q=q,
        q_pvalue=chi2_pvalue(q, np.asarray(n_used - 1)),
        converged=fit.converged,
        status=status,
    )


def _invalid(data: Associations, used: BoolArray, over_dispersion: bool) -> IntArray:
    endless = np.isinf(data.bx) | np.isinf(data.by)
    wrong = (data.bxse < 0) | (data.byse < 0) | np.isinf(data.bxse) | np.isinf(data.byse)
    wrong = wrong | ((data.bxse == 0) & (data.byse == 0))
    unweighted = over_dispersion & used.any(axis=-1) & ~(used & (data.bxse > 0)).any(axis=-1)
    bad_se, bad_effect = (used & wrong).any(axis=-1) | unweighted, (used & endless).any(axis=-1)
    codes = np.select([bad_se, bad_effect], [Status.INVALID_STANDARD_ERROR, Status.INVALID_EFFECT], Status.OK)
    return np.asarray(codes, dtype=np.int64)


def _fit(
    data: Associations, psi: FloatArray, used: BoolArray, soluble: BoolArray, name: str, over_dispersion: bool
) -> _Score:
    """Return the solutions in blocks, in units in which the typical standard errors are 1."""
    batch, n_variants = data.shape[:-1], data.shape[-1]
    answers, converged = np.full((5, soluble.size), np.nan), np.ones(soluble.size, dtype=np.bool_)
    held = np.flatnonzero(soluble)
    if held.size:
        where = used.reshape(-1, n_variants)[held]
        x, sx, y, sy, shared = (
            np.where(where, column.reshape(-1, n_variants)[held], 0.0)
            for column in (data.bx, data.bxse, data.by, data.byse, psi)
        )
        unit_x, unit_y = _unit(sx, x, where), _unit(sy, y, where)
        x, sx, y, sy = x / unit_x, sx / unit_x, y / unit_y, sy / unit_y
        rows = ScoreRows(x, y, sx**2, sy**2, shared * sx * sy, where)
        parts = [_solve(rows[block], name, over_dispersion) for block in row_blocks(held.size, 16 * n_variants)]
        ratio, square = (unit_y / unit_x)[:, 0], unit_y[:, 0] ** 2
        units = {"slope": ratio, "se": ratio, "tau2": square, "tau2_se": square, "q": np.ones(held.size)}
        for row, (name, unit) in enumerate(units.items()):
            answers[row, held] = np.concatenate([getattr(part, name) for part in parts]) * unit
        converged[held] = np.concatenate([part.converged for part in parts])
    slope, se, tau2, tau2_se, q = answers.reshape(5, *batch)
    return _Score(slope, se, tau2, tau2_se, q, converged.reshape(batch))


def _solve(rows: ScoreRows, name: str, over_dispersion: bool) -> _Score:
    loss, tau2 = LOSSES[name], np.zeros(rows.x.shape[0])
    if over_dispersion:
        slope, tau2, solved = solve_both(rows, name)
    else:
        slope, solved = lowest(rows, loss, tau2), np.ones(tau2.size, dtype=np.bool_)
    se, tau2_se = _sandwich(rows, loss, slope, tau2, over_dispersion)
    q = np.where(solved, 2 * rows.loss(LOSSES["l2"], slope, tau2), np.nan)
    return _Score(slope, se, tau2 if over_dispersion else np.full(slope.shape, np.nan), tau2_se, q, solved)


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


def _unit(se: FloatArray, effect: FloatArray, where: BoolArray) -> FloatArray:
    median = masked_median(se, where)
    mean, largest = se.max(axis=-1), np.abs(effect).max(axis=-1)
    unit = np.where(median > 0, median, np.where(mean > 0, mean, np.where(largest > 0, largest / 10, 1.0)))
    return np.asarray(unit[:, None], dtype=np.float64)
