"""A Kipoi model as torch sees it: one function from one-hot sequences to (batch, tasks)."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.model.layout import Key, Layout, convert, leaves

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
        Whether the dataloader gives its inputs by name (a dict) rather than by order. They are then given to the
        network as Kipoi does, as keyword arguments; without those that its `forward` does not take; or as one dict,
        where its `forward` takes one argument that is called otherwise.
    given : Layout, optional
        Layout in which `forward` is given the sequence, when it is that of another model.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        other_keys: tuple[Key, ...],
        as_dict: bool,
        given: Layout | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.layout = given or layout
        self._own_layout = layout
        self.other_keys = other_keys
        self.as_dict = as_dict
        self._accepted = _accepted(module)

    def forward(self, sequence: Tensor, *others: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        sequence : torch.Tensor, shape=(batch, *layout.shape)
            One-hot sequences.
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
        if self.layout != self._own_layout:
            sequence = convert(sequence, self.layout, self._own_layout)
        parts = [columns(part, len(sequence)) for _, part in output_parts(self._call(sequence, others))]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _call(self, sequence: Tensor, others: tuple[Tensor, ...]) -> Any:
        key = self._own_layout.key
        if key is None:
            return self.module(sequence)
        inputs: dict[Any, Tensor] = {key: sequence, **dict(zip(self.other_keys, others, strict=True))}
        if not self.as_dict:
            return self.module(*(inputs[index] for index in sorted(inputs)))
        if self._accepted is None:
            return self.module(**inputs)
        if len(self._accepted) == 1 and self._accepted[0] not in inputs:
            return self.module(inputs)
        return self.module(**{key: tensor for key, tensor in inputs.items() if key in self._accepted})


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


def _accepted(module: nn.Module) -> list[str] | None:
    """Return the names of the arguments of a network's forward; None when it takes any."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled network
        return None
    if any(parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def output_parts(output: Any) -> Iterator[tuple[Key, Any]]:
    """Yield the arrays of a model output with their names; those of a dict in the order of the names.

    A network's dict and that of the model's schema may stand in another order, so neither order is taken.
    """
    if isinstance(output, Mapping):
        yield from sorted(output.items(), key=lambda item: str(item[0]))
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
    if isinstance(model, nn.Module) and type(model).forward is not nn.Module.forward:
        return model
    named = getattr(model, "model", None)
    if isinstance(named, nn.Module):
        return named
    modules = {name: value for name, value in vars(model).items() if isinstance(value, nn.Module)}
    if len(set(modules.values())) == 1:
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
        Type of the sequence's tensor, and of the other inputs that hold floating-point numbers.

    Returns
    -------
    InputBatch
        The tensors.
    tuple
        Names of the other inputs; arrays that hold no numbers, such as names, are left out.
    """
    others = {key: array for key, array in leaves(inputs) if key != layout.key and array.dtype.kind in "fiub"}

    def tensor(array: np.ndarray, dtype: torch.dtype | None) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

    real = dtype if dtype.is_floating_point else None
    moved = tuple(tensor(array, real if array.dtype.kind == "f" else None) for array in others.values())
    return InputBatch(tensor(layout.one_hot(inputs), dtype), moved), tuple(others)


def sequence_dtype(module: nn.Module, layout: Layout) -> torch.dtype:
    """Return the type in which the network takes sequences.

    It is that of the network's floating-point parameters, or float32 if it has none. Integers of the dataloader stay
    integers if the network has an embedding, which takes nothing else.
    """
    given = torch.as_tensor(np.empty(0, layout.dtype)).dtype
    real = float_dtype(module) or (given if given.is_floating_point else torch.float32)
    embeds = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())
    return real if given.is_floating_point or not embeds else given


def float_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the type of a network's first floating-point parameter, None if it has none."""
    return next((tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()), None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Use a network in eval mode and full precision, then give back the training flag of each of its parts.

    An effect is a small difference of two predictions: the 10 bits of TF32, in which a GPU convolves by default, are
    not enough for it.
    """
    flags = {part: part.training for part in module.modules()}
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        module.eval()
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for part, training in flags.items():
            part.training = training


@contextmanager
def lent(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Use a network in eval mode and full precision on a device, then give it back as it was (flags, device)."""
    home = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), device)
    try:
        with evaluating(module):
            yield module.to(device)
    finally:
        module.to(home)


def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):  # extra state of a module
            digest.update(f"{name}:{tensor!r}".encode())
            continue
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_agreement(
    network: SequenceNetwork, batch: InputBatch, expected: np.ndarray, further: Sequence[SequenceNetwork] = ()
) -> None:
    """Check that the network alone gives what the Kipoi model's `predict_on_batch` gives.

    Parameters
    ----------
    network
        The network in eval mode.
    batch
        Some references.
    expected
        Their predictions by the Kipoi model, shape (batch, tasks).
    further
        The other members of an ensemble inside the model, whose mean its prediction is.

    Raises
    ------
    ModelError
        If the shapes or values differ: `predict_on_batch` does more than call the network.
    PredictionError
        If the model returns NaN or infinity.
    """
    with torch.inference_mode():
        try:
            each = [one(batch.sequence, *batch.others).cpu().double().numpy() for one in (network, *further)]
            ours = np.mean(each, axis=0)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, ModelError):
                raise
            names = "" if network.layout.key is None else f" {(network.layout.key, *network.other_keys)}"
            raise ModelError(
                f"the network {type(network.module).__name__} cannot be called with the dataloader's inputs{names}: "
                f"{type(error).__name__}: {error}. Needed is a forward that takes what the dataloader gives: an array, "
                "a list by position, a dict by name"
            ) from error
    if not np.isfinite(expected).all():
        bad = np.argwhere(~np.isfinite(expected))[0]
        raise PredictionError(
            f"the model returns {expected[tuple(bad)]} for output {bad[1]} of a reference sequence: "
            "check its weights and the sequences that it is given"
        )
    if ours.shape != expected.shape or not np.allclose(ours, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        differ = (
            f"shape {expected.shape}, its network {ours.shape}"
            if ours.shape != expected.shape
            else f"other values than its network (by up to {np.abs(ours - expected).max():.3g})"
        )
        if further:
            raise ModelError(
                f"the mean of the {len(each)} `members` of the model is not its prediction: predict_on_batch gives {differ}. "
                "Members are networks with the inputs and outputs of the model, whose mean it predicts"
            )
        raise ModelError(
            f"the model's predict_on_batch gives {differ}: it does more than call the network, or calls it with chance "
            "at work, so draws of the network would not be draws of the model; move that step into the network's forward"
        )
