"""Direction by Steiger: whether the instruments explain more of the exposure or of the outcome."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.inputs import (
    Associations,
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_option,
    read_array,
    read_associations,
)
from kipoi_deepmr.mr.core.result import Result

_CONVENTIONS = ("f", "p")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Steiger(Result):
    """Variance explained by all instruments together, and the direction it speaks for.

    Attributes
    ----------
    r2_exposure, r2_outcome : ndarray of float64, shape (...)
        Sums of the instruments' squared correlations, divided by the squared reliabilities.
    direction : ndarray of int64, shape (...)
        1 where the exposure is explained better (exposure to outcome), -1 where the outcome is, 0 where neither is or
        nothing is known.
    z, pvalue : ndarray of float64, shape (...)
        Test that both are explained equally well, z > 0 for the exposure; NaN where a sum of r2 is 1 or more.
    sensitivity_ratio : ndarray of float64, shape (...)
        Over all reliabilities of measurement of both traits that are possible given the r2: the volume for which
        `direction` stays over the volume for which it turns.
    n_instruments : ndarray of int64, shape (...)
        Variants that are present.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the r2 are NaN.
    """

    r2_exposure: FloatArray
    r2_outcome: FloatArray
    direction: IntArray
    z: FloatArray
    pvalue: FloatArray
    sensitivity_ratio: FloatArray
    n_instruments: IntArray
    status: IntArray


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SteigerFilter(Result):
    """Steiger's test of each instrument; all arrays have shape (..., J) and are NaN (False) where it is absent.

    Attributes
    ----------
    r2_exposure, r2_outcome : ndarray of float64
        Squared correlations of the instrument with exposure and outcome.
    keep : ndarray of bool
        Whether it explains more of the exposure.
    z, pvalue : ndarray of float64
        Test that it explains both equally well, z > 0 for the exposure.
    """

    _axis: ClassVar[str] = "instrument"

    r2_exposure: FloatArray
    r2_outcome: FloatArray
    keep: BoolArray
    z: FloatArray
    pvalue: FloatArray


@np.errstate(all="ignore")
def steiger(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    n_exposure: npt.ArrayLike,
    n_outcome: npt.ArrayLike,
    convention: str = "f",
    reliability_exposure: float = 1.0,
    reliability_outcome: float = 1.0,
) -> Steiger:
    r"""Test whether the instruments together explain more of the exposure or of the outcome.

    .. math:: r_j^2 = F_j / (n - 2 + F_j), \qquad
              z = \frac{\operatorname{artanh} r_x - \operatorname{artanh} r_y}{\sqrt{1/(n_x - 3) + 1/(n_y - 3)}},
              \qquad r^2 = \sum_j r_j^2

    The test takes the instruments, and the errors of exposure and outcome, as independent. Effects read off one
    network are neither, and its trunk has no arrow from one head to another: read the direction as "model-implied".

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant is absent where one of the four is NaN.
    n_exposure, n_outcome : array_like
        Number of observations behind the effects, broadcast to (..., J): the sample size of a study; with Monte-Carlo
        standard errors the number of draws.
    convention : {"f", "p"}, default "f"
        F = (effect / se)^2, as in TwoSampleMR's steiger_filtering, or F with the same p-value on (1, n - 1) degrees
        of freedom as the z statistic, as in its directionality_test. There a p-value of 0 (|z| > 38) loses the
        instrument, the strongest of all; here F = z^2 takes its place.
    reliability_exposure, reliability_outcome : float in (0, 1], default 1
        Correlation of the measured with the true trait (TwoSampleMR's r_xxo, r_yyo).

    Returns
    -------
    Steiger
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, an option that is not known, or sample sizes of 3 or less.

    References
    ----------
    Steiger (1980), Psychological Bulletin 87:245; Hemani, Tilling and Davey Smith (2017), PLoS Genetics 13:e1007081.
    """
    for name, value in (("reliability_exposure", reliability_exposure), ("reliability_outcome", reliability_outcome)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}={value!r} is a correlation: it must lie in (0, 1]")
    data = read_associations(bx, bxse, by, byse)
    sizes = _sample_sizes(data.shape, n_exposure=n_exposure, n_outcome=n_outcome)
    present = _present(data)
    n = np.count_nonzero(present, axis=-1)
    r2_x, r2_y = _explained(data, present, sizes, convention)
    sums = (np.sum(r2, axis=-1, where=present) for r2 in (r2_x, r2_y))
    status = _status(data, present)
    total_x, total_y = (np.where(status == Status.OK, total, np.nan) for total in sums)
    adjusted_x, adjusted_y = total_x / reliability_exposure**2, total_y / reliability_outcome**2
    mean_sizes = [np.sum(size, axis=-1, where=present) / n for size in sizes]
    z = _steiger_z(adjusted_x, adjusted_y, *mean_sizes)
    direction = np.nan_to_num(np.sign(adjusted_x - adjusted_y))
    return Steiger(
        r2_exposure=adjusted_x,
        r2_outcome=adjusted_y,
        direction=direction.astype(np.int64),
        z=z,
        pvalue=np.asarray(2 * special.ndtr(-np.abs(z))),
        sensitivity_ratio=_sensitivity_ratio(np.sqrt(total_x), np.sqrt(total_y)),
        n_instruments=n.astype(np.int64),
        status=status,
    )


@np.errstate(all="ignore")
def steiger_filter(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    n_exposure: npt.ArrayLike,
    n_outcome: npt.ArrayLike,
    convention: str = "f",
) -> SteigerFilter:
    """Test of each instrument whether it explains more of the exposure or of the outcome.

    Selecting by `keep` and then estimating is a selection on the outcome: it pulls the estimate towards smaller
    effects of the exposure on the outcome.

    Parameters
    ----------
    bx, bxse, by, byse, n_exposure, n_outcome, convention
        As in `steiger`.

    Returns
    -------
    SteigerFilter
        Arrays of shape (..., J).

    Raises
    ------
    ValueError
        As in `steiger`.

    References
    ----------
    Hemani, Tilling and Davey Smith (2017), PLoS Genetics 13:e1007081.
    """
    data = read_associations(bx, bxse, by, byse)
    sizes = _sample_sizes(data.shape, n_exposure=n_exposure, n_outcome=n_outcome)
    present = _present(data)
    r2_x, r2_y = _explained(data, present, sizes, convention)
    z = _steiger_z(r2_x, r2_y, *sizes)
    return SteigerFilter(
        r2_exposure=r2_x, r2_outcome=r2_y, keep=r2_x > r2_y, z=z, pvalue=np.asarray(2 * special.ndtr(-np.abs(z)))
    )


def _sample_sizes(shape: tuple[int, ...], **given: npt.ArrayLike) -> list[FloatArray]:
    sizes = []
    for name, value in given.items():
        array = read_array(name, value)
        if np.any(array <= 3):
            raise ValueError(
                f"{name} must be more than 3 observations for a correlation to have an error; got {value!r}"
            )
        try:
            sizes.append(np.broadcast_to(array, shape))
        except ValueError as error:
            raise ValueError(
                f"{name} of shape {array.shape} does not broadcast to the shape (..., J) = {shape}; "
                "one value per fit needs a last axis of length 1"
            ) from error
    return sizes


def _present(data: Associations) -> BoolArray:
    columns = (data.bx, data.bxse, data.by, data.byse)
    return np.asarray(~np.isnan(np.stack(columns)).any(axis=0), dtype=np.bool_)


def _status(data: Associations, present: BoolArray) -> IntArray:
    undefined = (data.bxse < 0) | (data.byse < 0) | ((data.bx == 0) & (data.bxse == 0))
    undefined |= (data.by == 0) & (data.byse == 0)
    infinite = np.isinf(data.bx) | np.isinf(data.by)
    conditions = [
        (present & undefined).any(axis=-1),
        (present & infinite).any(axis=-1),
        ~present.any(axis=-1),
    ]
    codes = [Status.INVALID_STANDARD_ERROR, Status.INVALID_EFFECT, Status.TOO_FEW_INSTRUMENTS]
    return np.asarray(np.select(conditions, codes, Status.OK), dtype=np.int64)


def _explained(
    data: Associations, present: BoolArray, sizes: list[FloatArray], convention: str
) -> tuple[FloatArray, FloatArray]:
    check_option("convention", convention, _CONVENTIONS)
    pairs = zip(((data.bx, data.bxse), (data.by, data.byse)), sizes, strict=True)
    first, second = (
        np.where(present, _squared_correlation(np.abs(effect / se), n, convention), np.nan) for (effect, se), n in pairs
    )
    return first, second


def _squared_correlation(z: FloatArray, n: FloatArray, convention: str) -> FloatArray:
    """Return 1 - (n - 2) / (n - 2 + F), which an infinite F does not make NaN."""
    inverse = 1 / z**2
    if convention == "p":
        p = 2 * special.ndtr(-z)
        share, rest = special.betainccinv(0.5, (n - 1) / 2, p), special.betaincinv((n - 1) / 2, 0.5, p)
        inverse = np.where(p > 0, rest / share / (n - 1), inverse)
    return np.asarray(1 / (1 + (n - 2) * inverse))


def _steiger_z(r2_x: FloatArray, r2_y: FloatArray, n_x: FloatArray, n_y: FloatArray) -> FloatArray:
    difference = np.arctanh(np.sqrt(r2_x)) - np.arctanh(np.sqrt(r2_y))
    z = difference / np.sqrt(1 / (n_x - 3) + 1 / (n_y - 3))
    return np.where((r2_x < 1) & (r2_y < 1), z, np.nan)


def _sensitivity_ratio(r_x: FloatArray, r_y: FloatArray) -> FloatArray:
    a, b = np.maximum(r_x, r_y), np.minimum(r_x, r_y)
    net = special.xlogy(a, a) - special.xlogy(b, b) + a * (special.xlogy(b, b) - b * np.log(a))
    turned = 2 * a * b - 2 * b - b * np.log(a) - a * b * np.log(a)
    return np.asarray(np.abs(net - turned) / turned)
