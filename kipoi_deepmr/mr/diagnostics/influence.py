"""The estimate without each instrument or group of instruments, in closed form."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import over_associations
from kipoi_deepmr.mr.core.design import Design, build_design, keep_zero_outcomes
from kipoi_deepmr.mr.core.groups import Groups, read_groups
from kipoi_deepmr.mr.core.inputs import (
    Associations,
    FloatArray,
    Status,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.options import check_options, is_random
from kipoi_deepmr.mr.core.regression import (
    Fit,
    fit_status,
    inference,
    intercept_inference,
    is_collinear,
    through_origin,
    with_intercept,
)
from kipoi_deepmr.mr.core.result import InterceptResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LeaveOneOut(InterceptResult):
    """What `ivw` or `egger` says without each instrument or group (G of them; J without groups).

    All arrays have shape (..., G), n_instruments counts those that are left, and the intercept is NaN for IVW.

    Attributes
    ----------
    rse : ndarray of float64, shape (..., G)
        Residual standard error of the others.
    left_out : ndarray, shape (G,)
        The index or the label of what is left out.
    """

    _axis: ClassVar[str] = "left_out"

    estimator: str = "leave_one_out"
    rse: FloatArray
    left_out: npt.NDArray[Any]


@np.errstate(all="ignore")
def leave_one_out(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    estimator: str = "ivw",
    groups: npt.ArrayLike | None = None,
    model: str = "default",
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> LeaveOneOut:
    """Estimate again without each instrument, or without each group of instruments.

    The answers are those of `ivw` and `egger` on the instruments that remain, found from sums over all but one group
    in O(J) time for each fit, and in memory for a block of fits beside the result.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant with NaN is absent, and leaving it out changes nothing. A variant that makes the whole
        fit invalid (see `Status`) does so for every entry.
    estimator : {"ivw", "egger"}, default "ivw"
        Which estimate to repeat.
    groups : array_like, shape (J,), optional
        Labels of variants that leave together: with the positions as labels, the three mutants of a position.
    model : {"default", "random", "fixed"}, default "default"
        As in `ivw` and `egger`; the rule of "default" is applied to the instruments that remain.
    weights, psi, distribution, alpha
        As in `ivw`.

    Returns
    -------
    LeaveOneOut
        Arrays of shape (..., G), in the order of the variants or of the sorted labels.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Burgess and Thompson (2017), European Journal of Epidemiology 32:377 (influence of single variants); Chan, Golub
    and LeVeque (1983), The American Statistician 37:242 (sums of squares of two sets from those of each).
    """
    check_option("estimator", estimator, ("ivw", "egger"))
    check_options(model, False, False, weights, distribution, alpha)
    data = read_associations(bx, bxse, by, byse)
    parts = read_groups(groups, data.shape[-1])
    fit = partial(
        _leave_one_out,
        parts=parts,
        estimator=estimator,
        model=model,
        weights=weights,
        distribution=distribution,
        alpha=alpha,
    )
    result = over_associations(fit, data, read_psi(psi, data.shape))
    return replace(result, left_out=parts.labels)


def _leave_one_out(
    data: Associations,
    psi: FloatArray,
    *,
    parts: Groups,
    estimator: str,
    model: str,
    weights: str,
    distribution: str,
    alpha: float,
) -> LeaveOneOut:
    """Return the result of a block of fits; what has no axis of fits, the labels, is left empty."""
    design = build_design(data, weights=weights, psi=psi, penalized=False)
    if estimator == "egger":
        fit = _egger_fits(keep_zero_outcomes(design, data), parts)
    else:
        fit = _ivw_fits(design, parts)

    left = design.n_instruments[..., None] - parts.count(design.present)
    random = model != "fixed" if estimator == "egger" else is_random(model, left)
    scale = np.where(random, np.maximum(fit.rse, 1), 1.0)
    t_df = left - (2 if estimator == "egger" else 1) if distribution == "t-dist" else None
    rse = fit.rse if estimator == "egger" and model != "fixed" else None
    return LeaveOneOut(
        **inference(fit.slope, fit.slope_se * scale, alpha=alpha, df=t_df, rse=rse),
        **intercept_inference(fit.intercept, fit.intercept_se * scale, alpha=alpha, df=t_df, rse=rse),
        rse=fit.rse,
        n_instruments=left,
        left_out=np.empty(fit.slope.shape[:-1]),
        status=fit.status,
    )


def _ivw_fits(design: Design, parts: Groups) -> Fit:
    # Residuals about the full fit: what remains to be explained is small, and so is the loss in its sum of squares.
    origin = np.nan_to_num(through_origin(design).slope)
    residual = design.y - origin[..., None] * design.x
    sxx, sxr, srr = (parts.outside(a * b) for a, b in _pairs(design.x, residual))
    change = sxr / sxx
    slope = origin[..., None] + change
    n_used = design.n_used[..., None] - parts.count(design.used)
    status = fit_status(design.invalid[..., None], n_used, 1, sxx == 0, slope)
    ok, nothing = status == Status.OK, np.full(slope.shape, np.nan)
    return Fit(
        slope=np.where(ok, slope, np.nan),
        slope_se=np.where(ok, 1 / np.sqrt(sxx), np.nan),
        intercept=nothing,
        intercept_se=nothing,
        residual=np.empty((*slope.shape, 0)),
        rss=np.where(ok, np.maximum(srr - sxr * change, 0), np.nan),
        df=n_used - 1,
        status=status,
    )


def _egger_fits(design: Design, parts: Groups) -> Fit:
    full = with_intercept(design)
    origin, level = np.nan_to_num(full.slope), np.nan_to_num(full.intercept)
    residual = design.y - origin[..., None] * design.x - level[..., None] * design.sign
    weight = np.where(design.used, design.sign**2, 0.0)
    size, height = (np.where(design.used, column / design.sign, 0.0) for column in (design.x, residual))
    rest = _moments_outside(parts, weight, size, height)
    change = rest.cxy / rest.cxx
    slope = origin[..., None] + change
    n_used = design.n_used[..., None] - parts.count(design.used)
    collinear = is_collinear(rest.cxx, np.sqrt(parts.outside(design.x**2)))
    status = fit_status(design.invalid[..., None], n_used, 3, collinear, slope)
    ok = status == Status.OK
    intercept = level[..., None] + rest.mean_y - change * rest.mean_x
    return Fit(
        slope=np.where(ok, slope, np.nan),
        slope_se=np.where(ok, 1 / np.sqrt(rest.cxx), np.nan),
        intercept=np.where(ok, intercept, np.nan),
        intercept_se=np.where(ok, np.sqrt(1 / rest.weight + rest.mean_x**2 / rest.cxx), np.nan),
        residual=np.empty((*slope.shape, 0)),
        rss=np.where(ok, np.maximum(rest.cyy - rest.cxy * change, 0), np.nan),
        df=n_used - 2,
        status=status,
    )


@dataclass(frozen=True, eq=False)
class _Moments:
    """Weight, means, and centred sums of squares and products of sets of points."""

    weight: FloatArray
    mean_x: FloatArray
    mean_y: FloatArray
    cxx: FloatArray
    cxy: FloatArray
    cyy: FloatArray

    def take(self, index: npt.NDArray[np.intp]) -> "_Moments":
        return _Moments(*(getattr(self, name)[..., index] for name in self.__dataclass_fields__))

    def merged(self, other: "_Moments") -> "_Moments":
        weight = self.weight + other.weight
        share = np.where(weight > 0, other.weight / weight, 0.0)
        shared = self.weight * share
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        return _Moments(
            weight,
            self.mean_x + share * dx,
            self.mean_y + share * dy,
            self.cxx + other.cxx + shared * dx**2,
            self.cxy + other.cxy + shared * dx * dy,
            self.cyy + other.cyy + shared * dy**2,
        )


def _moments_outside(parts: Groups, weight: FloatArray, x: FloatArray, y: FloatArray) -> _Moments:
    points = [array[..., parts.order] for array in (weight, x, y)]
    before = _running_moments(*points).take(parts.start)
    after = _running_moments(*(array[..., ::-1] for array in points)).take(parts.order.size - parts.end)
    return before.merged(after)


def _running_moments(weight: FloatArray, x: FloatArray, y: FloatArray) -> _Moments:
    """Return the moments of the first 0, 1, ..., J points: shape (..., J + 1)."""

    def running(values: FloatArray) -> FloatArray:
        total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
        np.cumsum(values, axis=-1, out=total[..., 1:])
        return total

    total = running(weight)
    mean_x, mean_y = (np.where(total > 0, running(weight * v) / total, 0.0) for v in (x, y))
    # Each new point adds the square of its distance from the mean of those before it, so nothing cancels.
    joint = np.where(weight > 0, weight * total[..., :-1] / total[..., 1:], 0.0)
    dx, dy = x - mean_x[..., :-1], y - mean_y[..., :-1]
    return _Moments(total, mean_x, mean_y, *(running(joint * a * b) for a, b in _pairs(dx, dy)))


def _pairs(x: FloatArray, y: FloatArray) -> tuple[tuple[FloatArray, FloatArray], ...]:
    return (x, x), (x, y), (y, y)
