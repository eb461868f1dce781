"""The settings as typed sections, each key with its default and what is allowed; their canonical dump."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from kipoi_deepmr.config.estimation import (
    ENOUGH_DRAWS,
    ControlsSection,
    MetaSection,
    MRSection,
    default_methods,
)
from kipoi_deepmr.config.values import (
    FaultAt,
    Name,
    Number,
    Positions,
    Section,
    Size,
    Text,
    Window,
    describe,
    expanded,
    size_in_bytes,
)
from kipoi_deepmr.terms import normalised


def _task(value: Any) -> str | int:
    if isinstance(value, str) and normalised(value):
        return normalised(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(
        "expected a label or glob (in quotes where YAML takes it for something else) or an index from 0, "
        f"found {describe(value)}"
    )


def _plain(args: dict[str, Any]) -> dict[str, Any]:
    for name, value in args.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: only text, finite numbers, true, false, lists and keys; {error}") from None
    return args


class ModelSection(Section):
    """Which Kipoi model is asked."""

    name: Text = Field(description="Kipoi model; with source: dir a path relative to this file")
    source: Text = Field("kipoi", description="any Kipoi source: kipoi, dir, github-permalink, one of your own")


class DataloaderSection(Section):
    """What is handed to the model's own Kipoi dataloader."""

    args: Annotated[dict[StrictStr, Any], AfterValidator(_plain)] = Field(
        default_factory=dict, description="arguments of the dataloader, e.g. fasta_file"
    )
    intervals_arg: Text | None = Field(None, description="its argument for the intervals, when it is not found")
    fasta_arg: Text | None = Field(None, description="its argument for the FASTA file, when it is not found")
    sequence_input: Text | StrictInt | None = Field(
        None, description="name or index of the input to mutate where several hold the sequence; all mutates all alike"
    )


class Task(Section):
    """One output of the model, or several when `task` is a glob."""

    task: Annotated[StrictInt | StrictStr, BeforeValidator(_task)] = Field(
        description="label, index (from 0) or glob of the model's outputs"
    )
    occurrence: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="which one, counted from 1, where the label occurs several times"
    )
    reduce: Literal["mean", "sum", "max", "logsumexp"] | None = Field(
        None, description="mean, sum, max or logsumexp over positions, for a profile along the sequence"
    )
    window: Window | None = Field(None, description="positions [start, end) of the profile, counted from 0")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str | int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _occurrence_of_a_label(self) -> Self:
        if isinstance(self.task, int) and self.occurrence is not None:
            raise ValueError(f"task {self.task} is an index, which is unique: leave `occurrence` out")
        if self.window is not None and self.reduce is None:
            raise ValueError(
                "window belongs to a profile, of which one number is made: add reduce, such as reduce: sum"
            )
        return self


class Exposure(Task):
    """An exposure: a task and the regions that it binds."""

    peaks: Text | None = Field(
        None, description="BED or narrowPeak (gz) of the bound regions; {task} stands for the label of a glob's match"
    )


class SequencesSection(Section):
    """Which reference sequences are mutated."""

    per_exposure: Annotated[StrictInt, Field(ge=1, le=10**9)] | None = Field(
        25, description="sequences sampled per exposure; null takes all"
    )
    chromosomes: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="only these contigs, e.g. those held out in training"
    )
    seed: Annotated[StrictInt, Field(gt=-(2**63), lt=2**63)] = Field(1, description="seed of the sample")
    intervals: Text | None = Field(None, description="one BED for all exposures instead of peaks per exposure")
    min_prediction: Number | None = Field(
        None, description="keep windows that the model itself predicts at least this high for the exposure"
    )
    length: Annotated[StrictInt, Field(ge=1, le=10**9)] | None = Field(
        None, description="window length in bp, when the dataloader and the model do not say it"
    )
    max_n_fraction: Number = Field(0.1, ge=0, le=1, description="windows with a larger share of N are left out")
    merge_distance: Annotated[StrictInt, Field(ge=0, le=10**9)] = Field(
        0, description="windows whose centres lie within this many bp count as one"
    )


class NamedMember(Section):
    """A Kipoi model that is one member of an ensemble."""

    name: Text = Field(description="Kipoi model; with source: dir a path relative to this file")
    source: Text | None = Field(None, description="its source, when it is not that of `model`")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class UncertaintySection(Section):
    """Where the error of an effect comes from."""

    method: Literal["mc_dropout", "ensemble"] = Field(
        "mc_dropout", description="mc_dropout (a draw is a thinned network), ensemble (a draw is a member)"
    )
    members: Annotated[list[NamedMember], Field(min_length=1)] | None = Field(
        None, description="all models of an ensemble, as [name, ...]; null: the members inside the model"
    )
    draws: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(
        50, description="number of draws, at least 2; in an ensemble thinned networks per member (1: no dropout)"
    )
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = Field(1, description="seed of the draws")
    shared_draws: StrictBool = Field(
        False, description="the same thinned networks for all sequences; their errors are then dependent"
    )

    @model_validator(mode="before")
    @classmethod
    def _members_without_dropout(cls, value: Any) -> Any:
        """Take each member of an ensemble once, as it is, unless draws are asked for."""
        if isinstance(value, Mapping) and value.get("method") == "ensemble":
            return {"draws": 1, **value}
        return value

    @model_validator(mode="after")
    def _several_draws(self) -> Self:
        if self.method == "ensemble":
            self._check_members()
        elif self.members is not None:
            raise FaultAt(
                ("uncertainty", "members"), "members belong to `method: ensemble`; mc_dropout draws from one model"
            )
        elif self.draws < 2:
            raise FaultAt(
                ("uncertainty", "draws"), "1 draw cannot give a standard error; use at least 2 (the default is 50)"
            )
        return self

    def _check_members(self) -> None:
        members = self.members or []
        if len(members) == 1:
            raise FaultAt(("uncertainty", "members"), "1 member cannot give a standard error; name at least 2 models")
        twice = [member.name for number, member in enumerate(members) if member in members[:number]]
        if twice:
            raise FaultAt(("uncertainty", "members"), f"'{twice[0]}' is named twice; name each model once")


