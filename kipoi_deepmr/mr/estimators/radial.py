"""Radial IVW and radial MR-Egger: every instrument on one scale, so that its share in the heterogeneity can be read."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import Design, build_design, build_two_error_design
from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status, check_option, read_associations
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import Fit, chi2_pvalue, inference, pvalue, through_origin, with_intercept
from kipoi_deepmr.mr.core.result import CausalResult

_WEIGHTS = ("simple", "delta", "modified")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RadialResult(CausalResult):
    """Estimates of `radial_ivw` and `radial_egger`.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments that take part.
    intercept, intercept_se, intercept_pvalue : ndarray of float64, shape (...)
        Intercept of the radial line, in standard errors of an instrument; NaN for radial IVW.
    rse : ndarray of float64, shape (...)
        Residual standard error.
    q, q_pvalue : ndarray of float64, shape (...)
        Heterogeneity about the line with n_used - 1 (radial MR-Egger: - 2) degrees of freedom.
    contributions, contribution_pvalues : ndarray of float64, shape (..., J)
        What each instrument adds to q, and its upper chi-squared tail with 1 degree of freedom: small for an outlier.
        NaN where absent.
    """

    n_used: IntArray
    intercept: FloatArray
    intercept_se: FloatArray
    intercept_pvalue: FloatArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    contributions: FloatArray
    contribution_pvalues: FloatArray


@np.errstate(all="ignore")
def radial_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "modified",
    distribution: str = "normal",
    alpha: float = 0.05,
) -> RadialResult:
    r"""Radial IVW: regression through the origin of ratio times root weight on root weight.

    .. math:: \frac{y_j}{x_j} \sqrt{W_j} = \beta \sqrt{W_j} + \epsilon_j, \qquad
              W_j = \frac{x_j^2}{s_{yj}^2 + \beta_0^2 s_{xj}^2}

    Standard errors are multiplied by max(RSE, 1), as in `ivw`; RadialMR multiplies them by the RSE.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant with NaN is absent.
    weights : {"simple", "delta", "modified"}, default "modified"
        beta_0 = 0, the instrument's own ratio, or the estimate with simple weights: first order, second order and
        modified second order in RadialMR. "simple" and "delta" give the estimates of `ivw`. Own ratios shrink the
        estimate where instruments are weak; one common slope does not.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_used - 1 degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    RadialResult
        Arrays of shape (...) and (..., J).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden et al. (2018), International Journal of Epidemiology 47:1264; Bowden et al. (2019), International Journal of
    Epidemiology 48:728 (modified second-order weights).
    """
    design, noise = _read(bx, bxse, by, byse, weights, distribution, alpha)
    fit = through_origin(design)
    if weights == "modified":
        design = _allow_for_exposure(design, noise, fit.slope)
        fit = through_origin(design)
    return _result("radial_ivw", design, fit, None, distribution, alpha)


@np.errstate(all="ignore")
def radial_egger(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "modified",
    distribution: str = "normal",
    alpha: float = 0.05,
) -> RadialResult:
    r"""Radial MR-Egger: the regression of `radial_ivw` with an intercept.

    .. math:: \frac{y_j}{x_j} \sqrt{W_j} = \beta_I + \beta \sqrt{W_j} + \epsilon_j

    The pleiotropic effects are taken to be proportional to an instrument's standard error, where `egger` takes them
    to have one mean on the scale of the outcome.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `radial_ivw`; a variant with bx = 0 has no ratio and takes no part.
    weights, distribution, alpha
        As in `radial_ivw`; Student t has n_used - 2 degrees of freedom, and where RSE < 1 the wider of the two
        intervals is reported, as in `egger`.

    Returns
    -------
    RadialResult
        Arrays of shape (...) and (..., J).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden et al. (2018), International Journal of Epidemiology 47:1264.
    """
    design, noise = _read(bx, bxse, by, byse, weights, distribution, alpha)
    used = design.used & (design.x != 0)
    oriented = np.where(used, np.copysign(1.0, design.x), 0.0)
    design = replace(design, used=used, sign=oriented, y=np.where(used, design.y, 0.0))
    fit = with_intercept(design)
    if weights == "modified":
        design = replace(_allow_for_exposure(design, noise, fit.slope), sign=oriented)
        fit = with_intercept(design)
    return _result("radial_egger", design, fit, fit.rse, distribution, alpha)


def _read(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    weights: str,
    distribution: str,
    alpha: float,
) -> tuple[Design, FloatArray]:
    """Return the design with the weights to begin with, and bxse / byse where these enter later."""
    check_option("weights", weights, _WEIGHTS)
    check_inference(distribution, alpha)
    data = read_associations(bx, bxse, by, byse)
    if weights == "modified":
        return build_two_error_design(data)
    return build_design(data, weights=weights, psi=0.0, penalized=False), np.zeros(data.shape)


def _allow_for_exposure(design: Design, noise: FloatArray, slope: FloatArray) -> Design:
    # A fit without a slope keeps its reason with the weights it has.
    shrink = 1 / np.sqrt(1 + (np.nan_to_num(slope)[..., None] * noise) ** 2)
    return replace(design, x=design.x * shrink, y=design.y * shrink, sign=design.sign * shrink)


def _result(
    estimator: str, design: Design, fit: Fit, rse: FloatArray | None, distribution: str, alpha: float
) -> RadialResult:
    scale = np.maximum(fit.rse, 1)
    se, intercept_se = fit.slope_se * scale, fit.intercept_se * scale
    t_df = fit.df if distribution == "t-dist" else None
    q = np.where(fit.df > 0, fit.rss, np.nan)
    shown = design.used & (fit.status == Status.OK)[..., None]
    contributions = np.where(shown, fit.residual**2, np.nan)
    return RadialResult(
        estimator=estimator,
        **inference(fit.slope, se, alpha=alpha, df=t_df, rse=rse),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        intercept=fit.intercept,
        intercept_se=intercept_se,
        intercept_pvalue=np.asarray(pvalue(fit.intercept, intercept_se, df=t_df, rse=rse)),
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        contributions=contributions,
        contribution_pvalues=chi2_pvalue(contributions, np.ones(contributions.shape, dtype=np.int64)),
        status=fit.status,
    )
