"""The delta engine against the full engine, on random networks of everything that it follows."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kipoi_deepmr.mutagenesis import Delta, Engine, Full, choose_engine
from kipoi_deepmr.mutagenesis.delta.needs import Sliding
from tests import toy_models
from tests.test_mutagenesis_full import (
    LAYOUTS,
    LENGTH,
    DataDependent,
    Relayout,
    delta_of,
    make,
    make_codes,
    make_layout,
    plain_loop,
)

ACTIVATIONS = {
    "relu": F.relu,
    "threshold": lambda x: F.threshold(x, 0, 1e-6),
    "gelu": F.gelu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "exp": lambda x: torch.exp(0.3 * x),
    "leaky": F.leaky_relu,
    "softplus": F.softplus,
    "identity": lambda x: x,
}


class Layer(nn.Module):
    """One block of a random network, described by a dict."""

    def __init__(self, channels: int, spec: dict) -> None:
        super().__init__()
        self.spec = spec
        kind = spec["kind"]
        if kind in ("conv", "residual"):
            padding = spec["dilation"] * (spec["kernel"] - 1) // 2 if kind == "residual" else spec["padding"]
            kernel = spec["kernel"] | 1 if kind == "residual" else spec["kernel"]
            padding = spec["dilation"] * (kernel - 1) // 2 if kind == "residual" else padding
            self.conv = nn.Conv1d(
                channels,
                channels,
                kernel,
                stride=1 if kind == "residual" else spec["stride"],
                padding=padding,
                dilation=spec["dilation"],
                groups=spec["groups"],
            )
        self.norm = nn.BatchNorm1d(channels)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.dropout = (nn.Dropout if spec["elementwise"] else nn.Dropout1d)(spec["p"])

    def forward(self, x: Tensor) -> Tensor:
        spec, act = self.spec, ACTIVATIONS[self.spec["activation"]]
        if spec["kind"] == "conv" and x.shape[-1] + 2 * spec["padding"] > spec["dilation"] * (spec["kernel"] - 1):
            x = act(self.conv(x))
        elif spec["kind"] == "residual":
            x = x + act(self.conv(x))
        elif spec["kind"] == "max" and x.shape[-1] >= spec["kernel"]:
            x = F.max_pool1d(x, spec["kernel"], spec["stride"], min(spec["padding"], spec["kernel"] // 2))
        elif spec["kind"] == "average" and x.shape[-1] >= spec["kernel"]:
            pad = min(spec["padding"], spec["kernel"] // 2)
            x = F.avg_pool1d(x, spec["kernel"], spec["stride"], pad, count_include_pad=spec["groups"] == 1)
        elif spec["kind"] == "norm":
            x = act(self.norm(x))
        elif spec["kind"] == "gate":
            x = torch.sigmoid(x) * torch.tanh(self.norm(x))
        elif spec["kind"] == "crop" and x.shape[-1] > 6:
            x = x[:, :, 2:-1]
        elif spec["kind"] == "cat":
            half = x.shape[1] // 2
            x = torch.cat([x[:, half:], act(x[:, :half])], 1)
        return self.dropout(x) if spec["p"] else x


class RandomNetwork(nn.Module):
    """Convolution, random layers, and one of several heads; optionally on both strands."""

    def __init__(self, layers: list[dict], head: str, both_strands: bool, length: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3, padding=1)
        self.layers = nn.ModuleList(Layer(4, spec) for spec in layers)
        self.head, self.both_strands = head, both_strands
        self.dropout = nn.Dropout(0.2)
        with torch.no_grad():
            size = self._trunk(torch.zeros(2, 4, length)).shape[1]
        self.last = nn.Linear(size, 3)

    def _trunk(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        if self.head == "mean":
            return x.mean(-1)
        if self.head == "max":
            return x.amax(-1)
        if self.head == "adaptive":
            return F.adaptive_avg_pool1d(x, 1).squeeze(-1)
        return (x.transpose(1, 2) if self.head == "last" else x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.both_strands:
            x = torch.cat([x, x.flip((1, 2))])
        x = torch.sigmoid(self.last(self.dropout(self._trunk(x))))
        return (x[: len(x) // 2] + x[len(x) // 2 :]) / 2 if self.both_strands else x


layer_specs = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["conv", "conv", "residual", "max", "average", "norm", "gate", "crop", "cat"]),
        "kernel": st.integers(1, 5),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 3),
        "dilation": st.integers(1, 3),
        "groups": st.sampled_from([1, 2]),
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "p": st.sampled_from([0.0, 0.0, 0.3]),
        "elementwise": st.booleans(),
    }
)


def assert_same_effects(local, full) -> None:
    for name in ("mean", "squares", "cross", "reference_mean", "reference_squares"):
        ours, theirs = getattr(local, name), getattr(full, name)
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    largest = np.nanmax(np.abs(full.mean))
    # Predictions lie in (0, 1): their float32 rounding is the floor of any agreement.
    floor = 8 * np.finfo(np.float32).eps
    np.testing.assert_allclose(local.mean, full.mean, rtol=0, atol=max(1e-5 * largest, floor))
    np.testing.assert_allclose(
        np.sqrt(local.squares), np.sqrt(full.squares), rtol=0, atol=max(1e-5 * largest, floor) * np.sqrt(full.draws)
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    layers=st.lists(layer_specs, min_size=1, max_size=4),
    head=st.sampled_from(["flat", "last", "mean", "max", "adaptive"]),
    both_strands=st.booleans(),
    seed=st.integers(0, 1000),
    window=st.sampled_from([(0, LENGTH), (0, 5), (LENGTH - 5, LENGTH), (7, 15)]),
)
def test_random_networks(layers, head, both_strands, seed, window):
    torch.manual_seed(seed)
    network = RandomNetwork(layers, head, both_strands, LENGTH)
    codes = make_codes(2, seed)
    full, block = make(network, codes, make_layout(), count=2)
    local = delta_of(full, batch_size=27)
    assert_same_effects(local.run(block, range(*window)), full.run(block, range(*window)))
    assert local.coverage.stopped_at == ()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout(layout):
    torch.manual_seed(1)
    full, block = make(Relayout(toy_models.ConvNet(LENGTH, 4), layout), make_codes(3), layout)
    local = delta_of(full)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))


class Dummy(nn.Module):
    """Conv2d over a dummy axis and, in its first layer, over the alphabet."""

    def __init__(self, over_alphabet: bool) -> None:
        super().__init__()
        self.over_alphabet = over_alphabet
        self.first = nn.Conv2d(1, 5, (4, 5)) if over_alphabet else nn.Conv2d(4, 5, (1, 5))
        self.second = nn.Conv2d(5, 6, (1, 3), padding=(0, 1), stride=(1, 2))
        self.last = nn.Linear(6 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None] if self.over_alphabet else x[:, :, None]
        x = F.dropout(F.max_pool2d(F.relu(self.first(x)), (1, 2)), 0.3)
        return self.last(F.relu(self.second(x)).flatten(1))


@pytest.mark.parametrize("over_alphabet", [False, True])
def test_convolutions_with_a_dummy_axis_and_over_the_alphabet(over_alphabet):
    torch.manual_seed(2)
    full, block = make(Dummy(over_alphabet), make_codes(2), make_layout())
    local = delta_of(full)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))
    assert local.coverage.share == 1


def test_a_second_input_and_shared_prefix():
    torch.manual_seed(3)
    layout = make_layout(key=0)
    full, block = make(toy_models.TwoInputs(LENGTH, 4), make_codes(3), layout, others=(torch.rand(3, LENGTH),))
    local = delta_of(full)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))


class Interrupted(nn.Module):
    """An operation without a rule between layers that have one."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.first, self.operation = nn.Conv1d(4, 6, 3, padding=1), operation
        self.second, self.last = nn.Conv1d(6, 6, 3, padding=1), nn.Linear(6 * LENGTH, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.first(x)))
        return torch.sigmoid(self.last(F.relu(self.second(self.operation(x))).flatten(1)))


