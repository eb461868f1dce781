"""Debiased IVW for effects whose errors correlate: exposure and outcome from the same draws."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.design import build_two_error_design, in_exposure_units
from kipoi_deepmr.mr.core.groups import read_groups
from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status, check_alpha, read_associations, read_psi
from kipoi_deepmr.mr.core.regression import dot, fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult

_WEAK = 0.05


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OverlapDebiasedIVWResult(CausalResult):
    """Estimates of `overlap_debiased_ivw`, with sandwich standard errors.

    Intervals and p-values are Student t with n_groups - 1 degrees of freedom. The status is TOO_FEW_INSTRUMENTS below
    two groups, WEAK_INSTRUMENTS where `condition` is below the upper 2.5% quantile of the normal distribution.

    Attributes
    ----------
    n_groups : ndarray of int64, shape (...)
        Groups with at least one instrument.
    condition : ndarray of float64, shape (...)
        Debiased denominator over the standard error it would have if all true exposure effects were zero and the errors
        of the instruments independent.
    """

    estimator: str = "overlap_debiased_ivw"
    n_groups: IntArray
    condition: FloatArray


@np.errstate(all="ignore")
def overlap_debiased_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    psi: npt.ArrayLike = 0.0,
    draws: int | None = None,
    groups: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> OverlapDebiasedIVWResult:
    r"""IVW estimate without regression dilution and without the bias by errors that exposure and outcome share.

    .. math:: \hat\beta = \frac{\sum_j w_j (x_j y_j - \psi_j s_{xj} s_{yj})}{\sum_j w_j (x_j^2 - s_{xj}^2)},
              \qquad w_j = s_{yj}^{-2}, \qquad
              \mathrm{se}^2 = \frac{G}{G - 1} \frac{\sum_g (\sum_{j \in g} e_j)^2}{(\sum_j w_j (x_j^2 - s_{xj}^2))^2}

    with :math:`e_j = w_j (x_j y_j - \psi_j s_{xj} s_{yj} - \hat\beta (x_j^2 - s_{xj}^2))`. The product of two effects
    contains the covariance of their errors, the square contains the variance: both are known and are taken out.
    It is the debiased IVW of Ye et al. with the covariance of Lorincz-Comi et al.

    *Which standard errors.* The correction is right for errors of measurement: the stored effect is the effect that is
    asked for plus an error of mean zero. That is so for the mean over N draws as a measurement of the mean network, with
    the ``monte_carlo`` standard errors and covariance. It is not so for ``posterior`` standard errors, the spread over
    draws: if the spread is read as uncertainty about the effect, the stored mean is its expectation, the truth is
    scattered around the mean and not the other way round (Berkson error), IVW of the means is not diluted, and taking
    out :math:`s_x^2`, N times too much, would make a bias. From a store with ``posterior`` moments pass
    ``bxse / sqrt(N)`` and ``byse / sqrt(N)``; psi is the same for both.

    *Estimand*: the slope of the mean network's effects, as in `cross_fitted_ivw`, whose estimate with fixed weights is
    this one. Use it where only moments are stored. Its standard error takes the errors of the groups as independent; draws
    of one network are shared by all mutants, and where their errors go together (a draw in which a motif counts less) it is
    too small: `cross_fitted_ivw` has the right one. It allows for balanced pleiotropy.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors (see above), on any one scale each;
        leading axes broadcast. A variant is absent where one of the four, or psi, is NaN.
    psi : array_like, default 0
        Correlation of the two errors of a variant; broadcasts to (..., J).
    draws : int, optional
        Number N of draws that made the effects, at least 2: moments with ddof 0, as `effects` stores them, are
        multiplied by N / (N - 1). Default: they are taken as they are.
    groups : array_like, shape (J,), optional
        Labels of the instruments that may err together, for example their positions. Default: each variant alone.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    OverlapDebiasedIVWResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option out of its range.

    References
    ----------
    Ye, Shao and Kang (2021), Annals of Statistics 49:2079 (debiased IVW); Lorincz-Comi et al. (2024), Human Genetics and
    Genomics Advances 5:100290 (MRBEE: sample overlap and the sandwich); Carroll et al. (2006), Measurement Error in
    Nonlinear Models, chapter 1 (classical and Berkson error).
    """
    check_alpha(alpha)
    enlarged = _ddof_factor(draws)
    data = read_associations(bx, bxse, by, byse)
    shared = read_psi(psi, data.shape)
    design, spread, unit = in_exposure_units(*build_two_error_design(data, shared))
    noise = enlarged * spread**2
    overlap = enlarged * np.where(design.used, shared * spread, 0.0)
    strength = dot(design.x, design.x) - noise.sum(axis=-1)
    estimate = (dot(design.x, design.y) - overlap.sum(axis=-1)) / strength

    labels = read_groups(groups, data.shape[-1])
    error = design.x * design.y - overlap - estimate[..., None] * (design.x**2 - noise)
    sums = labels.inside(np.where(design.used, error, 0.0))
    n_groups = np.asarray(np.count_nonzero(labels.count(design.used), axis=-1), dtype=np.int64)
    se = np.sqrt(dot(sums, sums) * n_groups / (n_groups - 1)) / np.abs(strength)

    condition = strength / np.sqrt(2 * dot(noise, noise))
    nothing = ~(design.x != 0).any(axis=-1)
    status = fit_status(design.invalid, n_groups, 2, np.asarray(nothing), estimate + se)
    weak = (status == Status.OK) & ~(condition > -special.ndtri(_WEAK / 2))
    status = np.where(weak, Status.WEAK_INSTRUMENTS, status)
    estimate, se = (np.where(status == Status.OK, value, np.nan) for value in (estimate, se))
    return OverlapDebiasedIVWResult(
        **inference(estimate / unit, se / unit, alpha=alpha, df=n_groups - 1),
        n_instruments=design.n_instruments,
        n_groups=n_groups,
        condition=np.asarray(condition, dtype=np.float64),
        status=np.asarray(status, dtype=np.int64),
    )


def _ddof_factor(draws: int | None) -> float:
    if draws is None:
        return 1.0
    if not isinstance(draws, Integral) or isinstance(draws, bool) or draws < 2:
        raise ValueError(f"draws={draws!r} must be None or the number of draws, an integer of at least 2")
    return draws / (draws - 1)
