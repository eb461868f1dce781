"""Which part of a tensor a point mutation can change, and how windows of it are moved about."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
# Numbers per position from which on positions are moved one by one.
_LARGE = 2**14


@dataclass(frozen=True, eq=False)
class Window:
    """For each strand and mutated position the stretch of an axis that the mutation can change.

    Attributes
    ----------
    start : numpy.ndarray, shape=(strand, position), int64
        First entry of the stretch; it may lie before 0, and the stretch may end after `length`: such entries do not
        exist, their change is kept at zero.
    width : int
        Length of the stretch, the same for all.
    length : int
        Length of the axis.
    """

    start: IntArray
    width: int
    length: int

    @classmethod
    def clipped(cls, start: IntArray, width: int, length: int) -> "Window":
        """Return a window, which becomes the whole axis once it is as wide."""
        return cls(start, width, length) if width < length else cls(np.zeros_like(start), length, length)

    @property
    def entries(self) -> IntArray:
        """Entries of the axis, shape (strand, position, width)."""
        return self.start[..., None] + np.arange(self.width)

    @property
    def missing(self) -> NDArray[np.bool_] | None:
        """Which entries do not exist, shape (strand, position, width); None when all do."""
        entries = self.entries
        missing: NDArray[np.bool_] = (entries < 0) | (entries >= self.length)
        return missing if missing.any() else None

    @property
    def existing(self) -> int:
        """How many entries exist, of all strands and positions."""
        missing = self.missing
        return self.start.size * self.width - (0 if missing is None else int(missing.sum()))

    def shifted(self, by: int, length: int) -> "Window":
        """Return the window on an axis whose entry 0 is entry -`by` of this one."""
        return Window(self.start + by, self.width, length)

    def mirrored(self) -> "Window":
        """Return the window on the reversed axis."""
        return Window(self.length - self.start - self.width, self.width, self.length)

    def united(self, other: "Window") -> "Window":
        """Return a window that holds both."""
        start = np.minimum(self.start, other.start)
        stop = np.maximum(self.start + self.width, other.start + other.width)
        return Window.clipped(start, int((stop - start).max()), self.length)

    def same(self, other: "Window") -> bool:
        """Tell whether two windows are the same."""
        return self.width == other.width and bool(np.array_equal(self.start, other.start))


class Reader:
    """Reads the stretch of a window from a reference tensor.

    Parameters
    ----------
    window
        The window.
    device
        Where the tensors are.
    """

    def __init__(self, window: Window, device: torch.device) -> None:
        strands, positions = window.start.shape
        clipped = window.entries.clip(0, window.length - 1)
        offset = np.arange(strands)[:, None, None] * window.length
        self._whole = window.width == window.length and not window.start.any()
        self._index = torch.from_numpy((clipped + offset).reshape(-1)).to(device)
        self._shape = (strands, positions, 1, window.width)

    def __call__(self, reference: Tensor) -> Tensor:
        """Read.

        Parameters
        ----------
        reference : torch.Tensor, shape=(strand or 1, length, ...)
            Values of the reference; one strand stands for all.

        Returns
        -------
        torch.Tensor, shape=(strand, position, 1, width, ...)
            Entries that do not exist hold the nearest one.
        """
        strands, positions, _, _ = self._shape
        if self._whole:
            return reference[:, None, None].expand(strands, positions, 1, *reference.shape[1:])
        reference = reference.expand(strands, *reference.shape[1:])
        return reference.flatten(0, 1).index_select(0, self._index).unflatten(0, self._shape)


class Mover:
    """Moves data from one window to another; entries outside the old window are zero.

    Parameters
    ----------
    old, new
        Start of the windows, shape (strand, position), and their widths.
    device
        Where the tensors are.
    """

    def __init__(self, old: tuple[IntArray, int], new: tuple[IntArray, int], device: torch.device) -> None:
        (old_start, self._old_width), (new_start, self._width) = old, new
        offset = self._offsets = new_start - old_start
        first = int(offset.flat[0])
        self._index: Tensor | None = None
        self._offset = first
        if not bool((offset == first).all()):
            entry = offset[..., None] + np.arange(self._width)
            entry = np.where((entry >= 0) & (entry < self._old_width), entry, self._old_width)
            self._index = torch.from_numpy(entry).to(device)

    def __call__(self, data: Tensor) -> Tensor:
        """Move data of shape (strand, position, allele, old width, ...) to (strand, position, allele, width, ...)."""
        if self._index is None:
            return self._slide(data)
        if data.shape[0] * data.shape[1] * _LARGE < data.numel():
            return self.add(data.new_zeros((*data.shape[:3], self._width, *data.shape[4:])), data)
        strands, positions, alleles = data.shape[:3]
        rows = strands * positions * alleles
        padded = torch.cat([data, data.new_zeros((*data.shape[:3], 1, *data.shape[4:]))], 3)
        base = torch.arange(rows, device=data.device).view(strands, positions, alleles, 1) * (self._old_width + 1)
        index = (base + self._index[:, :, None]).reshape(-1)
        moved = padded.flatten(0, 3).index_select(0, index)
        return moved.unflatten(0, (strands, positions, alleles, self._width))

    def add(self, total: Tensor, data: Tensor, factor: int = 1) -> Tensor:
        """Add data of the old window to a tensor of the new one, in place; return that tensor."""
        if self._index is None:
            parts = [(total, data, self._offset)]
        elif data.shape[0] * data.shape[1] * _LARGE < data.numel():
            where = [(s, p) for s in range(data.shape[0]) for p in range(data.shape[1])]
            parts = [(total[s, p], data[s, p], int(self._offsets[s, p])) for s, p in where]
        else:
            return total.add_(self(data), alpha=factor)
        for into, part, offset in parts:
            low, high = max(offset, 0), min(offset + self._width, self._old_width)
            if low < high:
                axis = part.ndim - (data.ndim - 3)
                into.narrow(axis, low - offset, high - low).add_(part.narrow(axis, low, high - low), alpha=factor)
        return total

    def _slide(self, data: Tensor) -> Tensor:
        low, high = max(self._offset, 0), min(self._offset + self._width, self._old_width)
        if self._offset == 0 and self._width == self._old_width:
            return data
        if low == self._offset and high == self._offset + self._width:
            return data[:, :, :, low:high]
        moved = data.new_zeros((*data.shape[:3], self._width, *data.shape[4:]))
        if low < high:
            moved[:, :, :, low - self._offset : high - self._offset] = data[:, :, :, low:high]
        return moved
