"""Sums over pairs of distinct draws, with weights, signs and instruments chosen by other draws, and their jackknife."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from kipoi_deepmr.mr.core.groups import Groups, read_groups
from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status, check_option, read_array
from kipoi_deepmr.mr.core.regression import Inference
from kipoi_deepmr.mr.held_out import HeldOut, check_folds, check_min_f

# A block whose arrays stay in the cache of a core.
_BLOCK_ELEMENTS = 2**18
# An estimate needs a denominator that differs from zero at this two-sided level, whatever the level of its interval.
_WEAK = 0.05


@dataclass(frozen=True, eq=False)
class Choices:
    """How instruments are weighted and chosen; `fixed` weights have shape (..., J), None stands for held-out draws.

    Without `groups` differences between instruments do not count.
    """

    fixed: FloatArray | None
    min_f: float
    folds: int
    oriented: bool
    groups: Groups | None

    @property
    def needs_folds(self) -> bool:
        """Whether anything is learned from held-out draws."""
        return self.fixed is None or self.oriented or self.min_f > 0

    def enough_draws(self, draws: int) -> bool:
        """Whether the jackknife has 3 draws and every held-out set has 2."""
        return draws >= (4 if self.needs_folds else 3)


@dataclass(frozen=True, eq=False)
class PairSums:
    """Means over ordered pairs of distinct draws: of all draws, shape (fits,), and without draw n, (fits, N)."""

    mean: FloatArray
    without: FloatArray


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The pair means of a set of fits; the intercept's parts are those of the sign column.

    The pleiotropies are the variances of xy - slope xx and of the intercept by differences between instruments.
    """

    n_instruments: IntArray
    n_used: FloatArray
    pleiotropy: FloatArray
    intercept_pleiotropy: FloatArray
    status: IntArray
    xy: PairSums
    xx: PairSums
    intercept_x: PairSums
    intercept_y: PairSums


