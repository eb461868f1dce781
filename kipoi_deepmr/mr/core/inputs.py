"""What every estimator accepts, and the reasons for which it may have no answer."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Status(enum.IntEnum):
    """Why an estimate is NaN. Invalid input comes before too few instruments, and that before no variation.

    Attributes
    ----------
    OK
        The estimate is a number.
    TOO_FEW_INSTRUMENTS
        Fewer instruments with a positive weight than the estimator needs (IVW 1, MR-Egger 3).
    NO_EXPOSURE_VARIATION
        The exposure effects carry no information: all zero (IVW) or all of one size (MR-Egger).
    INVALID_STANDARD_ERROR
        A standard error is negative, the variance of an outcome effect is zero, or the error of an exposure effect
        is infinite where it enters the estimate.
    INVALID_EFFECT
        An effect is infinite.
    INVALID_CORRELATION
        The correlation matrix of the instruments is not finite, symmetric and positive definite.
    NOT_FINITE
        The arithmetic overflowed: the effects or standard errors are outside the range of float64 squares.
    TOO_FEW_DRAWS
        Fewer draws than cross-fitting needs: 3, and 4 where weights, signs or instruments come from held-out draws.
    WEAK_INSTRUMENTS
        The exposure effects cannot be told from their errors: the debiased denominator is not positive at the
        two-sided level 0.05.
    NOT_CONVERGED
        The equations of the estimator were not solved from any start (RAPS with over-dispersion).
    """

    OK = 0
    TOO_FEW_INSTRUMENTS = 1
    NO_EXPOSURE_VARIATION = 2
    INVALID_STANDARD_ERROR = 3
    INVALID_EFFECT = 4
    INVALID_CORRELATION = 5
    NOT_FINITE = 6
    TOO_FEW_DRAWS = 7
    WEAK_INSTRUMENTS = 8
    NOT_CONVERGED = 9


@dataclass(frozen=True, eq=False)
class Associations:
    """Effects and standard errors of J variants, broadcast to one shape (..., J)."""

    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape (..., J)."""
        return self.bx.shape


def read_array(name: str, value: npt.ArrayLike) -> FloatArray:
    """Return `value` as float64, NaN where a mask hides it, or say which argument is not numeric."""
    given: npt.NDArray[Any] = np.asarray(value)
    if given.dtype.kind not in "buif":
        raise ValueError(f"{name} must be an array of real numbers, not of dtype {given.dtype}")
    numbers = given.astype(np.float64, copy=False)
    return np.where(np.ma.getmaskarray(value), np.nan, numbers) if np.ma.isMaskedArray(value) else numbers


def read_variants(**values: npt.ArrayLike) -> tuple[FloatArray, ...]:
    """Return the named arrays as float64 of one shape (..., J): leading axes broadcast, the last must agree."""
    arrays = {name: read_array(name, value) for name, value in values.items()}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if any(array.ndim == 0 for array in arrays.values()):
        raise ValueError(f"arrays must have shape (..., J) with the variants on the last axis; got {shapes}")
    if len({array.shape[-1] for array in arrays.values()}) > 1:
        raise ValueError(f"the last axis must have one length J, the number of variants; got {shapes}")
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError as error:
        raise ValueError(f"the leading axes do not broadcast against one another; got {shapes}") from error


def read_associations(bx: npt.ArrayLike, bxse: npt.ArrayLike, by: npt.ArrayLike, byse: npt.ArrayLike) -> Associations:
    """Return the four arrays of a two-sample summary as `Associations`."""
    return Associations(*read_variants(bx=bx, bxse=bxse, by=by, byse=byse))


def read_psi(psi: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """Return the correlation of the two errors of a variant, checked to lie in [-1, 1] and to fit `shape`."""
    array = read_array("psi", psi)
    if np.any(np.abs(array) > 1 + 1e-9):
        raise ValueError("psi is a correlation: it must lie in [-1, 1]")
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"psi of shape {array.shape} does not broadcast to the shape (..., J) = {shape} of the effects; "
            "one value per fit needs a last axis of length 1"
        )
    return array


def check_option(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise ValueError naming the allowed values when `value` is none of them."""
    choices = tuple(allowed)
    if not isinstance(value, (str, bool, np.bool_)) or value not in choices:
        raise ValueError(f"{name}={value!r} is not known; allowed are {', '.join(map(repr, choices))}")


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless `alpha` is a number between 0 and 1."""
    if not isinstance(alpha, Real) or not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r} must be a number between 0 and 1, for example 0.05 for 95% intervals")
