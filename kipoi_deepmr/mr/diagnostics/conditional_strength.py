"""How strongly the instruments predict one exposure beside the others."""

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, read_array


@np.errstate(all="ignore")
def conditional_f(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    *,
    exposure_correlation: npt.ArrayLike | None = None,
    where: npt.ArrayLike = True,
) -> FloatArray:
    r"""Conditional F statistic of each exposure of multivariable Mendelian randomization.

    .. math:: F_k = \frac{1}{J} \sum_j \frac{(x_{kj} - \sum_{l \ne k} \hat\delta_l x_{lj})^2}{t' S_j t}

    with :math:`\hat\delta` from the unweighted regression of the exposure on the others, :math:`S_j` the covariance of
    a variant's errors and t = 1 for the exposure and :math:`-\hat\delta_l` for the others: the form of R's
    `MVMR::strength_mvmr`. With one exposure it is the mean F statistic.

    Parameters
    ----------
    bx, bxse : array_like, shape (..., K, J)
        Effects of J variants on K exposures and their standard errors; leading axes broadcast. A variant with a NaN
        is absent.
    exposure_correlation : array_like, shape (..., K, K), optional
        Correlation of the errors of the exposures, the same for all variants; by default they are independent.
    where : array_like of bool, shape (..., J), optional
        The variants to use; by default all.

    Returns
    -------
    ndarray of float64, shape (..., K)
        NaN with fewer than K instruments, and where the other exposures are collinear; infinite where the errors
        are 0.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    Notes
    -----
    R's MendelianRandomization reports another statistic, the minimum of the same sum over t. That minimum is one
    number for all exposures, as the sum does not depend on the length of t; the different numbers in R are where its
    search, which has the gradient of another function, comes to a halt. It is not offered here.

    References
    ----------
    Sanderson, Spiller and Bowden (2021), Statistics in Medicine 40:5434.
    """
    x, se = read_array("bx", bx), read_array("bxse", bxse)
    if x.ndim < 2 or se.ndim < 2 or x.shape[-2:] != se.shape[-2:]:
        raise ValueError(f"bx and bxse must have shape (..., K, J) with the same K and J; got {x.shape} and {se.shape}")
    x, se = np.broadcast_arrays(x, se)
    n_exposures = x.shape[-2]
    given = (
        np.eye(n_exposures)
        if exposure_correlation is None
        else read_array("exposure_correlation", exposure_correlation)
    )
    if given.shape[-2:] != (n_exposures, n_exposures):
        raise ValueError(f"exposure_correlation must have shape (..., K, K) with K = {n_exposures}; got {given.shape}")
    whole = ~(np.isnan(x) | np.isnan(se)).any(axis=-2)
    chosen = np.logical_and(whole, np.asarray(where, dtype=np.bool_))
    present = np.broadcast_to(chosen, (*x.shape[:-2], x.shape[-1]))
    columns = np.where(present[..., None, :], x, 0.0)
    errors = np.where(present[..., None, :], se, 0.0)
    return np.stack([_strength(columns, errors, given, present, k) for k in range(n_exposures)], axis=-1)


def _strength(x: FloatArray, se: FloatArray, correlation: FloatArray, present: BoolArray, k: int) -> FloatArray:
    others = np.delete(x, k, axis=-2)
    contrast = np.concatenate([np.ones((*x.shape[:-2], 1)), -_regressed(x[..., k, :], others)], axis=-1)
    order = [k, *(index for index in range(x.shape[-2]) if index != k)]
    residual = np.einsum("...k,...kj->...j", contrast, x[..., order, :])
    spread = contrast[..., None] * se[..., order, :]
    variance = np.einsum("...kj,...kl,...lj->...j", spread, correlation[..., order, :][..., order], spread)
    share = np.where(present, residual**2 / variance, 0.0).sum(axis=-1)
    count = np.count_nonzero(present, axis=-1)
    return np.asarray(np.where(count >= x.shape[-2], share / count, np.nan), dtype=np.float64)


def _regressed(y: FloatArray, columns: FloatArray) -> FloatArray:
    """Return the least-squares coefficients of y (..., J) on columns (..., P, J), NaN where these are collinear."""
    size = np.sqrt(np.einsum("...pj,...pj->...p", columns, columns))
    scaled = columns / np.where(size > 0, size, 1.0)[..., None]
    normal = scaled @ np.swapaxes(scaled, -1, -2)
    # A NaN, of an infinite effect, is not above the limit.
    sound = np.asarray(np.linalg.det(normal) > 1e-13)
    safe = np.where(sound[..., None, None], normal, np.eye(columns.shape[-2]))
    solved = np.linalg.solve(safe, np.einsum("...pj,...j->...p", scaled, y)[..., None])[..., 0]
    return np.asarray(np.where(sound[..., None], solved / np.where(size > 0, size, 1.0), np.nan), dtype=np.float64)
