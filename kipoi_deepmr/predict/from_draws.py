"""What a run asks of the estimators that need every draw: they are fitted while the draws are in memory."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kipoi_deepmr.cube import Drawn


class FromDraws(Protocol):
    """The estimators as whoever joins predict and estimate hands them in; see `estimate.from_draws.during_the_run`."""

    @property
    def drawn(self) -> Drawn | None:
        """What is estimated and stored beside the effects; None for nothing."""

    def check_members(self, members: int) -> None:
        """Raise ConfigError where an estimator needs draws that those of so many networks are not."""

    def estimate(
        self, draws: NDArray[np.float32], bound: NDArray[np.bool_], drawn: Drawn, standard_error: str
    ) -> Mapping[str, NDArray[Any]]:
        """Return the estimates of a block of sequences, the variables of `terms.FROM_DRAWS`."""


class NoEstimators:
    """Effects alone: nothing is estimated while the draws are in memory."""

    drawn: Drawn | None = None

    def check_members(self, members: int) -> None:
        """Accept any number of networks."""

    def estimate(
        self, draws: NDArray[np.float32], bound: NDArray[np.bool_], drawn: Drawn, standard_error: str
    ) -> Mapping[str, NDArray[Any]]:
        """Return no estimates."""
        return {}


NO_ESTIMATORS = NoEstimators()
