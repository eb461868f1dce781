"""Where the sequence sits in a model's input, for any axes, alphabet order and type."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model import find_layout

ALPHABETS = ["".join(letters) for letters in itertools.permutations("ACGT")]


def random_codes(rows: int, length: int, seed: int = 0, unknown: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (rows, length)).astype(np.int8)
    codes[rng.random(codes.shape) < unknown] = -1
    return codes


def encode(codes: np.ndarray, alphabet: str = "ACGT", n: float = 0.25) -> np.ndarray:
    """Return (batch, alphabet, position)."""
    rows = np.array(["ACGT".index(base) for base in alphabet])
    array = np.eye(4)[codes][..., rows]
    array[codes < 0] = n
    return array.transpose(0, 2, 1)


def arrange(array: np.ndarray, alphabet_axis: int, position_axis: int, axes: int) -> np.ndarray:
    """Move (batch, alphabet, position) to the axes; the others have length 1."""
    full = array.reshape(*array.shape, *(1,) * (axes - 2))
    return np.ascontiguousarray(np.moveaxis(full, (1, 2), (alphabet_axis + 1, position_axis + 1)))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_layout_is_found_and_gives_the_bases_back(data):
    axes = data.draw(st.integers(2, 4))
    alphabet_axis, position_axis = data.draw(st.permutations(range(axes)))[:2]
    alphabet = data.draw(st.sampled_from(ALPHABETS))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_]))
    length = data.draw(st.integers(5, 9))
    codes = random_codes(data.draw(st.integers(6, 9)), length, data.draw(st.integers(0, 99)), unknown=0.1)
    array = arrange(encode(codes, alphabet, n=0), alphabet_axis, position_axis, axes).astype(dtype)
    layout = find_layout(array, codes)
    assert (layout.alphabet_axis, layout.position_axis, layout.alphabet) == (alphabet_axis, position_axis, alphabet)
    assert (layout.key, layout.shape, layout.dtype, layout.length) == (None, array.shape[1:], dtype, length)
    canonical = np.moveaxis(array, (position_axis + 1, alphabet_axis + 1), (1, 2)).reshape(len(codes), length, 4)
    known = codes >= 0
    np.testing.assert_array_equal(canonical[..., layout.allele_rows].argmax(-1)[known], codes[known])
    assert layout.matches(array, codes)


@pytest.mark.parametrize("n", [0, 0.25, 1, np.nan])
def test_what_stands_at_an_unknown_base_does_not_matter(n):
    codes = random_codes(4, 20, unknown=0.2)
    assert find_layout(encode(codes, n=n), codes).alphabet == "ACGT"


def test_one_changed_base_is_noticed():
    codes = random_codes(4, 20)
    layout = find_layout(encode(codes), codes)
    other = codes.copy()
    other[3, 7] = (other[3, 7] + 1) % 4
    assert layout.matches(encode(codes), codes)
    assert not layout.matches(encode(codes), other)
    assert not layout.matches(encode(codes)[:3], codes)
    assert not layout.matches(encode(codes)[:, :, :19], codes)


@pytest.mark.parametrize(
    ("given_", "key"),
    [
        (lambda seq: [np.zeros((4, 3)), seq], 1),
        (lambda seq: (seq, np.zeros(4)), 0),
        (lambda seq: {"track": np.zeros((4, 4, 20)), "seq": seq, "name": np.array(list("abcd"))}, "seq"),
    ],
)
def test_the_sequence_is_found_among_several_inputs(given_, key):
    codes = random_codes(4, 20)
    layout = find_layout(given_(encode(codes)), codes)
    assert layout.key == key
    assert layout.matches(given_(encode(codes)), codes)
    assert repr(str(key)) in layout.describe()


def test_the_description_counts_axes_as_the_array_has_them():
    codes = random_codes(4, 20)
    array = arrange(encode(codes, "AGCT"), 0, 2, 3).astype(np.float32)
    assert find_layout(array, codes).describe() == (
        "the input (batch, 4, 1, 20) float32: alphabet AGCT on axis 1, position on axis 3"
    )


def test_other_bases_than_those_of_the_fasta_are_an_error_that_shows_the_shapes():
    codes = random_codes(4, 20)
    with pytest.raises(ModelError, match=r"20-bp sequences of the FASTA.*\(the input: \(4, 4, 20\) float64\)"):
        find_layout(encode((codes + 1) % 4 * (codes % 2)), codes)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[:, :, ::-1],  # reversed
        lambda array: array[:, ::-1, ::-1],  # the other strand
        lambda array: array * 2,
        lambda array: array[:, :, :-1],
        lambda array: array[:-1],
        lambda array: array.argmax(1),
        lambda array: array.astype(str),
        lambda array: np.stack([array, array], -1),
    ],
)
def test_what_is_not_the_forward_strand_in_one_hot_form_is_an_error(change):
    codes = random_codes(4, 20)
    with pytest.raises(ModelError):
        find_layout(change(encode(codes)), codes)


def test_the_same_sequence_in_two_inputs_is_an_error():
    codes = random_codes(4, 20)
    with pytest.raises(ModelError, match=r"stands in 2 inputs of the model \('a', 'b'\)"):
        find_layout({"a": encode(codes), "b": encode(codes, "TGCA")}, codes)


def test_the_reverse_complement_in_a_second_input_is_an_error():
    """It would stay unmutated beside the mutated sequence."""
    codes = random_codes(4, 20, unknown=0.05)
    forward = encode(codes).transpose(0, 2, 1)
    with pytest.raises(ModelError, match=r"reverse complement stands in 2 inputs of the model \(0, 1\)"):
        find_layout([forward, np.ascontiguousarray(forward[:, ::-1, ::-1])], codes)


@pytest.mark.parametrize("codes", [np.zeros((3, 20), np.int8), np.tile(np.int8([0, 3]), (2, 9)), np.full((2, 9), -1)])
def test_sequences_too_simple_to_tell_the_alphabet_are_an_error(codes):
    with pytest.raises(ModelError, match=r"too short or too simple.*possible are the input"):
        find_layout(encode(codes.astype(np.int8)), codes.astype(np.int8))


def test_the_fourth_base_need_not_occur():
    codes = random_codes(4, 20) % 3
    assert find_layout(encode(codes, "TGCA"), codes.astype(np.int8)).alphabet == "TGCA"
