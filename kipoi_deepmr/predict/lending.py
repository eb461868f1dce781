"""Members lent to a run: their networks on the device, checked against the models that they come from."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import DropoutError, ModelError
from kipoi_deepmr.model import (
    Disagreement,
    InputBatch,
    KipoiModel,
    Layout,
    PredictFunction,
    SequenceNetwork,
    check_agreement,
    find_layout,
    lent,
    other_inputs,
    sequence_dtype,
    to_batch,
    weights_digest,
)
from kipoi_deepmr.predict.members import Member, errors_named
from kipoi_deepmr.uncertainty import DropoutSite, explain_no_dropout, find_dropouts

logger = logging.getLogger(__name__)

_ROUGH = 20


@dataclass(frozen=True)
class LentMember:
    """A member whose network is on the device and in eval mode.

    Attributes
    ----------
    name : str
        What to call it.
    network : SequenceNetwork
        The network; all members are called with the inputs of the model that the configuration names.
    columns : tuple of int
        Columns of the network's output that are exposures and outcomes, in their order.
    sites : tuple of DropoutSite
        The dropouts that run in it; empty for a member that is a draw as it is.
    digest : str
        sha256 of its weights.
    """

    name: str
    network: SequenceNetwork
    columns: tuple[int, ...]
    sites: tuple[DropoutSite, ...]
    digest: str


@contextmanager
def lent_members(
    members: Sequence[Member],
    main: KipoiModel,
    read: Callable[[KipoiModel], Any],
    codes: NDArray[np.int8],
    device: torch.device,
    *,
    draws: int,
    wanted: str | int | None = None,
) -> Iterator[tuple[tuple[LentMember, ...], torch.dtype]]:
    """Put networks on the device, checked against their models; at the end they are given back.

    Parameters
    ----------
    members
        What gives the draws, from `find_members`.
    main
        The model whose dataloader makes the inputs of the run.
    read
        Reads the inputs of some windows through a model's own dataloader.
    codes
        Bases of these windows, shape (sequence, length), int8.
    device
        Where to put them.
    draws
        Thinned networks of each; 1 takes it as it is.
    wanted
        Which input is mutated, where several hold the sequence.

    Yields
    ------
    tuple of LentMember
        The networks.
    torch.dtype
        Type of the sequences on the device.

    Raises
    ------
    ModelError
        If a network does not predict what its model predicts, or cannot be called with the inputs of `main`.
    DropoutError
        If draws are asked for and a network has no dropout.
    """
    # Kipoi may have put a network on the GPU, where its predict_on_batch sends the inputs: all are asked before any moves.
    given = _read(main, read, codes, wanted)
    readings: dict[int, _Reading] = {id(main): given}
    for member in members:
        with _errors_of(member, main):
            if id(member.model) not in readings:
                readings[id(member.model)] = _read(member.model, read, codes, wanted)
            _check_same_inputs(member, readings[id(member.model)], main, given)
            readings[id(member.model)].predict(member)
    dtype = sequence_dtype(members[0].module, given.layout)
    batch, keys = to_batch(given.inputs, given.layout, device, dtype)
    with ExitStack() as stack:
        networks: list[SequenceNetwork] = []
        for member in members:
            stack.enter_context(lent(member.module, device))
            with _errors_of(member, main):
                networks.append(_network(member, readings[id(member.model)], given.layout, keys))
        for model in {id(member.model): member.model for member in members}.values():
            numbers = [number for number, member in enumerate(members) if member.model is model]
            with _errors_of(members[numbers[0]], main):
                agreeing = _agreeing(members[numbers[0]], [networks[n] for n in numbers], batch, readings[id(model)])
            for number, network in zip(numbers, agreeing, strict=True):
                networks[number] = network
        on_device = []
        for member, network in zip(members, networks, strict=True):
            sites = _sites(member, network, batch, len(members) > 1) if draws > 1 else ()
            on_device.append(LentMember(member.name, network, member.columns, sites, weights_digest(network.module)))
        yield tuple(on_device), dtype


class _Reading:
    """What a model reads of some windows, and what it predicts of them."""

    def __init__(self, model: KipoiModel, inputs: Any, layout: Layout) -> None:
        self.model, self.inputs, self.layout = model, inputs, layout
        self.predicted: NDArray[np.float64] | None = None

    def predict(self, member: Member) -> NDArray[np.float64]:
        """Return the predictions, made once.

        Raises
        ------
        ModelError
            If the model has other outputs than its schema describes.
        """
        if self.predicted is None:
            self.predicted = self.again(member)
            if self.predicted.shape[1] != member.outputs.width:
                raise _other_outputs(self.model, self.predicted.shape[1])
        return self.predicted

    def again(self, member: Member) -> NDArray[np.float64]:
        """Return the predictions, made anew."""
        return self.model.predict(self.inputs, member.outputs)

    @property
    def others(self) -> list[Any]:
        """Names of the inputs beside the sequence."""
        return other_inputs(self.inputs, self.layout)

    @property
    def has_text(self) -> bool:
        """Whether the sequence is text, which no network reads."""
        return any(layout.text for layout in (self.layout, *self.layout.twins))


def _read(
    model: KipoiModel, read: Callable[[KipoiModel], Any], codes: NDArray[np.int8], wanted: str | int | None
) -> _Reading:
    inputs = read(model)
    return _Reading(model, inputs, find_layout(inputs, codes, wanted))


def _errors_of(member: Member, main: KipoiModel) -> AbstractContextManager[None]:
    return nullcontext() if member.model is main else errors_named(member.name)


def _check_same_inputs(member: Member, reading: _Reading, main: KipoiModel, given: _Reading) -> None:
    own, shared = reading.others, given.others
    if own != shared:
        raise ModelError(
            f"besides the sequence {member.name} takes {_listed(own)}, {main.name} {_listed(shared)}: the members are called "
            f"with the inputs of {main.name}, leave {member.name} out"
        )


def _network(member: Member, reading: _Reading, given: Layout, keys: Sequence[Any]) -> SequenceNetwork:
    module = member.model.function(member.module) if reading.has_text else member.module
    as_dict = isinstance(reading.inputs, dict)
    return SequenceNetwork(module, reading.layout, tuple(keys), as_dict, given, member.outputs).eval()


def _agreeing(
    member: Member, networks: list[SequenceNetwork], batch: InputBatch, reading: _Reading
) -> list[SequenceNetwork]:
    """Return networks that predict what their model predicts, the model's `predict_on_batch` where its network does not."""
    expected = reading.predict(member)
    try:
        check_agreement(networks[0], batch, expected, networks[1:])
    except Disagreement as error:
        if len(networks) > 1:
            raise
        if isinstance(networks[0].module, PredictFunction):
            raise _explained(error, expected, reading.again(member)) from error
        asked = networks[0].with_module(member.model.function(networks[0].module)).eval()
        try:
            check_agreement(asked, batch, expected)
        except Disagreement as second:
            raise _explained(second, expected, reading.again(member)) from error
        logger.warning("%s: every mutant goes through predict_on_batch, which the delta engine cannot follow", error)
        return [asked]
    return networks


