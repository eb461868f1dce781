"""Random numbers by seed and names: the same on every machine, in every order."""

from kipoi_deepmr.seeds import generator_of

FIXED = [647, 821, 364, 55, 82]


def numbers(*key):
    return generator_of(*key).integers(0, 1000, 5).tolist()


def test_numbers_are_fixed_by_seed_and_words():
    assert numbers(1, "permuted", "chr1:0-10(+)") == numbers(1, "permuted", "chr1:0-10(+)") == FIXED
    for other in ((2, "permuted", "chr1:0-10(+)"), (1, "permuted"), (1, "permutedchr1:0-10(+)")):
        assert numbers(*other) != FIXED
