"""MR-Egger regression."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import over_blocks
from kipoi_deepmr.mr.core.design import build_design, correlate, keep_zero_outcomes, penalize_residuals
from kipoi_deepmr.mr.core.inputs import Associations, FloatArray, IntArray, Status, read_associations, read_psi
from kipoi_deepmr.mr.core.regression import chi2_pvalue, dot, interval, pvalue, robust_with_intercept, with_intercept
from kipoi_deepmr.mr.core.strength import i2_gx
from kipoi_deepmr.mr.estimators.ivw import check_options, ignore_with_correlation


@dataclass(frozen=True, eq=False)
class EggerResult:
    """Estimates of `egger`, one for each leading index of the input.

    Attributes
    ----------
    estimate, se, ci_low, ci_high, pvalue : ndarray of float64, shape (...)
        Slope: the causal effect (outcome units per exposure unit), its standard error, interval and p-value.
    n_instruments, n_used : ndarray of int64, shape (...)
        Variants that are present, and those of them with a positive weight.
    intercept, intercept_se, intercept_ci_low, intercept_ci_high, intercept_pvalue : ndarray of float64, shape (...)
        Intercept: the mean directional pleiotropic effect, in outcome units; its p-value is the Egger test.
    rse : ndarray of float64, shape (...)
        Residual standard error with n_used - 2 degrees of freedom.
    q, q_pvalue : ndarray of float64, shape (...)
        Rucker's Q' with n_used - 2 degrees of freedom, the sum of squared residuals, also of a robust fit; NaN when
        penalized.
    i2_gx : ndarray of float64, shape (...)
        Weighted I2_GX, a fraction in [0, 1]; NaN with a correlation matrix.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the estimate is NaN.
    """

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    n_instruments: IntArray
    n_used: IntArray
    intercept: FloatArray
    intercept_se: FloatArray
    intercept_ci_low: FloatArray
    intercept_ci_high: FloatArray
    intercept_pvalue: FloatArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    i2_gx: FloatArray
    status: IntArray


@np.errstate(all="ignore")
def egger(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    model: str = "default",
    robust: bool = False,
    penalized: bool = False,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    correlation: npt.ArrayLike | None = None,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> EggerResult:
    r"""MR-Egger estimate, with the conventions of R's MendelianRandomization.

    .. math:: s_j y_j = \theta_0 + \theta_1 |x_j| + \epsilon_j, \qquad s_j = \operatorname{sign}(x_j),

    by weighted least squares; standard errors are multiplied by max(RSE, 1).

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where an input that enters the estimate is NaN: bx, by, byse, and for delta
        weights bxse and psi. sign(0) = 0: a variant with bx = 0 becomes the point (0, 0), as in MendelianRandomization
        (TwoSampleMR keeps its by); with a correlation matrix it is taken as uncorrelated with the others.
    model : {"default", "random", "fixed"}, default "default"
        "default" is "random". "fixed" (not offered by R) takes the residual standard error as 1.
    robust : bool, default False
        As in `ivw`.
    penalized : bool, default False
        Fit again with weights multiplied by min(1, 100 p) (delta weights: 20 p), with p from the chi-squared test of
        a variant's residual in the ordinary fit.
    weights : {"simple", "delta"}, default "simple"
        As in `ivw`; R offers "simple" only.
    psi : array_like, default 0
        As in `ivw`.
    correlation : array_like, shape (..., J, J), optional
        As in `ivw`.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 2 degrees of freedom. Where RSE < 1 the random model reports the wider of the
        normal interval and the t interval with the estimated RSE, and the larger of the two p-values.
    alpha : float, default 0.05
        One minus the level of the intervals.

    Returns
    -------
    EggerResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden, Davey Smith and Burgess (2015), International Journal of Epidemiology 44:512; Bowden et al. (2016),
    International Journal of Epidemiology 45:1961 (I2_GX); Burgess and Thompson (2017), European Journal of
    Epidemiology 32:377 (intervals); Rees et al. (2019), PLoS ONE 14:e0222362 (robust regression).
    """
    check_options(model, robust, penalized, weights, distribution, alpha)
    if correlation is not None:
        robust, penalized, weights = ignore_with_correlation(robust, penalized, weights)
    data = read_associations(bx, bxse, by, byse)
    fit = partial(
        _egger,
        model=model,
        robust=robust,
        penalized=penalized,
        weights=weights,
        correlation=correlation,
        distribution=distribution,
        alpha=alpha,
    )
    arrays = (data.bx, data.bxse, data.by, data.byse, read_psi(psi, data.shape))
    return fit(*arrays) if correlation is not None else over_blocks(fit, *arrays)


def _egger(
    bx: FloatArray,
    bxse: FloatArray,
    by: FloatArray,
    byse: FloatArray,
    psi: FloatArray,
    *,
    model: str,
    robust: bool,
    penalized: bool,
    weights: str,
    correlation: npt.ArrayLike | None,
    distribution: str,
    alpha: float,
) -> EggerResult:
    data = Associations(bx, bxse, by, byse)
    design = keep_zero_outcomes(build_design(data, weights=weights, psi=psi, penalized=False), data)
    if correlation is not None:
        design = correlate(design, data, correlation, orient=True)
        dilution = np.full(data.shape[:-1], np.nan)
    else:
        dilution = i2_gx(data.bx, data.bxse, data.byse, where=design.present)
    if penalized:
        design = penalize_residuals(design, with_intercept(design).residual, weights)
    fit = robust_with_intercept(design) if robust else with_intercept(design)

    scale = np.ones(fit.rse.shape) if model == "fixed" else np.maximum(fit.rse, 1)
    se, intercept_se = fit.slope_se * scale, fit.intercept_se * scale
    t_df = design.n_instruments - 2 if distribution == "t-dist" else None
    rse = None if model == "fixed" else fit.rse
    ci_low, ci_high = interval(fit.slope, se, alpha=alpha, df=t_df, rse=rse)
    intercept_ci_low, intercept_ci_high = interval(fit.intercept, intercept_se, alpha=alpha, df=t_df, rse=rse)
    q = np.where((fit.status == Status.OK) & (not penalized), dot(fit.residual, fit.residual), np.nan)
    return EggerResult(
        estimate=fit.slope,
        se=np.asarray(se),
        ci_low=np.asarray(ci_low),
        ci_high=np.asarray(ci_high),
        pvalue=np.asarray(pvalue(fit.slope, se, df=t_df, rse=rse)),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        intercept=fit.intercept,
        intercept_se=np.asarray(intercept_se),
        intercept_ci_low=np.asarray(intercept_ci_low),
        intercept_ci_high=np.asarray(intercept_ci_high),
        intercept_pvalue=np.asarray(pvalue(fit.intercept, intercept_se, df=t_df, rse=rse)),
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        i2_gx=dilution,
        status=fit.status,
    )
