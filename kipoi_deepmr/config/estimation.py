"""How estimates are made: estimators and their options, meta-analysis, negative controls."""

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
from kipoi_deepmr.estimators import DEFAULT, ESTIMATORS, Estimator


class Method(BaseModel):
    """An estimator: its name alone, or a name of one's own with the estimator and options.

    Attributes
    ----------
    name : str
        Its name in the store.
    estimator : str
        One of `estimators.ESTIMATORS`.
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

    @property
    def row(self) -> Estimator:
        """What is known of its estimator."""
        return ESTIMATORS[self.estimator]


def _known(estimator: object) -> str:
    if not isinstance(estimator, str) or estimator not in ESTIMATORS:
        raise ValueError(
            f"{describe(estimator)} is not allowed.{suggestion(estimator, ESTIMATORS)} Allowed: {', '.join(ESTIMATORS)}"
        )
    return estimator


def _with_options(keys: dict[Any, Any]) -> dict[str, Any]:
    name, estimator = keys.pop("name", None), _known(keys.pop("estimator", None))
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name: expected letters, digits and _ for the name of the results, found {describe(name)}")
    if name in ESTIMATORS:
        raise ValueError(f"name: '{name}' is an estimator with its own options: choose another name")
    row = ESTIMATORS[estimator]
    allowed = row.options
    for option, value in keys.items():
        if option not in allowed:
            raise ValueError(
                f"unknown key '{option}'.{suggestion(option, allowed)} Allowed: name, estimator, {', '.join(allowed)}"
            )
        if not allowed[option].fits(value):
            raise ValueError(f"{option}: {describe(value)} is not allowed. Allowed: {allowed[option].allowed}")
    if "psi" in keys and "weights" in allowed and "delta" not in (keys.get("weights"), row.fixed.get("weights")):
        raise ValueError("psi: only weights: delta make use of it")
    if not keys:
        raise ValueError(f"no option is given: write {estimator} alone")
    return {"name": name, "estimator": estimator, "options": keys}


# The default methods that need every draw are used from so many draws on.
ENOUGH_DRAWS = 10


def default_methods(*, draws: bool) -> list[Method]:
    """Return the methods that are used where none are named: those that need every draw, or the others."""
    return [Method.model_validate(name) for name in DEFAULT if ESTIMATORS[name].draws == draws]


class MRSection(Section):
    """Mendelian randomization of each sequence."""

    methods: list[Method] = Field(
        default_factory=lambda: default_methods(draws=False),
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

    def of_shuffles(self) -> str:
        """Return what decides the shuffled sequences, as JSON."""
        return self.model_dump_json(include={"shuffled_sequence", "shuffled_per_exposure", "seed"})
