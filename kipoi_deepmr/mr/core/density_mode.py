"""The highest point of weighted Gaussian kernel densities, row by row: exact, or fast for the bootstrap.

Positions are counted in bandwidths from the row's median, and kernels are exp(-d^2 / 2) without their constant. A
grid of `_CELL` bandwidths takes the weights by linear binning; its density is wrong by no more than _ERROR of the
total weight, as is the density between two of its points, because no second derivative of the kernel exceeds 1. So
the highest point lies in a cell whose density is within three errors of the best cell's. A Taylor bound of the exact
density rules out most of those, and from the others it is climbed.
"""

import math
from functools import cache

import numpy as np
from scipy import signal

from kipoi_deepmr.mr.core.blocks import row_blocks
from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray

_CELL = 1 / 8
_ERROR = _CELL**2 / 8
# Kernels beyond this distance vanish beside rounding, and do so by exp(-d^2 / 2) at the shorter one.
_REACH, _NEAR = 10.0, 5.0
# No third derivative of the kernel exceeds this.
_THIRD = 1.3802
_NOWHERE = 1e3
_STEPS, _SETTLED = 100, 1e-12
_TIE = 1e-10


def bandwidth(values: FloatArray, count: FloatArray, phi: float) -> tuple[FloatArray, FloatArray]:
    """Return the rows' medians and bandwidths phi 0.9 min(sd, 1.4826 MAD) / n^0.2; values that are inf are absent."""
    ordered = np.sort(values, axis=-1)
    centre = _middle(ordered, count)
    deviation = ordered - centre[:, None]
    np.copyto(deviation, 0.0, where=np.isinf(ordered))
    mean = deviation.sum(axis=-1) / count
    variance = (np.einsum("ij,ij->i", deviation, deviation) - count * mean**2) / (count - 1)
    np.abs(deviation, out=deviation)
    np.copyto(deviation, np.inf, where=np.isinf(ordered))
    deviation.sort(axis=-1)
    spread = np.minimum(np.sqrt(np.maximum(variance, 0)), 1.4826 * _middle(deviation, count))
    return centre, phi * 0.9 * spread / count**0.2


def exact_modes(
    values: FloatArray, weights: FloatArray, count: FloatArray, phi: float
) -> tuple[FloatArray, FloatArray]:
    """Return the rows' modes and bandwidths; of several modes of one height, the one of the least absolute value.

    `weights` add up to 1 in each row. A bandwidth of 0 gives the value with the greatest total weight, the limit.
    """
    modes, widths = np.full(values.shape[0], np.nan), np.full(values.shape[0], np.nan)
    for block in row_blocks(*values.shape):
        centre, width = bandwidth(values[block], count[block], phi)
        widths[block] = width
        smooth = np.flatnonzero((width > 0) & np.isfinite(width))
        rows = np.arange(block.start, block.stop)
        position = (values[rows[smooth]] - centre[smooth, None]) / width[smooth, None]
        peaks = _highest(position, weights[rows[smooth]], centre[smooth] / width[smooth], phi)
        modes[rows[smooth]] = centre[smooth] + peaks * width[smooth]
        for row in rows[(width == 0)]:
            modes[row] = _heaviest(values[row], weights[row])
    return modes, widths


def fast_modes(values: FloatArray, weights: FloatArray, count: FloatArray, phi: float) -> FloatArray:
    """Return the rows' modes to about a hundredth of a bandwidth: the grid's best cell and a parabola through it."""
    centre, width = bandwidth(values, count, phi)
    position = (values - centre[:, None]) / width[:, None]
    half_range = _half_range(values.shape[-1], phi)
    density, certain = _binned(position, weights, half_range)
    best = np.clip(np.argmax(density, axis=-1), 1, density.shape[-1] - 2)
    rows = np.arange(best.size)
    left, top, right = (density[rows, best + step] for step in (-1, 0, 1))
    bend = left - 2 * top + right
    shift = np.where(bend < 0, (left - right) / 2 / np.where(bend < 0, bend, 1), 0.0)
    peaks = (best + np.clip(shift, -1, 1)) * _CELL - half_range
    unsure = np.flatnonzero(~certain & (width > 0) & np.isfinite(width))
    if unsure.size:
        peaks[unsure] = _highest(position[unsure], weights[unsure], centre[unsure] / width[unsure], phi)
    return np.where(width > 0, centre + peaks * width, centre)


