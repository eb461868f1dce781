"""The whole network, captured once for each size of a batch: what predicts references, and mutants in the full engine."""

import copy
import logging

import numpy as np
import torch
from torch import Tensor

from kipoi_deepmr.mutagenesis.blocks import Block
from kipoi_deepmr.mutagenesis.graph import Passes, WholePasses, capture
from kipoi_deepmr.mutagenesis.independence import PROBE, check_independence, rows_keep_their_masks
from kipoi_deepmr.mutagenesis.precision import Precision, products_in
from kipoi_deepmr.mutagenesis.strategy import Request

logger = logging.getLogger(__name__)

_LARGEST_BATCH = {"cpu": 2048, "cuda": 16384}
_ELSEWHERE = "cuda"


class WholeNetwork:
    """A network with its draws, captured for batches of several sizes.

    Parameters
    ----------
    request
        The network, its draws and its outputs.
    precision
        Arithmetic of products.

    Attributes
    ----------
    rows : int
        Rows in a batch: as asked for, or as many as memory allows.
    mixes_sequences : bool or None
        Whether mutants of several sequences may share a batch; None before it is tried.
    """

    def __init__(self, request: Request, precision: Precision) -> None:
        self.request = request
        self.precision = precision
        self.rows = 1
        self.mixes_sequences: bool | None = None
        self._passes: dict[int, Passes] = {}

    def in_precision(self, precision: Precision) -> "WholeNetwork":
        """Return the network in another arithmetic, with what is known of it; itself where that is the same."""
        if precision == self.precision:
            return self
        other = copy.copy(self)
        other.precision, other._passes = precision, {}
        return other

    def prepare(self, block: Block) -> None:
        """Capture the network on a small batch, and try whether sequences can share a batch.

        Raises
        ------
        ModelError
            If a prediction is not the same each time, or depends on its batch.
        """
        passes = self.passes_of(PROBE, block)
        if self.mixes_sequences is not None:
            return
        self.rows = self.request.batch_size or self.fitting_rows(block)
        draws = self.request.draws
        with torch.inference_mode(), products_in(self.precision):
            check_independence(passes, draws, block, self.request.predictor.layout.position_axis)
            self.mixes_sequences = rows_keep_their_masks(passes, draws, block)
        if not self.mixes_sequences:
            logger.info("the network mixes the rows of a batch: a batch holds the mutants of one sequence only")

    def fitting_rows(self, block: Block) -> int:
        """Return how many rows the bound on memory allows."""
        device = block.sequence.device
        row = self.passes_of(PROBE, block).bytes_per_row + self.request.moment_bytes
        largest = _LARGEST_BATCH.get(device.type, _LARGEST_BATCH[_ELSEWHERE])
        return int(np.clip(self.request.memory_on(device) // max(row, 1), 1, largest))

    def halve(self, size: int) -> None:
        """Take half of `size` rows from now on."""
        self.rows = max(1, size // 2)
        self._passes.clear()

    def references(self, block: Block) -> Tensor:
        """Predict the references of a block in every draw, shape (draw, sequence, column)."""
        size = self.rows if self.mixes_sequences else 1
        count = len(block.names)
        spans = [(start, min(start + size, count)) for start in range(0, count, size)]
        predictions = []
        for draw in range(self.request.count):
            parts = [self._references_of(block, start, stop, draw) for start, stop in spans]
            predictions.append(torch.cat(parts).to(_accumulator(block)))
        return torch.stack(predictions)

    def _references_of(self, block: Block, start: int, stop: int, draw: int) -> Tensor:
        # Two rows at least: networks that squeeze all axes would lose the batch axis of one.
        rows = torch.arange(start, max(stop, start + 2), device=block.sequence.device).clamp_(max=stop - 1)
        passes = self.passes_of(len(rows), block)
        saved = passes.before(block.sequence[rows], [other[rows] for other in block.others])
        masks = self.request.draws.masks([block.names[row] for row in range(start, stop)], draw)
        predicted = passes.after(saved, masks.rows(rows - start if stop - start > 1 else None))
        return predicted[: stop - start]

    def passes_of(self, rows: int, block: Block) -> Passes:
        """Return the network captured for a number of rows."""
        uncaptured = next((passes for passes in self._passes.values() if isinstance(passes, WholePasses)), None)
        if uncaptured is not None:
            return uncaptured
        if rows not in self._passes:
            given = self.request
            with torch.inference_mode(False), torch.no_grad():
                index = torch.zeros(rows, dtype=torch.int64, device=block.sequence.device)
                masks = given.draws.masks(block.names[:1], 0).rows(None)
                others = [other[index].clone() for other in block.others]
                sequence = block.sequence[index].clone()
                self._passes[rows] = capture(
                    given.predictor, given.draws, given.columns, sequence, others, masks, self.precision
                )
        return self._passes[rows]


def _accumulator(block: Block) -> torch.dtype:
    return torch.float32 if block.sequence.device.type == "mps" else torch.float64
