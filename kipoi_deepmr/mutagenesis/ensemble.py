"""An ensemble of networks: a draw is a member, or a thinned network of a member."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from kipoi_deepmr.effects import Moments
from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.delta.engine import DeltaEngine
from kipoi_deepmr.mutagenesis.delta.program import ALLELES
from kipoi_deepmr.mutagenesis.engine_choice import choose_engine, try_delta
from kipoi_deepmr.mutagenesis.full import FullEngine
from kipoi_deepmr.mutagenesis.graph import Passes
from kipoi_deepmr.mutagenesis.scale import transform
from kipoi_deepmr.mutagenesis.variants import Variants

logger = logging.getLogger(__name__)

_SPREAD = 3


@dataclass
class EnsembleEngine(FullEngine):
    """Saturation mutagenesis by the networks of an ensemble, one after the other.

    The draws of the first member come first, then those of the second. A batch goes through one member at a time, so
    that the activations of one member are in memory.

    Parameters
    ----------
    members
        An engine per member, each with the same number of draws.
    """

    members: Sequence[FullEngine] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The engines of the members."""
        return " and ".join(dict.fromkeys(member.name for member in self.members))

    @classmethod
    def of(cls, members: Sequence[FullEngine]) -> "EnsembleEngine":
        """Return the engine of some members, which takes all else from the first."""
        one = members[0]
        given = {one_field.name: getattr(one, one_field.name) for one_field in fields(FullEngine) if one_field.init}
        return cls(**{**given, "count": sum(member.count for member in members)}, members=members)

    def prepare(self, block: Block) -> Passes:
        """Prepare every member and take the smallest of their batches."""
        passes = [member.prepare(block) for member in self.members]
        self._take_batch_size(min(member.batch_size or 1 for member in self.members))
        return passes[0]

    @property
    def coverage(self) -> Coverage:
        """How much of the first member is computed locally."""
        return self.members[0].coverage

    @property
    def warm_up_draws(self) -> int:
        """Draws until every member has run once."""
        return self.count

    def time(self, block: Block, positions: range, batches: int, draws: int | None = None) -> tuple[float, int]:
        """Time fewer batches: each goes through every member."""
        return super().time(block, positions, max(1, batches // len(self.members)), draws)

    def sequences_at_once(self, positions: int) -> int:
        """Return the smallest number of the members."""
        return min(member.sequences_at_once(positions) for member in self.members)

    def predictor(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw; draws that follow each other use a member's shared layers."""
        loaded: dict[int, Callable[[int], Tensor]] = {}

        def predict(draw: int) -> Tensor:
            number, own = divmod(draw, self.members[0].count)
            if number not in loaded:
                loaded.clear()
                loaded[number] = self.members[number].predictor(block, chunk)
            return loaded[number](own)

        return predict

    def _references_within_memory(self, block: Block) -> tuple[Tensor, Moments]:
        predictions = torch.cat([member._references_within_memory(block)[0] for member in self.members])
        moments = Moments(self.exposures)
        for prediction in predictions:
            moments.add(transform(prediction, self.scale))
        return predictions, moments

    def _chunk_size(self, variants: Variants, start: int) -> int:
        size = min(member._chunk_size(variants, start) for member in self.members)
        # The delta engine takes whole positions.
        return max(ALLELES, size // ALLELES * ALLELES) if size > ALLELES else size

    def _halve_batch(self, error: Exception, size: int) -> None:
        for member in self.members:
            member._halve_batch(error, size)
        self._take_batch_size(min(member.batch_size or 1 for member in self.members))

    def _substitute(self) -> FullEngine | None:
        substitutes = [member._substitute() for member in self.members]
        if not any(substitutes):
            return None
        return EnsembleEngine.of([other or member for other, member in zip(substitutes, self.members, strict=True)])

    def _take_batch_size(self, size: int) -> None:
        self.batch_size = size
        for member in self.members:
            member.batch_size = size


def choose_engines(
    wanted: Literal["auto", "delta", "full"], block: Block, positions: range, members: Sequence[Mapping[str, Any]]
) -> FullEngine:
    """Return the engine of one network or of several, ready to run.

    Parameters
    ----------
    wanted, block, positions
        As `choose_engine`.
    members
        Arguments of `FullEngine` for each network. The engines are compared and timed on the first one. For the others
        the delta engine is tried on the mutants of three positions: both ends and the middle.

    Returns
    -------
    FullEngine, DeltaEngine or EnsembleEngine
    """
    first = choose_engine(wanted, block, positions, **members[0])
    if len(members) == 1:
        return first
    engines = [first]
    for options in members[1:]:
        delta = DeltaEngine(**options)
        follows = isinstance(first, DeltaEngine) and try_delta(delta, block, positions, spread=_SPREAD)
        engines.append(delta if follows else FullEngine(**options))
    ensemble = EnsembleEngine.of(engines)
    ensemble.prepare(block)
    return ensemble
