"""MR-Egger regression of the mean network, cross-fitted over draws."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.cross_fitting import cross_fit, jackknife, ratio_fields, read_choices, read_draws
from kipoi_deepmr.mr.core.inputs import FloatArray, Status, check_alpha
from kipoi_deepmr.mr.core.regression import intercept_inference
from kipoi_deepmr.mr.core.result import InterceptResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CrossFittedEggerResult(InterceptResult):
    """Estimates of `cross_fitted_egger`: the causal effect is the slope of the mean network, as in `CrossFittedIVWResult`.

    The intercept's interval and p-value are Student t with N - 1 degrees of freedom.

    Attributes
    ----------
    n_used : ndarray of float64, shape (...)
        Variants with a positive weight, a mean over the pairs of folds.
    f_statistic : ndarray of float64, shape (...)
        Strength of the spread of the oriented exposure effects: (denominator / its jackknife standard error)^2.
    """

    estimator: str = "cross_fitted_egger"
    n_used: FloatArray
    f_statistic: FloatArray


@np.errstate(all="ignore")
def cross_fitted_egger(
    bx_draws: npt.ArrayLike,
    by_draws: npt.ArrayLike,
    *,
    weights: str | npt.ArrayLike = "held_out",
    min_f: float = 0.0,
    folds: int = 5,
    model: str = "random",
    groups: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> CrossFittedEggerResult:
    r"""MR-Egger estimate from products of distinct draws: no dilution by I2_GX, no bias by shared draws.

    .. math:: \hat\beta_1 = \frac{\sum_{n \ne m} \sum_j w_j \tilde x_{jn} y_{jm}}
                                 {\sum_{n \ne m} \sum_j w_j \tilde x_{jn} x_{jm}}, \qquad
              \tilde x_{jn} = x_{jn} - s_j \frac{\sum_i w_i s_i x_{in}}{\sum_i w_i},

    where the weights :math:`w_j` and the orientations :math:`s_j`, the signs of the mean exposure effects, come from
    draws outside the folds of n and m. Removing the weighted mean of the oriented effects is what the intercept does,
    and it is linear in a draw, so the argument of `cross_fitted_ivw` holds for it. An orientation by the sign of the same
    draws would turn errors into effects: the mean of |x| is positive where there is no effect at all. The intercept is
    the mean over pairs of folds of the weighted mean of :math:`s_j (y_j - \hat\beta_1 x_j)`.

    *Estimand*: the slope of the mean network's effects with directional pleiotropy allowed that does not depend on the size
    of the exposure effect (InSIDE). Use it beside `cross_fitted_ivw` where mutations may act on the outcome past
    the exposure in one direction. Its orientation is by the exposure effect, as in MR-Egger; a variant that is too weak to
    be oriented in the held-out draws has a random sign, which attenuates the intercept and, under directional
    pleiotropy, leaves a bias in the slope: set `min_f`.

    Parameters
    ----------
    bx_draws, by_draws : array_like, shape (..., N, J)
        As in `cross_fitted_ivw`.
    weights : {"held_out", "equal"} or array_like, shape (..., J), default "held_out"
        As in `cross_fitted_ivw`; the orientation comes from held-out draws in any case.
    min_f : float, default 0
        As in `cross_fitted_ivw`.
    folds : int, default 5
        As in `cross_fitted_ivw`.
    model, groups
        As in `cross_fitted_ivw`.
    alpha : float, default 0.05
        One minus the level of the intervals.

    Returns
    -------
    CrossFittedEggerResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    Notes
    -----
    Needs 4 draws and 3 instruments. Standard errors, intervals and `Status.WEAK_INSTRUMENTS` are as in
    `cross_fitted_ivw`.

    References
    ----------
    Bowden, Davey Smith and Burgess (2015), International Journal of Epidemiology 44:512; Bowden et al. (2016),
    International Journal of Epidemiology 45:1961 (dilution); and those of `cross_fitted_ivw`.
    """
    check_alpha(alpha)
    x, y = read_draws(bx_draws, by_draws)
    fit = cross_fit(x, y, read_choices(x.shape, weights, min_f, folds, model, groups, oriented=True))
    draws = x.shape[-2]
    slope = fit.xy.mean / fit.xx.mean
    # The slope without a draw, to first order.
    change = (fit.xy.without - slope[..., None] * fit.xx.without) / fit.xx.mean[..., None]
    se = np.sqrt(jackknife(change, change) + fit.pleiotropy / fit.xx.mean**2)
    found = ratio_fields(fit, se, draws, alpha)
    without = fit.intercept_y.without - (slope[..., None] + change) * fit.intercept_x.without
    level = fit.intercept_y.mean - slope * fit.intercept_x.mean
    level_se = np.sqrt(jackknife(without, without) + fit.intercept_pleiotropy)
    level, level_se = (np.where(found["status"] == Status.OK, values, np.nan) for values in (level, level_se))
    df = np.asarray(max(draws - 1, 1), dtype=np.int64)
    return CrossFittedEggerResult(**found, **intercept_inference(level, level_se, alpha=alpha, df=df))
