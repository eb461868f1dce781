"""Strength of the instruments and dilution of MR-Egger; public as `mr.diagnostics`."""

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import where_used
from kipoi_deepmr.mr.core.inputs import FloatArray, read_variants
from kipoi_deepmr.mr.core.regression import dot


@np.errstate(all="ignore")
def f_statistics(bx: npt.ArrayLike, bxse: npt.ArrayLike) -> FloatArray:
    """F statistic of each instrument, (bx / bxse)^2.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale.

    Returns
    -------
    ndarray of float64, shape (..., J)
        NaN where an input is NaN and where both are 0; infinite where only bxse is 0.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    effect, se = read_variants(bx=bx, bxse=bxse)
    return np.asarray((effect / se) ** 2)


@np.errstate(all="ignore")
def mean_f_statistic(bx: npt.ArrayLike, bxse: npt.ArrayLike, *, where: npt.ArrayLike = True) -> FloatArray:
    """Mean F statistic over the instruments for which it is defined.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale.
    where : array_like of bool, shape (..., J), optional
        The instruments to use; by default all that are not NaN.

    Returns
    -------
    ndarray of float64, shape (...)
        NaN where no instrument has an F statistic; infinite where a bxse is 0 and its bx is not.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    effect, se = read_variants(bx=bx, bxse=bxse)
    z = effect / se
    defined = ~np.isnan(z) & np.asarray(where, dtype=np.bool_)
    z = where_used(z, defined)
    return np.asarray(dot(z, z) / np.count_nonzero(defined, axis=-1), dtype=np.float64)


@np.errstate(all="ignore")
def i2_gx(
    bx: npt.ArrayLike, bxse: npt.ArrayLike, byse: npt.ArrayLike | None = None, *, where: npt.ArrayLike = True
) -> FloatArray:
    r"""Share of the variation of the exposure effects that is not error: 1 - I2_GX is the dilution of MR-Egger.

    .. math:: I^2_{GX} = \max(0, (Q - (J - 1)) / Q), \qquad Q = \sum_j (x_j - \bar x)^2 / s_j^2

    Parameters
    ----------
    bx, bxse : array_like, shape (..., J)
        Effects on the exposure and their standard errors, on one scale; the sign of bx is not used.
    byse : array_like, shape (..., J), optional
        With it the weighted form, which MR-Egger with weights 1/byse^2 calls for: x = |bx| / byse, s = bxse / byse.
        Without it the unweighted form: x = |bx|, s = bxse.
    where : array_like of bool, shape (..., J), optional
        The instruments to use; by default all that are not NaN.

    Returns
    -------
    ndarray of float64, shape (...)
        A fraction in [0, 1]. NaN with fewer than two instruments and where a bxse is 0.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    Bowden et al. (2016), International Journal of Epidemiology 45:1961.
    """
    if byse is None:
        effect, se = read_variants(bx=bx, bxse=bxse)
        unit = np.ones((1,) * effect.ndim)
    else:
        effect, se, unit = read_variants(bx=bx, bxse=bxse, byse=byse)
    present = ~(np.isnan(effect) | np.isnan(se) | np.isnan(unit)) & np.asarray(where, dtype=np.bool_)
    # |bx| / byse and bxse / byse enter only as their ratio and as 1 / (bxse / byse).
    scaled = where_used(np.abs(effect) / se, present)
    scale = where_used(np.broadcast_to(unit / se, present.shape), present)
    mean = dot(scaled, scale) / dot(scale, scale)
    residual = scale * -mean[..., None]
    residual += scaled
    count = np.count_nonzero(present, axis=-1)
    return np.where(count > 1, excess_heterogeneity(dot(residual, residual), count - 1), np.nan)


def excess_heterogeneity(q: FloatArray, df: npt.NDArray[np.int64]) -> FloatArray:
    """Return max(0, (q - df) / q), the share of a heterogeneity statistic that is not error."""
    share = np.where(q > 0, (q - df) / q, np.where(q == 0, 0.0, np.nan))
    return np.maximum(share, 0)
