"""``kipoi deepmr report``: one HTML page of a store."""

import argparse
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_names, add_store


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands, "report", run, "write one HTML page with tables and figures, to read, print and send"
    )
    add_store(parser)
    parser.add_argument("-o", "--output", metavar="HTML", required=True, help="file to write, replaced if it exists")
    add_names(parser, "exposure", "exposures to look at in depth (default: as many as fit)")
    parser.add_argument(
        "--estimator",
        metavar="NAME",
        help="estimator of forests, densities and ranks (default: ivw where the store has it)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.report import write_report

    path = write_report(args.store, args.output, exposure=args.exposure or None, estimator=args.estimator)
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB): open it with a browser", file=sys.stderr)
    return 0
