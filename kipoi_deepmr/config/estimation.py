"""How estimates are made: estimators and their options, meta-analysis, negative controls."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    field_validator,
    model_serializer,
    model_validator,
)

from kipoi_deepmr.config.values import Number, Section, describe
from kipoi_deepmr.errors import suggestion
from kipoi_deepmr.terms import METHODS

_Check = Callable[[Any], bool]


def _one_of(*allowed: str) -> tuple[_Check, str]:
    return lambda value: isinstance(value, str) and value in allowed, ", ".join(allowed)


def _number(fits: Callable[[float], bool], text: str, also: tuple[str, ...] = ()) -> tuple[_Check, str]:
    def check(value: Any) -> bool:
        if isinstance(value, str):
            return value in also
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and fits(value)

    return check, text


def _whole(lowest: int, highest: int) -> tuple[_Check, str]:
    return lambda value: type(value) is int and lowest <= value <= highest, f"a whole number from {lowest} to {highest}"


_FLAG: tuple[_Check, str] = (lambda value: isinstance(value, bool), "true, false")
_OPTIONS: Mapping[str, tuple[_Check, str]] = {
    "model": _one_of("default", "random", "fixed"),
    "weights": _one_of("simple", "delta"),
    "distribution": _one_of("normal", "t-dist"),
    "robust": _FLAG,
    "penalized": _FLAG,
    "correction": _one_of("CR1", "CR2"),
    "over_dispersion": _FLAG,
    "penalty": _number(lambda value: value >= 0, "a finite number of at least 0"),
    "invalid_sd": _number(lambda value: value > 0, "a finite number above 0"),
    "loss": _one_of("l2", "huber", "tukey"),
    "phi": _number(lambda value: value > 0, "a finite number above 0"),
    "stderr": _one_of("delta", "simple"),
    "ci": _one_of("normal", "fieller", "bootstrap"),
    "n_boot": _whole(2, 10**6),
    "sample_size": _number(lambda value: value > 1, "a finite number above 1"),
    "search": _one_of("coordinate", "global"),
    "model_averaging": _FLAG,
    "max_invalid": _whole(0, 10**6),
    "n_perturb": _whole(0, 10**5),
    "seed": _whole(0, 2**63 - 1),
    "folds": _whole(3, 10**4),
    "psi": _number(
        lambda value: -1 <= value <= 1,
        "stored (the correlation of the errors in the store), a number from -1 to 1",
        ("stored",),
    ),
}
_CLUSTERED = ("correction", "weights", "psi", "distribution")
_BOOTSTRAP = ("distribution", "n_boot", "seed")
_MODE = ("phi", "stderr", *_BOOTSTRAP)
_REGRESSION = ("model", "weights", "distribution", "robust", "penalized", "psi")
# By the first word of a method's name that is listed; a test holds them against the functions of `kipoi_deepmr.mr`.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "ivw": _REGRESSION,
    "ivw_clustered": _CLUSTERED,
    "egger": _REGRESSION,
    "egger_clustered": _CLUSTERED,
    "simple_median": _BOOTSTRAP,
    "weighted_median": ("weights", "psi", *_BOOTSTRAP),
    "penalized_weighted_median": ("weights", "psi", *_BOOTSTRAP),
    "maximum_likelihood": ("model", "distribution", "psi"),
    "debiased_ivw": ("over_dispersion",),
    "penalized_ivw": ("over_dispersion", "penalty", "ci", "seed"),
    "overlap_debiased_ivw": ("psi",),
    "simple_mode": _MODE,
    "weighted_mode": _MODE,
    "raps": ("over_dispersion", "loss", "psi"),
    "radial": ("distribution",),
    "contamination_mixture": ("invalid_sd",),
    "cml": ("sample_size", "search", "model_averaging", "max_invalid", "n_perturb", "psi", "seed"),
    "lasso": ("penalty", "distribution"),
    "multivariable_ivw": ("model", "robust", "distribution"),
    "multivariable_egger": ("distribution",),
    "cross_fitted": ("folds",),
}


def options_of(estimator: str) -> tuple[str, ...]:
    """Return the options that an estimator takes in the file."""
    family = max((name for name in OPTIONS if estimator.startswith(name)), key=len, default=None)
    return OPTIONS[family] if family else ()


class Method(BaseModel):
    """An estimator: its name alone, or a name of one's own with the estimator and options.

    Attributes
    ----------
    name : str
        Its name in the store.
    estimator : str
        One of `terms.METHODS`.
    options : dict
        Options that differ from those of the estimator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    estimator: str
    options: dict[str, str | bool | int | float] = {}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return {"name": value, "estimator": _known(value)}
        if not isinstance(value, dict):
            raise ValueError(
                "expected the name of an estimator, or keys such as {name: ivw_t, estimator: ivw, distribution: t-dist}; "
                f"found {describe(value)}"
            )
        return _with_options(dict(value))

    @model_serializer(mode="plain")
    def _short(self) -> str | dict[str, Any]:
        if not self.options:
            return self.name
        return {"name": self.name, "estimator": self.estimator, **self.options}

    def __str__(self) -> str:
        return self.name


