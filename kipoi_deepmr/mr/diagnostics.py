"""Strength of the instruments, dilution of MR-Egger, and heterogeneity between instruments."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr._design import build_design
from kipoi_deepmr.mr._inputs import FloatArray, IntArray, Status, check_option, read_associations, read_variants
from kipoi_deepmr.mr._regression import chi2_pvalue, dot, through_origin, with_intercept


@dataclass(frozen=True, eq=False)
class CochranQ:
    """Heterogeneity of the instruments' ratios about the IVW estimate.

    Attributes
    ----------
    q, pvalue : ndarray of float64, shape (...)
        Cochran's Q and its upper chi-squared tail; NaN with fewer than two instruments.
    df : ndarray of int64, shape (...)
        Degrees of freedom: instruments with a positive weight, minus one.
    i2 : ndarray of float64, shape (...)
        max(0, (Q - df) / Q), a fraction in [0, 1].
    contributions : ndarray of float64, shape (..., J)
        What each instrument adds to Q, chi-squared with about 1 degree of freedom; NaN where absent.
    status : ndarray of int64, shape (...)
        A `Status`: why Q is NaN.
    """

    q: FloatArray
    df: IntArray
    pvalue: FloatArray
    i2: FloatArray
    contributions: FloatArray
    status: IntArray


@dataclass(frozen=True, eq=False)
class RuckerQ:
    """Heterogeneity about the IVW line (Q), about the MR-Egger line (Q'), and the gain of the intercept (Q - Q').

    Attributes
    ----------
    q, q_pvalue, q_egger, q_egger_pvalue, q_difference, q_difference_pvalue : ndarray of float64, shape (...)
        Statistics with df, df - 1 and 1 degrees of freedom, and their upper chi-squared tails.
    df : ndarray of int64, shape (...)
        Degrees of freedom of Q: instruments with a positive weight, minus one.
    status : ndarray of int64, shape (...)
        A `Status` of the MR-Egger fit: why Q' is NaN.
    """

    q: FloatArray
    q_pvalue: FloatArray
    q_egger: FloatArray
    q_egger_pvalue: FloatArray
    q_difference: FloatArray
    q_difference_pvalue: FloatArray
    df: IntArray
    status: IntArray


@np.errstate(all="ignore")
def f_statistics(bx: npt.ArrayLike, bxse: npt.ArrayLike) -> FloatArray:
    """F statistic of each instrument, (bx / bxse)^2.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale.

    Returns
    -------
    ndarray of float64, shape (..., J)
        NaN where an input is NaN and where both are 0; infinite where only bxse is 0.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    effect, se = read_variants(bx=bx, bxse=bxse)
    return np.asarray((effect / se) ** 2)


@np.errstate(all="ignore")
def mean_f_statistic(bx: npt.ArrayLike, bxse: npt.ArrayLike, *, where: npt.ArrayLike = True) -> FloatArray:
    """Mean F statistic over the instruments for which it is defined.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale.
    where : array_like of bool, shape (..., J), optional
        The instruments to use; by default all that are not NaN.

    Returns
    -------
    ndarray of float64, shape (...)
        NaN where no instrument has an F statistic; infinite where a bxse is 0 and its bx is not.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    strength = f_statistics(bx, bxse)
    defined = ~np.isnan(strength) & np.asarray(where, dtype=np.bool_)
    return np.asarray(strength.sum(axis=-1, where=defined) / np.count_nonzero(defined, axis=-1), dtype=np.float64)


@np.errstate(all="ignore")
def i2_gx(
    bx: npt.ArrayLike, bxse: npt.ArrayLike, byse: npt.ArrayLike | None = None, *, where: npt.ArrayLike = True
) -> FloatArray:
    r"""Share of the variation of the exposure effects that is not error: 1 - I2_GX is the dilution of MR-Egger.

    .. math:: I^2_{GX} = \max(0, (Q - (J - 1)) / Q), \qquad Q = \sum_j (x_j - \bar x)^2 / s_j^2

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale; the sign of bx is not used.
    byse : array_like, shape (..., J), optional
        With it the weighted form, which MR-Egger with weights 1/byse^2 calls for: x = |bx| / byse, s = bxse / byse.
        Without it the unweighted form: x = |bx|, s = bxse.
    where : array_like of bool, shape (..., J), optional
        The instruments to use; by default all that are not NaN.

    Returns
    -------
    ndarray of float64, shape (...)
        A fraction in [0, 1]. NaN with fewer than two instruments and where a bxse is 0.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    if byse is None:
        effect, se = read_variants(bx=bx, bxse=bxse)
        unit = np.ones((1,) * effect.ndim)
    else:
        effect, se, unit = read_variants(bx=bx, bxse=bxse, byse=byse)
    present = ~(np.isnan(effect) | np.isnan(se) | np.isnan(unit)) & np.asarray(where, dtype=np.bool_)
    # |bx| / byse and bxse / byse enter only as their ratio and as 1 / (bxse / byse).
    scaled = np.divide(np.abs(effect), se, out=np.zeros(effect.shape), where=present)
    scale = np.divide(unit, se, out=np.zeros(effect.shape), where=present)
    mean = dot(scaled, scale) / dot(scale, scale)
    residual = scale * -mean[..., None]
    residual += scaled
    count = np.count_nonzero(present, axis=-1)
    return np.where(count > 1, _excess(dot(residual, residual), count - 1), np.nan)


