"""Inverse-variance weighted Mendelian randomization of the mean network, cross-fitted over draws."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.cross_fitting import cross_fit, jackknife, ratio_fields, read_choices, read_draws
from kipoi_deepmr.mr.core.inputs import FloatArray, check_alpha
from kipoi_deepmr.mr.core.result import CausalResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CrossFittedIVWResult(CausalResult):
    """Estimates of `cross_fitted_ivw`: of the mean network, with jackknife standard errors.

    Fieller's interval and the p-value of no effect are both Student t with N - 1 degrees of freedom: the interval excludes
    zero exactly where the p-value is below alpha. With an alpha below 0.05 the interval may be unbounded.

    Attributes
    ----------
    n_used : ndarray of float64, shape (...)
        Variants with a positive weight, a mean over the pairs of folds.
    f_statistic : ndarray of float64, shape (...)
        Strength of all instruments together: (denominator / its jackknife standard error)^2.
    """

    estimator: str = "cross_fitted_ivw"
    n_used: FloatArray
    f_statistic: FloatArray


@np.errstate(all="ignore")
def cross_fitted_ivw(
    bx_draws: npt.ArrayLike,
    by_draws: npt.ArrayLike,
    *,
    weights: str | npt.ArrayLike = "held_out",
    min_f: float = 0.0,
    folds: int = 5,
    model: str = "random",
    groups: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> CrossFittedIVWResult:
    r"""IVW estimate from products of distinct draws: no regression dilution, no bias by shared draws.

    .. math:: \hat\beta = \frac{\sum_{n \ne m} \sum_j w_j^{(nm)} x_{jn} y_{jm}}
                               {\sum_{n \ne m} \sum_j w_j^{(nm)} x_{jn} x_{jm}}

    over all ordered pairs of distinct draws n, m. Distinct draws are independent, so numerator and denominator have the
    expectations :math:`\sum_j \gamma_j \Gamma_j E w_j` and :math:`\sum_j \gamma_j^2 E w_j` for mean effects
    :math:`\gamma, \Gamma`, however the errors of the instruments, and of exposure and outcome within a draw, depend
    on each other, as long as the weight of a pair knows neither of its draws.

    *Estimand*: the slope of the mean network's effects, to which the mean over infinitely many draws tends. Use it where
    instruments are weak next to the Monte-Carlo error, where exposure and outcome share their draws, and where the errors
    of the instruments depend on each other: its error counts draws, not instruments. Pleiotropy that is balanced only
    widens its intervals; directional and correlated pleiotropy bias it, as they do IVW.

    *Weights.* The draws outside the folds of n and m give 1 / variance of the outcome effect, so no error is used
    twice. Weights of the same draws leave a bias of about 2 / N of the one they should remove, and more where the size
    of an error goes with its sign. With weights that are not learned from the draws (an array, or "equal") the estimate
    equals `overlap_debiased_ivw` with the Monte-Carlo moments, and only the standard error needs the draws.

    *Standard error.* Delete-one jackknife over draws of numerator and denominator (with their covariance): it keeps all
    correlations between instruments. The weights are taken as given; their noise enters at second order, at first order
    only through pleiotropy. The part of the error that is quadratic in the errors (weak instruments) counts twice, which
    is conservative. The "random" model adds what differences between instruments contribute: with :math:`e_g` the
    share of group g in numerator - estimate x denominator, and :math:`v_g` its own jackknife variance over draws,

    .. math:: \frac{G}{G - 1} \max\Big(0, \sum_g (e_g^2 - v_g)\Big),

    the variance by variants clustered in groups, plus that by draws, minus their intersection (two-way clustering).

    Parameters
    ----------
    bx_draws, by_draws : array_like, shape (..., N, J)
        Effects of J variants on exposure and outcome in each of N independent draws; draw n is the same network for
        both and for all variants. Leading axes broadcast. A variant is absent where any of its draws is NaN.
    weights : {"held_out", "equal"} or array_like, shape (..., J), default "held_out"
        "held_out": 1 / variance over held-out draws of the outcome effect; a variant whose outcome effect is the same
        in all of them has no weight. An array: weights that do not come from these draws; NaN makes a variant absent.
    min_f : float, default 0
        Use a variant for a pair of draws only if its F is at least this in the held-out draws, see `held_out_selection`.
    folds : int, default 5
        Consecutive draws make a fold, and the draws outside the two folds of a pair are held out. At least 3; at most N.
    model : {"random", "fixed"}, default "random"
        "random": balanced pleiotropy counts in the standard error. "fixed": the slope of these very variants is asked for,
        and only the draws err.
    groups : array_like, shape (J,), optional
        Labels of the variants whose pleiotropic effects go together, for example their positions; for the "random"
        model. Default: each variant alone.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    CrossFittedIVWResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    Notes
    -----
    3 draws are needed, 4 where anything is held out (`Status.TOO_FEW_DRAWS`), and weights from fewer than 6 held-out draws
    (10 draws in 5 folds) are so noisy that the instruments may appear weak. The estimate is NaN with
    `Status.WEAK_INSTRUMENTS` where the denominator is not positive at the two-sided level 0.05, which is where
    Fieller's set is not an interval. Time grows with N^2 J (one matrix product), memory is bounded.

    References
    ----------
    Hoeffding (1948), Annals of Mathematical Statistics 19:293 (U-statistics); Arvesen (1969), Annals of Mathematical
    Statistics 40:2076 (their jackknife); Angrist, Imbens and Krueger (1999), Journal of Applied Econometrics 14:57
    (jackknife instruments); Chernozhukov et al. (2018), Econometrics Journal 21:C1 (cross-fitting); Fieller (1954),
    Journal of the Royal Statistical Society B 16:175; Cameron, Gelbach and Miller (2011), Journal of Business and Economic
    Statistics 29:238 (two-way clustering).
    """
    check_alpha(alpha)
    x, y = read_draws(bx_draws, by_draws)
    fit = cross_fit(x, y, read_choices(x.shape, weights, min_f, folds, model, groups, oriented=False))
    slope = fit.xy.mean / fit.xx.mean
    residual = fit.xy.without - slope[..., None] * fit.xx.without
    se = np.sqrt(jackknife(residual, residual) + fit.pleiotropy) / fit.xx.mean
    return CrossFittedIVWResult(**ratio_fields(fit, se, x.shape[-2], alpha))
