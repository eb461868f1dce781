"""Estimators of the variance between studies, tau2, each with its asymptotic standard error."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.meta._studies import FloatArray, Studies, Weighted, dot

# Points per factor of ten of the grid that brackets the maxima of a likelihood; each 1 / (variance + tau2) changes
# over about a factor of ten in tau2, so no maximum is narrower than that.
_GRID_DENSITY = 8
_MAX_ITERATIONS = 200


def _moment_se(studies: Studies, tau2: FloatArray, at: Weighted, scale: FloatArray) -> FloatArray:
    pairs = studies.n - 1
    return np.sqrt(2 * pairs + 4 * tau2 * at.trace + 2 * tau2**2 * at.trace_square) / scale


def _fixed_effect(studies: Studies) -> tuple[FloatArray, FloatArray]:
    zero = np.zeros(studies.n.shape)
    return zero, zero + np.nan


def _dersimonian_laird(studies: Studies) -> tuple[FloatArray, FloatArray]:
    at = Weighted(studies, np.zeros(studies.n.shape))
    tau2 = np.maximum((at.q - (studies.n - 1)) / at.trace, 0)
    return tau2, _moment_se(studies, tau2, at, at.trace)


def _hunter_schmidt(studies: Studies) -> tuple[FloatArray, FloatArray]:
    at = Weighted(studies, np.zeros(studies.n.shape))
    tau2 = np.maximum((at.q - studies.n) / at.total, 0)
    return tau2, _moment_se(studies, tau2, at, at.total)


def _hedges(studies: Studies) -> tuple[FloatArray, FloatArray]:
    n, v = studies.n, np.where(studies.present, studies.v, 0.0)
    pairs = n - 1
    tau2 = np.maximum(_sum_of_squares(studies) / pairs - v.sum(axis=-1) / n, 0)
    sum_v, sum_v2 = v.sum(axis=-1), dot(v, v)
    error = sum_v2 * (1 - 2 / n) + (sum_v / n) ** 2
    return tau2, np.sqrt(2 * error + 4 * tau2 * sum_v * pairs / n + 2 * tau2**2 * pairs) / pairs


def _sidik_jonkman(studies: Studies) -> tuple[FloatArray, FloatArray]:
    start = _sum_of_squares(studies) / studies.n
    at, pairs = Weighted(studies, start), studies.n - 1
    tau2 = np.where(start > 0, start * at.q / pairs, 0.0)
    w, v = at.w, np.where(studies.present, studies.v, 0.0)
    wv, w2 = w * v, dot(w, w)
    trace_pvpv = dot(wv, wv) - 2 * dot(wv**2, w) / at.total + (dot(wv, w) / at.total) ** 2
    diagonal = w**2 - 2 * w**3 / at.total[:, None] + w**2 * (w2 / at.total**2)[:, None]
    error = 2 * trace_pvpv + 4 * tau2 * dot(v, diagonal) + 2 * tau2**2 * at.trace_square
    return tau2, np.where(start > 0, start / pairs * np.sqrt(error), 0.0)


def _sum_of_squares(studies: Studies) -> FloatArray:
    centre = studies.y.sum(axis=-1) / studies.n
    deviation = np.where(studies.present, studies.y - centre[:, None], 0.0)
    return dot(deviation, deviation)


def _paule_mandel(studies: Studies) -> tuple[FloatArray, FloatArray]:
    tau2 = _solve(studies, _excess_q, None)
    at = Weighted(studies, tau2)
    return tau2, np.sqrt(2 * studies.n**2 / (studies.n - 1)) / at.total


def _ml(studies: Studies) -> tuple[FloatArray, FloatArray]:
    tau2 = _solve(studies, ml_score, log_likelihood)
    at = Weighted(studies, tau2)
    return tau2, np.sqrt(2 / dot(at.w, at.w))


def _reml(studies: Studies) -> tuple[FloatArray, FloatArray]:
    tau2 = _solve(studies, reml_score, restricted_log_likelihood)
    return tau2, np.sqrt(2 / Weighted(studies, tau2).trace_square)


TAU2: dict[str, Callable[[Studies], tuple[FloatArray, FloatArray]]] = {
    "FE": _fixed_effect,
    "DL": _dersimonian_laird,
    "HE": _hedges,
    "HS": _hunter_schmidt,
    "SJ": _sidik_jonkman,
    "PM": _paule_mandel,
    "EB": _paule_mandel,
    "ML": _ml,
    "REML": _reml,
}

Score = Callable[[Studies, FloatArray], tuple[FloatArray, FloatArray]]
Likelihood = Callable[[Studies, FloatArray], FloatArray]
Falling = Callable[[npt.NDArray[np.intp], FloatArray], tuple[FloatArray, FloatArray]]


def generalised_q(studies: Studies, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Q with weights 1 / (v + tau2), which falls with tau2, and its slope."""
    at = Weighted(studies, tau2)
    return at.q, -dot(at.weighted_residual, at.weighted_residual)


