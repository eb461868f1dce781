"""Names of dimensions, coordinates and variables, as users see them in the store, and what they mean."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

EXPOSURE = "exposure"
OUTCOME = "outcome"
SEQUENCE = "sequence"
POSITION = "position"
ALLELE = "allele"
ESTIMATOR = "estimator"
DRAW = "draw"
DIRECTION = "direction"
# Between the name of a sequence and the number of a shuffle of it.
SHUFFLE = " shuffle "

ALLELES = ("A", "C", "G", "T")
UNKNOWN_BASE = "N"

DIRECTIONS = ("forward", "reverse")

# A status: the sequence does not count for the exposure, or is not completed.
ABSENT = -1

LOCAL_DIMS = (EXPOSURE, OUTCOME, SEQUENCE)
GLOBAL_DIMS = (EXPOSURE, OUTCOME)


@dataclass(frozen=True)
class Term:
    """A variable of the store.

    Attributes
    ----------
    dims : tuple of str
        Its dimensions.
    long_name : str
        What it is.
    units : str
        ``exposure`` and ``outcome`` stand for the scale of the effects, ``ratio`` for outcome per exposure.
    dtype : str
        Type of its numbers, by numpy's name; ``str`` for text.
    fill : float, int, bool or str
        What stands where nothing is known.
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    dtype: str = "float64"
    fill: float | int | bool | str = math.nan


def _effect(dims: tuple[str, ...], long_name: str, units: str) -> Term:
    return Term(dims, long_name, units, "float32")


def _text(dims: tuple[str, ...], long_name: str) -> Term:
    return Term(dims, long_name, "", "str", "")


def _flag(dims: tuple[str, ...], long_name: str) -> Term:
    return Term(dims, long_name, "", "bool", False)


def _count(dims: tuple[str, ...], long_name: str, units: str = "1") -> Term:
    return Term(dims, long_name, units, "int64", 0)


def _status(dims: tuple[str, ...]) -> Term:
    return Term(dims, "why an estimate is missing", "1", "int8", ABSENT)


_VARIANT = (SEQUENCE, POSITION, ALLELE)
_LOCAL_ESTIMATOR = (*LOCAL_DIMS, ESTIMATOR)
_GLOBAL_ESTIMATOR = (*GLOBAL_DIMS, ESTIMATOR)

EFFECTS: Mapping[str, Term] = {
    "exposure_effect": _effect(
        (EXPOSURE, *_VARIANT), "mean over draws of mutant minus reference, exposure", "exposure"
    ),
    "exposure_se": _effect((EXPOSURE, *_VARIANT), "standard error of exposure_effect", "exposure"),
    "outcome_effect": _effect((OUTCOME, *_VARIANT), "mean over draws of mutant minus reference, outcome", "outcome"),
    "outcome_se": _effect((OUTCOME, *_VARIANT), "standard error of outcome_effect", "outcome"),
    "error_covariance": _effect(
        (EXPOSURE, OUTCOME, *_VARIANT), "covariance of the errors of exposure_effect and outcome_effect", "product"
    ),
    "exposure_reference": _effect(
        (EXPOSURE, SEQUENCE), "mean prediction of the reference over draws, exposure", "exposure"
    ),
    "exposure_reference_sd": _effect(
        (EXPOSURE, SEQUENCE), "SD over draws of the reference prediction, exposure", "exposure"
    ),
    "outcome_reference": _effect(
        (OUTCOME, SEQUENCE), "mean prediction of the reference over draws, outcome", "outcome"
    ),
    "outcome_reference_sd": _effect(
        (OUTCOME, SEQUENCE), "SD over draws of the reference prediction, outcome", "outcome"
    ),
}

# Present with `effects: {keep_draws: true}`.
DRAWS: Mapping[str, Term] = {
    "exposure_draws": _effect(
        (EXPOSURE, SEQUENCE, DRAW, POSITION, ALLELE), "mutant minus reference in each draw, exposure", "exposure"
    ),
    "outcome_draws": _effect(
        (OUTCOME, SEQUENCE, DRAW, POSITION, ALLELE), "mutant minus reference in each draw, outcome", "outcome"
    ),
}

COORDS: Mapping[str, Term] = {
    "chrom": _text((SEQUENCE,), "contig"),
    "start": _count((SEQUENCE,), "start of the window, 0-based", "bp"),
    "end": _count((SEQUENCE,), "end of the window, exclusive", "bp"),
    "strand": _text((SEQUENCE,), "strand on which the model reads the window"),
    "reference_allele": _text((SEQUENCE, POSITION), "base of the reference on that strand"),
    "bound": _flag((EXPOSURE, SEQUENCE), "whether the sequence counts for the exposure"),
    "exposure_task": _text((EXPOSURE,), "label of the model's output"),
    "exposure_task_index": _count((EXPOSURE,), "column of the model's output, from 0", ""),
    "outcome_task": _text((OUTCOME,), "label of the model's output"),
    "outcome_task_index": _count((OUTCOME,), "column of the model's output, from 0", ""),
    "completed": _flag((SEQUENCE,), "whether the effects of the sequence are written"),
}

