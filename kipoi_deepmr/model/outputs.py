"""What a model returns as (batch, tasks): arrays joined, profiles reduced to one number per track."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model.layout import Key

_REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda profile: profile.mean(1),
    "sum": lambda profile: profile.sum(1),
    "max": lambda profile: profile.amax(1),
    "logsumexp": lambda profile: profile.logsumexp(1),
}


@dataclass(frozen=True)
class Reduction:
    """How a profile becomes one number.

    Attributes
    ----------
    how : str
        ``mean``, ``sum``, ``max`` or ``logsumexp`` over positions.
    window : tuple of int or None
        Positions [start, end) of the profile; None for all.
    """

    how: str
    window: tuple[int, int] | None = None

    def describe(self) -> str:
        """Say it in words."""
        return self.how if self.window is None else f"{self.how} of [{self.window[0]}, {self.window[1]})"

    def __call__(self, profile: Tensor) -> Tensor:
        """Reduce a profile (batch, positions, tracks) to (batch, tasks): its tracks, then all of them together.

        Raises
        ------
        ModelError
            If the window leaves the profile.
        """
        if self.window is not None:
            if self.window[1] > profile.shape[1]:
                raise ModelError(
                    f"window: {list(self.window)} leaves the profile, which has {profile.shape[1]} positions"
                )
            profile = profile[:, self.window[0] : self.window[1]]
        tracks = _REDUCTIONS[self.how](profile)
        return tracks if tracks.shape[1] == 1 else torch.cat([tracks, _REDUCTIONS[self.how](tracks)[:, None]], dim=1)


@dataclass(frozen=True)
class Outputs:
    """How a model's output becomes (batch, columns): a column for each task, then one for each further reduction.

    Attributes
    ----------
    track_axes : tuple
        Per array, in their order, the axis of the tracks of a profile, 1 or 2, the other one being that of the positions;
        None for an array that is no profile.
    asked : tuple of (int, Reduction)
        What is done to the profile of a task, by its index among all tasks. The first reduction of a task fills its own
        column; every other one has a column after those of all tasks.
    tasks : int
        How many tasks the model has.
    """

    track_axes: tuple[int | None, ...] = ()
    asked: tuple[tuple[int, Reduction], ...] = ()
    tasks: int = 0

    @cached_property
    def _own(self) -> dict[int, Reduction]:
        return dict(reversed(self.asked))

    @cached_property
    def _further(self) -> list[tuple[int, Reduction]]:
        others = dict.fromkeys((index, how) for index, how in self.asked if how != self._own[index])
        return sorted(others, key=lambda pair: pair[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.tasks + len(self._further)

    def column(self, index: int, reduction: Reduction | None = None) -> int:
        """Return the column of a task, reduced as asked for."""
        if reduction is None or self._own[index] == reduction:
            return index
        return self.tasks + self._further.index((index, reduction))

    def join(self, output: Any, batch: int) -> Tensor:
        """Return a model's output as one tensor.

        Parameters
        ----------
        output
            A tensor, or a list or dict of tensors.
        batch
            Rows that were asked for.

        Returns
        -------
        torch.Tensor, shape=(batch, columns)
            Several arrays are joined along the tasks. The tracks of a profile are followed by all of its tracks as one
            task, where there are several. What is not asked for is reduced like what is.

        Raises
        ------
        ModelError
            If an array is not understood.
        """
        parts: list[Tensor] = []
        further: list[Tensor] = []
        first = 0
        for number, (_, part) in enumerate(output_parts(output)):
            axis = self.track_axes[number] if number < len(self.track_axes) else None
            if axis is None:
                parts.append(columns(part, batch))
            else:
                profile = _profile(part, axis, batch)
                parts.append(self._reduced(profile, first))
                further += self._reduced_further(profile, first)
            first += parts[-1].shape[1]
        parts += further
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _reduced(self, profile: Tensor, first: int) -> Tensor:
        tasks = tasks_of(profile.shape[2])
        wanted = {index - first: how for index, how in self._own.items() if 0 <= index - first < tasks}
        kinds = list(dict.fromkeys(wanted.values())) or [Reduction("sum")]
        reduced = [kind(profile) for kind in kinds]
        if len(kinds) == 1:
            return reduced[0]
        chosen = [reduced[kinds.index(wanted.get(task, kinds[0]))][:, task] for task in range(tasks)]
        return torch.stack(chosen, dim=1)

    def _reduced_further(self, profile: Tensor, first: int) -> list[Tensor]:
        tasks = tasks_of(profile.shape[2])
        wanted = [(index - first, how) for index, how in self._further if 0 <= index - first < tasks]
        return [how(profile)[:, task : task + 1] for task, how in wanted]


def _profile(part: Tensor, track_axis: int, batch: int) -> Tensor:
    """Return a profile as (batch, positions, tracks)."""
    if part.ndim != 3 or part.shape[0] != batch:
        raise ModelError(
            f"the schema describes a profile, but the model returns the shape {tuple(part.shape)} for a batch of {batch}: "
            "needed is (batch, positions, tracks) or (batch, tracks, positions)"
        )
    return part.movedim(track_axis, 2)


def tasks_of(tracks: int) -> int:
    """Return how many tasks a profile has: its tracks, and all of them together where there are several."""
    return tracks + (tracks > 1)


def output_parts(output: Any) -> Iterator[tuple[Key, Any]]:
    """Yield the arrays of a model output with their names; those of a dict in the order of the names.

    A network's dict and that of the model's schema may stand in another order, so neither order is taken.
    """
    if isinstance(output, Mapping):
        yield from sorted(output.items(), key=lambda item: str(item[0]))
    elif isinstance(output, list | tuple):
        yield from enumerate(output)
    else:
        yield None, output


def columns(part: Any, batch: int) -> Any:
    """Return an output array as (batch, tasks); (batch,) becomes one task.

    Raises
    ------
    ModelError
        If it has another shape or number of rows.
    """
    shape = tuple(getattr(part, "shape", ()))
    if len(shape) == 1 and shape[0] == batch:
        return part[:, None]
    if len(shape) != 2 or shape[0] != batch:
        raise ModelError(
            f"the model's output has shape {shape} for a batch of {batch}: needed is (batch, tasks), one number per "
            "sequence and task, or a profile whose shape, (positions, tracks) or (tracks, positions), is in the schema "
            "of its model.yaml"
        )
    return part