class Central(nn.Module):
    """Dilated convolutions of which only the middle is read, as a profile or a splice site is."""

    def __init__(self, strands: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 5, 3, padding=1)
        self.dilated = nn.ModuleList(nn.Conv1d(5, 5, 3, padding=d, dilation=d) for d in (1, 2, 4, 8))
        self.last = nn.Linear(5 * 2, 3)
        self.strands = strands

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, x.flip((1, 2))]) if self.strands else x
        x = F.dropout(torch.relu(self.first(x)), 0.2)
        for layer in self.dilated:
            x = x + torch.relu(layer(x))
        x = torch.sigmoid(self.last(x[:, :, LENGTH // 2 - 1 : LENGTH // 2 + 1].flatten(1)))
        return x[: len(x) // 2] + x[len(x) // 2 :] if self.strands else x


@pytest.mark.parametrize("strands", [False, True])
def test_only_what_the_outputs_depend_on_is_computed(strands):
    torch.manual_seed(7)
    full, block = make(Central(strands), make_codes(2), make_layout())
    local = delta_of(full)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))
    plan = next(iter(local.strategy._programs.values()))._plan
    widths = [one.state.window.width for one in plan.followed.values() if isinstance(one.needs, Sliding)]
    # The last of them could change at all 24 positions and is read at two.
    assert widths == [3, 5, 9, 17, 2]


class Chosen(nn.Module):
    """Reads one position, one channel or a summary of the channels."""

    def __init__(self, choose) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 6, 5, padding=2)
        self.choose, self.activation = choose, nn.PReLU(6)
        with torch.no_grad():
            self.last = nn.Linear(choose(torch.zeros(2, 6, LENGTH)).flatten(1).shape[1], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.activation(self.first(x)), 0.3)
        return torch.sigmoid(self.last(self.choose(self.second(x)).flatten(1)))


CHOICES = {
    "a position": lambda x: x[:, :, LENGTH // 2],
    "the last position": lambda x: x[:, :, -1],
    "a channel": lambda x: x[:, 2],
    "a dummy axis": lambda x: x[:, :, None][:, :, 0],
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: x.transpose(1, 2).log_softmax(-1),
    "mean": lambda x: x.mean(1),
    "sum, kept": lambda x: x.sum(1, keepdim=True),
    "maximum": lambda x: torch.relu(x).amax(1),
    "logsumexp": lambda x: x.logsumexp(1),
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_choices_and_summaries_of_channels(choose):
    torch.manual_seed(12)
    full, block = make(Chosen(choose), make_codes(2), make_layout(), columns=[2, 0])
    local = delta_of(full, batch_size=15)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))
    assert local.coverage.stopped_at == ()
    assert local.coverage.share > 0.99  # the linear layer after the choice is none of a window


UNSUPPORTED = {
    "softmax over positions": lambda x: x.softmax(-1),
    "roll": lambda x: x.roll(1, -1),
    "cumsum": lambda x: x.cumsum(-1) / LENGTH,
    "sort": lambda x: x.sort(-1).values,
    "attention": lambda x: (x.transpose(1, 2) @ x).softmax(-1) @ x.transpose(1, 2) @ x,
    "mean over positions, kept": lambda x: x * x.mean(-1, keepdim=True),
}


@pytest.mark.parametrize("operation", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_from_an_unknown_operation_on_the_network_runs_whole(operation, caplog):
    torch.manual_seed(4)
    if operation is UNSUPPORTED["attention"]:
        operation = lambda x: ((x.transpose(1, 2) @ x).softmax(-1) @ x.transpose(1, 2)).transpose(1, 2)  # noqa: E731
    full, block = make(Interrupted(operation), make_codes(2), make_layout(), columns=[2, 0])
    local = delta_of(full)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))
    assert local.coverage.stopped_at
    assert 0 < local.coverage.share < 0.5
    with caplog.at_level(logging.INFO):
        request = replace(full.request, count=2, batch_size=None)
        assert choose_engine("delta", block, range(LENGTH), [request]).name == "delta"
    assert sum("runs whole from" in line for line in caplog.messages) == len(local.coverage.stopped_at)


