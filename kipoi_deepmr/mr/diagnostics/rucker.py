"""Rucker's choice between the IVW and the MR-Egger model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr._design import build_design
from kipoi_deepmr.mr._inputs import FloatArray, IntArray, check_option, read_associations
from kipoi_deepmr.mr._regression import chi2_pvalue, through_origin, with_intercept


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
