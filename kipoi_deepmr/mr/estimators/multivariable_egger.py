"""Multivariable MR-Egger: direct effects of several exposures beside a directional pleiotropic effect."""

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.multivariable import (
    SeveralResult,
    build_several_design,
    least_squares,
    read_exposures,
    several_fields,
    whiten_several,
)
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import inference, intercept_inference
from kipoi_deepmr.mr.core.result import InterceptResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MultivariableEggerResult(SeveralResult, InterceptResult):
    """Estimates of `multivariable_egger`; the residuals have n_used - K - 1 degrees of freedom."""

    estimator: str = "multivariable_egger"


@np.errstate(all="ignore")
def multivariable_egger(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    orientation: int = 0,
    correlation: npt.ArrayLike | None = None,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> MultivariableEggerResult:
    r"""Multivariable MR-Egger estimates, with the conventions of R's MendelianRandomization.

    .. math:: s_j y_j = \theta_0 + \sum_k \theta_k s_j x_{kj} + \epsilon_j, \qquad s_j = \operatorname{sign}(x_{oj}),

    by weighted least squares; standard errors are multiplied by max(RSE, 1).

    Parameters
    ----------
    bx, bxse : array_like, shape (..., K, J)
        Effects of J variants on K exposures and their standard errors; bxse does not enter the estimates.
    by, byse : array_like, shape (..., J)
        Effects on the outcome and their standard errors. Leading axes broadcast. A variant is absent where by, byse or
        one of its bx is NaN.
    orientation : int, default 0
        Index o of the exposure whose effects are made positive: the estimates depend on it. A variant without an
        effect on it becomes the point 0; with a correlation matrix it is taken as uncorrelated with the others.
    correlation : array_like, shape (..., J, J), optional
        As in `multivariable_ivw`.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - K - 1 degrees of freedom. (R's `mr_mvegger` without a correlation matrix has one
        more in the p-values, but not in the intervals.)
    alpha : float, default 0.05
        One minus the level of the intervals.

    Returns
    -------
    MultivariableEggerResult
        Arrays of shape (...) and (..., K).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Rees, Wood and Burgess (2017), Statistics in Medicine 36:4705.
    """
    check_inference(distribution, alpha)
    data = read_exposures(bx, bxse, by, byse)
    if not isinstance(orientation, Integral) or isinstance(orientation, bool) or not 0 <= orientation < data.count:
        raise ValueError(f"orientation={orientation!r} must be the index of one of the {data.count} exposures, from 0")
    columns, design = build_several_design(data, orientation)
    unoriented = design.used & (data.bx[..., orientation, :] == 0)
    columns = np.where(unoriented[..., None], 0.0, np.concatenate([columns, design.sign[..., None]], axis=-1))
    columns[..., -1] = np.where(unoriented, np.abs(design.sign), columns[..., -1])
    design = replace(design, y=np.where(unoriented, 0.0, design.y))
    if correlation is not None:
        columns, design = whiten_several(columns, design, correlation, design.used & ~unoriented)
    fit = least_squares(columns, design)

    se = fit.unit_se * np.maximum(fit.rse, 1)[..., None]
    t_df = (design.n_instruments - data.count - 1)[..., None] if distribution == "t-dist" else None
    slopes, line = (fit.coefficients[..., :-1], se[..., :-1]), (fit.coefficients[..., -1], se[..., -1])
    return MultivariableEggerResult(
        **inference(*slopes, alpha=alpha, df=t_df),
        **intercept_inference(*line, alpha=alpha, df=None if t_df is None else t_df[..., 0]),
        **several_fields(design, fit),
    )
