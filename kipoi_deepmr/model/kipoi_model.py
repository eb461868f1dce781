"""A loaded Kipoi model: its predictions, its outputs under unique names, what its dataloader is given."""

import inspect
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.function import ModelFiles, OpaqueNetwork, PredictFunction, to_tensors
from kipoi_deepmr.model.layout import leaves
from kipoi_deepmr.model.model_yaml import read_description
from kipoi_deepmr.model.network import evaluating, find_module, float_dtype, weights_digest
from kipoi_deepmr.model.outputs import Outputs, Reduction
from kipoi_deepmr.model.schema import OutputArray, output_arrays, sequence_length
from kipoi_deepmr.model.targets import Profile, Targets

logger = logging.getLogger(__name__)

_LONGEST = 400
_FASTA_NAMES = ("fasta_file", "fasta", "genome_file", "ref_fasta", "genome_fasta")


@dataclass(frozen=True)
class KipoiModel:
    """A Kipoi model, ready to be asked.

    Attributes
    ----------
    kipoi
        The object that `kipoi.get_model` returns.
    name, source : str
        What the user called it.
    folder : pathlib.Path
        Its local directory, which the models of a group share.
    """

    kipoi: Any
    name: str
    source: str
    folder: Path

    @cached_property
    def module(self) -> nn.Module:
        """The torch network inside, or the model as an `OpaqueNetwork`."""
        return find_module(self.kipoi, self._files)

    @property
    def _files(self) -> ModelFiles:
        return ModelFiles(
            self.folder, json.dumps(read_description(self.name, self.folder), sort_keys=True, default=str)
        )

    def members(self) -> list[nn.Module]:
        """Return the networks of the ensemble inside the model: its attribute `members`, a sequence or a dict.

        Raises
        ------
        ModelError
            If there is none, or it does not hold several networks.
        """
        found = getattr(self.kipoi, "members", None)
        if found is None:
            found = getattr(getattr(self.kipoi, "model", None), "members", None)
        # nn.ModuleDict is no Mapping.
        held = found.values() if isinstance(found, Mapping | nn.ModuleDict) else found
        members = list(held) if isinstance(held, Iterable) else []
        if len(members) < 2:
            seen = "it has no such attribute" if found is None else f"it holds {len(members)}, {type(found).__name__}"
            raise ModelError(
                f"uncertainty.method is ensemble, but model {self.name} has no members inside (looked for an attribute "
                f"`members` with at least two networks; {seen}): name several models of the same tasks as "
                "uncertainty.members"
            )
        return [find_module(member, self._files, f"member {n}") for n, member in enumerate(members, start=1)]

    def function(self, inner: nn.Module) -> PredictFunction:
        """Return the model's `predict_on_batch` as a network, for what only it can read or do.

        Raises
        ------
        ModelError
            If `inner`, a network in it, is not the one that it calls.
        """
        if isinstance(inner, PredictFunction):
            return inner
        if inner is not self.module:
            raise ModelError(f"the members inside model {self.name} are no networks for its inputs: it reads text")
        return PredictFunction(self.kipoi, self._files, None if isinstance(inner, OpaqueNetwork) else inner)

    @property
    def dataloader(self) -> type:
        """Class of the model's default Kipoi dataloader."""
        loader: type | None = self.kipoi.default_dataloader
        if loader is None:
            raise ModelError(f"model {self.name} has no default dataloader: kipoi_deepmr reads sequences through it")
        return loader

    def predict(self, inputs: Any, outputs: Outputs | None = None) -> np.ndarray:
        """Return `predict_on_batch` of the Kipoi model as (batch, columns), float64.

        Parameters
        ----------
        inputs
            Batch of inputs, as the dataloader gives it.
        outputs
            What is done to its output. Default: profiles are summed.

        Raises
        ------
        ModelError
            If it fails, or its output is not understood.
        """
        rows = len(next(array for _, array in leaves(inputs)))
        module = self.module
        try:
            with evaluating(module), torch.no_grad():
                output = self.kipoi.predict_on_batch(_cast(inputs, float_dtype(module)))
        except Exception as error:
            given = ", ".join(f"{'' if key is None else f'{key}: '}{a.dtype} {a.shape}" for key, a in leaves(inputs))
            raise ModelError(
                f"the model's predict_on_batch failed on the dataloader's inputs ({given}): {reason(error)}. If the "
                "type is wrong, dataloader.args can often change it, as in dtype: np.float32"
            ) from error
        self._check_structure(output)
        try:
            tensors = to_tensors(output, torch.device("cpu"))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the output of model {self.name} is not understood: {type(output).__name__} holds no arrays of numbers "
                f"({error}). Needed is an array, or a list or dict of arrays, each (batch, tasks) or a profile"
            ) from error
        joined = (outputs or self.outputs()).join(tensors, rows)
        return joined.detach().double().numpy()

    def _check_structure(self, output: Any) -> None:
        """Check that outputs can be told apart by the names of the schema, whatever their order."""
        schemas = self.kipoi.schema.targets
        described = sorted(map(str, schemas)) if isinstance(schemas, Mapping) else None
        returned = sorted(map(str, output)) if isinstance(output, Mapping) else None
        several = max(len(described or ()), len(returned or ())) > 1
        if several and described != returned:
            raise ModelError(
                f"model {self.name} returns {returned or type(output).__name__}, but its schema describes "
                f"{described or type(schemas).__name__}: its outputs cannot be told apart; correct its model.yaml"
            )

    def labels(self) -> list[str] | None:
        """Return the labels that the model's schema gives, in the order of its outputs; None when it gives none.

        With several output arrays a label is ``array/label``; the arrays of a dict stand in the order of their names. The
        tracks of a profile are followed by all of them together, under the name of the array.
        """
        labels: list[str] = []
        for array in self._outputs:
            own = array.task_labels(several=len(self._outputs) > 1)
            if not own:
                return None
            labels += own
        return labels

    def outputs(self, asked: Iterable[tuple[int, Reduction]] = ()) -> Outputs:
        """Return how the model's output becomes (batch, columns).

        Parameters
        ----------
        asked
            What is done to profiles, by the index of their tasks. Default: profiles are summed.
        """
        count = self._output_count()
        count = len(self.labels() or ()) if count is None else count
        return Outputs(tuple(array.track_axis for array in self._outputs), tuple(asked), count)

    def targets(self) -> Targets:
        """Return the outputs under unique names.

        Labels are used when there is one per output; else the outputs are called output_0, output_1 and so on.

        Raises
        ------
        ModelError
            If the schema says neither the labels nor the number of outputs, or does not tell the positions of a profile
            from its tracks.
        """
        labels, count = self.labels(), self._output_count()
        if count is None and labels is None:
            shapes = ", ".join(str(array.shape) for array in self._outputs)
            raise ModelError(
                f"the schema of model {self.name} gives its outputs the shape {shapes} and no labels: needed is one "
                "number per task, (tasks,), or a profile, (positions, tracks) or (tracks, positions)"
            )
        if labels is not None and count not in (None, len(labels)):
            logger.warning(
                "the schema of model %s gives %d labels for %d outputs: its outputs are called output_0 to output_%d",
                self.name,
                len(labels),
                count,
                (count or 0) - 1,
            )
            labels = None
        if labels is None:
            labels = [f"output_{index}" for index in range(count or 0)]
        profiles: list[Profile | None] = []
        for array in self._outputs:
            profile = Profile(array.positions, array.tracks or 0, len(profiles))
            profiles += [None if array.track_axis is None else profile] * (array.tasks or 0)
        return Targets([label or f"output_{index}" for index, label in enumerate(labels)], profiles)

    @cached_property
    def _outputs(self) -> list[OutputArray]:
        try:
            length = self.known_length({}, None)
        except ConfigError:  # `length` asks for it where it is needed
            length = None
        return output_arrays(self.kipoi.schema.targets, length)

    def _output_count(self) -> int | None:
        sizes = [array.tasks for array in self._outputs]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def length(self, args: Mapping[str, Any], wanted: int | None) -> int:
        """Return the length of the model's sequences in bp.

        Parameters
        ----------
        args
            The dataloader arguments of the configuration.
        wanted
            `sequences.length` of the configuration.

        Raises
        ------
        ConfigError
            If the configuration contradicts the dataloader, or nothing says the length.
        """
        found = self.known_length(args, wanted)
        if not found:
            raise ConfigError(
                f"neither the dataloader nor the schema of model {self.name} says how long its sequences are: "
                "write it as sequences.length"
            )
        return found

    def known_length(self, args: Mapping[str, Any], wanted: int | None) -> int | None:
        """Return the same, None where nothing says it."""
        fixed = self._resize_length(args)
        if fixed and wanted and fixed != wanted:
            raise ConfigError(f"sequences.length is {wanted}, but the model's dataloader makes sequences of {fixed} bp")
        return fixed or wanted or sequence_length(self.kipoi.schema.inputs)

    def _resize_length(self, args: Mapping[str, Any]) -> int | None:
        fixed = self.argument(args, "auto_resize_len", None)
        if fixed is not None and (not isinstance(fixed, int) or isinstance(fixed, bool) or fixed < 1):
            raise ConfigError(f"dataloader.args.auto_resize_len is {fixed!r}: needed is a number of bp")
        return fixed

    def argument(self, args: Mapping[str, Any], name: str, otherwise: Any) -> Any:
        """Return what the dataloader gets for an argument: the configuration's value, else its own default."""
        known = _parameters(self.dataloader).get(name)
        default = otherwise if known is None or known.default is inspect.Parameter.empty else known.default
        return args.get(name, default)

    def dataloader_args(self, config: Config) -> dict[str, Any]:
        """Return the dataloader arguments with every file path absolute."""
        fasta = self.fasta_arg(config)

        def absolute(value: Any) -> Any:
            if isinstance(value, list):
                return [absolute(part) for part in value]
            return str(config.resolve(value)) if isinstance(value, str) and _is_file(config, value) else value

        resolved = {name: absolute(value) for name, value in config.dataloader.args.items()}
        return {**resolved, fasta: str(config.resolve(config.dataloader.args[fasta]))}

    def fasta_arg(self, config: Config) -> str:
        """Return the name of the dataloader's argument for the FASTA file.

        Raises
        ------
        ConfigError
            If the dataloader has none that can be recognised, or the configuration does not give it.
        """
        named = [config.dataloader.fasta_arg] if config.dataloader.fasta_arg else self.known_fasta_args()
        if not named:
            raise ConfigError(
                f"which argument of the dataloader is the FASTA file? It takes {', '.join(self._arguments())}: "
                "name it as dataloader.fasta_arg"
            )
        if not isinstance(config.dataloader.args.get(named[0]), str):
            raise ConfigError(
                f"dataloader.args.{named[0]} is required: the FASTA file of the genome that the peaks use"
            )
        return named[0]

    def known_fasta_args(self) -> list[str]:
        """Return the dataloader's arguments that are called as those for the FASTA file are."""
        return [name for name in _FASTA_NAMES if name in self._arguments()]

    def _arguments(self) -> list[str]:
        return list(getattr(self.dataloader, "args", None) or _parameters(self.dataloader))

    def weights_digest(self) -> str:
        """Return the sha256 of the network's parameters and buffers."""
        return weights_digest(self.module)

    def suggested_config(self) -> dict[str, Any]:
        """Return the block `postprocessing: deepmr:` of the model's model.yaml, empty when there is none.

        Raises
        ------
        ConfigError
            If it is no mapping.
        """
        block: Any = read_description(self.name, self.folder)
        for key in ("postprocessing", "deepmr"):
            block = block.get(key) if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping | None):
            raise ConfigError(f"`postprocessing: deepmr:` of {self.folder}: expected keys, found {block!r}")
        return dict(block or {})