def _excess_q(studies: Studies, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
    q, slope = generalised_q(studies, tau2)
    return q - (studies.n - 1), slope


def _quadratic_forms(at: Weighted) -> tuple[FloatArray, FloatArray]:
    py = at.weighted_residual
    centred = py - (dot(at.w, py) / at.total)[:, None]
    return dot(py, py), dot(at.w * centred, centred)


def ml_score(studies: Studies, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the first and second derivative of `log_likelihood`."""
    at = Weighted(studies, tau2)
    yppy, ypppy = _quadratic_forms(at)
    return (yppy - at.total) / 2, dot(at.w, at.w) / 2 - ypppy


def reml_score(studies: Studies, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the first and second derivative of `restricted_log_likelihood`."""
    at = Weighted(studies, tau2)
    yppy, ypppy = _quadratic_forms(at)
    return (yppy - at.trace) / 2, at.trace_square / 2 - ypppy


def log_likelihood(studies: Studies, tau2: FloatArray) -> FloatArray:
    """Return the log-likelihood at its best mean, up to a constant."""
    at = Weighted(studies, tau2)
    log_variance = np.where(studies.present, np.log(studies.v + tau2[:, None]), 0.0).sum(axis=-1)
    return np.asarray(-(log_variance + at.q) / 2)


def restricted_log_likelihood(studies: Studies, tau2: FloatArray) -> FloatArray:
    """Return the restricted log-likelihood, up to a constant."""
    return np.asarray(log_likelihood(studies, tau2) - np.log(Weighted(studies, tau2).total) / 2)


def _solve(studies: Studies, score: Score, likelihood: Likelihood | None) -> FloatArray:
    """Return the tau2 >= 0 where `score` falls through zero; of several, and zero itself, the most likely one."""
    edges = tau2_grid(studies, _beyond_every_maximum(studies))
    signs = np.sign(over_grid(edges, lambda tau2: score(studies, tau2)[0]))
    row, cell = np.nonzero((signs[:, :-1] > 0) & (signs[:, 1:] <= 0))
    found = studies.rows(row)
    roots = safeguarded_newton(
        lambda index, tau2: score(found.rows(index), tau2), edges[row, cell], edges[row, cell + 1]
    )
    best = np.zeros(studies.n.shape)
    if likelihood is None:
        best[row] = roots
        return best
    height = likelihood(found, roots)
    # Writing in the order of increasing height leaves the highest of each batch.
    rising = np.lexsort((height, row))
    top = np.full(studies.n.shape, -np.inf)
    best[row[rising]], top[row[rising]] = roots[rising], height[rising]
    return np.where(top >= likelihood(studies, np.zeros(studies.n.shape)), best, 0.0)


def _beyond_every_maximum(studies: Studies) -> FloatArray:
    """Return a tau2 from which on every score is negative.

    With range R of the effects, sum w^2 r^2 <= k R^2 / tau2^2, while both traces exceed (k - 1) / (4 tau2) for
    tau2 >= max(v): every score is negative from max(v, 8 R^2) on.
    """
    return np.asarray(1.01 * np.maximum(studies.largest_variance, 8 * studies.range**2))


def tau2_grid(studies: Studies, high: FloatArray) -> FloatArray:
    """Return grid points (B, G) of tau2: 0, then equal steps of its logarithm up to `high`.

    Below a thousandth of the smallest variance the weights, hence a score, are constant to that precision.
    """
    low = studies.v[:, 0] / 1000
    high = np.maximum(high, 2 * low)
    decades = np.log10(high / low)
    decades = np.where(np.isfinite(decades), decades, 1.0)
    count = 2 + int(np.ceil(_GRID_DENSITY * decades.max(initial=1.0)))
    steps = np.linspace(0, 1, count)
    edges = np.zeros((low.size, count + 1))
    edges[:, 1:] = low[:, None] * 10 ** (decades[:, None] * steps)
    return edges


def over_grid(edges: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the function of tau2 at each point of the grid."""
    return np.stack([function(edges[:, point]) for point in range(edges.shape[1])], axis=-1)


def safeguarded_newton(function: Falling, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the roots between `low` (value > 0) and `high` (value <= 0): Newton steps, bisection where they fail.

    The function takes the numbers of the roots that are still sought, and a tau2 for each.
    """
    root: FloatArray = (low + high) / 2
    last_step = high - low
    active = np.arange(root.size)
    for _ in range(_MAX_ITERATIONS):
        if active.size == 0:
            break
        here = root[active]
        value, slope = function(active, here)
        positive = value > 0
        low[active] = np.where(positive, here, low[active])
        high[active] = np.where(positive, high[active], here)
        newton = here - value / slope
        accepted = (newton > low[active]) & (newton < high[active]) & (np.abs(newton - here) < last_step[active] / 2)
        root[active] = np.where(accepted, newton, (low[active] + high[active]) / 2)
        last_step[active] = np.abs(root[active] - here)
        settled = (last_step[active] <= 1e-15 * root[active]) | (value == 0)
        root[active] = np.where(value == 0, here, root[active])
        active = active[~settled]
    return root
