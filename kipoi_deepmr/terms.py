"""Names of dimensions, coordinates and variables, as users see them in the store, and what they mean."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
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
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


_VARIANT = (SEQUENCE, POSITION, ALLELE)
_LOCAL_ESTIMATOR = (*LOCAL_DIMS, ESTIMATOR)
_GLOBAL_ESTIMATOR = (*GLOBAL_DIMS, ESTIMATOR)

EFFECTS: Mapping[str, Term] = {
    "exposure_effect": Term((EXPOSURE, *_VARIANT), "mean over draws of mutant minus reference, exposure", "exposure"),
    "exposure_se": Term((EXPOSURE, *_VARIANT), "standard error of exposure_effect", "exposure"),
    "outcome_effect": Term((OUTCOME, *_VARIANT), "mean over draws of mutant minus reference, outcome", "outcome"),
    "outcome_se": Term((OUTCOME, *_VARIANT), "standard error of outcome_effect", "outcome"),
    "error_covariance": Term(
        (EXPOSURE, OUTCOME, *_VARIANT), "covariance of the errors of exposure_effect and outcome_effect", "product"
    ),
    "exposure_reference": Term(
        (EXPOSURE, SEQUENCE), "mean prediction of the reference over draws, exposure", "exposure"
    ),
    "exposure_reference_sd": Term(
        (EXPOSURE, SEQUENCE), "SD over draws of the reference prediction, exposure", "exposure"
    ),
    "outcome_reference": Term((OUTCOME, SEQUENCE), "mean prediction of the reference over draws, outcome", "outcome"),
    "outcome_reference_sd": Term((OUTCOME, SEQUENCE), "SD over draws of the reference prediction, outcome", "outcome"),
}

# Present with `effects: {keep_draws: true}`.
DRAWS: Mapping[str, Term] = {
    "exposure_draws": Term(
        (EXPOSURE, SEQUENCE, DRAW, POSITION, ALLELE), "mutant minus reference in each draw, exposure", "exposure"
    ),
    "outcome_draws": Term(
        (OUTCOME, SEQUENCE, DRAW, POSITION, ALLELE), "mutant minus reference in each draw, outcome", "outcome"
    ),
}

COORDS: Mapping[str, Term] = {
    "chrom": Term((SEQUENCE,), "contig", ""),
    "start": Term((SEQUENCE,), "start of the window, 0-based", "bp"),
    "end": Term((SEQUENCE,), "end of the window, exclusive", "bp"),
    "strand": Term((SEQUENCE,), "strand on which the model reads the window", ""),
    "reference_allele": Term((SEQUENCE, POSITION), "base of the reference on that strand", ""),
    "bound": Term((EXPOSURE, SEQUENCE), "whether the sequence counts for the exposure", ""),
    "exposure_task": Term((EXPOSURE,), "label of the model's output", ""),
    "exposure_task_index": Term((EXPOSURE,), "column of the model's output, from 0", ""),
    "outcome_task": Term((OUTCOME,), "label of the model's output", ""),
    "outcome_task_index": Term((OUTCOME,), "column of the model's output, from 0", ""),
    "completed": Term((SEQUENCE,), "whether the effects of the sequence are written", ""),
}

INDEXES: Mapping[str, Term] = {
    EXPOSURE: Term((EXPOSURE,), "exposure", ""),
    OUTCOME: Term((OUTCOME,), "outcome", ""),
    SEQUENCE: Term((SEQUENCE,), "reference sequence, contig:start-end(strand)", ""),
    POSITION: Term((POSITION,), "position in the window as the model reads it, from 0", "bp"),
    ALLELE: Term((ALLELE,), "base to which the position is mutated", ""),
    ESTIMATOR: Term((ESTIMATOR,), "estimator of Mendelian randomization", ""),
    DRAW: Term((DRAW,), "thinned network, from 0", ""),
    DIRECTION: Term(
        (DIRECTION,), "forward: of the exposure on the outcome; reverse: of the outcome on the exposure", ""
    ),
}

# Of the estimators in `/local` and `/global`.
ESTIMATOR_COORDS: Mapping[str, Term] = {
    "standard_error": Term(
        (ESTIMATOR,),
        "which errors of the effects the method takes: posterior (SD over draws), monte_carlo (SD / sqrt(draws))",
        "",
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
    "status": Term(_LOCAL_ESTIMATOR, "why an estimate is missing"),
    "n_instruments": Term(LOCAL_DIMS, "mutations that serve as instruments"),
    "n_weak": Term(LOCAL_DIMS, "mutations left out because their F is below mr.min_f"),
    "n_without_error": Term(LOCAL_DIMS, "mutations left out because an effect has a standard error of zero"),
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
    name: Term((DIRECTION, *term.dims), term.long_name, term.units)
    for name, term in LOCAL.items()
    if ESTIMATOR in term.dims
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
    "n_sequences": Term(_GLOBAL_ESTIMATOR, "sequences with an estimate"),
    "status": Term(_GLOBAL_ESTIMATOR, "why an estimate is missing"),
}

# Variables that stand in `/local` and `/global` when `controls.permuted_exposure` asks for them.
_PERMUTED = {
    "permuted_mean": ("mean of the estimates with permuted exposure effects", "ratio"),
    "permuted_sd": ("SD of the estimates with permuted exposure effects", "ratio"),
    "permuted_low": ("alpha/2 quantile of the estimates with permuted exposure effects", "ratio"),
    "permuted_high": ("1 - alpha/2 quantile of the estimates with permuted exposure effects", "ratio"),
    "permuted_pvalue": ("(1 + permutations as many standard errors away from 0) / (1 + permutations)", "1"),
    "n_permuted": ("permutations that gave an estimate", "1"),
}
LOCAL_PERMUTED: Mapping[str, Term] = {name: Term(_LOCAL_ESTIMATOR, *what) for name, what in _PERMUTED.items()}
GLOBAL_PERMUTED: Mapping[str, Term] = {name: Term(_GLOBAL_ESTIMATOR, *what) for name, what in _PERMUTED.items()}

# Every name that an array of a store may have.
VARIABLES = frozenset(
    name
    for known in (
        *(EFFECTS, DRAWS, COORDS, INDEXES, ESTIMATOR_COORDS, LOCAL, LOCAL_INFLUENCE, FROM_DRAWS, GLOBAL),
        *(LOCAL_PERMUTED, GLOBAL_PERMUTED),
    )
    for name in known
)

# Names in `mr: {methods: [...]}`, in the order in which they are listed.
METHODS: Mapping[str, str] = {
    "ivw": "inverse-variance weighted, random effects from 4 instruments on (Burgess 2013)",
    "ivw_fixed": "inverse-variance weighted, fixed effect",
    "ivw_delta": "IVW whose weights hold the exposure's error and its covariance with the outcome's (Thompson 2016)",
    "ivw_robust": "IVW by robust regression (Rees 2019)",
    "ivw_penalized": "IVW with less weight for outlying ratios (Rees 2019)",
    "ivw_clustered": "IVW whose standard error allows the mutations of a position to err together (Bell 2002)",
    "egger": "MR-Egger (Bowden 2015)",
    "egger_delta": "MR-Egger with delta weights",
    "egger_robust": "MR-Egger by robust regression (Rees 2019)",
    "egger_penalized": "MR-Egger with less weight for outlying mutations (Rees 2019)",
    "egger_clustered": "MR-Egger whose standard error allows the mutations of a position to err together",
    "radial_ivw": "radial IVW with modified second-order weights (Bowden 2018)",
    "radial_egger": "radial MR-Egger with modified second-order weights (Bowden 2018)",
    "simple_median": "median of the ratios (Bowden 2016)",
    "weighted_median": "weighted median of the ratios (Bowden 2016)",
    "penalized_weighted_median": "weighted median with less weight for outlying ratios (Bowden 2016)",
    "simple_mode": "mode of the ratios (Hartwig 2017)",
    "weighted_mode": "weighted mode of the ratios (Hartwig 2017)",
    "maximum_likelihood": "maximum likelihood with errors in both effects that correlate as stored (Burgess 2013)",
    "maximum_likelihood_independent": "the same with uncorrelated errors",
    "debiased_ivw": "IVW without dilution by weak instruments, uncorrelated errors (Ye 2021)",
    "penalized_ivw": "debiased IVW that stays stable when instruments are very weak (Xu 2023)",
    "overlap_debiased_ivw": "IVW without the bias of errors that both effects share (Lorincz-Comi 2024)",
    "raps": "robust adjusted profile score with errors that correlate as stored (Zhao 2020, Wang 2021)",
    "raps_huber": "RAPS with Huber's loss",
    "raps_tukey": "RAPS with Tukey's loss",
    "raps_over_dispersion": "RAPS with balanced pleiotropy",
    "raps_over_dispersion_huber": "RAPS with balanced pleiotropy and Huber's loss",
    "raps_over_dispersion_tukey": "RAPS with balanced pleiotropy and Tukey's loss",
    "contamination_mixture": "valid and invalid mutations as a mixture (Burgess 2020)",
    "lasso": "IVW of the mutations that a lasso finds without pleiotropy (Rees 2019)",
    "cml": "constrained maximum likelihood, averaged over the number of invalid mutations (Xue 2021)",
    "multivariable_ivw": "effect of an exposure while all other exposures of the run stay (Burgess 2015)",
    "multivariable_egger": "the same by MR-Egger, oriented by the exposure (Rees 2017)",
    "cross_fitted_ivw": "IVW from products of different draws, standard error by jackknife over draws; needs the draws",
    "cross_fitted_egger": "MR-Egger from products of different draws; needs the draws",
}

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
