"""An ensemble of networks: a draw is a member, or a thinned network of a member."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kipoi_deepmr.mutagenesis.blocks import Block, Coverage
from kipoi_deepmr.mutagenesis.precision import Precision, products_in
from kipoi_deepmr.mutagenesis.strategy import Strategy
from kipoi_deepmr.mutagenesis.variants import MUTANTS, Variants


class Ensemble:
    """The strategy that asks members one after the other, so that the activations of one are in memory.

    The draws of the first member come first, then those of the second. All else is taken from the first.

    Parameters
    ----------
    members
        A strategy per member, each with the same number of draws.
    """

    def __init__(self, members: Sequence[Strategy]) -> None:
        self.members = tuple(members)
        count = sum(member.request.count for member in members)
        self.request = replace(members[0].request, count=count)
        self.batch_size = members[0].batch_size

    @property
    def name(self) -> str:
        """The engines of the members."""
        return " and ".join(dict.fromkeys(member.name for member in self.members))

    @property
    def coverage(self) -> Coverage:
        """That of the first member."""
        return self.members[0].coverage

    @property
    def networks(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def fewest(self) -> int:
        """Largest of the members' smallest batches."""
        return max(member.fewest for member in self.members)

    @property
    def whole_precision(self) -> Precision:
        """That of the first member; each member is asked in its own."""
        return self.members[0].whole_precision

    def prepare(self, block: Block) -> None:
        """Prepare every member and take the smallest of their batches."""
        for member in self.members:
            member.prepare(block)
        self._share_batch_size()

    def references(self, block: Block) -> Tensor:
        """Predict the references by every member."""
        found = []
        for member in self.members:
            with products_in(member.whole_precision):
                found.append(member.references(block))
        return torch.cat(found)

    def reference_rows(self, block: Block) -> int:
        """Return the largest number of the members."""
        return max(member.reference_rows(block) for member in self.members)

    def predict(self, block: Block, chunk: Variants) -> Callable[[int], Tensor]:
        """Return what predicts some variants in a draw; draws that follow each other use a member's shared layers."""
        loaded: dict[int, Callable[[int], Tensor]] = {}

        def predict(draw: int) -> Tensor:
            number, own = divmod(draw, self.members[0].request.count)
            member = self.members[number]
            with products_in(member.whole_precision):
                if number not in loaded:
                    loaded.clear()
                    loaded[number] = member.predict(block, chunk)
                return loaded[number](own)

        return predict

    def chunk_size(self, variants: Variants, start: int) -> int:
        """Return the smallest number of the members, in whole positions as the delta engine takes them."""
        size = min(member.chunk_size(variants, start) for member in self.members)
        return max(MUTANTS, size // MUTANTS * MUTANTS) if size > MUTANTS else size

    def halve(self, size: int) -> None:
        """Let every member halve."""
        for member in self.members:
            member.halve(size)
        self._share_batch_size()

    def sequences_at_once(self, positions: int) -> int:
        """Return the smallest number of the members."""
        return min(member.sequences_at_once(positions) for member in self.members)

    def substitute(self) -> "Ensemble | None":
        """Return the ensemble of the members' substitutes, if there is one."""
        substitutes = [member.substitute() for member in self.members]
        if not any(substitutes):
            return None
        return Ensemble([other or member for other, member in zip(substitutes, self.members, strict=True)])

    def _share_batch_size(self) -> None:
        self.batch_size = min(member.batch_size or 1 for member in self.members)
        for member in self.members:
            member.batch_size = self.batch_size
