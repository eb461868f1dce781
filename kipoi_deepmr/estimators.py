"""The one table of estimators: all that is known of each beside its formula, which stands in `kipoi_deepmr.mr`.

A new estimator is a function there and a row here. Configuration, fitting, store, terminal, report, figures, tables,
`kipoi deepmr mr --help` and the table of the README are made from the rows.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Values of fixed options that stand for what is known when an estimator is called.
STORED = "stored"
POSITION = "position"


@dataclass(frozen=True)
class Option:
    """An option of an estimator in the file.

    Attributes
    ----------
    fits : callable
        Tells whether it may have a value.
    allowed : str
        The values that fit, in words.
    most_tried : int, optional
        Largest value with which it is tried before a run, where larger ones take long.
    """

    fits: Callable[[Any], bool]
    allowed: str
    most_tried: int | None = None


def one_of(*allowed: str) -> Option:
    """Return an option that takes some words."""
    return Option(lambda value: isinstance(value, str) and value in allowed, ", ".join(allowed))


def number(fits: Callable[[float], bool], allowed: str, also: tuple[str, ...] = ()) -> Option:
    """Return an option that takes finite numbers, and some words."""

    def check(value: Any) -> bool:
        if isinstance(value, str):
            return value in also
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and fits(value)

    return Option(check, allowed)


def whole(lowest: int, highest: int, most_tried: int | None = None) -> Option:
    """Return an option that takes whole numbers."""
    return Option(
        lambda value: type(value) is int and lowest <= value <= highest,
        f"a whole number from {lowest} to {highest}",
        most_tried,
    )


@dataclass(frozen=True)
class Estimator:
    """A row of the table.

    Attributes
    ----------
    name : str
        Its name in the file, in the store and in the terminal.
    title : str
        What it is, in a sentence.
    advice : str
        When to use it, in a line.
    fewest : int
        Fewest instruments, at positions of their own; of an estimator that takes all exposures at once for two of them.
    options : mapping of str to Option
        The options that it takes in the file.
    variables : tuple of str
        Its results beside those of `RESULTS`, by their names in the store.
    function : str
        Its name in `kipoi_deepmr.mr`; empty where it is `name`.
    fixed : mapping
        Its fixed options. ``psi: stored`` is the correlation of the two errors of each mutation, ``draws: stored`` the
        number of draws, ``groups: position`` the position of each mutation, ``sample_size: stored`` draws times
        mutations: with it BIC is the extended BIC with gamma = 1/2 (Chen and Chen 2008), which pays for the choice of
        the invalid ones among all mutations, too.
    label : str
        Its name as papers write it; empty where the labels of its words say it.
    twosamplemr : str
        Its name in `mr_method_list()$name` of the R package TwoSampleMR; empty where it has none.
    draws : bool
        Whether it takes the effects of every draw instead of effects with errors.
    joint : bool
        Whether it takes all exposures (in reverse: all outcomes) at once. Its slope is none of a plane of two effects.
    of_the_mean : bool
        Whether it takes the errors of the mean over draws, whatever `effects.standard_error` says: it corrects the
        estimate for errors of measurement, which the spread over draws is not.
    outvoted : bool
        Whether the many mutations that hardly change a prediction decide over the few that do, unless `mr.min_f`
        leaves them out: each has one vote, or an error so small that it weighs as much as a strong one.
    radial : bool
        Whether its intercept counts in standard errors of the outcome effects, so that it has no line among these.
    leading : bool
        Whether figures draw it first where not all have room.
    """

    name: str
    title: str
    advice: str
    fewest: int
    options: Mapping[str, Option] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    function: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    twosamplemr: str = ""
    draws: bool = False
    joint: bool = False
    of_the_mean: bool = False
    outvoted: bool = False
    radial: bool = False
    leading: bool = False


# Results that every estimator has.
RESULTS = ("estimate", "se", "ci_low", "ci_high", "pvalue", "status")
_Q = ("q", "q_pvalue")
_INTERCEPT = ("intercept", "intercept_se", "intercept_pvalue")

_FLAG = Option(lambda value: isinstance(value, bool), "true, false")
_DISTRIBUTION = {"distribution": one_of("normal", "t-dist")}
_MODEL = {"model": one_of("default", "random", "fixed")}
_WEIGHTS = {"weights": one_of("simple", "delta")}
_PSI = {
    "psi": number(
        lambda value: -1 <= value <= 1,
        "stored (the correlation of the errors in the store), a number from -1 to 1",
        (STORED,),
    )
}
_OVER_DISPERSION = {"over_dispersion": _FLAG}
_PENALTY = {"penalty": number(lambda value: value >= 0, "a finite number of at least 0")}
_SEED = {"seed": whole(0, 2**63 - 1)}
_BOOTSTRAP = {**_DISTRIBUTION, "n_boot": whole(2, 10**6, most_tried=10), **_SEED}
_REGRESSION = {**_MODEL, **_WEIGHTS, **_DISTRIBUTION, "robust": _FLAG, "penalized": _FLAG, **_PSI}
_CLUSTERED = {"correction": one_of("CR1", "CR2"), **_WEIGHTS, **_PSI, **_DISTRIBUTION}
_MEDIAN = {**_WEIGHTS, **_PSI, **_BOOTSTRAP}
_MODE = {
    "phi": number(lambda value: value > 0, "a finite number above 0"),
    "stderr": one_of("delta", "simple"),
    **_BOOTSTRAP,
}
_LOSS = {"loss": one_of("l2", "huber", "tukey")}
_CML = {
    "sample_size": number(lambda value: value > 1, "a finite number above 1"),
    "search": one_of("coordinate", "global"),
    "model_averaging": _FLAG,
    "max_invalid": whole(0, 10**6),
    "n_perturb": whole(0, 10**5, most_tried=2),
    **_PSI,
    **_SEED,
}
_FOLDS = {"folds": whole(3, 10**4)}
_DELTA = {"weights": "delta", "psi": STORED}
_BY_POSITION = {"groups": POSITION}


def _ivw(name: str, title: str, advice: str, fixed: Mapping[str, Any], **more: Any) -> Estimator:
    return Estimator(name, title, advice, 1, _REGRESSION, _Q, "ivw", fixed, **more)


def _egger(name: str, title: str, advice: str, fixed: Mapping[str, Any], **more: Any) -> Estimator:
    return Estimator(name, title, advice, 3, _REGRESSION, (*_INTERCEPT, *_Q), "egger", fixed, **more)


def _likelihood(name: str, title: str, advice: str, psi: str | float, **more: Any) -> Estimator:
    common = {"function": "maximum_likelihood", "of_the_mean": True, "outvoted": True, **more}
    return Estimator(name, title, advice, 1, {**_MODEL, **_DISTRIBUTION, **_PSI}, _Q, fixed={"psi": psi}, **common)


def _raps(name: str, title: str, advice: str, fixed: Mapping[str, Any], **more: Any) -> Estimator:
    options, variables = {**_OVER_DISPERSION, **_LOSS, **_PSI}, (*_Q, "tau2")
    common = {"fixed": {"psi": STORED, **fixed}, "of_the_mean": True, "outvoted": True, **more}
    return Estimator(name, title, advice, 1, options, variables, "raps", **common)


_ROWS = (
    _ivw(
        "ivw",
        "inverse-variance weighted, random effects from 4 instruments on (Burgess 2013)",
        "the published one; biased where mutations reach the outcome by another way",
        {},
        label="IVW",
        twosamplemr="Inverse variance weighted",
        leading=True,
    ),
    _ivw(
        "ivw_fixed",
        "inverse-variance weighted, fixed effect",
        "narrower than `ivw`, right only without heterogeneity",
        {"model": "fixed"},
        twosamplemr="Inverse variance weighted (fixed effects)",
    ),
    _ivw(
        "ivw_delta",
        "IVW whose weights hold the exposure's error and its covariance with the outcome's (Thompson 2016)",
        "where the errors of the exposure are not small",
        _DELTA,
        outvoted=True,
    ),
    _ivw("ivw_robust", "IVW by robust regression (Rees 2019)", "against a few outlying mutations", {"robust": True}),
    _ivw(
        "ivw_penalized",
        "IVW with less weight for outlying ratios (Rees 2019)",
        "against a few outlying ratios",
        {"penalized": True},
        outvoted=True,
    ),
    Estimator(
        "ivw_clustered",
        "IVW whose standard error allows the mutations of a position to err together (Bell 2002)",
        "the estimate of `ivw` with an error that holds under unequal variances",
        2,
        _CLUSTERED,
        function="clustered_ivw",
        fixed=_BY_POSITION,
    ),
    _egger(
        "egger",
        "MR-Egger (Bowden 2015)",
        "the published one beside `ivw`; its intercept tests for directional pleiotropy; diluted where I2_GX is low",
        {},
        label="MR-Egger",
        twosamplemr="MR Egger",
        leading=True,
    ),
    _egger(
        "egger_delta",
        "MR-Egger with delta weights",
        "where the errors of the exposure are not small",
        _DELTA,
        outvoted=True,
    ),
    _egger(
        "egger_robust",
        "MR-Egger by robust regression (Rees 2019)",
        "against a few outlying mutations",
        {"robust": True},
    ),
    _egger(
        "egger_penalized",
        "MR-Egger with less weight for outlying mutations (Rees 2019)",
        "against a few outlying mutations",
        {"penalized": True},
    ),
    Estimator(
        "egger_clustered",
        "MR-Egger whose standard error allows the mutations of a position to err together",
        "the estimate of `egger` with an error that holds under unequal variances",
        3,
        _CLUSTERED,
        _INTERCEPT,
        "clustered_egger",
        _BY_POSITION,
    ),
    Estimator(
        "radial_ivw",
        "radial IVW with modified second-order weights (Bowden 2018)",
        "where outliers are to be seen by their share of Q",
        1,
        _DISTRIBUTION,
        _Q,
    ),
    Estimator(
        "radial_egger",
        "radial MR-Egger with modified second-order weights (Bowden 2018)",
        "the same with an intercept, in standard errors of the outcome",
        3,
        _DISTRIBUTION,
        (*_INTERCEPT, *_Q),
        radial=True,
    ),
    Estimator(
        "simple_median",
        "median of the ratios (Bowden 2016)",
        "while fewer than half of the mutations are invalid",
        3,
        _BOOTSTRAP,
        twosamplemr="Simple median",
        outvoted=True,
        leading=True,
    ),
    Estimator(
        "weighted_median",
        "weighted median of the ratios (Bowden 2016)",
        "while invalid mutations have less than half of the weight",
        3,
        _MEDIAN,
        twosamplemr="Weighted median",
        leading=True,
    ),
    Estimator(
        "penalized_weighted_median",
        "weighted median with less weight for outlying ratios (Bowden 2016)",
        "the same with some strong outliers",
        3,
        _MEDIAN,
        twosamplemr="Penalised weighted median",
    ),
    Estimator(
        "simple_mode",
        "mode of the ratios (Hartwig 2017)",
        "where the largest group of equal ratios is the valid one",
        2,
        _MODE,
        twosamplemr="Simple mode",
        outvoted=True,
    ),
    Estimator(
        "weighted_mode",
        "weighted mode of the ratios (Hartwig 2017)",
        "a further estimate to compare with, not a test",
        2,
        _MODE,
        twosamplemr="Weighted mode",
        leading=True,
    ),
    _likelihood(
        "maximum_likelihood",
        "maximum likelihood with errors in both effects that correlate as stored (Burgess 2013)",
        "against dilution by errors of the exposure, without pleiotropy",
        STORED,
        twosamplemr="Maximum likelihood",
    ),
    _likelihood(
        "maximum_likelihood_independent",
        "the same with uncorrelated errors",
        "to see what the correlation of the errors does",
        0.0,
    ),
    Estimator(
        "debiased_ivw",
        "IVW without dilution by weak instruments, uncorrelated errors (Ye 2021)",
        "many weak instruments whose errors do not correlate",
        1,
        _OVER_DISPERSION,
        ("tau2", "condition"),
        of_the_mean=True,
    ),
    Estimator(
        "penalized_ivw",
        "debiased IVW that stays stable when instruments are very weak (Xu 2023)",
        "the same where they are very weak",
        1,
        {**_OVER_DISPERSION, **_PENALTY, "ci": one_of("normal", "fieller", "bootstrap"), **_SEED},
        ("tau2", "condition"),
        of_the_mean=True,
    ),
    Estimator(
        "overlap_debiased_ivw",
        "IVW without the bias of errors that both effects share (Lorincz-Comi 2024)",
        "weak instruments whose errors correlate, where the draws are gone",
        2,
        _PSI,
        ("condition",),
        fixed={"psi": STORED, "draws": STORED, **_BY_POSITION},
        of_the_mean=True,
    ),
    _raps(
        "raps",
        "robust adjusted profile score with errors that correlate as stored (Zhao 2020, Wang 2021)",
        "many weak instruments whose errors correlate, without pleiotropy",
        {},
        label="MR-RAPS",
        twosamplemr="Robust adjusted profile score (RAPS)",
        leading=True,
    ),
    _raps("raps_huber", "RAPS with Huber's loss", "the same with a few outliers", {"loss": "huber"}),
    _raps("raps_tukey", "RAPS with Tukey's loss", "the same with gross outliers", {"loss": "tukey"}),
    _raps(
        "raps_over_dispersion",
        "RAPS with balanced pleiotropy",
        "many weak instruments with balanced pleiotropy",
        {"over_dispersion": True},
    ),
    _raps(
        "raps_over_dispersion_huber",
        "RAPS with balanced pleiotropy and Huber's loss",
        "the same with a few outliers",
        {"over_dispersion": True, "loss": "huber"},
    ),
    _raps(
        "raps_over_dispersion_tukey",
        "RAPS with balanced pleiotropy and Tukey's loss",
        "the same with gross outliers",
        {"over_dispersion": True, "loss": "tukey"},
    ),
    Estimator(
        "contamination_mixture",
        "valid and invalid mutations as a mixture (Burgess 2020)",
        "many invalid mutations; without `min_f` give it an `invalid_sd` of the size of plausible effects",
        2,
        {"invalid_sd": number(lambda value: value > 0, "a finite number above 0")},
    ),
    Estimator(
        "lasso",
        "IVW of the mutations that a lasso finds without pleiotropy (Rees 2019)",
        "some mutations with pleiotropy of their own",
        2,
        {**_PENALTY, **_DISTRIBUTION},
        label="MR-Lasso",
    ),
    Estimator(
        "cml",
        "constrained maximum likelihood, averaged over the number of invalid mutations (Xue 2021)",
        "invalid mutations whose pleiotropy may correlate with their strength",
        1,
        _CML,
        fixed={"psi": STORED, "sample_size": STORED},
        label="cML",
        of_the_mean=True,
        outvoted=True,
    ),
    Estimator(
        "multivariable_ivw",
        "effect of an exposure while all other exposures of the run stay (Burgess 2015)",
        "exposures that the same mutations change; read it with `conditional_f`",
        2,
        {**_MODEL, "robust": _FLAG, **_DISTRIBUTION},
        (*_Q, "conditional_f"),
        joint=True,
    ),
    Estimator(
        "multivariable_egger",
        "the same by MR-Egger, oriented by the exposure (Rees 2017)",
        "the same where directional pleiotropy is left",
        3,
        _DISTRIBUTION,
        (*_INTERCEPT, *_Q),
        fixed={"orientation": 0},
        joint=True,
    ),
    Estimator(
        "cross_fitted_ivw",
        "IVW from products of different draws, standard error by jackknife over draws; needs the draws",
        "the slope of the mean network, not diluted; its error counts draws, not what the network learned wrongly",
        1,
        _FOLDS,
        draws=True,
        of_the_mean=True,
    ),
    Estimator(
        "cross_fitted_egger",
        "MR-Egger from products of different draws; needs the draws",
        "beside `cross_fitted_ivw`, where directional pleiotropy is possible",
        3,
        _FOLDS,
        _INTERCEPT,
        draws=True,
        of_the_mean=True,
    ),
)
# By name, in the order in which they are listed.
ESTIMATORS: Mapping[str, Estimator] = {row.name: row for row in _ROWS}

# Estimated where none are named; those that need every draw where there are enough. The README argues for them.
DEFAULT = ("egger", "ivw", "cross_fitted_egger", "cross_fitted_ivw")
# What figures and reports show where they show one estimator, or one intercept.
SHOWN_ALONE, SHOWN_INTERCEPT = "ivw", "egger"


def label_of(name: str) -> str:
    """Return the name of an estimator as papers write it; a name of several words by the labels of these."""
    row, words = ESTIMATORS.get(name), name.split("_")
    if row is not None and row.label:
        return row.label
    return " ".join(map(label_of, words)) if len(words) > 1 else name
