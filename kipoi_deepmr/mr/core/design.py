"""From associations to a regression with unit error variance: weights, penalties, correlated instruments."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import linalg, special

from kipoi_deepmr.mr.core.inputs import Associations, BoolArray, FloatArray, IntArray, Status, read_array, read_psi

# MendelianRandomization's penalties: a variant loses weight below p = 0.01 (simple weights) or 0.05 (delta weights).
_PENALTY = {"simple": 100.0, "delta": 20.0}


@dataclass(frozen=True, eq=False)
class Design:
    """Columns divided by the standard error of the outcome effect; absent and unused variants are zeros.

    `sign` is the intercept column of MR-Egger: regressing `y` on `sign` and `x` equals orienting every variant to a
    positive exposure effect and regressing on a constant, so no oriented copies are needed.
    """

    x: FloatArray
    y: FloatArray
    sign: FloatArray
    present: BoolArray
    used: BoolArray
    invalid: IntArray

    @cached_property
    def n_instruments(self) -> IntArray:
        """Number of variants that are present."""
        return np.asarray(np.count_nonzero(self.present, axis=-1), dtype=np.int64)

    @cached_property
    def n_used(self) -> IntArray:
        """Number of variants with a positive weight."""
        return np.asarray(np.count_nonzero(self.used, axis=-1), dtype=np.int64)


def build_design(data: Associations, *, weights: str, psi: npt.ArrayLike, penalized: bool) -> Design:
    """Return the design for independent instruments, penalised about the median ratio when `penalized`."""
    correlation_of_errors = read_psi(psi, data.shape)
    present = _present(data, correlation_of_errors if weights == "delta" else None)
    spread = data.byse if weights == "simple" else _delta_spread(data, correlation_of_errors)
    precision = 1 / spread
    if penalized:
        precision = precision * np.sqrt(_median_penalty(data, present, precision, _PENALTY[weights]))
        used = present & (precision > 0) & np.isfinite(precision)
        zero = np.zeros(data.shape, dtype=np.bool_)
    else:
        used = present & (precision > 0)
        zero = present & (spread == 0)
    negative = present & ((data.byse < 0) | (data.bxse < 0))
    infinite = present & (np.isinf(data.bx) | np.isinf(data.by))
    return _columns(data, precision, used, present, _reasons(negative | zero, infinite))


def build_two_error_design(data: Associations, psi: FloatArray | None = None) -> tuple[Design, FloatArray]:
    """Return the design for estimators that count the error of the exposure, and bxse / byse (0 where not used).

    A variant is absent where any of its four numbers, or psi, is NaN. A fit with invalid input has no used variants.
    """
    missing = np.isnan(data.bxse) if psi is None else np.isnan(data.bxse) | np.isnan(psi)
    complete = replace(data, bx=np.where(missing, np.nan, data.bx))
    design = build_design(complete, weights="simple", psi=0.0, penalized=False)
    endless = (design.present & np.isinf(data.bxse)).any(axis=-1) & (design.invalid == Status.OK)
    invalid = np.asarray(np.where(endless, Status.INVALID_STANDARD_ERROR, design.invalid), dtype=np.int64)
    used = design.used & (invalid == Status.OK)[..., None]
    x, y, sign, spread = (
        np.where(used, part, 0.0) for part in (design.x, design.y, design.sign, data.bxse / data.byse)
    )
    return replace(design, x=x, y=y, sign=sign, used=used, invalid=invalid), spread


def in_exposure_units(design: Design, spread: FloatArray) -> tuple[Design, FloatArray, FloatArray]:
    """Return x and spread in units of the largest, a power of 2, and the units: fourth powers stay numbers."""
    exponent = np.maximum(largest_exponent(design.x), largest_exponent(spread))
    x, error = (np.ldexp(column, -exponent[..., None]) for column in (design.x, spread))
    return replace(design, x=x), error, np.ldexp(1.0, exponent)


def largest_exponent(values: FloatArray) -> npt.NDArray[np.int32]:
    """Return e of the smallest power 2^e above the sizes on the last axis; 0 without a positive finite one."""
    largest = np.abs(values).max(axis=-1, initial=0.0)
    return np.asarray(np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1])


def invalid_unweighted(design: Design, data: Associations) -> IntArray:
    """Return the reasons where all weights are equal: byse = 0 spoils a weight by precision, not an equal one."""
    negative = (design.present & ((data.bxse < 0) | (data.byse < 0))).any(axis=-1)
    exact = (design.invalid == Status.INVALID_STANDARD_ERROR) & ~negative
    return np.asarray(np.where(exact, Status.OK, design.invalid), dtype=np.int64)


def keep_zero_outcomes(design: Design, data: Associations) -> Design:
    """Return the design for MR-Egger: a variant with bx = 0 has no orientation and becomes the point (0, 0)."""
    unoriented = data.bx == 0
    return replace(design, y=np.where(unoriented, 0.0, design.y)) if unoriented.any() else design


def penalize_residuals(design: Design, residual: FloatArray, weights: str) -> Design:
    """Return the design with each variant's weight multiplied by its penalty, given its standardised residual.

    Where there was no fit, so that the residual is NaN, the design stays as it is and keeps its reason.
    """
    factor = np.sqrt(np.fmin(1, _PENALTY[weights] * _two_sided(residual)))
    used = design.used & (factor > 0)
    return replace(design, x=design.x * factor, y=design.y * factor, sign=design.sign * factor, used=used)


def correlate(design: Design, data: Associations, correlation: npt.ArrayLike, *, orient: bool) -> Design:
    """Return the design for correlated instruments: each column multiplied by the inverse Cholesky factor.

    With `orient` a variant with bx = 0 is taken as uncorrelated with the others, as its sign is undefined.
    """
    matrix = read_correlation(correlation, data.shape)
    linked = design.used & (data.bx != 0) if orient else design.used
    columns = np.stack([design.x, design.y, design.sign], axis=-1)
    whitened, valid = whiten(columns, matrix, linked)
    invalid = np.where((design.invalid == Status.OK) & ~valid, Status.INVALID_CORRELATION, design.invalid)
    x, y, sign = np.moveaxis(whitened, -1, 0)
    return replace(design, x=x, y=y, sign=sign, invalid=np.asarray(invalid, dtype=np.int64))


def read_correlation(correlation: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """Return the correlation matrix, checked to fit (..., J, J)."""
    matrix = read_array("correlation", correlation)
    wanted = (*shape, shape[-1])
    try:
        fits = matrix.ndim >= 2 and np.broadcast_shapes(matrix.shape, wanted) == wanted
    except ValueError:
        fits = False
    if not fits or matrix.shape[-2:] != wanted[-2:]:
        raise ValueError(f"correlation must have shape (..., J, J) that fits {wanted}; got {matrix.shape}")
    return matrix


def whiten(columns: FloatArray, matrix: FloatArray, linked: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Return L^-1 columns with L L' the correlation of the linked variants, and where that matrix was valid."""
    n_variants, batch = linked.shape[-1], linked.shape[:-1]
    patterns = linked.reshape(math.prod(batch), n_variants)
    shared = matrix.ndim == 2 and patterns.shape[0] > 0 and bool(np.all(patterns == patterns[0]))
    if shared:
        linked = patterns[0]
    identity = np.eye(n_variants)
    wanted = np.where(linked[..., :, None] & linked[..., None, :], matrix, identity)
    mirrored = np.swapaxes(wanted, -1, -2)
    finite = np.isfinite(wanted)
    symmetric = np.asarray((finite & np.isclose(wanted, mirrored, rtol=1e-8, atol=1e-10)).all(axis=(-2, -1)))
    factor, definite = _cholesky(np.where(symmetric[..., None, None], wanted, identity), identity)
    valid = np.broadcast_to(symmetric & definite, batch)
    if not shared:
        return np.asarray(np.linalg.solve(factor, columns), dtype=np.float64), valid
    side_by_side = np.moveaxis(columns, -2, 0).reshape(n_variants, math.prod(batch) * columns.shape[-1])
    solved = linalg.solve_triangular(factor, side_by_side, lower=True, check_finite=False)
    moved = solved.reshape(n_variants, *batch, columns.shape[-1])
    return np.moveaxis(moved, 0, -2), valid


