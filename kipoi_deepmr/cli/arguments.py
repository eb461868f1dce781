"""Arguments that several commands share, and what is said of those that there are not."""

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from kipoi_deepmr.errors import suggestion

# Spellings of version 0.1 that no longer resemble the option.
_FORMER = {"--method": "--estimator"}


class Parser(argparse.ArgumentParser):
    """A parser that names the option which a wrong one was meant to be."""

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse, and refuse what is not known here, where the usage of the command is known."""
        self._given = list(sys.argv[1:] if args is None else args)
        known, unknown = super().parse_known_args(self._given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Leave with status 2, the usage and the message."""
        super().error(message + next(filter(None, map(self._meant, self._given)), ""))

    def _meant(self, word: str) -> str:
        option, options = word.partition("=")[0], list(self._option_string_actions)
        if not option.startswith("--") or any(name.startswith(option) for name in options):
            return ""
        near = suggestion(_FORMER.get(option, option), options)
        return f".{near}" if near else ""


def add_command(
    commands: Any, name: str, handler: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command with the options that every command has, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(handler=handler)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument(
        "-q", "--quiet", action="count", default=0, help="say less: no progress bar; twice: no warnings"
    )
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the configuration."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the store that is read."""
    parser.add_argument("store", metavar="OUT.zarr", help="store that `run` wrote")


def add_names(parser: argparse._ActionsContainer, name: str, text: str) -> None:
    """Add an option that takes some names."""
    parser.add_argument(f"--{name}", metavar="NAME", nargs="+", default=[], help=text)


def add_model(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the model and its source."""
    text = "Kipoi model, or a folder with --source dir"
    if optional:
        parser.add_argument("model", metavar="MODEL", nargs="?", help=text)
    else:
        parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("--source", default="kipoi", help="Kipoi source: kipoi (default), dir, github-permalink, ...")


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add device, batch size and workers."""
    parser.add_argument("--device", help="torch device, e.g. cpu or cuda:0 (default: the first GPU, else the CPU)")
    parser.add_argument(
        "--batch_size", "--batch-size", type=int, metavar="N", help="mutants in a batch (default: what memory allows)"
    )
    parser.add_argument(
        "-n", "--num_workers", "--num-workers", type=int, default=0, metavar="N", help="processes of the dataloader"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def shows_progress(args: argparse.Namespace) -> bool:
    """Tell whether to show a progress bar: in a terminal, unless it is to be quiet."""
    return not args.quiet and sys.stderr.isatty()
