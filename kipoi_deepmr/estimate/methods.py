"""The methods of the configuration as functions of `kipoi_deepmr.mr`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kipoi_deepmr import mr
from kipoi_deepmr.config import Config, Method, MRSection
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.estimate.summary import Summary

# Numbers on which methods are tried, and how often they may draw there.
_TRIED_DRAWS, _TRIED_VARIANTS = 12, 12
_TRIED = {"n_boot": 10, "n_perturb": 2}
STORED = "stored"
POSITION = "position"
ABSENT = -1
WITHOUT_DRAWS = -2


@dataclass(frozen=True)
class Estimator:
    """What a method's name stands for.

    Attributes
    ----------
    function : str
        Name in `kipoi_deepmr.mr`.
    options : mapping
        Its fixed options. ``psi: stored`` is the correlation of the two errors of each mutation, ``draws: stored`` the
        number of draws, ``groups: position`` the position of each mutation, ``sample_size: stored`` draws times
        mutations: with it BIC is the extended BIC with gamma = 1/2 (Chen and Chen 2008), which pays for the choice of
        the invalid ones among all mutations, too.
    monte_carlo : bool
        Whether it takes the errors of the mean over draws, whatever `effects.standard_error` says: it corrects the
        estimate for errors of measurement, which the spread over draws is not.
    outvoted : bool
        Whether the many mutations that hardly change a prediction decide over the few that do, unless `mr.min_f`
        leaves them out: each has one vote, or an error so small that it weighs as much as a strong one.
    joint : bool
        Whether it takes all exposures (in reverse: all outcomes) at once.
    draws : bool
        Whether it takes the effects of every draw instead of effects with errors.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    monte_carlo: bool = False
    outvoted: bool = False
    joint: bool = False
    draws: bool = False


_DELTA = {"weights": "delta", "psi": STORED}
_CLUSTERED = {"groups": POSITION}


def _raps(**options: Any) -> Estimator:
    return Estimator("raps", {"psi": STORED, **options}, monte_carlo=True, outvoted=True)


ESTIMATORS: Mapping[str, Estimator] = {
    "ivw": Estimator("ivw"),
    "ivw_fixed": Estimator("ivw", {"model": "fixed"}),
    "ivw_delta": Estimator("ivw", _DELTA, outvoted=True),
    "ivw_robust": Estimator("ivw", {"robust": True}),
    "ivw_penalized": Estimator("ivw", {"penalized": True}, outvoted=True),
    "ivw_clustered": Estimator("clustered_ivw", _CLUSTERED),
    "egger": Estimator("egger"),
    "egger_delta": Estimator("egger", _DELTA, outvoted=True),
    "egger_robust": Estimator("egger", {"robust": True}),
    "egger_penalized": Estimator("egger", {"penalized": True}),
    "egger_clustered": Estimator("clustered_egger", _CLUSTERED),
    "radial_ivw": Estimator("radial_ivw"),
    "radial_egger": Estimator("radial_egger"),
    "simple_median": Estimator("simple_median", outvoted=True),
    "weighted_median": Estimator("weighted_median"),
    "penalized_weighted_median": Estimator("penalized_weighted_median"),
    "simple_mode": Estimator("simple_mode", outvoted=True),
    "weighted_mode": Estimator("weighted_mode"),
    "maximum_likelihood": Estimator("maximum_likelihood", {"psi": STORED}, monte_carlo=True, outvoted=True),
    "maximum_likelihood_independent": Estimator("maximum_likelihood", {"psi": 0.0}, monte_carlo=True, outvoted=True),
    "debiased_ivw": Estimator("debiased_ivw", monte_carlo=True),
    "penalized_ivw": Estimator("penalized_ivw", monte_carlo=True),
    "overlap_debiased_ivw": Estimator(
        "overlap_debiased_ivw", {"psi": STORED, "draws": STORED, "groups": POSITION}, monte_carlo=True
    ),
    "raps": _raps(),
    "raps_huber": _raps(loss="huber"),
    "raps_tukey": _raps(loss="tukey"),
    "raps_over_dispersion": _raps(over_dispersion=True),
    "raps_over_dispersion_huber": _raps(over_dispersion=True, loss="huber"),
    "raps_over_dispersion_tukey": _raps(over_dispersion=True, loss="tukey"),
    "contamination_mixture": Estimator("contamination_mixture"),
    "lasso": Estimator("lasso"),
    "cml": Estimator("cml", {"psi": STORED, "sample_size": STORED}, monte_carlo=True, outvoted=True),
    "multivariable_ivw": Estimator("multivariable_ivw", joint=True),
    "multivariable_egger": Estimator("multivariable_egger", {"orientation": 0}, joint=True),
    "cross_fitted_ivw": Estimator("cross_fitted_ivw", draws=True),
    "cross_fitted_egger": Estimator("cross_fitted_egger", draws=True),
}


