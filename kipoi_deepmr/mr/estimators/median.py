"""Median-based Mendelian randomization: simple, weighted and penalised weighted median."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.blocks import bootstrap, check_bootstrap, packed, row_blocks
from kipoi_deepmr.mr.core.design import Design, build_design, invalid_unweighted
from kipoi_deepmr.mr.core.inputs import (
    Associations,
    BoolArray,
    FloatArray,
    IntArray,
    Status,
    check_option,
    read_associations,
)
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult

_NEEDED = 3
_PENALTY = 20.0
# Stands for an infinite ratio in the bootstrap, where sorting must keep the bits of every number.
_FAR = 1e300
# How far the weighted median of a draw is from that of another, in roots of the effective number of variants, and the
# largest share of the weight to which that is still worth while.
_REACH, _FARTHEST = 2.5, 0.25


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MedianResult(CausalResult):
    """Estimates of the median estimators, with bootstrap standard errors: NaN with ``n_boot=0``.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments that have a ratio and a positive weight.
    """

    n_used: IntArray


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
    weight, invalid = design.present.astype(np.float64), invalid_unweighted(design, data)
    return _fit("simple_median", data, design, weight, invalid, distribution, n_boot, seed, alpha)


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
    return _fit("weighted_median", data, design, design.x**2, design.invalid, distribution, n_boot, seed, alpha)


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
    name = "penalized_weighted_median"
    return _fit(name, data, design, penalised, design.invalid, distribution, n_boot, seed, alpha)


def _complete(data: Associations) -> Associations:
    """Return the data with a variant whose bxse is NaN absent: the bootstrap needs it, whatever the weights."""
    return Associations(np.where(np.isnan(data.bxse), np.nan, data.bx), data.bxse, data.by, data.byse)


def _ratio(data: Associations, design: Design) -> FloatArray:
    return np.where(design.present, data.by / data.bx, np.nan)


def _fit(
    estimator: str,
    data: Associations,
    design: Design,
    weight: FloatArray,
    invalid: IntArray,
    distribution: str,
    n_boot: int,
    seed: int,
    alpha: float,
) -> MedianResult:
    check_inference(distribution, alpha)
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
    return MedianResult(
        estimator=estimator,
        **inference(estimate, se, alpha=alpha, df=t_df),
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


def _crossing(
    ordered: FloatArray, weight: FloatArray, start: FloatArray | float = 0.0, half: FloatArray | None = None
) -> FloatArray:
    """Return where the cumulative weight, less half the own weight, is half of the total.

    Of ratios in the middle alone, `start` is the weight of those before them and `half` half of all.
    """
    cumulative = np.cumsum(weight, axis=-1) + np.asarray(start)[..., None]
    if half is None:
        half = cumulative[:, -1] / 2
    rows = np.arange(ordered.shape[0])
    last = ordered.shape[-1] - 1
    reached = np.minimum(np.count_nonzero(cumulative < half[:, None], axis=-1), last)
    passed = cumulative[rows, reached] - weight[rows, reached] / 2 < half
    above = np.minimum(reached + passed, last)
    below = np.maximum(above - 1, 0)
    upper, lower = ordered[rows, above], ordered[rows, below]
    passed_by = cumulative[rows, below] - weight[rows, below] / 2
    fraction = (half - passed_by) / (cumulative[rows, above] - weight[rows, above] / 2 - passed_by)
    return np.asarray(np.where((above == below) | (fraction == 1), upper, lower + (upper - lower) * fraction))


def _weighted_medians(ratio: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the weighted medians of draws (F, B, J) of fits with weights (F, J).

    The first draw of each fit tells between which ratios the medians of the others lie, so that few have to be sorted; a
    draw whose median lies elsewhere is sorted whole.
    """
    n_fits, n_draws, n_variants = ratio.shape
    fit = np.repeat(np.arange(n_fits), n_draws)
    rows, result = ratio.reshape(-1, n_variants), np.full(n_fits * n_draws, np.nan)
    if n_draws > 1:
        result = _between(rows, weight, fit, *_bracket(ratio[:, 0], weight))
    left = np.flatnonzero(np.isnan(result))
    if left.size:
        result[left] = _crossing(*_sorted(rows[left], weight, fit[left]))
    return result.reshape(n_fits, n_draws)


