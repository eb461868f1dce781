"""Contamination mixture: each variant is valid, or invalid with a ratio about zero, whichever is likelier."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.blocks import row_blocks
from kipoi_deepmr.mr.core.design import build_design
from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray, Status, check_alpha, read_associations
from kipoi_deepmr.mr.core.regression import fit_status
from kipoi_deepmr.mr.core.result import CausalResult

# Intervals whose peaks are compared without rounding, and the rounds in which their sets of variants settle.
_PEAKS, _SETTLE = 8, 20


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ContaminationMixtureResult(CausalResult):
    """Estimates of `contamination_mixture`, at the highest profile likelihood.

    The standard error comes from the curvature there, times the over-dispersion; it is NaN where no variant is valid. The
    likelihood may have several peaks: the confidence set says more. ci_low and ci_high are the ends of the smallest
    interval that holds the whole set, infinite where the data exclude no effect. The p-value comes from the likelihood
    ratio against no effect over `over_dispersion` squared; it is below alpha exactly where 0 is outside of the set.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments that have a ratio.
    n_intervals : ndarray of int64, shape (...)
        Number of intervals of the confidence set.
    intervals : ndarray of float64, shape (..., K, 2)
        These intervals in ascending order; NaN beyond `n_intervals`.
    invalid_sd : ndarray of float64, shape (...)
        Standard deviation of the invalid ratios that was used.
    over_dispersion : ndarray of float64, shape (...)
        max(1, residual standard error of the valid ratios).
    valid : ndarray of bool, shape (..., J)
        Variants that are likelier valid than invalid at the estimate.
    """

    estimator: str = "contamination_mixture"
    n_used: IntArray
    n_intervals: IntArray
    intervals: FloatArray
    invalid_sd: FloatArray
    over_dispersion: FloatArray
    valid: BoolArray


@np.errstate(all="ignore")
def contamination_mixture(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    invalid_sd: float | None = None,
    alpha: float = 0.05,
) -> ContaminationMixtureResult:
    r"""Contamination mixture estimate: consistent while the valid variants are the largest group of one ratio.

    .. math:: 2 \ell(\theta) = \sum_j \max\Big(0,\; \frac{r_j^2}{\psi^2 + s_j^2} + \log\frac{\psi^2 + s_j^2}{s_j^2}
              - \frac{(\theta - r_j)^2}{s_j^2}\Big) + \text{const}, \qquad r_j = y_j / x_j,\; s_j = s_{yj} / |x_j|

    Between the ends of the variants' ranges this is one parabola, so the maximum and the confidence set are exact
    (R's `mr_conmix` walks on a grid of step 0.01, whose default range is empty where all exposure effects are
    negative). The set holds every effect with :math:`2 (\ell_{max} - \ell) < \phi^2 \chi^2`, phi being the
    over-dispersion; the p-value divides by phi^2, too, whereas R multiplies by it and reports too small a one.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where bx, by or byse is NaN; bxse does not enter. A variant with bx = 0 has no
        ratio and is not used.
    invalid_sd : float, optional
        Standard deviation psi of the ratios of invalid variants, in units of the estimate; by default 1.5 times the
        standard deviation of all ratios, as in R. That is large where an exposure effect is near 0, and then hardly
        any variant counts as invalid: give a value of the size of plausible effects.
    alpha : float, default 0.05
        One minus the level of the confidence set.

    Returns
    -------
    ContaminationMixtureResult
        Arrays of shape (...). Without `invalid_sd` fewer than 2 instruments with bx other than 0 give NaN.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Burgess et al. (2020), Nature Communications 11:376.
    """
    check_alpha(alpha)
    if invalid_sd is not None and (not isinstance(invalid_sd, Real) or not 0 < invalid_sd < np.inf):
        raise ValueError(f"invalid_sd={invalid_sd!r} must be a positive number, or None for 1.5 sd of the ratios")
    data = read_associations(bx, bxse, by, byse)
    design = build_design(data, weights="simple", psi=0.0, penalized=False)
    batch, n_variants = data.shape[:-1], data.shape[-1]
    used = design.used & (data.bx != 0)
    n_used = np.asarray(np.count_nonzero(used, axis=-1), dtype=np.int64)
    needed = 2 if invalid_sd is None else 1
    rows = np.flatnonzero((design.invalid == Status.OK) & (n_used >= needed))
    where = used.reshape(-1, n_variants)[rows] if rows.size else np.zeros((0, n_variants), dtype=np.bool_)
    ratio, precision = np.zeros(where.shape), np.zeros(where.shape)
    if rows.size:
        ratio[where] = (data.by / data.bx).reshape(-1, n_variants)[rows][where]
        precision[where] = design.x.reshape(-1, n_variants)[rows][where] ** 2
    width = 1.5 * _spread(ratio, where) if invalid_sd is None else np.full(rows.size, float(invalid_sd))

    fits = [
        _fit(ratio[block], precision[block], width[block], where[block], alpha) for block in row_blocks(*where.shape)
    ]
    most = max((fit.intervals.shape[1] for fit in fits), default=1)
    numbers, counts = np.full((6, design.invalid.size), np.nan), np.zeros(design.invalid.size, dtype=np.int64)
    intervals = np.full((design.invalid.size, most, 2), np.nan)
    valid = np.zeros((design.invalid.size, n_variants), dtype=np.bool_)
    for block, fit in zip(row_blocks(*where.shape), fits, strict=True):
        held = rows[block]
        numbers[:, held] = fit.estimate, fit.se, fit.ci_low, fit.ci_high, fit.pvalue, fit.phi
        counts[held] = fit.n_intervals
        intervals[held, : fit.intervals.shape[1]] = fit.intervals
        valid[held] = fit.valid
    estimate, se, ci_low, ci_high, p, phi = numbers.reshape(6, *batch)
    psi = np.full(design.invalid.size, np.nan)
    psi[rows] = width
    status = fit_status(design.invalid, n_used, needed, np.zeros(batch, dtype=np.bool_), estimate)
    return ContaminationMixtureResult(
        estimate=estimate,
        se=se,
        ci_low=ci_low,
        ci_high=ci_high,
        pvalue=p,
        confidence_level=1 - alpha,
        n_instruments=design.n_instruments,
        n_used=n_used,
        n_intervals=counts.reshape(batch),
        intervals=intervals.reshape(*batch, most, 2),
        invalid_sd=psi.reshape(batch),
        over_dispersion=phi,
        valid=valid.reshape(data.shape),
        status=status,
    )


@dataclass(frozen=True, eq=False)
class _Fits:
    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    phi: FloatArray
    n_intervals: IntArray
    intervals: FloatArray
    valid: BoolArray


@dataclass(frozen=True, eq=False)
class _Parabolas:
    """Twice the profile log-likelihood between neighbouring ends: height - weight (theta - peak)^2, shape (F, 2J + 1)."""

    low: FloatArray
    high: FloatArray
    height: FloatArray
    weight: FloatArray
    peak: FloatArray


def _spread(ratio: FloatArray, where: BoolArray) -> FloatArray:
    count = np.count_nonzero(where, axis=-1)
    mean = ratio.sum(axis=-1, where=where) / count
    square = ((ratio - mean[:, None]) ** 2).sum(axis=-1, where=where)
    return np.asarray(np.sqrt(square / (count - 1)), dtype=np.float64)


def _fit(ratio: FloatArray, precision: FloatArray, psi: FloatArray, where: BoolArray, alpha: float) -> _Fits:
    variance = np.where(where, 1 / precision, 1.0)
    total = psi[:, None] ** 2 + variance
    gain = np.where(where, ratio**2 / total + np.log1p(psi[:, None] ** 2 / variance), 0.0)
    estimate = _highest(ratio, precision, gain)
    highest = _value(ratio, precision, gain, estimate)
    estimate = np.where(np.isfinite(highest), estimate, np.nan)
    valid = where & (gain > precision * (ratio - estimate[:, None]) ** 2)
    phi, weight = _over_dispersion(ratio, precision, valid)
    threshold = highest - special.chdtri(1, alpha) * phi**2
    intervals, count = _above(_parabolas(ratio - estimate[:, None], precision, gain), threshold)
    intervals = intervals + estimate[:, None, None]
    ratio_at_zero = (highest - _value(ratio, precision, gain, np.zeros(estimate.shape))) / phi**2
    last = np.maximum(count - 1, 0)
    return _Fits(
        estimate=estimate,
        se=np.where(weight > 0, phi / np.sqrt(weight), np.nan),
        ci_low=intervals[:, 0, 0],
        ci_high=intervals[np.arange(count.size), last, 1],
        pvalue=np.asarray(special.chdtrc(1, np.maximum(ratio_at_zero, 0))),
        phi=np.where(np.isnan(estimate), np.nan, phi),
        n_intervals=count,
        intervals=intervals,
        valid=valid,
    )


def _value(ratio: FloatArray, precision: FloatArray, gain: FloatArray, theta: FloatArray) -> FloatArray:
    excess = gain - precision * (ratio - theta[:, None]) ** 2
    return np.asarray(np.maximum(excess, 0).sum(axis=-1), dtype=np.float64)


def _parabolas(ratio: FloatArray, precision: FloatArray, gain: FloatArray) -> _Parabolas:
    """Add up the variants whose range has begun and not ended."""
    half = np.where(precision > 0, np.sqrt(gain / precision), 0.0)
    ends = np.concatenate([ratio - half, ratio + half], axis=-1)
    order = np.argsort(ends, axis=-1)
    ends = np.take_along_axis(ends, order, axis=-1)

    def running(term: FloatArray) -> FloatArray:
        steps = np.take_along_axis(np.concatenate([term, -term], axis=-1), order, axis=-1)
        return np.concatenate([np.zeros((term.shape[0], 1)), np.cumsum(steps, axis=-1)], axis=-1)

    count = np.rint(running((precision > 0).astype(np.float64)))
    weight, first = running(precision), running(precision * ratio)
    constant = running(gain - precision * ratio**2)
    held = (count > 0) & (weight > 0)
    peak = np.where(held, first / weight, 0.0)
    edge = np.full((ends.shape[0], 1), np.inf)
    return _Parabolas(
        low=np.concatenate([-edge, ends], axis=-1),
        high=np.concatenate([ends, edge], axis=-1),
        height=np.where(held, constant + first * peak, 0.0),
        weight=np.where(held, weight, 0.0),
        peak=peak,
    )


def _highest(ratio: FloatArray, precision: FloatArray, gain: FloatArray) -> FloatArray:
    """Return the maximum: a parabola's peak never exceeds the likelihood there, so no peak needs its own interval."""
    pieces = _parabolas(ratio, precision, gain)
    top = np.argpartition(pieces.height, -min(_PEAKS, pieces.height.shape[1]), axis=-1)[:, -_PEAKS:]
    candidates = np.take_along_axis(pieces.peak, top, axis=-1)
    best, height = np.zeros(ratio.shape[0]), np.full(ratio.shape[0], -np.inf)
    for theta in candidates.T:
        for _ in range(_SETTLE):
            # Cumulative sums leave rounding: take the mean of the variants that are valid at it.
            held = np.where(gain > precision * (ratio - theta[:, None]) ** 2, precision, 0.0)
            mean = (held * ratio).sum(axis=-1) / held.sum(axis=-1)
            moved = np.where(np.isfinite(mean), mean, theta)
            if np.array_equal(moved, theta):
                break
            theta = moved
        value = _value(ratio, precision, gain, theta)
        better = (value > height) | ((value == height) & (np.abs(theta) < np.abs(best)))
        best, height = np.where(better, theta, best), np.where(better, value, height)
    return best