def _middle(ordered: FloatArray, count: FloatArray) -> FloatArray:
    size = count.astype(np.intp)
    rows = np.arange(ordered.shape[0])
    middle = (
        ordered[rows, np.maximum(size - 1, 0) // 2] + ordered[rows, np.minimum(size // 2, ordered.shape[1] - 1)]
    ) / 2
    return np.asarray(middle, dtype=np.float64)


def _half_range(n_variants: int, phi: float) -> float:
    # Eight MADs where the MAD sets the bandwidth; what is heavier outside is noticed and searched there.
    return float(math.ceil(max(16.0, 6.0 * n_variants**0.2 / phi)))


@cache
def _kernel(n_cells: int) -> FloatArray:
    cells = np.arange(n_cells) * _CELL
    return np.exp(-0.5 * (cells[:, None] - cells) ** 2)


def _binned(position: FloatArray, weights: FloatArray, half_range: float) -> tuple[FloatArray, BoolArray]:
    """Return the density on the grid, and where no cell outside of it can be higher."""
    n_rows = position.shape[0]
    n_cells = round(2 * half_range / _CELL) + 1
    scaled = position * (1 / _CELL)
    scaled += half_range / _CELL
    inside = (scaled >= 0) & (scaled < n_cells - 1)
    np.copyto(scaled, 0.0, where=~inside)
    kept = weights * inside
    cell = scaled.astype(np.intp)
    scaled -= cell
    scaled *= kept
    cell += (np.arange(n_rows) * n_cells)[:, None]
    size = n_rows * n_cells
    binned = np.bincount(cell.ravel(), (kept - scaled).ravel(), minlength=size)
    binned[1:] += np.bincount(cell.ravel(), scaled.ravel(), minlength=size)[:-1]
    held = binned.reshape(n_rows, n_cells)
    density = held @ _kernel(n_cells)
    margin = round(_NEAR / _CELL)
    elsewhere = 1 - held[:, margin:-margin].sum(axis=-1)
    surely = density.max(axis=-1) - math.exp(-0.5 * _NEAR**2) - 3 * _ERROR
    certain = elsewhere < surely
    for row in np.flatnonzero(~certain):
        certain[row] = _heaviest_window(position[row], weights[row], half_range - _NEAR) < surely[row]
    return density, np.asarray(certain)


def _heaviest_window(position: FloatArray, weights: FloatArray, beyond: float) -> float:
    """Return the greatest weight within 2 _NEAR bandwidths anywhere farther out than `beyond`."""
    held = np.flatnonzero(np.isfinite(position) & (np.abs(position) >= beyond))
    order = held[np.argsort(position[held])]
    if order.size == 0:
        return 0.0
    ordered, total = position[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    end = np.searchsorted(ordered, ordered + 2 * _NEAR, side="right")
    return float((total[end] - total[:-1]).max())


def _highest(position: FloatArray, weights: FloatArray, origin: FloatArray, phi: float) -> FloatArray:
    """Return the exact highest points; `origin` is the position's zero, which decides between equal ones."""
    half_range = _half_range(position.shape[1], phi)
    density, certain = _binned(position, weights, half_range)
    near_best = (density >= density.max(axis=-1, keepdims=True) - 3 * _ERROR) & certain[:, None]
    row, cell = np.nonzero(near_best)
    start = np.asarray(cell * _CELL - half_range, dtype=np.float64)
    for far in np.flatnonzero(~certain):
        starts = _starts_anywhere(position[far], weights[far])
        row = np.append(row, np.full(starts.size, far))
        start = np.asarray(np.append(start, starts), dtype=np.float64)
    height, slope, bend = np.empty((3, row.size))
    for block in row_blocks(row.size, position.shape[1]):
        held = row[block]
        height[block], slope[block], bend[block] = _taylor(position[held], weights[held], start[block])
    best = np.zeros(position.shape[0])
    np.maximum.at(best, row, height)
    reachable = height + np.abs(slope) * _CELL / 2 + np.maximum(bend, 0) * _CELL**2 / 8 + _THIRD * _CELL**3 / 48
    kept = reachable >= best[row]
    row, start = row[kept], start[kept]
    peak, height = np.empty((2, row.size))
    for block in row_blocks(row.size, position.shape[1]):
        peak[block], height[block] = _climb(position[row[block]], weights[row[block]], start[block])
    np.maximum.at(best, row, height)
    lower = height < best[row] * (1 - _TIE)
    order = np.lexsort((np.abs(origin[row] + peak), lower, row))
    first = order[np.unique(row[order], return_index=True)[1]]
    result = np.full(position.shape[0], np.nan)
    result[row[first]] = peak[first]
    return result


def _starts_anywhere(position: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the cells near the best one of one row, wherever they are: gaps without any density are cut short."""
    held = np.flatnonzero(np.isfinite(position) & (weights > 0))
    order = held[np.argsort(position[held])]
    gaps = np.diff(position[order], prepend=position[order[0]])
    shortened = np.cumsum(np.minimum(gaps, 2 * _REACH)) + _REACH
    scaled = shortened / _CELL
    cell = scaled.astype(np.intp)
    part = (scaled - cell) * weights[order]
    size = int(cell[-1]) + 2 + round(_REACH / _CELL)
    binned = np.bincount(cell, weights[order] - part, minlength=size)
    binned += np.bincount(cell + 1, part, minlength=size)
    reach = np.arange(-_REACH, _REACH + _CELL / 2, _CELL)
    density = signal.oaconvolve(binned, np.exp(-0.5 * reach**2), mode="same")
    start = np.flatnonzero(density >= density.max() - 3 * _ERROR) * _CELL
    nearest = (
        np.clip(np.searchsorted(shortened, start), 1, order.size - 1) if order.size > 1 else np.zeros(start.size, int)
    )
    before = np.maximum(nearest - 1, 0)
    nearest = np.where(start - shortened[before] < shortened[nearest] - start, before, nearest)
    return np.asarray(position[order[nearest]] + start - shortened[nearest])


def _climb(position: FloatArray, weights: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the local maximum above each start and its height: Newton, or mean shift where the density is convex."""
    point = start.copy()
    for _ in range(_STEPS):
        height, slope, bend = _taylor(position, weights, point)
        newton = -slope / bend
        step = np.where((bend < 0) & (np.abs(newton) < 2 * _CELL), newton, slope / height)
        point += step
        if not np.any(np.abs(step) > _SETTLED):
            break
    return point, _taylor(position, weights, point)[0]


def _taylor(position: FloatArray, weights: FloatArray, point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the density of each row at its point, and the first and second derivative."""
    distance = position - point[:, None]
    np.copyto(distance, _NOWHERE, where=np.isinf(distance))
    moment = np.exp(-0.5 * distance**2)
    moment *= weights
    height = moment.sum(axis=-1)
    moment *= distance
    slope = moment.sum(axis=-1)
    moment *= distance
    return height, slope, moment.sum(axis=-1) - height


def _heaviest(values: FloatArray, weights: FloatArray) -> float:
    finite = np.isfinite(values)
    distinct, which = np.unique(values[finite], return_inverse=True)
    total = np.bincount(which, weights[finite])
    best = distinct[total >= total.max() * (1 - _TIE)]
    return float(best[np.argmin(np.abs(best))])
