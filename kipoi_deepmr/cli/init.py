"""``kipoi deepmr init``: a commented configuration for a model."""

import argparse
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_model


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "init", run, "write a commented configuration for a model")
    add_model(parser)
    parser.add_argument("--exposures", metavar="GLOB", nargs="+", default=[], help="labels or globs of exposures")
    parser.add_argument("--outcomes", metavar="GLOB", nargs="+", default=[], help="labels or globs of outcomes")
    parser.add_argument("-o", "--output", metavar="YAML", help="file to write (default: the terminal)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from pathlib import Path

    from kipoi_deepmr.errors import ConfigError
    from kipoi_deepmr.model import load_model
    from kipoi_deepmr.pipeline.draft import draft

    output = Path(args.output).expanduser() if args.output else None
    if output is not None and output.exists() and not args.overwrite:
        raise ConfigError(f"{output} exists: replace it with --overwrite or choose another name")
    text = draft(load_model(args.model, args.source), args.exposures, args.outcomes)
    if output is None:
        print(text, end="")
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error
    print(f"wrote {output}: fill in the paths, then `kipoi deepmr check {output}`", file=sys.stderr)
    return 0