def _over_dispersion(ratio: FloatArray, precision: FloatArray, valid: BoolArray) -> tuple[FloatArray, FloatArray]:
    held = np.where(valid, precision, 0.0)
    weight, count = held.sum(axis=-1), np.count_nonzero(valid, axis=-1)
    mean = (held * ratio).sum(axis=-1) / weight
    square = (held * (ratio - mean[:, None]) ** 2).sum(axis=-1) / (count - 1)
    return np.where(count > 1, np.maximum(np.sqrt(square), 1), 1.0), weight


def _above(pieces: _Parabolas, threshold: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the intervals where the likelihood exceeds the threshold, shape (F, K, 2) filled with NaN, and how many."""
    reach = np.sqrt((pieces.height - threshold[:, None]) / pieces.weight)
    flat = pieces.weight == 0
    everywhere = threshold[:, None] < 0
    low = np.where(flat, pieces.low, np.maximum(pieces.low, pieces.peak - reach))
    high = np.where(flat, pieces.high, np.minimum(pieces.high, pieces.peak + reach))
    inside = np.where(flat, everywhere, low < high) & (pieces.low < pieces.high)
    # A piece goes on where its neighbour of positive length ended at their common end.
    row, column = np.nonzero(inside)
    start, end = low[row, column], high[row, column]
    new = np.ones(row.size, dtype=np.bool_)
    new[1:] = (row[1:] != row[:-1]) | (start[1:] > end[:-1])
    first = np.flatnonzero(new)
    last = np.append(first, row.size)[1:] - 1
    counts = np.bincount(row[first], minlength=threshold.size).astype(np.int64)
    place = np.arange(first.size) - np.repeat(np.cumsum(counts) - counts, counts)
    intervals = np.full((threshold.size, max(1, int(counts.max(initial=0))), 2), np.nan)
    intervals[row[first], place, 0], intervals[row[first], place, 1] = start[first], end[last]
    return intervals, counts
