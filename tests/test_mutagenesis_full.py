"""The full engine against a plain loop over mutants and draws."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.model import Layout, SequenceNetwork
from kipoi_deepmr.mutagenesis import Block, BlockMoments, Delta, Engine, Full, Request
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork, find_dropouts
from tests import toy_models

LENGTH = 24
CPU = torch.device("cpu")


def make_layout(shape=(4, LENGTH), alphabet_axis=0, position_axis=1, alphabet="ACGT", key=None) -> Layout:
    return Layout(key, alphabet_axis, position_axis, alphabet, shape, np.dtype(np.float32))


def make_codes(count: int, seed: int = 0, unknown: bool = True) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(0, 4, (count, LENGTH)).astype(np.int8)
    if unknown:
        codes[0, 3] = -1
        codes[-1, [0, LENGTH - 1]] = -1
    return codes


def one_hot(codes: np.ndarray, layout: Layout) -> np.ndarray:
    canonical = np.where(codes[..., None] < 0, 0.25, np.eye(4)[codes])
    in_order = np.empty_like(canonical)
    in_order[..., layout.allele_rows] = canonical
    axes = (layout.position_axis + 1, layout.alphabet_axis + 1)
    extra = tuple(axis for axis in range(1, len(layout.shape) + 1) if axis not in axes)
    full = np.moveaxis(in_order.reshape(in_order.shape + (1,) * len(extra)), (1, 2), axes)
    assert full.shape[1:] == layout.shape
    return full.astype(np.float32)


def make(network: nn.Module, codes: np.ndarray, layout: Layout, others=(), **engine_options):
    wrapped = SequenceNetwork(network.eval(), layout, tuple(range(1, len(others) + 1)), False)
    references = torch.from_numpy(one_hot(codes, layout))
    sites = find_dropouts(wrapped, references[:1], [other[:1] for other in others])
    draws = MCDropout(sites, seed=7, device=CPU)
    names = [f"chr1:{100 * i}-{100 * i + LENGTH}(+)" for i in range(len(codes))]
    defaults = {"count": 3, "columns": [2, 0], "exposures": 1}
    engine = Engine(Full(Request(wrapped, draws, **{**defaults, **engine_options})))
    return engine, Block(names, codes, references, tuple(others))


def delta_of(engine: Engine, **changes) -> Engine:
    """Return the delta engine on the network of a full one, its batch size found by itself."""
    return Engine(Delta(replace(engine.request, **{"batch_size": None, **changes})))


def plain_loop(engine: Engine, block: Block, layout: Layout, positions: range):
    """Mutants one at a time, draws one at a time, every draw kept: (sequence, position, allele, draw, column)."""
    asked = engine.request
    out = np.full((len(block.names), len(positions), 4, asked.count, len(asked.columns)), np.nan)
    reference = np.empty((len(block.names), asked.count, len(asked.columns)))
    transform = {"identity": lambda p: p, "logit": lambda p: np.log(p / (1 - p)), "log": np.log}[asked.scale]
    for s, name in enumerate(block.names):
        for n in range(asked.count):
            thinned = ThinnedNetwork(asked.predictor, asked.draws.masks([name], n).rows(None))

            def predict(codes, s=s, thinned=thinned):
                x = torch.from_numpy(one_hot(codes[None], layout))
                with torch.no_grad():
                    # Twice the same row: networks that squeeze all axes need two.
                    y = thinned(x.repeat(2, *[1] * (x.ndim - 1)), *[other[[s, s]] for other in block.others])
                return transform(y[0, asked.columns].double().numpy())

            reference[s, n] = predict(block.codes[s])
            for i, p in enumerate(positions):
                for a in range(4):
                    if block.codes[s, p] in (a, -1):
                        continue
                    mutant = block.codes[s].copy()
                    mutant[p] = a
                    out[s, i, a, n] = predict(mutant) - reference[s, n]
    return out, reference


def assert_equal_to_loop(moments: BlockMoments, loop: np.ndarray, reference: np.ndarray, exposures: int) -> None:
    n = loop.shape[3]
    largest = np.nanmax(np.abs(loop))
    assert largest > 0
    mean = loop.mean(3)
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(moments.squares / n, loop.var(3), rtol=0, atol=1e-5 * largest**2 * 4)
    centred = loop - mean[..., None, :]
    cross = np.einsum("spane,spano->spaeo", centred[..., :exposures], centred[..., exposures:]) / n
    np.testing.assert_allclose(moments.cross / n, cross, rtol=0, atol=1e-5 * largest**2 * 4)
    np.testing.assert_allclose(moments.reference_mean, reference.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.reference_squares / n, reference.var(1), rtol=1e-4, atol=1e-6)


LAYOUTS = {
    "alphabet first": make_layout(),
    "position first": make_layout((LENGTH, 4), 1, 0),
    "dummy axis": make_layout((4, 1, LENGTH), 0, 2),
    "other order": make_layout((4, LENGTH), alphabet="AGCT"),
    "trailing dummy": make_layout((LENGTH, 4, 1), 1, 0, "TGCA"),
}


class Relayout(nn.Module):
    """Brings any layout to (batch, 4, length) in ACGT for the toy networks."""

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.network = network
        self.axes = (layout.alphabet_axis + 1, layout.position_axis + 1)
        self.rows = layout.allele_rows.tolist()

    def forward(self, x: Tensor) -> Tensor:
        canonical = x.movedim(self.axes, (1, 2))
        return self.network(canonical.reshape(*canonical.shape[:3])[:, self.rows])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("toy", [toy_models.Linear, toy_models.ConvNet])
def test_every_layout_equals_the_plain_loop(layout, toy):
    torch.manual_seed(1)
    engine, block = make(Relayout(toy(LENGTH, 4), layout), make_codes(3), layout)
    moments = engine.run(block, range(LENGTH))
    assert_equal_to_loop(moments, *plain_loop(engine, block, layout, range(LENGTH)), 1)


@pytest.mark.parametrize("scale", ["identity", "logit", "log"])
def test_stacked_reverse_complements_share_their_masks(scale):
    torch.manual_seed(2)
    layout = make_layout()
    network = toy_models.ReverseComplementStack(toy_models.ConvNet(LENGTH, 5))
    engine, block = make(network, make_codes(2), layout, columns=[4, 1, 0], exposures=2, scale=scale)
    assert {site.stack for site in engine.request.draws.sites} == {2}
    moments = engine.run(block, range(5, 17))
    assert moments.mean.shape == (2, 12, 4, 3)
    assert_equal_to_loop(moments, *plain_loop(engine, block, layout, range(5, 17)), 2)


def test_a_second_input_stays_with_its_sequence():
    torch.manual_seed(3)
    layout = make_layout(key=0)
    track = torch.rand(3, LENGTH)
    engine, block = make(toy_models.TwoInputs(LENGTH, 4), make_codes(3), layout, others=(track,))
    assert_equal_to_loop(engine.run(block, range(LENGTH)), *plain_loop(engine, block, layout, range(LENGTH)), 1)


def test_a_marker_network_shows_every_position_and_base_in_its_place():
    layout = make_layout()
    codes = make_codes(2)
    engine, block = make(toy_models.Marker(LENGTH), codes, layout, columns=[0, 1])
    moments = engine.run(block, range(4, 20))
    _, reference = plain_loop(engine, block, layout, range(0))
    gain = reference.mean(1)[:, 0] / [engine_total(codes[0]), engine_total(codes[1])]
    expected = (np.arange(4)[None, None] - codes[:, 4:20, None]) * gain[:, None, None]
    expected[(codes[:, 4:20, None] == np.arange(4)) | (codes[:, 4:20, None] < 0)] = np.nan
    np.testing.assert_allclose(moments.mean[..., 0], expected, rtol=2e-4, atol=1e-3)
    np.testing.assert_allclose(moments.mean[..., 1], 2 * expected, rtol=2e-4, atol=2e-3)


def engine_total(codes: np.ndarray) -> float:
    known = codes >= 0
    positions = np.arange(LENGTH)
    return float((10 * positions + codes)[known].sum() + (10 * positions + 1.5)[~known].sum())


@pytest.mark.parametrize("batch_size", [1, 5, 64, 1000])
def test_the_batch_size_does_not_matter(batch_size):
    torch.manual_seed(4)
    network, layout, codes = (
        toy_models.ReverseComplementStack(toy_models.ConvNet(LENGTH, 4)),
        make_layout(),
        make_codes(3),
    )
    engine, block = make(network, codes, layout)
    expected = engine.run(block, range(LENGTH))
    other, _ = make(network, codes, layout, batch_size=batch_size)
    given = other.run(block, range(LENGTH))
    largest = np.nanmax(np.abs(expected.mean))
    np.testing.assert_allclose(given.mean, expected.mean, rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(given.squares, expected.squares, rtol=0, atol=1e-5 * np.nanmax(expected.squares))


def test_a_sequence_does_not_depend_on_its_neighbours():
    torch.manual_seed(5)
    network, layout, codes = toy_models.ConvNet(LENGTH, 4), make_layout(), make_codes(3)
    engine, block = make(network, codes, layout)
    together = engine.run(block, range(LENGTH))
    alone = engine.run(Block(block.names[1:2], codes[1:2], block.sequence[1:2]), range(LENGTH))
    np.testing.assert_allclose(alone.mean[0], together.mean[1], rtol=0, atol=1e-6)
    assert not np.allclose(together.squares[0], together.squares[1], equal_nan=True)


class Unbatchable(nn.Module):
    """Interleaves strands on the batch axis, so that a mask per row would go to the wrong rows."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toy_models.ConvNet(LENGTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        both = self.network(torch.stack([x, x.flip((1, 2))], 1).flatten(0, 1))
        return both.unflatten(0, (-1, 2)).mean(1)


