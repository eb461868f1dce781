"""The studies of a meta-analysis, and sums over them that survive weights of very different size."""

import enum
import math
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class MetaStatus(enum.IntEnum):
    """Why a pooled effect is NaN.

    Attributes
    ----------
    OK
        The pooled effect is a number.
    TOO_FEW_STUDIES
        No study is present; for an interval of tau2, fewer than two.
    INVALID_STANDARD_ERROR
        A standard error is zero, negative or infinite.
    INVALID_ESTIMATE
        An effect is infinite.
    NOT_FINITE
        The arithmetic overflowed: effects or standard errors are outside the range of float64 squares.
    """

    OK = 0
    TOO_FEW_STUDIES = 1
    INVALID_STANDARD_ERROR = 2
    INVALID_ESTIMATE = 3
    NOT_FINITE = 4


@dataclass(frozen=True, eq=False)
class Studies:
    """B batches of k studies, the most precise first and the absent last, effects counted from the first one.

    With the largest weight in a known place, sums such as total - weight need no cancellation, so that one study may
    be far more precise than the others. Effects and errors are counted in `unit`, a power of 2 near the smallest
    standard error, so that no square of theirs underflows or overflows.
    """

    y: FloatArray
    v: FloatArray
    present: BoolArray
    n: IntArray
    origin: FloatArray
    unit: FloatArray

    def rows(self, index: npt.NDArray[np.intp]) -> "Studies":
        """Return the batches with these numbers."""
        return Studies(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def range(self) -> FloatArray:
        """Largest minus smallest effect."""
        return np.asarray(self.y.max(axis=-1) - self.y.min(axis=-1))

    @property
    def largest_variance(self) -> FloatArray:
        """Largest sampling variance."""
        return np.asarray(np.where(self.present, self.v, 0.0).max(axis=-1))


def typical_variance(studies: Studies) -> FloatArray:
    """Return the sampling variance that the studies have together (Higgins and Thompson 2002)."""
    return np.asarray((studies.n - 1) / Weighted(studies, np.zeros(studies.n.shape)).trace)


class Weighted:
    """Sums over the studies of each batch with weights 1 / (v + tau2); P = W - W 1 1' W / total."""

    def __init__(self, studies: Studies, tau2: FloatArray) -> None:
        self.w = np.where(studies.present, 1 / (studies.v + tau2[:, None]), 0.0)
        self.total = self.w.sum(axis=-1)
        self.mean = dot(self.w, studies.y) / self.total
        self.residual = np.where(studies.present, studies.y - self.mean[:, None], 0.0)
        self.q = dot(self.w * self.residual, self.residual)
        self.others = self.total[:, None] - self.w
        self.others[:, 0] = self.w[:, 1:].sum(axis=-1)

    @property
    def trace(self) -> FloatArray:
        """The trace of P."""
        return np.asarray(dot(self.w, self.others) / self.total)

    @property
    def trace_square(self) -> FloatArray:
        """The trace of P P."""
        rest = self.w[:, 1:] ** 2
        crossed = 2 * self.w[:, 0] ** 2 * rest.sum(axis=-1) + rest.sum(axis=-1) ** 2 - dot(rest, rest)
        own = self.w * self.others
        return np.asarray((dot(own, own) + crossed) / self.total**2)

    @property
    def weighted_residual(self) -> FloatArray:
        """The vector P y."""
        return np.asarray(self.w * self.residual)


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the sum of products over the studies of each batch."""
    return np.asarray(np.einsum("ij,ij->i", a, b), dtype=np.float64)


def read_studies(estimate: npt.ArrayLike, se: npt.ArrayLike, axis: int) -> tuple[FloatArray, FloatArray]:
    """Return effects and standard errors of one shape (..., k); what a mask hides is NaN."""
    if not isinstance(axis, Integral) or isinstance(axis, bool):
        raise ValueError(f"axis={axis!r} must be one integer: it names the axis of the studies, for example -1")
    given = (_unmasked(estimate), _unmasked(se))
    for name, array in zip(("estimate", "se"), given, strict=True):
        if array.dtype.kind not in "buif":
            raise ValueError(f"{name} must be an array of real numbers, not of dtype {array.dtype}")
    shapes = f"estimate {given[0].shape} and se {given[1].shape}"
    try:
        effect, error = np.broadcast_arrays(*given)
    except ValueError as problem:
        raise ValueError(f"{shapes} do not broadcast against one another") from problem
    if effect.ndim == 0 or not -effect.ndim <= axis < effect.ndim:
        raise ValueError(f"axis={axis} is not an axis of {shapes}; it names the axis of the studies")
    return np.moveaxis(effect, axis, -1).astype(np.float64), np.moveaxis(error, axis, -1).astype(np.float64)


def _unmasked(values: npt.ArrayLike) -> npt.NDArray[Any]:
    given: npt.NDArray[Any] = np.asarray(values)
    if np.ma.isMaskedArray(values) and given.dtype.kind in "buif":
        return np.where(np.ma.getmaskarray(values), np.nan, given)
    return given


def sort_studies(effect: FloatArray, error: FloatArray) -> tuple[Studies, IntArray]:
    """Return the batches in one row each, sorted by precision, and a `MetaStatus` for each."""
    batches, k = math.prod(effect.shape[:-1]), effect.shape[-1]
    y, s = (array.reshape(batches, k) if k else np.full((batches, 1), np.nan) for array in (effect, error))
    present = ~(np.isnan(y) | np.isnan(s))
    n = np.count_nonzero(present, axis=-1).astype(np.int64)
    invalid_se = (present & ~((s > 0) & np.isfinite(s))).any(axis=-1)
    infinite = (present & np.isinf(y)).any(axis=-1)
    status = np.select(
        [n == 0, invalid_se, infinite],
        [MetaStatus.TOO_FEW_STUDIES, MetaStatus.INVALID_STANDARD_ERROR, MetaStatus.INVALID_ESTIMATE],
        MetaStatus.OK,
    )
    present &= (status == MetaStatus.OK)[:, None]
    order = np.argsort(np.where(present, s, np.inf), axis=-1, kind="stable")
    y, s, present = (np.take_along_axis(array, order, axis=-1) for array in (y, s, present))
    exponent = np.where(present[:, 0], np.frexp(np.where(present[:, 0], s[:, 0], 1.0))[1], 0)
    y, s = np.ldexp(y, -exponent[:, None]), np.ldexp(s, -exponent[:, None])
    origin = np.where(present[:, 0], y[:, 0], 0.0)
    y = np.where(present, y - origin[:, None], 0.0)
    unit = np.ldexp(1.0, exponent)
    return Studies(y, np.where(present, s**2, 1.0), present, n, origin, unit), status.astype(np.int64)
