"""Effects of mutations: one-pass moments over draws, and what a standard error means."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

StandardError = Literal["posterior", "monte_carlo"]
FloatArray = NDArray[np.float64]


class Moments:
    """Mean, sum of squares and cross products over draws, updated one draw at a time (Welford 1962).

    Works on numpy arrays and on torch tensors of any device; nothing but the moments is kept, unless `kept` is filled.

    Parameters
    ----------
    exposures
        Number of columns that are exposures; the columns after them are outcomes.
    """

    def __init__(self, exposures: int) -> None:
        self.exposures = exposures
        self.draws = 0
        self.mean: Any = None
        self.squares: Any = None
        self.cross: Any = None
        self.kept: list[Any] = []

    def add(self, values: Any) -> None:
        """Add one draw.

        Parameters
        ----------
        values : array, shape=(rows, exposures + outcomes), float64
            Effects (or predictions) of this draw.
        """
        if self.draws == 0:
            self.mean = values * 0.0
            self.squares = values * 0.0
            self.cross = values[:, : self.exposures, None] * values[:, None, self.exposures :] * 0.0
        self.draws += 1
        before = values - self.mean
        self.mean = self.mean + before / self.draws
        after = values - self.mean
        self.squares += before * after
        self.cross += before[:, : self.exposures, None] * after[:, None, self.exposures :]


@dataclass(frozen=True)
class Effects:
    """Effects of a set of variants on exposures and outcomes.

    Attributes
    ----------
    exposure_effect, exposure_se : numpy.ndarray, shape=(exposure, ...), float64
        Mean over draws of mutant minus reference, and its standard error.
    outcome_effect, outcome_se : numpy.ndarray, shape=(outcome, ...), float64
        Likewise for outcomes.
    error_covariance : numpy.ndarray, shape=(exposure, outcome, ...), float64
        Covariance of the errors of the two effects, on the same footing as the standard errors.
    """

    exposure_effect: FloatArray
    exposure_se: FloatArray
    outcome_effect: FloatArray
    outcome_se: FloatArray
    error_covariance: FloatArray

    def reshaped(self, shape: tuple[int, ...]) -> "Effects":
        """Return the same effects with the variants' axis unfolded to `shape`, such as (sequence, position, allele)."""
        return Effects(
            *(getattr(self, f.name).reshape(*getattr(self, f.name).shape[:-1], *shape) for f in fields(self))
        )


def from_moments(
    mean: FloatArray, squares: FloatArray, cross: FloatArray, draws: int, standard_error: StandardError = "posterior"
) -> Effects:
    """Turn moments over draws into effects with standard errors.

    Parameters
    ----------
    mean, squares
        Mean and sum of squared deviations over draws, shape (rows, exposures + outcomes).
    cross
        Sums of cross products of deviations, shape (rows, exposures, outcomes).
    draws
        Number N of draws.
    standard_error
        ``posterior``: the SD over draws, sqrt(squares / N), the spread of the effect over thinned networks.
        ``monte_carlo``: that SD / sqrt(N), the error with which N draws know the effect of the mean network.

    Returns
    -------
    Effects
        With the variants on the last axis.

    Notes
    -----
    The variance is the population variance (ddof = 0) of the difference of mutant and reference within a draw, so
    the covariance of mutant and reference is inside it.
    """
    divisor = draws if standard_error == "posterior" else draws**2
    exposures = cross.shape[1]
    effect, se = mean.T, np.sqrt(np.maximum(squares.T, 0.0) / divisor)
    return Effects(
        exposure_effect=effect[:exposures],
        exposure_se=se[:exposures],
        outcome_effect=effect[exposures:],
        outcome_se=se[exposures:],
        error_covariance=np.moveaxis(cross, 0, -1) / divisor,
    )
