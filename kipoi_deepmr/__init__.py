"""Deep Mendelian randomization for the models of Kipoi: the causal effects that a model has learned.

Kipoi imports this module whenever its command line starts, so it imports nothing but the standard library; the public
names are loaded when they are first used.
"""

import importlib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from kipoi_deepmr import meta, mr
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.cube import open_results
    from kipoi_deepmr.exports.exporter import export
    from kipoi_deepmr.report.page import write_report
    from kipoi_deepmr.running import run

__version__ = "0.2.0"
__all__ = ["__version__", "export", "load_config", "meta", "mr", "open_results", "run", "write_report"]

ModelParser = None
DataloaderParser = None

_HOME_OF = {
    "export": "kipoi_deepmr.exports",
    "load_config": "kipoi_deepmr.config",
    "open_results": "kipoi_deepmr.cube",
    "run": "kipoi_deepmr.running",
    "write_report": "kipoi_deepmr.report",
}
_SUBMODULES = ("meta", "mr")

# Not every start of Python has done it: see kipoi_deepmr_plugin. A checkout that is not installed does not have it.
with suppress(ModuleNotFoundError):
    importlib.import_module("kipoi_deepmr_plugin").install()


def cli_main(command: str, raw_args: list[str]) -> NoReturn:
    """Run ``kipoi deepmr ...`` and leave the process with its exit status, as Kipoi expects of a plugin.

    Parameters
    ----------
    command : str
        The name under which Kipoi found this plugin: ``deepmr``.
    raw_args : list of str
        What follows on the command line; after ``kipoi postproc deepmr ...`` it begins with ``deepmr``.
    """
    cli = importlib.import_module("kipoi_deepmr.cli")
    arguments = raw_args[1:] if raw_args[:1] == [command] else raw_args
    sys.exit(cli.main(arguments, prog=f"kipoi {command}"))


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return importlib.import_module(f"kipoi_deepmr.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'kipoi_deepmr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
