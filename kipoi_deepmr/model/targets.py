"""Outputs of a model under unique names: labels may repeat, an index never does."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from kipoi_deepmr.config import Config, Task
from kipoi_deepmr.errors import TaskError, suggestion
from kipoi_deepmr.model.outputs import Reduction
from kipoi_deepmr.terms import normalised

_LISTED = 12


@dataclass(frozen=True)
class Profile:
    """A profile along the sequence, which has to be reduced to one number.

    Attributes
    ----------
    positions : int or None
        Its length, where it is fixed.
    tracks : int
        Number of its tracks.
    first : int
        Index of the first of them among the outputs of the model; all together follow the last one, where there are several.
    """

    positions: int | None
    tracks: int
    first: int = 0

    def describe(self) -> str:
        """Say it in words."""
        return f"profile of {self.positions or 'any number of'} positions, {self.tracks} track{'s' * (self.tracks > 1)}"


@dataclass(frozen=True)
class Target:
    """One output of the model.

    Attributes
    ----------
    index : int
        Column of the output, counted from 0.
    label : str
        The model's own label, not unique in some models; ``output_<index>`` when the model has none.
    occurrence : int
        Which of the outputs with this label it is, counted from 1.
    repeated : bool
        Whether the label occurs more than once.
    profile : Profile or None
        The profile of which it is a track, or all tracks together.
    """

    index: int
    label: str
    occurrence: int
    repeated: bool
    profile: Profile | None = None

    @property
    def name(self) -> str:
        """The label, with ``#occurrence`` where the label repeats: unique within the model."""
        return f"{self.label}#{self.occurrence}" if self.repeated else self.label

    @property
    def is_sum(self) -> bool:
        """Whether it is all tracks of a profile together."""
        return (
            self.profile is not None
            and self.profile.tracks > 1
            and self.index == self.profile.first + self.profile.tracks
        )

    def shares_tracks(self, other: "Target") -> bool:
        """Tell whether this or the other one is all tracks of the profile of both."""
        return self.profile is not None and self.profile == other.profile and (self.is_sum or other.is_sum)


class Targets(Sequence[Target]):
    """All outputs of a model.

    Parameters
    ----------
    labels
        The model's labels, one per output column; they are taken as names are compared (`terms.normalised`).
    profiles
        The profile that each of them is a track of. Default: none is.
    """

    def __init__(self, labels: Sequence[str], profiles: Sequence[Profile | None] = ()) -> None:
        labels = [normalised(label) for label in labels]
        counts = Counter(labels)
        seen: Counter[str] = Counter()
        self._targets: list[Target] = []
        for index, label in enumerate(labels):
            seen[label] += 1
            profile = profiles[index] if index < len(profiles) else None
            self._targets.append(Target(index, label, seen[label], counts[label] > 1, profile))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._targets[index]

    def find(self, task: Task, key: str) -> Target:
        """Return the one output that a task names.

        Parameters
        ----------
        task
            A label, an index, or a label with its occurrence; no glob.
        key
            Where the task stands in the configuration, for errors.

        Raises
        ------
        TaskError
            If there is no such output, or the label occurs several times and no occurrence is given.
        """
        if isinstance(task.task, int):
            if not 0 <= task.task < len(self):
                raise TaskError(
                    f"{key}: the model has {len(self)} outputs, 0 to {len(self) - 1}; there is no {task.task}"
                )
            return self._targets[task.task]
        named = [target for target in self if target.label == task.task]
        named = named or [target for target in self if target.name == task.task]
        if not named:
            labels = list(dict.fromkeys(target.label for target in self))
            raise TaskError(
                f"{key}: the model has no output '{task.task}'.{suggestion(task.task, labels)} "
                f"It has {len(self)} outputs{_some(labels)}; `kipoi deepmr tasks MODEL --match` lists them"
            )
        if task.occurrence is not None:
            if task.occurrence > len(named):
                times = "once" if len(named) == 1 else f"{len(named)} times"
                raise TaskError(f"{key}: '{task.task}' occurs {times}; there is no occurrence {task.occurrence}")
            return named[task.occurrence - 1]
        if len(named) > 1:
            choices = ", ".join(f"occurrence {target.occurrence} (index {target.index})" for target in named)
            raise TaskError(f"{key}: '{task.task}' occurs {len(named)} times: choose with `occurrence`: {choices}")
        return named[0]

    def matching(self, pattern: str, occurrence: int | None = None) -> list[Target]:
        """Return the outputs whose label or unique name matches a glob such as ``HepG2_*_None``.

        Parameters
        ----------
        pattern
            The glob.
        occurrence
            Only these occurrences of labels that repeat, counted from 1. Default: all.
        """
        return [
            target
            for target in self
            if (fnmatch.fnmatchcase(target.label, pattern) or fnmatch.fnmatchcase(target.name, pattern))
            and occurrence in (None, target.occurrence)
        ]

    def is_glob(self, task: Task) -> bool:
        """Tell whether a task is a glob: it has a wildcard and is not itself the label of an output."""
        return (
            isinstance(task.task, str)
            and any(sign in task.task for sign in "*?[")
            and all(task.task not in (target.label, target.name) for target in self)
        )