@np.errstate(all="ignore")
def cochran_q(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
) -> CochranQ:
    r"""Cochran's Q of the instruments about the IVW estimate, and what each instrument adds to it.

    .. math:: Q = \sum_j w_j (y_j - \hat\beta x_j)^2

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant with NaN is absent.
    weights : {"simple", "delta"}, default "simple"
        As in `ivw`.
    psi : array_like, default 0
        As in `ivw`.

    Returns
    -------
    CochranQ
        Arrays of shape (...); the contributions have shape (..., J).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Del Greco et al. (2015), Statistics in Medicine 34:2926.
    """
    check_option("weights", weights, ("simple", "delta"))
    design = build_design(read_associations(bx, bxse, by, byse), weights=weights, psi=psi, penalized=False)
    fit = through_origin(design)
    alone = (fit.status == Status.OK) & (fit.df < 1)
    status = np.where(alone, Status.TOO_FEW_INSTRUMENTS, fit.status)
    q = np.where(alone, np.nan, fit.rss)
    shown = design.used & (status == Status.OK)[..., None]
    return CochranQ(
        q=q,
        df=np.maximum(fit.df, 0),
        pvalue=chi2_pvalue(q, fit.df),
        i2=_excess(q, fit.df),
        contributions=np.where(shown, fit.residual**2, np.nan),
        status=np.asarray(status, dtype=np.int64),
    )


@np.errstate(all="ignore")
def rucker_q(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
) -> RuckerQ:
    """Rucker's comparison of the IVW and the MR-Egger model: Q, Q' and Q - Q'.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant with NaN is absent. Both models must see the same data for Q - Q' to have a meaning:
        a variant with bx = 0 counts as oriented and keeps its by, as in TwoSampleMR but not in `egger`.
    weights : {"simple", "delta"}, default "simple"
        As in `ivw`.
    psi : array_like, default 0
        As in `ivw`.

    Returns
    -------
    RuckerQ
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Rucker et al. (2011), Biostatistics 12:122; Bowden et al. (2018), International Journal of Epidemiology 47:1264.
    """
    check_option("weights", weights, ("simple", "delta"))
    design = build_design(read_associations(bx, bxse, by, byse), weights=weights, psi=psi, penalized=False)
    line, pleiotropic = through_origin(design), with_intercept(design)
    q = np.where(line.df > 0, line.rss, np.nan)
    difference = np.maximum(line.rss - pleiotropic.rss, 0)
    return RuckerQ(
        q=q,
        q_pvalue=chi2_pvalue(q, line.df),
        q_egger=pleiotropic.rss,
        q_egger_pvalue=chi2_pvalue(pleiotropic.rss, pleiotropic.df),
        q_difference=difference,
        q_difference_pvalue=np.asarray(special.chdtrc(1, difference)),
        df=np.maximum(line.df, 0),
        status=pleiotropic.status,
    )


def _excess(q: FloatArray, df: npt.NDArray[np.int64]) -> FloatArray:
    share = np.where(q > 0, (q - df) / q, np.where(q == 0, 0.0, np.nan))
    return np.maximum(share, 0)
