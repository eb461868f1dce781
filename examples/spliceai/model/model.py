"""SpliceAI as a Kipoi model: five networks, read from the Keras files of the package `spliceai`, asked for one exon."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kipoi.model import BaseModel
from torch import nn
from torch.nn.functional import conv1d, relu

PACKAGE, VERSION, MEMBERS = "spliceai", "1.3.1", 5
CHANNELS, UNITS = 32, 4
STAGES = ((11, 1), (11, 4), (21, 10), (41, 25))  # kernel and dilation of the four residual units of each stage
FLANK = 5000
LONGEST_EXON = 400
WINDOW = 2 * (FLANK + LONGEST_EXON) + 1
EPSILON = 1e-3
ACCEPTOR, DONOR = 1, 2  # outputs of the network; 0 is neither


class Unit(nn.Module):
    """A residual unit: twice batch normalisation, ReLU and a dilated convolution, then the input is added.

    Parameters
    ----------
    kernel : int
        Width of both convolutions.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(CHANNELS, eps=EPSILON) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv1d(CHANNELS, CHANNELS, kernel) for _ in range(2))

    def forward(self, x: torch.Tensor, dilation: int) -> torch.Tensor:
        """Return the unit's output where no convolution leaves the input."""
        inside = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            inside = conv1d(relu(norm(inside)), convolution.weight, convolution.bias, dilation=dilation)
        return _cropped(x, inside.shape[2]) + inside


