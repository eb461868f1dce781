"""Least squares of a whitened design, and the intervals and p-values of its coefficients."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy import special

from kipoi_deepmr.mr.core.design import Design
from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray, Status
from kipoi_deepmr.mr.core.robust import mm_fit

# The relative norm below which R's lm() calls a column collinear.
_COLLINEAR = 1e-7


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients with their fixed-effect standard errors (residual standard error taken as 1).

    `rss` is the sum of squared residuals; of a robust fit it is the squared scale times `df`.
    """

    slope: FloatArray
    slope_se: FloatArray
    intercept: FloatArray
    intercept_se: FloatArray
    residual: FloatArray
    rss: FloatArray
    df: IntArray
    status: IntArray

    @property
    def rse(self) -> FloatArray:
        """Residual standard error; 1 where no degree of freedom is left, NaN where there is no fit."""
        spread = np.sqrt(self.rss / np.maximum(self.df, 1))
        return np.where(self.status == Status.OK, np.where(self.df > 0, spread, 1.0), np.nan)


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the sum of products over the last axis."""
    return np.asarray(np.einsum("...j,...j->...", a, b), dtype=np.float64)


def through_origin(design: Design) -> Fit:
    """Regress y on x without an intercept (IVW)."""
    sxx = dot(design.x, design.x)
    slope = dot(design.x, design.y) / np.where(np.isinf(sxx), np.nan, sxx)
    residual = design.x * -slope[..., None]
    residual += design.y
    status = fit_status(design.invalid, design.n_used, 1, sxx == 0, slope)
    nothing = np.full(slope.shape, np.nan)
    return Fit(
        slope=_blank(slope, status),
        slope_se=_blank(1 / np.sqrt(sxx), status),
        intercept=nothing,
        intercept_se=nothing,
        residual=residual,
        rss=_blank(dot(residual, residual), status),
        df=design.n_used - 1,
        status=status,
    )


def with_intercept(design: Design) -> Fit:
    """Regress y on x and the sign column (MR-Egger)."""
    saa = dot(design.sign, design.sign)
    mean_x = dot(design.sign, design.x) / saa
    mean_y = dot(design.sign, design.y) / saa
    x = design.sign * -mean_x[..., None]
    x += design.x
    sxx = dot(x, x)
    residual = design.sign * -mean_y[..., None]
    residual += design.y
    slope = dot(x, residual) / sxx
    intercept = mean_y - slope * mean_x
    x *= -slope[..., None]
    residual += x
    size = np.sqrt(dot(design.x, design.x))
    status = fit_status(design.invalid, design.n_used, 3, is_collinear(sxx, size), slope)
    return Fit(
        slope=_blank(slope, status),
        slope_se=_blank(1 / np.sqrt(sxx), status),
        intercept=_blank(intercept, status),
        intercept_se=_blank(np.sqrt(1 / saa + mean_x**2 / sxx), status),
        residual=residual,
        rss=_blank(dot(residual, residual), status),
        df=design.n_used - 2,
        status=status,
    )


def robust_through_origin(design: Design) -> Fit:
    """Regress y on x without an intercept by MM-estimation; a single variant is fitted exactly."""
    return _robustly(design, through_origin(design), design.x[..., None])


def robust_with_intercept(design: Design) -> Fit:
    """Regress y on x and the sign column by MM-estimation."""
    return _robustly(design, with_intercept(design), np.stack([design.x, design.sign], axis=-1))


def is_collinear(sxx: FloatArray, size: FloatArray) -> BoolArray:
    """Return where a centred sum of squares is no more than rounding beside the column's norm `size`."""
    return np.asarray(np.isfinite(size) & ~(np.sqrt(sxx) > _COLLINEAR * size), dtype=np.bool_)


def fit_status(
    invalid: IntArray, n_used: IntArray, needed: int, no_variation: BoolArray, slope: FloatArray
) -> IntArray:
    """Return the `Status` of a fit: the first of its reasons to have no answer."""
    reasons = [
        (invalid != Status.OK, invalid),
        (n_used < needed, Status.TOO_FEW_INSTRUMENTS),
        (no_variation, Status.NO_EXPOSURE_VARIATION),
        (~np.isfinite(slope), Status.NOT_FINITE),
    ]
    conditions, codes = zip(*reasons, strict=True)
    return np.asarray(np.select(conditions, codes, Status.OK), dtype=np.int64)


