"""The command line: ``kipoi deepmr COMMAND``; heavy imports stand inside the handlers."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kipoi_deepmr import __version__
from kipoi_deepmr.errors import DeepMRError

_INTERRUPTED = 130

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
        kept = ": completed sequences are kept; go on with `run --resume`" if handler is _run else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `| head`; nothing may be written when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"kipoi_deepmr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    tasks = _command(commands, "tasks", _tasks, "list the outputs of a model")
    _model_arguments(tasks)
    tasks.add_argument("--match", metavar="GLOB", default="*", help="only labels that match, e.g. 'HepG2_*_None'")
    tasks.add_argument("--json", action="store_true", help="print JSON")

    init = _command(commands, "init", _init, "write a commented configuration for a model")
    _model_arguments(init)
    init.add_argument("--exposures", metavar="GLOB", nargs="+", default=[], help="labels or globs of exposures")
    init.add_argument("--outcomes", metavar="GLOB", nargs="+", default=[], help="labels or globs of outcomes")
    init.add_argument("-o", "--output", metavar="YAML", help="file to write (default: the terminal)")
    init.add_argument("--overwrite", action="store_true", help="replace an existing file")

    check = _command(commands, "check", _check, "validate a configuration and estimate the time, without a long run")
    check.add_argument("config", metavar="CONFIG", help="YAML file")
    _compute_arguments(check)
    check.add_argument("--json", action="store_true", help="print JSON")

    run = _command(commands, "run", _run, "mutate, predict, estimate; print the global effects")
    run.add_argument("config", metavar="CONFIG", help="YAML file")
    run.add_argument("-o", "--output", metavar="OUT.zarr", required=True, help="zarr store to write")
    existing = run.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted run (or start it)")
    existing.add_argument("--overwrite", action="store_true", help="replace an existing store")
    _compute_arguments(run)

    bench = _command(commands, "bench", _bench, "time the local against the full engine on this machine")
    bench.add_argument("config", metavar="CONFIG", help="YAML file")
    _compute_arguments(bench)
    bench.add_argument("--json", action="store_true", help="print JSON")

    mr = _command(commands, "mr", _mr, "estimate again from stored effects; needs no model")
    mr.add_argument("store", metavar="OUT.zarr", help="store that `run` wrote")
    mr.add_argument("--methods", nargs="+", metavar="METHOD", help="estimators: egger, ivw (default: as in the store)")
    mr.add_argument("--min_f", "--min-f", type=float, help="leave out mutations with (effect/SE)^2 below this")
    mr.add_argument("--alpha", type=float, help="1 - confidence level")
    mr.add_argument("--tau2", metavar="METHOD", help="estimator of tau2: REML, DL, PM, ML or FE")
    mr.add_argument("--test", metavar="TEST", help="test of the global effect: z or knha (Knapp-Hartung)")
    return parser


def _command(
    commands: Any, name: str, handler: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(handler=handler)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument(
        "-q", "--quiet", action="count", default=0, help="say less: no progress bar; twice: no warnings"
    )
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="Kipoi model, or a folder with --source dir")
    parser.add_argument("--source", default="kipoi", help="Kipoi source: kipoi (default), dir, github-permalink, ...")


def _compute_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="torch device, e.g. cpu or cuda:0 (default: the first GPU, else the CPU)")
    parser.add_argument(
        "--batch_size", "--batch-size", type=int, metavar="N", help="mutants in a batch (default: what memory allows)"
    )
    parser.add_argument(
        "-n", "--num_workers", "--num-workers", type=int, default=0, metavar="N", help="processes of the dataloader"
    )


def _tasks(args: argparse.Namespace) -> int:
    from kipoi_deepmr.model import load_model

    targets = load_model(args.model, args.source).targets()
    found = targets.matching(args.match)
    if args.json:
        rows = [{"index": t.index, "label": t.label, "occurrence": t.occurrence, "name": t.name} for t in found]
        print(json.dumps(rows, indent=1))
        return 0
    if not found:
        print(f"none of the {len(targets)} outputs matches '{args.match}'", file=sys.stderr)
        return 1
    print("index  label")
    for target in found:
        print(f"{target.index:>5}  {target.label}" + (f"  occurrence: {target.occurrence}" if target.repeated else ""))
    print(f"{len(found)} of {len(targets)} outputs", file=sys.stderr)
    return 0


def _init(args: argparse.Namespace) -> int:
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


def _check(args: argparse.Namespace) -> int:
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.pipeline import check

    report = check(
        load_config(args.config), device=args.device, batch_size=args.batch_size, num_workers=args.num_workers
    ).as_dict()
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    notes = report.pop("notes")
    print(_in_words(report))
    for note in notes:
        print(f"note: {note}")
    return 0


def _in_words(report: dict[str, Any]) -> str:
    lines = [
        f"{'model':<12}{report['model']}",
        f"{'layout':<12}{report['layout']}",
        f"{'device':<12}{report['device']}",
    ]
    for side in ("exposures", "outcomes"):
        for number, (name, task) in enumerate(report[side].items()):
            peaks = f", {task['sequences']} sequences of {task['peaks']}" if "peaks" in task else ""
            lines.append(f"{side if number == 0 else '':<12}{name}: output {task['index']} {task['task']}{peaks}")
    for number, site in enumerate(report["dropout"]):
        lines.append(f"{'dropout' if number == 0 else '':<12}{site}")
    lines += [
        f"{'engine':<12}{report['engine']}, batches of {report['batch_size']} mutants, "
        f"{100 * report['coverage']:.0f}% of the multiply-adds in layers computed locally",
        *(f"{'':<12}runs whole from {operation}" for operation in report["runs_whole_from"]),
        f"{'size':<12}{report['sequences']} sequences x {report['positions']} positions = {report['mutants']:,} mutants "
        f"x {report['draws']} draws; the store takes up to {report['store_bytes'] / 2**20:,.1f} MiB",
        f"{'time':<12}{report['milliseconds']:.3g} ms per mutant and draw: {duration(report['estimated_seconds'])} in all",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time in words, such as ``2 h 5 min``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 60:.1f} min" if seconds >= 59.95 else f"{max(seconds, 0.1):.1f} s"


def _bench(args: argparse.Namespace) -> int:
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.pipeline import bench

    report = bench(
        load_config(args.config), device=args.device, batch_size=args.batch_size, num_workers=args.num_workers
    ).as_dict()
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    for key, value in report.items():
        print(f"{key:<20}{f'{value:.4g}' if isinstance(value, float) else '-' if value is None else value}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.pipeline import run
    from kipoi_deepmr.tables import terminal_table

    results = run(
        load_config(args.config),
        args.output,
        resume=args.resume,
        overwrite=args.overwrite,
        device=args.device,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        progress=not args.quiet,
    )
    print(terminal_table(results))
    print(f"wrote {args.output}: open it with xarray.open_datatree('{args.output}', engine='zarr')", file=sys.stderr)
    return 0


def _mr(args: argparse.Namespace) -> int:
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
