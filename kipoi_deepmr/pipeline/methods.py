"""The methods of the configuration as functions of `kipoi_deepmr.mr`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kipoi_deepmr import mr
from kipoi_deepmr.config import Method
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.pipeline.summary import Summary

STORED = "stored"


@dataclass(frozen=True)
class Estimator:
    """What a method's name stands for.

    Attributes
    ----------
    function : str
        Name in `kipoi_deepmr.mr`.
    options : mapping
        Its fixed options; ``stored`` stands for the correlation of the two errors of each mutation in the store.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)


_DELTA = {"weights": "delta", "psi": STORED}
ESTIMATORS: Mapping[str, Estimator] = {
    "ivw": Estimator("ivw"),
    "ivw_fixed": Estimator("ivw", {"model": "fixed"}),
    "ivw_delta": Estimator("ivw", _DELTA),
    "ivw_penalized": Estimator("ivw", {"penalized": True}),
    "egger": Estimator("egger"),
    "egger_delta": Estimator("egger", _DELTA),
    "egger_penalized": Estimator("egger", {"penalized": True}),
}


def estimate(method: Method, summary: Summary, alpha: float) -> Any:
    """Estimate with a method.

    Parameters
    ----------
    method
        The method.
    summary
        Instruments of some sequences.
    alpha
        1 - confidence level of the intervals.

    Returns
    -------
    object
        The result of the function of `kipoi_deepmr.mr`; its arrays have the leading axes of the summary.

    Raises
    ------
    ConfigError
        If the options cannot be combined.
    """
    estimator = ESTIMATORS[method.estimator]
    options = {**estimator.options, **method.options}
    if options.get("psi") == STORED:
        options["psi"] = summary.correlation
    function = getattr(mr, estimator.function)
    try:
        return function(summary.bx, summary.bxse, summary.by, summary.byse, alpha=alpha, **options)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"mr.methods: {method.name}: {error}") from error
