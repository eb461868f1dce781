"""The methods of the configuration as functions of `kipoi_deepmr.mr`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kipoi_deepmr import mr
from kipoi_deepmr.config import Config, Method, MRSection
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.estimate.summary import Summary
from kipoi_deepmr.estimators import POSITION, RESULTS, STORED

# Numbers on which methods are tried.
_TRIED_DRAWS, _TRIED_VARIANTS = 12, 12


def results_of(method: Method, wanted: Iterable[str]) -> list[str]:
    """Return which of some variables a method has."""
    known = {*RESULTS, *method.row.variables}
    return [name for name in wanted if name in known]


def outvoted(methods: Iterable[Method], min_f: float) -> list[str]:
    """Return the names of the methods in which mutations that hardly change a prediction decide."""
    return [method.name for method in methods if method.row.outvoted and min_f <= 0]


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
    bx, by = cause.mean(1, keepdims=True), effect.mean(1, keepdims=True)
    error = np.full(bx.shape, 0.1)
    summary = Summary(
        exposure=0,
        sequences=np.zeros(1, dtype=np.int64),
        bx=bx,
        bxse=error,
        by=by,
        byse=error,
        covariance=np.zeros(bx.shape),
        positions=np.arange(_TRIED_VARIANTS) // 3,
        draws=_TRIED_DRAWS,
        standard_error="monte_carlo",
        others=np.concatenate([bx, bx[..., ::-1]]),
        others_se=np.concatenate([error, error]),
    ).selected(0.0)
    for method in section.methods:
        few = {
            name: min(int(value), most)
            for name, value in method.options.items()
            if (most := method.row.options[name].most_tried) is not None
        }
        tried = method.model_copy(update={"options": {**method.options, **few}})
        if method.row.draws:
            estimate_from_draws(tried, cause, effect, min_f=section.min_f, alpha=section.alpha)
        else:
            estimate(tried, summary, section.alpha)


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
    asked = [f"mr.methods: {method.name}" for method in config.mr.methods if method.row.of_the_mean]
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
    options = {**method.row.fixed, **method.options}
    if method.row.joint:
        return _estimate_jointly(method, summary, alpha, options)
    if options.get("psi") == STORED:
        options["psi"] = summary.correlation
    for name, stored in (("draws", summary.draws), ("sample_size", summary.draws * len(summary.positions))):
        if options.get(name) == STORED:
            options[name] = stored
    if options.get("groups") == POSITION:
        options["groups"] = summary.positions
    if method.row.of_the_mean:
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
    options = {**method.row.fixed, **method.options}
    return _call(method, cause, effect, min_f=min_f, alpha=alpha, **options)


def _call(method: Method, *arrays: NDArray[Any], **options: Any) -> Any:
    try:
        return getattr(mr, method.row.function or method.estimator)(*arrays, **options)
    except (ValueError, NotImplementedError, OverflowError, MemoryError) as error:
        raise ConfigError(f"mr.methods: {method.name}: {error}") from error
