"""The networks whose draws give the errors: that of the model under MC-dropout, or the members of an ensemble."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import DeepMRError, ModelError, TaskError
from kipoi_deepmr.model import (
    Disagreement,
    InputBatch,
    LoadedModel,
    Outputs,
    PredictFunction,
    Selection,
    SequenceNetwork,
    check_agreement,
    find_layout,
    lent,
    load_model,
    sequence_dtype,
    to_batch,
    weights_digest,
)
from kipoi_deepmr.uncertainty import DropoutSite, explain_no_dropout, find_dropouts

logger = logging.getLogger(__name__)

_ROUGH = 20


@dataclass(frozen=True)
class Source:
    """A Kipoi model, or a network inside one, that gives draws.

    Attributes
    ----------
    name : str
        What to call it.
    model : LoadedModel
        The model.
    module : torch.nn.Module
        Its network.
    columns : tuple of int
        Columns of `outputs` that are exposures and outcomes, in their order.
    outputs : Outputs
        How its output becomes (batch, columns).
    """

    name: str
    model: LoadedModel
    module: nn.Module
    columns: tuple[int, ...]
    outputs: Outputs


@dataclass(frozen=True)
class Member:
    """A network that gives draws, on the device and in eval mode.

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


def find_sources(config: Config, model: LoadedModel, selection: Selection) -> list[Source]:
    """Return what gives the draws: the model itself, the networks inside it, or the models that the ensemble names.

    Raises
    ------
    ModelError
        If a member cannot be loaded or reads sequences of another length, or the model has no members inside.
    TaskError
        If a member lacks a task.
    """
    uncertainty, indices = config.uncertainty, selection.indices
    if uncertainty.method != "ensemble":
        return [_source(model.name, model, model.module, indices, selection)]
    if uncertainty.members is None:
        members = enumerate(model.members(), start=1)
        return [_source(f"member {number}", model, module, indices, selection) for number, module in members]
    sources = []
    for member in uncertainty.members:
        source = member.source or config.model.source
        same = (member.name, source) == (config.model.name, config.model.source)
        with _errors_named(member.name):
            loaded = model if same else load_model(member.name, source, config.directory)
            _check_length(loaded, config, model)
            own = _indices(loaded, selection)
            sources.append(_source(member.name, loaded, loaded.module, own, selection))
    return sources


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Let errors say which member of an ensemble they belong to."""
    try:
        yield
    except DeepMRError as error:
        raise type(error)(f"uncertainty.members: {name}: {error}") from error


def _check_length(member: LoadedModel, config: Config, main: LoadedModel) -> None:
    args, wanted = config.dataloader.args, config.sequences.length
    length, own = main.length(args, wanted), member.known_length(args, wanted)
    if own not in (None, length):
        raise ModelError(
            f"it reads sequences of {own} bp, {main.name} of {length} bp: the members of an ensemble predict the same windows, "
            "leave it out"
        )


def _source(name: str, model: LoadedModel, module: nn.Module, indices: Sequence[int], selection: Selection) -> Source:
    outputs, columns = read_out(model, indices, selection)
    return Source(name, model, module, columns, outputs)


def read_out(model: LoadedModel, indices: Sequence[int], selection: Selection) -> tuple[Outputs, tuple[int, ...]]:
    """Return how a model's output becomes (batch, columns), and which columns are the exposures and outcomes.

    Parameters
    ----------
    model
        The model of a configuration, or a member of an ensemble.
    indices
        Its tasks that are exposures and outcomes, in the order of `selection`.
    selection
        What is done to them.
    """
    asked = list(zip(indices, selection.reductions, strict=True))
    outputs = model.outputs((index, reduction) for index, reduction in asked if reduction is not None)
    return outputs, tuple(outputs.column(*one) for one in asked)


def _indices(model: LoadedModel, selection: Selection) -> tuple[int, ...]:
    targets = model.targets()
    places = {(target.label, target.occurrence, target.profile is None): target.index for target in targets}
    for side, named in (("exposures", selection.exposures), ("outcomes", selection.outcomes)):
        for key, target in named.items():
            if (target.label, target.occurrence, target.profile is None) not in places:
                shown = ", ".join(one.name for one in targets[:6])
                raise TaskError(
                    f"it has no output '{target.name}' ({side}.{key}); it has {len(targets)} "
                    f"({shown}{', ...' if len(targets) > 6 else ''}). The members of an ensemble predict the same tasks: "
                    "leave it out, or correct the labels in its model.yaml"
                )
    return tuple(places[target.label, target.occurrence, target.profile is None] for target in selection.targets)


@contextmanager
def lent_members(
    sources: Sequence[Source],
    main: LoadedModel,
    read: Callable[[LoadedModel], Any],
    codes: NDArray[np.int8],
    device: torch.device,
    *,
    draws: int,
    wanted: str | int | None = None,
) -> Iterator[tuple[tuple[Member, ...], torch.dtype]]:
    """Put networks on the device, checked against their models; at the end they are given back.

    Parameters
    ----------
    sources
        What gives the draws.
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
    tuple of Member
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
    inputs = read(main)
    layout = find_layout(inputs, codes, wanted)
    dtype = sequence_dtype(sources[0].module, layout)
    batch, other_keys = to_batch(inputs, layout, device, dtype)
    with ExitStack() as stack:
        networks: list[SequenceNetwork] = []
        expected: dict[int, NDArray[np.float64]] = {}
        for source in sources:
            stack.enter_context(lent(source.module, device))
            own = inputs if source.model is main else read(source.model)
            own_layout = layout if source.model is main else find_layout(own, codes, wanted)
            _, own_keys = to_batch(own, own_layout, device, dtype)
            if own_keys != other_keys:
                raise ModelError(
                    f"uncertainty.members: besides the sequence {source.name} takes {_listed(own_keys)}, {main.name} "
                    f"{_listed(other_keys)}: the members are called with the inputs of {main.name}, leave {source.name} out"
                )
            module = source.model.function(source.module) if own_layout.text else source.module
            given = (own_layout, own_keys, isinstance(own, dict), layout, source.outputs)
            networks.append(SequenceNetwork(module, *given).eval())
            expected.setdefault(id(source.model), source.model.predict(own, source.outputs))
        for model in {id(source.model): source.model for source in sources}.values():
            numbers = [number for number, source in enumerate(sources) if source.model is model]
            predicted = expected[id(model)]
            if predicted.shape[1] != sources[numbers[0]].outputs.width:
                raise _other_outputs(model, predicted.shape[1])
            for number, network in zip(
                numbers, _agreeing(model, [networks[n] for n in numbers], batch, predicted), strict=True
            ):
                networks[number] = network
        members = tuple(
            Member(source.name, network, source.columns, _sites(network, batch) if draws > 1 else (), digest)
            for source, network in zip(sources, networks, strict=True)
            for digest in [weights_digest(source.module)]
        )
        yield members, dtype


