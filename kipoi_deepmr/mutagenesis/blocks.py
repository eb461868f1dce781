"""What goes into an engine and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.effects import Moments
from kipoi_deepmr.mutagenesis.variants import ALLELE_COUNT, Variants

_ROUNDING = 16
_RESOLUTION = 8


@dataclass(frozen=True)
class Coverage:
    """How much of a network is computed locally.

    Attributes
    ----------
    share : float
        Share of the network's multiply-adds in operations that are followed locally, 0 to 1.
    stopped_at : tuple of str
        Operations that could not be followed, with the reason; from each on the network runs whole.
    """

    share: float
    stopped_at: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Some sequences, to be mutated together.

    Attributes
    ----------
    names : sequence of str
        Coordinates of each sequence: they decide its draws.
    codes : numpy.ndarray, shape=(sequence, length), int8
        Reference bases, 0 to 3 for A, C, G, T; -1 where unknown.
    sequence : torch.Tensor, shape=(sequence, ...)
        One-hot references on the device.
    others : tuple of torch.Tensor, sequences first
        The model's other inputs.
    """

    names: Sequence[str]
    codes: NDArray[np.int8]
    sequence: Tensor
    others: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class BlockMoments:
    """Moments over draws of a block, float64.

    Attributes
    ----------
    mean, squares : numpy.ndarray, shape=(sequence, position, allele, column)
        Mean and sum of squared deviations over draws of mutant minus reference; NaN where there is no mutant.
    cross : numpy.ndarray, shape=(sequence, position, allele, exposure, outcome)
        Sums of cross products of deviations.
    reference_mean, reference_squares : numpy.ndarray, shape=(sequence, column)
        The same of the reference predictions.
    draws : int
        Number of draws.
    kept : numpy.ndarray or None, shape=(sequence, draw, position, allele, column), float32
        The effects in every draw, where they were asked for; NaN where there is no mutant.
    """

    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    cross: NDArray[np.float64]
    reference_mean: NDArray[np.float64]
    reference_squares: NDArray[np.float64]
    draws: int
    kept: NDArray[np.float32] | None = None


class Grid:
    """Collects the moments of variants on (sequence, position, allele), NaN where there is no mutant.

    With `draws` above 0 it collects the effects in every draw, too.
    """

    def __init__(self, sequences: int, positions: range, columns: int, exposures: int, draws: int = 0) -> None:
        shape = (sequences, len(positions), ALLELE_COUNT)
        self._start = positions.start
        self._mean = np.full((*shape, columns), np.nan)
        self._squares = np.full((*shape, columns), np.nan)
        self._cross = np.full((*shape, exposures, columns - exposures), np.nan)
        self._moved = np.full((*shape, columns), np.nan)
        self.draws: NDArray[np.float32] | None = None
        if draws:
            self.draws = np.full((sequences, draws, *shape[1:], columns), np.nan, np.float32)

    def put(self, chunk: Variants, moments: Moments, moved: Tensor) -> None:
        """Take in a batch: its moments, and how far each variant moved the predictions."""
        where = (to_numpy(chunk.sequence), to_numpy(chunk.position) - self._start, to_numpy(chunk.allele))
        self._mean[where] = to_numpy(moments.mean)
        self._squares[where] = to_numpy(moments.squares)
        self._cross[where] = to_numpy(moments.cross)
        self._moved[where] = to_numpy(moved)
        if self.draws is not None:
            for draw, effects in enumerate(moments.kept):
                self.draws[where[0], draw, *where[1:]] = to_numpy(effects)

    def settle(self, references: NDArray[np.float64], eps: float) -> None:
        """Set effects to zero that are rounding: no draw moved the prediction beyond what its arithmetic resolves.

        Parameters
        ----------
        references
            Largest reference prediction of each sequence and column.
        eps
            Relative rounding of a prediction.
        """
        largest = np.nanmax(self._moved, axis=(1, 2), initial=0.0)
        floor = eps * np.maximum(_ROUNDING * np.abs(references), _RESOLUTION * largest)
        still = self._moved <= floor[:, None, None]
        exposures = self._cross.shape[-2]
        self._mean[still] = 0.0
        self._squares[still] = 0.0
        if self.draws is not None:
            np.copyto(self.draws, 0.0, where=still[:, None])
        self._cross[still[..., :exposures, None] | still[..., None, exposures:]] = 0.0

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return means, squares and cross products."""
        return self._mean, self._squares, self._cross


def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """Bring a tensor to the CPU."""
    array: NDArray[np.float64] = tensor.cpu().numpy()
    return array