def blank(name: str) -> tuple[Any, Any]:
    """Return what stands in a variable where nothing was estimated, and its type."""
    if name == "status":
        return ABSENT, np.int8
    return (0, np.int64) if name.startswith("n_") else (np.nan, np.float64)


def needs_draws(method: Method) -> bool:
    """Tell whether a method takes the effects of every draw."""
    return ESTIMATORS[method.estimator].draws


def measures_the_mean(method: Method) -> bool:
    """Tell whether a method takes the errors of the mean over draws."""
    estimator = ESTIMATORS[method.estimator]
    return estimator.monte_carlo or estimator.draws


def outvoted(methods: Iterable[Method], min_f: float) -> list[str]:
    """Return the names of the methods in which mutations that hardly change a prediction decide."""
    return [method.name for method in methods if ESTIMATORS[method.estimator].outvoted and min_f <= 0]


def needs_all(method: Method) -> bool:
    """Tell whether a method takes the effects on all exposures at once."""
    return ESTIMATORS[method.estimator].joint


def check_methods(section: MRSection) -> None:
    """Try every method on a few made-up numbers, so that options that it refuses are known before any long work.

    Parameters
    ----------
    section
        The methods with their options.

    Raises
    ------
    ConfigError
        If a method cannot be called with its options.
    """
    random = np.random.default_rng(0)
    cause = random.normal(1.0, 0.1, (1, _TRIED_DRAWS, _TRIED_VARIANTS)) * np.linspace(0.5, 2, _TRIED_VARIANTS)
    effect = 0.5 * cause + random.normal(0, 0.1, cause.shape)
    for method in section.methods:
        few = {name: min(int(method.options[name]), most) for name, most in _TRIED.items() if name in method.options}
        tried = method.model_copy(update={"options": {**method.options, **few}})
        if needs_draws(method):
            estimate_from_draws(tried, cause, effect, min_f=section.min_f, alpha=section.alpha)
            continue
        estimator = ESTIMATORS[method.estimator]
        options = {**estimator.options, **tried.options}
        stored = {"psi": 0.0, "draws": _TRIED_DRAWS, "sample_size": _TRIED_DRAWS * _TRIED_VARIANTS}
        options |= {name: value for name, value in stored.items() if options.get(name) == STORED}
        if options.get("groups") == POSITION:
            options["groups"] = np.arange(_TRIED_VARIANTS) // 3
        bx, by = cause.mean(1), effect.mean(1)
        bxse, byse = np.full(bx.shape, 0.1), np.full(by.shape, 0.1)
        if estimator.joint:
            bx, bxse = np.stack([bx, bx[:, ::-1]], 1), np.stack([bxse, bxse], 1)
        _call(tried, bx, bxse, by, byse, alpha=section.alpha, **options)


