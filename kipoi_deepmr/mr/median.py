"""Median-based Mendelian randomization: simple, weighted and penalised weighted median."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr._blocks import bootstrap, check_bootstrap, packed, row_blocks
from kipoi_deepmr.mr._design import Design, build_design
from kipoi_deepmr.mr._inputs import (
    Associations,
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_alpha,
    check_option,
    read_associations,
)
from kipoi_deepmr.mr._regression import fit_status, interval, pvalue

_NEEDED = 3
_PENALTY = 20.0
# Stands for an infinite ratio in the bootstrap, where sorting must keep the bits of every number.
_FAR = 1e300


@dataclass(frozen=True, eq=False)
class MedianResult:
    """Estimates of the median estimators, one for each leading index of the input.

    Attributes
    ----------
    estimate, se : ndarray of float64, shape (...)
        Causal effect (outcome units per exposure unit) and its bootstrap standard error; NaN with ``n_boot=0``.
    ci_low, ci_high, pvalue : ndarray of float64, shape (...)
        Interval at level 1 - alpha and two-sided p-value.
    n_instruments, n_used : ndarray of int64, shape (...)
        Variants that are present, and those of them that have a ratio and a positive weight.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the estimate is NaN.
    """

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    n_instruments: IntArray
    n_used: IntArray
    status: IntArray


@np.errstate(all="ignore")
def simple_median(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    distribution: str = "normal",
    n_boot: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> MedianResult:
    """Median of the ratios by / bx: consistent while fewer than half of the variants are invalid.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four is NaN. With bx = 0 the ratio is infinite and counts at
        its end of the order, as in R; with bx = by = 0 there is no ratio and the variant is not used.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 1 degrees of freedom.
    n_boot : int, default 1000
        Draws of the parametric bootstrap, which resamples bx and by as normal (R's TwoSampleMR: 1000,
        MendelianRandomization: 10 000). 0 leaves standard error, interval and p-value NaN.
    seed : int, default 0
        Seed of the bootstrap. All fits of a call see the same standard normal draws.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    MedianResult
        Arrays of shape (...). Fewer than 3 instruments give NaN, as in R.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden et al. (2016), Genetic Epidemiology 40:304.
    """
    data = _complete(read_associations(bx, bxse, by, byse))
    design = build_design(data, weights="simple", psi=0.0, penalized=False)
    negative = (design.present & ((data.bxse < 0) | (data.byse < 0))).any(axis=-1)
    # byse = 0 spoils a weight by precision, not an equal one.
    exact = (design.invalid == Status.INVALID_STANDARD_ERROR) & ~negative
    invalid = np.where(exact, Status.OK, design.invalid)
    return _fit(data, design, design.present.astype(np.float64), invalid, distribution, n_boot, seed, alpha)


@np.errstate(all="ignore")
def weighted_median(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    n_boot: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> MedianResult:
    r"""Weighted median of the ratios by / bx: consistent while the invalid variants have less than half of the weight.

    The ratios in order, with :math:`s_j` the sum of the weights up to j less half the own weight, over the sum of
    all; the estimate interpolates linearly between the two ratios about s = 1/2.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `simple_median`. A variant with bx = 0 has weight zero.
    weights : {"simple", "delta"}, default "simple"
        First-order weights bx^2/byse^2 (R's MendelianRandomization), or second-order weights, the inverse of
        byse^2/bx^2 + by^2 bxse^2/bx^4 - 2 psi by bxse byse/bx^3 (R's TwoSampleMR, with psi = 0).
    psi : array_like, default 0
        Correlation of the two errors of a variant, for delta weights only; broadcasts to (..., J). The bootstrap
        draws the two errors independently, as R does.
    distribution, n_boot, seed, alpha
        As in `simple_median`. The weights stay as they are in the bootstrap.

    Returns
    -------
    MedianResult
        Arrays of shape (...). Fewer than 3 instruments give NaN, as in R.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden et al. (2016), Genetic Epidemiology 40:304.
    """
    check_option("weights", weights, ("simple", "delta"))
    data = _complete(read_associations(bx, bxse, by, byse))
    design = build_design(data, weights=weights, psi=psi, penalized=False)
    return _fit(data, design, design.x**2, design.invalid, distribution, n_boot, seed, alpha)


@np.errstate(all="ignore")
def penalized_weighted_median(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    n_boot: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> MedianResult:
    """Weighted median that downweights heterogeneous variants.

    The weight of a variant is multiplied by min(1, 20 p), with p from the chi-squared test of its ratio about the
    weighted median with the same weights.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `weighted_median`.
    weights : {"simple", "delta"}, default "simple"
        As in `weighted_median`.
    psi : array_like, default 0
        As in `weighted_median`.
    distribution, n_boot, seed, alpha
        As in `simple_median`. The penalised weights stay as they are in the bootstrap.

    Returns
    -------
    MedianResult
        Arrays of shape (...). Fewer than 3 instruments give NaN, as in R.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Bowden et al. (2016), Genetic Epidemiology 40:304.
    """
    check_option("weights", weights, ("simple", "delta"))
    data = _complete(read_associations(bx, bxse, by, byse))
    design = build_design(data, weights=weights, psi=psi, penalized=False)
    weight = design.x**2
    ratio = _ratio(data, design)
    centre = _point(ratio, weight)
    tail = special.chdtrc(1, weight * (ratio - centre[..., None]) ** 2)
    penalised = np.where(weight > 0, weight * np.minimum(1, _PENALTY * tail), 0.0)
    return _fit(data, design, penalised, design.invalid, distribution, n_boot, seed, alpha)


def _complete(data: Associations) -> Associations:
    """Return the data with a variant whose bxse is NaN absent: the bootstrap needs it, whatever the weights."""
    return Associations(np.where(np.isnan(data.bxse), np.nan, data.bx), data.bxse, data.by, data.byse)


def _ratio(data: Associations, design: Design) -> FloatArray:
    return np.where(design.present, data.by / data.bx, np.nan)


def _fit(
    data: Associations,
    design: Design,
    weight: FloatArray,
    invalid: IntArray,
    distribution: str,
    n_boot: int,
    seed: int,
    alpha: float,
) -> MedianResult:
    check_option("distribution", distribution, ("normal", "t-dist"))
    check_alpha(alpha)
    check_bootstrap(n_boot, seed)
    ratio = _ratio(data, design)
    weight = np.where(np.isnan(ratio), 0.0, weight)
    used = np.count_nonzero(weight > 0, axis=-1)
    point = np.where(np.isinf(weight.sum(axis=-1)), np.nan, _point(ratio, weight))
    status = fit_status(invalid, design.n_instruments, _NEEDED, used == 0, point)
    answered = status == Status.OK
    estimate = np.where(answered, point, np.nan)
    se = np.where(answered, _bootstrap_se(data, design.present, ratio, weight, n_boot, seed), np.nan)
    t_df = design.n_instruments - 1 if distribution == "t-dist" else None
    ci_low, ci_high = interval(estimate, se, alpha=alpha, df=t_df)
    return MedianResult(
        estimate=estimate,
        se=se,
        ci_low=np.asarray(ci_low),
        ci_high=np.asarray(ci_high),
        pvalue=np.asarray(pvalue(estimate, se, df=t_df)),
        n_instruments=design.n_instruments,
        n_used=np.asarray(used, dtype=np.int64),
        status=status,
    )


def _point(ratio: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the weighted median over the last axis; ratios that are NaN have no weight and come last."""
    n_variants, batch = ratio.shape[-1], ratio.shape[:-1]
    if n_variants == 0:
        return np.full(batch, np.nan)
    rows = ratio.reshape(-1, n_variants)
    weights = np.where(np.isnan(rows), 0.0, weight.reshape(-1, n_variants))
    result = np.empty(rows.shape[0])
    for block in row_blocks(*rows.shape):
        order = np.argsort(rows[block], axis=-1)
        ordered = np.take_along_axis(rows[block], order, axis=-1)
        result[block] = _crossing(ordered, np.take_along_axis(weights[block], order, axis=-1))
    return result.reshape(batch)


def _crossing(ordered: FloatArray, weight: FloatArray) -> FloatArray:
    """Return where the cumulative weight, less half the own weight, is half of the total."""
    cumulative = np.cumsum(weight, axis=-1)
    half = cumulative[:, -1] / 2
    rows = np.arange(ordered.shape[0])
    last = ordered.shape[-1] - 1
    reached = np.minimum(np.count_nonzero(cumulative < half[:, None], axis=-1), last)
    passed = cumulative[rows, reached] - weight[rows, reached] / 2 < half
    above = np.minimum(reached + passed, last)
    below = np.maximum(above - 1, 0)
    upper, lower = ordered[rows, above], ordered[rows, below]
    start = cumulative[rows, below] - weight[rows, below] / 2
    fraction = (half - start) / (cumulative[rows, above] - weight[rows, above] / 2 - start)
    return np.asarray(np.where((above == below) | (fraction == 1), upper, lower + (upper - lower) * fraction))


def _middle(ordered: FloatArray, count: IntArray) -> FloatArray:
    """Return the medians over the last axis (F, B, J) of the first `count` of each fit."""
    fits = np.arange(ordered.shape[0])
    low, high = (
        ordered[fits, :, np.maximum(count - 1, 0) // 2],
        ordered[fits, :, np.minimum(count // 2, ordered.shape[-1] - 1)],
    )
    return np.asarray((low + high) / 2, dtype=np.float64)


def _bootstrap_se(
    data: Associations, present: BoolArray, ratio: FloatArray, weight: FloatArray, n_boot: int, seed: int
) -> FloatArray:
    batch = data.shape[:-1]
    columns = packed(present, *_resampled(data, ratio, weight))
    n_variants = columns[0].shape[-1]
    if n_variants == 0:
        return np.full(batch, np.nan)
    bx, bxse, by, byse, weights = (values.reshape(-1, n_variants) for values in columns)
    low = np.int64((1 << max(1, n_variants - 1).bit_length()) - 1)
    position = np.arange(n_variants, dtype=np.int64)
    equal = bool(np.all((weights == 0) | (weights == 1)))

    def medians(fits: slice, z: FloatArray) -> FloatArray:
        ratio = z[:, 0] * bxse[fits, None]
        ratio += bx[fits, None]
        outcome = z[:, 1] * byse[fits, None]
        outcome += by[fits, None]
        np.divide(outcome, ratio, out=ratio)
        if equal:
            ratio.sort(axis=-1)
            return _middle(ratio, np.count_nonzero(weights[fits], axis=-1))
        # A plain sort is several times faster than an indirect one: the variant's number takes the place of the last
        # bits of its ratio, which moves it by J 2^-52 of itself, and leads to its weight afterwards.
        key = ratio.view(np.int64)
        key &= ~low
        key |= position
        ratio.sort(axis=-1)
        order = key & low
        if order.shape[0] > 1:
            order += (np.arange(order.shape[0]) * n_variants)[:, None, None]
        ordered_weights = weights[fits].ravel().take(order.reshape(-1, n_variants))
        replicates: FloatArray = _crossing(ratio.reshape(-1, n_variants), ordered_weights)
        return replicates.reshape(ratio.shape[:-1])

    se = bootstrap(
        medians,
        lambda replicates: np.std(replicates, axis=-1, ddof=1),
        n_fits=bx.shape[0],
        n_variants=n_variants,
        normals=2,
        n_boot=n_boot,
        seed=seed,
    )
    return se.reshape(batch)


def _resampled(data: Associations, ratio: FloatArray, weight: FloatArray) -> tuple[FloatArray, ...]:
    """Return the columns of the bootstrap; a ratio that is no finite number in any draw stays far away."""
    nowhere = np.isnan(ratio)
    fixed = nowhere | ((data.bx == 0) & (data.bxse == 0))
    return (
        np.where(fixed, 1.0, data.bx),
        np.where(fixed, 0.0, data.bxse),
        np.where(fixed, np.copysign(_FAR, np.where(nowhere, 1.0, ratio)), data.by),
        np.where(fixed, 0.0, data.byse),
        weight,
    )
