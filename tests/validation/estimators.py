"""The estimators of the simulation study, each a function of a sample; how often each is repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kipoi_deepmr import mr
from tests.validation.design import DRAWS, Sample

# Bootstrap draws of medians and modes, whose standard errors are estimated again in every replication.
BOOT = 100


@dataclass(frozen=True)
class Estimator:
    """An estimator of the study.

    Attributes
    ----------
    run : callable
        From a sample to a result of `kipoi_deepmr.mr`.
    effort : str
        ``closed``, ``iterative``, ``draws``, ``slow`` or ``slowest``: decides how often it is run.
    """

    run: Callable[[Sample], Any]
    effort: str = "closed"


def _moments(function: Callable[..., Any], effort: str = "closed", *, psi: bool = False, **options: Any) -> Estimator:
    def run(sample: Sample) -> Any:
        stored = {"psi": sample.psi} if psi else {}
        return function(*sample.monte_carlo, **stored, **options)

    return Estimator(run, effort)


def _draws(function: Callable[..., Any], **options: Any) -> Estimator:
    return Estimator(lambda sample: function(sample.x, sample.y, **options), "draws")


ESTIMATORS: Mapping[str, Estimator] = {
    "ivw": _moments(mr.ivw),
    "ivw, posterior SE": Estimator(lambda sample: mr.ivw(*sample.posterior)),
    "ivw, delta weights, psi": _moments(mr.ivw, psi=True, weights="delta"),
    "ivw, penalized": _moments(mr.ivw, penalized=True),
    "ivw, clustered by position": Estimator(
        lambda sample: mr.clustered_ivw(*sample.monte_carlo, groups=sample.positions, correction="CR1")
    ),
    "egger": _moments(mr.egger),
    "egger, posterior SE": Estimator(lambda sample: mr.egger(*sample.posterior)),
    "debiased_ivw": _moments(mr.debiased_ivw),
    "penalized_ivw": _moments(mr.penalized_ivw),
    "overlap_debiased_ivw": _moments(mr.overlap_debiased_ivw, psi=True, draws=DRAWS),
    "overlap_debiased_ivw, by position": Estimator(
        lambda sample: mr.overlap_debiased_ivw(
            *sample.monte_carlo, psi=sample.psi, draws=DRAWS, groups=sample.positions
        )
    ),
    "maximum_likelihood": _moments(mr.maximum_likelihood, "iterative"),
    "maximum_likelihood, psi": _moments(mr.maximum_likelihood, "iterative", psi=True),
    "cross_fitted_ivw": _draws(mr.cross_fitted_ivw),
    "cross_fitted_ivw, F >= 10": _draws(mr.cross_fitted_ivw, min_f=10),
    "cross_fitted_egger": _draws(mr.cross_fitted_egger),
    "simple_median": _moments(mr.simple_median, "slow", n_boot=BOOT),
    "weighted_median": _moments(mr.weighted_median, "slow", n_boot=BOOT),
    "penalized_weighted_median": _moments(mr.penalized_weighted_median, "slow", n_boot=BOOT),
    "simple_mode": _moments(mr.simple_mode, "slow", n_boot=BOOT),
    "weighted_mode": _moments(mr.weighted_mode, "slow", n_boot=BOOT),
    "raps, psi": _moments(mr.raps, "slow", psi=True),
    "raps, huber, psi": _moments(mr.raps, "slow", psi=True, loss="huber"),
    "raps, over-dispersed, psi": _moments(mr.raps, "slow", psi=True, over_dispersion=True),
    "contamination_mixture": _moments(mr.contamination_mixture, "slow"),
    "lasso": _moments(mr.lasso, "slow"),
    "cml, psi": _moments(mr.cml, "slowest", psi=True, sample_size=DRAWS),
    "ivw, robust": _moments(mr.ivw, "slow", robust=True),
    "egger, robust": _moments(mr.egger, "slow", robust=True),
}
