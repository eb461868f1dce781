"""Load a Kipoi model from any source, with errors that say what happened."""

import functools
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.layout import Layout
from kipoi_deepmr.model.network import columns, find_module, output_parts
from kipoi_deepmr.model.targets import Targets

_FASTA_NAMES = ("fasta_file", "fasta", "genome_file", "ref_fasta", "genome_fasta")


@dataclass(frozen=True)
class LoadedModel:
    """A Kipoi model, ready to be asked.

    Attributes
    ----------
    kipoi
        The object that `kipoi.get_model` returns.
    name, source : str
        What the user called it.
    folder : pathlib.Path
        Its local directory.
    """

    kipoi: Any
    name: str
    source: str
    folder: Path

    @property
    def module(self) -> nn.Module:
        """The torch network inside."""
        return find_module(self.kipoi)

    @property
    def dataloader(self) -> type:
        """Class of the model's default Kipoi dataloader."""
        loader: type | None = self.kipoi.default_dataloader
        if loader is None:
            raise ModelError(f"model {self.name} has no default dataloader: kipoi_deepmr reads sequences through it")
        return loader

    def predict(self, inputs: Any) -> np.ndarray:
        """Return `predict_on_batch` of the Kipoi model as (batch, tasks), float64."""
        rows = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
        rows = len(inputs[0]) if isinstance(inputs, list) else rows
        parts = [columns(np.asarray(part), rows) for _, part in output_parts(self.kipoi.predict_on_batch(inputs))]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def labels(self) -> list[str] | None:
        """Return the labels that the model's schema gives, in the order of its outputs; None when it gives none."""
        schemas = self.kipoi.schema.targets
        labels: list[str] = []
        for key, schema in output_parts(schemas if isinstance(schemas, Mapping | list | tuple) else [schemas]):
            own = [str(label) for label in schema.column_labels or ()]
            if not own and tuple(schema.shape or ()) in ((1,), ()) and schema.name:
                own = [str(schema.name)]
            if not own:
                return None
            several = isinstance(schemas, Mapping | list | tuple) and len(schemas) > 1
            labels += [f"{schema.name or key}/{label}" if several and len(own) > 1 else label for label in own]
        return labels

    def targets(self) -> Targets:
        """Return the outputs under unique names.

        Labels are used when there is one per output; else the outputs are called output_0, output_1 and so on.

        Raises
        ------
        ModelError
            If the schema says neither the labels nor the number of outputs.
        """
        labels, count = self.labels(), self._output_count()
        if count is None and labels is None:
            raise ModelError(f"the schema of model {self.name} does not say how many outputs it has")
        if labels is None or count not in (None, len(labels)):
            labels = [f"output_{index}" for index in range(count or 0)]
        return Targets(labels)

    def _output_count(self) -> int | None:
        schemas = self.kipoi.schema.targets
        sizes = []
        for _, schema in output_parts(schemas if isinstance(schemas, Mapping | list | tuple) else [schemas]):
            shape = tuple(schema.shape or ())
            if len(shape) > 1 or None in shape:
                return None
            sizes.append(int(shape[0]) if shape else 1)
        return sum(sizes)

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
        fixed = self.argument(args, "auto_resize_len", None)
        if fixed and wanted and fixed != wanted:
            raise ConfigError(f"sequences.length is {wanted}, but the model's dataloader makes sequences of {fixed} bp")
        found = fixed or wanted or self._schema_length()
        if not found:
            raise ConfigError(
                f"neither the dataloader nor the schema of model {self.name} says how long its sequences are: "
                "write it as sequences.length"
            )
        return int(found)

    def argument(self, args: Mapping[str, Any], name: str, otherwise: Any) -> Any:
        """Return what the dataloader gets for an argument: the configuration's value, else its own default."""
        known = inspect.signature(self.dataloader.__init__).parameters.get(name)
        default = otherwise if known is None or known.default is inspect.Parameter.empty else known.default
        return args.get(name, default)

    def _schema_length(self) -> int | None:
        schemas = self.kipoi.schema.inputs
        for _, schema in output_parts(schemas if isinstance(schemas, Mapping | list | tuple) else [schemas]):
            sizes = [size for size in tuple(schema.shape or ()) if size not in (None, 1)]
            if 4 in sizes and len(sizes) == 2:
                return int(next((size for size in sizes if size != 4), 4))
        return None

    def dataloader_args(self, config: Config) -> dict[str, Any]:
        """Return the dataloader arguments with every file path absolute."""
        resolved = dict(config.dataloader.args)
        for name, value in resolved.items():
            if isinstance(value, str) and (name == self.fasta_arg(config) or config.resolve(value).exists()):
                resolved[name] = str(config.resolve(value))
        return resolved

    def fasta_arg(self, config: Config) -> str:
        """Return the name of the dataloader's argument for the FASTA file.

        Raises
        ------
        ConfigError
            If the dataloader has none that can be recognised, or the configuration does not give it.
        """
        accepted = list(self.kipoi.default_dataloader.args or inspect.signature(self.dataloader.__init__).parameters)
        named = (
            [config.dataloader.fasta_arg] if config.dataloader.fasta_arg else [n for n in _FASTA_NAMES if n in accepted]
        )
        if not named:
            raise ConfigError(
                f"which argument of the dataloader is the FASTA file? It takes {', '.join(accepted)}: "
                "name it as dataloader.fasta_arg"
            )
        if not isinstance(config.dataloader.args.get(named[0]), str):
            raise ConfigError(
                f"dataloader.args.{named[0]} is required: the FASTA file of the genome that the peaks use"
            )
        return named[0]

    def weights_digest(self) -> str:
        """Return the sha256 of the network's parameters and buffers."""
        import hashlib

        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def suggested_config(self) -> dict[str, Any]:
        """Return the block `postprocessing: deepmr:` of the model's model.yaml, empty when there is none."""
        path = next((p for p in (self.folder / "model.yaml", self.folder / "model.yml") if p.exists()), None)
        described = yaml.safe_load(path.read_text()) if path else None
        block = ((described or {}).get("postprocessing") or {}).get("deepmr") or {}
        return dict(block)