def check_draws(config: Config, members: int) -> None:
    """Check that draws are independent where the error of their mean is asked for.

    The thinned networks of one member of an ensemble have its weights in common: they tell how far draws spread
    (posterior standard errors), not how well their mean is known.

    Parameters
    ----------
    config
        The settings.
    members
        Number of networks of the ensemble.

    Raises
    ------
    ConfigError
        If a member has several draws, and the standard error or a method is that of the mean over draws.
    """
    draws = config.uncertainty.draws
    if members < 2 or draws < 2:
        return
    asked = [f"mr.methods: {method.name}" for method in config.mr.methods if measures_the_mean(method)]
    if config.effects.standard_error == "monte_carlo":
        asked.insert(0, "effects.standard_error: monte_carlo")
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: the error of the mean over draws needs draws that are independent, which the {draws} thinned "
            f"networks of each of the {members} members are not. Use uncertainty.draws: 1 (a draw is then a member), or "
            "posterior standard errors with methods that take the errors as stored"
        )


def estimate(method: Method, summary: Summary, alpha: float) -> Any:
    """Estimate with a method that takes effects and their errors.

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
    if estimator.joint:
        return _estimate_jointly(method, summary, alpha, options)
    if options.get("psi") == STORED:
        options["psi"] = summary.correlation
    for name, stored in (("draws", summary.draws), ("sample_size", summary.draws * len(summary.positions))):
        if options.get(name) == STORED:
            options[name] = stored
    if options.get("groups") == POSITION:
        options["groups"] = summary.positions
    if estimator.monte_carlo:
        summary = summary.of_the_mean()
    return _call(method, summary.bx, summary.bxse, summary.by, summary.byse, alpha=alpha, **options)


def _estimate_jointly(method: Method, summary: Summary, alpha: float, options: Mapping[str, Any]) -> SimpleNamespace:
    """Return the direct effects, (outcome, sequence) each: of the exposure, or in reverse of each outcome."""
    joint = summary.joint
    if joint is None:
        raise ValueError("the summary holds one exposure alone: read it with jointly=True")
    causes, cause_se = (np.moveaxis(array, 0, -2) for array in (joint.causes, joint.cause_se))
    rows = []
    for cause, effect in joint.pairs:
        # MR-Egger makes the effects on the exposure in question positive.
        oriented = {"orientation": cause} if "orientation" in options else {}
        arrays = (causes, cause_se, joint.effects[effect], joint.effect_se[effect])
        result = _call(method, *arrays, alpha=alpha, **{**options, **oriented})
        found = {one.name: np.asarray(getattr(result, one.name)) for one in fields(result)}
        rows.append({name: array[..., cause] if array.ndim > 1 else array for name, array in found.items()})
    return SimpleNamespace(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})


def estimate_from_draws(
    method: Method, cause: NDArray[Any], effect: NDArray[Any], *, min_f: float, alpha: float
) -> Any:
    """Estimate with a method that takes every draw.

    Parameters
    ----------
    method
        The method.
    cause, effect
        Effects of J variants in N draws, shape (..., N, J); the leading axes broadcast. Variants without any
        difference between draws in one of them are no instruments.
    min_f
        Smallest F of an instrument, for the error of the mean over draws.
    alpha
        1 - confidence level of the intervals.

    Returns
    -------
    object
        As `estimate`.
    """
    constant = (np.ptp(cause, axis=-2) == 0) | (np.ptp(effect, axis=-2) == 0)
    effect = np.where(constant[..., None, :], np.nan, effect)
    options = {**ESTIMATORS[method.estimator].options, **method.options}
    return _call(method, cause, effect, min_f=min_f, alpha=alpha, **options)


def _call(method: Method, *arrays: NDArray[Any], **options: Any) -> Any:
    try:
        return getattr(mr, ESTIMATORS[method.estimator].function)(*arrays, **options)
    except (ValueError, NotImplementedError, OverflowError, MemoryError) as error:
        raise ConfigError(f"mr.methods: {method.name}: {error}") from error
