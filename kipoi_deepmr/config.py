"""The YAML file as typed models: load, validate, explain what is wrong, dump canonically."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from kipoi_deepmr.errors import ConfigError, suggestion

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)\s*$", re.IGNORECASE)
_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _size_in_bytes(value: str) -> str:
    if value != "auto" and not _SIZE.match(value):
        raise ValueError("write a size such as 2GiB or 512MiB, or auto")
    return value


def _available_engine(value: str) -> str:
    if value == "local":
        raise ValueError("the local engine is not available in this version: use auto or full")
    return value


def _available_method(value: str) -> str:
    if value == "ensemble":
        raise ValueError("ensembles are not available in this version: use mc_dropout")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Which Kipoi model is asked."""

    name: StrictStr = Field(min_length=1, description="Kipoi model; with source: dir a path relative to this file")
    source: StrictStr = Field("kipoi", description="any Kipoi source: kipoi, dir, github-permalink, one of your own")


class DataloaderSection(_Section):
    """What is handed to the model's own Kipoi dataloader."""

    args: dict[StrictStr, Any] = Field(default_factory=dict, description="arguments of the dataloader, e.g. fasta_file")
    intervals_arg: StrictStr | None = Field(None, description="its argument for the intervals, when it is not found")
    fasta_arg: StrictStr | None = Field(None, description="its argument for the FASTA file, when it is not found")


class Task(_Section):
    """One output of the model, or several when `task` is a glob."""

    task: StrictInt | StrictStr = Field(description="label, index (from 0) or glob of the model's outputs")
    occurrence: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="which one, counted from 1, where the label occurs several times"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class Exposure(Task):
    """An exposure: a task and the regions that it binds."""

    peaks: StrictStr | None = Field(
        None, description="BED or narrowPeak (gz) of the bound regions; {task} stands for the label of a glob's match"
    )


class SequencesSection(_Section):
    """Which reference sequences are mutated."""

    per_exposure: Annotated[StrictInt, Field(ge=1)] | None = Field(
        25, description="sequences sampled per exposure; null takes all"
    )
    chromosomes: list[StrictStr] | None = Field(None, description="only these contigs, e.g. those held out in training")
    seed: StrictInt = Field(1, description="seed of the sample")
    intervals: StrictStr | None = Field(None, description="one BED for all exposures instead of peaks per exposure")
    min_prediction: float | None = Field(
        None, description="keep windows that the model itself predicts at least this high for the exposure"
    )
    length: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="window length in bp, when the dataloader and the model do not say it"
    )
    max_n_fraction: float = Field(0.1, ge=0, le=1, description="windows with a larger share of N are left out")
    merge_distance: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="windows whose centres lie within this many bp count as one"
    )


class UncertaintySection(_Section):
    """Where the error of an effect comes from."""

    method: Annotated[Literal["mc_dropout", "ensemble"], AfterValidator(_available_method)] = Field(
        "mc_dropout", description="mc_dropout (a draw is a thinned network)"
    )
    draws: Annotated[StrictInt, Field(ge=2)] = Field(50, description="number of draws, at least 2")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(1, description="seed of the draws")
    shared_draws: StrictBool = Field(
        False, description="the same thinned networks for all sequences; their errors are then dependent"
    )


class EffectsSection(_Section):
    """The scale of an effect and the meaning of its standard error."""

    scale: Literal["identity", "logit", "log"] = Field("identity", description="identity, logit or log of the output")
    standard_error: Literal["posterior", "monte_carlo"] = Field(
        "posterior", description="posterior: SD over draws; monte_carlo: SD / sqrt(draws)"
    )


