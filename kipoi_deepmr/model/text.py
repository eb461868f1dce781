"""Texts among a model's inputs: they travel as the numbers of their letters, whose rows can be taken and repeated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.terms import ALLELES, UNKNOWN_BASE

_LETTERS = np.array([ord(letter) for letter in (*ALLELES, UNKNOWN_BASE)], dtype=np.int32)
_LOWER = ord("a") - ord("A")


@dataclass(frozen=True)
class TextKey:
    """Name of an input that holds text.

    Attributes
    ----------
    key : str, int or None
        Name or index of the input.
    kind : str
        numpy's letter for its type: U, S or O.
    is_sequence : bool
        Whether it is the sequence that is mutated.
    """

    key: str | int | None
    kind: str
    is_sequence: bool = False

    def __repr__(self) -> str:
        return repr(self.key)


def is_sequence(key: Any) -> bool:
    """Tell whether the name of an input is that of a text that is mutated."""
    return isinstance(key, TextKey) and key.is_sequence


def is_text(array: NDArray[Any]) -> bool:
    """Tell whether an array holds texts."""
    return array.dtype.kind in "US" or (array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat))


def encode(texts: NDArray[Any]) -> NDArray[np.int32]:
    """Return the numbers of the letters of texts, shape (*texts.shape, longest), 0 after the end of a text."""
    letters = np.ascontiguousarray(texts.astype("U"))
    width = letters.dtype.itemsize // 4
    return letters.reshape(-1).view(np.uint32).astype(np.int32).reshape(*letters.shape, width)


def decode(numbers: NDArray[np.int32], kind: str) -> NDArray[Any]:
    """Return the texts of the numbers of their letters, in one of numpy's types: U, S or O."""
    letters = np.ascontiguousarray(numbers.astype(np.uint32))
    texts = letters.view(f"U{letters.shape[-1]}")[..., 0]
    return texts.astype(object) if kind == "O" else texts.astype(kind)


def with_bases(texts: NDArray[np.int32], sequence: Tensor) -> NDArray[np.int32]:
    """Return texts with the bases of one-hot sequences, in the case that the letters have.

    Parameters
    ----------
    texts
        Numbers of the letters of the references, as `encode` gives them; ones may stand between the rows and the letters.
    sequence : torch.Tensor, shape=(batch, 4, length)
        One-hot sequences. What is no base becomes N, or stays where the reference has no base, either.
    """
    letters, wanted = texts.reshape(len(texts), -1), _codes(sequence)
    lower = (letters >= ord("a")) & (letters <= ord("z"))
    upper = letters - _LOWER * lower
    here = np.full(letters.shape, len(ALLELES))
    for code, letter in enumerate(_LETTERS[: len(ALLELES)]):
        here[upper == letter] = code
    changed = np.where(here == wanted, letters, _LETTERS[wanted] + _LOWER * lower)
    return changed.astype(np.int32).reshape(texts.shape)


def to_text(sequence: Tensor) -> NDArray[np.str_]:
    """Return one-hot sequences (batch, 4, length) as texts; what is no base is N."""
    return decode(_LETTERS[_codes(sequence)], "U")


def from_text(texts: NDArray[Any], length: int) -> NDArray[np.int8]:
    """Return the codes of texts of one length, shape (batch, length), int8: 0 to 3 for A, C, G, T; -1 otherwise."""
    bases = "".join(ALLELES)
    letters = [list(str(text).upper()) for text in texts.astype("U").reshape(-1)]
    codes = [[bases.find(letter) for letter in text] for text in letters if len(text) == length]
    return np.array(codes, dtype=np.int8).reshape(-1, length)


def _codes(sequence: Tensor) -> NDArray[np.int64]:
    """Return the bases of one-hot sequences, 0 to 3, and 4 for what is no base; shape (batch, length)."""
    array = sequence.detach().cpu().numpy()
    return np.where(array.max(1) > 0, array.argmax(1), len(ALLELES))
