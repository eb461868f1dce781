"""The run over chunks, whatever predicts: which mutants are timed, and what a new source of draws has to be."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kipoi_deepmr.errors import PredictionError
from kipoi_deepmr.mutagenesis import Delta, Engine, Ensemble, Full, all_variants, choose_engine
from kipoi_deepmr.mutagenesis.blocks import Coverage
from kipoi_deepmr.mutagenesis.variants import Variants
from kipoi_deepmr.uncertainty import DrawMasks, Mask
from tests import toy_models
from tests.test_mutagenesis_full import LENGTH, delta_of, make, make_codes, make_layout


def timed_positions(engine: Engine, block, positions: range, monkeypatch) -> list[tuple[int, int]]:
    seen = []
    original = Engine._moments

    def moments(self, block, chunk, *rest):
        seen.append((int(chunk.position.min()), int(chunk.position.max())))
        return original(self, block, chunk, *rest)

    monkeypatch.setattr(Engine, "_moments", moments)
    seconds, mutants = engine.time(block, positions, 2)
    assert seconds > 0
    assert mutants == 2 * len(engine.middle_chunk(all_variants(block.codes, positions, block.sequence.device)))
    return seen


@pytest.mark.parametrize("strategy", [Full, Delta])
@pytest.mark.parametrize(
    ("positions", "middle"), [(range(LENGTH), (10, 13)), (range(4, 12), (6, 9)), (range(8, 10), (8, 9))]
)
def test_the_middle_of_the_positions_is_timed(strategy, positions, middle, monkeypatch):
    full, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(1, unknown=False), make_layout())
    engine = Engine(strategy(replace(full.request, batch_size=12)))
    # One batch to warm up, then those that count.
    assert timed_positions(engine, block, positions, monkeypatch) == [middle] * 3


def test_an_ensemble_is_timed_in_fewer_batches_after_every_member_has_run(monkeypatch):
    full, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(1, unknown=False), make_layout(), batch_size=12)
    engine = Engine(Ensemble([Full(full.request), Full(full.request)]))
    drawn = []
    original = Full.predict

    def predict(self, block, chunk):
        drawn.append(self)
        return original(self, block, chunk)

    monkeypatch.setattr(Full, "predict", predict)
    engine.time(block, range(LENGTH), 2)
    assert drawn == [*engine.strategy.members] * 2


class Fixed:
    """A strategy that predicts what it is told, batches of five, nothing captured: the smallest that can be written."""

    name, networks, fewest, whole_precision, batch_size = "fixed", 1, 1, "float32", 5
    coverage = Coverage(0.0, ())

    def __init__(self, request, values: torch.Tensor) -> None:
        self.request, self.values = request, values

    def prepare(self, block) -> None:
        pass

    def references(self, block) -> torch.Tensor:
        return torch.zeros(self.request.count, len(block.names), len(self.request.columns), dtype=torch.float64)

    def reference_rows(self, block) -> int:
        return len(block.names)

    def predict(self, block, chunk: Variants):
        return lambda draw: (draw + 1) * self.values[chunk.sequence, chunk.position, chunk.allele]

    def chunk_size(self, variants: Variants, start: int) -> int:
        return min(self.batch_size, len(variants) - start)

    def sequences_at_once(self, positions: int) -> int:
        return 1

    def substitute(self):
        return None


def test_the_run_needs_nothing_of_a_strategy_but_its_protocol():
    full, block = make(toy_models.Linear(LENGTH, 4), make_codes(2), make_layout())
    values = torch.randn(2, LENGTH, 4, 2, dtype=torch.float64)
    found = Engine(Fixed(full.request, values)).run(block, range(LENGTH))
    is_mutant = (block.codes[..., None] != np.arange(4)) & (block.codes[..., None] >= 0)
    np.testing.assert_allclose(found.mean[is_mutant], 2 * values.numpy()[is_mutant], rtol=1e-12)
    assert np.isnan(found.mean[~is_mutant]).all()


def test_an_error_of_a_strategy_without_substitute_is_that_of_the_run():
    full, block = make(toy_models.Linear(LENGTH, 4), make_codes(2), make_layout())
    values = torch.full((2, LENGTH, 4, 2), torch.nan, dtype=torch.float64)
    with pytest.raises(PredictionError, match="mutated to"):
        Engine(Fixed(full.request, values)).run(block, range(LENGTH))


@dataclass(frozen=True)
class Everywhere:
    """The site of a mask on the input."""

    batch_axis: int = 0
    stack: int = 1


class NoisyInput:
    """Draws of a network whose input is noisy: what a source of draws beside dropout has to be."""

    sites = (Everywhere(),)

    def masks(self, sequences, draw: int) -> DrawMasks:
        made = []
        for name in sequences:
            generator = np.random.default_rng([draw, *name.encode()])
            made.append(torch.from_numpy(1 + 0.3 * generator.standard_normal((1, 4, LENGTH))).float())
        return DrawMasks(self.sites, [torch.cat(made)], len(made), lambda site, noise: Mask(noise, None))

    def network(self, network, masks):
        return lambda sequence, *others: network(masks[0](sequence), *others)


@pytest.mark.parametrize("batch_size", [None, 9])
def test_another_source_of_draws_is_one_class(batch_size):
    torch.manual_seed(3)
    made, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(2), make_layout(), batch_size=batch_size)
    request = replace(made.request, draws=NoisyInput(), batch_size=batch_size)
    network, draws, columns = request.predictor, request.draws, request.columns
    expected = np.zeros((2, request.count, len(columns)))
    position = 12
    for s, name in enumerate(block.names):
        mutant = block.sequence[s : s + 1].clone()
        mutant[:, :, position] = torch.eye(4)[(block.codes[s, position] + 1) % 4]
        for n in range(request.count):
            of_draw = draws.network(network, draws.masks([name], n).rows(None))
            with torch.no_grad():
                moved = of_draw(mutant) - of_draw(block.sequence[s : s + 1])
            expected[s, n] = moved[0, columns].double()
    for strategy in (Full, Delta):
        moments = Engine(strategy(request)).run(block, range(LENGTH))
        for s in range(2):
            allele = (block.codes[s, position] + 1) % 4
            np.testing.assert_allclose(moments.mean[s, position, allele], expected[s].mean(0), atol=1e-6)
            np.testing.assert_allclose(moments.squares[s, position, allele] / 3, expected[s].var(0), atol=1e-7)
    assert choose_engine("delta", block, range(LENGTH), [request]).name == "delta"


def test_engines_of_one_network_capture_it_once():
    made, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(2), make_layout())
    delta = delta_of(made)
    delta.prepare(block)
    substitute = delta.strategy.substitute()
    assert substitute.whole is delta.strategy.whole
