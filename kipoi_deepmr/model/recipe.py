"""A torch network outside the zoo as a Kipoi model directory: model.yaml, model.py and its weights."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.loaded import LoadedModel, reason
from kipoi_deepmr.model.loading import load_model
from kipoi_deepmr.model.outputs import output_parts

_FILES = ("model.yaml", "model.py", "weights.pt")
_TOLERANCE = 1e-5


def write_recipe(
    target: str,
    folder: Path,
    *,
    length: int,
    kwargs: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    alphabet: str = "ACGT",
    labels: Sequence[str] = (),
    overwrite: bool = False,
) -> LoadedModel:
    """Write a Kipoi model directory for a torch network, and load it to see that it predicts the same.

    Parameters
    ----------
    target
        ``module:object``: an `nn.Module`, or a class or function that gives one. A module that is not installed is looked
        for in the working directory; its file becomes ``model.py``.
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
    overwrite
        Whether files that are there may be replaced.

    Returns
    -------
    LoadedModel
        The model as Kipoi loads it.

    Raises
    ------
    ConfigError
        If an argument cannot be used, or a file is there already.
    ModelError
        If the network does not take one-hot sequences of this length, or its output is not understood.
    """
    there = [name for name in _FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{folder} has {', '.join(there)} already: replace them with --overwrite or choose another name"
        )
    if sorted(alphabet) != sorted("ACGT"):
        raise ConfigError(f"alphabet '{alphabet}': needed are the letters A, C, G and T in the order of the network")
    network, code = _network(target, dict(kwargs or {}))
    if weights is not None:
        _load_weights(network, weights)
    network.eval()
    shape, output = _try_shapes(network, length)
    described = _schema(output, labels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), folder / "weights.pt")
        (folder / "model.py").write_text(code, encoding="utf-8")
        (folder / "model.yaml").write_text(_model_yaml(target, shape, alphabet, length, described), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    model = load_model(str(folder.resolve()), "dir")
    _check_same(network, model, shape)
    return model


def _network(target: str, kwargs: dict[str, Any]) -> tuple[nn.Module, str]:
    """Return the network of ``module:object`` and the code of its model.py."""
    name, _, attribute = target.partition(":")
    if not name or not attribute.isidentifier():
        raise ConfigError(f"--from-torch {target}: write module:object, such as bpnetlite:BPNet")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
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
    file = Path(str(getattr(module, "__file__", "")))
    if "site-packages" in file.parts or "dist-packages" in file.parts:
        return network, f'"""{target} as a Kipoi model."""\n\nfrom {name} import {attribute}\n\nnet = {made}\n'
    return network, f"{file.read_text(encoding='utf-8').rstrip()}\n\n\nnet = {made}\n"


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ConfigError(f"--weights {path}: there is no such file") from None
    except Exception as error:
        raise ModelError(f"--weights {path} are not those of this network: {reason(error)}") from error


def _try_shapes(network: nn.Module, length: int) -> tuple[tuple[int, ...], Any]:
    """Return the first shape of one-hot sequences that the network takes, and its output for two of them."""
    said = []
    for shape in ((4, length), (length, 4), (4, 1, length), (4, length, 1), (length, 4, 1)):
        try:
            with torch.no_grad():
                return shape, network(_one_hot(shape))
        except Exception as error:  # noqa: BLE001  whatever it says, the next shape is tried
            said.append(f"{shape}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    raise ModelError(f"the network takes one-hot sequences of {length} bp in no shape; tried were {'; '.join(said)}")


def _one_hot(shape: tuple[int, ...]) -> torch.Tensor:
    alphabet_axis = shape.index(4)
    codes = np.random.default_rng(0).integers(0, 4, (2, int(np.prod(shape)) // 4))
    rows = torch.from_numpy(np.eye(4, dtype=np.float32)[codes])
    dummies = tuple(axis + 1 for axis, size in enumerate(shape) if size == 1)
    moved = rows.movedim(2, 1) if alphabet_axis == 0 else rows
    for axis in dummies:
        moved = moved.unsqueeze(axis)
    return moved.contiguous()


def _schema(output: Any, labels: Sequence[str]) -> Any:
    parts = [(key, tuple(getattr(part, "shape", ()))) for key, part in output_parts(output)]
    wrong = [shape for _, shape in parts if len(shape) not in (1, 2, 3) or shape[0] != 2]
    if wrong:
        raise ModelError(
            f"the network's output for two sequences has the shape {wrong[0]}: needed is (batch, tasks), or a profile "
            "(batch, positions, tracks)"
        )
    if labels and (len(parts) > 1 or (len(parts[0][1]) > 1 and len(labels) not in parts[0][1][1:])):
        raise ConfigError(
            f"{len(labels)} labels for the outputs {', '.join(str(shape[1:]) for _, shape in parts)}: give one for each "
            "task of a single output"
        )
    entries = []
    for key, shape in parts:
        name = "output" if key is None else f"output_{key}" if isinstance(key, int) else str(key)
        entry: dict[str, Any] = {"name": name, "shape": f"({', '.join(map(str, shape[1:]))},)", "doc": "outputs"}
        entry["shape"] = entry["shape"].replace("(,)", "(1,)")
        entries.append((name, {**entry, **({"column_labels": list(labels)} if labels else {})}))
    if parts[0][0] is None:
        return entries[0][1]
    return [entry for _, entry in entries] if isinstance(parts[0][0], int) else dict(entries)


def _model_yaml(target: str, shape: tuple[int, ...], alphabet: str, length: int, targets: Any) -> str:
    axes = {"alphabet_axis": shape.index(4)}
    if 1 in shape:
        # kipoiseq counts the alphabet's axis before it adds the dummy axis.
        axes = {"alphabet_axis": 0 if shape[0] == 4 else 1, "dummy_axis": shape.index(1)}
    described = {
        "defined_as": "kipoi.model.PyTorchModel",
        "args": {"module_file": "model.py", "module_obj": "net", "weights": "weights.pt"},
        "default_dataloader": {
            "defined_as": "kipoiseq.dataloaders.SeqIntervalDl",
            "default_args": {"auto_resize_len": length, **axes, "alphabet": alphabet, "dtype": "np.float32"},
        },
        "info": {"authors": [{"name": "unknown"}], "doc": f"{target} as a Kipoi model"},
        "dependencies": {"pip": ["torch", "kipoiseq"]},
        "schema": {
            "inputs": {
                "name": "seq",
                "shape": f"({', '.join(map(str, shape))})",
                "special_type": "DNASeq",
                "doc": f"one-hot DNA, bases in the order {alphabet}",
            },
            "targets": targets,
        },
    }
    text: str = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=110)
    return text


def _check_same(network: nn.Module, model: LoadedModel, shape: tuple[int, ...]) -> None:
    inputs = _one_hot(shape)
    outputs = model.outputs()
    with torch.no_grad():
        expected = outputs.join(network(inputs), len(inputs)).double().numpy()
    found = model.predict(inputs.numpy(), outputs)
    if len(model.targets()) != found.shape[1] or not np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError(
            f"the model in {model.folder} does not predict what the network predicts: is chance at work in its forward, or "
            "does it depend on more than its arguments and weights?"
        )
