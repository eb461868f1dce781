"""What an engine is made of: a predictor with its draws, and a strategy for mutants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.precision import Precision
from kipoi_deepmr.mutagenesis.scale import Scale
from kipoi_deepmr.mutagenesis.variants import Variants
from kipoi_deepmr.uncertainty import Draws

_AUTO_MEMORY = {"cpu": 2**27, "cuda": 2**32}
_ELSEWHERE = "cuda"


class InputLayout(Protocol):
    """Where the sequence sits in the input of a predictor, axes counted without the batch."""

    @property
    def alphabet_axis(self) -> int:
        """Axis of the bases."""

    @property
    def position_axis(self) -> int:
        """Axis of the positions."""

    @property
    def allele_rows(self) -> NDArray[np.int64]:
        """Index along the alphabet axis of A, C, G and T."""


class Predictor(Protocol):
    """What gives predictions: a torch network on the device in eval mode, or a function that torch cannot look into."""

    @property
    def layout(self) -> InputLayout:
        """Where the sequence sits in its input."""

    @property
    def opaque(self) -> bool:
        """Whether torch cannot see its operations: each call is one step, of which no graph can be made."""

    def __call__(self, sequence: Tensor, *others: Tensor) -> Tensor:
        """Predict; shape (batch, outputs)."""


@dataclass(frozen=True)
class Request:
    """What an engine is asked for.

    Attributes
    ----------
    predictor : Predictor
        What is asked for predictions, called as ``predictor(sequence, *others)``; `model.SequenceNetwork` is one.
    draws : Draws
        Source of the draws.
    count : int
        Number of draws.
    columns : sequence of int
        Outputs to follow, exposures first.
    exposures : int
        How many of them are exposures.
    scale : str
        Scale of the effects.
    batch_size : int or None
        Mutants in a batch. Default: as many as `memory` allows.
    memory : int or None
        Bound in bytes on the activations of a batch. Default: 128 MiB on a CPU, where smaller batches are as fast,
        4 GiB on a GPU.
    keep_draws : bool
        Whether the effects of every draw are returned, too.
    precision : str
        Arithmetic of matrix products and convolutions: ``float32``, or ``tf32`` (on a GPU) or ``bfloat16``.
    """

    predictor: Predictor
    draws: Draws
    count: int
    columns: Sequence[int]
    exposures: int
    scale: Scale = "identity"
    batch_size: int | None = None
    memory: int | None = None
    keep_draws: bool = False
    precision: Precision = "float32"

    @property
    def moment_bytes(self) -> int:
        """Bytes that the moments of one variant take while a draw is added to them."""
        outcomes = len(self.columns) - self.exposures
        kept = 4 * self.count * len(self.columns) * self.keep_draws
        return 8 * 3 * (4 * len(self.columns) + self.exposures * outcomes) + kept

    def memory_on(self, device: torch.device) -> int:
        """Return the bound in bytes on the activations of a batch."""
        return self.memory or _AUTO_MEMORY.get(device.type, _AUTO_MEMORY[_ELSEWHERE])


class Strategy(Protocol):
    """How mutants are predicted; `engine.Engine` runs one over all mutants of a block."""

    request: Request
    batch_size: int | None

    @property
    def name(self) -> str:
        """What to call the engine."""

    @property
    def coverage(self) -> Coverage:
        """How much of the network is computed only where a mutation reaches."""

    @property
    def networks(self) -> int:
        """Networks that a batch goes through, one after the other."""

    @property
    def fewest(self) -> int:
        """Mutants in the smallest batch."""

    @property
    def whole_precision(self) -> Precision:
        """Arithmetic of the passes through the whole network."""

    def prepare(self, block: Block) -> None:
        """Do once what all blocks share: capture the network, choose the batch size."""

    def references(self, block: Block) -> Tensor:
        """Predict the references in every draw, shape (draw, sequence, column)."""

    def reference_rows(self, block: Block) -> int:
        """Return how many references share a batch."""

    def predict(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw: takes its number, returns a tensor (variants, columns)."""

    def chunk_size(self, variants: Variants, start: int) -> int:
        """Return how many variants go into the batch that begins at `start`."""

    def halve(self, size: int) -> None:
        """Take half of `size` for the batch from now on, and free what can be made again."""

    def sequences_at_once(self, positions: int) -> int:
        """Return how many sequences of a window of `positions` are worth a block."""

    def substitute(self) -> "Strategy | None":
        """Return one that may do what this one fails to do, if there is one."""
