"""Operations that networks have between their convolutions: followed locally to the end, and equal to the plain loop."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import toy_models
from tests.test_mutagenesis_full import (
    LENGTH,
    assert_equal_to_loop,
    delta_of,
    make,
    make_codes,
    make_layout,
    plain_loop,
)

CHANNELS = 6


class Between(nn.Module):
    """A convolution with ReLU, an operation with its modules, a dropout, and a linear head."""

    def __init__(self, operation, *modules: nn.Module) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(4, CHANNELS, 3, padding=1)
        with torch.no_grad():
            self.convolution.weight *= 2
        self.parts = nn.ModuleList(modules)
        self.operation = operation
        self.dropout = nn.Dropout(0.3)
        with torch.no_grad():
            features = self.changed(torch.zeros(2, 4, LENGTH)).shape[1]
        self.head = nn.Linear(features, 3, bias=False)

    def changed(self, x: Tensor) -> Tensor:
        return self.operation(torch.relu(self.convolution(x)), *self.parts).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.changed(x)))


def by_hand(x):
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()


def gate(x):
    value, open_ = x.chunk(2, 1)
    return value * torch.sigmoid(open_)


def shuffle(x):
    return x.reshape(len(x), 3, 2, -1).transpose(1, 2).reshape(len(x), CHANNELS, -1)


def convolution(*args, **kwargs):
    return nn.Conv1d(CHANNELS, CHANNELS, *args, **kwargs)


def activations(x):
    smooth = F.softsign(F.selu(x)) + F.logsigmoid(x) + F.mish(x) + F.celu(x) + F.tanhshrink(x) + F.softshrink(x, 0.1)
    return smooth + F.hardshrink(x, 0.1) + F.hardswish(x) + F.relu6(8 * x) + F.elu(x) + F.silu(x)


OPERATIONS = {
    "stack and unbind": lambda: Between(lambda x: torch.stack(x.unbind(1)[::-1], 1)),
    "stack as a last axis": lambda: Between(lambda x: torch.stack([x, 2 * x, x * x], -1)),
    "split": lambda: Between(lambda x: torch.cat([2 * part for part in x.split([2, 4], 1)][::-1], 1)),
    "chunks as a gate": lambda: Between(gate),
    "GLU": lambda: Between(lambda x: F.glu(x, 1)),
    "positions from the end": lambda: Between(lambda x: x.index_select(-1, torch.arange(LENGTH - 1, -1, -1))),
    "positions by index": lambda: Between(lambda x: x[:, :, torch.arange(3, 15)]),
    "linear at each position": lambda: Between(lambda x, linear: linear(x.transpose(1, 2)), nn.Linear(CHANNELS, 5)),
    "weight @ x": lambda: Between(lambda x, linear: linear.weight @ x, nn.Linear(CHANNELS, CHANNELS)),
    "LayerNorm": lambda: Between(lambda x, norm: norm(x.transpose(1, 2)), nn.LayerNorm(CHANNELS)),
    "LayerNorm by hand": lambda: Between(by_hand),
    "gate of one channel": lambda: Between(
        lambda x, one: x * torch.sigmoid(one(x)), nn.Conv1d(CHANNELS, 1, 3, padding=1)
    ),
    "where": lambda: Between(lambda x: torch.where(x > 0.3, x, 0.1 * x)),
    "masked fill": lambda: Between(lambda x: x.masked_fill(x < 0.2, 0.5)),
    "activations": lambda: Between(activations),
    "powers": lambda: Between(lambda x: torch.square(x) + x**3 + torch.pow(2.0, x) + torch.exp2(-x)),
    "lerp": lambda: Between(lambda x: torch.lerp(x, torch.tanh(x), 0.3)),
    "float": lambda: Between(lambda x: x.double().float().to(torch.float32)),
    "log of a sum": lambda: Between(lambda x: torch.log(F.softplus(x) + torch.exp(-x))),
    "log of a value near zero": lambda: Between(lambda x: torch.log(torch.relu(x - 0.3) + 1e-6)),
    "root mean square": lambda: Between(lambda x: torch.sqrt(F.avg_pool1d(torch.relu(x - 0.4) ** 2, 3))),
    "sign of an average": lambda: Between(lambda x: F.avg_pool1d(torch.relu(x - 0.3), 3).sign()),
    "above an average": lambda: Between(lambda x: torch.where(F.avg_pool1d(torch.relu(x - 0.3), 3, 1) > 0, 1.0, -1.0)),
    "LPPool": lambda: Between(lambda x, pool: pool(x), nn.LPPool1d(2, 3)),
    "log of a maximum": lambda: Between(
        lambda x, convolve: convolve(torch.log(F.max_pool1d(torch.exp(x), 3, 2, 1))), convolution(3, padding=1)
    ),
    "reciprocal of a maximum": lambda: Between(
        lambda x, convolve: convolve(1.0 / F.max_pool1d(torch.exp(x), 3, 2, 1)), convolution(3, padding=1)
    ),
    "AdaptiveMaxPool": lambda: Between(lambda x, pool: pool(x), nn.AdaptiveMaxPool1d(1)),
    "average of all positions": lambda: Between(lambda x: F.avg_pool1d(x, LENGTH)),
    "beside another track": lambda: Between(
        lambda x, convolve: convolve(torch.cat([x, torch.linspace(0, 1, LENGTH).expand(len(x), 1, LENGTH)], 1)),
        nn.Conv1d(CHANNELS + 1, 4, 5, padding=2),
    ),
    "crop by padding": lambda: Between(lambda x, convolve: convolve(F.pad(x, (-3, -1))), convolution(5)),
    "channel maxout": lambda: Between(lambda x: x.reshape(len(x), 3, 2, -1).amax(2)),
    "channel shuffle": lambda: Between(shuffle),
    "BatchNorm after flattening": lambda: Between(
        lambda x, norm: norm(x.flatten(1)), nn.BatchNorm1d(CHANNELS * LENGTH)
    ),
}


def settled(network: nn.Module) -> nn.Module:
    """Give BatchNorm layers statistics that are not 0 and 1."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            with torch.no_grad():
                part.running_mean.normal_(0.2, 0.1)
                part.running_var.uniform_(0.5, 2.0)
    return network


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("both_strands", [False, True])
def test_an_operation_is_followed_to_the_end(operation, both_strands):
    torch.manual_seed(7)
    network = settled(operation())
    if both_strands:
        network = toy_models.ReverseComplementStack(network)
    full, block = make(network, make_codes(3), make_layout())
    local = delta_of(full, batch_size=21)
    moments = local.run(block, range(LENGTH))
    assert local.coverage.stopped_at == ()
    assert local.coverage.share > 0.98  # the head on what all positions were reduced to is whole rows
    assert_equal_to_loop(moments, *plain_loop(full, block, make_layout(), range(LENGTH)), full.request.exposures)


