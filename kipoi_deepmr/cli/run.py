"""``kipoi deepmr run``: effects and estimates into a store."""

import argparse
import json
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_computing, add_config, add_json, shows_progress


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "run", run, "mutate, predict, estimate; print the global effects")
    add_config(parser)
    parser.add_argument("-o", "--output", metavar="OUT.zarr", required=True, help="zarr store to write")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted run (or start it)")
    existing.add_argument("--overwrite", action="store_true", help="replace an existing store")
    add_computing(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.running import run
    from kipoi_deepmr.tables import global_records, terminal_table

    results = run(
        load_config(args.config),
        args.output,
        resume=args.resume,
        overwrite=args.overwrite,
        device=args.device,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        progress=shows_progress(args),
    )
    print(json.dumps(global_records(results), indent=1) if args.json else terminal_table(results))
    print(f"wrote {args.output}: open it with xarray.open_datatree('{args.output}', engine='zarr')", file=sys.stderr)
    return 0
