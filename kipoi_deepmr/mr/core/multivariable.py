"""Regression on several exposures: from associations to a whitened design, and its least squares."""

from dataclasses import dataclass, replace
from typing import ClassVar, TypedDict

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import Design, build_design, read_correlation, whiten
from kipoi_deepmr.mr.core.inputs import Associations, BoolArray, FloatArray, IntArray, Status, read_array
from kipoi_deepmr.mr.core.regression import chi2_pvalue, dot, fit_status, is_collinear
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.core.robust import mm_fit


@dataclass(frozen=True, eq=False)
class Exposures:
    """Effects of J variants on K exposures (..., K, J) and on the outcome (..., J), broadcast to common leading axes."""

    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray

    @property
    def count(self) -> int:
        """The number K of exposures."""
        return int(self.bx.shape[-2])


@dataclass(frozen=True, eq=False)
class SeveralFit:
    """Coefficients (..., P) with their standard errors for a residual standard error of 1."""

    coefficients: FloatArray
    unit_se: FloatArray
    rss: FloatArray
    df: IntArray
    status: IntArray

    @property
    def rse(self) -> FloatArray:
        """Residual standard error; 1 where no degree of freedom is left, NaN where there is no fit."""
        spread = np.sqrt(self.rss / np.maximum(self.df, 1))
        return np.where(self.status == Status.OK, np.where(self.df > 0, spread, 1.0), np.nan)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SeveralResult(CausalResult):
    """Direct effects of K exposures, each while the others stay: estimate to pvalue have the shape (..., K).

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments with a positive weight.
    rse : ndarray of float64, shape (...)
        Residual standard error; 1 where no degree of freedom is left.
    q, q_pvalue : ndarray of float64, shape (...)
        Sum of squared residuals and its chi-squared tail; NaN where no degree of freedom is left.
    """

    _axis: ClassVar[str] = "exposure"

    n_used: IntArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray


class SeveralFields(TypedDict):
    """The fields of a `SeveralResult` that belong to a fit as a whole."""

    n_instruments: IntArray
    n_used: IntArray
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray
    status: IntArray


def several_fields(design: Design, fit: SeveralFit) -> SeveralFields:
    """Return what a result says about the fit as a whole."""
    q = np.where(fit.df > 0, fit.rss, np.nan)
    return SeveralFields(
        n_instruments=design.n_instruments,
        n_used=design.n_used,
        rse=fit.rse,
        q=q,
        q_pvalue=chi2_pvalue(q, fit.df),
        status=fit.status,
    )


def read_exposures(bx: npt.ArrayLike, bxse: npt.ArrayLike, by: npt.ArrayLike, byse: npt.ArrayLike) -> Exposures:
    """Return the four arrays as float64 with common leading axes, J on the last axis and K before it."""
    x, sx = read_array("bx", bx), read_array("bxse", bxse)
    y, sy = read_array("by", by), read_array("byse", byse)
    shapes = f"bx {x.shape}, bxse {sx.shape}, by {y.shape}, byse {sy.shape}"
    if x.ndim < 2 or x.shape[-2] == 0:
        raise ValueError(
            f"bx must have shape (..., K, J) with at least one exposure on the axis before the last; got {shapes}"
        )
    if sx.ndim < 2 or sx.shape[-2:] != x.shape[-2:]:
        raise ValueError(f"bxse must have the exposures and variants of bx on its last two axes; got {shapes}")
    if any(array.ndim == 0 or array.shape[-1] != x.shape[-1] for array in (y, sy)):
        raise ValueError(f"by and byse must have shape (..., J) with the variants of bx on the last axis; got {shapes}")
    try:
        batch = np.broadcast_shapes(x.shape[:-2], sx.shape[:-2], y.shape[:-1], sy.shape[:-1])
    except ValueError as error:
        raise ValueError(f"the leading axes do not broadcast against one another; got {shapes}") from error
    several, one = (*batch, *x.shape[-2:]), (*batch, x.shape[-1])
    return Exposures(
        np.broadcast_to(x, several), np.broadcast_to(sx, several), np.broadcast_to(y, one), np.broadcast_to(sy, one)
    )


