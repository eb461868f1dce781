"""What is known of a node of the graph while the delta program is made."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.reach import Window


class Unsupported(Exception):
    """An operation that cannot be followed locally."""


def arguments(node: fx.Node) -> list[Any]:
    """Return the arguments of a node, whose types depend on the operation."""
    return list(node.args)


def call(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """Run the operation of a node on other arguments."""
    target: Any = node.target
    return target(*args, **kwargs)


@dataclass(frozen=True)
class Axes:
    """How the dimensions of a node are made of atoms: the position axis and the axes that do not touch it.

    Attributes
    ----------
    dims : tuple of tuple of int
        For each dimension without the batch the atoms that it is made of, outermost first; empty for length 1.
    sizes : tuple of int
        Length of each atom; atom 0 is the position axis.
    """

    dims: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @property
    def order(self) -> list[int]:
        """Atoms in the order in which the node's dimensions name them."""
        return [atom for dim in self.dims for atom in dim]

    def size(self, dim: int) -> int:
        """Length of a dimension."""
        return math.prod(self.size_of(self.dims[dim]))

    def size_of(self, atoms: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of some atoms."""
        return tuple(self.sizes[atom] for atom in atoms)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the node without the batch."""
        return tuple(self.size(dim) for dim in range(len(self.dims)))

    def canonical(self, tensor: Tensor) -> Tensor:
        """Bring a tensor (batch, *shape) to (batch, position, *other atoms), contiguous.

        Dimensions of length 1 in the tensor (broadcast operands) stay of length 1.
        """
        tensor = tensor.reshape((1,) * (len(self.dims) + 1 - tensor.ndim) + tuple(tensor.shape))
        split = [tensor.shape[0]]
        for dim, atoms in enumerate(self.dims):
            if tensor.shape[dim + 1] == self.size(dim):
                split += [self.sizes[atom] for atom in atoms]
            elif tensor.shape[dim + 1] == 1:
                split += [1 for _ in atoms]
            else:
                raise Unsupported(f"an operand of shape {tuple(tensor.shape)} on {self.shape}")
        order = self.order
        back = [order.index(atom) + 1 for atom in range(len(self.sizes))]
        return tensor.reshape(split).permute(0, *back).contiguous()

    def logical(self, rows: Tensor) -> Tensor:
        """Bring (batch, position, *other atoms) back to (batch, *shape)."""
        return rows.permute(0, *(atom + 1 for atom in self.order)).reshape(len(rows), *self.shape)

    def channel_axis(self, dim: int) -> int:
        """Return the axis of data (strand, position, allele, width, *other atoms) that a dimension without position is.

        Raises
        ------
        Unsupported
            If the dimension holds the position, several atoms, or none.
        """
        atoms = self.dims[dim]
        if len(atoms) != 1 or atoms[0] == 0:
            raise Unsupported("an axis that is not a plain channel axis")
        return 3 + atoms[0]

    def holds_position(self, dim: int) -> bool:
        """Tell whether a dimension is made of the position axis, alone or with others."""
        return 0 in self.dims[dim]

    def without(self, dim: int, *, keep: bool) -> "Axes":
        """Return the layout without a channel dimension, or with length 1 for it."""
        gone = self.dims[dim]
        if len(gone) > 1 or 0 in gone:
            raise Unsupported("an axis that is not a plain channel axis")
        dims = [tuple(atom - sum(other < atom for other in gone) for atom in dim_atoms) for dim_atoms in self.dims]
        dims[dim : dim + 1] = [()] if keep else []
        return Axes(tuple(dims), tuple(size for atom, size in enumerate(self.sizes) if atom not in gone))

    def split(self, atom: int, outer: int) -> "Axes":
        """Return the layout with a channel atom as two, of which the outer one has the length `outer`."""
        if atom == 0:
            raise Unsupported("a reshape that splits the position axis")

        def renamed(dim: tuple[int, ...]) -> tuple[int, ...]:
            parts = [(one, one + 1) if one == atom else (one + (one > atom),) for one in dim]
            return tuple(part for pair in parts for part in pair)

        sizes = (*self.sizes[:atom], outer, self.sizes[atom] // outer, *self.sizes[atom + 1 :])
        return Axes(tuple(renamed(dim) for dim in self.dims), sizes)

    def with_channels(self, dim: int, size: int) -> "Axes":
        """Return the layout with another length of a channel dimension."""
        atoms = self.dims[dim]
        if len(atoms) == 1 and atoms[0] != 0 and size > 1:
            sizes = list(self.sizes)
            sizes[atoms[0]] = size
            return replace(self, sizes=tuple(sizes))
        raise Unsupported("a channel axis that appears or disappears")


@dataclass(frozen=True)
class Windowed:
    """A node of which a mutation changes a window.

    Attributes
    ----------
    layout : Axes
        Its dimensions.
    window : Window
        What can change.
    is_value : bool
        Whether its data are values of the mutant rather than differences from the reference.
    """

    layout: Axes
    window: Window
    is_value: bool


@dataclass(frozen=True)
class Rows:
    """A node that is computed whole for every mutant."""

    shape: tuple[int, ...]


def find_axes(shape: torch.Size | tuple[int, ...], position: int) -> Axes:
    """Return the axes of the network's input.

    Parameters
    ----------
    shape
        Shape without the batch.
    position
        Position axis in it.
    """
    dims: list[tuple[int, ...]] = []
    sizes = [shape[position]]
    for axis, size in enumerate(shape):
        if axis == position:
            dims.append((0,))
        elif size == 1:
            dims.append(())
        else:
            dims.append((len(sizes),))
            sizes.append(size)
    return Axes(tuple(dims), tuple(sizes))
