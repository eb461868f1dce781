"""A Kipoi model as torch sees it: one function from one-hot sequences to (batch, tasks)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.model.layout import Key, Layout, leaves

_TOLERANCE = 1e-4


class SequenceNetwork(nn.Module):
    """The network of a model, called with the sequence and the inputs that stay fixed.

    Parameters
    ----------
    module
        The model's own network. It is used as it is, never copied.
    layout
        Where the sequence sits in its input.
    other_keys
        Names of the other inputs, in the order in which they are given to `forward`.
    as_dict
        Whether the network takes its inputs by name (a dict) rather than by order.
    """

    def __init__(self, module: nn.Module, layout: Layout, other_keys: tuple[Key, ...], as_dict: bool) -> None:
        super().__init__()
        self.module = module
        self.layout = layout
        self.other_keys = other_keys
        self.as_dict = as_dict

    def forward(self, sequence: Tensor, *others: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        sequence : torch.Tensor, shape=(batch, *layout.shape)
            One-hot sequences in the model's own layout.
        *others : torch.Tensor, batch first
            The other inputs of the model.

        Returns
        -------
        torch.Tensor, shape=(batch, tasks)
            All outputs of the model; several output arrays are joined along the tasks.

        Raises
        ------
        ModelError
            If the output is not (batch, tasks).
        """
        if self.layout.key is None:
            output = self.module(sequence)
        else:
            inputs = {self.layout.key: sequence, **dict(zip(self.other_keys, others, strict=True))}
            output = self.module(**inputs) if self.as_dict else self.module(*(inputs[i] for i in sorted(inputs)))
        parts = [columns(part, len(sequence)) for _, part in output_parts(output)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@dataclass(frozen=True)
class InputBatch:
    """References of a block of sequences on the device.

    Attributes
    ----------
    sequence : torch.Tensor, shape=(batch, *layout.shape)
        One-hot references.
    others : tuple of torch.Tensor
        The model's other inputs, batch first.
    """

    sequence: Tensor
    others: tuple[Tensor, ...]


def output_parts(output: Any) -> Iterator[tuple[Key, Any]]:
    """Yield the arrays of a model output with their names."""
    if isinstance(output, Mapping):
        yield from output.items()
    elif isinstance(output, list | tuple):
        yield from enumerate(output)
    else:
        yield None, output


def columns(part: Any, batch: int) -> Any:
    """Return an output array as (batch, tasks); (batch,) becomes one task.

    Raises
    ------
    ModelError
        If it has another shape or number of rows.
    """
    shape = tuple(getattr(part, "shape", ()))
    if len(shape) == 1 and shape[0] == batch:
        return part[:, None]
    if len(shape) != 2 or shape[0] != batch:
        raise ModelError(
            f"the model's output has shape {shape} for a batch of {batch}: needed is (batch, tasks), one number per "
            "sequence and task; profile outputs have to be reduced inside the model"
        )
    return part


def find_module(model: Any) -> nn.Module:
    """Return the torch network that a Kipoi model carries.

    Raises
    ------
    ModelError
        If it carries none, or several and none is called `model`.
    """
    named = getattr(model, "model", None)
    if isinstance(named, nn.Module):
        return named
    if isinstance(model, nn.Module):
        return model
    modules = {name: value for name, value in vars(model).items() if isinstance(value, nn.Module)}
    if len(modules) == 1:
        return next(iter(modules.values()))
    kind = type(model).__name__
    if modules:
        raise ModelError(f"{kind} carries several networks ({', '.join(modules)}): name the one to use `model`")
    raise ModelError(
        f"{kind} carries no torch network (looked for an nn.Module among its attributes): "
        "in this version the model has to be a PyTorch model"
    )


def to_batch(
    inputs: Any, layout: Layout, device: torch.device, dtype: torch.dtype
) -> tuple[InputBatch, tuple[Key, ...]]:
    """Move a batch of dataloader inputs to the device.

    Parameters
    ----------
    inputs
        Batch of model inputs, as the dataloader gives it.
    layout
        Where the sequence sits.
    device
        Where to put the tensors.
    dtype
        Type of the sequence's tensor.

    Returns
    -------
    InputBatch
        The tensors.
    tuple
        Names of the other inputs.
    """
    others = {key: array for key, array in leaves(inputs) if key != layout.key}
    sequence = torch.as_tensor(np.ascontiguousarray(layout.one_hot(inputs))).to(device=device, dtype=dtype)
    moved = tuple(torch.as_tensor(np.ascontiguousarray(array)).to(device) for array in others.values())
    return InputBatch(sequence, moved), tuple(others)


def sequence_dtype(module: nn.Module, layout: Layout) -> torch.dtype:
    """Return the type in which the network takes sequences: that of its parameters, else the dataloader's."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32 if layout.dtype.kind != "f" else torch.as_tensor(np.empty(0, layout.dtype)).dtype


@contextmanager
def lent(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Use a network in eval mode on a device, then give it back as it was (training flags, device)."""
    flags = {part: part.training for part in module.modules()}
    home = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), device)
    try:
        module.eval()
        yield module.to(device)
    finally:
        module.to(home)
        for part, training in flags.items():
            part.training = training


def check_agreement(network: SequenceNetwork, batch: InputBatch, expected: np.ndarray) -> None:
    """Check that the network alone gives what the Kipoi model's `predict_on_batch` gives.

    Parameters
    ----------
    network
        The network in eval mode.
    batch
        Some references.
    expected
        Their predictions by the Kipoi model, shape (batch, tasks).

    Raises
    ------
    ModelError
        If the shapes or values differ: `predict_on_batch` does more than call the network.
    PredictionError
        If the model returns NaN or infinity.
    """
    with torch.inference_mode():
        ours = network(batch.sequence, *batch.others).cpu().double().numpy()
    if not np.isfinite(expected).all():
        bad = np.argwhere(~np.isfinite(expected))[0]
        raise PredictionError(
            f"the model returns {expected[tuple(bad)]} for output {bad[1]} of a reference sequence: "
            "check its weights and the sequences that it is given"
        )
    if ours.shape != expected.shape or not np.allclose(ours, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"the model's predict_on_batch gives {expected.shape} and its network {ours.shape} with other values: "
            "predict_on_batch does more than call the network, so draws of the network would not be draws of the "
            "model; move that step into the network's forward"
        )
