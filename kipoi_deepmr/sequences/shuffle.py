"""Shuffles that keep every dinucleotide: another sequence with the same composition, without its motifs."""

import numpy as np
import numpy.typing as npt


def dinucleotide_shuffle(codes: npt.NDArray[np.int8], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return an order of positions that makes a random sequence with the same dinucleotide counts.

    Parameters
    ----------
    codes : numpy.ndarray, shape (length,), int8
        The sequence; every value, also that of unknown bases, counts as a letter.
    generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, shape (length,), int64
        A permutation; ``codes[order]`` begins and ends with the letters of `codes`. All sequences with these counts and
        ends are equally likely.

    Notes
    -----
    A sequence is a walk that uses each dinucleotide once as an edge from letter to letter. A random walk is drawn by
    choosing the edge by which each letter is left for the last time, again and again until these last edges lead from
    every letter to the end, and by shuffling the other edges (Altschul and Erickson 1985).
    """
    length = len(codes)
    if length < 3:
        return np.arange(length)
    letters, spelled = np.unique(codes, return_inverse=True)
    # An edge is the position that it leads to.
    edges = [1 + np.flatnonzero(spelled[:-1] == letter) for letter in range(len(letters))]
    end = int(spelled[-1])
    last = _last_edges(edges, spelled, end, generator)
    queues = []
    for letter, targets in enumerate(edges):
        others = targets[targets != last[letter]] if letter != end else targets
        ordered = generator.permutation(others).tolist()
        queues.append(iter(ordered if letter == end else [*ordered, last[letter]]))
    # Steps through lists: looking up single numbers of an array is slow.
    letter_at, order = spelled.tolist(), [0]
    for _ in range(1, length):
        order.append(next(queues[letter_at[order[-1]]]))
    return np.array(order, dtype=np.int64)


def _last_edges(
    edges: list[npt.NDArray[np.int64]], spelled: npt.NDArray[np.int64], end: int, generator: np.random.Generator
) -> list[int]:
    while True:
        last = [int(generator.choice(targets)) if letter != end else -1 for letter, targets in enumerate(edges)]
        arrived = {end}
        for _ in edges:
            arrived |= {letter for letter, edge in enumerate(last) if edge >= 0 and int(spelled[edge]) in arrived}
        if len(arrived) == len(edges):
            return last
