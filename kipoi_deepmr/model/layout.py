"""Where the sequence sits in a model's input, one-hot or as text: found by comparing the input with the FASTA."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model.text import from_text, is_text
from kipoi_deepmr.terms import ALLELES

Key = str | int | None
_BASES = "".join(ALLELES)
# In this order a base and its complement mirror each other.
_COMPLEMENT = dict(zip(_BASES, reversed(_BASES), strict=True))


@dataclass(frozen=True)
class Layout:
    """Position of the sequence in a model's input.

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
    text : bool
        Whether the model takes the sequence as text; axes and shape are then those of the one-hot form of it.
    reverse : bool
        Whether it holds the reverse complement; only a twin may.
    twins : tuple of Layout
        Further inputs that hold the same sequence and are mutated with it.
    """

    key: Key
    alphabet_axis: int
    position_axis: int
    alphabet: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    text: bool = False
    reverse: bool = False
    twins: "tuple[Layout, ...]" = ()

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
        twins = [f"; with it {twin.describe()}{', reverse complement' * twin.reverse}" for twin in self.twins]
        if self.text:
            return f"{where}: text of {self.length} bases{''.join(twins)}"
        return (
            f"{where} (batch, {', '.join(map(str, self.shape))}) {self.dtype}: alphabet {self.alphabet} on axis "
            f"{self.alphabet_axis + 1}, position on axis {self.position_axis + 1}{''.join(twins)}"
        )

    def one_hot(self, inputs: Any) -> NDArray[Any]:
        """Return the sequence's array of a batch of inputs, one-hot where the model takes text."""
        array = np.asarray(inputs if self.key is None else inputs[self.key])
        if not self.text:
            return array
        codes = from_text(array, self.length)
        return np.where(codes[:, None] < 0, 0, np.eye(4)[codes].transpose(0, 2, 1)).astype(np.float32)

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


def convert(sequence: Tensor, given: Layout, wanted: Layout, *, reverse: bool = False) -> Tensor:
    """Bring sequences from the layout of one model to that of another, which reads as many positions.

    Parameters
    ----------
    sequence : torch.Tensor, shape=(batch, *given.shape)
        Sequences as one model reads them.
    given, wanted : Layout
        Layouts of the two models.
    reverse
        Whether the reverse complement is wanted.

    Returns
    -------
    torch.Tensor, shape=(batch, *wanted.shape)
    """
    axes = (given.position_axis + 1, given.alphabet_axis + 1)
    moved = sequence.movedim(axes, (1, 2))
    canonical = moved.reshape(moved.shape[:3])
    if given.alphabet != wanted.alphabet:
        canonical = canonical[..., [given.alphabet.index(base) for base in wanted.alphabet]]
    if reverse:
        complement = [wanted.alphabet.index(_COMPLEMENT[base]) for base in wanted.alphabet]
        canonical = canonical.flip(1)[..., complement]
    axes = (wanted.position_axis + 1, wanted.alphabet_axis + 1)
    dummies = (1,) * (len(wanted.shape) - 2)
    return canonical.reshape(*canonical.shape, *dummies).movedim((1, 2), axes)


def leaves(inputs: Any) -> Iterator[tuple[Key, NDArray[Any]]]:
    """Yield the arrays of a model input with their names: an array, a list or a dict of arrays.

    Raises
    ------
    ModelError
        If one of them is no array with a row for each sequence, such as a dict in a dict.
    """
    if isinstance(inputs, dict):
        parts = list(inputs.items())
    elif isinstance(inputs, list | tuple):
        parts = list(enumerate(inputs))
    else:
        parts = [(None, inputs)]
    for key, value in parts:
        array = np.asarray(value)
        if array.ndim == 0:
            raise ModelError(
                f"the dataloader gives {'the input' if key is None else f'the input {key!r}'} as {type(value).__name__}, needed "
                "is an array with a row for each sequence: give the inputs as an array, a list or a dict of arrays, not nested"
            )
        yield key, array


def find_layout(inputs: Any, codes: NDArray[np.int8], wanted: str | int | None = None) -> Layout:
    """Find where the sequences sit in a batch of inputs, whatever axes and alphabet order the dataloader uses.

    Parameters
    ----------
    inputs
        Batch of model inputs as the dataloader gives it: an array, a list or a dict of arrays, batch first.
    codes
        Bases of the same sequences from the FASTA, shape (batch, length), int8: 0 to 3 for A, C, G, T; -1 otherwise.
    wanted
        Which input is mutated where several hold the sequence; ``all`` mutates all of them alike.

    Raises
    ------
    ModelError
        If no input holds the sequences in one-hot form or as text; several hold them or their reverse complements and
        `wanted` does not say which; or the sequences are so short or simple that several layouts fit them.
    """
    reverse = np.where(codes < 0, codes, 3 - codes)[:, ::-1]
    forward: dict[Key, list[Layout]] = {}
    turned: dict[Key, list[Layout]] = {}
    for key, array in leaves(inputs):
        if found := list(_candidates(key, array, codes)):
            forward[key] = found
        elif found := list(_candidates(key, array, reverse)):
            turned[key] = [replace(layout, reverse=True) for layout in found]
    if not forward:
        seen = "; ".join(f"{'the input' if k is None else repr(k)}: {a.shape} {a.dtype}" for k, a in leaves(inputs))
        raise ModelError(
            f"the dataloader's input does not hold the {codes.shape[1]}-bp sequences of the FASTA in one-hot form or as "
            f"text ({seen}). Needed: one array (batch, ...) with an axis of 4 bases, an axis of {codes.shape[1]} positions, "
            "all further axes of length 1, and the letters of the forward strand; or an array of texts"
        )
    keys = [*forward, *turned]
    if wanted not in (None, "all"):
        chosen = next((key for key in keys if str(key) == str(wanted)), None)
        if chosen not in forward:
            raise ModelError(
                f"dataloader.sequence_input: {wanted} is no input that holds the sequence of the forward strand; those "
                f"are {', '.join(map(repr, forward))}"
            )
        return _only(forward[chosen], len(codes))
    if len(keys) > 1 and wanted is None:
        raise ModelError(
            f"the sequence or its reverse complement stands in {len(keys)} inputs of the model "
            f"({', '.join(map(repr, keys))}): which one is mutated? Write its name as dataloader.sequence_input, or all to "
            "mutate them alike"
        )
    first, *others = (_only(layouts, len(codes)) for layouts in (*forward.values(), *turned.values()))
    return replace(first, twins=tuple(others))


def _only(found: list[Layout], rows: int) -> Layout:
    if len(found) > 1:
        raise ModelError(
            f"the {rows} sequences that were compared are too short or too simple to tell where the bases sit in "
            f"the model's input; possible are {'; '.join(layout.describe() for layout in found[:3])}"
            f"{'; ...' * (len(found) > 3)}. Give more or other sequences"
        )
    return found[0]


def _candidates(key: Key, array: NDArray[Any], codes: NDArray[np.int8]) -> Iterator[Layout]:
    if is_text(array) and array.size == len(array) == len(codes):
        written = from_text(array, codes.shape[1])
        if written.shape == codes.shape and np.array_equal(written[codes >= 0], codes[codes >= 0]):
            yield Layout(key, 0, 1, _BASES, (4, codes.shape[1]), array.dtype, text=True)
        return
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
