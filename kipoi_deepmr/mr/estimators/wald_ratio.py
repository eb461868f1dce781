"""Wald ratio: the causal estimate of each instrument alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import (
    FloatArray,
    IntArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.estimators.ivw import ivw

_WEIGHTS = {"first": "simple", "second": "delta"}


@dataclass(frozen=True, eq=False)
class WaldRatioResult:
    """Estimates of `wald_ratio`, one for each variant.

    Attributes
    ----------
    estimate, se : ndarray of float64, shape (..., J)
        by / bx (outcome units per exposure unit) and its standard error.
    ci_low, ci_high, pvalue : ndarray of float64, shape (..., J)
        Normal interval at level 1 - alpha and two-sided p-value.
    n_instruments : ndarray of int64, shape (..., J)
        1 where the variant is present, 0 where it is absent.
    status : ndarray of int64, shape (..., J)
        A `Status`; not `Status.OK` exactly where the estimate is NaN.
    """

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    n_instruments: IntArray
    status: IntArray


def wald_ratio(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    order: str = "first",
    psi: npt.ArrayLike = 0.0,
    alpha: float = 0.05,
) -> WaldRatioResult:
    r"""Wald ratio of each variant, with its standard error to first or second order of the delta method.

    .. math:: \hat\beta_j = y_j / x_j, \qquad
              \mathrm{se}_1^2 = s_{yj}^2 / x_j^2, \qquad
              \mathrm{se}_2^2 = s_{yj}^2 / x_j^2 + y_j^2 s_{xj}^2 / x_j^4 - 2 \psi y_j s_{xj} s_{yj} / x_j^3

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where an input that enters the estimate is NaN: bx, by, byse, and to second
        order bxse and psi.
    order : {"first", "second"}, default "first"
        Whether the error of the exposure effect enters the standard error.
    psi : array_like, default 0
        Correlation of the two errors of a variant, to second order only; broadcasts to (..., J).
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    WaldRatioResult
        Arrays of shape (..., J). A variant with bx = 0 has no estimate.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Thomas, Lawlor and Thompson (2007), Annals of Epidemiology 17:511.
    """
    check_option("order", order, _WEIGHTS)
    check_alpha(alpha)
    data = read_associations(bx, bxse, by, byse)
    given = np.broadcast_to(read_psi(psi, data.shape), data.shape)
    columns = (column[..., None] for column in (data.bx, data.bxse, data.by, data.byse))
    alone = ivw(*columns, model="fixed", weights=_WEIGHTS[order], psi=given[..., None], alpha=alpha)
    unlit = (alone.n_instruments == 1) & (data.bx == 0) & (alone.status == Status.TOO_FEW_INSTRUMENTS)
    return WaldRatioResult(
        estimate=alone.estimate,
        se=alone.se,
        ci_low=alone.ci_low,
        ci_high=alone.ci_high,
        pvalue=alone.pvalue,
        n_instruments=alone.n_instruments,
        status=np.where(unlit, Status.NO_EXPOSURE_VARIATION, alone.status),
    )