def test_interleaved_strands_are_noticed_and_batched_by_sequence():
    torch.manual_seed(6)
    layout = make_layout()
    engine, block = make(Unbatchable(), make_codes(3), layout, batch_size=50)
    moments = engine.run(block, range(LENGTH))
    assert engine.strategy.whole.mixes_sequences is False
    assert_equal_to_loop(moments, *plain_loop(engine, block, layout, range(LENGTH)), 1)


class DataDependent(nn.Module):
    """Asks for a value in Python, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toy_models.ConvNet(LENGTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) if x.sum().item() > 0 else x.sum((1, 2))[:, None].expand(-1, 4)


def test_a_network_without_a_graph_runs_whole(caplog):
    torch.manual_seed(7)
    layout = make_layout()
    engine, block = make(DataDependent(), make_codes(2), layout, batch_size=16)
    with caplog.at_level(logging.WARNING):
        moments = engine.run(block, range(LENGTH))
    assert "cannot be captured" in caplog.text
    assert_equal_to_loop(moments, *plain_loop(engine, block, layout, range(LENGTH)), 1)


def test_layers_before_the_first_dropout_run_once_for_all_draws():
    torch.manual_seed(8)
    network = toy_models.ConvNet(LENGTH, 4)
    calls = []
    original = torch.ops.aten.convolution.default

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is original:
                calls.append(len(args[0]))
            return func(*args, **(kwargs or {}))

    engine, block = make(network, make_codes(1, unknown=False), make_layout(), count=6, batch_size=3 * LENGTH)
    engine.run(block, range(LENGTH))
    calls.clear()
    with Count():
        engine.run(block, range(LENGTH))
    assert sum(size == 3 * LENGTH for size in calls) == 1


def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch, caplog):
    torch.manual_seed(9)
    network, layout, codes = toy_models.ConvNet(LENGTH, 4), make_layout(), make_codes(2)
    engine, block = make(network, codes, layout, batch_size=64)
    expected = engine.run(block, range(LENGTH))
    small, _ = make(network, codes, layout, batch_size=64)
    original = Engine._moments

    def limited(self, block, chunk, references, draws=None):
        if len(chunk) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, block, chunk, references)

    monkeypatch.setattr(Engine, "_moments", limited)
    with caplog.at_level(logging.WARNING):
        given = small.run(block, range(LENGTH))
    assert small.batch_size == 16
    assert "out of memory with 64 mutants in a batch: going on with 32" in caplog.text
    np.testing.assert_allclose(given.mean, expected.mean, rtol=0, atol=1e-6)

    def never(self, block, chunk, references, draws=None):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Engine, "_moments", never)
    with pytest.raises(ModelError, match="not even one mutant"):
        small.run(block, range(LENGTH))


class Poisoned(toy_models.Linear):
    """Returns NaN as soon as position 5 is a T."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.where(x[:, 3, 5] > 0.5, torch.nan, 0.0)[:, None]


