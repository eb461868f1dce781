"""Penalised IVW: the debiased estimate, kept away from a denominator of zero."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.blocks import normal_blocks, packed
from kipoi_deepmr.mr.core.design import Design, build_two_error_design, in_exposure_units
from kipoi_deepmr.mr.core.inputs import (
    FloatArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
)
from kipoi_deepmr.mr.core.regression import dot, fit_status, interval, pvalue
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.diagnostics import mean_f_statistic
from kipoi_deepmr.mr.estimators.debiased_ivw import numerator_variance, pleiotropic_variance

_DRAWS = 1000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PenalizedIVWResult(CausalResult):
    """Estimates of `penalized_ivw`.

    A Fieller set may be more than an interval: ci_low > ci_high means everything up to ci_high and everything from ci_low
    on; -inf and inf mean that nothing is excluded. Its p-value is NaN where the estimated variance under no effect is not
    positive.

    Attributes
    ----------
    tau2 : ndarray of float64, shape (...)
        Variance of the pleiotropic effects, in squared outcome units; 0 without over-dispersion.
    condition : ndarray of float64, shape (...)
        (mean F - 1) sqrt(n_instruments): the theory needs it to be large, say above 5.
    """

    estimator: str = "penalized_ivw"
    tau2: FloatArray
    condition: FloatArray


@dataclass(frozen=True, eq=False)
class _Moments:
    """Penalised numerator and denominator, and the estimates of their variances and covariance."""

    numerator: FloatArray
    denominator: FloatArray
    numerator_variance: FloatArray
    denominator_variance: FloatArray
    covariance: FloatArray

    def variance(self, slope: FloatArray) -> FloatArray:
        """Return the variance of numerator - slope * denominator."""
        return self.numerator_variance - 2 * slope * self.covariance + slope**2 * self.denominator_variance


@np.errstate(all="ignore")
def penalized_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    over_dispersion: bool = True,
    penalty: float = 1.0,
    ci: str = "normal",
    seed: int = 1,
    alpha: float = 0.05,
) -> PenalizedIVWResult:
    r"""Penalised inverse-variance weighted estimate, with the conventions of R's MendelianRandomization.

    .. math:: \hat\beta = (m_1 + \lambda v_{12} / \mu) / \mu, \qquad
              \mu = m_2 / 2 + \operatorname{sign}(m_2) \sqrt{m_2^2 / 4 + \lambda v_2},

    with :math:`m_1 = \sum_j w_j x_j y_j` and :math:`m_2 = \sum_j w_j (x_j^2 - s_{xj}^2)` of debiased IVW,
    :math:`v_2` the variance of :math:`m_2` and :math:`v_{12}` its covariance with :math:`m_1`. It assumes that the
    errors of exposure and outcome are independent.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four is NaN.
    over_dispersion : bool, default True
        Estimate the variance of balanced pleiotropic effects, not below 0, and count it in the standard error.
    penalty : float, default 1
        :math:`\lambda`, not negative; 0 is debiased IVW.
    ci : {"normal", "fieller", "bootstrap"}, default "normal"
        The normal interval and p-value; or the slopes b for which (m_1 - b m_2)^2 is not too large beside its variance:
        compared to the chi-squared distribution, or to 1000 draws of the bootstrap (R's default; every fit sees the
        same noise, and draws with a negative variance do not count).
    seed : int, default 1
        Of the bootstrap.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    PenalizedIVWResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Xu, Wang, Fung and Liu (2023), Biometrics 79:2184.
    """
    check_option("over_dispersion", over_dispersion, (True, False))
    check_option("ci", ci, ("normal", "fieller", "bootstrap"))
    check_alpha(alpha)
    if not np.isfinite(penalty) or penalty < 0:
        raise ValueError(f"penalty={penalty!r} must be a finite number that is not negative; R's default is 1")
    data = read_associations(bx, bxse, by, byse)
    design, spread, unit = in_exposure_units(*build_two_error_design(data))
    moments = _moments(design.x, design.y, spread, np.ones(design.x.shape), penalty)
    estimate = moments.numerator / moments.denominator
    tau2 = pleiotropic_variance(design, spread, estimate, over_dispersion=over_dispersion)
    se = np.sqrt(numerator_variance(design, spread, estimate, tau2)) / np.abs(moments.denominator)

    # The denominator has no real root where the exposure effects are smaller than their errors let them be.
    size = dot(design.x, design.x) + dot(spread, spread)
    nothing = np.isfinite(size**2) & ~(np.abs(moments.denominator) > 0)
    status = fit_status(design.invalid, design.n_used, 1, nothing, estimate + se)
    answered = status == Status.OK
    estimate, se = np.where(answered, estimate, np.nan), np.where(answered, se, np.nan)
    if ci == "normal":
        low, high = interval(estimate, se, alpha=alpha)
        p = pvalue(estimate, se)
    else:
        noise = 1 + tau2[..., None] * design.sign**2
        moments = _moments(design.x, design.y, spread, noise, penalty)
        null = moments.numerator**2 / moments.numerator_variance
        if ci == "fieller":
            quantile = np.full(estimate.shape, special.chdtri(1, alpha), dtype=np.float64)
            p = special.chdtrc(1, null)
        else:
            quantile, p = _bootstrap(design, spread, noise, estimate, null, penalty, seed, alpha)
        low, high = _fieller(moments, quantile)
        p = np.where(moments.numerator_variance > 0, p, np.nan)
    mean_f = mean_f_statistic(data.bx, data.bxse, where=design.used)
    return PenalizedIVWResult(
        estimate=np.asarray(estimate / unit),
        se=np.asarray(se / unit),
        ci_low=np.where(answered, low / unit, np.nan),
        ci_high=np.where(answered, high / unit, np.nan),
        pvalue=np.where(answered, p, np.nan),
        confidence_level=1 - alpha,
        n_instruments=design.n_instruments,
        tau2=np.where(answered, tau2, np.nan),
        condition=np.asarray((mean_f - 1) * np.sqrt(design.n_used), dtype=np.float64),
        status=status,
    )


def _moments(x: FloatArray, y: FloatArray, spread: FloatArray, noise: FloatArray, penalty: float) -> _Moments:
    """Return the moments, given effects and errors in units of byse; `noise` is the outcome's variance in them."""
    square = x**2 - spread**2
    plain = square.sum(axis=-1)
    variance = (4 * square * spread**2 + 2 * spread**4).sum(axis=-1)
    covariance = 2 * (x * y * spread**2).sum(axis=-1)
    root = plain / 2 + np.sign(plain) * np.sqrt(plain**2 / 4 + penalty * variance)
    shrunk = root / (2 * root - plain)
    return _Moments(
        numerator=dot(x, y) + penalty * covariance / root,
        denominator=root,
        numerator_variance=((x * y) ** 2 - (y**2 - noise) * square).sum(axis=-1),
        denominator_variance=shrunk**2 * variance,
        covariance=shrunk * covariance,
    )


