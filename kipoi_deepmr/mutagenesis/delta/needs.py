"""Which stretch of its input an operation needs for a stretch of its output."""

from collections.abc import Callable
from dataclasses import dataclass

# Takes a stretch [low, high) of the output and the length of the input, returns a stretch of the input.
Needs = Callable[[int, int, int], tuple[int, int]]


def mirrored(low: int, high: int, length: int) -> tuple[int, int]:
    """The axis is reversed."""
    return length - high, length - low


@dataclass(frozen=True)
class Shifted:
    """Entry 0 of the output is entry `by` of the input; negative for padding."""

    by: int

    def __call__(self, low: int, high: int, length: int) -> tuple[int, int]:
        """Return the stretch of the input."""
        return low + self.by, high + self.by


@dataclass(frozen=True)
class Sliding:
    """A kernel slides along the axis."""

    stride: int
    padding: int
    span: int

    def __call__(self, low: int, high: int, length: int) -> tuple[int, int]:
        """Return the stretch of the input."""
        return low * self.stride - self.padding, (high - 1) * self.stride - self.padding + self.span


@dataclass(frozen=True)
class Only:
    """One entry is needed."""

    entry: int

    def __call__(self, low: int, high: int, length: int) -> tuple[int, int]:
        """Return the stretch of the input."""
        return self.entry, self.entry + 1
