"""What a torch network takes and returns, found by trying: the shape of its input, the positions in its output."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.network import float_dtype
from kipoi_deepmr.model.outputs import output_parts

_ROWS = 2
_ALPHABET, _POSITION, _DUMMY = "AP1"
_ORDERS = ("AP", "PA", *map("".join, itertools.permutations("AP1")))


@dataclass(frozen=True)
class InputShape:
    """Shape of one-hot sequences without the batch axis.

    Attributes
    ----------
    order : str
        Its axes: A for the bases, P for the positions, 1 for a dummy axis.
    length : int
        Length of the sequences in bp.
    """

    order: str
    length: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple({_ALPHABET: 4, _POSITION: self.length, _DUMMY: 1}[axis] for axis in self.order)

    def axes(self) -> dict[str, int]:
        """Return the arguments with which kipoiseq's dataloaders give this shape."""
        dummy = {"dummy_axis": self.order.index(_DUMMY)} if _DUMMY in self.order else {}
        return {"alphabet_axis": self.order.index(_ALPHABET), **dummy}

    def one_hot(self, dtype: torch.dtype) -> torch.Tensor:
        """Return random sequences, shape (2, *sizes)."""
        codes = np.random.default_rng(0).integers(0, 4, (_ROWS, self.length))
        rows = torch.from_numpy(np.eye(4)[codes]).to(dtype)
        return rows.movedim(2, 1 + self.order.replace(_DUMMY, "").index(_ALPHABET)).reshape(_ROWS, *self.sizes)


def find_shape(network: nn.Module, length: int, asked: Sequence[int] = ()) -> tuple[InputShape, Any]:
    """Return the shape of one-hot sequences that a network takes, and its output for two of them.

    Parameters
    ----------
    network
        The network in eval mode.
    length
        Length of its sequences in bp.
    asked
        The shape without the batch axis, where several are possible.

    Raises
    ------
    ConfigError
        If the network takes several shapes and none is asked for, or the one that is asked for is no one-hot sequence.
    ModelError
        If it takes none, or returns neither (batch, tasks) nor a profile.
    """
    shapes = [InputShape(order, length) for order in _ORDERS]
    if asked:
        shapes = [shape for shape in shapes if shape.sizes == tuple(asked)]
        if not shapes:
            raise ConfigError(
                f"--shape {' '.join(map(str, asked))}: needed are 4 bases and {length} positions in the order of the network, "
                "and 1 for a dummy axis"
            )
    taken: list[tuple[InputShape, Any]] = []
    returned: list[tuple[InputShape, Any]] = []
    said = []
    for shape in shapes:
        try:
            output = _call(network, shape)
        except Exception as error:  # noqa: BLE001  whatever it says, the next shape is tried
            said.append(f"{shape.sizes}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        (returned if _wrong(output) else taken).append((shape, output))
    if len(taken) > 1:
        raise ConfigError(
            f"the network takes one-hot sequences of {length} bp in {len(taken)} shapes "
            f"({', '.join(str(shape.sizes) for shape, _ in taken)}), and only one is what it was trained on: name it, as in "
            f"--shape {' '.join(map(str, taken[0][0].sizes))}"
        )
    if taken:
        return taken[0]
    if returned:
        shape, output = returned[0]
        raise ModelError(
            f"the network's output for two sequences of the shape {shape.sizes} has the shape {_wrong(output)[0]}: needed is "
            "(batch, tasks), or a profile (batch, positions, tracks)"
        )
    raise ModelError(f"the network takes one-hot sequences of {length} bp in no shape; tried were {'; '.join(said)}")


def _wrong(output: Any) -> list[tuple[int, ...]]:
    """Return the shapes of arrays that are neither (batch, tasks) nor profiles; that of something else is ()."""
    shapes = [tuple(getattr(part, "shape", ())) for _, part in output_parts(output)]
    return [shape for shape in shapes or [()] if len(shape) not in (1, 2, 3) or shape[0] != _ROWS]


def position_axes(network: nn.Module, shape: InputShape, output: Any) -> list[int | None]:
    """Return, for each output array, the axis whose length follows that of the sequence; None where none does or several.

    Parameters
    ----------
    network
        The network in eval mode.
    shape
        The shape of its input.
    output
        Its output for two sequences of this shape.
    """
    sizes = [tuple(part.shape) for _, part in output_parts(output)]
    try:
        longer = [
            tuple(part.shape) for _, part in output_parts(_call(network, replace(shape, length=2 * shape.length)))
        ]
    except Exception:  # noqa: BLE001  a network of one length
        return [None] * len(sizes)
    moved = [
        [axis for axis, (size, other) in enumerate(zip(one, two, strict=True)) if size != other]
        if len(one) == len(two)
        else []
        for one, two in zip(sizes, longer, strict=True)
    ]
    return [axes[0] if len(axes) == 1 else None for axes in moved]


def input_dtype(network: nn.Module) -> torch.dtype:
    """Return the type of floating-point numbers that a network takes."""
    return float_dtype(network) or torch.float32


def _call(network: nn.Module, shape: InputShape) -> Any:
    with torch.no_grad():
        return network(shape.one_hot(input_dtype(network)))
