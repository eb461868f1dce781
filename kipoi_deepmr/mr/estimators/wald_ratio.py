"""Wald ratio: the causal estimate of each instrument alone."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import (
    Status,
    check_alpha,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.estimators.ivw import ivw

_WEIGHTS = {"first": "simple", "second": "delta"}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class WaldRatioResult(CausalResult):
    """Estimates of `wald_ratio`: by / bx of each variant, so that all arrays have shape (..., J) and n_instruments is 0 or 1."""

    _axis: ClassVar[str] = "instrument"

    estimator: str = "wald_ratio"


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
        confidence_level=alone.confidence_level,
        n_instruments=alone.n_instruments,
        status=np.where(unlit, Status.NO_EXPOSURE_VARIATION, alone.status),
    )
