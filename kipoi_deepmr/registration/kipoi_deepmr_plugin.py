"""Make Kipoi list kipoi_deepmr among its plugins.

Kipoi 0.8.6 knows its plugins from a list in its own source and loads no entry points. This module puts a finder in
front of the import system that reacts to two names only: after ``kipoi.plugin`` has run it appends the entry of
kipoi_deepmr, after ``kipoi.__main__`` has run it maps ``kipoi postproc deepmr`` to the command.

An installation places this file at the top of site-packages, where ``kipoi_deepmr_plugin.pth`` (from Python 3.15 on
``kipoi_deepmr_plugin.start``, PEP 829) runs it whenever Python starts. It therefore imports nothing that a bare
interpreter has not loaded already. Where no ``.pth`` file is read (``python -S``, ``pip install --target``),
``import kipoi_deepmr`` installs the finder.

Set ``KIPOI_DEEPMR_NO_PLUGIN=1`` before Python starts to switch the registration off.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SWITCH = "KIPOI_DEEPMR_NO_PLUGIN"
ENTRY = {
    "plugin": "kipoi_deepmr",
    "url": "https://doi.org/10.1371/journal.pcbi.1009880",
    "cli": True,
    "description": "Causal effects that a model has learned, by in-silico mutagenesis and Mendelian randomization.",
}


def install() -> None:
    """Put the finder in place, once, and catch up with a Kipoi that is imported already."""
    if os.environ.get(SWITCH, "0") not in ("", "0"):
        return
    if not any(getattr(finder, "kipoi_plugin", None) == ENTRY["plugin"] for finder in sys.meta_path):
        sys.meta_path.insert(0, PluginFinder())
    if "kipoi.plugin" in sys.modules:
        _register(sys.modules["kipoi.plugin"])


class PluginFinder:
    """Find ``kipoi.plugin`` and ``kipoi.__main__`` where the finders behind this one find them."""

    kipoi_plugin = ENTRY["plugin"]

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of one of Kipoi's two modules with its loader wrapped, of any other module None."""
        if fullname not in _REGISTER or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            return self._spec_from_behind(fullname, path, target)
        finally:
            self._searching.discard(fullname)

    def _spec_from_behind(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        finders = list(sys.meta_path)
        while finders and finders.pop(0) is not self:
            pass
        for finder in finders:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = PluginLoader(spec.loader)  # type: ignore[assignment, arg-type]
                return spec
        return None


class PluginLoader:
    """Load one of Kipoi's two modules with its own loader, then register kipoi_deepmr in it."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module, leave its own loader in place and add what Kipoi needs to know."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module)


def _register(module: "ModuleType") -> None:
    try:
        _REGISTER[module.__name__](module)
    except Exception as error:  # noqa: BLE001  Kipoi has to start whatever is wrong with a plugin.
        print(f"kipoi goes on without kipoi_deepmr: {type(error).__name__}: {error}", file=sys.stderr)


def _append_entry(plugin: "ModuleType") -> None:
    # Kipoi imports every listed plugin when its command line starts: one that cannot be imported must not be listed.
    import kipoi_deepmr  # noqa: F401

    if not any(known["plugin"] == ENTRY["plugin"] for known in plugin.PLUGINS):
        plugin.PLUGINS.append(dict(ENTRY))


def _map_postproc(main: "ModuleType") -> None:
    if "deepmr" in main.command_functions:
        main.postproc_cmd_map.setdefault("deepmr", "deepmr")


_REGISTER: "dict[str, Callable[[ModuleType], None]]" = {
    "kipoi.plugin": _append_entry,
    "kipoi.__main__": _map_postproc,
}
