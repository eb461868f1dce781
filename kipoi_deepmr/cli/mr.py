"""``kipoi deepmr mr``: estimates from stored effects."""

import argparse
import json
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_json, add_store, shows_progress
from kipoi_deepmr.cli.lines import in_lines
from kipoi_deepmr.estimators import ESTIMATORS


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "mr", run, "estimate again from stored effects; needs no model")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    rows = [in_lines(f"  {row.name}", f"{row.title}: {row.advice}", 34) for row in ESTIMATORS.values()]
    parser.epilog = "\n".join(["methods:", *rows])
    add_store(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="names from the list below, or '{name: ivw_t, estimator: ivw, distribution: t-dist}' "
        "(default: as in the store)",
    )
    parser.add_argument("--min_f", "--min-f", type=float, help="leave out mutations with (effect/SE)^2 below this")
    parser.add_argument("--alpha", type=float, help="1 - confidence level")
    parser.add_argument(
        "--bidirectional",
        action=argparse.BooleanOptionalAction,
        help="estimate the effects of the outcomes on the exposures, too",
    )
    parser.add_argument("--tau2", metavar="METHOD", help="estimator of tau2: REML, DL, PM, ML, EB, HE, SJ, HS or FE")
    parser.add_argument("--test", metavar="TEST", help="test of the global effect: z, t, knha (Knapp-Hartung) or adhoc")
    parser.add_argument("--prediction", metavar="KIND", help="prediction interval: default or riley")
    parser.add_argument(
        "--permuted_exposure",
        "--permuted-exposure",
        type=int,
        metavar="N",
        help="permute the exposure effects of each sequence N times and estimate again",
    )
    parser.add_argument("--seed", type=int, help="seed of the permutations")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.estimate.again import re_estimate
    from kipoi_deepmr.tables import global_records, terminal_table

    changes = {
        "mr": {
            "methods": args.methods and [_method(text) for text in args.methods],
            "min_f": args.min_f,
            "alpha": args.alpha,
            "bidirectional": args.bidirectional,
        },
        "meta": {"method": args.tau2, "test": args.test, "prediction": args.prediction},
        "controls": {"permuted_exposure": args.permuted_exposure, "seed": args.seed},
    }
    given = {
        section: {key: value for key, value in keys.items() if value is not None} for section, keys in changes.items()
    }
    results = re_estimate(args.store, progress=shows_progress(args), **given)
    print(json.dumps(global_records(results), indent=1) if args.json else terminal_table(results))
    return 0


def _method(text: str) -> Any:
    """Return a name as it is, and keys in braces as YAML reads them."""
    if not text.lstrip().startswith("{"):
        return text
    import yaml

    from kipoi_deepmr.errors import ConfigError

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--methods {text}: not valid YAML: {' '.join(str(error).split())}") from error