class EffectsSection(Section):
    """The scale of an effect and the meaning of its standard error."""

    scale: Literal["identity", "logit", "log"] = Field("identity", description="identity, logit or log of the output")
    standard_error: Literal["posterior", "monte_carlo"] = Field(
        "posterior", description="posterior: SD over draws; monte_carlo: SD / sqrt(draws)"
    )
    keep_draws: StrictBool = Field(False, description="store the effects of every draw, too")


class MutagenesisSection(Section):
    """Which positions are mutated, and how."""

    positions: Positions = Field("all", description="all, or [start, end) counted from 0 in the window")
    engine: Literal["auto", "delta", "full"] = Field(
        "auto",
        description="delta (only what a mutation can reach), full (all of the network), auto: the faster one",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="arithmetic of the network's products: float32, or tf32 (GPU) or bfloat16, faster and less exact",
    )
    memory: Size = Field("auto", description="bound on the memory of the network's activations, e.g. 2GiB")

    @property
    def memory_bytes(self) -> int | None:
        """Bound on activations in bytes; None leaves the choice to the engine."""
        return size_in_bytes(self.memory)


class Config(Section):
    """A validated configuration; `load_config` makes it from a YAML file.

    Attributes
    ----------
    directory : Path
        Folder of the YAML file, from which relative paths are counted.
    """

    model: ModelSection
    dataloader: DataloaderSection = DataloaderSection()
    exposures: dict[Name, Exposure] = Field(min_length=1)
    outcomes: dict[Name, Task] = Field(min_length=1)
    sequences: SequencesSection = SequencesSection()
    uncertainty: UncertaintySection = UncertaintySection()
    effects: EffectsSection = EffectsSection()
    mutagenesis: MutagenesisSection = MutagenesisSection()
    mr: MRSection = MRSection()
    meta: MetaSection = MetaSection()
    controls: ControlsSection = ControlsSection()

    _directory: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, data: Any) -> Any:
        """Take a section whose lines are all comments, which YAML reads as nothing, for its defaults."""
        if not isinstance(data, Mapping):
            return data
        needed = {"model", "exposures", "outcomes"}
        return {key: value for key, value in data.items() if value is not None or key in needed}

    @field_validator("exposures", "outcomes", mode="before")
    @classmethod
    def _names_that_differ(cls, tasks: Any) -> Any:
        """Refuse names that differ only in what cannot be seen: of two, one would be lost."""
        names = [name for name in tasks if isinstance(name, str)] if isinstance(tasks, Mapping) else []
        seen: dict[str, str] = {}
        for name in names:
            if normalised(name) in seen:
                raise ValueError(
                    f"{name!r} and {seen[normalised(name)]!r} are the same name: they differ only in how accents are composed, in "
                    "blanks around them or in signs without width; choose two names"
                )
            seen[normalised(name)] = name
        return tasks

    @model_validator(mode="after")
    def _methods_by_the_number_of_draws(self) -> Self:
        """Add the methods that need every draw where none are named and there are enough draws for them."""
        enough = self.uncertainty.method == "mc_dropout" and self.uncertainty.draws >= ENOUGH_DRAWS
        if enough and "methods" not in self.mr.model_fields_set:
            methods = [*self.mr.methods, *default_methods(draws=True)]
            self.__dict__["mr"] = self.mr.model_copy(update={"methods": methods})
        return self

    @model_validator(mode="after")
    def _sequences_come_from_somewhere(self) -> Self:
        without = [name for name, exposure in self.exposures.items() if exposure.peaks is None]
        if self.sequences.intervals is None and without:
            raise FaultAt(
                ("exposures", without[0]),
                f"no sequences for {', '.join(without)}: give each exposure `peaks`, or one BED for all as "
                "`sequences: {intervals: ...}` (with `min_prediction` to keep what the model predicts as bound)",
            )
        if self.sequences.intervals is not None and len(without) < len(self.exposures):
            named = [name for name, exposure in self.exposures.items() if exposure.peaks is not None]
            raise FaultAt(
                ("sequences", "intervals"),
                f"both `sequences.intervals` and `peaks` ({', '.join(named)}) are given: choose one",
            )
        return self

    @property
    def directory(self) -> Path:
        """Folder from which relative paths are counted."""
        return self._directory

    def resolve(self, path: str) -> Path:
        """Return a path of the file as an absolute path (``~`` expanded, relative to the YAML file)."""
        return (self.directory / expanded(path)).resolve()

    def canonical(self) -> str:
        """Return the configuration with all defaults as one line of JSON, the same for the same settings.

        The order of keys in the file does not matter, that of exposures and outcomes does: it is the order of results.
        """
        settings = self.model_dump(mode="json")
        args = settings["dataloader"]
        args["args"] = json.loads(json.dumps(args["args"], sort_keys=True))
        return json.dumps(settings, ensure_ascii=False, separators=(",", ":"))

    def sha256(self) -> str:
        """Return the digest of `canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()
