"""Which mutations of a sequence serve as instruments."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Instruments:
    """Summary data of instruments, ready for `kipoi_deepmr.mr`.

    Attributes
    ----------
    bx, bxse, by, byse : numpy.ndarray, shape=(..., variant), float64
        Effects on the exposure and the outcome and their standard errors; all four NaN where a variant is no
        instrument.
    n_weak : numpy.ndarray, shape=(...), int64
        Variants left out because (effect / SE)^2 of the exposure is below the minimum.
    n_without_error : numpy.ndarray, shape=(...), int64
        Variants left out because an effect has a standard error of zero: all draws agree, often that the mutation
        changes nothing, and there is no error to weigh it by.
    """

    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray
    n_weak: NDArray[np.int64]
    n_without_error: NDArray[np.int64]


def select(bx: ArrayLike, bxse: ArrayLike, by: ArrayLike, byse: ArrayLike, *, min_f: float = 0.0) -> Instruments:
    """Choose the instruments.

    Parameters
    ----------
    bx, bxse
        Effects on the exposure and their standard errors, shape (..., variant); NaN where there is no mutation.
    by, byse
        Likewise for the outcome; the shapes are broadcast against each other.
    min_f
        Smallest (effect / SE)^2 of the exposure. Default 0: all mutations.

    Returns
    -------
    Instruments
    """
    arrays = np.broadcast_arrays(*(np.asarray(array, dtype=np.float64) for array in (bx, bxse, by, byse)))
    known = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    exposure_effect, exposure_se, _, outcome_se = arrays
    with_error = known & (exposure_se > 0) & (outcome_se > 0)
    with np.errstate(over="ignore"):  # an effect without practical error is as strong as can be
        strength = np.divide(exposure_effect, exposure_se, out=np.zeros(known.shape), where=with_error) ** 2
    use = with_error & (strength >= min_f)
    kept_bx, kept_bxse, kept_by, kept_byse = (np.where(use, array, np.nan) for array in arrays)
    return Instruments(
        kept_bx,
        kept_bxse,
        kept_by,
        kept_byse,
        n_weak=(with_error & ~use).sum(-1),
        n_without_error=(known & ~with_error).sum(-1),
    )
