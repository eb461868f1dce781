"""Inverse-variance weighted estimates of the direct effects of several exposures."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import FloatArray, check_option
from kipoi_deepmr.mr.core.multivariable import (
    SeveralResult,
    build_several_design,
    least_squares,
    read_exposures,
    several_fields,
    whiten_several,
)
from kipoi_deepmr.mr.core.options import check_inference, ignore_with_correlation, is_random
from kipoi_deepmr.mr.core.regression import inference
from kipoi_deepmr.mr.diagnostics.conditional_strength import conditional_f


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MultivariableIVWResult(SeveralResult):
    """Estimates of `multivariable_ivw`.

    The residuals have n_used - K degrees of freedom; `q` is Cochran's Q, when robust (n_used - K) rse^2.

    Attributes
    ----------
    conditional_f : ndarray of float64, shape (..., K)
        Conditional F statistic of each exposure; NaN with a correlation matrix.
    """

    estimator: str = "multivariable_ivw"
    conditional_f: FloatArray


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
    check_inference(distribution, alpha)
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
    return MultivariableIVWResult(
        **inference(fit.coefficients, se, alpha=alpha, df=t_df),
        **several_fields(design, fit),
        conditional_f=strength,
    )
