"""The designs of the simulation study, and draws of networks whose causal effect is known."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kipoi_deepmr import effects

Array = np.ndarray[Any, Any]

DRAWS = 50
ALLELES = 3
F_STATISTICS = (2, 5, 20, 100)
CORRELATIONS = (0.0, 0.4, 0.8)
FACTORS = (2, 8, 64)
PLEIOTROPY = ("none", "balanced", "directional", "correlated")
SLOPES = (0.0, 0.2)
# Mean correlation of the errors of two instruments, oriented to positive effects: 0.01 to 0.02 in the example's network.
COHERENCE = 0.03
# Of variants with a pleiotropic effect, and its size in units of the exposure effects.
INVALID = 0.3
PLEIOTROPIC = 0.5
# Correlation that three mutants of a position have in their loadings.
WITHIN_POSITION = 0.5


@dataclass(frozen=True)
class Errors:
    """What determines the errors of all instruments.

    Attributes
    ----------
    correlation : float
        Of the errors of exposure and outcome of a variant within a draw.
    factors : int
        Independent factors that make all errors of a draw.
    coherence : float
        Mean correlation of the errors of two instruments, oriented to positive exposure effects.
    """

    correlation: float
    factors: int
    coherence: float = COHERENCE


@dataclass(frozen=True)
class Cell:
    """One condition: errors, mean F statistic of the instruments, pleiotropy, and the causal effect."""

    errors: Errors
    f_statistic: float
    pleiotropy: str
    slope: float


@dataclass(frozen=True)
class Noise:
    """Errors of a block of replications and their moments over draws, as a run stores them.

    Attributes
    ----------
    u, v : numpy.ndarray, shape=(replications, draws, variants)
        Errors of exposure and outcome in each draw.
    monte_carlo, posterior : kipoi_deepmr.effects.Effects
        Their means over draws with both kinds of standard error, variants as (replications, variants).
    """

    u: Array
    v: Array
    monte_carlo: effects.Effects
    posterior: effects.Effects

    @classmethod
    def of(cls, u: Array, v: Array) -> "Noise":
        """Take the moments of errors."""
        count, draws, variants = u.shape
        mean = np.stack([u.mean(axis=1), v.mean(axis=1)], axis=-1)
        deviations = u - mean[:, None, :, 0], v - mean[:, None, :, 1]
        squares = np.stack([(deviation**2).sum(axis=1) for deviation in deviations], axis=-1)
        cross = (deviations[0] * deviations[1]).sum(axis=1)
        monte_carlo, posterior = (
            effects.from_moments(
                mean.reshape(-1, 2), squares.reshape(-1, 2), cross.reshape(-1, 1, 1), draws, kind
            ).reshaped((count, variants))
            for kind in ("monte_carlo", "posterior")
        )
        return cls(u, v, monte_carlo, posterior)


@dataclass(frozen=True)
class Sample:
    """Replications of one condition: true effects plus errors.

    Attributes
    ----------
    effect, outcome : numpy.ndarray, shape=(replications, variants)
        True effects on exposure and outcome.
    noise : Noise
        Their errors, of at least as many replications.
    """

    effect: Array
    outcome: Array
    noise: Noise

    @property
    def x(self) -> Array:
        """Effects on the exposure in each draw, shape (replications, draws, variants)."""
        return self.effect[:, None] + self.noise.u[: len(self.effect)]

    @property
    def y(self) -> Array:
        """Effects on the outcome in each draw, shape (replications, draws, variants)."""
        return self.outcome[:, None] + self.noise.v[: len(self.effect)]

    @property
    def monte_carlo(self) -> tuple[Array, Array, Array, Array]:
        """The arrays bx, bxse, by, byse with the standard errors of the means."""
        return self._columns(self.noise.monte_carlo)

    @property
    def posterior(self) -> tuple[Array, Array, Array, Array]:
        """The arrays bx, bxse, by, byse with the standard deviations over draws."""
        return self._columns(self.noise.posterior)

    @property
    def psi(self) -> Array:
        """Correlation of the two errors of each variant, from the stored covariance."""
        found, count = self.noise.monte_carlo, len(self.effect)
        psi = found.error_covariance[0, 0] / (found.exposure_se[0] * found.outcome_se[0])
        return np.clip(psi[:count], -1, 1)

    @property
    def positions(self) -> Array:
        """Position of each variant, shape (variants,)."""
        return np.arange(self.effect.shape[-1]) // ALLELES

    def first(self, count: int) -> "Sample":
        """Return the first replications."""
        return Sample(self.effect[:count], self.outcome[:count], self.noise)

    def _columns(self, errors: effects.Effects) -> tuple[Array, Array, Array, Array]:
        count = len(self.effect)
        return (
            self.effect + errors.exposure_effect[0, :count],
            errors.exposure_se[0, :count],
            self.outcome + errors.outcome_effect[0, :count],
            errors.outcome_se[0, :count],
        )


def factorial(errors: Errors) -> Iterator[Cell]:
    """Yield the cells that share their errors: all F statistics, kinds of pleiotropy and slopes."""
    for f_statistic, pleiotropy, slope in itertools.product(F_STATISTICS, PLEIOTROPY, SLOPES):
        yield Cell(errors, f_statistic, pleiotropy, slope)


@dataclass(frozen=True)
class Replications:
    """Random parts of a block of replications: what stays when the strength, pleiotropy or slope changes.

    Attributes
    ----------
    effect : numpy.ndarray, shape=(replications, variants)
        Exposure effects, in units of their root mean square.
    noise : Noise
        Errors of exposure and outcome, of variance 1 in each draw.
    invalid : numpy.ndarray of bool, shape=(replications, variants)
        Which variants are pleiotropic.
    own : numpy.ndarray, shape=(replications, variants)
        Standard normal part of the pleiotropic effects.
    """

    effect: Array
    noise: Noise
    invalid: Array
    own: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, errors: Errors, count: int, variants: int) -> "Replications":
        """Draw `count` replications of `variants` instruments."""
        effect = rng.standard_normal((count, variants))
        noise = Noise.of(*draw_errors(rng, errors, np.sign(effect), DRAWS))
        invalid = rng.random(effect.shape) < INVALID
        return cls(effect, noise, invalid, rng.standard_normal(effect.shape))

    def sample(self, cell: Cell) -> Sample:
        """Return the draws of a condition; the mean over draws has an error variance of 1 / DRAWS."""
        size = np.sqrt((cell.f_statistic - 1) / DRAWS)
        effect = size * self.effect
        sign = np.sign(effect)
        pleiotropic = {
            "none": 0.0 * effect,
            "balanced": PLEIOTROPIC * size * self.own,
            "directional": PLEIOTROPIC * size * sign * (1 + self.own / 2),
            "correlated": PLEIOTROPIC * (effect + size * self.own / 2),
        }[cell.pleiotropy]
        outcome = cell.slope * effect + np.where(self.invalid, pleiotropic, 0.0)
        return Sample(effect, outcome, self.noise)


def draw_errors(rng: np.random.Generator, errors: Errors, sign: Array, draws: int) -> tuple[Array, Array]:
    """Return errors of exposure and outcome, each of shape (count, draws, variants) and of variance 1.

    An error is a variant's unit vector of loadings times the draw's independent normal factors. Loadings of exposure and
    outcome have the wanted correlation in every variant; a common direction makes the errors cohere.
    """
    first, second = (_loadings(rng, errors, sign.shape) for _ in range(2))
    second = _unit(second - (second * first).sum(-1, keepdims=True) * first)
    second = errors.correlation * first + np.sqrt(1 - errors.correlation**2) * second
    factor = rng.standard_normal((sign.shape[0], draws, errors.factors))
    return tuple(factor @ np.swapaxes(loading * sign[..., None], 1, 2) for loading in (first, second))


def draw_mutagenesis(rng: np.random.Generator, count: int, variants: int, strong: int, slope: float) -> Sample:
    """Draw a saturation mutagenesis: few strong variants among near-zero ones, errors that grow with the effect.

    Standard errors of the means are 5% of the exposure effect + 0.01, and 6% of the outcome effect + 0.012. The part
    that grows is a gain per draw with a skew, so that the SD over draws goes with the error of the mean.
    """
    effect = 0.003 * rng.standard_normal((count, variants))
    effect[:, :strong] = 0.5 * rng.standard_normal((count, strong))
    sign = np.sign(effect)
    gains = draw_errors(rng, Errors(0.6, 8), np.ones(effect.shape), DRAWS)
    gains = [(np.exp(0.5 * gain) - np.exp(0.125)) / np.sqrt(np.exp(0.5) - np.exp(0.25)) for gain in gains]
    levels = draw_errors(rng, Errors(0.4, 20), sign, DRAWS)
    root, outcome = np.sqrt(DRAWS), slope * effect
    u = root * (0.05 * effect[:, None] * gains[0] + 0.01 * levels[0])
    v = root * (0.06 * outcome[:, None] * gains[1] + 0.012 * levels[1])
    return Sample(effect, outcome, Noise.of(u, v))


def _loadings(rng: np.random.Generator, errors: Errors, shape: tuple[int, int]) -> Array:
    count, variants = shape
    positions = -(-variants // ALLELES)
    shared = rng.standard_normal((count, positions, errors.factors)).repeat(ALLELES, axis=1)[:, :variants]
    own = rng.standard_normal((count, variants, errors.factors))
    loading = np.sqrt(WITHIN_POSITION) * shared + np.sqrt(1 - WITHIN_POSITION) * own
    common = np.sqrt(errors.coherence / (1 - errors.coherence))
    return _unit(loading + common * rng.choice([-1.0, 1.0], (count, 1, errors.factors)))


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
