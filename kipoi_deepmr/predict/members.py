"""What gives the draws: the model, the networks inside it, or the models that an ensemble names, and their columns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import DeepMRError, ModelError, TaskError
from kipoi_deepmr.model import KipoiModel, Outputs, Selection, load_model


@dataclass(frozen=True)
class Member:
    """One network whose predictions are draws, as it is found: that of a Kipoi model, or one inside it.

    Attributes
    ----------
    name : str
        What to call it.
    model : KipoiModel
        The Kipoi model.
    module : torch.nn.Module
        The network.
    columns : tuple of int
        Columns of `outputs` that are exposures and outcomes, in their order.
    outputs : Outputs
        How its output becomes (batch, columns).
    """

    name: str
    model: KipoiModel
    module: nn.Module
    columns: tuple[int, ...]
    outputs: Outputs


def find_members(config: Config, model: KipoiModel, selection: Selection) -> list[Member]:
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
        return [_member(model.name, model, model.module, indices, selection)]
    if uncertainty.members is None:
        members = enumerate(model.members(), start=1)
        return [_member(f"member {number}", model, module, indices, selection) for number, module in members]
    found = []
    for member in uncertainty.members:
        source = member.source or config.model.source
        same = (member.name, source) == (config.model.name, config.model.source)
        with errors_named(member.name):
            loaded = model if same else load_model(member.name, source, config.directory)
            _check_length(loaded, config, model)
            own = _indices(loaded, selection)
            found.append(_member(member.name, loaded, loaded.module, own, selection))
    return found


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Let errors say which member of an ensemble they belong to."""
    try:
        yield
    except DeepMRError as error:
        raise type(error)(f"uncertainty.members: {name}: {error}") from error


def _check_length(member: KipoiModel, config: Config, main: KipoiModel) -> None:
    args, wanted = config.dataloader.args, config.sequences.length
    length, own = main.length(args, wanted), member.known_length(args, wanted)
    if own not in (None, length):
        raise ModelError(
            f"it reads sequences of {own} bp, {main.name} of {length} bp: the members of an ensemble predict the same windows, "
            "leave it out"
        )


def _member(name: str, model: KipoiModel, module: nn.Module, indices: Sequence[int], selection: Selection) -> Member:
    outputs, columns = read_out(model, indices, selection)
    return Member(name, model, module, columns, outputs)


def read_out(model: KipoiModel, indices: Sequence[int], selection: Selection) -> tuple[Outputs, tuple[int, ...]]:
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


def _indices(model: KipoiModel, selection: Selection) -> tuple[int, ...]:
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