def _fieller(moments: _Moments, quantile: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the set of slopes b with (numerator - b denominator)^2 <= quantile * variance(b)."""
    a = moments.denominator**2 - quantile * moments.denominator_variance
    half = moments.numerator * moments.denominator - quantile * moments.covariance
    c = moments.numerator**2 - quantile * moments.numerator_variance
    discriminant = half**2 - a * c
    root = np.sqrt(discriminant)
    # For a < 0 the roots change places: the set is outside of them.
    low, high = (half - root) / a, (half + root) / a
    everything = (a <= 0) & ~(discriminant > 0)
    return np.where(everything, -np.inf, low), np.where(everything, np.inf, high)


def _bootstrap(
    design: Design,
    spread: FloatArray,
    noise: FloatArray,
    estimate: FloatArray,
    null: FloatArray,
    penalty: float,
    seed: int,
    alpha: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the 1 - alpha quantile of the statistic at the estimate, and how often it exceeds `null`."""
    x, spread, noise, used = packed(design.used, design.x, spread, noise, design.used.astype(np.float64))
    centre = estimate[..., None] * x
    # Absent variants have neither effects nor errors.
    error = used * np.sqrt(noise)
    statistics = np.full((*estimate.shape, _DRAWS), np.nan)
    for draws, z in normal_blocks(_DRAWS, 2, x.shape[-1], seed) if x.size else ():
        for draw, (outcome, exposure) in enumerate(z, start=draws.start):
            again = _moments(x + spread * exposure, centre + error * outcome, spread, noise, penalty)
            away = again.numerator - estimate * again.denominator
            statistics[..., draw] = away**2 / again.variance(estimate)
    counted = statistics >= 0
    size = np.count_nonzero(counted, axis=-1)
    ordered = np.sort(np.where(counted, statistics, np.inf), axis=-1)
    place = np.clip(np.rint(size * (1 - alpha)).astype(np.int64) - 1, 0, _DRAWS - 1)
    quantile = np.take_along_axis(ordered, place[..., None], axis=-1)[..., 0]
    exceeding = np.count_nonzero(counted & (statistics > null[..., None]), axis=-1) / size
    return quantile, np.asarray(exceeding, dtype=np.float64)
