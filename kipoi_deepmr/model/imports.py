"""The files of one's own that a module imports, and a Python that does not find them."""

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARIES = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_THIS_PACKAGE = __name__.partition(".")[0]


def files_of(module: Any) -> list[str]:
    """Return where a module or namespace package lies; nothing for what is built in."""
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", ()))


def is_installed(module: Any) -> bool:
    """Tell whether a module comes with Python or an installed package."""
    files = files_of(module)
    return not files or any(file.startswith(_LIBRARIES) or "-packages" in file for file in files)


def is_inside(module: Any, folder: Path) -> bool:
    """Tell whether a module lies in a folder."""
    return any(Path(file).resolve().is_relative_to(folder.resolve()) for file in files_of(module))


def root_of(module: ModuleType) -> Path:
    """Return the folder from which a module was imported: that of its outermost package."""
    file = Path(str(module.__file__)).resolve()
    depth = module.__name__.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def imported_files(module: ModuleType) -> list[Path]:
    """Return the files below the root of a module that it imports, directly or not, its own and its packages' among them.

    What is written as an import statement is found, wherever it stands.
    """
    root, found, waiting = root_of(module), dict[str, Path](), [module.__name__]
    while waiting:
        name = waiting.pop()
        file = None if name in found else _file_of(name, root)
        if file is None:
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imports(ast.parse(file.read_text(encoding="utf-8")), package)
        waiting += [name.rpartition(".")[0]]
    return sorted(found.values())


def _file_of(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py") if name else ()
    return next((file for file in candidates if file.is_file()), None)


def _imports(tree: ast.AST, package: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


@contextmanager
def without(root: Path) -> Iterator[None]:
    """Let Python not find the modules in a folder, loaded or not; those of this package and of libraries stay."""
    hidden = {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in (_THIS_PACKAGE, "__main__")
        and not is_installed(module)
        and is_inside(module, root)
    }
    for name in hidden:
        del sys.modules[name]
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != root.resolve()]
    try:
        yield
    finally:
        sys.path[:] = path
        sys.modules.update(hidden)
