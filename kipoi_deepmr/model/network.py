"""A Kipoi model as torch sees it: one function from one-hot sequences to (batch, tasks)."""

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.model.function import ModelFiles, OpaqueNetwork, PredictFunction
from kipoi_deepmr.model.keras import KerasFunction, is_keras
from kipoi_deepmr.model.layout import Key, Layout, convert, leaves
from kipoi_deepmr.model.outputs import Outputs
from kipoi_deepmr.model.text import TextKey, decode, encode, is_sequence, is_text, to_text, with_bases

_TOLERANCE = 1e-4


class Disagreement(ModelError):
    """The network of a model does not predict what its `predict_on_batch` predicts."""


class SequenceNetwork(nn.Module):
    """The network of a model, called with the sequence and the inputs that stay fixed.

    Parameters
    ----------
    module
        The model's own network. It is used as it is, never copied.
    layout
        Where the sequence sits in its input.
    other_keys
        Names of the other inputs, in the order in which they are given to `forward`; texts under a `TextKey`.
    as_dict
        Whether the dataloader gives its inputs by name (a dict) rather than by order. They are then given to the
        network as Kipoi does, as keyword arguments; without those that its `forward` does not take; or as one dict,
        where its `forward` takes one argument that is called otherwise.
    given : Layout, optional
        Layout in which `forward` is given the sequence, when it is that of another model.
    outputs : Outputs, optional
        How its output becomes (batch, tasks).
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        other_keys: tuple[Key | TextKey, ...],
        as_dict: bool,
        given: Layout | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.layout = given or layout
        self._own_layout = layout
        self.other_keys = other_keys
        self.as_dict = as_dict
        self._outputs = outputs or Outputs()
        self._accepted = _accepted(module)

    def with_module(self, module: nn.Module) -> "SequenceNetwork":
        """Return the same with another network inside."""
        return SequenceNetwork(module, self._own_layout, self.other_keys, self.as_dict, self.layout, self._outputs)

    @property
    def opaque(self) -> bool:
        """Whether torch cannot see the network's operations."""
        return isinstance(self.module, OpaqueNetwork)

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
        own = self._own_layout
        sequence = sequence if self.layout == own else convert(sequence, self.layout, own)
        sequence, others = self._typed(sequence, others)
        inputs: dict[Any, Any] = {own.key: sequence}
        for twin in own.twins:
            inputs[twin.key] = convert(sequence, own, twin, reverse=twin.reverse)
        references = {}
        for key, value in zip(self.other_keys, others, strict=True):
            if not isinstance(key, TextKey):
                inputs[key] = value
            elif key.is_sequence:
                references[key.key] = (value, key.kind)
            elif self.opaque:
                inputs[key.key] = decode(value.cpu().numpy(), key.kind)
        for layout in (own, *own.twins):
            if layout.text:
                inputs[layout.key] = _text(inputs[layout.key], *references.get(layout.key, (None, "U")))
        return self._outputs.join(self._call(inputs), len(sequence))

    def _typed(self, sequence: Tensor, others: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return sequences and real numbers in the type of the network, where it has one."""
        if not self.opaque and float_dtype(self.module) is None:
            return sequence, others
        wanted = sequence_dtype(self.module, self._own_layout)
        if wanted == sequence.dtype or (_embeds(self.module) and not sequence.is_floating_point()):
            return sequence, others
        real = [other.is_floating_point() and wanted.is_floating_point for other in others]
        return sequence.to(wanted), tuple(
            other.to(wanted) if moves else other for other, moves in zip(others, real, strict=True)
        )

    def _call(self, inputs: dict[Any, Any]) -> Any:
        in_order = [inputs[key] for key in (sorted(inputs) if len(inputs) > 1 and not self.as_dict else inputs)]
        if self.opaque:
            is_array = self._own_layout.key is None
            return self.module(in_order[0] if is_array else inputs if self.as_dict else in_order)
        if not self.as_dict:
            return self.module(*in_order)
        if self._accepted is None:
            return self.module(**inputs)
        if len(self._accepted) == 1 and self._accepted[0] not in inputs:
            return self.module(inputs)
        return self.module(**{key: tensor for key, tensor in inputs.items() if key in self._accepted})


def _text(sequence: Tensor, reference: Tensor | None, kind: str) -> np.ndarray:
    if reference is None:
        return to_text(sequence)
    return decode(with_bases(reference.cpu().numpy(), sequence), kind)


@dataclass(frozen=True)
class InputBatch:
    """References of a block of sequences on the device.

    Attributes
    ----------
    sequence : torch.Tensor, shape=(batch, *layout.shape)
        One-hot references.
    others : tuple of torch.Tensor
        The model's other inputs, batch first; texts, that of the sequence too, as numbers of their letters.
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


def find_module(model: Any, files: ModelFiles, part: str = "") -> nn.Module:
    """Return the network of a Kipoi model.

    Parameters
    ----------
    model
        The Kipoi model, or a member of an ensemble inside one.
    files
        The files of its model directory.
    part
        Which member it is.

    Returns
    -------
    torch.nn.Module
        The torch network that it carries; else its Keras model, or its `predict_on_batch`, as an `OpaqueNetwork`.

    Raises
    ------
    ModelError
        If it carries several torch networks and none is called `model`, or cannot predict.
    """
    named = getattr(model, "model", None)
    # On its torch backend a Keras model is an nn.Module, too.
    for candidate in (model, named):
        if is_keras(candidate):
            return KerasFunction(candidate)
    if isinstance(model, nn.Module) and type(model).forward is not nn.Module.forward:
        return model
    if isinstance(named, nn.Module):
        return named
    modules = {name: value for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, nn.Module)}
    if len(set(modules.values())) == 1:
        return next(iter(modules.values()))
    kind = type(model).__name__
    if modules:
        raise ModelError(f"{kind} carries several networks ({', '.join(modules)}): name the one to use `model`")
    if not callable(getattr(model, "predict_on_batch", None)):
        raise ModelError(
            f"{kind} carries no torch network (looked for an nn.Module among its attributes) and no Keras model, and has "
            "no predict_on_batch: it cannot be asked for predictions"
        )
    return PredictFunction(model, files, part=part)