class Network(nn.Module):
    """SpliceAI-10k (Jaganathan 2019): 16 residual units, whose reach is 5000 bases to either side.

    The authors' network pads its convolutions and crops 5000 positions from both ends at last. No position that is left
    sees the padding, so here nothing is padded and each unit crops what it adds: the same numbers with half the work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, CHANNELS, 1)
        self.stages = nn.ModuleList(nn.ModuleList(Unit(kernel) for _ in range(UNITS)) for kernel, _ in STAGES)
        self.skips = nn.ModuleList(nn.Conv1d(CHANNELS, CHANNELS, 1) for _ in range(len(STAGES) + 1))
        self.last = nn.Conv1d(CHANNELS, 3, 1)

    def forward(self, seq: torch.Tensor, exon_length: torch.Tensor) -> torch.Tensor:
        """Predict the two splice sites of the exon whose last base stands in the middle of the window.

        Units of the last stage look at every 25th position only. So from there on one position in 25 is taken, those
        that the two sites depend on.

        Parameters
        ----------
        seq : torch.Tensor, shape=(batch, 4, 10801)
            One-hot sequences, bases in the order A, C, G, T; zeros for N.
        exon_length : torch.Tensor, shape=(batch,), int64
            Bases of the exon, 1 to 400.

        Returns
        -------
        torch.Tensor, shape=(batch, 2)
            Probability that the exon's first base follows an acceptor (3' splice site), and that its last base precedes
            a donor (5' splice site).
        """
        x, total = self._near(seq)
        middle = x.shape[2] // 2
        steps = torch.arange(-reach(3), reach(3) + 1, STAGES[3][1], device=x.device)
        donor = middle + steps.expand(len(x), -1)
        acceptor = donor - exon_length[:, None] + 1
        sites = [self._far(_taken(x, site), _taken(total, site), 1) for site in (acceptor, donor)]
        return torch.cat([sites[0][:, ACCEPTOR], sites[1][:, DONOR]], 1)

    def profile(self, seq: torch.Tensor) -> torch.Tensor:
        """Predict all positions that have 5000 bases on either side.

        Parameters
        ----------
        seq : torch.Tensor, shape=(batch, 4, length)
            One-hot sequences.

        Returns
        -------
        torch.Tensor, shape=(batch, 3, length - 10000)
            Probabilities of neither, acceptor and donor.
        """
        return self._far(*self._near(seq), STAGES[3][1])

    def _near(self, seq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output of the first three stages, and the sum of what skips the units so far."""
        x = self.first(seq)
        total = self.skips[0](x)
        for stage in range(3):
            x, total = self._stage(stage, x, total, STAGES[stage][1])
        return x, total

    def _far(self, x: torch.Tensor, total: torch.Tensor, dilation: int) -> torch.Tensor:
        _, total = self._stage(3, x, total, dilation)
        return torch.softmax(self.last(total), dim=1)

    def _stage(
        self, stage: int, x: torch.Tensor, total: torch.Tensor, dilation: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for unit in self.stages[stage]:
            x = unit(x, dilation)
        return x, _cropped(total, x.shape[2]) + self.skips[stage + 1](x)


class Ensemble(nn.Module):
    """The mean over networks.

    Parameters
    ----------
    members : list of Network
        Networks of the same inputs and outputs.
    """

    def __init__(self, members: list[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, seq: torch.Tensor, exon_length: torch.Tensor) -> torch.Tensor:
        """Predict as `Network`, averaged over the members."""
        return torch.stack([member(seq, exon_length) for member in self.members]).mean(0)


class SpliceAI(BaseModel):
    """The Kipoi model.

    Parameters
    ----------
    weights : str, optional
        Folder of ``spliceai1.h5`` to ``spliceai5.h5``. Default: that of the installed package `spliceai`, which is not
        imported.

    Attributes
    ----------
    model : Ensemble
        What `predict_on_batch` asks.
    members : list of Network
        Its five networks: the same inputs and outputs each, and their mean is the model's prediction.
    """

    def __init__(self, weights: str | None = None) -> None:
        files = weight_files(None if weights is None else Path(weights))
        self.model = Ensemble([read_network(path) for path in files]).eval()
        self.members = list(self.model.members)

    def predict_on_batch(self, x: Mapping[str, np.ndarray]) -> np.ndarray:
        """Predict acceptor and donor of each exon, shape (batch, 2), float32."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(np.ascontiguousarray(x[name])).to(device) for name in x}
            return self.model(**inputs).cpu().numpy()


def reach(stage: int) -> int:
    """Return how many positions to either side the units of a stage see."""
    kernel, dilation = STAGES[stage]
    return UNITS * (kernel - 1) * dilation


def weight_files(folder: Path | None = None) -> list[Path]:
    """Return the five files of weights in a folder, by default in that of the installed package.

    Raises
    ------
    ImportError
        If the package is not installed.
    FileNotFoundError
        If a file is not there.
    """
    names = [f"spliceai{number}.h5" for number in range(1, MEMBERS + 1)]
    if folder is None:
        found = next(iter(importlib.metadata.distributions(name=PACKAGE)), None)
        if found is None:
            raise ImportError(_how_to_install(f"the package {PACKAGE}, which holds SpliceAI's weights"))
        folder = Path(str(found.locate_file(f"{PACKAGE}/models")))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: needed are the five files of weights of {PACKAGE} {VERSION} "
            f"(pip install --force-reinstall --no-deps {PACKAGE}=={VERSION})"
        )
    return [folder / name for name in names]


def read_network(path: Path) -> Network:
    """Read a network from a Keras HDF5 file.

    Parameters
    ----------
    path : pathlib.Path
        File with the layers as ``model_config`` and the weights in the group ``model_weights``.

    Returns
    -------
    Network
        In eval mode, float32.

    Raises
    ------
    ImportError
        If h5py is not installed.
    ValueError
        If the file is not HDF5 or holds another network.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError(_how_to_install("h5py, with which SpliceAI's weights are read")) from None
    network = Network().eval()
    try:
        with h5py.File(path, "r") as file:
            _check_layers(path, json.loads(file.attrs["model_config"]))
            weights = file["model_weights"]
            with torch.no_grad():
                for number, layer in enumerate(_convolutions(network), start=1):
                    kernel, bias = _tensors(weights, f"conv1d_{number}", ("kernel", "bias"))
                    _fill(path, layer.weight, kernel.permute(2, 1, 0))  # Keras: (position, in, out)
                    _fill(path, layer.bias, bias)
                for number, layer in enumerate(_norms(network), start=1):
                    names = ("gamma", "beta", "moving_mean", "moving_variance")
                    read = _tensors(weights, f"batch_normalization_{number}", names)
                    for own, tensor in zip(
                        (layer.weight, layer.bias, layer.running_mean, layer.running_var), read, strict=True
                    ):
                        _fill(path, own, tensor)
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a Keras HDF5 file of SpliceAI: {error}") from error
    return network


def expected_layers() -> list[tuple[Any, ...]]:
    """Return the layers of SpliceAI as its files list them: kind, then what decides its numbers; sorted by number.

    Convolutions are (kind, channels, kernel, dilation), the rest (kind, option).
    """
    convolutions: list[tuple[Any, ...]] = [("Conv1D", CHANNELS, 1, 1)] * 2
    for kernel, dilation in STAGES:
        convolutions += [("Conv1D", CHANNELS, kernel, dilation)] * (2 * UNITS) + [("Conv1D", CHANNELS, 1, 1)]
    norms = [("BatchNormalization", EPSILON)] * (2 * UNITS * len(STAGES))
    return [*convolutions, ("Conv1D", 3, 1, 1), *norms, ("Cropping1D", (FLANK, FLANK))]


def _check_layers(path: Path, config: dict[str, Any]) -> None:
    found: dict[str, list[tuple[int, tuple[Any, ...]]]] = {"Conv1D": [], "BatchNormalization": [], "Cropping1D": []}
    for layer in config["config"]["layers"]:
        kind, options = layer["class_name"], layer["config"]
        digits = layer["name"].rpartition("_")[2]
        if kind == "Conv1D":
            described = (kind, options["filters"], options["kernel_size"][0], options["dilation_rate"][0])
        elif kind == "BatchNormalization":
            described = (kind, options["epsilon"])
        elif kind == "Cropping1D":
            described = (kind, tuple(options["cropping"]))
        else:
            continue
        found[kind].append((int(digits) if digits.isdigit() else 0, described))
    layers = [described for kind in found for _, described in sorted(found[kind])]
    for given, expected in zip(layers, expected_layers(), strict=False):
        if given != expected:
            raise ValueError(f"{path} holds another network than SpliceAI-10k: layer {given} instead of {expected}")
    if len(layers) != len(expected_layers()):
        raise ValueError(
            f"{path} holds another network than SpliceAI-10k: {len(layers)} layers instead of {len(expected_layers())}"
        )


def _convolutions(network: Network) -> list[nn.Conv1d]:
    """Return the convolutions in the order of their numbers in the files."""
    ordered = [network.first, network.skips[0]]
    for stage, skip in zip(network.stages, list(network.skips)[1:], strict=True):
        ordered += [convolution for unit in stage for convolution in unit.convolutions] + [skip]
    return [*ordered, network.last]


def _norms(network: Network) -> list[nn.BatchNorm1d]:
    return [norm for stage in network.stages for unit in stage for norm in unit.norms]


def _tensors(weights: Any, layer: str, names: tuple[str, ...]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(weights[layer][layer][f"{name}:0"], dtype=np.float32)) for name in names]


def _fill(path: Path, own: torch.Tensor, read: torch.Tensor) -> None:
    if own.shape != read.shape:
        raise ValueError(f"{path} holds weights of shape {tuple(read.shape)} where SpliceAI-10k has {tuple(own.shape)}")
    own.copy_(read)


def _cropped(x: torch.Tensor, length: int) -> torch.Tensor:
    """Return the middle of the positions."""
    edge = (x.shape[2] - length) // 2
    return x[:, :, edge : edge + length]


def _taken(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return some positions of each row; positions has shape (batch, n)."""
    return x.gather(2, positions[:, None].expand(-1, x.shape[1], -1))


def _how_to_install(what: str) -> str:
    return (
        f'{what}, is not installed: pip install "kipoi_deepmr[spliceai]", or for the weights without what the package '
        f"itself needs: pip install h5py && pip install --no-deps {PACKAGE}=={VERSION}"
    )