def test_a_network_without_a_graph_gets_the_full_engine(caplog):
    full, block = make(DataDependent(), make_codes(2), make_layout())
    request = replace(full.request, count=2, batch_size=None)
    with caplog.at_level(logging.WARNING):
        assert choose_engine("auto", block, range(LENGTH), [request]).name == "full"
    assert "the delta engine is not available" in caplog.text


def test_a_wrong_window_is_noticed_and_the_full_engine_runs(monkeypatch, caplog):
    torch.manual_seed(5)
    full, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(2), make_layout())
    original = Delta.predict

    def wrong(self, block, chunk):
        predict = original(self, block, chunk)
        return lambda draw: predict(draw) + 1e-3 * (chunk.position == LENGTH - 1)[:, None]

    monkeypatch.setattr(Delta, "predict", wrong)
    request = replace(full.request, count=2, batch_size=None)
    with caplog.at_level(logging.WARNING):
        engine = choose_engine("auto", block, range(LENGTH), [request])
    assert type(engine.strategy) is Full
    assert "differs from the full one" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_the_batch_size_does_not_matter(batch_size):
    torch.manual_seed(6)
    network = toy_models.ReverseComplementStack(toy_models.ConvNet(LENGTH, 4))
    full, block = make(network, make_codes(2), make_layout(), scale="logit")
    local = delta_of(full, batch_size=batch_size)
    ours, theirs = local.run(block, range(LENGTH)), full.run(block, range(LENGTH))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=0, atol=1e-5 * np.nanmax(np.abs(theirs.mean)) + 4e-6)


