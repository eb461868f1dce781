"""Shuffles of dinucleotides: the counts stay, and every sequence with these counts is equally likely."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kipoi_deepmr.sequences import dinucleotide_shuffle


def pairs(codes):
    return Counter(itertools.pairwise(list(codes)))


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=80), st.integers(0, 2**32))
def test_a_permutation_that_keeps_dinucleotides_and_ends(codes, seed):
    codes = np.array(codes, dtype=np.int8)
    order = dinucleotide_shuffle(codes, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(codes)))
    shuffled = codes[order]
    assert pairs(shuffled) == pairs(codes)
    assert (shuffled[0], shuffled[-1]) == (codes[0], codes[-1])


@pytest.mark.parametrize("text", ["ACGACTAGA", "AACCAACCG", "ACATAGANA"])
def test_every_sequence_with_the_same_dinucleotides_is_equally_likely(text):
    codes = np.array(["NACGT".index(letter) - 1 for letter in text], dtype=np.int8)
    inner = set(itertools.permutations(codes[1:-1].tolist()))
    possible = [
        (codes[0], *middle, codes[-1]) for middle in inner if pairs((codes[0], *middle, codes[-1])) == pairs(codes)
    ]
    random = np.random.default_rng(1)
    found = Counter(tuple(codes[dinucleotide_shuffle(codes, random)].tolist()) for _ in range(3000))
    assert set(found) == set(possible)
    assert len(possible) > 3
    assert stats.chisquare([found[one] for one in possible]).pvalue > 1e-3


def test_the_same_generator_gives_the_same_shuffle_and_another_another():
    codes = np.random.default_rng(0).integers(0, 4, 200).astype(np.int8)
    one, two, other = (dinucleotide_shuffle(codes, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == two).all()
    assert (codes[one] != codes[other]).any()
