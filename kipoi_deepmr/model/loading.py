"""Load a Kipoi model from any source, with errors that say what happened."""

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kipoi_deepmr.errors import ModelError, suggestion
from kipoi_deepmr.model.imports import is_inside, is_installed
from kipoi_deepmr.model.keras import keras_2
from kipoi_deepmr.model.kipoi_model import KipoiModel, causes, reason
from kipoi_deepmr.model.model_yaml import read_description

logger = logging.getLogger(__name__)

_EXTRAS = {"tensorflow": "keras", "keras": "keras", "tf_keras": "keras", "h5py": "spliceai", "spliceai": "spliceai"}


_KERAS_2 = (
    'If it was saved with Keras 2, as most models of the zoo were: pip install "kipoi_deepmr[keras2]" lets Keras 2 (tf_keras) '
    "be tried"
)


def load_model(name: str, source: str = "kipoi", directory: Path | None = None) -> KipoiModel:
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
        known = list(kipoi.config.model_sources())
        raise ModelError(
            f"unknown Kipoi source '{source}'.{suggestion(source, known)} Known: {', '.join(known)} (dir is a local "
            "directory; others are added in ~/.kipoi/config.yaml)"
        ) from error
    try:
        source_object.pull_model(name)
        folder = Path(source_object.get_model_dir(name))
    except Exception as error:
        raise ModelError(_explain_source(name, source, error)) from error
    try:
        loaded = _loaded(name, source, folder)
    except Exception as error:
        raise ModelError(_explain_load(name, folder, error)) from error
    return KipoiModel(loaded, name, source, folder)


def _loaded(name: str, source: str, folder: Path) -> Any:
    import kipoi

    def load() -> Any:
        # Kipoi prints what it notices in a schema; standard output belongs to our results.
        with _own_modules(folder), _weights_on_cpu_without_cuda(), contextlib.redirect_stdout(sys.stderr):
            return kipoi.get_model(name, source=source)

    try:
        return load()
    except Exception as error:
        if not _is_keras(name, folder) or not importlib.util.find_spec("tensorflow"):
            raise
        if not importlib.util.find_spec("tf_keras"):
            error.add_note(_KERAS_2)
            raise
        logger.info("Keras cannot read model %s (%s): Keras 2 (tf_keras) is tried", name, reason(error))
        first = error
    try:
        with keras_2():
            return load()
    except Exception as error:  # noqa: BLE001  the error of Keras 3 is raised
        first.add_note(f"Keras 2 (tf_keras) cannot read it, either: {reason(error)}")
    raise first


def _is_keras(name: str, folder: Path) -> bool:
    """Tell whether a model is described as one of Keras."""
    described = read_description(name, folder)
    return any("keras" in str(described.get(key, "")).lower() for key in ("defined_as", "type"))


@contextmanager
def _own_modules(folder: Path) -> Iterator[None]:
    """Let a model import its own files (model.py, dataloader.py, ...) and never those of another model.

    Its folder comes first on the import path, modules that are called like its files are hidden, and those that it
    imports are forgotten afterwards.
    """
    own = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/*.py")}
    hidden = {
        name: sys.modules.pop(name)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in own
        and not (name.startswith("__") or is_installed(module) or is_inside(module, folder))
    }
    before = set(sys.modules)
    importlib.invalidate_caches()
    path = str(folder.resolve())
    sys.path.insert(0, path)
    try:
        yield
    finally:
        if path in sys.path:
            sys.path.remove(path)
        for name, module in list(sys.modules.items()):
            if name not in before and is_inside(module, folder):
                del sys.modules[name]
        for name, module in hidden.items():
            sys.modules.setdefault(name, module)


@contextmanager
def _weights_on_cpu_without_cuda() -> Iterator[None]:
    """Let weights that were saved on a GPU load on a machine without one: Kipoi passes no map_location."""
    if torch.cuda.is_available():
        yield
        return
    original = torch.load

    def load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return original(f, "cpu" if map_location is None else map_location, *args, **kwargs)

    torch.load = load
    try:
        yield
    finally:
        torch.load = original


def _explain_source(name: str, source: str, error: Exception) -> str:
    said = reason(error)
    if source == "kipoi":
        return (
            f"model {name} cannot be had from the Kipoi zoo: {said}. Either the name is wrong (`kipoi ls` lists the "
            "models), or the zoo could not be reached: it is cloned from GitHub at first use, which needs network "
            "access; a local copy of the model works with source: dir"
        )
    return f"model {name} cannot be had from source '{source}': {said}"


def _explain_load(name: str, folder: Path, error: Exception) -> str:
    said = ". ".join([reason(error), *getattr(error, "__notes__", ())])
    text = f"model {name}{'' if name == str(folder) else f' ({folder})'} cannot be loaded: {said}"
    chain = " ".join(str(part) for part in causes(error))
    if "Weights only load failed" in chain or "weights_only" in chain:
        return (
            f"{text}. Its weight file is a pickled object, not a state dict, and torch refuses to run code from it: "
            "save `model.state_dict()` instead"
        )
    absent = [part.name for part in causes(error) if isinstance(part, ModuleNotFoundError) and part.name]
    if absent and not (folder / f"{absent[0].partition('.')[0]}.py").exists():
        extra = _EXTRAS.get(absent[0].partition(".")[0])
        how = f'pip install "kipoi_deepmr[{extra}]"' if extra else "install the package"
        return (
            f"{text}. The model needs '{absent[0]}', which is neither a file of the model nor installed: {how} (see the "
            "dependencies in its model.yaml), or put the file into the folder"
        )
    if any(isinstance(part, FileNotFoundError) for part in causes(error)) or "download" in chain.lower():
        return f"{text}. A file of the model could not be read or downloaded: check the path or the network"
    return text
