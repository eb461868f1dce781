"""Constrained maximum likelihood (cML): likelihoods that leave out the K worst variants, weighed by BIC."""

from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr._blocks import row_blocks
from kipoi_deepmr.mr._design import build_two_error_design
from kipoi_deepmr.mr._inputs import (
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr._losses import LOSSES
from kipoi_deepmr.mr._regression import fit_status, interval, pvalue
from kipoi_deepmr.mr._score import ScoreRows
from kipoi_deepmr.mr._slopes import candidate_slopes, descend, polish

_L2 = LOSSES["l2"]
# Wells of the trimmed likelihood that are searched for each number of invalid variants, and the steps of a search.
_WELLS, _ROUNDS = 3, 50


@dataclass(frozen=True, eq=False)
class CMLResult:
    """Estimates of `cml`, one for each leading index of the input.

    Attributes
    ----------
    estimate, se : ndarray of float64, shape (...)
        Causal effect (outcome units per exposure unit) and its standard error.
    ci_low, ci_high, pvalue : ndarray of float64, shape (...)
        Interval at level 1 - alpha and two-sided p-value, from the normal distribution.
    n_instruments : ndarray of int64, shape (...)
        Variants that are present.
    n_invalid : ndarray of int64, shape (...)
        Number of invalid variants with the lowest BIC.
    invalid : ndarray of bool, shape (..., J)
        These variants.
    estimates, standard_errors, negative_log_likelihood : ndarray of float64, shape (..., K)
        Estimates with 0, 1, ... invalid variants; with perturbation the means over the draws, and for the standard
        errors the standard deviations. NaN beyond n_instruments - 2 invalid variants.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the estimate is NaN.
    """

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    n_instruments: IntArray
    n_invalid: IntArray
    invalid: BoolArray
    estimates: FloatArray
    standard_errors: FloatArray
    negative_log_likelihood: FloatArray
    status: IntArray


@np.errstate(all="ignore")
def cml(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    sample_size: float,
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

    Minima are searched over the whole line and all sets V. (R's `mr_cML` descends from 0 by coordinates: its
    likelihood may get worse with more variants left out.) The estimate averages over K with weights exp(-BIC / 2),
    or takes the K of the lowest BIC.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four, or psi, is NaN.
    sample_size : float
        n in the BIC: the price of calling a variant invalid is log n. In genetics the smaller of the two studies;
        effects of a sequence model have no such number, and it should be varied.
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
    _check(sample_size, model_averaging, max_invalid, n_perturb, seed)
    check_alpha(alpha)
    data = read_associations(bx, bxse, by, byse)
    shared = np.broadcast_to(read_psi(psi, data.shape), data.shape)
    design, spread = build_two_error_design(data, shared)
    batch, n_variants = data.shape[:-1], data.shape[-1]
    nothing = np.asarray(~(design.x != 0).any(axis=-1))
    held = np.flatnonzero((design.invalid == Status.OK) & ~nothing)
    most = max(0, min(int(max_invalid), n_variants - 2))

    paths = np.full((3, nothing.size, most + 1), np.nan)
    mask = np.zeros((nothing.size, n_variants), dtype=np.bool_)
    chosen = np.zeros(nothing.size, dtype=np.int64)
    if held.size:
        x, y, scaled, correlation = (
            np.where(design.used, column, 0.0).reshape(-1, n_variants)[held]
            for column in (design.x, design.y, spread, shared)
        )
        used = design.used.reshape(-1, n_variants)[held]
        unit = np.sqrt((y**2).sum(axis=-1) / (x**2).sum(axis=-1))
        unit = np.where((unit > 0) & np.isfinite(unit), unit, 1.0)[:, None]
        x, scaled = x * unit, scaled * unit
        rows = ScoreRows(x, y, scaled**2, used.astype(np.float64), correlation * scaled, used)
        for block in row_blocks(held.size, n_variants):
            part, where = rows[block], held[block]
            slope, loss, information = _paths(part, most)
            size = 1 / np.sqrt(np.where(information > 0, information, np.nan))
            best = _best(loss, sample_size)
            chosen[where] = best
            at_best = slope[np.arange(best.size), best]
            mask[where] = part.used & ~_smallest(part, at_best, np.count_nonzero(part.used, axis=-1) - best)
            if n_perturb:
                slope, size, loss = _perturbed(part, correlation[block], scaled[block], most, n_perturb, seed)
            paths[:, where] = slope * unit[block], size * unit[block], loss
    slope, size, loss = paths
    estimate, se = _combine(slope, size, loss, sample_size, model_averaging)
    estimate, se = estimate.reshape(batch), se.reshape(batch)
    status = fit_status(design.invalid, design.n_used, 1, nothing, estimate)
    ci_low, ci_high = interval(estimate, se, alpha=alpha)
    slope, size, loss = paths.reshape(3, *batch, most + 1)
    return CMLResult(
        estimate=estimate,
        se=se,
        ci_low=np.asarray(ci_low),
        ci_high=np.asarray(ci_high),
        pvalue=np.asarray(pvalue(estimate, se)),
        n_instruments=design.n_instruments,
        n_invalid=chosen.reshape(batch),
        invalid=mask.reshape(data.shape),
        estimates=slope,
        standard_errors=size,
        negative_log_likelihood=loss,
        status=status,
    )


def _check(sample_size: float, model_averaging: bool, max_invalid: int, n_perturb: int, seed: int) -> None:
    check_option("model_averaging", model_averaging, (True, False))
    if not isinstance(sample_size, Real) or not 1 < sample_size < np.inf:
        raise ValueError(f"sample_size={sample_size!r} must be a number above 1: the n of the BIC")
    for name, value in (("max_invalid", max_invalid), ("n_perturb", n_perturb), ("seed", seed)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name}={value!r} must be an integer of at least 0")
    if n_perturb == 1:
        raise ValueError("n_perturb=1 gives no spread: use 0 or at least 2 draws, for example 200")


def _best(loss: FloatArray, sample_size: float) -> IntArray:
    bic = _bic(loss, sample_size)
    return np.asarray(np.argmin(np.where(np.isnan(bic), np.inf, bic), axis=-1), dtype=np.int64)


def _bic(loss: FloatArray, sample_size: float) -> FloatArray:
    return np.asarray(np.arange(loss.shape[-1]) * np.log(sample_size) + 2 * loss)


def _combine(
    slope: FloatArray, size: FloatArray, loss: FloatArray, sample_size: float, model_averaging: bool
) -> tuple[FloatArray, FloatArray]:
    if not model_averaging:
        best = _best(loss, sample_size)[:, None]
        return np.take_along_axis(slope, best, axis=-1)[:, 0], np.take_along_axis(size, best, axis=-1)[:, 0]
    bic = _bic(loss, sample_size)
    lowest = np.where(np.isnan(bic), np.inf, bic).min(axis=-1, keepdims=True)
    weight = np.where(np.isnan(bic), 0.0, np.exp(-0.5 * (bic - lowest)))
    weight = weight / weight.sum(axis=-1, keepdims=True)
    estimate = (weight * np.where(weight > 0, slope, 0.0)).sum(axis=-1)
    spread = np.sqrt(size**2 + (slope - estimate[:, None]) ** 2)
    se = (weight * np.where(np.isnan(spread), 0.0, spread)).sum(axis=-1)
    answered = ~np.isnan(slope[:, 0])
    return np.where(answered, estimate, np.nan), np.where(answered & (se > 0), se, np.nan)


def _perturbed(
    rows: ScoreRows, correlation: FloatArray, scaled: FloatArray, most: int, n_perturb: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean estimates, their standard deviations and mean likelihoods over data with more noise."""
    rng = np.random.default_rng(seed)
    slopes, losses = [], []
    for _ in range(n_perturb):
        first, second = rng.standard_normal((2, rows.x.shape[1]))
        outcome = correlation * first + np.sqrt(1 - correlation**2) * second
        moved = replace(rows, x=rows.x + scaled * first, y=np.where(rows.used, rows.y + outcome, 0.0))
        slope, loss, _ = _paths(moved, most)
        slopes.append(slope)
        losses.append(loss)
    drawn = np.stack(slopes)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1), np.stack(losses).mean(axis=0)


def _paths(rows: ScoreRows, most: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return slopes, losses and second derivatives for 0 to `most` invalid variants, shape (F, most + 1)."""
    n_fits = rows.x.shape[0]
    count = np.count_nonzero(rows.used, axis=-1)
    invalid = np.arange(most + 1)
    kept = count[:, None] - invalid
    possible = (invalid == 0) | (kept >= 2)
    slopes = candidate_slopes(rows)
    values = np.stack([_trimmed(rows, column, kept) for column in slopes.T], axis=1)
    edge = np.full((n_fits, 1, most + 1), np.inf)
    before, after = np.concatenate([edge, values[:, :-1]], axis=1), np.concatenate([values[:, 1:], edge], axis=1)
    wells = np.where((values <= before) & (values <= after), values, np.inf)
    deepest = np.argsort(wells, axis=1, kind="stable")[:, :_WELLS]
    fit, start, number = np.nonzero(np.isfinite(np.take_along_axis(wells, deepest, axis=1)) & possible[:, None])
    slope, loss = np.empty((2, fit.size))
    for block in row_blocks(fit.size, 8 * rows.x.shape[1]):
        begin = slopes[fit[block], deepest[fit[block], start[block], number[block]]]
        slope[block], loss[block] = _settle(rows[fit[block]], begin, kept[fit[block], number[block]])
    # Of equal losses the slope nearer to zero, whatever the sign of the outcome.
    order = np.lexsort((np.abs(slope), loss, number, fit))
    cell = (fit * (most + 1) + number)[order]
    found, first = np.unique(cell, return_index=True)
    fit, number, slope = fit[order][first], number[order][first], slope[order][first]
    result = np.full((3, n_fits * (most + 1)), np.nan)
    for block in row_blocks(fit.size, 8 * rows.x.shape[1]):
        part, nothing = rows[fit[block]], np.zeros(slope[block].size)
        part = _masked(part, _smallest(part, slope[block], kept[fit[block], number[block]]))
        polished = polish(part, _L2, slope[block], nothing)
        result[:, found[block]] = polished, part.loss(_L2, polished, nothing), part.score(_L2, polished, nothing)[1]
    slope, loss, bend = result.reshape(3, n_fits, most + 1)
    return slope, loss, bend


def _squares(rows: ScoreRows, slope: FloatArray) -> FloatArray:
    squares = rows.residual(slope) ** 2 / rows.variance(slope, np.zeros(slope.size))
    return np.where(rows.used, squares, np.inf)


def _trimmed(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> FloatArray:
    """Return half the sums of the smallest squared residuals, for each number that is kept."""
    total = np.cumsum(np.sort(_squares(rows, slope), axis=-1), axis=-1)
    return np.asarray(np.take_along_axis(total, np.maximum(kept - 1, 0), axis=-1) / 2, dtype=np.float64)


def _smallest(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> BoolArray:
    order = np.argsort(_squares(rows, slope), axis=-1, kind="stable")
    mask = np.zeros(rows.x.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, np.arange(rows.x.shape[1]) < kept[:, None], axis=-1)
    return mask


def _settle(rows: ScoreRows, slope: FloatArray, kept: IntArray) -> tuple[FloatArray, FloatArray]:
    """Fit the variants with the smallest residuals, and choose them again, until they stay; return slope and loss."""
    slope, active = slope.copy(), np.arange(slope.size)
    chosen = np.zeros(rows.x.shape, dtype=np.bool_)
    for _ in range(_ROUNDS):
        part = rows[active]
        mask = _smallest(part, slope[active], kept[active])
        moved = (mask != chosen[active]).any(axis=-1)
        active, part, mask = active[moved], part[moved], mask[moved]
        if active.size == 0:
            break
        chosen[active] = mask
        slope[active] = descend(_masked(part, mask), _L2, slope[active], np.zeros(active.size))
    return slope, _masked(rows, chosen).loss(_L2, slope, np.zeros(slope.size))


def _masked(rows: ScoreRows, mask: BoolArray) -> ScoreRows:
    return replace(rows, used=mask, x=np.where(mask, rows.x, 0.0), y=np.where(mask, rows.y, 0.0))
