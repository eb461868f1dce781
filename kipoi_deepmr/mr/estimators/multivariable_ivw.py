"""Inverse-variance weighted estimates of the direct effects of several exposures."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, check_alpha, check_option
from kipoi_deepmr.mr.core.multivariable import build_several_design, least_squares, read_exposures, whiten_several
from kipoi_deepmr.mr.core.regression import chi2_pvalue, interval, pvalue
from kipoi_deepmr.mr.diagnostics.conditional_strength import conditional_f
from kipoi_deepmr.mr.estimators.ivw import ignore_with_correlation, is_random


@dataclass(frozen=True, eq=False)
class MultivariableIVWResult:
    """Estimates of `multivariable_ivw`, one for each leading index of the input.

    Attributes
    ----------
    estimate, se, ci_low, ci_high, pvalue : ndarray of float64, shape (..., K)
        Direct effect of each exposure (outcome units per unit of that exposure), its standard error, interval at
        level 1 - alpha and two-sided p-value.
    n_instruments, n_used : ndarray of int64, shape (...)
        Variants that are present, and those of them with a positive weight.
    rse : ndarray of float64, shape (...)
        Residual standard error with n_used - K degrees of freedom; 1 where there is none.
    q, q_pvalue : ndarray of float64, shape (...)
        Cochran's Q with n_used - K degrees of freedom, when robust (n_used - K) rse^2; NaN where there is none.
    conditional_f : ndarray of float64, shape (..., K)
        Conditional F statistic of each exposure; NaN with a correlation matrix.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the estimates are NaN.
    """

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    n_instruments: IntArray
    n_used: IntArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    conditional_f: FloatArray
    status: IntArray


@np.errstate(all="ignore")
def multivariable_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    model: str = "default",
    robust: bool = False,
    correlation: npt.ArrayLike | None = None,
    exposure_correlation: npt.ArrayLike | None = None,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> MultivariableIVWResult:
    r"""Multivariable inverse-variance weighted estimates, with the conventions of R's MendelianRandomization.

    .. math:: y_j = \sum_k \beta_k x_{kj} + \epsilon_j

    by least squares with weights 1/byse^2 and without an intercept: the effect of each exposure while the others stay.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., K, J)
        Effects of J variants on K exposures and their standard errors. bxse enters the conditional F statistic only.
    by, byse : array_like, shape (..., J)
        Effects on the outcome and their standard errors. Leading axes broadcast. A variant is absent where by, byse or
        one of its bx is NaN.
    model : {"default", "random", "fixed"}, default "default"
        As in `ivw`.
    robust : bool, default False
        As in `ivw`.
    correlation : array_like, shape (..., J, J), optional
        Correlation of the instruments' errors: generalised least squares. Rows of absent variants may be NaN.
        `robust` is ignored with it, as in R; here a UserWarning says so.
    exposure_correlation : array_like, shape (..., K, K), optional
        Correlation of the errors of the exposures, for the conditional F statistic; by default they are independent.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - K degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the intervals.

    Returns
    -------
    MultivariableIVWResult
        Arrays of shape (...) and (..., K).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Burgess and Thompson (2015), American Journal of Epidemiology 181:251; Sanderson, Spiller and Bowden (2021),
    Statistics in Medicine 40:5434 (conditional F).
    """
    check_option("model", model, ("default", "random", "fixed"))
    check_option("robust", robust, (True, False))
    check_option("distribution", distribution, ("normal", "t-dist"))
    check_alpha(alpha)
    if correlation is not None:
        robust, _, _ = ignore_with_correlation(robust, penalized=False, weights="simple")
    data = read_exposures(bx, bxse, by, byse)
    columns, design = build_several_design(data, 0)
    if correlation is None:
        strength = conditional_f(data.bx, data.bxse, exposure_correlation=exposure_correlation, where=design.present)
    else:
        columns, design = whiten_several(columns, design, correlation, design.used)
        strength = np.full(data.bx.shape[:-1], np.nan)
    fit = least_squares(columns, design, robust=robust)

    scale = np.where(is_random(model, design.n_instruments), np.maximum(fit.rse, 1), 1.0)
    se = fit.unit_se * scale[..., None]
    t_df = (design.n_instruments - data.count)[..., None] if distribution == "t-dist" else None
    ci_low, ci_high = interval(fit.coefficients, se, alpha=alpha, df=t_df)
    q = np.where(fit.df > 0, fit.rss, np.nan)
    return MultivariableIVWResult(
        estimate=fit.coefficients,
        se=np.asarray(se),
        ci_low=np.asarray(ci_low),
        ci_high=np.asarray(ci_high),
        pvalue=np.asarray(pvalue(fit.coefficients, se, df=t_df)),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        conditional_f=strength,
        status=fit.status,
    )
