"""``kipoi deepmr plot``: one figure of a store."""

import argparse
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_store

_KINDS = ("forest", "density", "heatmap", "scatter", "funnel", "loo", "logo", "profile")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "plot", run, "draw one figure")
    add_store(parser)
    parser.add_argument(
        "--kind",
        required=True,
        choices=_KINDS,
        help="forest: global effects, or with --exposure its local ones; density: local effects; heatmap: exposures by "
        "outcomes; of one sequence: scatter, funnel, loo (leave one position out), logo and profile of effects",
    )
    parser.add_argument("--exposure", metavar="NAME", help="needed for figures of one sequence")
    parser.add_argument("--outcome", metavar="NAME", help="default: the first one")
    parser.add_argument("--sequence", metavar="NAME", help="default: the one with the median local effect")
    parser.add_argument("--estimator", metavar="NAME", help="estimator (default: ivw where the store has it)")
    parser.add_argument(
        "--of", choices=("exposure", "outcome"), help="logo and profile: effects on which (default: exposure)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="file to write: .svg, .png or .pdf; replaced if it exists"
    )
    parser.add_argument("--dpi", type=int, default=200, help="dots per inch of a png (default: 200)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.cube import open_results
    from kipoi_deepmr.plots.file import save

    wanted = {name: getattr(args, name) for name in ("exposure", "outcome", "sequence", "estimator", "of")}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    with open_results(args.store) as results:
        path = save(results, args.kind, args.output, dpi=args.dpi, **chosen)
    print(f"wrote {path}", file=sys.stderr)
    return 0
