"""``kipoi deepmr bench``: the delta against the full engine."""

import argparse
import json
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_computing, add_config, add_json


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "bench", run, "time the delta against the full engine on this machine")
    add_config(parser)
    add_computing(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.running import bench

    report = bench(
        load_config(args.config), device=args.device, batch_size=args.batch_size, num_workers=args.num_workers
    ).as_dict()
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    width = max(map(len, report)) + 2
    for key, value in report.items():
        print(f"{key:<{width}}{f'{value:.4g}' if isinstance(value, float) else '-' if value is None else value}")
    return 0
