"""Mode-based Mendelian randomization: simple and weighted mode."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.blocks import bootstrap, check_bootstrap, packed
from kipoi_deepmr.mr.core.density_mode import exact_modes, fast_modes
from kipoi_deepmr.mr.core.design import build_design, invalid_unweighted
from kipoi_deepmr.mr.core.inputs import (
    Associations,
    FloatArray,
    IntArray,
    Status,
    check_option,
    read_associations,
)
from kipoi_deepmr.mr.core.options import check_inference
from kipoi_deepmr.mr.core.regression import fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult

_NEEDED = 2


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ModeResult(CausalResult):
    """Estimates of the mode estimators, with bootstrap standard errors: NaN with ``n_boot=0``.

    Attributes
    ----------
    n_used : ndarray of int64, shape (...)
        Instruments that have a finite ratio.
    bandwidth : ndarray of float64, shape (...)
        Standard deviation of the kernel, in units of the estimate; 0 where at least half of the ratios are equal.
    """

    n_used: IntArray
    bandwidth: FloatArray


@np.errstate(all="ignore")
def simple_mode(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    phi: float = 1.0,
    stderr: str = "delta",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    n_boot: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ModeResult:
    """Mode of the ratios by / bx, all of one weight: consistent while the valid variants are the largest group.

    Parameters
    ----------
    bx, bxse, by, byse, phi, stderr, psi, distribution, n_boot, seed, alpha
        As in `weighted_mode`; the standard errors of the ratios enter the bootstrap alone.

    Returns
    -------
    ModeResult
        Arrays of shape (...). Fewer than 2 instruments with bx other than 0 give NaN.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Hartwig, Davey Smith and Bowden (2017), International Journal of Epidemiology 46:1985.
    """
    data = read_associations(bx, bxse, by, byse)
    return _fit("simple_mode", data, False, phi, stderr, psi, distribution, n_boot, seed, alpha)


@np.errstate(all="ignore")
def weighted_mode(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    phi: float = 1.0,
    stderr: str = "delta",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "normal",
    n_boot: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ModeResult:
    r"""Mode of the ratios by / bx with weights: consistent while the valid variants have the most weight together.

    .. math:: \hat\beta = \arg\max_b \sum_j w_j \exp(-(b - r_j)^2 / 2h^2), \qquad
              h = 0.9\,\phi \min(\mathrm{sd}(r), 1.4826\,\mathrm{MAD}(r)) / n^{1/5}

    The maximum is exact. R takes the best of 512 points across the range of the ratios, which is not the mode where
    one ratio is far away: the rule with instruments near zero.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where an input that enters the result is NaN: bx, by, byse, and with delta
        standard errors bxse and psi. A variant with bx = 0 has no ratio and is not used.
    phi : float, default 1
        Factor of the bandwidth.
    stderr : {"delta", "simple"}, default "delta"
        Standard error of a ratio, for weights 1 / se^2 and bootstrap: the square root of
        byse^2/bx^2 + by^2 bxse^2/bx^4 - 2 psi by bxse byse/bx^3, or byse/|bx|.
    psi : array_like, default 0
        Correlation of the two errors of a variant, for delta standard errors only; broadcasts to (..., J).
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 1 degrees of freedom.
    n_boot : int, default 1000
        Draws of the parametric bootstrap, which resamples the ratios as normal; the standard error is 1.4826 times
        the median absolute deviation of the draws' modes. 0 leaves standard error, interval and p-value NaN.
    seed : int, default 0
        Seed of the bootstrap. All fits of a call see the same standard normal draws.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    ModeResult
        Arrays of shape (...). Fewer than 2 instruments with bx other than 0 give NaN.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Hartwig, Davey Smith and Bowden (2017), International Journal of Epidemiology 46:1985.
    """
    data = read_associations(bx, bxse, by, byse)
    return _fit("weighted_mode", data, True, phi, stderr, psi, distribution, n_boot, seed, alpha)


def _fit(
    estimator: str,
    data: Associations,
    weighted: bool,
    phi: float,
    stderr: str,
    psi: npt.ArrayLike,
    distribution: str,
    n_boot: int,
    seed: int,
    alpha: float,
) -> ModeResult:
    check_option("stderr", stderr, ("delta", "simple"))
    check_inference(distribution, alpha)
    check_bootstrap(n_boot, seed)
    if not isinstance(phi, Real) or not 0 < phi < np.inf:
        raise ValueError(f"phi={phi!r} must be a positive number, for example 1")
    design = build_design(data, weights=stderr, psi=psi, penalized=False)
    used = design.present & (data.bx != 0)
    ratio = np.where(used, data.by / data.bx, np.inf)
    precision = np.where(used, np.abs(design.x), 0.0)
    invalid = design.invalid if weighted else invalid_unweighted(design, data)
    n_used = np.asarray(np.count_nonzero(used, axis=-1), dtype=np.int64)
    weight = precision**2 if weighted else used.astype(np.float64)
    weight = weight / weight.sum(axis=-1, keepdims=True)
    ratio_se = np.where(used & (precision > 0), 1 / precision, 0.0)

    no_weight = (n_used > 0) & ~np.isfinite(weight).all(axis=-1)
    soluble = (invalid == Status.OK) & (n_used >= _NEEDED) & ~no_weight & np.isfinite(ratio).any(axis=-1)
    point, width = np.full(soluble.shape, np.nan), np.full(soluble.shape, np.nan)
    se = np.full(soluble.shape, np.nan)
    count = n_used[soluble].astype(np.float64)
    columns = (ratio[soluble], weight[soluble], count)
    point[soluble], width[soluble] = exact_modes(*columns, phi)
    values = packed(used[soluble], ratio[soluble], weight[soluble], ratio_se[soluble])
    se[soluble] = _bootstrap_se(*values, count, phi, n_boot, seed)

    status = fit_status(invalid, n_used, _NEEDED, no_weight, point)
    answered = status == Status.OK
    estimate, se = np.where(answered, point, np.nan), np.where(answered, se, np.nan)
    t_df = design.n_instruments - 1 if distribution == "t-dist" else None
    return ModeResult(
        estimator=estimator,
        **inference(estimate, se, alpha=alpha, df=t_df),
        n_instruments=design.n_instruments,
        n_used=n_used,
        bandwidth=np.where(answered, width, np.nan),
        status=status,
    )


def _bootstrap_se(
    ratio: FloatArray, weight: FloatArray, ratio_se: FloatArray, count: FloatArray, phi: float, n_boot: int, seed: int
) -> FloatArray:
    n_fits, n_variants = ratio.shape

    def modes(fits: slice, z: FloatArray) -> FloatArray:
        drawn = z[:, 0] * ratio_se[fits, None]
        drawn += ratio[fits, None]
        shape = drawn.shape
        weights = np.broadcast_to(weight[fits, None], shape).reshape(-1, n_variants)
        counts = np.broadcast_to(count[fits, None], shape[:-1]).ravel()
        return fast_modes(drawn.reshape(-1, n_variants), weights, counts, phi).reshape(shape[:-1])

    def deviation(replicates: FloatArray) -> FloatArray:
        middle = np.median(replicates, axis=-1, keepdims=True)
        return np.asarray(1.4826 * np.median(np.abs(replicates - middle), axis=-1), dtype=np.float64)

    return bootstrap(modes, deviation, n_fits=n_fits, n_variants=n_variants, normals=1, n_boot=n_boot, seed=seed)
