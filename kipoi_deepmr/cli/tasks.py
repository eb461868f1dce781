"""``kipoi deepmr tasks``: the outputs of a model."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_json, add_model
from kipoi_deepmr.cli.lines import in_lines

_INDENT = 7


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "tasks", run, "list the outputs of a model")
    add_model(parser)
    parser.add_argument("--match", metavar="GLOB", default="*", help="only labels that match, e.g. 'HepG2_*_None'")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.model import load_model

    targets = load_model(args.model, args.source).targets()
    found = targets.matching(args.match)
    if args.json:
        print(json.dumps([_row(target) for target in found], indent=1))
        return 0
    if not found:
        print(f"none of the {len(targets)} outputs matches '{args.match}'", file=sys.stderr)
        return 1
    print("index  label")
    for target in found:
        label = target.label + (f"  occurrence: {target.occurrence}" if target.repeated else "")
        label += f"  {target.profile.describe()}" if target.profile else ""
        print(in_lines(f"{target.index:>5}", label, _INDENT))
    print(f"{len(found)} of {len(targets)} outputs", file=sys.stderr)
    return 0


def _row(target: Any) -> dict[str, Any]:
    row = {"index": target.index, "label": target.label, "occurrence": target.occurrence, "name": target.name}
    return {**row, **({"profile": asdict(target.profile)} if target.profile else {})}