def to_batch(
    inputs: Any, layout: Layout, device: torch.device, dtype: torch.dtype
) -> tuple[InputBatch, tuple[Key | TextKey, ...]]:
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
        Names of the other inputs, first the numbers, then the texts; what is neither is left out.
    """
    others = _others(inputs, layout)

    def tensor(array: np.ndarray, dtype: torch.dtype | None) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

    real = dtype if dtype.is_floating_point else None
    moved = tuple(tensor(array, real if array.dtype.kind == "f" else None) for array in others.values())
    return InputBatch(tensor(layout.one_hot(inputs), dtype), moved), tuple(others)


def other_inputs(inputs: Any, layout: Layout) -> list[Key | TextKey]:
    """Return the names of the inputs beside the sequence, in the order of `to_batch`."""
    return [key for key in _others(inputs, layout) if not is_sequence(key)]


def _others(inputs: Any, layout: Layout) -> dict[Key | TextKey, np.ndarray]:
    mutated = {layout.key, *(twin.key for twin in layout.twins)}
    given = dict(leaves(inputs))
    others: dict[Key | TextKey, np.ndarray] = {
        key: array for key, array in given.items() if key not in mutated and array.dtype.kind in "fiub"
    }
    for key, array in given.items():
        if is_text(array):
            others[TextKey(key, array.dtype.kind, key in mutated)] = encode(array)
    return others


def sequence_dtype(module: nn.Module, layout: Layout) -> torch.dtype:
    """Return the type in which the network takes sequences.

    It is that of the network's floating-point parameters, or float32 if it has none. Integers of the dataloader stay
    integers if the network has an embedding, which takes nothing else.
    """
    if layout.text:
        return float_dtype(module) or torch.float32
    given = torch.as_tensor(np.empty(0, layout.dtype)).dtype
    real = float_dtype(module) or (given if given.is_floating_point else torch.float32)
    return real if given.is_floating_point or not _embeds(module) else given


def _embeds(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())


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
    if isinstance(module, OpaqueNetwork):
        return module.weights_digest()
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
    Disagreement
        If the shapes or values differ, or the network cannot be called with these inputs: `predict_on_batch` does more
        than call the network.
    PredictionError
        If the model returns NaN or infinity.
    """
    with torch.inference_mode():
        try:
            each = [one(batch.sequence, *batch.others).cpu().double().numpy() for one in (network, *further)]
            ours = np.mean(each, axis=0)
        except ModelError:
            raise
        except Exception as error:
            names = "" if network.layout.key is None else f" {(network.layout.key, *network.other_keys)}"
            raise Disagreement(
                f"the network {type(network.module).__name__} cannot be called with the dataloader's inputs{names}: "
                f"{type(error).__name__}: {' '.join(str(error).split())}. Needed is a forward that takes what the dataloader gives: an array, "
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
        if isinstance(network.module, PredictFunction):
            raise Disagreement(f"the model's predict_on_batch gives {differ.replace('its network', 'then')}")
        raise Disagreement(f"the model's predict_on_batch gives {differ}: it does more than call the network")
