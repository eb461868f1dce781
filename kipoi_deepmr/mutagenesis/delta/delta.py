"""What a mutation cannot reach is taken from the reference."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.delta.program import DeltaProgram
from kipoi_deepmr.mutagenesis.full.full import Full
from kipoi_deepmr.mutagenesis.full.whole_network import WholeNetwork
from kipoi_deepmr.mutagenesis.graph import mask_tensors, trace
from kipoi_deepmr.mutagenesis.precision import Precision
from kipoi_deepmr.mutagenesis.strategy import Request
from kipoi_deepmr.mutagenesis.variants import MUTANTS, Variants
from kipoi_deepmr.uncertainty import Mask

_LARGEST_CHUNK = 4096
_FEWEST_PROGRAMS, _MOST_PROGRAMS = 32, 256


class DeltaUnavailable(Exception):
    """The network cannot be computed locally; the text says why."""


class Delta:
    """The strategy of the delta engine.

    Differences from the reference go through linear operations, reference plus difference through all others, each on
    the window of positions that the mutation can change; a linear layer after flattening takes the changed columns of
    its weight only. From an operation that cannot be followed on, the network runs whole. References, and what runs
    whole, are float32 in any precision: small differences are taken from them.

    Parameters
    ----------
    request
        The predictor, its draws, and what is asked for. Half of `memory` is for the mutants of a batch, half for the
        references of its sequences.
    whole
        The network where it is captured already. Default: it is captured by `prepare`.

    Attributes
    ----------
    precision : str
        Arithmetic of products on differences.
    """

    name = "delta"
    networks = 1
    fewest = MUTANTS
    whole_precision: Precision = "float32"

    def __init__(self, request: Request, whole: WholeNetwork | None = None) -> None:
        self.request = request
        self.batch_size = request.batch_size
        self.precision = request.precision
        self.whole = whole or WholeNetwork(request, self.whole_precision)
        self._programs: OrderedDict[tuple[int, bytes], DeltaProgram] = OrderedDict()
        self._weights: dict[tuple[str, str], Tensor] = {}
        self._graphs: dict[tuple[int, str], fx.GraphModule] = {}
        self._coverage: Coverage | None = None
        self._copies = 1
        self._most_sequences = 1

    def prepare(self, block: Block) -> None:
        """Capture the network and choose the batch size.

        Raises
        ------
        DeltaUnavailable
            If its graph cannot be captured, or nothing of it can be computed locally.
        """
        self.whole.prepare(block)
        if self._coverage is not None:
            return
        self.batch_size = self.batch_size or self.whole.fitting_rows(block)
        length = block.codes.shape[1]
        try:
            middle = length // 2
            program = self._program(block, np.arange(middle, middle + 2).clip(max=length - 1).reshape(self._copies, -1))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise DeltaUnavailable(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        if program.coverage.share == 0:
            raise DeltaUnavailable(f"no layer can be followed ({'; '.join(program.coverage.stopped_at)})")
        self._coverage = program.coverage
        half = self.request.memory_on(block.sequence.device) // 2
        self._most_sequences = max(1, half // program.bytes_per_sequence)
        if self.request.batch_size is None:
            row = program.bytes_per_position + MUTANTS * self.request.moment_bytes
            self.batch_size = MUTANTS * int(np.clip(half // row, 1, _LARGEST_CHUNK))

    def double(self) -> bool:
        """Take a sequence of which a batch holds some mutants as two, each with half of them.

        Networks that drop or join axes are traced with one row as if the batch were another axis.

        Returns
        -------
        bool
            Whether that is new.
        """
        if self._copies == 2:
            return False
        self._copies, self._coverage = 2, None
        for table in (self._programs, self._weights, self._graphs):
            table.clear()
        return True

    def use(self, precision: Precision) -> None:
        """Compute products in another precision from now on."""
        self.precision = precision
        self._programs.clear()
        self._weights.clear()

    @property
    def coverage(self) -> Coverage:
        """How much of the network is computed locally."""
        return self._coverage or Coverage(0.0, ())

    def sequences_at_once(self, positions: int) -> int:
        """Return how many sequences of a window of `positions` fill a batch."""
        fitting = min((self.batch_size or 1) // (MUTANTS * positions), self._most_sequences)
        return _power_of_two(fitting) if self.whole.mixes_sequences else 1

    def predict(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw: of one sequence, or all those of several."""
        sequences, counts = (part.cpu().numpy() for part in chunk.sequence.unique_consecutive(return_counts=True))
        known = counts // MUTANTS
        if len(sequences) == 1 and self._copies == 2:
            sequences, known = sequences.repeat(2), np.array([known[0] - known[0] // 2, known[0] // 2])
        # Sequences with fewer known bases repeat their last position.
        index = np.minimum(np.arange(known.max()), known[:, None] - 1).clip(min=0) + (np.cumsum(known) - known)[:, None]
        index = index.clip(max=known.sum() - 1)
        positions = chunk.position[::MUTANTS].cpu().numpy()[index]
        program = self._program(block, positions)
        device = block.sequence.device
        bases = torch.eye(4, dtype=block.sequence.dtype, device=device)
        rows = torch.as_tensor(self.request.predictor.layout.allele_rows, device=device)
        mutants = bases[rows[chunk.allele]].view(-1, MUTANTS, 4)[torch.from_numpy(index).to(device)]
        chosen = torch.from_numpy(sequences).to(device)
        shared = program.before(block.sequence[chosen], [other[chosen] for other in block.others], mutants)
        names = [block.names[number] for number in sequences]
        names = names if self.whole.mixes_sequences else names[:1]
        row_of = torch.arange(len(names), device=device) if len(names) > 1 else None
        is_own = np.arange(known.max()) < known[:, None]
        own = None if is_own.all() else torch.from_numpy(np.repeat(is_own, MUTANTS)).to(device)

        def predict(draw: int) -> Tensor:
            masks = self.request.draws.masks(names, draw).rows(row_of)
            whole = self._row_masks(masks, program) if row_of is not None else {}
            predicted = program.after(shared, mask_tensors(masks), whole)
            return predicted if own is None else predicted[own]

        return predict

    def _row_masks(self, masks: Sequence[Mask], program: DeltaProgram) -> dict[int, Tensor]:
        """Return the masks that the whole part of a program needs, a row for each mutant."""
        sites = zip(self.request.draws.sites, masks, strict=True)
        rows, site_of = {}, [site for site, mask in sites for _ in mask_tensors([mask])]
        tensors = mask_tensors(masks)
        for index in program.masks_of_rows:
            axis, stack = site_of[index].batch_axis, site_of[index].stack
            apart = tensors[index].unflatten(axis, (stack, -1))
            repeated = apart.repeat_interleave(program.rows // apart.shape[axis + 1], axis + 1)
            rows[index] = repeated.flatten(axis, axis + 1)
        return rows

    def chunk_size(self, variants: Variants, start: int) -> int:
        """Return how many variants share a batch: of one sequence, or all of some sequences."""
        size = max(MUTANTS, (self.batch_size or 1) // MUTANTS * MUTANTS)
        counts = variants.sequence[start : start + size + 1].unique_consecutive(return_counts=True)[1]
        first = min(int(counts[0]), size)
        begins = start == 0 or int(variants.sequence[start - 1]) != int(variants.sequence[start])
        if not begins or len(counts) < 2 or not self.whole.mixes_sequences:
            return first
        # Several sequences in a batch, each with all of its variants; the last one counted may not be complete.
        whole = (counts if start + int(counts.sum()) == len(variants) else counts[:-1])[: self._most_sequences]
        widest = torch.cummax(whole, 0).values * torch.arange(1, len(whole) + 1, device=whole.device)
        together = _power_of_two(int((widest <= size).sum()))
        return int(counts[:together].sum()) if together > 1 else first

    def references(self, block: Block) -> Tensor:
        """Predict the references."""
        return self.whole.references(block)

    def reference_rows(self, block: Block) -> int:
        """Return how many references share a batch."""
        return min(self.whole.rows, len(block.names))

    def halve(self, size: int) -> None:
        """Take half of `size` mutants from now on."""
        self.whole.halve(size)
        self.batch_size = self.whole.rows
        self._programs.clear()

    def substitute(self) -> Full:
        """Return the full strategy, which asks nothing of the graph."""
        return Full(replace(self.request, batch_size=None, precision=self.whole_precision), self.whole)

    def fewest_multiply_adds(self, block: Block, position: int) -> float:
        """Return the multiply-adds without which no mutant of a position can be predicted, per mutant and draw."""
        with torch.inference_mode():
            program = self._program(block, np.full((self._copies, 1), position))
        return program.fewest_multiply_adds(self.request.count)

    def _program(self, block: Block, positions: np.ndarray) -> DeltaProgram:
        key = (len(positions), positions.tobytes())
        if key not in self._programs:
            with torch.inference_mode(False), torch.no_grad():
                self._programs[key] = DeltaProgram(
                    self._graph(block, len(positions), "real"),
                    lambda rows: self._graph(block, rows, "fake"),
                    1 + len(block.others),
                    positions,
                    self.request.predictor.layout.position_axis,
                    self._weights,
                    self.precision,
                )
            of_a_sequence = -(-MUTANTS * block.codes.shape[1] // (self.batch_size or MUTANTS))
            while len(self._programs) > max(_FEWEST_PROGRAMS, min(of_a_sequence, _MOST_PROGRAMS)):
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _graph(self, block: Block, rows: int, mode: Literal["real", "fake"]) -> fx.GraphModule:
        """Capture the network for some sequences, each with its own masks, or for mutants of one, once."""
        if (rows, mode) not in self._graphs:
            self._graphs[rows, mode] = self._trace(block, rows, mode, one_mask=mode == "fake")
        return self._graphs[rows, mode]

    def _trace(self, block: Block, rows: int, mode: Literal["real", "fake"], *, one_mask: bool) -> fx.GraphModule:
        """Capture the network for a batch, with one mask for all of its rows or one for each."""
        index = torch.zeros(rows, dtype=torch.int64, device=block.sequence.device)
        names = block.names[:1] if one_mask or rows == 1 else [f"{block.names[0]} {row}" for row in range(rows)]
        given = self.request
        masks = given.draws.masks(names, 0).rows(None if len(names) == 1 else torch.arange(rows, device=index.device))
        others = [other[index].clone() for other in block.others]
        return trace(
            given.predictor, given.draws, given.columns, block.sequence[index].clone(), others, masks, mode=mode
        )


def _power_of_two(number: int) -> int:
    """Return the largest power of two up to a number, at least 1: few sizes, each of which is captured once."""
    return 1 << max(number.bit_length() - 1, 0)
