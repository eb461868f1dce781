"""The full engine: every mutant through the whole network, once per draw."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kipoi_deepmr.effects import Moments
from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.mutagenesis.blocks import Block, BlockMoments, Coverage, Grid, to_numpy
from kipoi_deepmr.mutagenesis.graph import Passes, WholePasses, capture
from kipoi_deepmr.mutagenesis.independence import PROBE, check_independence, rows_keep_their_masks
from kipoi_deepmr.mutagenesis.precision import Precision, products_in
from kipoi_deepmr.mutagenesis.scale import DOMAINS, Scale, transform
from kipoi_deepmr.mutagenesis.variants import Variants, all_variants, mutate
from kipoi_deepmr.uncertainty import MCDropout

logger = logging.getLogger(__name__)

_AUTO_MEMORY = {"cpu": 2**27, "cuda": 2**32}
_ELSEWHERE = "cuda"
_LARGEST_BATCH = {"cpu": 2048, "cuda": 16384}
_Result = TypeVar("_Result")


@dataclass
class FullEngine:
    """Saturation mutagenesis under MC-dropout by running every mutant through the whole network.

    Parameters
    ----------
    network
        The network in eval mode on the device, called as ``network(sequence, *others)``. Its `layout` has
        `alphabet_axis` and `position_axis` (counted without the batch axis) and `allele_rows` (index along the alphabet
        axis of A, C, G and T); `model.SequenceNetwork` is such a network.
    draws
        Source of the masks.
    count
        Number of draws.
    columns
        Outputs to follow, exposures first.
    exposures
        How many of them are exposures.
    scale
        Scale of the effects.
    batch_size
        Mutants in a batch. Default: as many as `memory` allows.
    memory
        Bound in bytes on the activations of a batch. Default: 128 MiB on a CPU, where smaller batches are as fast,
        4 GiB on a GPU.
    keep_draws
        Whether `run` returns the effects of every draw, too.
    precision
        Arithmetic of matrix products and convolutions: ``float32``, or ``tf32`` (on a GPU) or ``bfloat16``.
    """

    network: Any
    draws: MCDropout
    count: int
    columns: Sequence[int]
    exposures: int
    scale: Scale = "identity"
    batch_size: int | None = None
    memory: int | None = None
    keep_draws: bool = False
    precision: Precision = "float32"
    _passes: dict[int, Passes] = field(default_factory=dict, init=False)
    _mix_sequences: bool | None = field(default=None, init=False)
    _whole_rows: int = field(default=1, init=False)
    _substituted: bool = field(default=False, init=False)

    name = "full"

    def prepare(self, block: Block) -> Passes:
        """Capture the network on a small batch, choose the batch size, and try whether sequences can share a batch.

        Returns
        -------
        Passes
            The captured network.
        """
        passes = self._pass_of(PROBE, block)
        if self.batch_size is None:
            device = block.sequence.device
            row = passes.bytes_per_row + self.moment_bytes
            largest = _LARGEST_BATCH.get(device.type, _LARGEST_BATCH[_ELSEWHERE])
            self.batch_size = int(np.clip(self.memory_of(device) // max(row, 1), 1, largest))
        if self._mix_sequences is None:
            self._whole_rows = self.batch_size
            with torch.inference_mode(), products_in(self.whole_precision):
                check_independence(passes, self.draws, block, self.network.layout.position_axis)
                self._mix_sequences = rows_keep_their_masks(passes, self.draws, block)
            if not self._mix_sequences:
                logger.info("the network mixes the rows of a batch: a batch holds the mutants of one sequence only")
        return passes

    @property
    def whole_precision(self) -> Precision:
        """Precision of the passes through the whole network."""
        return self.precision

    def share(self, other: "FullEngine") -> None:
        """Take over what another engine of the same network has found: its captured passes, whether sequences mix."""
        if self.whole_precision == other.whole_precision:
            self._passes = other._passes
        self._mix_sequences, self._whole_rows = other._mix_sequences, other._whole_rows

    def memory_of(self, device: torch.device) -> int:
        """Return the bound in bytes on the activations of a batch."""
        return self.memory or _AUTO_MEMORY.get(device.type, _AUTO_MEMORY[_ELSEWHERE])

    def references(self, block: Block) -> Tensor:
        """Predict the references of a block in every draw, shape (draws, sequence, column)."""
        return self._references_within_memory(block)[0]

    @property
    def moment_bytes(self) -> int:
        """Bytes that the moments of one variant take while a draw is added to them."""
        outcomes = len(self.columns) - self.exposures
        kept = 4 * self.count * len(self.columns) * self.keep_draws
        return 8 * 3 * (4 * len(self.columns) + self.exposures * outcomes) + kept

    @property
    def warm_up_draws(self) -> int:
        """Draws until all that is prepared once has been prepared."""
        return 1

    @property
    def coverage(self) -> Coverage:
        """How much of the network is computed locally: nothing."""
        return Coverage(0.0, ())

    def sequences_at_once(self, positions: int) -> int:
        """Return how many sequences of a window of `positions` fill two batches."""
        return max(1, -(-2 * (self.batch_size or 1) // (3 * positions)))

    def run(
        self, block: Block, positions: range, progress: Callable[[int], object] = lambda mutants: None
    ) -> BlockMoments:
        """Mutate every position of a block's window to every other base.

        Parameters
        ----------
        block
            The sequences.
        positions
            Window of positions.
        progress
            Called with the number of mutants done since the last call.

        Returns
        -------
        BlockMoments

        Raises
        ------
        PredictionError
            If a prediction is NaN or infinite, or outside the domain of the scale.
        ModelError
            If not even one mutant fits into memory.
        """
        self.prepare(block)
        with torch.inference_mode(), products_in(self.whole_precision):
            references, reference = self._references_within_memory(block)
            variants = all_variants(block.codes, positions, block.sequence.device)
            kept = self.count if self.keep_draws else 0
            grid = Grid(len(block.codes), positions, len(self.columns), self.exposures, kept)
            for chunk, moments, moved in self._chunks(block, variants, references, progress):
                grid.put(chunk, moments, moved)
            grid.settle(to_numpy(references.abs().amax(0)), self._eps(block))
        reference_moments = to_numpy(reference.mean), to_numpy(reference.squares)
        return BlockMoments(*grid.arrays(), *reference_moments, self.count, grid.draws)

    def time(self, block: Block, positions: range, batches: int, draws: int | None = None) -> tuple[float, int]:
        """Time a few batches of a run, after one to warm up, with all draws or some.

        Returns
        -------
        float
            Seconds that the batches took, with their draws.
        int
            Mutants in them.
        """
        self.prepare(block)
        variants = all_variants(block.codes, positions, block.sequence.device)
        if not len(variants):
            return 0.0, 0

        def measure() -> tuple[float, int]:
            chunk = variants.rows(0, self._chunk_size(variants, 0))
            self._moments(block, chunk, references, self.warm_up_draws)
            start = time.perf_counter()
            for _ in range(batches):
                self._moments(block, chunk, references, draws)[1].cpu()
            return time.perf_counter() - start, batches * len(chunk)

        with torch.inference_mode(), products_in(self.whole_precision):
            references, _ = self._references_within_memory(block)
            return self.within_memory(measure, lambda: self._chunk_size(variants, 0))

    def within_memory(self, function: Callable[[], _Result], size: Callable[[], int]) -> _Result:
        """Call a function, with half the batch size as long as memory is too small.

        Parameters
        ----------
        function
            What to call.
        size
            Gives the rows of its batch.
        """
        while True:
            rows = size()
            try:
                return function()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._halve_batch(error, rows)

    def _references_within_memory(self, block: Block) -> tuple[Tensor, Moments]:
        return self.within_memory(lambda: self._references(block), lambda: min(self._whole_rows, len(block.names)))

    def _references(self, block: Block) -> tuple[Tensor, Moments]:
        """Predict the references: per draw, shape (draws, sequence, column), and their moments."""
        moments, predictions = Moments(self.exposures), []
        for draw in range(self.count):
            parts = []
            for start, stop in self._spans(len(block.names)):
                # Two rows at least: networks that squeeze all axes would lose the batch axis of one.
                rows = torch.arange(start, max(stop, start + 2), device=block.sequence.device).clamp_(max=stop - 1)
                passes = self._pass_of(len(rows), block)
                saved = passes.before(block.sequence[rows], [other[rows] for other in block.others])
                masks = self.draws.masks([block.names[row] for row in range(start, stop)], draw)
                predicted = passes.after(saved, masks.rows(rows - start if stop - start > 1 else None))
                parts.append(predicted[: stop - start])
            predictions.append(torch.cat(parts).to(_accumulator(block)))
            moments.add(transform(predictions[-1], self.scale))
        stacked = torch.stack(predictions)
        usable = torch.isfinite(transform(stacked, self.scale))
        if not bool(usable.all()):
            draw, row, column = (int(i) for i in (~usable).nonzero()[0])
            raise PredictionError(
                f"reference {block.names[row]}, output {self.columns[column]}, draw {draw}: {self._unusable()}"
            )
        return stacked, moments

    def _chunks(
        self, block: Block, variants: Variants, references: Tensor, progress: Callable[[int], object]
    ) -> Iterator[tuple[Variants, Moments, Tensor]]:
        start = 0
        while start < len(variants):
            size = self._chunk_size(variants, start)
            chunk = variants.rows(start, start + size)
            try:
                moments, moved = self._moments(block, chunk, references)
                self._check(block, chunk, moments)
            except Exception as error:
                if is_out_of_memory(error):
                    self._halve_batch(error, size)
                    continue
                substitute = self._substitute()
                if substitute is None:
                    raise
                substitute.prepare(block)
                yield from substitute._chunks(block, chunk, references, progress)
                if not self._substituted:
                    why = "no number" if isinstance(error, PredictionError) else f"{type(error).__name__}: {error}"
                    logger.warning(
                        "the %s engine fails on some mutants (%s): the full engine ran on these", self.name, why
                    )
                    self._substituted = True
            else:
                yield chunk, moments, moved
                progress(size)
            start += size

    def _substitute(self) -> "FullEngine | None":
        """Return an engine that may do what this one fails to do, if there is one."""
        return None

    def _moments(
        self, block: Block, chunk: Variants, references: Tensor, draws: int | None = None
    ) -> tuple[Moments, Tensor]:
        """Return the moments of a batch, and how far each variant moved the prediction in any draw."""
        predict = self.predictor(block, chunk)
        moments = Moments(self.exposures)
        moved = torch.zeros((), dtype=references.dtype, device=references.device)
        for draw in range(min(draws or self.count, self.count)):
            predicted, reference = predict(draw).to(references.dtype), references[draw, chunk.sequence]
            effect = transform(predicted, self.scale) - transform(reference, self.scale)
            moments.add(effect)
            if self.keep_draws:
                moments.kept.append(effect.float())
            moved = torch.maximum(moved, (predicted - reference).abs())
        return moments, moved

    def _chunk_size(self, variants: Variants, start: int) -> int:
        """Return how many variants go into the batch that begins at `start`."""
        size = min(self.batch_size or 1, len(variants) - start)
        if self._mix_sequences:
            return size
        return min(size, int((variants.sequence[start:] == variants.sequence[start]).sum()))

    def predictor(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw.

        Parameters
        ----------
        block
            The sequences.
        chunk
            One batch of their variants.

        Returns
        -------
        callable
            Takes the number of the draw, returns a tensor (variants, columns).
        """
        layout = self.network.layout
        allele_rows = torch.as_tensor(layout.allele_rows, device=block.sequence.device)
        padded = chunk.rows(0, _padded(len(chunk), self.batch_size or 1))
        passes = self._pass_of(len(padded), block)
        mutants = mutate(block.sequence, padded, layout.alphabet_axis, layout.position_axis, allele_rows)
        saved = passes.before(mutants, [other[padded.sequence] for other in block.others])
        first, last = int(chunk.sequence[0]), int(chunk.sequence[-1])
        row_of = padded.sequence - first if last > first else None
        names = block.names[first : last + 1]
        return lambda draw: passes.after(saved, self.draws.masks(names, draw).rows(row_of))[: len(chunk)]

    def _check(self, block: Block, chunk: Variants, moments: Moments) -> None:
        finite = torch.isfinite(moments.mean)
        if not bool(finite.all()):
            row, column = (int(index) for index in (~finite).nonzero()[0])
            where = f"{block.names[int(chunk.sequence[row])]}, position {int(chunk.position[row])}"
            raise PredictionError(
                f"{where} mutated to {'ACGT'[int(chunk.allele[row])]}, output {self.columns[column]}: {self._unusable()}"
            )

    def _unusable(self) -> str:
        hint = "" if self.scale == "identity" else "; effects.scale: identity takes any number"
        return f"the model's prediction is not usable: effects.scale {self.scale} needs {DOMAINS[self.scale]}{hint}"

    def _halve_batch(self, error: Exception, size: int) -> None:
        if not is_out_of_memory(error):
            raise error
        if size <= 1:
            raise ModelError("not even one mutant fits into memory: use a machine or GPU with more memory") from error
        self.batch_size = self._whole_rows = max(1, size // 2)
        self._passes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("out of memory with %d mutants in a batch: going on with %d", size, self.batch_size)

    def _pass_of(self, rows: int, block: Block) -> Passes:
        uncaptured = next((passes for passes in self._passes.values() if isinstance(passes, WholePasses)), None)
        if uncaptured is not None:
            return uncaptured
        if rows not in self._passes:
            with torch.inference_mode(False), torch.no_grad():
                index = torch.zeros(rows, dtype=torch.int64, device=block.sequence.device)
                masks = self.draws.masks(block.names[:1], 0).rows(None)
                others = [other[index].clone() for other in block.others]
                self._passes[rows] = capture(
                    self.network, self.columns, block.sequence[index].clone(), others, masks, self.whole_precision
                )
        return self._passes[rows]

    def _eps(self, block: Block) -> float:
        """Return the relative rounding of a prediction; that of a model torch cannot look into is taken as float32."""
        is_double = block.sequence.dtype == torch.float64 and not getattr(self.network, "opaque", False)
        return torch.finfo(torch.float64 if is_double else torch.float32).eps

    def _spans(self, rows: int) -> Iterator[tuple[int, int]]:
        size = self._whole_rows if self._mix_sequences else 1
        for start in range(0, rows, size):
            yield start, min(start + size, rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch ran out of memory, on a GPU or on the CPU (where it raises a plain RuntimeError)."""
    return (
        isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error) or "can't allocate" in str(error)
    )


def _padded(rows: int, batch_size: int) -> int:
    """Round a batch up so that few batch sizes, each with a graph of its own, occur."""
    step = max(1, batch_size // 8)
    return max(2, min(-(-rows // step) * step, batch_size) if rows < batch_size else rows)


def _accumulator(block: Block) -> torch.dtype:
    return torch.float32 if block.sequence.device.type == "mps" else torch.float64