def chi2_pvalue(statistic: FloatArray, df: IntArray) -> FloatArray:
    """Return the upper tail of the chi-squared distribution; NaN without a degree of freedom."""
    tail = special.chdtrc(np.maximum(df, 1), statistic)
    return np.where(df > 0, tail, np.nan)


def interval(
    estimate: FloatArray,
    se: FloatArray,
    *,
    alpha: float,
    df: IntArray | FloatArray | None = None,
    rse: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the 1 - alpha interval: normal without `df`, else Student t.

    With `rse` (MR-Egger) and rse < 1 it is the wider of the normal interval and the t interval with the estimated
    residual standard error, so that under-dispersion is not penalised twice.
    """
    margin = -special.ndtri(alpha / 2) * se
    if df is not None:
        student = np.where(df > 0, -special.stdtrit(np.maximum(df, 1), alpha / 2), np.nan) * se
        narrow = _underdispersed(rse)
        margin = student if rse is None else np.where(narrow, np.fmax(margin, student * rse), student)
    return estimate - margin, estimate + margin


def pvalue(
    estimate: FloatArray, se: FloatArray, *, df: IntArray | FloatArray | None = None, rse: FloatArray | None = None
) -> FloatArray:
    """Return the two-sided p-value, from the tail function; arguments as in `interval`."""
    z = np.abs(estimate / se)
    normal: FloatArray = 2 * special.ndtr(-z)
    if df is None:
        return normal
    student: FloatArray = 2 * special.stdtr(np.maximum(df, 1), -z)
    if rse is not None:
        conservative = np.fmax(normal, 2 * special.stdtr(np.maximum(df, 1), -z / rse))
        student = np.where(_underdispersed(rse), conservative, student)
    return np.where(df > 0, student, normal)


class Inference(TypedDict):
    """The fields of a result that follow from an estimate and its standard error."""

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    confidence_level: float


class InterceptInference(TypedDict):
    """The same for an intercept."""

    intercept: FloatArray
    intercept_se: FloatArray
    intercept_ci_low: FloatArray
    intercept_ci_high: FloatArray
    intercept_pvalue: FloatArray


def inference(
    estimate: FloatArray,
    se: FloatArray,
    *,
    alpha: float,
    df: IntArray | FloatArray | None = None,
    rse: FloatArray | None = None,
) -> Inference:
    """Return the interval and the p-value with what they are of; arguments as in `interval`."""
    low, high = interval(estimate, se, alpha=alpha, df=df, rse=rse)
    p = pvalue(estimate, se, df=df, rse=rse)
    estimate, se, low, high, p = (np.asarray(values) for values in (estimate, se, low, high, p))
    return Inference(estimate=estimate, se=se, ci_low=low, ci_high=high, pvalue=p, confidence_level=1 - alpha)


def intercept_inference(
    intercept: FloatArray,
    se: FloatArray,
    *,
    alpha: float,
    df: IntArray | FloatArray | None = None,
    rse: FloatArray | None = None,
) -> InterceptInference:
    """Return the same for an intercept."""
    found = inference(intercept, se, alpha=alpha, df=df, rse=rse)
    return InterceptInference(
        intercept=found["estimate"],
        intercept_se=found["se"],
        intercept_ci_low=found["ci_low"],
        intercept_ci_high=found["ci_high"],
        intercept_pvalue=found["pvalue"],
    )


def _robustly(design: Design, fit: Fit, columns: FloatArray) -> Fit:
    """Return the MM-estimates where least squares has an answer and a degree of freedom, else `fit`."""
    asked = (fit.status == Status.OK) & (fit.df > 0)
    robust = mm_fit(columns, design.y, design.used, asked)
    has_intercept = columns.shape[-1] > 1
    return Fit(
        slope=np.where(asked, robust.coefficients[..., 0], fit.slope),
        slope_se=np.where(asked, robust.unit_se[..., 0], fit.slope_se),
        intercept=np.where(asked & has_intercept, robust.coefficients[..., -1], fit.intercept),
        intercept_se=np.where(asked & has_intercept, robust.unit_se[..., -1], fit.intercept_se),
        residual=np.where(asked[..., None], robust.residual, fit.residual),
        rss=np.where(asked, robust.scale**2 * fit.df, fit.rss),
        df=fit.df,
        status=fit.status,
    )


def _underdispersed(rse: FloatArray | None) -> BoolArray:
    return np.asarray(False if rse is None else rse < 1, dtype=np.bool_)


def _blank(values: FloatArray, status: IntArray) -> FloatArray:
    return np.where(status == Status.OK, values, np.nan)
