"""Heterogeneity between instruments."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import build_design
from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status, check_option, read_associations
from kipoi_deepmr.mr.core.regression import chi2_pvalue, through_origin
from kipoi_deepmr.mr.core.result import Result
from kipoi_deepmr.mr.core.strength import excess_heterogeneity


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CochranQ(Result):
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
        i2=excess_heterogeneity(q, fit.df),
        contributions=np.where(shown, fit.residual**2, np.nan),
        status=np.asarray(status, dtype=np.int64),
    )
