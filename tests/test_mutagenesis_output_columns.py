"""Moving the choice of outputs to the last layer changes nothing but the work."""

import pytest
import torch
from torch import Tensor, nn

from kipoi_deepmr.mutagenesis.graph import mask_tensors, trace
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork, find_dropouts
from tests import toy_models


class Scaled(nn.Module):
    """Affine operations with a value per output, of which some broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toy_models.ConvNet(24, 5)
        self.scale, self.offset = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.network(x) * self.scale + self.offset) / 2


class Softmax(nn.Module):
    """Every output depends on all: the choice has to stay at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toy_models.ConvNet(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).softmax(1)


def traced(network: nn.Module, columns: list[int], mode: str = "real", batch: int = 3):
    torch.manual_seed(1)
    x = torch.rand(batch, 4, 24)
    draws = MCDropout(find_dropouts(network.eval(), x[:1]), seed=1, device=torch.device("cpu"))
    masks = draws.masks(["s"], 0).rows(None)
    expected = ThinnedNetwork(network, masks)(x)[:, columns]
    return trace(network, draws, columns, x, (), masks, mode=mode), (x, *mask_tensors(masks)), expected


def linear_outputs(graph) -> list[int]:
    return [n.meta["val"].shape[-1] for n in graph.graph.nodes if n.target is torch.ops.aten.addmm.default]


@pytest.mark.parametrize("columns", [[2], [4, 0], [1, 1, 3]])
@pytest.mark.parametrize(
    "network",
    [toy_models.ConvNet(24, 5), toy_models.ReverseComplementStack(toy_models.ConvNet(24, 5)), Scaled(), Softmax()],
    ids=lambda network: type(network).__name__,
)
def test_the_selected_outputs_stay_the_same(network, columns):
    graph, inputs, expected = traced(network, columns)
    torch.testing.assert_close(graph(*inputs), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_only_the_selected_rows_of_the_last_layer_are_multiplied(mode):
    both = toy_models.ReverseComplementStack(toy_models.ConvNet(24, 5))
    assert linear_outputs(traced(both, [4, 0], mode)[0]) == [2]
    assert linear_outputs(traced(Softmax(), [4, 0], mode)[0]) == [5]


def test_a_graph_of_shapes_has_the_same_operations():
    both = toy_models.ReverseComplementStack(toy_models.ConvNet(24, 5))
    real, fake = (traced(both, [4, 0], mode)[0] for mode in ("real", "fake"))
    assert [n.target for n in real.graph.nodes] == [n.target for n in fake.graph.nodes]
