"""``kipoi deepmr export``: files for other programs."""

import argparse
import json
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_json, add_names, add_store

_FORMATS = ("tsv", "parquet", "bedgraph", "bigwig", "bed", "vcf")
_SUMMARIES = ("mean", "mean_abs", "max", "min", "strongest")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "export", run, "write tables, genome tracks or variants for other programs")
    add_store(parser)
    parser.add_argument(
        "--format",
        required=True,
        choices=_FORMATS,
        help="tsv, parquet: tables as TwoSampleMR and metafor name them; bedgraph, bigwig: effects along the genome; "
        "bed: sequences with local effects; vcf: all mutations",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the files")
    for name in ("exposure", "outcome", "sequence"):
        add_names(parser, name, f"only {name}s that match")
    parser.add_argument("--fasta", metavar="FASTA", help="genome, for bigwig and vcf (default: that of the run)")
    parser.add_argument(
        "--summary",
        choices=_SUMMARIES,
        default="mean",
        help="what stands for the mutations of a base in bedgraph and bigwig (default: mean)",
    )
    parser.add_argument("--gzip", action="store_true", help="gzip the text files; for vcf: bgzip and index")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.exports import export

    paths = export(
        args.store,
        args.format,
        args.output,
        exposure=args.exposure,
        outcome=args.outcome,
        sequence=args.sequence,
        fasta=args.fasta,
        summary=args.summary,
        compress=args.gzip,
        overwrite=args.overwrite,
        progress=not args.quiet,
    )
    if args.json:
        print(json.dumps([str(path) for path in paths], indent=1))
        return 0
    for path in paths:
        print(path)
    print(f"wrote {len(paths)} file{'s' if len(paths) > 1 else ''}", file=sys.stderr)
    return 0
