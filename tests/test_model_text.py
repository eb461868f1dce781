"""Texts that travel as numbers, and what a mutation makes of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kipoi_deepmr.model.text import decode, encode, from_text, is_text, to_text, with_bases

BASES = st.text("ACGTNacgtnRy", min_size=6, max_size=6)


def one_hot(texts) -> torch.Tensor:
    return torch.tensor([[[float(base == letter) for base in text.upper()] for letter in "ACGT"] for text in texts])


@pytest.mark.parametrize("kind", ["U", "S", "O"])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_texts_come_back_as_they_were(kind, shape):
    texts = np.array(["acGT", "", "liver"]).reshape(shape)
    texts = texts.astype(object) if kind == "O" else texts.astype(kind)
    again = decode(encode(texts), kind)
    assert again.dtype.kind == kind and again.shape == shape
    assert again.tolist() == texts.tolist()


@given(st.lists(st.tuples(BASES, st.text("ACGTN", min_size=6, max_size=6)), min_size=1, max_size=4))
def test_a_mutation_changes_its_own_letter_and_no_case(pairs):
    references, wanted = zip(*pairs, strict=True)
    found = decode(with_bases(encode(np.array(references)), one_hot(wanted)), "U")
    np.testing.assert_array_equal(from_text(found, 6), from_text(np.array(wanted), 6))
    for text, reference, bases in zip(found, references, wanted, strict=True):
        assert [letter.islower() for letter in text] == [letter.islower() for letter in reference]
        same = [i for i in range(6) if reference[i].upper() == bases[i] or (reference[i] in "Ry" and bases[i] == "N")]
        assert all(text[i] == reference[i] for i in same)


def test_one_hot_sequences_become_upper_case_text():
    assert to_text(one_hot(["ACGTN"])).tolist() == ["ACGTN"]


def test_objects_that_are_no_texts_are_told():
    assert is_text(np.array(["a", "b"], dtype=object)) and is_text(np.array([b"a"]))
    assert not is_text(np.array([{"a": 1}], dtype=object)) and not is_text(np.zeros(2))
