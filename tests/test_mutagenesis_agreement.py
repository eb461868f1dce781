"""Whether engines agree: output by output, and beside a float64 network where rounding decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.mutagenesis import Block, Delta, Engine, Full, choose_engine
from kipoi_deepmr.mutagenesis.agreement import SPREAD, compare
from kipoi_deepmr.mutagenesis.delta.program import DeltaProgram
from tests import toy_models
from tests.test_mutagenesis_full import LENGTH, assert_equal_to_loop, make, make_codes, make_layout, plain_loop


class Convolved(nn.Module):
    """A convolution with a dropout, `end` behind it, and a linear head."""

    def __init__(self, end: nn.Module | None = None, features: int = 8 * LENGTH) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(4, 8, 5, padding=2)
        self.dropout = nn.Dropout(0.2)
        self.end = end or nn.Flatten()
        self.head = nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.dropout(torch.relu(self.convolution(x)))))


def made(network: nn.Module, sequences: int = 2, **options):
    engine, block = make(network, make_codes(sequences), make_layout(), **options)
    return replace(engine.request, batch_size=None), block, engine


class CountsAndProbability(nn.Module):
    """One output between 0 and 1, one in the ten thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Convolved()

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x)
        return torch.cat([torch.sigmoid(y[:, :1]), 50_000 * y[:, 1:]], 1)


def test_a_small_output_has_to_agree_beside_a_large_one(monkeypatch, caplog):
    torch.manual_seed(1)
    request, block, _ = made(CountsAndProbability(), columns=[0, 1])
    original = DeltaProgram.after

    def wrong(self, *args):
        predicted = original(self, *args).clone()
        predicted[:, 0] += 0.01
        return predicted

    assert compare(Delta(request), block, range(LENGTH)).agrees
    monkeypatch.setattr(DeltaProgram, "after", wrong)
    found = compare(Delta(request), block, range(LENGTH))
    assert (found.agrees, found.worst) == (False, 0)
    assert found.relative < 1e-4
    assert choose_engine("delta", block, range(LENGTH), [request]).name == "full"
    assert "differs from the full one by 0.01 in output 0" in caplog.text


class Coarse(Convolved):
    """Rounds to multiples of `grid`, unless it is float64."""

    grid = 1e-3

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.round(y / self.grid) * self.grid if y.dtype == torch.float32 else y


@pytest.mark.parametrize(("off", "agrees"), [(0.4, True), (2.0, False)])
def test_rounding_that_the_full_engine_has_too_is_no_disagreement(off, agrees, monkeypatch):
    torch.manual_seed(2)
    request, block, _ = made(Coarse())
    original = DeltaProgram.after
    monkeypatch.setattr(DeltaProgram, "after", lambda self, *args: original(self, *args) + off * Coarse.grid)
    found = compare(Delta(request), block, range(LENGTH))
    # By the rounding of the predictions alone it would always be one.
    assert (found.difference > 2 * np.maximum(1e-5 * found.effect, 8 * 1.2e-7 * found.prediction)).all()
    assert found.agrees == agrees


@pytest.mark.parametrize(("off", "agrees"), [(2e-6, True), (5e-5, False), (2e-4, False)])
def test_engines_agree_within_a_hundred_thousandth_of_the_largest_effect(off, agrees, monkeypatch):
    torch.manual_seed(1)
    request, block, _ = made(Convolved())
    exact = compare(Delta(request), block, range(LENGTH))
    assert exact.relative < 2e-6
    original = DeltaProgram.after
    wrong = torch.from_numpy(off * exact.effect).float()
    monkeypatch.setattr(DeltaProgram, "after", lambda self, *args: original(self, *args) + wrong)
    found = compare(Delta(request), block, range(LENGTH))
    np.testing.assert_allclose(found.difference, off * exact.effect, rtol=0, atol=2e-6 * exact.effect.max())
    assert found.agrees == agrees
    assert choose_engine("delta", block, range(LENGTH), [request]).name == ("delta" if agrees else "full")


@pytest.mark.parametrize(("positions", "spread"), [(range(LENGTH), SPREAD), (range(LENGTH), 3), (range(7, 8), SPREAD)])
def test_a_block_of_unknown_bases_has_nothing_to_compare(positions, spread):
    request, block, _ = made(Convolved())
    unknown = Block(block.names, np.full_like(block.codes, -1), block.sequence)
    found = compare(Delta(request), unknown, positions, spread=spread)
    assert found.agrees
    assert found.relative is None


class Interacting(nn.Module):
    """Sums of channels against a weight, as einsum takes them: as one row, the batch is another axis of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bcl,ck->bkl", x, self.weight).mean(-1)


class Squeezed(nn.Module):
    """Flattens after dropping all axes of length 1, that of a single sequence too."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None].squeeze().reshape(-1, 8 * LENGTH)


