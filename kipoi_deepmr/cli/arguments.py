"""Arguments that several commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import Any


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