def load_model(name: str, source: str = "kipoi", directory: Path | None = None) -> LoadedModel:
    """Load a Kipoi model.

    Parameters
    ----------
    name
        Name in the source; with source ``dir`` a path, relative to `directory`.
    source
        Kipoi source, such as kipoi, dir, github-permalink or one of ``~/.kipoi/config.yaml``.
    directory
        Folder from which a relative path is counted. Default: the working directory.

    Raises
    ------
    ModelError
        If there is no such model or source, its files cannot be had, or it cannot be built here.
    """
    if source == "dir":
        path = (directory or Path.cwd()) / Path(name).expanduser()
        if not any((path / file).exists() for file in ("model.yaml", "model.yml")):
            raise ModelError(f"{path} is not a Kipoi model directory: it has no model.yaml")
        name = str(path.resolve())
    import kipoi

    try:
        source_object = kipoi.config.get_source(source)
    except Exception as error:
        known = ", ".join(kipoi.config.list_sources()["source"])
        raise ModelError(f"unknown Kipoi source '{source}' (known: {known}; dir for a local directory)") from error
    try:
        source_object.pull_model(name)
        folder = Path(source_object.get_model_dir(name))
    except Exception as error:
        raise ModelError(_explain_source(name, source, error)) from error
    try:
        with _fresh_modules(folder), _weights_on_cpu_without_cuda():
            loaded = kipoi.get_model(name, source=source)
    except Exception as error:
        raise ModelError(_explain_load(name, folder, error)) from error
    return LoadedModel(loaded, name, source, folder)


@contextmanager
def _fresh_modules(folder: Path) -> Iterator[None]:
    """Keep a model's own model.py and dataloader.py from being taken from another model's import."""
    stems = {path.stem for path in folder.glob("*.py")}
    foreign = {stem for stem in stems & set(sys.modules) if not _installed(sys.modules[stem])}
    hidden = {stem: sys.modules.pop(stem) for stem in foreign}
    try:
        yield
    finally:
        for stem in stems:
            module = sys.modules.get(stem)
            if module is not None and _inside(module, folder):
                del sys.modules[stem]
        for stem, module in hidden.items():
            sys.modules.setdefault(stem, module)


def _installed(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or "site-packages" in file or file.startswith(os.path.dirname(os.__file__))


def _inside(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and folder.resolve() in Path(file).resolve().parents


@contextmanager
def _weights_on_cpu_without_cuda() -> Iterator[None]:
    """Let weights that were saved on a GPU load on a machine without one: Kipoi passes no map_location."""
    if torch.cuda.is_available():
        yield
        return
    original = torch.load
    torch.load = functools.partial(original, map_location="cpu")
    try:
        yield
    finally:
        torch.load = original


def _explain_source(name: str, source: str, error: Exception) -> str:
    reason = _reason(error)
    if source == "kipoi":
        return (
            f"model {name} cannot be had from the Kipoi zoo: {reason}. Either the name is wrong (`kipoi ls` lists the "
            "models), or the zoo could not be reached: it is cloned from GitHub at first use, which needs network "
            "access; a local copy of the model works with source: dir"
        )
    return f"model {name} cannot be had from source '{source}': {reason}"


def _explain_load(name: str, folder: Path, error: Exception) -> str:
    reason = _reason(error)
    text = f"model {name} ({folder}) cannot be loaded: {reason}"
    chain = " ".join(str(part) for part in _chain(error))
    if "Weights only load failed" in chain or "weights_only" in chain:
        return (
            f"{text}. Its weight file is a pickled object, not a state dict, and torch refuses to run code from it: "
            "save `model.state_dict()` instead"
        )
    missing = next((part.name for part in _chain(error) if isinstance(part, ModuleNotFoundError)), None)
    if missing:
        return f"{text}. The model needs the package '{missing}': install it (see the dependencies in its model.yaml)"
    if isinstance(error, OSError) or "urlopen" in chain or "download" in chain.lower():
        return f"{text}. A file of the model could not be read or downloaded: check the path or the network"
    return text


def _chain(error: BaseException | None) -> Sequence[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _reason(error: Exception) -> str:
    """Return what an error and the error behind it say, a line each."""
    said = []
    for part in (error, _chain(error)[-1]):
        first = str(part).strip().splitlines()
        said.append(f"{type(part).__name__}: {first[0] if first else 'no message'}")
    return " <- ".join(dict.fromkeys(said))