def _cast(inputs: Any, dtype: torch.dtype | None) -> Any:
    """Return inputs with floating-point numbers in the type of the network; kipoiseq gives float64 by default."""
    if isinstance(inputs, dict):
        return {key: _cast(value, dtype) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [_cast(value, dtype) for value in inputs]
    array = np.asarray(inputs)
    if array.dtype.kind != "f" or dtype is None or dtype == torch.bfloat16:
        return array
    return array.astype(torch.empty(0, dtype=dtype).numpy().dtype, copy=False)


def _parameters(dataloader: Any) -> Mapping[str, inspect.Parameter]:
    parameters = dict(inspect.signature(dataloader.__init__).parameters)
    parameters.pop("self", None)
    return parameters


def _is_file(config: Config, value: str) -> bool:
    try:
        return bool(value.strip()) and config.resolve(value).exists()
    except (OSError, ValueError):  # too long, or not a path at all
        return False


def causes(error: BaseException | None) -> Sequence[BaseException]:
    """Return an error and those behind it."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def reason(error: Exception) -> str:
    """Return what an error and the first cause behind it say, each cut to a few lines' length."""
    said = []
    for part in (error, causes(error)[-1]):
        text = " ".join(str(part).split()) or "no message"
        said.append(f"{type(part).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}")
    return " <- ".join(dict.fromkeys(said))
