"""Which mutations of a sequence serve as instruments."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Instruments:
    """Summary data of instruments, ready for `kipoi_deepmr.mr`.

    Attributes
    ----------
    bx, bxse : numpy.ndarray, shape=(exposure, 1, sequence, variant), float64
        Effects on the exposure and their standard errors; NaN where a variant is no instrument.
    by, byse : numpy.ndarray, shape=(exposure, outcome, sequence, variant), float64
        Effects on the outcome and their standard errors.
    n_weak : numpy.ndarray, shape=(exposure, 1, sequence), int64
        Variants left out because (effect / SE)^2 of the exposure is below the minimum.
    n_without_error : numpy.ndarray, shape=(exposure, outcome, sequence), int64
        Variants left out because an effect has a standard error of zero: no draw of the network sees the mutation, so
        there is no error to weigh it by.
    """

    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray
    n_weak: NDArray[np.int64]
    n_without_error: NDArray[np.int64]


def select(
    bx: FloatArray, bxse: FloatArray, by: FloatArray, byse: FloatArray, bound: NDArray[np.bool_], min_f: float = 0.0
) -> Instruments:
    """Choose the instruments of each exposure, outcome and sequence.

    Parameters
    ----------
    bx, bxse
        Effects on the exposures and their standard errors, shape (exposure, sequence, position, allele); NaN at the
        reference allele and at N.
    by, byse
        Likewise for the outcomes, shape (outcome, sequence, position, allele).
    bound
        Which sequences count for which exposure, shape (exposure, sequence).
    min_f
        Smallest (effect / SE)^2 of the exposure. Default 0: all mutations.

    Returns
    -------
    Instruments
    """
    bx, bxse = (array.reshape(*array.shape[:2], -1)[:, None].astype(np.float64) for array in (bx, bxse))
    by, byse = (array.reshape(*array.shape[:2], -1)[None].astype(np.float64) for array in (by, byse))
    known = np.isfinite(bx) & np.isfinite(bxse) & bound[:, None, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        strong = (bxse == 0) | ((bx / bxse) ** 2 >= min_f)
    with_error = (bxse > 0) & (byse > 0)
    use = known & strong & with_error & np.isfinite(by)
    shape = use.shape
    return Instruments(
        bx=np.where(use, bx, np.nan),
        bxse=np.where(use, bxse, np.nan),
        by=np.where(use, np.broadcast_to(by, shape), np.nan),
        byse=np.where(use, np.broadcast_to(byse, shape), np.nan),
        n_weak=(known & ~strong).sum(-1),
        n_without_error=(known & strong & ~with_error).sum(-1),
    )
