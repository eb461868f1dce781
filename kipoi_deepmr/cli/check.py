"""``kipoi deepmr check``: a configuration tried without a long run."""

import argparse
import json
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_computing, add_config, add_json
from kipoi_deepmr.cli.lines import in_lines

_INDENT = 12


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "check", run, "validate a configuration and estimate the time, without a long run")
    add_config(parser)
    add_computing(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from kipoi_deepmr.config import load_config
    from kipoi_deepmr.running import check

    report = check(
        load_config(args.config), device=args.device, batch_size=args.batch_size, num_workers=args.num_workers
    ).as_dict()
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    notes = report.pop("notes")
    print("\n".join(in_lines(label, text, _INDENT) for label, text in _in_words(report)))
    for note in notes:
        print(in_lines("note:", note, len("note: ")))
    return 0


def _in_words(report: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [(key, str(report[key])) for key in ("model", "layout", "device")]
    for side in ("exposures", "outcomes"):
        for number, (name, task) in enumerate(report[side].items()):
            peaks = f", {task['sequences']} sequences of {task['peaks']}" if "peaks" in task else ""
            profile = f", {task['profile']}" if "profile" in task else ""
            lines.append(
                (side if number == 0 else "", f"{name}: output {task['index']} {task['task']}{profile}{peaks}")
            )
    for number, site in enumerate(report["dropout"]):
        lines.append(("dropout" if number == 0 else "", site))
    return [
        *lines,
        (
            "engine",
            f"{report['engine']}, batches of {report['batch_size']} mutants, "
            f"{100 * report['coverage']:.0f}% of the multiply-adds in layers computed locally",
        ),
        *(("", f"runs whole from {operation}") for operation in report["runs_whole_from"]),
        (
            "size",
            f"{report['sequences']} sequences x {report['positions']} positions = {report['mutants']:,} mutants "
            f"x {report['draws']} draws; the store takes up to {report['store_bytes'] / 2**20:,.1f} MiB",
        ),
        *_controls(report),
        (
            "time",
            f"{report['milliseconds']:.3g} ms per mutant and draw: {duration(report['estimated_seconds'])} in all",
        ),
    ]


def _controls(report: dict[str, Any]) -> list[tuple[str, str]]:
    count = f"{report['control_sequences']} shuffled sequences = {report['control_mutants']:,} mutants more"
    return [("controls", count)] if report["control_sequences"] else []


def duration(seconds: float) -> str:
    """Return a time in words, such as ``2 h 5 min``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 60:.1f} min" if seconds >= 59.95 else f"{max(seconds, 0.1):.1f} s"
