"""Inverse-variance weighted Mendelian randomization."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import over_associations
from kipoi_deepmr.mr.core.design import Design, build_design, correlate, read_correlation, whiten
from kipoi_deepmr.mr.core.inputs import Associations, FloatArray, IntArray, Status, read_associations, read_psi
from kipoi_deepmr.mr.core.options import RegressionOptions, check_options, ignore_with_correlation, is_random
from kipoi_deepmr.mr.core.regression import chi2_pvalue, dot, inference, robust_through_origin, through_origin
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.core.strength import mean_f_statistic


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class IVWResult(CausalResult):
    """Estimates of `ivw`.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments with a positive weight.
    rse : ndarray of float64, shape (...)
        Residual standard error; 1 with a single instrument.
    q, q_pvalue : ndarray of float64, shape (...)
        Cochran's Q with n_used - 1 degrees of freedom, when robust (n_used - 1) rse^2; NaN when penalized and with
        a single instrument.
    f_statistic : ndarray of float64, shape (...)
        Mean of (bx / bxse)^2; with a correlation matrix R it is z' R^-1 z / J with z = bx / bxse.
    """

    estimator: str = "ivw"
    n_used: IntArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    f_statistic: FloatArray


@np.errstate(all="ignore")
def ivw(
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
) -> IVWResult:
    r"""Inverse-variance weighted estimate, with the conventions of R's MendelianRandomization.

    .. math:: \hat\beta = \sum_j w_j x_j y_j / \sum_j w_j x_j^2, \qquad
              \mathrm{se} = (\sum_j w_j x_j^2)^{-1/2} \max(\mathrm{RSE}, 1)

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where an input that enters the estimate is NaN: bx, by, byse, and for delta
        weights bxse and psi.
    model : {"default", "random", "fixed"}, default "default"
        "random" multiplies the fixed-effect standard error by max(RSE, 1); "default" is "fixed" below 4 instruments
        and "random" from 4 on, decided for every fit by its own number of instruments.
    robust : bool, default False
        MM-estimation with Tukey's bisquare, as R's `lmrob`, which gives little or no weight to outlying variants; the
        scale of the residuals takes the place of RSE. A single instrument is not affected. Where all residuals are 0
        the standard error is that of the ordinary fit.
    penalized : bool, default False
        Multiply the weight of a variant by min(1, 100 p) (delta weights: 20 p), with p from the chi-squared test of
        its ratio about the median ratio. Variants with bx = 0 or byse = 0 leave the fit; see `n_used`.
    weights : {"simple", "delta"}, default "simple"
        1/byse^2, or the inverse of byse^2 + by^2 bxse^2/bx^2 - 2 psi by bxse byse/bx. Under delta weights a variant
        with bx = 0 has weight zero.
    psi : array_like, default 0
        Correlation of the two errors of a variant, for delta weights only; broadcasts to (..., J).
    correlation : array_like, shape (..., J, J), optional
        Correlation of the instruments' errors: generalised least squares. Rows of absent variants may be NaN.
        `robust`, `penalized` and delta weights are ignored with it, as in R; here a UserWarning says so.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 1 degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    IVWResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Burgess, Butterworth and Thompson (2013), Genetic Epidemiology 37:658; Rees et al. (2019), PLoS ONE 14:e0222362
    (robust regression, penalised weights); Yohai (1987), Annals of Statistics 15:642 (MM-estimation); Thompson,
    Minelli and Del Greco (2016), International Journal of Biostatistics 12 (delta).
    """
    check_options(model, robust, penalized, weights, distribution, alpha)
    if correlation is not None:
        robust, penalized, weights = ignore_with_correlation(robust, penalized, weights)
    data = read_associations(bx, bxse, by, byse)
    options = RegressionOptions(model, robust, penalized, weights, correlation, distribution, alpha)
    fit, shared = partial(_ivw, options=options), read_psi(psi, data.shape)
    return fit(data, shared) if correlation is not None else over_associations(fit, data, shared)


def _ivw(data: Associations, psi: FloatArray, *, options: RegressionOptions) -> IVWResult:
    correlation = options.correlation
    design = build_design(data, weights=options.weights, psi=psi, penalized=options.penalized)
    if correlation is None:
        f_statistic = mean_f_statistic(data.bx, data.bxse, where=design.present)
    else:
        f_statistic = _correlated_f(design, data, correlation)
        design = correlate(design, data, correlation, orient=False)
    fit = robust_through_origin(design) if options.robust else through_origin(design)

    random = is_random(options.model, design.n_instruments)
    se = fit.slope_se * np.where(random, np.maximum(fit.rse, 1), 1.0)
    q = np.where((fit.df > 0) & (not options.penalized), fit.rss, np.nan)
    return IVWResult(
        **inference(fit.slope, se, alpha=options.alpha, df=options.degrees_of_freedom(design.n_instruments, 1)),
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        f_statistic=f_statistic,
        status=fit.status,
    )


def _correlated_f(design: Design, data: Associations, correlation: npt.ArrayLike) -> FloatArray:
    exact = (design.used & (data.bxse == 0)).any(axis=-1)
    z = np.where(design.used & (data.bxse != 0), data.bx / data.bxse, 0.0)
    whitened, valid = whiten(z[..., None], read_correlation(correlation, data.shape), design.used)
    mean = dot(whitened[..., 0], whitened[..., 0]) / design.n_used
    return np.where(valid & (design.invalid == Status.OK), np.where(exact, np.inf, mean), np.nan)
