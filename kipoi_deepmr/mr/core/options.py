"""The options that the regressions have in common."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import BoolArray, IntArray, check_alpha, check_option

_FIXED_BELOW = 4


@dataclass(frozen=True)
class RegressionOptions:
    """Options of `ivw` and `egger`, checked."""

    model: str
    robust: bool
    penalized: bool
    weights: str
    correlation: npt.ArrayLike | None
    distribution: str
    alpha: float

    def degrees_of_freedom(self, n_instruments: IntArray, coefficients: int) -> IntArray | None:
        """Return those of Student's t, or None for the normal distribution."""
        return n_instruments - coefficients if self.distribution == "t-dist" else None


def is_random(model: str, n_instruments: IntArray) -> BoolArray:
    """Return where the standard error is multiplied by max(RSE, 1)."""
    return np.asarray(n_instruments >= _FIXED_BELOW if model == "default" else model == "random", dtype=np.bool_)


def check_options(model: str, robust: bool, penalized: bool, weights: str, distribution: str, alpha: float) -> None:
    """Raise for an option that is not known."""
    check_option("model", model, ("default", "random", "fixed"))
    check_option("robust", robust, (True, False))
    check_option("penalized", penalized, (True, False))
    check_option("weights", weights, ("simple", "delta"))
    check_inference(distribution, alpha)


def check_inference(distribution: str, alpha: float) -> None:
    """Raise for a distribution or a level that is not known."""
    check_option("distribution", distribution, ("normal", "t-dist"))
    check_alpha(alpha)


def ignore_with_correlation(robust: bool, penalized: bool, weights: str) -> tuple[bool, bool, str]:
    """Return the options of ordinary generalised least squares, and warn of those that were asked for."""
    asked = {"robust=True": robust, "penalized=True": penalized, "weights='delta'": weights != "simple"}
    ignored = ", ".join(option for option, given in asked.items() if given)
    if ignored:
        # Above this function: the estimator, the wrapper of its errstate, the caller.
        warnings.warn(
            f"with a correlation matrix the estimate is that of generalised least squares, as in R: {ignored} ignored; "
            "leave out one or the other",
            UserWarning,
            stacklevel=4,
        )
    return False, False, "simple"
