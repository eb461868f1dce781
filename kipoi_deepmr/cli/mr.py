"""``kipoi deepmr mr``: estimates from stored effects."""

import argparse
from typing import Any

from kipoi_deepmr.cli.arguments import add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "mr", run, "estimate again from stored effects; needs no model")
    parser.add_argument("store", metavar="OUT.zarr", help="store that `run` wrote")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="estimators: egger, ivw (default: as in the store)"
    )
    parser.add_argument("--min_f", "--min-f", type=float, help="leave out mutations with (effect/SE)^2 below this")
    parser.add_argument("--alpha", type=float, help="1 - confidence level")
    parser.add_argument("--tau2", metavar="METHOD", help="estimator of tau2: REML, DL, PM, ML or FE")
    parser.add_argument("--test", metavar="TEST", help="test of the global effect: z or knha (Knapp-Hartung)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.pipeline import re_estimate
    from kipoi_deepmr.tables import terminal_table

    mr = {"methods": args.methods, "min_f": args.min_f, "alpha": args.alpha}
    meta = {"method": args.tau2, "test": args.test}
    results = re_estimate(
        args.store,
        mr={key: value for key, value in mr.items() if value is not None},
        meta={key: value for key, value in meta.items() if value is not None},
    )
    print(terminal_table(results))
    return 0
