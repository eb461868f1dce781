"""The local engine: what a mutation cannot reach is taken from the reference."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.full import PROBE, FullEngine
from kipoi_deepmr.mutagenesis.graph import Passes, mask_tensors, trace
from kipoi_deepmr.mutagenesis.local.program import ALLELES, LocalProgram
from kipoi_deepmr.mutagenesis.precision import Precision, products_in
from kipoi_deepmr.mutagenesis.variants import Variants, all_variants
from kipoi_deepmr.uncertainty import Mask

logger = logging.getLogger(__name__)

_AUTO_MEMORY = {"cpu": 2**26, "cuda": 2**32}
_LARGEST_CHUNK = 4096
_PROGRAMS = 32
_SAMPLED_POSITIONS = 12
_SAMPLED_DRAWS = 2
_AGREEMENT = 1e-5
_ROUNDING = 8


class LocalUnavailable(Exception):
    """The network cannot be computed locally; the text says why."""


@dataclass
class LocalEngine(FullEngine):
    """Saturation mutagenesis that computes only what each mutation can reach.

    Differences from the reference go through linear operations, reference plus difference through all others, each on
    the window of positions that the mutation can change; a linear layer after flattening takes the changed columns of
    its weight only. From an operation that cannot be followed on, the network runs whole.

    Parameters
    ----------
    network, draws, count, columns, exposures, scale, batch_size, memory
        As `FullEngine`; the default of `memory` is 64 MiB on a CPU.
    """

    _programs: OrderedDict[tuple[int, bytes], LocalProgram] = field(default_factory=OrderedDict, init=False)
    _weights: dict[tuple[str, str], Tensor] = field(default_factory=dict, init=False)
    _graphs: dict[int, fx.GraphModule] = field(default_factory=dict, init=False)
    _coverage: Coverage | None = field(default=None, init=False)

    name = "local"

    def prepare(self, block: Block) -> Passes:
        """Capture the network and choose the batch size.

        Raises
        ------
        LocalUnavailable
            If its graph cannot be captured, or nothing of it can be computed locally.
        """
        passes = super().prepare(block)
        if self._graphs:
            return passes
        try:
            middle = block.codes.shape[1] // 2
            program = self._program(block, np.arange(middle, min(middle + 2, block.codes.shape[1]))[None])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise LocalUnavailable(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        self._coverage = program.coverage
        if self._coverage.share == 0:
            raise LocalUnavailable(f"no layer can be followed ({'; '.join(self._coverage.stopped_at)})")
        memory = self.memory or _AUTO_MEMORY.get(block.sequence.device.type, _AUTO_MEMORY["cuda"])
        if self._asked_batch is None:
            self.batch_size = ALLELES * int(
                np.clip(memory // (program.bytes_per_position + ALLELES * self.moment_bytes), 1, _LARGEST_CHUNK)
            )
        return passes

    def __post_init__(self) -> None:
        """Remember whether the batch size was asked for."""
        self._asked_batch = self.batch_size

    @property
    def whole_precision(self) -> Precision:
        """Return float32: references, and what runs whole, from which small differences are taken."""
        return "float32"

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
        return _power_of_two((self.batch_size or 1) // (ALLELES * positions)) if self._mix_sequences else 1

    def predictor(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw: of one sequence, or all those of several."""
        sequences, counts = (part.cpu().numpy() for part in chunk.sequence.unique_consecutive(return_counts=True))
        known = counts // ALLELES
        # Sequences with fewer known bases repeat their last position.
        index = np.minimum(np.arange(known.max()), known[:, None] - 1) + (np.cumsum(known) - known)[:, None]
        positions = chunk.position[::ALLELES].cpu().numpy()[index]
        program = self._program(block, positions)
        device = block.sequence.device
        bases = torch.eye(4, dtype=block.sequence.dtype, device=device)
        rows = torch.as_tensor(self.network.layout.allele_rows, device=device)
        mutants = bases[rows[chunk.allele]].view(-1, ALLELES, 4)[torch.from_numpy(index).to(device)]
        chosen = torch.from_numpy(sequences).to(device)
        shared = program.before(block.sequence[chosen], [other[chosen] for other in block.others], mutants)
        names = [block.names[number] for number in sequences]
        row_of = torch.arange(len(names), device=device) if len(names) > 1 else None
        is_own = np.arange(known.max()) < known[:, None]
        own = None if is_own.all() else torch.from_numpy(np.repeat(is_own, ALLELES)).to(device)

        def predict(draw: int) -> Tensor:
            masks = self.draws.masks(names, draw).rows(row_of)
            whole = self._row_masks(masks, program) if row_of is not None else {}
            predicted = program.after(shared, mask_tensors(masks), whole)
            return predicted if own is None else predicted[own]

        return predict

    def _row_masks(self, masks: Sequence[Mask], program: LocalProgram) -> dict[int, Tensor]:
        """Return the masks that the whole part of a program needs, a row for each mutant."""
        rows, site_of = (
            {},
            [site for site, mask in zip(self.draws.sites, masks, strict=True) for _ in mask_tensors([mask])],
        )
        tensors = mask_tensors(masks)
        for index in program.masks_of_rows:
            axis, stack = site_of[index].batch_axis, site_of[index].stack
            apart = tensors[index].unflatten(axis, (stack, -1))
            repeated = apart.repeat_interleave(program.rows // apart.shape[axis + 1], axis + 1)
            rows[index] = repeated.flatten(axis, axis + 1)
        return rows

    def difference_from_full(self, block: Block, positions: range) -> tuple[float, float, float]:
        """Compare some mutants of the first sequence with the full engine, in float32: both ends and the middle.

        Returns
        -------
        difference : float
            Largest difference of a prediction.
        effect : float
            Largest effect among the compared mutants.
        prediction : float
            Largest prediction.
        """
        asked = self.precision
        if asked != "float32":
            self.use("float32")
            try:
                return self.difference_from_full(block, positions)
            finally:
                self.use(asked)
        self.prepare(block)
        first = Block(block.names[:1], block.codes[:1], block.sequence[:1], tuple(o[:1] for o in block.others))
        chunk = all_variants(first.codes, _sample(first.codes[0], positions), block.sequence.device)
        if not len(chunk):
            return 0.0, 0.0, 0.0
        full = FullEngine(self.network, self.draws, self.count, self.columns, self.exposures, memory=self.memory)
        full.share(self)
        full.prepare(first)
        full.batch_size = min(full.batch_size or 1, PROBE)

        def whole(draw: int) -> Tensor:
            def predict() -> Tensor:
                size = full.batch_size or 1
                parts = (chunk.rows(at, min(at + size, len(chunk))) for at in range(0, len(chunk), size))
                return torch.cat([full.predictor(first, part)(draw) for part in parts])

            return full.within_memory(predict, lambda: full.batch_size or 1)

        largest = np.zeros(3)
        with torch.inference_mode(), products_in("float32"):
            references = full._references_within_memory(first)[0]
            ours = self.predictor(first, chunk)
            for draw in range(min(self.count, _SAMPLED_DRAWS)):
                here, there = ours(draw).double(), whole(draw).double()
                found = ((here - there).abs(), (there - references[draw]).abs(), there.abs())
                largest = np.maximum(largest, [float(part.max()) for part in found])
        return float(largest[0]), float(largest[1]), float(largest[2])

    def _chunk_size(self, variants: Variants, start: int) -> int:
        size = max(ALLELES, (self.batch_size or 1) // ALLELES * ALLELES)
        counts = variants.sequence[start : start + size + 1].unique_consecutive(return_counts=True)[1]
        first = min(int(counts[0]), size)
        begins = start == 0 or int(variants.sequence[start - 1]) != int(variants.sequence[start])
        if not begins or len(counts) < 2 or not self._mix_sequences:
            return first
        # Several sequences in a batch, each with all of its variants; the last one counted may not be complete.
        whole = counts if start + int(counts.sum()) == len(variants) else counts[:-1]
        widest = torch.cummax(whole, 0).values * torch.arange(1, len(whole) + 1, device=whole.device)
        together = _power_of_two(int((widest <= size).sum()))
        return int(counts[:together].sum()) if together > 1 else first

    def _halve_batch(self, error: RuntimeError, size: int) -> None:
        super()._halve_batch(error, 1 if size <= ALLELES else size)
        self._programs.clear()

    def _program(self, block: Block, positions: np.ndarray) -> LocalProgram:
        key = (len(positions), positions.tobytes())
        if key not in self._programs:
            with torch.inference_mode(False), torch.no_grad():
                if len(positions) not in self._graphs:
                    self._graphs[len(positions)] = self._trace(block, len(positions), "real", one_mask=False)
                self._programs[key] = LocalProgram(
                    self._graphs[len(positions)],
                    lambda rows: self._trace(block, rows, "fake"),
                    1 + len(block.others),
                    positions,
                    self.network.layout.position_axis,
                    self._weights,
                    self.precision,
                )
            while len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _trace(
        self, block: Block, rows: int, mode: Literal["real", "fake"], *, one_mask: bool = True
    ) -> fx.GraphModule:
        """Capture the network for a batch, with one mask for all of its rows or one for each."""
        index = torch.zeros(rows, dtype=torch.int64, device=block.sequence.device)
        names = block.names[:1] if one_mask or rows == 1 else [f"{block.names[0]} {row}" for row in range(rows)]
        masks = self.draws.masks(names, 0).rows(None if len(names) == 1 else torch.arange(rows, device=index.device))
        others = [other[index].clone() for other in block.others]
        return trace(self.network, self.columns, block.sequence[index].clone(), others, masks, mode=mode)


def agrees(difference: float, effect: float, prediction: float, dtype: torch.dtype) -> bool:
    """Tell whether two engines agree: within 1e-5 of the largest effect, or the rounding of the predictions."""
    return difference <= max(_AGREEMENT * effect, _ROUNDING * torch.finfo(dtype).eps * prediction)


def _sample(codes: np.ndarray, positions: range) -> np.ndarray:
    """Return a few positions of a window with known bases: both ends, and spread between them."""
    known = positions.start + np.flatnonzero(codes[positions.start : positions.stop] >= 0)
    if not len(known):
        return known
    spread = np.linspace(0, len(known) - 1, _SAMPLED_POSITIONS).astype(int)
    ends = [0, 1, 2, len(known) - 3, len(known) - 2, len(known) - 1]
    return known[np.unique(np.concatenate([spread, ends]).clip(0, len(known) - 1))]


def _power_of_two(number: int) -> int:
    """Return the largest power of two up to a number, at least 1: few sizes, each of which is captured once."""
    return 1 << max(number.bit_length() - 1, 0)
