"""Rucker's choice between the IVW and the MR-Egger model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.blocks import over_associations
from kipoi_deepmr.mr.core.design import Design, build_design
from kipoi_deepmr.mr.core.inputs import (
    Associations,
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import Fit, chi2_pvalue, dot, interval, pvalue, through_origin, with_intercept
from kipoi_deepmr.mr.core.result import CausalResult, Result

RUCKER_MODELS = ("ivw_fixed", "ivw_random", "egger_fixed", "egger_random")
# An influential instrument has a Cook's distance above this over the number of instruments.
_INFLUENTIAL = 4
_FEWEST_LEFT = 3


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RuckerQ(Result):
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
    data = read_associations(bx, bxse, by, byse)

    def compare(data: Associations, psi: FloatArray) -> RuckerQ:
        design = build_design(data, weights=weights, psi=psi, penalized=False)
        return _compare(through_origin(design), with_intercept(design))

    return over_associations(compare, data, read_psi(psi, data.shape))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RuckerModel(CausalResult):
    """Estimates under the model that Rucker's framework chooses, with the others beside it.

    Attributes
    ----------
    model : ndarray of int64, shape (...)
        Index into `RUCKER_MODELS`: IVW with fixed, IVW with random, MR-Egger with fixed, MR-Egger with random effects;
        -1 where there is no answer.
    estimates, standard_errors, pvalues : ndarray of float64, shape (..., 4)
        The same under each model.
    intercept : ndarray of float64, shape (...)
        Intercept of MR-Egger, in outcome units.
    intercept_se, intercept_pvalue : ndarray of float64, shape (..., 2)
        For fixed and for random effects.
    heterogeneity : RuckerQ
        Q, Q' and Q - Q'.
    cooks_distance : ndarray of float64, shape (..., J)
        Influence of each instrument on the chosen line; NaN where absent or removed.
    removed : ndarray of bool, shape (..., J)
        Instruments that were removed for their influence and no longer count as instruments.
    """

    _words: ClassVar[Mapping[str, Mapping[int, str]]] = {
        **Result._words,
        "model": dict(enumerate(RUCKER_MODELS)) | {-1: "none"},
    }

    estimator: str = "rucker"
    model: IntArray
    estimates: FloatArray
    standard_errors: FloatArray
    pvalues: FloatArray
    intercept: FloatArray
    intercept_se: FloatArray
    intercept_pvalue: FloatArray
    heterogeneity: RuckerQ
    cooks_distance: FloatArray
    removed: BoolArray


@np.errstate(all="ignore")
def rucker(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    threshold: float = 0.05,
    remove_influential: bool = False,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> RuckerModel:
    """Choose between IVW and MR-Egger, with fixed or random effects, by Rucker's tests of heterogeneity.

    IVW with fixed effects unless Q is significant; then IVW with random effects unless Q - Q' is; then MR-Egger with
    fixed effects unless Q' is. The interval and the p-value do not know of the choice and are too confident for it.

    Standard errors: 1 for the residual standard error in the fixed-effect models, max(RSE, 1) in the random ones.
    TwoSampleMR's mr_rucker multiplies both by min(RSE, 1) too, so that under-dispersion shrinks even those of the
    fixed-effect models; and it takes Student's t for the slope of MR-Egger whatever the distribution asked for.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `rucker_q`.
    threshold : float, default 0.05
        Significance level of the three tests.
    remove_influential : bool, default False
        Remove instruments whose Cook's distance exceeds 4 over the number of instruments, choose again, and so on
        while more than 3 are left (TwoSampleMR's mr_rucker_cooksdistance).
    weights, psi
        As in `ivw`.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 1 (IVW) or - 2 (MR-Egger) degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    RuckerModel
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
    check_option("remove_influential", remove_influential, (True, False))
    check_inference(distribution, alpha)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold!r} must be a significance level between 0 and 1")
    data = read_associations(bx, bxse, by, byse)
    removed: BoolArray = np.zeros(data.shape, dtype=np.bool_)
    while True:
        design, line, oblique, chosen, distance = _choose(data, removed, weights, psi, threshold)
        influential = design.used & (distance * design.n_used[..., None] > _INFLUENTIAL)
        left = design.n_used - np.count_nonzero(influential, axis=-1)
        influential &= (left > _FEWEST_LEFT)[..., None]
        if not remove_influential or not influential.any():
            break
        removed = removed | influential

    fits, n = (line, line, oblique, oblique), design.n_instruments[..., None]
    scales = [
        np.maximum(fit.rse, 1) if random else np.ones(fit.rse.shape)
        for fit, random in zip(fits, (0, 1, 0, 1), strict=True)
    ]
    estimates = np.stack([fit.slope for fit in fits], axis=-1)
    errors = np.stack([fit.slope_se * scale for fit, scale in zip(fits, scales, strict=True)], axis=-1)
    t_df = n - np.array([1, 1, 2, 2]) if distribution == "t-dist" else None
    low, high = interval(estimates, errors, alpha=alpha, df=t_df)
    p = pvalue(estimates, errors, df=t_df)
    intercept_se = np.stack([oblique.intercept_se * scale for scale in scales[2:]], axis=-1)
    line_df = None if t_df is None else t_df[..., 2:]
    status = oblique.status

    def pick(values: FloatArray) -> FloatArray:
        found = np.take_along_axis(np.asarray(values), np.maximum(chosen, 0)[..., None], axis=-1)[..., 0]
        return np.where(status == Status.OK, found, np.nan)

    return RuckerModel(
        estimate=pick(estimates),
        se=pick(errors),
        ci_low=pick(low),
        ci_high=pick(high),
        pvalue=pick(p),
        confidence_level=1 - alpha,
        model=chosen,
        estimates=estimates,
        standard_errors=errors,
        pvalues=np.asarray(p),
        intercept=oblique.intercept,
        intercept_se=intercept_se,
        intercept_pvalue=np.asarray(pvalue(oblique.intercept[..., None], intercept_se, df=line_df)),
        heterogeneity=_compare(line, oblique),
        cooks_distance=distance,
        removed=removed,
        n_instruments=design.n_instruments,
        status=status,
    )


