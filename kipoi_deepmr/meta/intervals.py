"""Intervals for the variance between studies, and with it for I2 and H2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.meta._studies import (
    FloatArray,
    IntArray,
    MetaStatus,
    Studies,
    read_studies,
    sort_studies,
    typical_variance,
)
from kipoi_deepmr.meta._tau2 import (
    TAU2,
    generalised_q,
    log_likelihood,
    ml_score,
    over_grid,
    reml_score,
    restricted_log_likelihood,
    safeguarded_newton,
    tau2_grid,
)
from kipoi_deepmr.mr.core.inputs import check_alpha, check_option
from kipoi_deepmr.mr.core.result import Result, in_words

_LIKELIHOODS = {"ML": (log_likelihood, ml_score), "REML": (restricted_log_likelihood, reml_score)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Tau2Interval(Result):
    """Result of `tau2_interval`; every array has the shape of the input without its axis of studies.

    Attributes
    ----------
    tau2_low, tau2_high : ndarray of float64
        Interval for the variance between studies (squared scale of the input).
    i2_low, i2_high : ndarray of float64
        The same for I2, in percent.
    h2_low, h2_high : ndarray of float64
        The same for H2.
    n_studies : ndarray of int64
        Studies that are present.
    status : ndarray of int64
        A `MetaStatus`; not `MetaStatus.OK` exactly where the interval is NaN. One study says nothing about tau2.
    """

    _words: ClassVar[Mapping[str, Mapping[int, str]]] = {"status": in_words(MetaStatus)}

    tau2_low: FloatArray
    tau2_high: FloatArray
    i2_low: FloatArray
    i2_high: FloatArray
    h2_low: FloatArray
    h2_high: FloatArray
    n_studies: IntArray
    status: IntArray


@np.errstate(all="ignore")
def tau2_interval(
    estimate: npt.ArrayLike,
    se: npt.ArrayLike,
    *,
    kind: str = "q_profile",
    method: str = "REML",
    alpha: float = 0.05,
    axis: int = -1,
) -> Tau2Interval:
    r"""Interval for the variance between studies.

    "q_profile": all tau2 with

    .. math:: \chi^2_{k-1, \alpha/2} \le Q(\tau^2) \le \chi^2_{k-1, 1-\alpha/2}, \qquad
              Q(\tau^2) = \sum_i \frac{(y_i - \hat\mu_{\tau^2})^2}{s_i^2 + \tau^2}

    an exact interval that needs no estimate of tau2 and fits every estimator. No tau2 satisfies it where the studies
    agree better than their errors allow, Q(0) below the lower quantile: the interval is then [0, 0], as in metafor.
    "profile_likelihood": from the smallest to the largest tau2 whose (restricted) log-likelihood is within half a
    chi-squared quantile of its maximum.

    I2 = tau2 / (tau2 + v) and H2 = tau2 / v + 1 with the typical sampling variance v, at both ends.

    Parameters
    ----------
    estimate, se : array_like
        As in `random_effects`; a study is absent where either is NaN.
    kind : {"q_profile", "profile_likelihood"}, default "q_profile"
        Which interval.
    method : {"ML", "REML"}, default "REML"
        Likelihood to profile; not used for "q_profile".
    alpha : float, default 0.05
        One minus the level of the interval.
    axis : int, default -1
        Axis of the studies.

    Returns
    -------
    Tau2Interval
        Arrays of the input's shape without `axis`.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Viechtbauer (2007), Statistics in Medicine 26:37; Hardy and Thompson (1996), Statistics in Medicine 15:619 (profile
    likelihood); Higgins and Thompson (2002), Statistics in Medicine 21:1539 (I2, H2).
    """
    check_option("kind", kind, ("q_profile", "profile_likelihood"))
    check_option("method", method, tuple(_LIKELIHOODS))
    check_alpha(alpha)
    effect, error = read_studies(estimate, se, axis)
    shape = effect.shape[:-1]
    studies, status = sort_studies(effect, error)
    status = np.where((status == MetaStatus.OK) & (studies.n < 2), MetaStatus.TOO_FEW_STUDIES, status)
    overflow = ~np.isfinite(generalised_q(studies, np.zeros(status.shape))[0])
    status = np.where((status == MetaStatus.OK) & overflow, MetaStatus.NOT_FINITE, status)

    row = np.flatnonzero(status == MetaStatus.OK)
    chosen = studies.rows(row)
    ends = _q_profile(chosen, alpha) if kind == "q_profile" else _profile_likelihood(chosen, method, alpha)
    low, high = np.full(status.shape, np.nan), np.full(status.shape, np.nan)
    low[row], high[row] = ends
    typical = typical_variance(studies)
    return Tau2Interval(
        tau2_low=(low * studies.unit**2).reshape(shape),
        tau2_high=(high * studies.unit**2).reshape(shape),
        i2_low=(100 * low / (low + typical)).reshape(shape),
        i2_high=(100 * high / (high + typical)).reshape(shape),
        h2_low=(low / typical + 1).reshape(shape),
        h2_high=(high / typical + 1).reshape(shape),
        n_studies=studies.n.reshape(shape),
        status=np.asarray(status, dtype=np.int64).reshape(shape),
    )


def _q_profile(studies: Studies, alpha: float) -> tuple[FloatArray, FloatArray]:
    def solve(level: float) -> FloatArray:
        """Return the tau2 at which Q falls to the quantile with this upper tail, or 0 where it lies below it."""
        target = special.chdtri(studies.n - 1, level)
        # Q <= k R^2 / tau2 with the range R of the effects.
        high = 1.01 * studies.n * studies.range**2 / target
        above = np.flatnonzero(generalised_q(studies, np.zeros(high.shape))[0] > target)
        rows, goal = studies.rows(above), target[above]

        def distance(index: npt.NDArray[np.intp], tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
            q, slope = generalised_q(rows.rows(index), tau2)
            return q - goal[index], slope

        root = np.zeros(high.shape)
        root[above] = safeguarded_newton(distance, np.zeros(above.size), high[above])
        return root

    return solve(alpha / 2), solve(1 - alpha / 2)


def _profile_likelihood(studies: Studies, method: str, alpha: float) -> tuple[FloatArray, FloatArray]:
    likelihood, score = _LIKELIHOODS[method]
    best = TAU2[method](studies)[0]
    bound = likelihood(studies, best) - special.chdtri(1, alpha) / 2
    high = np.maximum(studies.largest_variance, studies.range**2)
    while np.any(too_low := likelihood(studies, high) > bound):
        high = np.where(too_low, 10 * high, high)
    # With the best tau2 among its points the grid cannot miss a narrow maximum.
    edges = np.sort(np.column_stack([tau2_grid(studies, high), best]), axis=1)
    inside = over_grid(edges, lambda tau2: likelihood(studies, tau2)) >= bound[:, None]
    first = inside.argmax(axis=1)
    last = edges.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)

    def cross(row: npt.NDArray[np.intp], cell: npt.NDArray[np.intp], sign: float) -> FloatArray:
        rows = studies.rows(row)

        def excess(index: npt.NDArray[np.intp], tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
            part = rows.rows(index)
            return sign * (likelihood(part, tau2) - bound[row[index]]), sign * score(part, tau2)[0]

        return safeguarded_newton(excess, edges[row, cell], edges[row, cell + 1])

    every = np.arange(first.size)
    low = np.zeros(first.size)
    risen = np.flatnonzero(first > 0)
    low[risen] = cross(risen, first[risen] - 1, -1.0)
    return low, cross(every, last, 1.0)