def read_draws(bx_draws: npt.ArrayLike, by_draws: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the draws of both effects as views of one shape (..., N, J)."""
    arrays = read_array("bx_draws", bx_draws), read_array("by_draws", by_draws)
    shapes = f"bx_draws {arrays[0].shape}, by_draws {arrays[1].shape}"
    if any(array.ndim < 2 for array in arrays) or arrays[0].shape[-2:] != arrays[1].shape[-2:]:
        raise ValueError(f"draws must have one shape (..., N, J) with N draws of J variants; got {shapes}")
    try:
        x, y = np.broadcast_arrays(*arrays)
    except ValueError as error:
        raise ValueError(f"the leading axes do not broadcast against one another; got {shapes}") from error
    return x, y


def read_choices(
    shape: tuple[int, ...],
    weights: str | npt.ArrayLike,
    min_f: float,
    folds: int,
    model: str,
    groups: npt.ArrayLike | None,
    *,
    oriented: bool,
) -> Choices:
    """Return the checked options for draws of `shape` (..., N, J)."""
    check_option("model", model, ("random", "fixed"))
    partition = read_groups(groups, shape[-1])
    check_folds(folds, smallest=3)
    check_min_f(min_f)
    if isinstance(weights, str):
        if weights not in ("held_out", "equal"):
            raise ValueError(f"weights={weights!r} is not known; allowed are 'held_out', 'equal' and an array (..., J)")
        fixed = None if weights == "held_out" else np.ones(shape[-1])
    else:
        fixed = read_array("weights", weights)
        if fixed.shape[-1:] != shape[-1:] or not np.all(np.isnan(fixed) | ((fixed >= 0) & np.isfinite(fixed))):
            raise ValueError(
                f"weights must be 'held_out', 'equal' or numbers of at least 0 of shape (..., J) with J = {shape[-1]}; "
                f"got shape {fixed.shape}"
            )
    if fixed is not None:
        wanted = (*shape[:-2], shape[-1])
        try:
            fixed = np.broadcast_to(fixed, wanted)
        except ValueError as error:
            raise ValueError(f"weights of shape {fixed.shape} do not broadcast to (..., J) = {wanted}") from error
    return Choices(fixed, float(min_f), int(folds), oriented, partition if model == "random" else None)


def cross_fit(x: FloatArray, y: FloatArray, choices: Choices) -> CrossFit:
    """Return the pair means of all fits, computed in blocks of fits so that memory is bounded."""
    batch, (draws, variants) = x.shape[:-2], x.shape[-2:]
    fits = math.prod(batch)
    parts = []
    step = max(1, _BLOCK_ELEMENTS // max(1, draws * max(draws, variants)))
    for first in range(0, max(fits, 1), step):
        rows = np.unravel_index(np.arange(first, min(first + step, fits)), batch or (1,))
        fixed = None if choices.fixed is None else _rows(choices.fixed, batch, rows)
        parts.append(_fit_block(_rows(x, batch, rows), _rows(y, batch, rows), fixed, choices))

    return CrossFit(
        n_instruments=np.concatenate([part.n_instruments for part in parts]).reshape(batch),
        n_used=np.concatenate([part.n_used for part in parts]).reshape(batch),
        pleiotropy=np.concatenate([part.pleiotropy for part in parts]).reshape(batch),
        intercept_pleiotropy=np.concatenate([part.intercept_pleiotropy for part in parts]).reshape(batch),
        status=np.concatenate([part.status for part in parts]).reshape(batch),
        xy=_joined([part.xy for part in parts], batch),
        xx=_joined([part.xx for part in parts], batch),
        intercept_x=_joined([part.intercept_x for part in parts], batch),
        intercept_y=_joined([part.intercept_y for part in parts], batch),
    )


def jackknife(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the jackknife covariance of two statistics from their values (..., N) without each draw."""
    draws = first.shape[-1]
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    return np.asarray(np.einsum("...n,...n->...", first, second) * (draws - 1) / draws, dtype=np.float64)


def ratio_status(fit: CrossFit, draws: int) -> IntArray:
    """Return the `Status` of the ratio xy / xx: the first reason why there is no answer."""
    spread = np.sqrt(jackknife(fit.xx.without, fit.xx.without))
    conditions = [
        (fit.status != Status.OK, fit.status),
        (fit.xx.mean == 0, Status.NO_EXPOSURE_VARIATION),
        (~np.isfinite(fit.xy.mean / fit.xx.mean) | ~np.isfinite(spread), Status.NOT_FINITE),
        (fit.xx.mean <= student_quantile(_WEAK, draws) * spread, Status.WEAK_INSTRUMENTS),
    ]
    reasons, codes = zip(*conditions, strict=True)
    return np.asarray(np.select(reasons, codes, Status.OK), dtype=np.int64)


def student_quantile(alpha: float, draws: int) -> float:
    """Return the upper alpha / 2 quantile of Student t with one degree of freedom less than draws."""
    return float(-special.stdtrit(max(draws - 1, 1), alpha / 2))


def null_variance(fit: CrossFit) -> FloatArray:
    """Return the variance of xy where the slope is zero."""
    return jackknife(fit.xy.without, fit.xy.without) + fit.pleiotropy


def fieller(fit: CrossFit, quantile: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the set of slopes b for which xy - b xx lies within `quantile` standard errors of zero.

    The set holds the estimate; where the denominator is not distinguishable from zero at this level it is unbounded.
    """
    square = quantile**2
    a = fit.xx.mean**2 - square * jackknife(fit.xx.without, fit.xx.without)
    b = fit.xx.mean * fit.xy.mean - square * jackknife(fit.xx.without, fit.xy.without)
    c = fit.xy.mean**2 - square * null_variance(fit)
    half = np.sqrt(np.maximum(b**2 - a * c, 0))
    return np.where(a > 0, (b - half) / a, -np.inf), np.where(a > 0, (b + half) / a, np.inf)


def two_sided(statistic: FloatArray, draws: int) -> FloatArray:
    """Return the two-sided p-value of Student t with one degree of freedom less than draws."""
    return np.asarray(2 * special.stdtr(max(draws - 1, 1), -np.abs(statistic)), dtype=np.float64)


class RatioFields(Inference):
    """What the results of the cross-fitted estimators have in common."""

    n_instruments: IntArray
    n_used: FloatArray
    f_statistic: FloatArray
    status: IntArray


def ratio_fields(fit: CrossFit, se: FloatArray, draws: int, alpha: float) -> RatioFields:
    """Return the ratio xy / xx with Fieller's interval and the p-value of no effect."""
    status = ratio_status(fit, draws)
    low, high = fieller(fit, student_quantile(alpha, draws))
    p = two_sided(fit.xy.mean / np.sqrt(null_variance(fit)), draws)
    numbers = (fit.xy.mean / fit.xx.mean, se, low, high, p)
    slope, se, low, high, p = (np.where(status == Status.OK, values, np.nan) for values in numbers)
    return RatioFields(
        estimate=slope,
        se=se,
        ci_low=low,
        ci_high=high,
        pvalue=p,
        confidence_level=1 - alpha,
        n_instruments=fit.n_instruments,
        n_used=fit.n_used,
        f_statistic=np.asarray(fit.xx.mean**2 / jackknife(fit.xx.without, fit.xx.without)),
        status=status,
    )


def _fit_block(x: FloatArray, y: FloatArray, fixed: FloatArray | None, choices: Choices) -> CrossFit:
    fits, draws = x.shape[:2]
    present = np.asarray(~(np.isnan(x) | np.isnan(y)).any(axis=1))
    if fixed is not None:
        present = present & ~np.isnan(fixed)
    infinite = np.asarray((present & (np.isinf(x) | np.isinf(y)).any(axis=1)).any(axis=-1))
    usable = (present & ~infinite[:, None])[:, None]
    x, y = np.where(usable, x, 0.0), np.where(usable, y, 0.0)

    matrices = np.zeros((4, fits, draws, draws))
    used = [np.zeros(fits, dtype=np.int64)]
    total, signed = np.zeros((2, fits, x.shape[2]))
    if choices.enough_draws(draws):
        for rows, columns, weight, sign in _pairs_of_folds(x, y, fixed, choices):
            weight = np.where(present, weight, 0.0)
            used.append(np.asarray(np.count_nonzero(weight, axis=-1)))
            total += weight
            signed += weight if sign is None else weight * sign
            _add_pairs(matrices, x, y, weight, sign, (rows, columns))
            if rows != columns:
                _add_pairs(matrices, x, y, weight, sign, (columns, rows))
        matrices[..., np.arange(draws), np.arange(draws)] = 0.0
    mean_used = np.sum(used, axis=0) / max(len(used) - 1, 1)
    xy, xx = _pair_sums(matrices[0]), _pair_sums(matrices[1])
    pleiotropy = np.zeros(fits), np.zeros(fits)
    if choices.groups is not None and draws > 2:
        sign = np.where(signed < 0, -1.0, 1.0) if choices.oriented else None
        residual = y - (xy.mean / xx.mean)[:, None, None] * x
        weight = total / max(len(used) - 1, 1)
        pleiotropy = _pleiotropy(x, residual, weight, sign, xx.mean, choices.groups)

    reasons = [
        (infinite, Status.INVALID_EFFECT),
        (np.full(fits, not choices.enough_draws(draws)), Status.TOO_FEW_DRAWS),
        (np.max(used, axis=0) < (3 if choices.oriented else 1), Status.TOO_FEW_INSTRUMENTS),
    ]
    conditions, codes = zip(*reasons, strict=True)
    return CrossFit(
        n_instruments=np.asarray(np.count_nonzero(present, axis=-1), dtype=np.int64),
        n_used=np.asarray(mean_used, dtype=np.float64),
        pleiotropy=pleiotropy[0],
        intercept_pleiotropy=pleiotropy[1],
        status=np.asarray(np.select(conditions, codes, Status.OK), dtype=np.int64),
        xy=xy,
        xx=xx,
        intercept_x=_pair_sums(matrices[2]),
        intercept_y=_pair_sums(matrices[3]),
    )


def _pairs_of_folds(
    x: FloatArray, y: FloatArray, fixed: FloatArray | None, choices: Choices
) -> Iterator[tuple[slice, slice, FloatArray, FloatArray | None]]:
    """Yield two folds with weights and signs (fits, J) that know none of their draws."""
    if not choices.needs_folds:
        everything = slice(0, x.shape[1])
        assert fixed is not None
        yield everything, everything, fixed, None
        return
    of_x, of_y = HeldOut.of(x, choices.folds), HeldOut.of(y, choices.folds)
    for first, second in itertools.combinations_with_replacement(range(len(of_x.bounds)), 2):
        if fixed is None:
            variance = of_y.outside(first, second)[2]
            weight = np.divide(1.0, variance, out=np.zeros(variance.shape), where=variance > 0)
        else:
            weight = fixed
        if choices.min_f > 0:
            weight = np.where(of_x.f_outside(first, second) >= choices.min_f, weight, 0.0)
        sign = np.where(of_x.outside(first, second)[1] < 0, -1.0, 1.0) if choices.oriented else None
        yield slice(*of_x.bounds[first]), slice(*of_x.bounds[second]), weight, sign


def _add_pairs(
    matrices: FloatArray,
    x: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    sign: FloatArray | None,
    where: tuple[slice, slice],
) -> None:
    """Fill in the sums over variants for draws n of the first slice with draws m of the second."""
    xy, xx, intercept_x, intercept_y = (matrix[:, where[0], where[1]] for matrix in matrices)
    weighted = x[:, where[0]] * weight[:, None]
    np.matmul(weighted, np.swapaxes(y[:, where[1]], 1, 2), out=xy)
    np.matmul(weighted, np.swapaxes(x[:, where[1]], 1, 2), out=xx)
    if sign is None:
        return
    total = weight.sum(axis=-1)[:, None]
    column = (weight * sign)[..., None]
    share = np.divide(column, total[..., None], out=np.zeros(column.shape), where=total[..., None] > 0)
    x_rows, x_columns = ((x[:, part] @ share)[..., 0] for part in where)
    y_columns = (y[:, where[1]] @ share)[..., 0]
    xy -= (total * x_rows)[..., None] * y_columns[:, None]
    xx -= (total * x_rows)[..., None] * x_columns[:, None]
    intercept_x += x_rows[..., None]
    intercept_y += y_columns[:, None]


def _pleiotropy(
    x: FloatArray,
    residual: FloatArray,
    weight: FloatArray,
    sign: FloatArray | None,
    strength: FloatArray,
    groups: Groups,
) -> tuple[FloatArray, FloatArray]:
    """Return the variances that differences between groups of variants give to xy - slope xx and to the intercept."""
    draws = x.shape[1]
    share, level = np.zeros(weight.shape), np.zeros(weight.shape[0])
    if sign is not None:
        share = np.nan_to_num(weight * sign / weight.sum(axis=-1, keepdims=True))
        level = np.einsum("fnj,fj->f", x, share) / draws
        x, residual = (part - sign[:, None] * np.einsum("fnj,fj->fn", part, share)[..., None] for part in (x, residual))
    sum_x, sum_r = x.sum(axis=1, keepdims=True), residual.sum(axis=1, keepdims=True)
    product = x * residual
    total = sum_x * sum_r - product.sum(axis=1, keepdims=True)
    without = total - (x * sum_r + residual * sum_x - 2 * product)
    # Sums of squares over groups of one variant need no sorting.
    inside = np.asarray if groups.start.size == groups.order.size else groups.inside
    slope = inside(weight[:, None] * total) / (draws * (draws - 1))
    slope_without = inside(weight[:, None] * without) / ((draws - 1) * (draws - 2))
    count = np.asarray(np.count_nonzero(groups.count(weight > 0), axis=-1))
    if sign is None:
        return _excess(slope, slope_without, count), np.zeros(count.shape)
    change = (level / strength)[:, None, None]
    direct = inside(share[:, None] * sum_r) / draws - change * slope
    direct_without = inside(share[:, None] * (sum_r - residual)) / (draws - 1) - change * slope_without
    return _excess(slope, slope_without, count), _excess(direct, direct_without, count)


def _excess(each: FloatArray, without: FloatArray, count: npt.NDArray[np.int_]) -> FloatArray:
    """Return by how much the squares (fits, 1, G) of the groups' shares exceed their jackknife variances over draws."""
    noise = without.var(axis=1) * (without.shape[1] - 1)
    excess = np.maximum((each[:, 0] ** 2 - noise).sum(axis=-1), 0)
    return np.where(count > 1, excess * count / np.maximum(count - 1, 1), 0.0)


def _pair_sums(matrix: FloatArray) -> PairSums:
    draws = matrix.shape[-1]
    total = np.asarray(matrix.sum(axis=(-2, -1)))
    involved = matrix.sum(axis=-1) + matrix.sum(axis=-2)
    mean = total / max(draws * (draws - 1), 1)
    return PairSums(mean, (total[..., None] - involved) / max((draws - 1) * (draws - 2), 1))


def _rows(values: FloatArray, batch: tuple[int, ...], rows: tuple[npt.NDArray[np.intp], ...]) -> FloatArray:
    return values[rows] if batch else values[None]


def _joined(parts: list[PairSums], batch: tuple[int, ...]) -> PairSums:
    without = np.concatenate([part.without for part in parts])
    mean = np.concatenate([part.mean for part in parts])
    return PairSums(mean.reshape(batch), without.reshape(*batch, without.shape[-1]))
