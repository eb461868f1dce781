"""The 3L point mutants of a sequence, made on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr import terms

ALLELE_COUNT = len(terms.ALLELES)
MUTANTS = ALLELE_COUNT - 1


@dataclass(frozen=True)
class Variants:
    """Point mutations of a block of sequences, sorted by sequence, position and allele.

    Attributes
    ----------
    sequence, position, allele : torch.Tensor, shape=(variants,), int64
        Index in the block, position in the window, and new base (0 to 3 for A, C, G, T).
    """

    sequence: Tensor
    position: Tensor
    allele: Tensor

    def __len__(self) -> int:
        return len(self.sequence)

    def rows(self, start: int, stop: int) -> "Variants":
        """Return the variants from `start` to `stop`; past the end the last one is repeated."""
        index = torch.arange(start, stop, device=self.sequence.device).clamp_(max=len(self) - 1)
        return Variants(self.sequence[index], self.position[index], self.allele[index])


def all_variants(
    codes: NDArray[np.int8], positions: Sequence[int] | NDArray[np.int64], device: torch.device
) -> Variants:
    """List every other base at every known position.

    Parameters
    ----------
    codes
        Reference bases, shape (sequence, length), int8: 0 to 3 for A, C, G, T; -1 where the base is unknown, which
        has no mutants.
    positions
        Positions to mutate, in increasing order.
    device
        Where the lists live.

    Returns
    -------
    Variants
    """
    chosen = np.asarray(positions, dtype=np.int64)
    window = codes[:, chosen]
    alleles = np.arange(ALLELE_COUNT)
    mutated = (window[..., None] != alleles) & (window[..., None] >= 0)
    sequence, index, allele = np.nonzero(mutated)
    return Variants(*(torch.from_numpy(part).to(device) for part in (sequence, chosen[index], allele)))


def mutate(
    references: Tensor, variants: Variants, alphabet_axis: int, position_axis: int, allele_rows: Tensor
) -> Tensor:
    """Make mutants from one-hot references.

    Parameters
    ----------
    references : torch.Tensor, shape=(sequence, ...)
        One-hot references in the model's layout.
    variants
        What to mutate.
    alphabet_axis, position_axis
        Axes counted without the batch axis.
    allele_rows : torch.Tensor, shape=(4,), int64
        Index along the alphabet axis of A, C, G, T.

    Returns
    -------
    torch.Tensor, shape=(variants, ...)
        One mutant a row; the references are not changed.
    """
    mutants = references.index_select(0, variants.sequence)
    view = mutants.movedim((position_axis + 1, alphabet_axis + 1), (1, 2))
    row = torch.arange(len(variants), device=mutants.device)
    view[row, variants.position] = 0
    view[row, variants.position, allele_rows[variants.allele]] = 1
    return mutants
