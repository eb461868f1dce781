"""Loss functions of standardised residuals, and the moments under the normal that the sandwich formulas need."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kipoi_deepmr.mr.core.inputs import FloatArray

_HUBER, _TUKEY = 1.345, 4.685
# Beyond this the normal density is beside rounding.
_FAR = 14.0


@dataclass(frozen=True)
class Loss:
    """A loss rho with its derivatives, and its moments for standard normal Z.

    delta = E[Z rho'(Z)], c1 = E[rho'(Z)^2], c2 = E[Z^2 rho'(Z)^2] - delta^2 and c3 = E[Z^2 rho''(Z)].
    """

    rho: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    bend: Callable[[FloatArray], FloatArray]
    delta: float
    c1: float
    c2: float
    c3: float


def _moments(
    slope: Callable[[FloatArray], FloatArray], bend: Callable[[FloatArray], FloatArray], kink: float
) -> tuple[float, float, float, float]:
    nodes, weights = np.polynomial.legendre.leggauss(80)
    pieces = [(nodes + 1) * kink / 2, kink + (nodes + 1) * (_FAR - kink) / 2]
    z = np.concatenate(pieces)
    mass = np.concatenate([weights * kink, weights * (_FAR - kink)]) * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    delta = float((mass * z * slope(z)).sum())
    c1 = float((mass * slope(z) ** 2).sum())
    c2 = float((mass * (z * slope(z)) ** 2).sum()) - delta**2
    return delta, c1, c2, float((mass * z**2 * bend(z)).sum())


def _huber_rho(t: FloatArray) -> FloatArray:
    size = np.abs(t)
    return np.where(size <= _HUBER, t**2 / 2, _HUBER * (size - _HUBER / 2))


def _huber_slope(t: FloatArray) -> FloatArray:
    return np.clip(t, -_HUBER, _HUBER)


def _huber_bend(t: FloatArray) -> FloatArray:
    return (np.abs(t) <= _HUBER).astype(np.float64)


def _tukey_rho(t: FloatArray) -> FloatArray:
    return np.asarray(_TUKEY**2 / 6 * (1 - (1 - np.minimum((t / _TUKEY) ** 2, 1)) ** 3))


def _tukey_slope(t: FloatArray) -> FloatArray:
    return np.asarray(t * (1 - np.minimum((t / _TUKEY) ** 2, 1)) ** 2)


def _tukey_bend(t: FloatArray) -> FloatArray:
    u = np.minimum((t / _TUKEY) ** 2, 1)
    return np.asarray((1 - u) * (1 - 5 * u))


LOSSES = {
    "l2": Loss(lambda t: t**2 / 2, lambda t: t, np.ones_like, 1.0, 1.0, 2.0, 1.0),
    "huber": Loss(_huber_rho, _huber_slope, _huber_bend, *_moments(_huber_slope, _huber_bend, _HUBER)),
    "tukey": Loss(_tukey_rho, _tukey_slope, _tukey_bend, *_moments(_tukey_slope, _tukey_bend, _TUKEY)),
}