def _agreeing(
    model: LoadedModel, networks: list[SequenceNetwork], batch: InputBatch, expected: NDArray[np.float64]
) -> list[SequenceNetwork]:
    """Return networks that predict what their model predicts, the model's `predict_on_batch` where its network does not."""
    try:
        check_agreement(networks[0], batch, expected, networks[1:])
    except Disagreement as error:
        if len(networks) > 1 or isinstance(networks[0].module, PredictFunction):
            raise
        asked = networks[0].with_module(model.function(networks[0].module)).eval()
        check_agreement(asked, batch, expected)
        logger.warning("%s: every mutant goes through predict_on_batch, which the local engine cannot follow", error)
        return [asked]
    return networks


def _other_outputs(model: LoadedModel, outputs: int) -> ModelError:
    return ModelError(
        f"the schema of model {model.name} describes {len(model.targets())} outputs, the network gives {outputs}: "
        "its model.yaml does not belong to its weights"
    )


def _sites(network: SequenceNetwork, batch: InputBatch) -> tuple[DropoutSite, ...]:
    sites = find_dropouts(network, batch.sequence[:1], [other[:1] for other in batch.others])
    if not sites:
        raise explain_no_dropout(network.module)
    return sites


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(map(repr, keys)) or "nothing"


def digest_of(members: Sequence[Member]) -> str:
    """Return the sha256 of the weights of all members."""
    digests = [member.digest for member in members]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def cautions(config: Config, model: LoadedModel, members: Sequence[Member]) -> list[str]:
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