def _compare(line: Fit, oblique: Fit) -> RuckerQ:
    q = np.where(line.df > 0, line.rss, np.nan)
    difference = np.maximum(line.rss - oblique.rss, 0)
    return RuckerQ(
        q=q,
        q_pvalue=chi2_pvalue(q, line.df),
        q_egger=oblique.rss,
        q_egger_pvalue=chi2_pvalue(oblique.rss, oblique.df),
        q_difference=difference,
        q_difference_pvalue=np.asarray(special.chdtrc(1, difference)),
        df=np.maximum(line.df, 0),
        status=oblique.status,
    )


def _choose(
    data: Associations, removed: BoolArray, weights: str, psi: npt.ArrayLike, threshold: float
) -> tuple[Design, Fit, Fit, IntArray, FloatArray]:
    """Return design, IVW and MR-Egger fits, the chosen model and the Cook's distances from its line."""
    kept = replace(data, bx=np.where(removed, np.nan, data.bx))
    design = build_design(kept, weights=weights, psi=psi, penalized=False)
    line, oblique = through_origin(design), with_intercept(design)
    tests = _compare(line, oblique)
    tilted = tests.q_difference_pvalue <= threshold
    model = np.where(tilted, np.where(tests.q_egger_pvalue <= threshold, 3, 2), 1)
    model = np.where(tests.q_pvalue <= threshold, model, 0)
    chosen = np.asarray(np.where(oblique.status == Status.OK, model, -1), dtype=np.int64)
    distances = _cooks_distance(design, line, 1), _cooks_distance(design, oblique, 2)
    distance = np.where((chosen > 1)[..., None], distances[1], distances[0])
    shown = design.used & (chosen >= 0)[..., None]
    return design, line, oblique, chosen, np.where(shown, distance, np.nan)


def _cooks_distance(design: Design, fit: Fit, coefficients: int) -> FloatArray:
    if coefficients == 1:
        leverage = design.x**2 / dot(design.x, design.x)[..., None]
    else:
        saa = dot(design.sign, design.sign)[..., None]
        x = design.x - dot(design.sign, design.x)[..., None] / saa * design.sign
        leverage = design.sign**2 / saa + x**2 / dot(x, x)[..., None]
    studentised = fit.residual / (fit.rse[..., None] * (1 - leverage))
    return np.asarray(studentised**2 * leverage / coefficients)