def _bracket(ratio: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return between which ratios the medians of other draws are expected; NaN where few variants have the weight."""
    ordered, weights = _sorted(ratio, weight, np.arange(ratio.shape[0]))
    cumulative = np.cumsum(weights, axis=-1)
    total = cumulative[:, -1]
    # In units of the total weight a median moves by about 1/2 over the root of the effective number of variants.
    reach = _REACH / np.sqrt(total**2 / np.sum(weights**2, axis=-1))
    rows, last = np.arange(ratio.shape[0]), ratio.shape[-1] - 1
    ends = []
    for share in (0.5 - reach, 0.5 + reach):
        place = np.count_nonzero(cumulative < (share * total)[:, None], axis=-1)
        end = ordered[rows, np.minimum(place, last)]
        ends.append(np.where((reach < _FARTHEST) & (np.abs(end) < _FAR / 2), end, np.nan))
    return ends[0], ends[1]


def _between(ratio: FloatArray, weight: FloatArray, fit: IntArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the weighted medians of rows (R, J) that lie between two ratios of their fit; NaN where they do not."""
    n_variants = ratio.shape[-1]
    start = np.einsum("rj,rj->r", ratio < low[fit, None], weight[fit])
    half = weight.sum(axis=-1)[fit] / 2
    where = np.flatnonzero((ratio >= low[fit, None]) & (ratio <= high[fit, None]))
    row = where // n_variants
    count = np.bincount(row, minlength=ratio.shape[0])
    place = np.arange(where.size) - np.repeat(np.cumsum(count) - count, count)
    shape = ratio.shape[0], max(1, int(count.max(initial=0)))
    some, weights = np.full(shape, np.finfo(np.float64).max), np.zeros(shape)
    some[row, place] = ratio.ravel()[where]
    weights[row, place] = weight[fit[row], where - row * n_variants]
    rows = np.arange(ratio.shape[0])
    some, weights = _sorted(some, weights, rows)
    first, last = weights[:, 0], weights[rows, np.maximum(count - 1, 0)]
    crossed = (start + first / 2 < half) & (start + np.cumsum(weights, axis=-1)[:, -1] - last / 2 >= half)
    return np.where((count > 1) & crossed, _crossing(some, weights, start, half), np.nan)


def _sorted(ratio: FloatArray, weight: FloatArray, fit: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the ratios of rows (R, J) in order, and the weights that go with them."""
    # A plain sort is several times faster than an indirect one: the variant's number takes the place of the last bits of
    # its ratio, which moves it by J 2^-52 of itself, and leads to its weight afterwards.
    n_variants = ratio.shape[-1]
    low = np.int64((1 << max(1, n_variants - 1).bit_length()) - 1)
    ordered = ratio.copy()
    key = ordered.view(np.int64)
    key &= ~low
    key |= np.arange(n_variants, dtype=np.int64)
    ordered.sort(axis=-1)
    order = (key & low) + (fit * n_variants)[:, None]
    return ordered, weight.ravel().take(order)


def _bootstrap_se(
    data: Associations, present: BoolArray, ratio: FloatArray, weight: FloatArray, n_boot: int, seed: int
) -> FloatArray:
    batch = data.shape[:-1]
    columns = packed(present, *_resampled(data, ratio, weight))
    n_variants = columns[0].shape[-1]
    if n_variants == 0:
        return np.full(batch, np.nan)
    bx, bxse, by, byse, weights = (values.reshape(-1, n_variants) for values in columns)

    def medians(fits: slice, z: FloatArray) -> FloatArray:
        ratio = z[:, 0] * bxse[fits, None]
        ratio += bx[fits, None]
        outcome = z[:, 1] * byse[fits, None]
        outcome += by[fits, None]
        np.divide(outcome, ratio, out=ratio)
        return _weighted_medians(ratio, weights[fits])

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