class MutagenesisSection(_Section):
    """Which positions are mutated, and how."""

    positions: Literal["all"] | tuple[StrictInt, StrictInt] = Field(
        "all", description="all, or [start, end) counted from 0 in the window"
    )
    engine: Annotated[Literal["auto", "local", "full"], AfterValidator(_available_engine)] = Field(
        "auto", description="auto or full (every mutant through the whole network)"
    )
    memory: Annotated[StrictStr, AfterValidator(_size_in_bytes)] = Field(
        "auto", description="bound on the memory of the network's activations, e.g. 2GiB"
    )

    @field_validator("positions")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if value != "all" and not 0 <= value[0] < value[1]:
            raise ValueError("write all or [start, end) with 0 <= start < end")
        return value

    @property
    def memory_bytes(self) -> int | None:
        """Bound on activations in bytes; None leaves the choice to the engine."""
        match = _SIZE.match(self.memory)
        return int(float(match[1]) * _UNITS[match[2][0].upper()]) if match else None


class MRSection(_Section):
    """Mendelian randomization of each sequence."""

    methods: list[Literal["egger", "ivw"]] = Field(
        default_factory=lambda: ["egger", "ivw"], min_length=1, description="estimators: egger, ivw"
    )
    min_f: float = Field(0.0, ge=0, description="mutations with (effect/SE)^2 of the exposure below this are left out")
    alpha: float = Field(0.05, gt=0, lt=1, description="1 - confidence level of the intervals")

    @field_validator("methods")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each method may be named once")
        return value


class MetaSection(_Section):
    """Meta-analysis over the sequences of an exposure."""

    method: Literal["REML", "DL", "PM", "ML", "FE"] = Field("REML", description="estimator of tau2")
    test: Literal["z", "knha"] = Field("z", description="z, or knha for Knapp-Hartung")


class Config(_Section):
    """A validated configuration; `load_config` makes it from a YAML file.

    Attributes
    ----------
    directory : Path
        Folder of the YAML file, from which relative paths are counted.
    """

    model: ModelSection
    dataloader: DataloaderSection = DataloaderSection()
    exposures: dict[StrictStr, Exposure] = Field(min_length=1)
    outcomes: dict[StrictStr, Task] = Field(min_length=1)
    sequences: SequencesSection = SequencesSection()
    uncertainty: UncertaintySection = UncertaintySection()
    effects: EffectsSection = EffectsSection()
    mutagenesis: MutagenesisSection = MutagenesisSection()
    mr: MRSection = MRSection()
    meta: MetaSection = MetaSection()

    _directory: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _sequences_come_from_somewhere(self) -> Self:
        without = [name for name, exposure in self.exposures.items() if exposure.peaks is None]
        if self.sequences.intervals is None and without:
            raise ValueError(
                f"no sequences for {', '.join(without)}: give each exposure `peaks`, or one BED for all as "
                "`sequences: {intervals: ...}` (with `min_prediction` to keep what the model predicts as bound)"
            )
        if self.sequences.intervals is not None and len(without) < len(self.exposures):
            named = [name for name, exposure in self.exposures.items() if exposure.peaks is not None]
            raise ValueError(f"both `sequences.intervals` and `peaks` ({', '.join(named)}) are given: choose one")
        return self

    @property
    def directory(self) -> Path:
        """Folder from which relative paths are counted."""
        return self._directory

    def resolve(self, path: str) -> Path:
        """Return a path of the file as an absolute path (``~`` expanded, relative to the YAML file)."""
        return (self.directory / Path(path).expanduser()).resolve()

    def canonical(self) -> str:
        """Return the configuration with all defaults as one line of JSON, the same for the same settings."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"), sort_keys=False)

    def sha256(self) -> str:
        """Return the digest of the settings; the order of keys in the file does not matter, that of tasks does."""
        dumped = self.model_dump(mode="json")
        order = {side: list(dumped[side]) for side in ("exposures", "outcomes")}
        text = json.dumps([dumped, order], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class _LineLoader(yaml.SafeLoader):
    """Reads YAML, keeps the line of every key and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str | int | float | bool | None):
                continue
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"line {line}: key '{key}' stands already on line {seen[key]}; keep one of them")
            seen[key] = line
        return super().construct_mapping(node, deep)


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration.

    Parameters
    ----------
    path
        YAML file. Relative paths in it are counted from its folder.

    Returns
    -------
    Config
        The settings with every default filled in.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, or holds something that is not allowed. All faults are listed, each
        with its line and key, what is allowed, and the nearest match for a misspelt word.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    try:
        loader = _LineLoader(text)
        root = loader.get_single_node()
        data = loader.construct_document(root) if root is not None else None  # type: ignore[no-untyped-call]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_explain_syntax(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys such as model, exposures and outcomes, found {_kind(data)}")
    return parse_config(data, path.parent.resolve(), str(path), root)


