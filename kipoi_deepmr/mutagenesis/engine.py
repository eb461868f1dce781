"""The run over chunks of mutants: references, moments, checks, memory, timing; how mutants are predicted is a strategy."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from kipoi_deepmr import terms
from kipoi_deepmr.effects import Moments
from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.mutagenesis.blocks import Block, BlockMoments, Coverage, Grid, to_numpy
from kipoi_deepmr.mutagenesis.precision import products_in
from kipoi_deepmr.mutagenesis.scale import DOMAINS, transform
from kipoi_deepmr.mutagenesis.strategy import Request, Strategy
from kipoi_deepmr.mutagenesis.variants import MUTANTS, Variants, all_variants

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Engine:
    """Saturation mutagenesis of blocks of sequences by one strategy.

    Parameters
    ----------
    strategy
        How mutants are predicted: `Full`, `Delta`, or an `Ensemble` of these.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._substitute: Engine | None = None
        self._warned = False

    @property
    def name(self) -> str:
        """What to call the engine."""
        return self.strategy.name

    @property
    def request(self) -> Request:
        """What the engine is asked for."""
        return self.strategy.request

    @property
    def batch_size(self) -> int:
        """Mutants in a batch."""
        return int(self.strategy.batch_size or 1)

    @property
    def coverage(self) -> Coverage:
        """How much of the network is computed only where a mutation reaches."""
        return self.strategy.coverage

    def prepare(self, block: Block) -> None:
        """Do once what all blocks share."""
        self.strategy.prepare(block)

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
        asked = self.request
        with torch.inference_mode(), products_in(self.strategy.whole_precision):
            references = self.references(block)
            reference = Moments(asked.exposures)
            for prediction in references:
                reference.add(transform(prediction, asked.scale))
            variants = all_variants(block.codes, positions, block.sequence.device)
            kept = asked.count if asked.keep_draws else 0
            grid = Grid(len(block.codes), positions, len(asked.columns), asked.exposures, kept)
            for chunk, moments, moved in self._chunks(block, variants, references, progress):
                grid.put(chunk, moments, moved)
            grid.settle(to_numpy(references.abs().amax(0)), self._eps(block))
        reference_moments = to_numpy(reference.mean), to_numpy(reference.squares)
        return BlockMoments(*grid.arrays(), *reference_moments, asked.count, grid.draws)

    def references(self, block: Block) -> Tensor:
        """Predict the references of a block in every draw, shape (draw, sequence, column).

        Raises
        ------
        PredictionError
            If one is NaN or infinite, or outside the domain of the scale.
        """
        strategy, asked = self.strategy, self.request
        found = self.within_memory(lambda: strategy.references(block), lambda: strategy.reference_rows(block))
        usable = torch.isfinite(transform(found, asked.scale))
        if not bool(usable.all()):
            draw, row, column = (int(i) for i in (~usable).nonzero()[0])
            raise PredictionError(
                f"reference {block.names[row]}, output {asked.columns[column]}, draw {draw}: {self._unusable()}"
            )
        return found

    def time(self, block: Block, positions: range, batches: int, draws: int | None = None) -> tuple[float, int]:
        """Time a few batches in the middle of the positions, after one to warm up, with all draws or some.

        At its ends a sequence cuts off what a mutation can reach.

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
        networks = self.strategy.networks
        rounds = max(1, batches // networks)

        def measure() -> tuple[float, int]:
            chunk = self.middle_chunk(variants)
            self._moments(block, chunk, references, self.request.count if networks > 1 else 1)
            start = time.perf_counter()
            for _ in range(rounds):
                self._moments(block, chunk, references, draws)[1].cpu()
            return time.perf_counter() - start, rounds * len(chunk)

        with torch.inference_mode(), products_in(self.strategy.whole_precision):
            references = self.references(block)
            return self.within_memory(measure, lambda: len(self.middle_chunk(variants)))

    def middle_chunk(self, variants: Variants) -> Variants:
        """Return the batch around the middle position of the first sequence that has variants."""
        size = self.strategy.chunk_size(variants, 0)
        of_first = int((variants.sequence == variants.sequence[0]).sum())
        start = max(0, (of_first - size) // 2 // MUTANTS * MUTANTS)
        return variants.rows(start, start + min(size, self.strategy.chunk_size(variants, start)))

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
                if not is_out_of_memory(error):
                    raise
                self._halve_batch(error, rows)

    def _chunks(
        self, block: Block, variants: Variants, references: Tensor, progress: Callable[[int], object]
    ) -> Iterator[tuple[Variants, Moments, Tensor]]:
        start = 0
        while start < len(variants):
            size = self.strategy.chunk_size(variants, start)
            chunk = variants.rows(start, start + size)
            try:
                moments, moved = self._moments(block, chunk, references)
                self._check(block, chunk, moments)
            except Exception as error:
                if is_out_of_memory(error):
                    self._halve_batch(error, size)
                    continue
                other = self._stand_in(block)
                if other is None:
                    raise
                yield from other._chunks(block, chunk, references, progress)
                self._warn_once(error)
            else:
                yield chunk, moments, moved
                progress(size)
            start += size

    def _stand_in(self, block: Block) -> "Engine | None":
        """Return an engine that may do what this one fails to do, if there is one."""
        if self._substitute is None:
            other = self.strategy.substitute()
            if other is None:
                return None
            self._substitute = Engine(other)
        self._substitute.prepare(block)
        return self._substitute

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            why = "no number" if isinstance(error, PredictionError) else f"{type(error).__name__}: {error}"
            logger.warning("the %s engine fails on some mutants (%s): the full engine ran on these", self.name, why)
            self._warned = True

    def _moments(
        self, block: Block, chunk: Variants, references: Tensor, draws: int | None = None
    ) -> tuple[Moments, Tensor]:
        """Return the moments of a batch, and how far each variant moved the prediction in any draw."""
        asked = self.request
        predict = self.strategy.predict(block, chunk)
        moments = Moments(asked.exposures)
        moved = torch.zeros((), dtype=references.dtype, device=references.device)
        for draw in range(min(draws or asked.count, asked.count)):
            predicted, reference = predict(draw).to(references.dtype), references[draw, chunk.sequence]
            effect = transform(predicted, asked.scale) - transform(reference, asked.scale)
            moments.add(effect)
            if asked.keep_draws:
                moments.kept.append(effect.float())
            moved = torch.maximum(moved, (predicted - reference).abs())
        return moments, moved

    def _check(self, block: Block, chunk: Variants, moments: Moments) -> None:
        finite = torch.isfinite(moments.mean)
        if not bool(finite.all()):
            row, column = (int(index) for index in (~finite).nonzero()[0])
            where = f"{block.names[int(chunk.sequence[row])]}, position {int(chunk.position[row])}"
            base = terms.ALLELES[int(chunk.allele[row])]
            raise PredictionError(
                f"{where} mutated to {base}, output {self.request.columns[column]}: {self._unusable()}"
            )

    def _unusable(self) -> str:
        scale = self.request.scale
        hint = "" if scale == "identity" else "; effects.scale: identity takes any number"
        return f"the model's prediction is not usable: effects.scale {scale} needs {DOMAINS[scale]}{hint}"

    def _halve_batch(self, error: Exception, size: int) -> None:
        if size <= self.strategy.fewest:
            raise ModelError("not even one mutant fits into memory: use a machine or GPU with more memory") from error
        self.strategy.halve(size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("out of memory with %d mutants in a batch: going on with %d", size, self.batch_size)

    def _eps(self, block: Block) -> float:
        """Return the relative rounding of a prediction; that of a model torch cannot look into is taken as float32."""
        is_double = block.sequence.dtype == torch.float64 and not self.request.predictor.opaque
        return torch.finfo(torch.float64 if is_double else torch.float32).eps


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch ran out of memory, on a GPU or on the CPU (where it raises a plain RuntimeError)."""
    return (
        isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error) or "can't allocate" in str(error)
    )
