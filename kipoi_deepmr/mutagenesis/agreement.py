"""Whether the delta engine gives what the full one gives, on a sample of mutants."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kipoi_deepmr.mutagenesis.blocks import Block, to_numpy
from kipoi_deepmr.mutagenesis.delta.delta import Delta
from kipoi_deepmr.mutagenesis.engine import Engine
from kipoi_deepmr.mutagenesis.full.full import Full
from kipoi_deepmr.mutagenesis.independence import PROBE
from kipoi_deepmr.mutagenesis.precision import products_in
from kipoi_deepmr.mutagenesis.variants import Variants, all_variants, mutate

SPREAD = 12
_DRAWS = 2
_AGREEMENT = 1e-5
_ROUNDING = 8
_BESIDE_FULL = 2
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Comparison:
    """How far the engines differ on a sample of mutants, in float32.

    Attributes
    ----------
    difference, effect, prediction : numpy.ndarray, shape=(column,), float64
        Largest difference of a prediction between the engines, largest effect, largest prediction, for each output.
    excess : numpy.ndarray, shape=(column,), float64
        The error of the delta engine over what is tolerated; NaN where a prediction is not a number.
    """

    difference: NDArray[np.float64]
    effect: NDArray[np.float64]
    prediction: NDArray[np.float64]
    excess: NDArray[np.float64]

    @property
    def agrees(self) -> bool:
        """Whether every output agrees."""
        return bool((self.excess <= 1).all())

    @property
    def worst(self) -> int:
        """The column that agrees least."""
        return int(np.argmax(np.where(np.isnan(self.excess), np.inf, self.excess))) if len(self.excess) else 0

    @property
    def relative(self) -> float | None:
        """Largest difference over the largest effect; None where nothing has an effect."""
        largest = self.effect.max(initial=0.0)
        return float(self.difference.max(initial=0.0) / largest) if largest > 0 else None


def compare(delta: Delta, block: Block, positions: range, *, spread: int = SPREAD) -> Comparison:
    """Compare the engines on mutants of the first sequence of a block, in float32.

    An output agrees where the engines differ by no more than 1e-5 of its largest effect, or 8 units of float32 rounding of
    its largest prediction. Where rounding inside the network is larger than that, as where large numbers cancel, a float64
    copy of the network decides: the delta engine may be 1e-5 of the largest effect, or twice as far as the full one, from it.

    Parameters
    ----------
    delta
        The delta strategy; its precision is float32 meanwhile.
    block
        The sequences.
    positions
        Window of positions, of which both ends and `spread` more are mutated.
    spread
        How many positions to take between the ends.

    Returns
    -------
    Comparison
        Of no columns where there is no mutant.

    Raises
    ------
    DeltaUnavailable
        If there is no delta engine of this network.
    """
    asked = delta.precision
    if asked != "float32":
        delta.use("float32")
        try:
            return compare(delta, block, positions, spread=spread)
        finally:
            delta.use(asked)
    delta.prepare(block)
    first = Block(block.names[:1], block.codes[:1], block.sequence[:1], tuple(o[:1] for o in block.others))
    chunk = all_variants(first.codes, _sample(first.codes[0], positions, spread), block.sequence.device)
    if not len(chunk):
        return Comparison(*(np.zeros(0) for _ in range(4)))
    draws = range(min(delta.request.count, _DRAWS))
    with torch.inference_mode(), products_in("float32"):
        here = _by_delta(delta, first, chunk, draws)
        there, references = _by_full(delta, first, chunk, draws)
        difference, effect, prediction = (
            _largest(part) for part in (here - there, there - references[: len(draws), 0, None], there)
        )
        rounding = torch.finfo(first.sequence.dtype).eps * prediction
        excess = difference / np.maximum(np.maximum(_AGREEMENT * effect, _ROUNDING * rounding), _TINY)
        if not (excess <= 1).all() and np.isfinite(difference).all():
            exact = _in_float64(delta, first, chunk, draws)
            if exact is not None:
                allowed = np.maximum(_AGREEMENT * effect, _BESIDE_FULL * _largest(there - exact) + rounding)
                excess = _largest(here - exact) / np.maximum(allowed, _TINY)
    return Comparison(difference, effect, prediction, excess)


def _by_delta(delta: Delta, block: Block, chunk: Variants, draws: range) -> Tensor:
    predict = delta.predict(block, chunk)
    return torch.stack([predict(draw).double() for draw in draws])


def _by_full(delta: Delta, block: Block, chunk: Variants, draws: range) -> tuple[Tensor, Tensor]:
    """Return predictions (draw, mutant, column) of the full engine, and its references (draw, sequence, column)."""
    asked = replace(delta.request, scale="identity", batch_size=None, keep_draws=False, precision="float32")
    full = Full(asked, delta.whole)
    full.prepare(block)
    full.batch_size = min(full.batch_size or 1, PROBE)

    def predict() -> Tensor:
        size = full.batch_size or 1
        parts = []
        for start in range(0, len(chunk), size):
            of_draw = full.predict(block, chunk.rows(start, min(start + size, len(chunk))))
            parts.append(torch.stack([of_draw(draw).double() for draw in draws]))
        return torch.cat(parts, 1)

    engine = Engine(full)
    return engine.within_memory(predict, lambda: engine.batch_size), engine.references(block).double()


def _in_float64(delta: Delta, block: Block, chunk: Variants, draws: range) -> Tensor | None:
    """Return predictions of a float64 copy of the network; None for a network that cannot be copied or cast."""
    asked = delta.request
    layout = asked.predictor.layout
    alleles = torch.as_tensor(layout.allele_rows, device=block.sequence.device)
    try:
        predictor: Any = asked.predictor
        network = copy.deepcopy(predictor).double()
        mutants = mutate(block.sequence.double(), chunk, layout.alphabet_axis, layout.position_axis, alleles)
        others = [other.double() if other.is_floating_point() else other for other in block.others]
        found = []
        for draw in draws:
            of_draw = asked.draws.network(network, asked.draws.masks(block.names, draw).rows(None))
            parts = [
                of_draw(part.clone(), *(other.expand(len(part), *other.shape[1:]).clone() for other in others))
                for part in mutants.split(PROBE)
            ]
            found.append(torch.cat(parts)[:, list(asked.columns)].double())
    except Exception:  # noqa: BLE001  such a network is judged by its float32 predictions alone
        return None
    return torch.stack(found)


def _largest(values: Tensor) -> NDArray[np.float64]:
    return to_numpy(values.abs().amax((0, 1)))


def _sample(codes: NDArray[np.int8], positions: range, spread: int) -> NDArray[np.int64]:
    """Return a few positions of a window with known bases: both ends, and `spread` between them."""
    known = positions.start + np.flatnonzero(codes[positions.start : positions.stop] >= 0)
    if not len(known):
        return known
    between = np.linspace(0, len(known) - 1, spread).astype(int)
    edge = 3 if spread >= SPREAD else 1
    ends = [*range(edge), *range(len(known) - edge, len(known))]
    return known[np.unique(np.concatenate([between, ends]).clip(0, len(known) - 1))]
