"""Models that torch cannot look into, as networks that take and return tensors."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What people and this program put beside a model, and is no part of it.
_NO_MODEL_FILES = (".bed", ".fa", ".fai", ".html", ".log", ".md", ".narrowpeak", ".pdf", ".png", ".svg", ".vcf")
_DESCRIPTIONS = ("model", "dataloader")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model directory, which tell its weights apart where no network shows them.

    Attributes
    ----------
    folder : pathlib.Path
        The directory.
    described : str
        What its model.yaml says, by which the models of one directory differ.
    """

    folder: Path
    described: str = ""

    def digest(self, part: str = "") -> str:
        """Return a sha256 of all files but hidden ones, stores, reports, and YAML files of runs."""
        digest = hashlib.sha256(f"{part}{self.described}".encode())
        for path in _files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir():
            if not any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
                yield from _files(path)
        elif path.suffix in (".yaml", ".yml"):
            if path.name.startswith(_DESCRIPTIONS):
                yield path
        elif not any(suffix.lower() in _NO_MODEL_FILES for suffix in path.suffixes):
            yield path


class OpaqueNetwork(nn.Module):
    """A network whose operations torch does not see: each call is one step, of which no graph can be made."""

    why_no_dropout = ""

    def weights_digest(self) -> str:
        """Return a sha256 that tells weights apart."""
        raise NotImplementedError


class PredictFunction(OpaqueNetwork):
    """A Kipoi model that is asked through its `predict_on_batch`.

    Parameters
    ----------
    model
        Object with `predict_on_batch`.
    files
        The files of its model directory, which tell weights apart.
    inner
        The torch network that `predict_on_batch` calls, if there is one: dropouts that run in it are seen.
    part
        Which part of the model it is, where several are in one folder.
    """

    why_no_dropout = "It is asked through predict_on_batch, in which no dropout of torch runs."

    def __init__(self, model: Any, files: ModelFiles, inner: nn.Module | None = None, part: str = "") -> None:
        super().__init__()
        self._model = model
        self._files = files
        self._part = part
        self.inner = inner

    def forward(self, inputs: Any) -> Any:
        """Predict.

        Parameters
        ----------
        inputs
            What the dataloader gives: a tensor, a list or a dict of tensors; texts as numpy array.

        Returns
        -------
        tensor, or list or dict of tensors
            Batch first, on the device of the inputs.
        """
        device = device_of(inputs)
        return to_tensors(self._model.predict_on_batch(to_arrays(inputs)), device)

    def weights_digest(self) -> str:
        """Return a sha256 of the files of the model."""
        return self._files.digest(self._part)


def to_arrays(inputs: Any) -> Any:
    """Turn tensors in a tensor, list or dict into numpy arrays."""
    if isinstance(inputs, dict):
        return {key: to_arrays(value) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [to_arrays(value) for value in inputs]
    return inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs


def to_tensors(output: Any, device: torch.device) -> Any:
    """Turn arrays in an array, list or dict into tensors on a device."""
    if isinstance(output, dict):
        return {key: to_tensors(value, device) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return [to_tensors(value, device) for value in output]
    return torch.as_tensor(output if isinstance(output, Tensor) else np.array(output)).to(device)


def device_of(inputs: Any) -> torch.device:
    """Return the device of the first tensor; texts have none."""
    values = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, list | tuple) else [inputs]
    return next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))