@dataclass(frozen=True)
class Selection:
    """The outputs that a configuration names.

    Attributes
    ----------
    exposures, outcomes : dict of str to Target
        The user's names, in the order of the configuration.
    peaks : dict of str to str
        Path of the peaks of each exposure as written in the configuration; empty when one BED serves all.
    notes : tuple of str
        What a user should know of the choice.
    reductions : tuple
        What is done to each of them, exposures first: a Reduction for a profile, None for a number.
    """

    exposures: Mapping[str, Target]
    outcomes: Mapping[str, Target]
    peaks: Mapping[str, str]
    notes: tuple[str, ...] = ()
    reductions: tuple[Reduction | None, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them, exposures first."""
        return (*self.exposures.values(), *self.outcomes.values())

    @property
    def indices(self) -> list[int]:
        """Their places among the outputs of the model, exposures first."""
        return [target.index for target in self.targets]


def select(targets: Targets, config: Config) -> Selection:
    """Find the outputs that the configuration names; a glob gives one exposure or outcome per match.

    A glob leaves out what the other side names: no output is both exposure and outcome. A task that is given by its
    label or index is taken before any glob.

    Raises
    ------
    TaskError
        If a task is unknown or ambiguous, a glob matches nothing, an output is both exposure and outcome, or two tasks
        come to the same name.
    """
    single = {
        key: targets.find(task, f"exposures.{key}.task").index
        for key, task in config.exposures.items()
        if not targets.is_glob(task)
    }
    outcomes, notes = _named(targets, config.outcomes, "outcomes", set(single.values()))
    _check_sides(targets, config, single, outcomes)
    taken = {target.index for target, _ in outcomes.values()}
    exposures, more_notes = _named(targets, config.exposures, "exposures", taken)
    peaks: dict[str, str] = {}
    for name, (target, key) in exposures.items():
        path = config.exposures[key].peaks
        if path is not None:
            peaks[name] = path.replace("{task}", target.label)
    reductions = (
        *(_reduction(config.exposures[key], target, f"exposures.{key}") for target, key in exposures.values()),
        *(_reduction(config.outcomes[key], target, f"outcomes.{key}") for target, key in outcomes.values()),
    )
    return Selection(
        {name: target for name, (target, _) in exposures.items()},
        {name: target for name, (target, _) in outcomes.items()},
        peaks,
        (*notes, *more_notes, *_shared_tracks(config, exposures, outcomes)),
        reductions,
    )


def _check_sides(
    targets: Targets, config: Config, exposures: Mapping[str, int], outcomes: Mapping[str, tuple[Target, str]]
) -> None:
    """Check that no output is on both sides, but for parts of a profile that do not overlap."""
    for key, index in exposures.items():
        for target, other in outcomes.values():
            if target.index == index and not _apart(config.exposures[key].window, config.outcomes[other].window):
                raise TaskError(
                    f"exposures.{key} and outcomes.{other} are the same output '{targets[index].name}': an output has no "
                    "causal effect on itself; choose two different tasks, or windows of a profile that do not overlap"
                )


def _shared_tracks(
    config: Config, exposures: Mapping[str, tuple[Target, str]], outcomes: Mapping[str, tuple[Target, str]]
) -> list[str]:
    """Say which outcomes hold their exposure, or the other way round: a sum moves with each of its parts."""
    return [
        f"{name} and {other} share tracks of one profile ({target.name}, {second.name}): an effect of the one on the other is there "
        "by construction"
        for name, (target, key) in exposures.items()
        for other, (second, other_key) in outcomes.items()
        if target.shares_tracks(second) and not _apart(config.exposures[key].window, config.outcomes[other_key].window)
    ]


def _apart(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is not None and other is not None and (one[1] <= other[0] or other[1] <= one[0])


def _reduction(task: Task, target: Target, where: str) -> Reduction | None:
    if target.profile and task.reduce is None:
        raise TaskError(
            f"{where}: '{target.name}' is a profile along the sequence, an effect is one number: add reduce: mean, "
            "sum, max or logsumexp, and window: [start, end) for a part of it"
        )
    if task.reduce is not None and not target.profile:
        raise TaskError(f"{where}: '{target.name}' is one number per sequence, no profile: leave `reduce` out")
    return None if task.reduce is None else Reduction(task.reduce, task.window)


def _named(
    targets: Targets, tasks: Mapping[str, Task], side: str, taken: Set[int]
) -> tuple[dict[str, tuple[Target, str]], list[str]]:
    """Return outputs by name, each with the key of the configuration that it comes from, and notes."""
    other = "an exposure" if side == "outcomes" else "an outcome"
    named: dict[str, tuple[Target, str]] = {}
    notes = []
    for key, task in tasks.items():
        found, left_out = _found(targets, task, key, side, taken)
        for name, target in found.items():
            if name in named:
                raise TaskError(
                    f"{side}.{key} and {side}.{named[name][1]} both come to the name '{name}': "
                    "rename one, or narrow a glob so that each output is matched once"
                )
            named[name] = (target, key)
        notes += [
            f"{target.name} is {other} and was left out of the {side} that match '{task.task}'" for target in left_out
        ]
    return named, notes


def _found(
    targets: Targets, task: Task, key: str, side: str, taken: Set[int]
) -> tuple[dict[str, Target], list[Target]]:
    if not targets.is_glob(task):
        return {key: targets.find(task, f"{side}.{key}.task")}, []
    matches = targets.matching(str(task.task), task.occurrence)
    kept = {target.name: target for target in matches if target.index not in taken}
    if not kept:
        labels = [target.label for target in targets]
        why = (
            f"all {len(matches)} outputs that match '{task.task}' are named on the other side"
            if matches
            else f"no output of the model matches '{task.task}'.{suggestion(task.task, labels)} It has"
            f" {len(labels)} outputs{_some(labels)}"
        )
        raise TaskError(f"{side}.{key}.task: {why}")
    return kept, [target for target in matches if target.index in taken]


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_LISTED])
    return f" ({shown}{', ...' if len(labels) > _LISTED else ''})"
