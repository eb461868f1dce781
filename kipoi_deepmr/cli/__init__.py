"""The command line: ``kipoi deepmr COMMAND``, a file per command; heavy imports stand inside the handlers."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from kipoi_deepmr import __version__
from kipoi_deepmr.cli import bench, check, export, init, mr, plot, report, run, tasks
from kipoi_deepmr.cli.arguments import Parser
from kipoi_deepmr.errors import DeepMRError

_INTERRUPTED = 130
_COMMANDS = (tasks, init, check, run, bench, mr, report, plot, export)

_DESCRIPTION = """\
Ask a genomic deep learning model which causal effects it has learned: sequences that a TF binds are mutated at every
position, the model predicts binding and an outcome such as accessibility under MC-dropout, and Mendelian randomization
with the mutations as instruments gives the model-implied effect of binding on the outcome.

A first analysis:
  kipoi deepmr tasks DeepSEA/predict --match 'HepG2_*'    which outputs does the model have?
  kipoi deepmr init DeepSEA/predict -o config.yaml        a commented configuration to edit
  kipoi deepmr check config.yaml                          is it right, and how long will it take?
  kipoi deepmr run config.yaml -o results.zarr            effects, local and global estimates
  kipoi deepmr mr results.zarr --min_f 10                 estimate again, without the model
  kipoi deepmr report results.zarr -o report.html         tables and figures on one page
  kipoi deepmr export results.zarr --format vcf -o files  tables and tracks for other programs
"""


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv
        Arguments after the program's name. Default: those of the process.
    prog
        Name of the program in help texts.

    Returns
    -------
    int
        0 when all went well, 1 after an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    parser = _parser(prog or "kipoi-deepmr")
    try:
        args = parser.parse_args(argv)
    except SystemExit as leave:
        return int(leave.code or 0)
    _log_to_stderr(args.verbose - args.quiet)
    handler: Callable[[argparse.Namespace], int] = args.handler
    try:
        status = handler(args)
        sys.stdout.flush()
        return status
    except DeepMRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = ": completed sequences are kept; go on with `run --resume`" if handler is run.run else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `| head`; nothing may be written when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"kipoi_deepmr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for command in _COMMANDS:
        command.add(commands)
    return parser


def _log_to_stderr(verbosity: int) -> None:
    """Print our own messages; Kipoi's command line silences every logger but its own."""
    logger = logging.getLogger("kipoi_deepmr")
    levels = {-2: logging.ERROR, -1: logging.WARNING, 0: logging.WARNING, 1: logging.INFO}
    logger.setLevel(levels.get(max(verbosity, -2), logging.DEBUG))
    for handler in [handler for handler in logger.handlers if getattr(handler, "of_cli", False)]:
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.of_cli = True  # type: ignore[attr-defined]
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    # Kipoi's command line logs to standard output, where our tables and JSON go.
    for other in logging.getLogger("kipoi").handlers:
        if isinstance(other, logging.StreamHandler) and other.stream is sys.stdout:
            other.setStream(sys.stderr)
            other.setLevel(logging.WARNING if verbosity <= 0 else logging.INFO)