@pytest.mark.parametrize(
    "network",
    [
        Convolved(Interacting(), 5),
        Convolved(Squeezed()),
        Convolved(nn.Sequential(nn.InstanceNorm1d(8), nn.Flatten())),
    ],
    ids=["einsum", "squeeze", "instance norm"],
)
@pytest.mark.parametrize("batch_size", [3, 9, None])
def test_networks_that_drop_or_join_axes_are_traced_with_two_rows(network, batch_size, caplog):
    torch.manual_seed(3)
    request, block, full = made(network)
    engine = choose_engine("delta", block, range(LENGTH), [replace(request, batch_size=batch_size)])
    assert engine.name == "delta"
    assert not caplog.records
    assert engine.coverage.share > 0.5
    assert_equal_to_loop(
        engine.run(block, range(LENGTH)), *plain_loop(full, block, make_layout(), range(LENGTH)), full.request.exposures
    )


class BatchStatistics(Convolved):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y.mean(0)


class Noisy(Convolved):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01 * torch.randn(())


@pytest.mark.parametrize(
    ("network", "reason"), [(BatchStatistics, "depends on its batch"), (Noisy, "from call to call")]
)
@pytest.mark.parametrize("wanted", ["auto", "full"])
def test_predictions_that_are_not_of_their_sequence_are_refused(network, reason, wanted):
    request, block, _ = made(network())
    with pytest.raises(ModelError, match=reason):
        choose_engine(wanted, block, range(LENGTH), [request])


@pytest.mark.parametrize("fault", ["nan", "error"])
def test_mutants_on_which_the_local_engine_fails_run_in_full(fault, monkeypatch, caplog):
    torch.manual_seed(4)
    request, block, full = made(Convolved(), batch_size=9, keep_draws=True)
    engine = choose_engine("delta", block, range(LENGTH), [replace(request, batch_size=9)])
    original, calls = DeltaProgram.after, []

    def failing(self, *args):
        calls.append(self)
        predicted = original(self, *args)
        if len(calls) % 4 == 2 and fault == "error":
            raise ValueError("no such window")
        return predicted * float("nan") if len(calls) % 4 == 2 else predicted

    monkeypatch.setattr(DeltaProgram, "after", failing)
    done = []
    found, expected = engine.run(block, range(LENGTH), done.append), full.run(block, range(LENGTH))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.kept, expected.kept, rtol=0, atol=1e-6)
    assert sum(done) == 3 * (block.codes >= 0).sum()
    reason = "no number" if fault == "nan" else "ValueError: no such window"
    assert caplog.text.count(f"the delta engine fails on some mutants ({reason})") == 1


class FirstOfTwo(nn.Module):
    """Takes the second output of an operation."""

    def forward(self, x: Tensor) -> Tensor:
        return x.topk(2, 1).indices.float().flatten(1) + x.topk(2, 1).values.flatten(1)


def test_the_other_outputs_of_an_operation_are_not_taken_for_the_first(caplog):
    torch.manual_seed(5)
    request, block, full = made(Convolved(FirstOfTwo(), 2 * LENGTH))
    engine = choose_engine("delta", block, range(LENGTH), [request])
    assert engine.name == "delta"
    assert engine.coverage.stopped_at[0] == "aten.topk.default (several outputs are used)"
    assert_equal_to_loop(
        engine.run(block, range(LENGTH)), *plain_loop(full, block, make_layout(), range(LENGTH)), full.request.exposures
    )


class ThenRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 64, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(1, 2))[0].mean(1)


def test_coverage_counts_the_products_of_recurrent_layers_and_attention():
    request, block, _ = made(Convolved(ThenRecurrent(), 128))
    local = Delta(request)
    local.double()
    local.prepare(block)
    convolution, recurrent = 8 * 4 * 5 * LENGTH, 2 * LENGTH * 4 * 64 * (8 + 64)
    assert local.coverage.share == pytest.approx(convolution / (convolution + recurrent + 4 * 128), rel=0.05)


@pytest.mark.parametrize("strategy", [Full, Delta])
def test_float64_networks_keep_effects_that_float32_would_lose(strategy):
    torch.manual_seed(6)

    class Offset(Convolved):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 + 1e-4 * super().forward(x)

    request, block, _ = made(Offset())
    assert np.nanmax(np.abs(Engine(strategy(request)).run(block, range(LENGTH)).mean)) == 0
    request.predictor.double()
    double = Block(block.names, block.codes, block.sequence.double())
    effects = np.abs(Engine(strategy(request)).run(double, range(LENGTH)).mean)
    assert 1e-6 < np.nanmedian(effects) < 1e-4


def test_references_of_many_sequences_stay_in_the_bound():
    request, block, _ = made(toy_models.ConvNet(LENGTH, 4), sequences=40)
    counts = []
    for memory in (2**16, 2**20, 2**27):
        local = Delta(replace(request, memory=memory))
        local.prepare(block)
        counts.append(local.sequences_at_once(1))
        assert local._most_sequences <= max(1, memory // 2 // 1000)
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]