SINGULAR = {
    "square root of a sum": (lambda x: torch.sqrt(x.abs() + x.flip(-1).abs()), "aten.sqrt.default"),
    "logarithm of a convolution": (
        lambda x: torch.log(F.conv1d(x, torch.ones(1, CHANNELS, 3)) + 9),
        "aten.log.default",
    ),
}


@pytest.mark.parametrize(("operation", "stop"), SINGULAR.values(), ids=SINGULAR)
def test_what_a_small_error_would_change_much_runs_whole(operation, stop):
    torch.manual_seed(8)
    full, block = make(Between(operation), make_codes(2), make_layout())
    local = delta_of(full)
    moments = local.run(block, range(LENGTH))
    assert local.coverage.stopped_at[0].startswith(stop)
    assert_equal_to_loop(moments, *plain_loop(full, block, make_layout(), range(LENGTH)), full.request.exposures)


GLOBAL = {
    "GroupNorm": (nn.GroupNorm(2, CHANNELS), "aten.native_group_norm.default"),
    "softmax over positions": (nn.Softmax(-1), "aten._softmax.default"),
    "transposed convolution": (nn.ConvTranspose1d(CHANNELS, 4, 4, stride=2), "aten.convolution.default"),
    "reflected ends": (convolution(5, padding=2, padding_mode="reflect"), "aten.reflection_pad1d.default"),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_what_needs_all_positions_ends_the_local_part_with_its_name(name):
    torch.manual_seed(9)
    module, stop = GLOBAL[name]
    full, block = make(Between(lambda x, part: part(x), module), make_codes(2), make_layout())
    local = delta_of(full)
    moments = local.run(block, range(LENGTH))
    assert local.coverage.stopped_at[0].startswith(stop)
    assert 0 < local.coverage.share < 1
    assert_equal_to_loop(moments, *plain_loop(full, block, make_layout(), range(LENGTH)), full.request.exposures)


def test_entries_that_do_not_exist_spread_no_infinity():
    torch.manual_seed(10)
    network = OPERATIONS["log of a maximum"]()
    full, block = make(network, make_codes(2), make_layout())
    local = delta_of(full)
    assert np.isfinite(local.run(block, range(2)).mean[0, 0]).sum() == 3 * len(full.request.columns)
    assert math.isfinite(float(np.nansum(local.run(block, range(LENGTH - 2, LENGTH)).squares)))