def masked_median(values: FloatArray, valid: BoolArray) -> FloatArray:
    """Return the median over the last axis of the valid values; NaN where there are none."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(np.where(valid, values, np.nan), axis=-1)
    count = np.count_nonzero(valid, axis=-1)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2], axis=-1)
    middle = np.minimum(middle, values.shape[-1] - 1)
    lower, upper = np.moveaxis(np.take_along_axis(ordered, middle, axis=-1), -1, 0)
    return np.where(count > 0, np.where(lower == upper, lower, (lower + upper) / 2), np.nan)


def where_used(values: FloatArray, used: BoolArray) -> FloatArray:
    """Return the values, 0 where not used; `values` itself where all are."""
    return values if used.all() else np.where(used, values, 0.0)


def _present(data: Associations, psi: FloatArray | None) -> BoolArray:
    absent = np.isnan(data.bx) | np.isnan(data.by) | np.isnan(data.byse)
    if psi is not None:
        absent = absent | np.isnan(data.bxse) | np.isnan(psi)
    return ~absent


def _delta_spread(data: Associations, psi: FloatArray) -> FloatArray:
    through_exposure = data.by * data.bxse / data.bx
    shared = data.byse - psi * through_exposure
    own = (1 - psi**2) * through_exposure**2
    return np.sqrt(shared**2 + np.maximum(own, 0))


def _two_sided(z: FloatArray) -> FloatArray:
    tail: FloatArray = special.erfc(np.abs(z) * np.sqrt(0.5))
    return tail


def _median_penalty(data: Associations, present: BoolArray, precision: FloatArray, strength: float) -> FloatArray:
    ratio = data.by / data.bx
    median = masked_median(ratio, present & ~np.isnan(ratio))
    standardised = (ratio - median[..., None]) * data.bx * precision
    return np.minimum(1, strength * _two_sided(standardised))


def _reasons(invalid_se: BoolArray, infinite: BoolArray) -> IntArray:
    reasons = np.where(infinite.any(axis=-1), Status.INVALID_EFFECT, Status.OK)
    return np.asarray(np.where(invalid_se.any(axis=-1), Status.INVALID_STANDARD_ERROR, reasons), dtype=np.int64)


def _columns(
    data: Associations, precision: FloatArray, used: BoolArray, present: BoolArray, invalid: IntArray
) -> Design:
    kept = where_used(precision, used)
    return Design(
        x=where_used(data.bx * kept, used),
        y=where_used(data.by * kept, used),
        sign=np.copysign(kept, data.bx),
        present=present,
        used=used,
        invalid=invalid,
    )


def _cholesky(matrix: FloatArray, identity: FloatArray) -> tuple[FloatArray, BoolArray]:
    definite: BoolArray = np.ones(matrix.shape[:-2], dtype=np.bool_)
    try:
        factor: FloatArray = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        # One bad matrix fails the whole stack: find it by its eigenvalues and factor the others.
        smallest = np.linalg.eigvalsh(matrix)[..., 0]
        definite = smallest > np.finfo(np.float64).eps * matrix.shape[-1]
        sound = np.where(definite[..., None, None], matrix, identity)
        factor = np.asarray(np.linalg.cholesky(sound), dtype=np.float64)
    if matrix.shape[-1] == 0:
        return factor, definite
    pivots = np.diagonal(factor, axis1=-2, axis2=-1)
    singular = np.asarray(pivots.min(axis=-1)) ** 2 <= np.finfo(np.float64).eps * matrix.shape[-1]
    usable = np.where(singular[..., None, None], identity, factor)
    return np.asarray(usable, dtype=np.float64), np.asarray(definite & ~singular)
