"""Small networks whose answers are known, and the architectures of models in the Kipoi zoo with random weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Marker(nn.Module):
    """Without dropout's mask it returns position-and-base codes, so that any transposed axis shows.

    Input (batch, 4, length); output 0 is the sum over positions of 10 * position + base, output 1 its double.
    """

    def __init__(self, length: int, p: float = 0.5) -> None:
        super().__init__()
        code = 10.0 * torch.arange(length)[None] + torch.arange(4.0)[:, None]
        self.register_buffer("code", code)
        self.dropout = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.code).sum((1, 2))[:, None]
        # Dropout of a constant: every draw has an effect on the scale, none on the marker's order.
        gate = self.dropout(torch.ones_like(total))
        return torch.cat([total * (1 + gate), 2 * total * (1 + gate)], 1)


class Linear(nn.Module):
    """One dropout on the input of a linear layer: the effect of a draw is a difference of two kept weights."""

    def __init__(self, length: int, outputs: int, p: float = 0.4) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)
        self.linear = nn.Linear(4 * length, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x.flatten(1)))


class ConvNet(nn.Module):
    """Convolutions with every kind of dropout, BatchNorm and in-place operations."""

    def __init__(self, length: int, outputs: int, channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, channels, 5, padding=2)
        self.norm = nn.BatchNorm1d(channels)
        self.channel_dropout = nn.Dropout1d(0.3)
        self.alpha = nn.AlphaDropout(0.2)
        self.linear = nn.Linear(channels * (length // 4), outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        x = F.relu_(self.channel_dropout(x))
        x = F.max_pool1d(x, 4)
        x = self.alpha(F.dropout(x.flatten(1), 0.25, self.training))
        return torch.sigmoid(self.linear(x))


class ReverseComplementStack(nn.Module):
    """Stacks the reverse complement on the batch axis and averages the two probabilities, as DeepSEA/predict does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        both = self.network(torch.cat([x, x.flip((1, -1))]))
        return (both[: len(x)] + both[len(x) :]) / 2


class TwoInputs(nn.Module):
    """A sequence and a track that stays fixed while the sequence is mutated, given by name."""

    def __init__(self, length: int, outputs: int) -> None:
        super().__init__()
        self.network = ConvNet(length, outputs)
        self.track = nn.Linear(length, outputs)

    def forward(self, seq: Tensor, track: Tensor) -> Tensor:
        return self.network(seq) * torch.sigmoid(self.track(track))


class DeepSEALike(nn.Module):
    """The architecture of DeepSEA, (batch, 4, 1, 1000) to 919 tasks, both strands; `width` scales its channels."""

    def __init__(self, width: float = 1.0, outputs: int = 919) -> None:
        super().__init__()
        first, second, third, dense = (max(2, int(width * n)) for n in (320, 480, 960, 925))
        self.features = nn.Sequential(
            nn.Conv2d(4, first, (1, 8)),
            nn.Threshold(0, 1e-6),
            nn.MaxPool2d((1, 4), (1, 4)),
            nn.Dropout(0.2),
            nn.Conv2d(first, second, (1, 8)),
            nn.Threshold(0, 1e-6),
            nn.MaxPool2d((1, 4), (1, 4)),
            nn.Dropout(0.2),
            nn.Conv2d(second, third, (1, 8)),
            nn.Threshold(0, 1e-6),
            nn.Dropout(0.5),
        )
        self.dense = nn.Sequential(
            nn.Linear(third * 53, dense), nn.Threshold(0, 1e-6), nn.Linear(dense, outputs), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        # Bases, strands and their mean by the operations that the zoo's model uses.
        forward = torch.stack([x[:, base, ...] for base in (0, 2, 1, 3)], dim=1)
        reverse = forward
        for axis in (1, 3):
            reverse = reverse.index_select(axis, torch.arange(reverse.shape[axis] - 1, -1, -1, device=x.device))
        both = torch.cat([forward, reverse])
        both = self.dense(self.features(both).view(len(both), -1))
        return both[: len(x)] / 2 + both[len(x) :] / 2


class BelugaLike(nn.Module):
    """The architecture of DeepSEA/beluga: six convolutions, (batch, 4, 1, 2000) to 2002 tasks, one strand."""

    def __init__(self, width: float = 1.0, outputs: int = 2002) -> None:
        super().__init__()
        one, two, three, dense = (max(2, int(width * n)) for n in (320, 480, 640, 2003))
        self.features = nn.Sequential(
            *(nn.Conv2d(4, one, (1, 8)), nn.ReLU(), nn.Conv2d(one, one, (1, 8)), nn.ReLU()),
            *(nn.Dropout(0.2), nn.MaxPool2d((1, 4), (1, 4))),
            *(nn.Conv2d(one, two, (1, 8)), nn.ReLU(), nn.Conv2d(two, two, (1, 8)), nn.ReLU()),
            *(nn.Dropout(0.2), nn.MaxPool2d((1, 4), (1, 4))),
            *(nn.Conv2d(two, three, (1, 8)), nn.ReLU(), nn.Conv2d(three, three, (1, 8)), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Flatten()),
        )
        self.dense = nn.Sequential(nn.Linear(three * 106, dense), nn.ReLU(), nn.Linear(dense, outputs), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.features(x))


class BassetLike(nn.Module):
    """The architecture of Basset: BatchNorm after every layer, (batch, 4, 600, 1) to 164 tasks.

    `early` puts a dropout after the first pooling too; Basset itself drops units of its dense layers only.
    """

    def __init__(self, width: float = 1.0, outputs: int = 164, early: bool = False) -> None:
        super().__init__()
        one, two, dense = (max(2, int(width * n)) for n in (300, 200, 1000))

        def stage(before: int, after: int, kernel: int, pool: int) -> list[nn.Module]:
            conv = nn.Conv2d(before, after, (kernel, 1))
            return [conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d((pool, 1), (pool, 1))]

        first = [*stage(4, one, 19, 3), *([nn.Dropout(0.2)] if early else [])]
        self.features = nn.Sequential(*first, *stage(one, two, 11, 4), *stage(two, two, 7, 4), nn.Flatten())
        self.dense = nn.Sequential(
            *(nn.Linear(two * 10, dense), nn.BatchNorm1d(dense), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(dense, dense), nn.BatchNorm1d(dense), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(dense, outputs), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.features(x))


class BPNetLike(nn.Module):
    """Nine dilated residual convolutions and a count head over all positions, (batch, 4, 1000) to `outputs` counts."""

    def __init__(self, channels: int = 64, layers: int = 9, outputs: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, channels, 21, padding=10)
        self.dropout = nn.Dropout(0.1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**i, dilation=2**i) for i in range(1, layers + 1)
        )
        self.count = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(torch.relu(self.first(x)))
        for layer in self.dilated:
            x = x + torch.relu(layer(x))
        return self.count(x.mean(-1))