def parse_config(
    data: Mapping[str, Any], directory: Path, origin: str = "config", root: yaml.Node | None = None
) -> Config:
    """Validate settings that are already a mapping.

    Parameters
    ----------
    data
        The settings, as YAML gives them.
    directory
        Folder from which relative paths are counted.
    origin
        What to call the settings in an error.
    root
        YAML node of `data`, for line numbers in errors.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        lines = [f"{_where(root, fault['loc'])}{_explain(fault)}" for fault in _distinct_faults(error)]
        raise ConfigError("\n  ".join([f"{origin} is not a valid configuration:", *lines])) from None
    config._directory = directory
    return config


def _distinct_faults(error: ValidationError) -> Iterator[ErrorDetails]:
    seen = set()
    for fault in error.errors():
        location = _location(fault["loc"])
        if location not in seen:
            seen.add(location)
            yield fault


def _location(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop the names that pydantic adds for the branch of a union."""
    kept: list[int | str] = []
    annotation: Any = Config
    for part in loc:
        step = _step(annotation, part)
        if step is None and kept and not _has_fields(annotation):
            continue
        kept.append(part)
        annotation = step
    return tuple(kept)


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _has_fields(annotation: Any) -> bool:
    annotation = _bare(annotation)
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _step(annotation: Any, part: int | str) -> Any:
    annotation = _bare(annotation)
    if _has_fields(annotation):
        field = annotation.model_fields.get(part)
        return field.annotation if field is not None else None
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) in (list, tuple) and isinstance(part, int):
        return get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        steps = (_step(option, part) for option in get_args(annotation))
        return next((step for step in steps if step is not None), None)
    return None


def _where(root: yaml.Node | None, loc: tuple[int | str, ...]) -> str:
    location = _location(loc)
    key = ".".join(str(part) for part in location)
    line = _line(root, location)
    return f"line {line}: {key}: " if line and key else f"{key}: " if key else ""


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _explain(fault: ErrorDetails) -> str:
    loc, kind, given = fault["loc"], fault["type"], fault["input"]
    if kind == "extra_forbidden":
        parent: Any = Config
        for part in loc[:-1]:
            parent = _step(parent, part) or parent
        allowed = list(_bare(parent).model_fields)
        return f"unknown key '{loc[-1]}'.{suggestion(loc[-1], allowed)} Allowed: {', '.join(allowed)}"
    if kind == "missing":
        return "this key is required"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"'{given}' is not allowed.{suggestion(given, allowed)} Allowed: {', '.join(allowed)}"
    if kind in ("value_error", "assertion_error"):
        return str(fault["ctx"]["error"])
    if kind == "greater_than_equal" and _location(loc) == ("uncertainty", "draws"):
        return f"{given} draw{'s' * (given != 1)} cannot give a standard error: use at least 2 (the default is 50)"
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}, found {_kind(given)}"


def _explain_syntax(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or str(error)
    if "\\t" in problem:
        return f"{where}a tab stands where YAML wants spaces; indent with spaces"
    return f"{where}not valid YAML: {problem}"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names: dict[type, str] = {dict: "keys", list: "a list", str: f"the text '{value}'"}
    return names.get(type(value), f"{value!r}")
