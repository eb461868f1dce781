"""MR-Egger regression."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import over_associations
from kipoi_deepmr.mr.core.design import build_design, correlate, keep_zero_outcomes, penalize_residuals
from kipoi_deepmr.mr.core.inputs import Associations, FloatArray, IntArray, Status, read_associations, read_psi
from kipoi_deepmr.mr.core.options import RegressionOptions, check_options, ignore_with_correlation
from kipoi_deepmr.mr.core.regression import (
    chi2_pvalue,
    dot,
    inference,
    intercept_inference,
    robust_with_intercept,
    with_intercept,
)
from kipoi_deepmr.mr.core.result import InterceptResult
from kipoi_deepmr.mr.core.strength import i2_gx


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EggerResult(InterceptResult):
    """Estimates of `egger`: the causal effect is the slope.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments with a positive weight.
    rse : ndarray of float64, shape (...)
        Residual standard error with n_used - 2 degrees of freedom.
    q, q_pvalue : ndarray of float64, shape (...)
        Rucker's Q' with n_used - 2 degrees of freedom, the sum of squared residuals, also of a robust fit; NaN when
        penalized.
    i2_gx : ndarray of float64, shape (...)
        Weighted I2_GX, a fraction in [0, 1]; NaN with a correlation matrix.
    """

    estimator: str = "egger"
    n_used: IntArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    i2_gx: FloatArray


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
    options = RegressionOptions(model, robust, penalized, weights, correlation, distribution, alpha)
    fit, shared = partial(_egger, options=options), read_psi(psi, data.shape)
    return fit(data, shared) if correlation is not None else over_associations(fit, data, shared)


def _egger(data: Associations, psi: FloatArray, *, options: RegressionOptions) -> EggerResult:
    design = keep_zero_outcomes(build_design(data, weights=options.weights, psi=psi, penalized=False), data)
    if options.correlation is not None:
        design = correlate(design, data, options.correlation, orient=True)
        dilution = np.full(data.shape[:-1], np.nan)
    else:
        dilution = i2_gx(data.bx, data.bxse, data.byse, where=design.present)
    if options.penalized:
        design = penalize_residuals(design, with_intercept(design).residual, options.weights)
    fit = robust_with_intercept(design) if options.robust else with_intercept(design)

    fixed = options.model == "fixed"
    scale, rse = (np.ones(fit.rse.shape), None) if fixed else (np.maximum(fit.rse, 1), fit.rse)
    df = options.degrees_of_freedom(design.n_instruments, 2)
    q = np.where((fit.status == Status.OK) & (not options.penalized), dot(fit.residual, fit.residual), np.nan)
    return EggerResult(
        **inference(fit.slope, fit.slope_se * scale, alpha=options.alpha, df=df, rse=rse),
        **intercept_inference(fit.intercept, fit.intercept_se * scale, alpha=options.alpha, df=df, rse=rse),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        i2_gx=dilution,
        status=fit.status,
    )