INDEXES: Mapping[str, Term] = {
    EXPOSURE: _text((EXPOSURE,), "exposure"),
    OUTCOME: _text((OUTCOME,), "outcome"),
    SEQUENCE: _text((SEQUENCE,), "reference sequence, contig:start-end(strand)"),
    POSITION: _count((POSITION,), "position in the window as the model reads it, from 0", "bp"),
    ALLELE: _text((ALLELE,), "base to which the position is mutated"),
    ESTIMATOR: _text((ESTIMATOR,), "estimator of Mendelian randomization"),
    DRAW: _count((DRAW,), "thinned network, from 0", ""),
    DIRECTION: _text((DIRECTION,), "forward: of the exposure on the outcome; reverse: of the outcome on the exposure"),
}

# Of the estimators in `/local` and `/global`.
ESTIMATOR_COORDS: Mapping[str, Term] = {
    "standard_error": _text(
        (ESTIMATOR,),
        "which errors of the effects the method takes: posterior (SD over draws), monte_carlo (SD / sqrt(draws))",
    ),
}

LOCAL: Mapping[str, Term] = {
    "estimate": Term(_LOCAL_ESTIMATOR, "model-implied causal effect in one sequence", "ratio"),
    "se": Term(_LOCAL_ESTIMATOR, "standard error of estimate", "ratio"),
    "ci_low": Term(_LOCAL_ESTIMATOR, "lower end of the confidence interval of estimate", "ratio"),
    "ci_high": Term(_LOCAL_ESTIMATOR, "upper end of the confidence interval of estimate", "ratio"),
    "pvalue": Term(_LOCAL_ESTIMATOR, "two-sided p-value of estimate = 0"),
    "intercept": Term(
        _LOCAL_ESTIMATOR,
        "MR-Egger intercept: mean pleiotropic effect of a mutation; of radial MR-Egger in standard errors of the outcome",
        "outcome",
    ),
    "intercept_se": Term(_LOCAL_ESTIMATOR, "standard error of intercept", "outcome"),
    "intercept_pvalue": Term(_LOCAL_ESTIMATOR, "two-sided p-value of intercept = 0"),
    "q": Term(_LOCAL_ESTIMATOR, "heterogeneity of the instruments: Cochran's Q (IVW), Ruecker's Q' (MR-Egger)"),
    "q_pvalue": Term(_LOCAL_ESTIMATOR, "p-value of q"),
    "tau2": Term(
        _LOCAL_ESTIMATOR, "variance of balanced pleiotropy between mutations, where the method has one", "product"
    ),
    "condition": Term(_LOCAL_ESTIMATOR, "strength of all instruments over its error, where the method has it"),
    "conditional_f": Term(
        _LOCAL_ESTIMATOR, "F of the exposure given the other exposures (Sanderson 2021), multivariable methods"
    ),
    "status": _status(_LOCAL_ESTIMATOR),
    "n_instruments": _count(LOCAL_DIMS, "mutations that serve as instruments"),
    "n_weak": _count(LOCAL_DIMS, "mutations left out because their F is below mr.min_f"),
    "n_without_error": _count(LOCAL_DIMS, "mutations left out because an effect has a standard error of zero"),
    "f_statistic": Term(LOCAL_DIMS, "mean over instruments of (exposure effect / SE)^2"),
    "i2_gx": Term(LOCAL_DIMS, "I2 of the exposure effects (Bowden 2016): share of true variation, 0 to 1"),
    "q_difference": Term(LOCAL_DIMS, "Ruecker's Q - Q': what MR-Egger explains beyond IVW"),
    "q_difference_pvalue": Term(LOCAL_DIMS, "p-value of q_difference: no directional pleiotropy"),
    "steiger_share": Term(
        LOCAL_DIMS, "share of instruments that explain more of the cause than of the effect (Steiger)"
    ),
}

# What `/local` holds of the meta-analysis over sequences.
LOCAL_INFLUENCE: Mapping[str, Term] = {
    "leave_one_out": Term(_LOCAL_ESTIMATOR, "global effect without this sequence", "ratio"),
    "leave_one_out_se": Term(_LOCAL_ESTIMATOR, "standard error of leave_one_out", "ratio"),
}

# What methods that need every draw have estimated while the draws were there.
FROM_DRAWS: Mapping[str, Term] = {
    name: replace(term, dims=(DIRECTION, *term.dims)) for name, term in LOCAL.items() if ESTIMATOR in term.dims
}

