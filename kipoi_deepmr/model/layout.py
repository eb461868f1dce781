"""Where the one-hot sequence sits in a model's input: found by comparing the input with the FASTA."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.errors import ModelError

Key = str | int | None
_BASES = "ACGT"


@dataclass(frozen=True)
class Layout:
    """Position of the one-hot sequence in a model's input.

    Attributes
    ----------
    key : str, int or None
        Name or index of the input that holds the sequence; None when the model has one array as input.
    alphabet_axis, position_axis : int
        Axes of that array, counted without the batch axis.
    alphabet : str
        Order of the bases along the alphabet axis, such as ``ACGT``.
    shape : tuple of int
        Shape of that array without the batch axis; all other axes have length 1.
    dtype : numpy.dtype
        Type that the dataloader gives.
    """

    key: Key
    alphabet_axis: int
    position_axis: int
    alphabet: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def length(self) -> int:
        """Sequence length in bp."""
        return self.shape[self.position_axis]

    @property
    def allele_rows(self) -> NDArray[np.int64]:
        """Index along the alphabet axis of A, C, G and T, shape (4,)."""
        return np.array([self.alphabet.index(base) for base in _BASES], dtype=np.int64)

    def describe(self) -> str:
        """Say the layout in words."""
        where = "the input" if self.key is None else f"input '{self.key}'"
        return (
            f"{where} (batch, {', '.join(map(str, self.shape))}) {self.dtype}: alphabet {self.alphabet} on axis "
            f"{self.alphabet_axis + 1}, position on axis {self.position_axis + 1}"
        )

    def one_hot(self, inputs: Any) -> NDArray[Any]:
        """Return the sequence's array of a batch of inputs."""
        return np.asarray(inputs if self.key is None else inputs[self.key])

    def matches(self, inputs: Any, codes: NDArray[np.int8]) -> bool:
        """Tell whether a batch of inputs holds these bases (-1 is not compared).

        Parameters
        ----------
        inputs
            Batch of model inputs.
        codes
            Bases, shape (batch, length), int8: 0 to 3 for A, C, G, T and -1 for anything else.
        """
        array = self.one_hot(inputs)
        if array.shape != (len(codes), *self.shape):
            return False
        return _equal(_canonical(array, self.alphabet_axis, self.position_axis)[..., self.allele_rows], codes)


def convert(sequence: Tensor, given: Layout, wanted: Layout) -> Tensor:
    """Bring sequences from the layout of one model to that of another, which reads as many positions.

    Parameters
    ----------
    sequence : torch.Tensor, shape=(batch, *given.shape)
        Sequences as one model reads them.
    given, wanted : Layout
        Layouts of the two models.

    Returns
    -------
    torch.Tensor, shape=(batch, *wanted.shape)
    """
    axes = (given.position_axis + 1, given.alphabet_axis + 1)
    moved = sequence.movedim(axes, (1, 2))
    canonical = moved.reshape(moved.shape[:3])
    if given.alphabet != wanted.alphabet:
        canonical = canonical[..., [given.alphabet.index(base) for base in wanted.alphabet]]
    axes = (wanted.position_axis + 1, wanted.alphabet_axis + 1)
    dummies = (1,) * (len(wanted.shape) - 2)
    return canonical.reshape(*canonical.shape, *dummies).movedim((1, 2), axes)


def leaves(inputs: Any) -> Iterator[tuple[Key, NDArray[Any]]]:
    """Yield the arrays of a model input with their names: an array, a list or a dict of arrays."""
    if isinstance(inputs, dict):
        yield from ((key, np.asarray(value)) for key, value in inputs.items())
    elif isinstance(inputs, list | tuple):
        yield from ((index, np.asarray(value)) for index, value in enumerate(inputs))
    else:
        yield None, np.asarray(inputs)


def find_layout(inputs: Any, codes: NDArray[np.int8]) -> Layout:
    """Find where the sequences sit in a batch of inputs, whatever axes and alphabet order the dataloader uses.

    Parameters
    ----------
    inputs
        Batch of model inputs as the dataloader gives it: an array, a list or a dict of arrays, batch first.
    codes
        Bases of the same sequences from the FASTA, shape (batch, length), int8: 0 to 3 for A, C, G, T; -1 otherwise.

    Raises
    ------
    ModelError
        If no input, or more than one, holds the sequences (or their reverse complements) in one-hot form, or the
        sequences are so short or simple that several layouts fit them.
    """
    found = [layout for key, array in leaves(inputs) for layout in _candidates(key, array, codes)]
    reverse = np.where(codes < 0, codes, 3 - codes)[:, ::-1]
    if not found:
        seen = "; ".join(f"{'the input' if k is None else repr(k)}: {a.shape} {a.dtype}" for k, a in leaves(inputs))
        raise ModelError(
            f"the dataloader's input does not hold the {codes.shape[1]}-bp sequences of the FASTA in one-hot form "
            f"({seen}). Needed: one array (batch, ...) with an axis of 4 bases, an axis of {codes.shape[1]} positions, "
            "all further axes of length 1, and the letters of the forward strand"
        )
    keys = {layout.key for layout in found}
    keys |= {key for key, array in leaves(inputs) if any(_candidates(key, array, reverse))}
    if len(keys) > 1:
        raise ModelError(
            f"the sequence or its reverse complement stands in {len(keys)} inputs of the model "
            f"({', '.join(sorted(map(repr, keys)))}): only models with one sequence input can be mutated in this version"
        )
    if len(found) > 1:
        raise ModelError(
            f"the {len(codes)} sequences that were compared are too short or too simple to tell where the bases sit in "
            f"the model's input; possible are {'; '.join(layout.describe() for layout in found[:3])}"
            f"{'; ...' * (len(found) > 3)}. Give more or other sequences"
        )
    return found[0]


def _candidates(key: Key, array: NDArray[Any], codes: NDArray[np.int8]) -> Iterator[Layout]:
    if array.ndim < 3 or len(array) != len(codes) or array.dtype.kind not in "fiub":
        return
    shape = array.shape[1:]
    for alphabet_axis, position_axis in itertools.permutations(range(len(shape)), 2):
        rest = [size for axis, size in enumerate(shape) if axis not in (alphabet_axis, position_axis)]
        if shape[alphabet_axis] != 4 or shape[position_axis] != codes.shape[1] or any(size != 1 for size in rest):
            continue
        canonical = _canonical(array, alphabet_axis, position_axis)
        for alphabet in map("".join, itertools.permutations(_BASES)):
            rows = [alphabet.index(base) for base in _BASES]
            if _equal(canonical[..., rows], codes):
                yield Layout(key, alphabet_axis, position_axis, alphabet, tuple(shape), array.dtype)


def _canonical(array: NDArray[Any], alphabet_axis: int, position_axis: int) -> NDArray[Any]:
    moved = np.moveaxis(array, (position_axis + 1, alphabet_axis + 1), (1, 2))
    return moved.reshape(*moved.shape[:3])


def _equal(one_hot: NDArray[Any], codes: NDArray[np.int8]) -> bool:
    known = codes >= 0
    return bool(np.array_equal(one_hot[known], np.eye(4)[codes[known]]))
