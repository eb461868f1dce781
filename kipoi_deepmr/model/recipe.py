"""A torch network outside the zoo as a Kipoi model directory: model.yaml, model.py and its weights."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.imports import imported_files, is_installed, root_of, without
from kipoi_deepmr.model.kipoi_model import KipoiModel, reason
from kipoi_deepmr.model.loading import load_model
from kipoi_deepmr.model.outputs import output_parts
from kipoi_deepmr.model.probe import InputShape, find_shape, input_dtype, position_axes
from kipoi_deepmr.terms import ALLELES

_WEIGHTS = "weights.pt"
_TOLERANCE = 1e-5


def write_recipe(
    target: str,
    folder: Path,
    *,
    length: int,
    kwargs: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    alphabet: str = "".join(ALLELES),
    labels: Sequence[str] = (),
    shape: Sequence[int] = (),
    overwrite: bool = False,
) -> KipoiModel:
    """Write a Kipoi model directory for a torch network, and load it to see that it predicts the same.

    Parameters
    ----------
    target
        ``module:object``: an `nn.Module`, or a class or function that gives one. A module that is not installed is looked
        for in the working directory; its file becomes ``model.py``, and the files beside it that it imports are copied. A
        module in a package is copied with the package's files that it imports.
    folder
        Where to write.
    length
        Length of its sequences in bp.
    kwargs
        Arguments of the class or function.
    weights
        State dict to load. Default: the weights that the object has.
    alphabet
        Order of the bases.
    labels
        Names of its tasks, one for each output of a network with one output array.
    shape
        Shape of its input without the batch axis. Default: the only one that it takes.
    overwrite
        Whether files that are there may be replaced.

    Returns
    -------
    KipoiModel
        The model as Kipoi loads it.

    Raises
    ------
    ConfigError
        If an argument cannot be used, the network takes several shapes, or a file is there already.
    ModelError
        If the network does not take one-hot sequences of this length, its output is not understood, or the files alone do
        not make the same network. Nothing is then written.
    """
    if sorted(alphabet) != sorted(ALLELES):
        raise ConfigError(f"alphabet '{alphabet}': needed are the letters A, C, G and T in the order of the network")
    with _working_directory_on_path():
        network, files, root = _network(target, dict(kwargs or {}))
    there = [name for name in ("model.yaml", *files, _WEIGHTS) if (folder / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{folder} has {', '.join(there)} already: replace them with --overwrite or choose another name"
        )
    if weights is not None:
        _load_weights(network, weights)
    network.eval()
    found, output = find_shape(network, length, shape)
    described = _schema(output, labels, length, position_axes(network, found, output))
    files["model.yaml"] = _model_yaml(target, found, alphabet, input_dtype(network), described)
    with tempfile.TemporaryDirectory(prefix="kipoi_deepmr_") as scratch:
        _write(network, files, Path(scratch))
        with without(root) if root else nullcontext():
            _check_same(network, load_model(scratch, "dir"), found)
        try:
            shutil.copytree(scratch, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error}") from error
    return load_model(str(folder.resolve()), "dir")


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    path = str(Path.cwd())
    added = path not in sys.path
    if added:
        sys.path.insert(0, path)
    try:
        yield
    finally:
        if added:
            sys.path.remove(path)


def _network(target: str, kwargs: dict[str, Any]) -> tuple[nn.Module, dict[str, str], Path | None]:
    """Return the network of ``module:object``, the code of its files, and the folder of a module that is not installed."""
    name, _, attribute = target.partition(":")
    if not name or not attribute.isidentifier():
        raise ConfigError(f"--from-torch {target}: write module:object, such as bpnetlite:BPNet")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--from-torch {target}: {name} cannot be imported ({error}): install its package, or go to the folder of "
            f"{name.partition('.')[0]}.py"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"--from-torch {target}: {name} has no {attribute}")
    found = getattr(module, attribute)
    is_network = isinstance(found, nn.Module)
    if is_network and kwargs:
        raise ConfigError(f"--from-torch {target}: {attribute} is a network already, which takes no --kwargs")
    try:
        network = found if is_network else found(**kwargs)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise ConfigError(f"--from-torch {target}: {attribute}({given}) fails: {reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"--from-torch {target}: {attribute} gives {type(network).__name__}, needed is a torch.nn.Module"
        )
    written = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    made = attribute if is_network else f"{attribute}({written})"
    imported = f'"""{target} as a Kipoi model."""\n\nfrom {name} import {attribute}\n\nnet = {made}\n'
    if is_installed(module):
        return network, {"model.py": imported}, None
    root, own = root_of(module), Path(str(module.__file__)).resolve()
    code = {str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in imported_files(module)}
    if own.parent == root:
        text = code.pop(own.name)
        imported = f"{text.rstrip()}\n\n\nnet = {made}\n"
    if "model.py" in code:
        raise ConfigError(
            f"--from-torch {target}: it imports {root / 'model.py'}, but model.py is the file that is written: rename that one"
        )
    return network, {"model.py": imported, **code}, root


def _write(network: nn.Module, files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    torch.save(network.state_dict(), folder / _WEIGHTS)


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ConfigError(f"--weights {path}: there is no such file") from None
    except Exception as error:
        raise ModelError(f"--weights {path} are not those of this network: {reason(error)}") from error


def _schema(output: Any, labels: Sequence[str], length: int, positions: Sequence[int | None]) -> Any:
    parts = [(key, tuple(part.shape)) for key, part in output_parts(output)]
    if labels and (len(parts) > 1 or (len(parts[0][1]) > 1 and len(labels) not in parts[0][1][1:])):
        raise ConfigError(
            f"{len(labels)} labels for the outputs {', '.join(str(shape[1:]) for _, shape in parts)}: give one for each "
            "task of a single output"
        )
    entries = []
    for (key, shape), axis in zip(parts, positions, strict=True):
        name = "output" if key is None else f"output_{key}" if isinstance(key, int) else str(key)
        entry: dict[str, Any] = {"name": name, "shape": str(shape[1:] or (1,)), "doc": "outputs"}
        own = list(labels)
        if not own and len(shape) == 3 and axis is not None and shape[1:].count(length) != 1:
            own = _track_labels(name, shape[3 - axis], several=len(parts) > 1)
        entries.append((name, {**entry, **({"column_labels": own} if own else {})}))
    if parts[0][0] is None:
        return entries[0][1]
    return [entry for _, entry in entries] if isinstance(parts[0][0], int) else dict(entries)


def _track_labels(name: str, tracks: int, *, several: bool) -> list[str]:
    """Return labels by which the tracks of a profile are told from its positions."""
    return [name] if tracks == 1 else [str(n) if several else f"{name}/{n}" for n in range(tracks)]


def _model_yaml(target: str, shape: InputShape, alphabet: str, dtype: torch.dtype, targets: Any) -> str:
    # numpy has no bfloat16.
    number = str(dtype).replace("torch.", "np.").replace("np.bfloat16", "np.float32")
    options = {"auto_resize_len": shape.length, **shape.axes(), "alphabet": alphabet, "dtype": number}
    described = {
        "defined_as": "kipoi.model.PyTorchModel",
        "args": {"module_file": "model.py", "module_obj": "net", "weights": _WEIGHTS},
        "default_dataloader": {
            "defined_as": "kipoiseq.dataloaders.SeqIntervalDl",
            "default_args": options,
        },
        "info": {"authors": [{"name": "unknown"}], "doc": f"{target} as a Kipoi model"},
        "dependencies": {"pip": ["torch", "kipoiseq"]},
        "schema": {
            "inputs": {
                "name": "seq",
                "shape": str(shape.sizes),
                "special_type": "DNASeq",
                "doc": f"one-hot DNA, bases in the order {alphabet}",
            },
            "targets": targets,
        },
    }
    text: str = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=110)
    return text


def _check_same(network: nn.Module, model: KipoiModel, shape: InputShape) -> None:
    inputs, tasks, outputs = shape.one_hot(input_dtype(network)), len(model.targets()), model.outputs()
    with torch.no_grad():
        expected = outputs.join(network(inputs), len(inputs)).double().numpy()
    found = model.predict(inputs.float().numpy(), outputs)
    if found.shape[1] != tasks or not np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            "the model of these files does not predict what the network predicts: is chance at work in its forward, or does "
            "it depend on more than its arguments and weights?"
        )