@pytest.mark.parametrize("recurrent", [False, True])
def test_sequences_share_a_batch_each_with_its_own_masks(recurrent):
    torch.manual_seed(6)
    codes = make_codes(5)
    codes[1, 3:9] = codes[4, :2] = -1
    codes[2] = -1
    network = Recurrent(nn.GRU) if recurrent else toy_models.ReverseComplementStack(toy_models.ConvNet(LENGTH, 4))
    full, block = make(network, codes, make_layout(), others=())
    local = delta_of(full, batch_size=3 * 2 * LENGTH)
    assert_same_effects(local.run(block, range(LENGTH)), full.run(block, range(LENGTH)))
    assert {rows for rows, mode in local.strategy._graphs if mode == "real"} == {1, 2}
    assert local.strategy.sequences_at_once(LENGTH) == 2


class Recurrent(nn.Module):
    """A convolution and a recurrent layer, as in DanQ."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 3, padding=1)
        self.recurrent = kind(6, 4, batch_first=True, bidirectional=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(torch.relu(self.first(x)), 0.3)
        return torch.sigmoid(self.last(self.recurrent(x.transpose(1, 2))[0].mean(1)))


class UsedLater(nn.Module):
    """A dropout reads a tensor before an operation that all draws share does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6 * LENGTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        dropped = F.dropout(x, 0.3)
        return torch.sigmoid(self.last((dropped + torch.relu(x)).flatten(1)))


class CroppedFlat(nn.Module):
    """A crop before flattening: most mutations reach nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.last(F.dropout(self.first(x)[:, :, 8:16], 0.3).flatten(1)))


class GlobalMax(nn.Module):
    """The usual global max pooling, by ``max(-1)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.last(F.dropout(self.first(x), 0.3).max(-1).values))


