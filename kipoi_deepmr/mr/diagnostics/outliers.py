"""MR-PRESSO: outliers from leave-one-out lines, and the estimate without them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.design import build_two_error_design
from kipoi_deepmr.mr.core.groups import read_groups
from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray, Status, check_alpha, read_associations
from kipoi_deepmr.mr.core.regression import dot, fit_status, pvalue
from kipoi_deepmr.mr.core.result import Result

_FEWEST = 4
# Simulated effects held at a time: 16 MB for each array.
_BLOCK = 2_000_000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Presso(Result):
    """Results of `presso`, one for each leading index of the input.

    Attributes
    ----------
    rss : ndarray of float64, shape (...)
        Weighted sum of squares of the residuals, each from the IVW line of the other instruments.
    pvalue : ndarray of float64, shape (...)
        Global test of heterogeneity: share of the simulated data whose rss is at least as large, with the observed
        data counted as one of them.
    outlier_statistic : ndarray of float64, shape (..., J)
        Squared residual of each instrument from the line of the others, in squared outcome units.
    outlier_pvalue : ndarray of float64, shape (..., J)
        Its p-value times the number of instruments, at most 1.
    outlier : ndarray of bool, shape (..., J)
        Where the global test is significant and the outlier_pvalue is, too.
    estimate, se, estimate_pvalue : ndarray of float64, shape (...)
        IVW estimate with all instruments; its standard error is multiplied by the RSE even where that is below 1, its
        p-value is Student's with n_instruments - 1 degrees of freedom.
    corrected_estimate, corrected_se, corrected_pvalue : ndarray of float64, shape (...)
        The same without the outliers; NaN where there are none, or fewer than two instruments would be left.
    distortion : ndarray of float64, shape (...)
        (estimate - corrected_estimate) / |corrected_estimate|, a fraction.
    distortion_pvalue : ndarray of float64, shape (...)
        Share of random selections that distort as much, the observed one included.
    n_instruments, n_outliers : ndarray of int64, shape (...)
        Variants that are present, and outliers among them.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the rss is NaN. TOO_FEW_INSTRUMENTS below 4.
    """

    rss: FloatArray
    pvalue: FloatArray
    outlier_statistic: FloatArray
    outlier_pvalue: FloatArray
    outlier: BoolArray
    estimate: FloatArray
    se: FloatArray
    estimate_pvalue: FloatArray
    corrected_estimate: FloatArray
    corrected_se: FloatArray
    corrected_pvalue: FloatArray
    distortion: FloatArray
    distortion_pvalue: FloatArray
    n_instruments: IntArray
    n_outliers: IntArray
    status: IntArray


@np.errstate(all="ignore")
def presso(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 1,
    alpha: float = 0.05,
) -> Presso:
    r"""MR-PRESSO: global test, outlier test and test of distortion.

    .. math:: \mathrm{RSS} = \sum_j (y_j - \hat\beta_{-j} x_j)^2 / s_{yj}^2

    is compared with the RSS of data drawn from x* ~ N(x, s_x^2), y* ~ N(\hat\beta_{-j} x, s_y^2).

    The outlier test needs no draws: under these data the residual of an instrument from the observed line is normal
    with variance s_y^2 + \hat\beta_{-j}^2 s_x^2. R's package counts draws instead, whose p-values are multiples of
    J / draws. p-values from draws are (1 + count) / (1 + draws), so that they are never 0. A variant with bx = 0
    keeps its by (R's package replaces it by the point (0, 0)).

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant is absent where one of the four is NaN.
    draws : int, default 1000
        Simulated data sets for the global test, and random selections for the test of distortion.
    seed : int, default 1
        Each fit starts the same stream of random numbers, so its result does not depend on the other fits.
    alpha : float, default 0.05
        Significance level of the global and of the outlier test.

    Returns
    -------
    Presso
        Arrays of shape (...) and (..., J).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not allowed.

    References
    ----------
    Verbanck et al. (2018), Nature Genetics 50:693; Phipson and Smyth (2010), Statistical Applications in Genetics and
    Molecular Biology 9:39 (p-values from draws).
    """
    check_alpha(alpha)
    for name, value, least in (("draws", draws, 1), ("seed", seed, 0)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of at least {least}")
    data = read_associations(bx, bxse, by, byse)
    design, noise = build_two_error_design(data)
    x, y, used, n = design.x, design.y, design.used, design.n_used
    slopes, sxx = _leave_one_out_slopes(x, y)
    residual = y - slopes * x
    rss = dot(residual, residual)
    estimate, se, p = _through_origin(x, y, used)
    alone = (used & (sxx == 0)).any(axis=-1)
    status = fit_status(design.invalid, n, _FEWEST, alone, np.asarray(rss + estimate))
    ok = status == Status.OK

    # Oriented to a positive exposure effect, so that the coding of a variant does not matter.
    global_p = _each_fit(_global_pvalue, ok, used, (np.abs(x), noise, slopes, rss), draws, seed)
    tail = special.erfc(np.abs(residual) / np.sqrt(2 * (1 + (slopes * noise) ** 2)))
    outlier_p = np.where(used & ok[..., None], np.minimum(tail * n[..., None], 1), np.nan)
    outlier = (outlier_p <= alpha) & (global_p < alpha)[..., None]
    n_outliers = np.count_nonzero(outlier, axis=-1)
    kept = used & ~outlier
    clean = _through_origin(np.where(kept, x, 0.0), np.where(kept, y, 0.0), kept)
    answered = ok & (n_outliers > 0) & (n - n_outliers > 1)
    corrected, corrected_se, corrected_p = (np.where(answered, values, np.nan) for values in clean)
    distortion = (estimate - corrected) / np.abs(corrected)
    distortion_p = _each_fit(_distortion_pvalue, answered, used, (x, y, outlier, estimate, distortion), draws, seed)
    return Presso(
        rss=np.where(ok, rss, np.nan),
        pvalue=global_p,
        outlier_statistic=np.where(used & ok[..., None], (residual * data.byse) ** 2, np.nan),
        outlier_pvalue=outlier_p,
        outlier=outlier,
        estimate=np.where(ok, estimate, np.nan),
        se=np.where(ok, se, np.nan),
        estimate_pvalue=np.where(ok, p, np.nan),
        corrected_estimate=corrected,
        corrected_se=corrected_se,
        corrected_pvalue=corrected_p,
        distortion=distortion,
        distortion_pvalue=distortion_p,
        n_instruments=design.n_instruments,
        n_outliers=np.asarray(n_outliers, dtype=np.int64),
        status=status,
    )


def _leave_one_out_slopes(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the IVW slope without each variant, and the sum of squares it rests on."""
    others = read_groups(None, x.shape[-1])
    sxx = others.outside(x * x)
    return others.outside(x * y) / sxx, sxx


def _through_origin(x: FloatArray, y: FloatArray, used: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return slope, its standard error with the estimated residual standard error, and Student's p-value."""
    sxx, df = dot(x, x), np.count_nonzero(used, axis=-1) - 1
    slope = dot(x, y) / sxx
    residual = y - slope[..., None] * x
    se = np.sqrt(dot(residual, residual) / df / sxx)
    return slope, se, np.asarray(pvalue(slope, se, df=np.asarray(df, dtype=np.int64)))


def _each_fit(
    test: Callable[..., float],
    wanted: BoolArray,
    used: BoolArray,
    arrays: tuple[npt.NDArray[Any], ...],
    draws: int,
    seed: int,
) -> FloatArray:
    """Return the p-values of a test by simulation; what has an axis of variants is handed over without absent ones."""
    result = np.full(wanted.shape, np.nan)
    for index in zip(*np.nonzero(wanted), strict=True) if wanted.ndim else [()] * int(wanted):
        here = used[index]
        own = [array[index][here] if array.ndim == used.ndim else float(array[index]) for array in arrays]
        result[index] = test(*own, draws=draws, rng=np.random.default_rng(seed))
    return result


def _global_pvalue(
    x: FloatArray, noise: FloatArray, slopes: FloatArray, rss: float, *, draws: int, rng: np.random.Generator
) -> float:
    count = 0
    for size in _blocks(draws, x.size):
        # In the order of the draws, so that the size of the blocks does not matter.
        errors = rng.standard_normal((size, 2, x.size))
        effect, outcome = x + noise * errors[:, 0], slopes * x + errors[:, 1]
        residual = outcome - _leave_one_out_slopes(effect, outcome)[0] * effect
        count += int(np.count_nonzero(dot(residual, residual) >= rss))
    return (1 + count) / (1 + draws)


def _distortion_pvalue(
    x: FloatArray,
    y: FloatArray,
    outlier: BoolArray,
    estimate: float,
    distortion: float,
    *,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Return how often as many instruments, outliers and random others, distort as much."""
    xx, xy = x * x, x * y
    others = np.flatnonzero(~outlier)
    size = others.size
    always = np.flatnonzero(outlier)[:size]
    count = 0
    for block in _blocks(draws, size):
        chosen = rng.choice(others, (block, size - always.size))
        slope = (xy[always].sum() + xy[chosen].sum(axis=-1)) / (xx[always].sum() + xx[chosen].sum(axis=-1))
        count += int(np.count_nonzero(np.abs((estimate - slope) / slope) >= abs(distortion)))
    return (1 + count) / (1 + draws)


def _blocks(draws: int, n_variants: int) -> Iterator[int]:
    size = max(1, _BLOCK // n_variants)
    for start in range(0, draws, size):
        yield min(size, draws - start)
