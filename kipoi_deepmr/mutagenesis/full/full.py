"""Every mutant through the whole network, once per draw."""

from collections.abc import Callable

import torch
from torch import Tensor

from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.full.whole_network import WholeNetwork
from kipoi_deepmr.mutagenesis.precision import Precision
from kipoi_deepmr.mutagenesis.strategy import Request
from kipoi_deepmr.mutagenesis.variants import Variants, mutate


class Full:
    """The strategy of the full engine.

    Parameters
    ----------
    request
        The predictor, its draws, and what is asked for.
    whole
        The network where it is captured already. Default: it is captured by `prepare`.
    """

    name = "full"
    networks = 1
    fewest = 1
    coverage = Coverage(0.0, ())

    def __init__(self, request: Request, whole: WholeNetwork | None = None) -> None:
        self.request = request
        self.batch_size = request.batch_size
        self.whole = whole or WholeNetwork(request, request.precision)

    @property
    def whole_precision(self) -> Precision:
        """That of the network."""
        return self.whole.precision

    def prepare(self, block: Block) -> None:
        """Capture the network and choose the batch size."""
        self.whole.prepare(block)
        self.batch_size = self.batch_size or self.whole.fitting_rows(block)

    def references(self, block: Block) -> Tensor:
        """Predict the references."""
        return self.whole.references(block)

    def reference_rows(self, block: Block) -> int:
        """Return how many references share a batch."""
        return min(self.whole.rows, len(block.names))

    def predict(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw; what no draw reaches is computed here."""
        layout = self.request.predictor.layout
        allele_rows = torch.as_tensor(layout.allele_rows, device=block.sequence.device)
        padded = chunk.rows(0, _padded(len(chunk), self.batch_size or 1))
        passes = self.whole.passes_of(len(padded), block)
        mutants = mutate(block.sequence, padded, layout.alphabet_axis, layout.position_axis, allele_rows)
        saved = passes.before(mutants, [other[padded.sequence] for other in block.others])
        first, last = int(chunk.sequence[0]), int(chunk.sequence[-1])
        row_of = padded.sequence - first if last > first else None
        names, draws = block.names[first : last + 1], self.request.draws
        return lambda draw: passes.after(saved, draws.masks(names, draw).rows(row_of))[: len(chunk)]

    def chunk_size(self, variants: Variants, start: int) -> int:
        """Return the batch size, or the rest of a sequence where a batch holds one only."""
        size = min(self.batch_size or 1, len(variants) - start)
        if self.whole.mixes_sequences:
            return size
        return min(size, int((variants.sequence[start:] == variants.sequence[start]).sum()))

    def halve(self, size: int) -> None:
        """Take half of `size` mutants from now on."""
        self.whole.halve(size)
        self.batch_size = self.whole.rows

    def sequences_at_once(self, positions: int) -> int:
        """Return how many sequences of a window of `positions` fill two batches."""
        return max(1, -(-2 * (self.batch_size or 1) // (3 * positions)))

    def substitute(self) -> None:
        """Return None: what this one cannot do, none can."""
        return


def _padded(rows: int, batch_size: int) -> int:
    """Round a batch up so that few batch sizes, each with a graph of its own, occur."""
    step = max(1, batch_size // 8)
    return max(2, min(-(-rows // step) * step, batch_size) if rows < batch_size else rows)
