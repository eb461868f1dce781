"""Random numbers that depend on a seed and on names alone, not on order, machine or number of processes."""

import hashlib

import numpy as np


def generator_of(seed: int, *words: str) -> np.random.Generator:
    """Return a generator that depends on its arguments alone.

    Parameters
    ----------
    seed
        The seed of a section of the configuration.
    *words
        What the numbers are for, such as the name of a sequence.

    Returns
    -------
    numpy.random.Generator
        Philox, keyed by BLAKE2b of the arguments (Salmon 2011).
    """
    key = hashlib.blake2b("\0".join((str(seed), *words)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64)))
