"""Random-effects meta-analysis: one pooled effect per batch, with the conventions of R's metafor."""

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
    Weighted,
    read_studies,
    sort_studies,
    typical_variance,
)
from kipoi_deepmr.meta._tau2 import TAU2
from kipoi_deepmr.mr.core.inputs import check_alpha, check_option
from kipoi_deepmr.mr.core.result import EstimateResult, in_words

METHODS = tuple(TAU2)
TESTS = ("z", "t", "knha", "adhoc")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MetaResult(EstimateResult):
    """Result of `random_effects`; every array has the shape of the input without its axis of studies.

    Attributes
    ----------
    estimate, se, ci_low, ci_high, pvalue : ndarray of float64
        Pooled effect on the scale of the input, its standard error, interval and two-sided p-value.
    tau2, tau2_se : ndarray of float64
        Variance between studies (squared scale of the input) and its asymptotic standard error; for one study 0 and
        NaN, as for method "FE".
    i2 : ndarray of float64
        Heterogeneity in percent of the total variance, 0 to 100, as in metafor.
    h2 : ndarray of float64
        Total variance over sampling variance.
    q, q_pvalue : ndarray of float64
        Cochran's Q and its p-value with n_studies - 1 degrees of freedom; 0 and 1 for one study.
    prediction_low, prediction_high : ndarray of float64
        Interval for the true effect of a new study; NaN for "FE".
    n_studies : ndarray of int64
        Studies that are present.
    status : ndarray of int64
        A `MetaStatus`; not `MetaStatus.OK` exactly where the estimate is NaN.
    confidence_level : float
        Level 1 - alpha of the intervals.
    estimator : str
        The function that made it.
    """

    _counted: ClassVar[str] = "n_studies"
    _words: ClassVar[Mapping[str, Mapping[int, str]]] = {"status": in_words(MetaStatus)}

    estimator: str = "random_effects"
    tau2: FloatArray
    tau2_se: FloatArray
    i2: FloatArray
    h2: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    prediction_low: FloatArray
    prediction_high: FloatArray
    n_studies: IntArray


