"""The fewest multiply-adds of a mutant, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import toy_models
from tests.test_mutagenesis_full import LENGTH, delta_of, make, make_codes, make_layout

DRAWS = 3


class ConvPoolDense(nn.Module):
    """4 to 5 channels, pooled by two, dropout, 5 to 6 channels, a linear layer on all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 5, 3, padding=1), nn.Conv1d(5, 6, 3, padding=1)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(6 * LENGTH // 2, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.max_pool1d(F.relu(self.first(x)), 2))
        return self.last(F.relu(self.second(x)).flatten(1))


class Attention(nn.Module):
    """A convolution, dropout, self-attention over the positions, a linear layer on all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dropout, self.last = nn.Conv1d(4, 6, 3, padding=1), nn.Dropout(0.3), nn.Linear(6 * LENGTH, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.first(x)))
        return self.last(((x.transpose(1, 2) @ x).softmax(-1) @ x.transpose(1, 2)).flatten(1))


class Strided(nn.Module):
    """A dilated convolution after a strided one, and a linear layer at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 5, 5, stride=2, padding=2), nn.Conv1d(5, 6, 3, padding=2, dilation=2)
        self.dropout, self.each = nn.Dropout(0.3), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(self.dropout(x)))).transpose(1, 2)
        return self.each(x).mean(1)


# Two of seven outputs are selected. Dropout comes after the first convolution, which all draws share, or before it.
COUNTS = {
    # One input reaches 3 outputs; pooled these are 2, which reach 4 outputs through 3 taps each.
    "middle": (ConvPoolDense, 12, 3 * 4 * 5 / DRAWS + 2 * 3 * 5 * 6 + 4 * 6 * 2),
    # 2 outputs, pooled 1, which reaches 2 outputs.
    "first position": (ConvPoolDense, 0, 2 * 4 * 5 / DRAWS + 2 * 5 * 6 + 2 * 6 * 2),
    # From the first product of all positions with all on, every layer is whole.
    "attention": (Attention, 12, 3 * 4 * 6 / DRAWS + 2 * LENGTH * LENGTH * 6 + 6 * LENGTH * 2),
    # Input 12 reaches outputs 5, 6 and 7 of every second; with gaps of 2 these reach 3 each, 3 to 9 together.
    "stride and dilation": (Strided, 12, 3 * 4 * 5 + 9 * 5 * 6 + 7 * 6 * 8),
}


def fewest(network: nn.Module, position: int) -> float:
    torch.manual_seed(1)
    full, block = make(network, make_codes(1, unknown=False), make_layout(), count=DRAWS)
    delta = delta_of(full).strategy
    delta.prepare(block)
    return delta.fewest_multiply_adds(block, position)


@pytest.mark.parametrize(("network", "position", "expected"), COUNTS.values(), ids=COUNTS)
def test_the_fewest_multiply_adds_are_those_counted_by_hand(network, position, expected):
    assert fewest(network(), position) == pytest.approx(expected, rel=1e-12)


def test_both_strands_count():
    network, position, expected = COUNTS["middle"]
    both = toy_models.ReverseComplementStack(network())
    assert fewest(both, position) == pytest.approx(2 * expected, rel=1e-12)


def test_a_network_of_which_nothing_can_be_followed_counts_whole():
    class Whole(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.roll(1, -1))

    full, block = make(Whole(), make_codes(1, unknown=False), make_layout(), count=DRAWS)
    whole = LENGTH * 3 * 4 * 6 / DRAWS + 2 * LENGTH * LENGTH * 6 + 6 * LENGTH * 2
    assert delta_of(full).strategy.fewest_multiply_adds(block, 12) == pytest.approx(whole, rel=1e-12)