def test_nan_from_the_model_names_sequence_position_and_allele():
    codes = make_codes(2, unknown=False)
    codes[:, 5] = 0
    engine, block = make(Poisoned(LENGTH, 4), codes, make_layout())
    with pytest.raises(PredictionError, match=r"chr1:0-24\(\+\), position 5 mutated to T, output 2"):
        engine.run(block, range(LENGTH))
    codes[1, 5] = 3
    engine, block = make(Poisoned(LENGTH, 4), codes, make_layout())
    with pytest.raises(PredictionError, match=r"reference chr1:100-124\(\+\)"):
        engine.run(block, range(LENGTH))


def test_a_scale_that_does_not_fit_the_output_is_an_error():
    engine, block = make(toy_models.Marker(LENGTH), make_codes(1), make_layout(), columns=[0, 1], scale="logit")
    with pytest.raises(PredictionError, match="logit needs probabilities from 0 to 1"):
        engine.run(block, range(LENGTH))


def test_more_inputs_than_memory_never_exceed_the_batch_size():
    sizes = []

    engine, block = make(DataDependentWatch(sizes), make_codes(4), make_layout(), batch_size=10)
    engine.run(block, range(LENGTH))
    assert max(sizes) <= 10


class DataDependentWatch(DataDependent):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return super().forward(x)