@np.errstate(all="ignore")
def random_effects(
    estimate: npt.ArrayLike,
    se: npt.ArrayLike,
    *,
    method: str = "REML",
    test: str = "z",
    alpha: float = 0.05,
    axis: int = -1,
    prediction: str = "default",
) -> MetaResult:
    r"""Pool the estimates of several studies (here: sequences) that differ by more than their errors.

    .. math:: \hat\mu = \sum_i w_i y_i / \sum_i w_i, \qquad w_i = 1 / (s_i^2 + \hat\tau^2)

    Parameters
    ----------
    estimate, se : array_like
        Effects, on any scale, and their standard errors; they broadcast against one another. A study is absent where
        either is NaN.
    method : {"FE", "DL", "HE", "HS", "SJ", "PM", "EB", "ML", "REML"}, default "REML"
        Estimator of tau2: fixed effect (tau2 = 0), DerSimonian-Laird, Hedges, Hunter-Schmidt, Sidik-Jonkman,
        Paule-Mandel, empirical Bayes (the same tau2 as Paule-Mandel), maximum likelihood, restricted maximum
        likelihood. ML and REML give the global maximum over tau2 >= 0.
    test : {"z", "t", "knha", "adhoc"}, default "z"
        Normal quantiles; Student t with n_studies - 1 degrees of freedom; Knapp-Hartung (t, and the standard error
        multiplied by sqrt(Q(tau2) / (n_studies - 1)), which may make it smaller); the same with a factor of at least
        1. One study: always normal.
    alpha : float, default 0.05
        One minus the level of the intervals.
    axis : int, default -1
        Axis of the studies.
    prediction : {"default", "riley"}, default "default"
        Quantile of the prediction interval: the one of the confidence interval, or Student's with n_studies - 2
        degrees of freedom, which leaves it undefined below three studies (metafor's takes one degree then).

    Returns
    -------
    MetaResult
        Arrays of the input's shape without `axis`.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    DerSimonian and Laird (1986), Controlled Clinical Trials 7:177; Paule and Mandel (1982), Journal of Research of
    the National Bureau of Standards 87:377; Viechtbauer (2005), Journal of Educational and Behavioral Statistics
    30:261 (the tau2 estimators and their standard errors); Knapp and Hartung (2003), Statistics in Medicine 22:2693;
    Higgins and Thompson (2002), Statistics in Medicine 21:1539 (I2, H2); Riley, Higgins and Deeks (2011), BMJ 342:d549
    (prediction interval).
    """
    check_options(method, test, alpha)
    check_option("prediction", prediction, ("default", "riley"))
    effect, error = read_studies(estimate, se, axis)
    shape = effect.shape[:-1]
    studies, status = sort_studies(effect, error)

    pairs = studies.n - 1
    tau2, tau2_se = TAU2[method](studies)
    tau2 = np.where(pairs > 0, tau2, 0.0)
    tau2_se = np.where(pairs > 0, tau2_se, np.nan)
    fixed, pooled = Weighted(studies, np.zeros(tau2.shape)), Weighted(studies, tau2)

    student = (pairs > 0) & (test != "z")
    inflation = np.where(student & (test in ("knha", "adhoc")), pooled.q / np.maximum(pairs, 1), 1.0)
    inflation = np.maximum(inflation, 1) if test == "adhoc" else inflation
    mean, mean_se = studies.origin + pooled.mean, np.sqrt(inflation / pooled.total)
    finite = np.isfinite(mean * studies.unit) & np.isfinite(tau2 * studies.unit**2)
    status = np.where((status == MetaStatus.OK) & ~finite, MetaStatus.NOT_FINITE, status)
    normal = -special.ndtri(alpha / 2)
    quantile = np.where(student, -special.stdtrit(np.maximum(pairs, 1), alpha / 2), normal)
    z = np.abs(mean / mean_se)
    spread = np.sqrt(mean_se**2 + tau2) if method != "FE" else np.full(tau2.shape, np.nan)
    new_study = quantile
    if prediction == "riley":
        new_study = np.where(pairs > 1, -special.stdtrit(np.maximum(pairs - 1, 1), alpha / 2), np.nan)
    i2, h2 = _heterogeneity(method, tau2, fixed, studies)

    def blank(values: FloatArray, power: int = 0) -> FloatArray:
        return np.where(status == MetaStatus.OK, values * studies.unit**power, np.nan).reshape(shape)

    return MetaResult(
        estimate=blank(mean, 1),
        se=blank(mean_se, 1),
        ci_low=blank(mean - quantile * mean_se, 1),
        ci_high=blank(mean + quantile * mean_se, 1),
        pvalue=blank(2 * np.where(student, special.stdtr(np.maximum(pairs, 1), -z), special.ndtr(-z))),
        confidence_level=1 - alpha,
        tau2=blank(tau2, 2),
        tau2_se=blank(tau2_se, 2),
        i2=blank(i2),
        h2=blank(h2),
        q=blank(fixed.q),
        q_pvalue=blank(np.where(pairs > 0, special.chdtrc(np.maximum(pairs, 1), fixed.q), 1.0)),
        prediction_low=blank(mean - new_study * spread, 1),
        prediction_high=blank(mean + new_study * spread, 1),
        n_studies=studies.n.reshape(shape),
        status=np.asarray(status, dtype=np.int64).reshape(shape),
    )


def check_options(method: str, test: str, alpha: float) -> None:
    """Raise ValueError for an estimator, a test or a level that is not known."""
    check_option("method", method, METHODS)
    check_option("test", test, TESTS)
    check_alpha(alpha)


def _heterogeneity(method: str, tau2: FloatArray, fixed: Weighted, studies: Studies) -> tuple[FloatArray, FloatArray]:
    pairs = studies.n - 1
    if method == "FE":
        h2 = fixed.q / pairs
        i2 = np.where(fixed.q > 0, np.maximum(1 - pairs / fixed.q, 0), 0.0)
    else:
        typical = typical_variance(studies)
        h2 = tau2 / typical + 1
        i2 = tau2 / (tau2 + typical)
    return np.where(pairs > 0, 100 * i2, 0.0), np.where(pairs > 0, h2, 1.0)