class Squeezing(nn.Module):
    """Excites channels by their mean (an SE block), and squeezes all axes of length 1 at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6, 6), nn.Conv1d(6, 3, LENGTH)
        self.activation = nn.PReLU(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.activation(self.first(x)), 0.3)
        x = x * torch.sigmoid(self.gate(x.mean(-1)))[:, :, None]
        return torch.sigmoid(self.last(x)).squeeze()


class PerPosition(nn.Module):
    """Linear layers and normalisation at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.second, self.last = nn.Linear(6, 5), nn.Linear(5 * LENGTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.dropout(torch.relu(self.first(x.transpose(1, 2))), 0.3))
        return torch.sigmoid(self.last(torch.relu(self.second(x)).flatten(1)))


PLAUSIBLE = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
    "used later": UsedLater,
    "cropped": CroppedFlat,
    "global max": GlobalMax,
    "squeeze and excite": Squeezing,
    "per position": PerPosition,
}


@pytest.mark.parametrize("engine", ["full", "auto"])
@pytest.mark.parametrize("network", PLAUSIBLE.values(), ids=PLAUSIBLE)
def test_networks_that_users_have_equal_the_plain_loop(network, engine):
    torch.manual_seed(8)
    layout = make_layout()
    made, block = make(network(), make_codes(2, unknown=False), layout, count=2)
    request = replace(made.request, count=2, batch_size=None)
    if engine == "auto":
        made = choose_engine("delta", block, range(LENGTH), [request])
    loop, reference = plain_loop(made, block, layout, range(LENGTH))
    ours = made.run(block, range(LENGTH))
    largest = np.nanmax(np.abs(loop))
    np.testing.assert_allclose(ours.mean, loop.mean(3), rtol=0, atol=max(1e-5 * largest, 1e-6))
    np.testing.assert_allclose(np.sqrt(ours.squares / 2), loop.std(3), rtol=0, atol=max(1e-5 * largest, 1e-6))
    np.testing.assert_allclose(ours.reference_mean, reference.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", [Full, Delta])
def test_a_mutation_that_reaches_nothing_has_an_effect_and_error_of_exactly_zero(strategy):
    torch.manual_seed(9)
    made, block = make(CroppedFlat(), make_codes(2, unknown=False), make_layout(), batch_size=10)
    run = Engine(strategy(replace(made.request, batch_size=12))).run(block, range(LENGTH))
    outside = [p for p in range(LENGTH) if not 7 <= p < 17]
    assert np.nanmax(np.abs(run.mean[:, outside])) == 0
    assert np.nanmax(run.squares[:, outside]) == 0
    assert (np.nan_to_num(run.squares[:, 7:17], nan=1.0) > 0).all()


def test_a_block_without_mutants_gets_an_engine():
    made, block = make(CroppedFlat(), np.full((1, LENGTH), -1, dtype=np.int8), make_layout())
    request = replace(made.request, count=2, batch_size=None)
    assert np.isnan(choose_engine("auto", block, range(LENGTH), [request]).run(block, range(LENGTH)).mean).all()


def test_a_step_that_fails_when_it_runs_leaves_the_full_engine(monkeypatch, caplog):
    def broken(self, block, chunk):
        raise ValueError("a rule that does not fit")

    monkeypatch.setattr(Delta, "predict", broken)
    made, block = make(CroppedFlat(), make_codes(1), make_layout())
    request = replace(made.request, count=2, batch_size=None)
    with caplog.at_level(logging.WARNING):
        assert type(choose_engine("auto", block, range(LENGTH), [request]).strategy) is Full
    assert "a rule that does not fit" in caplog.text


@pytest.mark.parametrize("scale", ["identity", "logit", "log"])
def test_the_comparison_judges_predictions_on_any_scale(scale, monkeypatch):
    torch.manual_seed(10)
    made, block = make(toy_models.ConvNet(LENGTH, 4), make_codes(1), make_layout())
    original = Delta.predict

    def wrong(self, block, chunk):
        predict = original(self, block, chunk)
        return lambda draw: predict(draw) * 1.01

    monkeypatch.setattr(Delta, "predict", wrong)
    request = replace(made.request, count=2, batch_size=None)
    assert type(choose_engine("delta", block, range(LENGTH), [replace(request, scale=scale)]).strategy) is Full