def build_several_design(data: Exposures, orientation: int) -> tuple[FloatArray, Design]:
    """Return the columns (..., J, K) divided by byse, and the design of the exposure that orients the variants.

    A variant is absent where one of its effects, or byse, is NaN.
    """
    oriented = data.bx[..., orientation, :]
    complete = np.where(np.isnan(data.bx).any(axis=-2), np.nan, oriented)
    design = build_design(
        Associations(complete, np.zeros(complete.shape), data.by, data.byse), weights="simple", psi=0.0, penalized=False
    )
    infinite = (design.present[..., None, :] & np.isinf(data.bx)).any(axis=(-2, -1))
    negative = (design.present[..., None, :] & (data.bxse < 0)).any(axis=(-2, -1))
    reason = np.where(
        infinite, Status.INVALID_EFFECT, np.where(negative, Status.INVALID_STANDARD_ERROR, design.invalid)
    )
    invalid = np.where(design.invalid == Status.OK, reason, design.invalid)
    weight = np.abs(design.sign)[..., None, :]
    columns = np.multiply(data.bx, weight, out=np.zeros(data.bx.shape), where=design.used[..., None, :])
    return np.moveaxis(columns, -2, -1), replace(design, invalid=np.asarray(invalid, dtype=np.int64))


def whiten_several(
    columns: FloatArray, design: Design, correlation: npt.ArrayLike, linked: BoolArray
) -> tuple[FloatArray, Design]:
    """Return columns and outcome multiplied by the inverse Cholesky factor of the linked variants' correlation."""
    matrix = read_correlation(correlation, design.y.shape)
    together, valid = whiten(np.concatenate([columns, design.y[..., None]], axis=-1), matrix, linked)
    invalid = np.where((design.invalid == Status.OK) & ~valid, Status.INVALID_CORRELATION, design.invalid)
    return together[..., :-1], replace(design, y=together[..., -1], invalid=np.asarray(invalid, dtype=np.int64))


def least_squares(columns: FloatArray, design: Design, *, robust: bool = False) -> SeveralFit:
    """Regress the outcome on the columns (..., J, P), by MM-estimation when `robust`."""
    *batch, n_variants, n_columns = columns.shape
    usable = (
        (design.invalid == Status.OK) & np.isfinite(columns).all(axis=(-2, -1)) & np.isfinite(design.y).all(axis=-1)
    )
    padded = np.where(usable[..., None, None], columns, 0.0)
    short = max(0, n_columns - n_variants)
    padded = np.concatenate([padded, np.zeros((*batch, short, n_columns))], axis=-2)
    q, r = np.linalg.qr(padded)
    # What the columns before it leave of each.
    left = np.diagonal(r, axis1=-2, axis2=-1) ** 2
    collinear = usable & is_collinear(left, np.sqrt(np.einsum("...jp,...jp->...p", padded, padded))).any(axis=-1)
    sound = np.where((usable & ~collinear)[..., None, None], r, np.eye(n_columns))
    back = np.linalg.inv(sound)
    outcome = np.where(usable[..., None], design.y, 0.0)
    coefficients = np.einsum("...pq,...jq,...j->...p", back, q[..., :n_variants, :], outcome, optimize=True)
    unit_se = np.sqrt(np.einsum("...pq,...pq->...p", back, back))
    residual = outcome - np.einsum("...jp,...p->...j", padded[..., :n_variants, :], coefficients)
    rss, df = dot(residual, residual), design.n_used - n_columns
    found = np.where(usable, coefficients.sum(axis=-1), np.nan)
    status = fit_status(design.invalid, design.n_used, n_columns, collinear, found)
    if robust:
        asked = (status == Status.OK) & (df > 0)
        fit = mm_fit(columns, design.y, design.used, asked)
        coefficients = np.where(asked[..., None], fit.coefficients, coefficients)
        unit_se = np.where(asked[..., None], fit.unit_se, unit_se)
        rss = np.where(asked, fit.scale**2 * df, rss)
    answered = (status == Status.OK)[..., None]
    return SeveralFit(
        coefficients=np.where(answered, coefficients, np.nan),
        unit_se=np.where(answered, unit_se, np.nan),
        rss=np.where(answered[..., 0], rss, np.nan),
        df=df,
        status=status,
    )