def _known(estimator: object) -> str:
    if not isinstance(estimator, str) or estimator not in METHODS:
        raise ValueError(
            f"{describe(estimator)} is not allowed.{suggestion(estimator, METHODS)} Allowed: {', '.join(METHODS)}"
        )
    return estimator


def _with_options(keys: dict[Any, Any]) -> dict[str, Any]:
    name, estimator = keys.pop("name", None), _known(keys.pop("estimator", None))
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name: expected letters, digits and _ for the name of the results, found {describe(name)}")
    if name in METHODS:
        raise ValueError(f"name: '{name}' is an estimator with its own options: choose another name")
    allowed = options_of(estimator)
    for option, value in keys.items():
        if option not in allowed:
            raise ValueError(
                f"unknown key '{option}'.{suggestion(option, allowed)} Allowed: name, estimator, {', '.join(allowed)}"
            )
        fits, choices = _OPTIONS[option]
        if not fits(value):
            raise ValueError(f"{option}: {describe(value)} is not allowed. Allowed: {choices}")
    if "psi" in keys and "weights" in allowed and "delta" not in (keys.get("weights"), estimator.partition("_")[2]):
        raise ValueError("psi: only weights: delta make use of it")
    if not keys:
        raise ValueError(f"no option is given: write {estimator} alone")
    return {"name": name, "estimator": estimator, "options": keys}


# Used where no methods are named; those that need every draw from so many draws on. The README argues for them.
DEFAULT_METHODS = ("egger", "ivw")
METHODS_OF_DRAWS = ("cross_fitted_egger", "cross_fitted_ivw")
ENOUGH_DRAWS = 10


class MRSection(Section):
    """Mendelian randomization of each sequence."""

    methods: list[Method] = Field(
        default_factory=lambda: [Method.model_validate(name) for name in DEFAULT_METHODS],
        min_length=1,
        description="estimators: names of `kipoi deepmr mr --help`, or {name: ..., estimator: ..., and its options}",
    )
    min_f: Number = Field(0.0, ge=0, description="mutations with (effect/SE)^2 of the exposure below this are left out")
    alpha: Number = Field(0.05, gt=0, lt=1, description="1 - confidence level of the intervals")
    bidirectional: StrictBool = Field(False, description="also the effects of the outcomes on the exposures")

    @field_validator("methods")
    @classmethod
    def _distinct(cls, value: list[Method]) -> list[Method]:
        names = [method.name for method in value]
        if len(set(names)) < len(names):
            raise ValueError("each method may be named once")
        return value


class MetaSection(Section):
    """Meta-analysis over the sequences of an exposure."""

    method: Literal["REML", "DL", "PM", "ML", "EB", "HE", "SJ", "HS", "FE"] = Field(
        "REML", description="estimator of tau2: REML, DL, PM, ML, EB, HE, SJ, HS or FE"
    )
    test: Literal["z", "t", "knha", "adhoc"] = Field(
        "z", description="z, t, knha (Knapp-Hartung), or adhoc (the same, never narrower than t)"
    )
    prediction: Literal["default", "riley"] = Field(
        "default", description="quantile of the prediction interval: as the test, or riley (t with n - 2 degrees)"
    )


class ControlsSection(Section):
    """Negative controls, where no effect is expected."""

    permuted_exposure: Annotated[StrictInt, Field(ge=0, le=100_000)] = Field(
        0, description="times that the exposure effects of a sequence are permuted over its positions"
    )
    shuffled_sequence: Annotated[StrictInt, Field(ge=0, le=10_000)] = Field(
        0, description="dinucleotide shuffles of each sequence that are mutated, too"
    )
    shuffled_per_exposure: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="sequences per exposure that are shuffled; null takes all"
    )
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = Field(1, description="seed of permutations and shuffles")