GLOBAL: Mapping[str, Term] = {
    "estimate": Term(_GLOBAL_ESTIMATOR, "model-implied causal effect over sequences (random effects)", "ratio"),
    "se": Term(_GLOBAL_ESTIMATOR, "standard error of estimate", "ratio"),
    "ci_low": Term(_GLOBAL_ESTIMATOR, "lower end of the confidence interval of estimate", "ratio"),
    "ci_high": Term(_GLOBAL_ESTIMATOR, "upper end of the confidence interval of estimate", "ratio"),
    "pvalue": Term(_GLOBAL_ESTIMATOR, "two-sided p-value of estimate = 0"),
    "tau2": Term(_GLOBAL_ESTIMATOR, "variance of the effect between sequences", "ratio squared"),
    "tau2_low": Term(
        _GLOBAL_ESTIMATOR, "lower end of the Q-profile interval of tau2 (Viechtbauer 2007)", "ratio squared"
    ),
    "tau2_high": Term(_GLOBAL_ESTIMATOR, "upper end of the Q-profile interval of tau2", "ratio squared"),
    "i2": Term(_GLOBAL_ESTIMATOR, "share of the variation between sequences that is no sampling error", "percent"),
    "h2": Term(_GLOBAL_ESTIMATOR, "total variance over sampling variance"),
    "q": Term(_GLOBAL_ESTIMATOR, "Cochran's Q between sequences"),
    "q_pvalue": Term(_GLOBAL_ESTIMATOR, "p-value of q"),
    "prediction_low": Term(
        _GLOBAL_ESTIMATOR, "lower end of the prediction interval of a new sequence's effect", "ratio"
    ),
    "prediction_high": Term(
        _GLOBAL_ESTIMATOR, "upper end of the prediction interval of a new sequence's effect", "ratio"
    ),
    "n_sequences": _count(_GLOBAL_ESTIMATOR, "sequences with an estimate"),
    "status": _status(_GLOBAL_ESTIMATOR),
}

# Variables that stand in `/local` and `/global` when `controls.permuted_exposure` asks for them.
_PERMUTED = {
    "permuted_mean": Term((), "mean of the estimates with permuted exposure effects", "ratio"),
    "permuted_sd": Term((), "SD of the estimates with permuted exposure effects", "ratio"),
    "permuted_low": Term((), "alpha/2 quantile of the estimates with permuted exposure effects", "ratio"),
    "permuted_high": Term((), "1 - alpha/2 quantile of the estimates with permuted exposure effects", "ratio"),
    "permuted_pvalue": Term((), "(1 + permutations as many standard errors away from 0) / (1 + permutations)"),
    "n_permuted": _count((), "permutations that gave an estimate"),
}
LOCAL_PERMUTED, GLOBAL_PERMUTED = (
    {name: replace(term, dims=dims) for name, term in _PERMUTED.items()}
    for dims in (_LOCAL_ESTIMATOR, _GLOBAL_ESTIMATOR)
)

# Every name that an array of a store may have.
VARIABLES = frozenset(
    name
    for known in (
        *(EFFECTS, DRAWS, COORDS, INDEXES, ESTIMATOR_COORDS, LOCAL, LOCAL_INFLUENCE, FROM_DRAWS, GLOBAL),
        *(LOCAL_PERMUTED, GLOBAL_PERMUTED),
    )
    for name in known
)

# Zero-width space, joiners and no-break space (the byte order mark), word joiner, soft hyphen.
_UNSEEN = frozenset("\u200b\u200c\u200d\ufeff\u2060\u00ad")
_SCALE_UNITS = {"identity": "1", "logit": "log odds", "log": "log"}


def attributes(term: Term, scale: str, *, reverse: bool = False, **more: str) -> dict[str, Any]:
    """Return the attributes of a variable: long_name, units and the scale of the effects where it has one.

    Parameters
    ----------
    term
        The variable.
    scale
        ``identity``, ``logit`` or ``log``.
    reverse
        Whether the effect is that of the outcome on the exposure.
    **more
        Further attributes.
    """
    given = {"long_name": term.long_name}
    unit = _SCALE_UNITS[scale]
    ratio = "exposure per outcome" if reverse else "outcome per exposure"
    scaled = {
        "exposure": unit,
        "outcome": unit,
        "product": f"({unit})^2" if unit != "1" else "1",
        "ratio": ratio,
        "ratio squared": f"({ratio})^2",
    }
    if term.units:
        given["units"] = scaled.get(term.units, term.units)
    if term.units in scaled:
        given["scale"] = scale
    return {**given, **more}


def normalised(name: str) -> str:
    """Return a name as it is compared: in NFC, without blanks around it, zero-width signs and byte order marks."""
    seen = "".join(sign for sign in unicodedata.normalize("NFC", name) if sign not in _UNSEEN)
    return seen.strip()