def _explained(error: Disagreement, expected: NDArray[np.float64], again: NDArray[np.float64]) -> ModelError:
    if not np.allclose(expected, again, rtol=1e-4, atol=1e-4):
        return ModelError(
            "the model's predict_on_batch gives other values, asked for the same sequences again: chance is at work in it"
        )
    return ModelError(
        f"{error}. Asked with the dataloader's own inputs it gives the same values each time: it reads something in them that "
        "is neither the sequence nor a number or text beside it, such as the type of an array"
    )


def _other_outputs(model: KipoiModel, outputs: int) -> ModelError:
    return ModelError(
        f"the schema of model {model.name} describes {len(model.targets())} outputs, the network gives {outputs}: "
        "its model.yaml does not belong to its weights"
    )


def _sites(member: Member, network: SequenceNetwork, batch: InputBatch, several: bool) -> tuple[DropoutSite, ...]:
    sites = find_dropouts(network, batch.sequence[:1], [other[:1] for other in batch.others])
    if not sites and several:
        raise DropoutError(
            f"uncertainty.draws asks for thinned networks of each member, but no dropout runs in {member.name}: leave it out, "
            "or write draws: 1, which takes each member as it is"
        )
    if not sites:
        raise explain_no_dropout(network.module)
    return sites


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(map(repr, keys)) or "nothing"


def digest_of(members: Sequence[LentMember]) -> str:
    """Return the sha256 of the weights of all members."""
    digests = [member.digest for member in members]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def cautions(config: Config, model: KipoiModel, members: Sequence[LentMember]) -> list[str]:
    """Return what a user should know of an ensemble: few members, equal ones, a model that is not among them."""
    if config.uncertainty.method != "ensemble":
        return []
    said, names = [], [member.name for member in members]
    if len(members) < _ROUGH:
        said.append(
            f"the ensemble has {len(members)} members: an error estimated from so few is itself uncertain by about "
            f"{100 / np.sqrt(2 * (len(members) - 1)):.0f}%, and all sequences share it"
        )
    for number, member in enumerate(members):
        same = [other.name for other in members[:number] if other.digest == member.digest]
        if same:
            said.append(f"the members {same[0]} and {member.name} have the same weights: they count as two draws")
    if config.uncertainty.members is not None and model.name not in names and config.model.name not in names:
        said.append(f"{config.model.name} itself is not a member of the ensemble ({', '.join(names)})")
    return said
