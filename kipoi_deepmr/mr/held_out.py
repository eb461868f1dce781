"""Draws in folds: what the draws outside a fold say about the instruments."""

import itertools
import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, read_array

# A variance this far below the mean square is what is left of rounding.
_ROUNDING = 1e-13


@np.errstate(all="ignore")
def held_out_selection(draws: npt.ArrayLike, *, min_f: float, folds: int = 5) -> BoolArray:
    r"""Choose the instruments of every fold of the draws by the draws outside it.

    .. math:: F_{jk} = N \bar x_{j,-k}^2 / s_{j,-k}^2 \ge F_{\min},

    with mean and variance (ddof 1) over the N - N_k draws outside fold k: what these tell of the F statistic of the mean
    over all N draws. Instruments that are chosen and used on the
    same draws look stronger than they are (winner's curse): the errors that carried them over the threshold point
    away from zero. Given the choice of the other draws, the errors of the draws of fold k have mean zero.

    Parameters
    ----------
    draws : array_like, shape (..., N, J)
        Effects on the exposure of N draws of J variants, N independent and identically distributed draws on the
        axis before the last. A variant is absent where a draw is NaN.
    min_f : float
        Smallest F of an instrument, at least 0, for the error of the mean over all draws (Monte-Carlo error), whatever
        `effects.standard_error` says.
    folds : int, default 5
        Number K of folds, consecutive draws of about equal number; at most N.

    Returns
    -------
    ndarray of bool, shape (..., min(K, N), J)
        Whether a variant is an instrument in fold k; draw n belongs to fold k where
        ``bounds[k] <= n < bounds[k + 1]`` with ``bounds = np.linspace(0, N, K + 1).astype(int)``. All False where fewer
        than two draws are outside the fold. A variant whose effect is the same in all draws outside the fold and is
        not zero is chosen.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option out of its range.

    References
    ----------
    Zhao et al. (2019), International Journal of Epidemiology 48:1478 (selection in a third sample); Ma, Wang and Wu
    (2023), Annals of Statistics 51:211 (winner's curse of selected instruments).
    """
    check_folds(folds, smallest=2)
    check_min_f(min_f)
    values = read_array("draws", draws)
    if values.ndim < 2:
        raise ValueError(f"draws must have shape (..., N, J) with N draws of J variants; got {values.shape}")
    batch, (n_draws, variants) = values.shape[:-2], values.shape[-2:]
    present = np.asarray(np.isfinite(values).all(axis=-2))
    flat = np.where(present[..., None, :], values, 0.0).reshape(math.prod(batch), n_draws, variants)
    held_out = HeldOut.of(flat, folds)
    count = len(held_out.bounds)
    chosen = np.zeros((flat.shape[0], count, variants), dtype=np.bool_)
    for fold, (first, last) in enumerate(held_out.bounds):
        if n_draws - (last - first) >= 2:
            chosen[:, fold] = held_out.f_outside(fold) >= min_f
    return chosen.reshape(*batch, count, variants) & present[..., None, :]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """First two moments of every fold of the draws, so that those of any other draws are a subtraction."""

    bounds: tuple[tuple[int, int], ...]
    origin: FloatArray
    total: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, draws: FloatArray, folds: int) -> "HeldOut":
        """Sum draws of shape (fits, N, J) over each fold."""
        bounds = fold_bounds(draws.shape[1], folds)
        # Counting from the first draw makes equal draws equal zeros, which a mean would not.
        origin = draws[:, :1]
        moved = draws - origin
        total = np.stack([moved[:, first:last].sum(axis=1) for first, last in bounds], axis=1)
        squares = np.stack([np.square(moved[:, first:last]).sum(axis=1) for first, last in bounds], axis=1)
        return cls(bounds, origin[:, 0], total, squares)

    def outside(self, *folds: int) -> tuple[int, FloatArray, FloatArray]:
        """Return the number of draws outside some folds, and the mean and the variance (ddof 1) over them."""
        kept = [index for index in range(len(self.bounds)) if index not in folds]
        count = sum(self.bounds[index][1] - self.bounds[index][0] for index in kept)
        mean = self.total[:, kept].sum(axis=1) / count
        square = self.squares[:, kept].sum(axis=1) / count
        variance = square - mean**2
        variance = np.where(variance > _ROUNDING * square, variance, 0.0) * count / max(count - 1, 1)
        return count, self.origin + mean, variance

    def f_outside(self, *folds: int) -> FloatArray:
        """Return the F statistic of the mean over all draws, as those outside some folds tell it; infinite without error."""
        _, mean, variance = self.outside(*folds)
        return np.asarray(self.bounds[-1][1] * mean**2 / variance)


def fold_bounds(draws: int, folds: int) -> tuple[tuple[int, int], ...]:
    """Return first and last + 1 draw of each fold; there are never more folds than draws."""
    ends = np.linspace(0, draws, min(folds, draws) + 1).astype(int)
    return tuple(itertools.pairwise(ends.tolist()))


def check_folds(folds: int, *, smallest: int) -> None:
    """Raise ValueError unless `folds` is an integer of at least `smallest`."""
    if not isinstance(folds, Integral) or isinstance(folds, bool) or folds < smallest:
        raise ValueError(f"folds={folds!r} must be an integer of at least {smallest}")


def check_min_f(min_f: float) -> None:
    """Raise ValueError unless `min_f` is a number of at least 0."""
    if not isinstance(min_f, Real) or isinstance(min_f, bool) or not min_f >= 0:
        raise ValueError(f"min_f={min_f!r} must be a number of at least 0")
