"""Constrained maximum likelihood (cML): likelihoods that leave out the K worst variants, weighed by BIC."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import normal_blocks, packed, row_blocks
from kipoi_deepmr.mr.core.constrained import Paths, coordinate_paths, global_paths
from kipoi_deepmr.mr.core.design import Design, build_two_error_design, largest_exponent
from kipoi_deepmr.mr.core.inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.regression import fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult
from kipoi_deepmr.mr.core.score import ScoreRows

_SEARCHES = {"coordinate": coordinate_paths, "global": global_paths}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CMLResult(CausalResult):
    """Estimates of `cml`; intervals and p-values from the normal distribution.

    Attributes
    ----------
    n_invalid : ndarray of int64, shape (...)
        Number of invalid variants with the lowest BIC.
    invalid : ndarray of bool, shape (..., J)
        These variants.
    estimates, standard_errors, negative_log_likelihood : ndarray of float64, shape (..., K)
        Estimates with 0, 1, ... invalid variants; with perturbation the means over the draws, and for the standard
        errors the standard deviations. NaN beyond n_instruments - 2 invalid variants.
    """

    estimator: str = "cml"
    n_invalid: IntArray
    invalid: BoolArray
    estimates: FloatArray
    standard_errors: FloatArray
    negative_log_likelihood: FloatArray


@np.errstate(all="ignore")
def cml(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    sample_size: float | None = None,
    search: str = "coordinate",
    model_averaging: bool = True,
    max_invalid: int = 60,
    psi: npt.ArrayLike = 0.0,
    n_perturb: int = 0,
    seed: int = 0,
    alpha: float = 0.05,
) -> CMLResult:
    r"""Constrained maximum likelihood: consistent while the valid variants are the largest group of one ratio.

    .. math:: \ell_K = \min_{\theta,\, |V| = J - K} \frac12 \sum_{j \in V} \frac{(y_j - \theta x_j)^2}
              {s_{yj}^2 + \theta^2 s_{xj}^2 - 2 \theta \psi_j s_{xj} s_{yj}}, \qquad
              \mathrm{BIC}_K = K \log n + 2 \ell_K

    The estimate averages over K with weights exp(-BIC / 2), or takes the K of the lowest BIC.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four, or psi, is NaN.
    sample_size : float, optional
        n in the BIC: the price of calling a variant invalid is log n. In genetics the smaller of the two studies;
        effects of a sequence model have no such number, and it should be varied. Default: the number of variants
        of a fit that are present, the smallest price that still leaves a chance deviation among them valid.
    search : {"coordinate", "global"}, default "coordinate"
        ``"coordinate"`` is the published algorithm and gives R's numbers: from 0 it sets invalid variants, true exposure
        effects and slope in turn, up to 100 times. It stops where no one of the three improves, which need not be the
        minimum: its likelihood may get worse with more variants left out. ``"global"`` follows the lowest points of a grid of
        slopes, the ratios of all variants and the slope of ``"coordinate"``, and takes the lowest minimum that it meets:
        never a higher one than ``"coordinate"``, in nearly all cases the lowest of all. It takes several times as long.
    model_averaging : bool, default True
        Average over K, with the standard error of R's cML-MA.
    max_invalid : int, default 60
        Largest K, at most J - 2 (R's default). Time grows with K J: about a second a fit for 60 and J = 3000, and
        n_perturb times that with perturbation.
    psi : array_like, default 0
        Correlation of the two errors of a variant; broadcasts to (..., J).
    n_perturb : int, default 0
        Draws of the data perturbation: estimates, likelihoods and their spread come from data with the errors added
        once more, which counts the choice of the valid variants (R: 200).
    seed : int, default 0
        Seed of the perturbation. All fits of a call see the same standard normal draws.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    CMLResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Xue, Shen and Pan (2021), American Journal of Human Genetics 108:1251.
    """
    _check(sample_size, search, model_averaging, max_invalid, n_perturb, seed)
    check_alpha(alpha)
    data = read_associations(bx, bxse, by, byse)
    shared = np.broadcast_to(read_psi(psi, data.shape), data.shape)
    design, spread = build_two_error_design(data, shared)
    batch, n_variants = data.shape[:-1], data.shape[-1]
    nothing = np.asarray(~(design.x != 0).any(axis=-1))
    held = np.flatnonzero((design.invalid == Status.OK) & ~nothing)
    most = max(0, min(int(max_invalid), n_variants - 2))
    n = design.n_used.reshape(-1, 1).astype(np.float64)
    n = n if sample_size is None else np.full(n.shape, float(sample_size))

    paths = np.full((3, nothing.size, most + 1), np.nan)
    mask = np.zeros((nothing.size, n_variants), dtype=np.bool_)
    chosen = np.zeros(nothing.size, dtype=np.int64)
    rows, correlation, unit = _rows(design, spread, shared, held)
    for block in row_blocks(held.size, n_variants * (most + 1)):
        where = held[block]
        found = _SEARCHES[search](rows[block], most)
        chosen[where] = _best(found.loss, n[where])
        mask[where] = found.invalid[np.arange(where.size), chosen[where]]
        slope, size, loss = found.slope, _size(found), found.loss
        if n_perturb:
            slope, size, loss = _perturbed(rows[block], correlation[block], _SEARCHES[search], most, n_perturb, seed)
        paths[:, where] = slope * unit[block], size * unit[block], loss
    slope, size, loss = paths
    estimate, se = _combine(slope, size, loss, n, model_averaging)
    estimate, se = estimate.reshape(batch), se.reshape(batch)
    status = fit_status(design.invalid, design.n_used, 1, nothing, estimate)
    slope, size, loss = paths.reshape(3, *batch, most + 1)
    return CMLResult(
        **inference(estimate, se, alpha=alpha),
        n_instruments=design.n_instruments,
        n_invalid=chosen.reshape(batch),
        invalid=mask.reshape(data.shape),
        estimates=slope,
        standard_errors=size,
        negative_log_likelihood=loss,
        status=status,
    )


def _check(
    sample_size: float | None, search: str, model_averaging: bool, max_invalid: int, n_perturb: int, seed: int
) -> None:
    check_option("search", search, tuple(_SEARCHES))
    check_option("model_averaging", model_averaging, (True, False))
    if sample_size is not None and (not isinstance(sample_size, Real) or not 1 < sample_size < np.inf):
        raise ValueError(f"sample_size={sample_size!r} must be a number above 1: the n of the BIC")
    for name, value in (("max_invalid", max_invalid), ("n_perturb", n_perturb), ("seed", seed)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name}={value!r} must be an integer of at least 0")
    if n_perturb == 1:
        raise ValueError("n_perturb=1 gives no spread: use 0 or at least 2 draws, for example 200")


def _rows(
    design: Design, spread: FloatArray, psi: FloatArray, held: IntArray
) -> tuple[ScoreRows, FloatArray, FloatArray]:
    """Return fits with a typical slope of 1, the correlations of their errors, and the units (F, 1) of the slopes."""
    shape = math.prod(design.x.shape[:-1]), design.x.shape[-1]
    x, y, v, correlation = (
        np.where(design.used, column, 0.0).reshape(shape)[held] for column in (design.x, design.y, spread, psi)
    )
    used = design.used.reshape(shape)[held]
    unit = _norm(y) / _norm(x)
    unit = np.where((unit > 0) & np.isfinite(unit), unit, 1.0)[:, None]
    x, v = x * unit, v * unit
    return ScoreRows(x, y, v**2, used.astype(np.float64), correlation * v, used), correlation, unit


def _norm(values: FloatArray) -> FloatArray:
    exponent = largest_exponent(values)
    return np.asarray(np.ldexp(np.sqrt((np.ldexp(values, -exponent[:, None]) ** 2).sum(axis=-1)), exponent))


def _size(found: Paths) -> FloatArray:
    """Return standard errors; NaN where the likelihood is not convex."""
    return np.asarray(1 / np.sqrt(np.where(found.information > 0, found.information, np.nan)))


def _best(loss: FloatArray, n: FloatArray) -> IntArray:
    bic = _bic(loss, n)
    return np.asarray(np.argmin(np.where(np.isnan(bic), np.inf, bic), axis=-1), dtype=np.int64)


def _bic(loss: FloatArray, n: FloatArray) -> FloatArray:
    return np.asarray(np.arange(loss.shape[-1]) * np.log(n) + 2 * loss)


def _combine(
    slope: FloatArray, size: FloatArray, loss: FloatArray, n: FloatArray, model_averaging: bool
) -> tuple[FloatArray, FloatArray]:
    if not model_averaging:
        best = _best(loss, n)[:, None]
        return np.take_along_axis(slope, best, axis=-1)[:, 0], np.take_along_axis(size, best, axis=-1)[:, 0]
    bic = _bic(loss, n)
    lowest = np.where(np.isnan(bic), np.inf, bic).min(axis=-1, keepdims=True)
    weight = np.where(np.isnan(bic), 0.0, np.exp(-0.5 * (bic - lowest)))
    weight = weight / weight.sum(axis=-1, keepdims=True)
    estimate = (weight * np.where(weight > 0, slope, 0.0)).sum(axis=-1)
    spread = np.sqrt(size**2 + (slope - estimate[:, None]) ** 2)
    se = (weight * np.where(np.isnan(spread), 0.0, spread)).sum(axis=-1)
    answered = ~np.isnan(slope[:, 0])
    return np.where(answered, estimate, np.nan), np.where(answered & (se > 0), se, np.nan)


def _perturbed(
    rows: ScoreRows,
    correlation: FloatArray,
    search: Callable[[ScoreRows, int], Paths],
    most: int,
    n_perturb: int,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean estimates, their standard deviations and mean likelihoods over data with more noise."""
    columns = (rows.x, rows.y, rows.xx, rows.yy, rows.xy, rows.used.astype(np.float64), correlation)
    x, y, xx, yy, xy, used, correlation = packed(rows.used, *columns)
    rows = ScoreRows(x, y, xx, yy, xy, used > 0)
    slopes, losses = [], []
    for _, block in normal_blocks(n_perturb, 2, rows.x.shape[1], seed):
        for first, second in block:
            outcome = correlation * first + np.sqrt(1 - correlation**2) * second
            moved = replace(rows, x=rows.x + np.sqrt(rows.xx) * first, y=np.where(rows.used, rows.y + outcome, 0.0))
            found = search(moved, most)
            slopes.append(found.slope)
            losses.append(found.loss)
    drawn = np.stack(slopes)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1), np.mean(losses, axis=0)
