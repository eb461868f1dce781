"""Debiased IVW: the estimate for many weak instruments."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import Design, build_two_error_design, in_exposure_units
from kipoi_deepmr.mr.core.inputs import (
    FloatArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
)
from kipoi_deepmr.mr.core.regression import dot, fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.diagnostics import mean_f_statistic


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DebiasedIVWResult(CausalResult):
    """Estimates of `debiased_ivw`.

    Attributes
    ----------
    tau2 : ndarray of float64, shape (...)
        Variance of the pleiotropic effects, in squared outcome units; 0 without over-dispersion.
    condition : ndarray of float64, shape (...)
        (mean F - 1) sqrt(n_instruments): the normal approximation needs it to be large, say above 20.
    """

    estimator: str = "debiased_ivw"
    tau2: FloatArray
    condition: FloatArray


@np.errstate(all="ignore")
def debiased_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    over_dispersion: bool = True,
    alpha: float = 0.05,
) -> DebiasedIVWResult:
    r"""Debiased inverse-variance weighted estimate, with the conventions of R's MendelianRandomization.

    .. math:: \hat\beta = \sum_j w_j x_j y_j / \sum_j w_j (x_j^2 - s_{xj}^2), \qquad w_j = s_{yj}^{-2},

    which takes the dilution by the errors of the exposure effects out of the IVW estimate. It assumes that the errors
    of exposure and outcome are independent.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four is NaN.
    over_dispersion : bool, default True
        Estimate the variance of balanced pleiotropic effects, not below 0, and count it in the standard error.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    DebiasedIVWResult
        Arrays of shape (...). The denominator is negative where the mean F statistic is below about 1: see
        `condition`.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Ye, Shao and Kang (2021), Annals of Statistics 49:2079.
    """
    check_option("over_dispersion", over_dispersion, (True, False))
    check_alpha(alpha)
    data = read_associations(bx, bxse, by, byse)
    design, spread, unit = in_exposure_units(*build_two_error_design(data))
    strength = dot(design.x, design.x) - dot(spread, spread)
    estimate = dot(design.x, design.y) / strength
    tau2 = pleiotropic_variance(design, spread, estimate, over_dispersion=over_dispersion)
    se = np.sqrt(numerator_variance(design, spread, estimate, tau2)) / np.abs(strength)

    nothing = (strength == 0) | ~(design.x != 0).any(axis=-1)
    status = fit_status(design.invalid, design.n_used, 1, nothing, estimate + se)
    answered = status == Status.OK
    estimate, se = np.where(answered, estimate, np.nan), np.where(answered, se, np.nan)
    mean_f = mean_f_statistic(data.bx, data.bxse, where=design.used)
    return DebiasedIVWResult(
        **inference(estimate / unit, se / unit, alpha=alpha),
        n_instruments=design.n_instruments,
        tau2=np.where(answered, tau2, np.nan),
        condition=np.asarray((mean_f - 1) * np.sqrt(design.n_used), dtype=np.float64),
        status=status,
    )


def pleiotropic_variance(design: Design, spread: FloatArray, slope: FloatArray, *, over_dispersion: bool) -> FloatArray:
    """Return the excess of the residuals' weighted variance over that of the errors, not below 0."""
    if not over_dispersion:
        return np.zeros(slope.shape)
    residual = design.y - slope[..., None] * design.x
    excess = dot(residual, residual) - design.n_used - slope**2 * dot(spread, spread)
    return np.asarray(np.maximum(excess, 0) / dot(design.sign, design.sign), dtype=np.float64)


def numerator_variance(design: Design, spread: FloatArray, slope: FloatArray, tau2: FloatArray) -> FloatArray:
    """Return the variance of sum w x y - slope sum w (x^2 - s^2)."""
    outcome = design.x**2 * (1 + tau2[..., None] * design.sign**2)
    exposure = spread**2 * (design.x**2 + spread**2)
    return np.asarray(outcome.sum(axis=-1) + slope**2 * exposure.sum(axis=-1), dtype=np.float64)
