"""``kipoi deepmr init``: a commented configuration for a model, or a model directory for a torch network."""

import argparse
import sys
from typing import Any

from kipoi_deepmr.cli.arguments import add_command, add_model, add_names
from kipoi_deepmr.terms import ALLELES


def add(commands: Any) -> None:
    """Add the command to the parser."""
    text = "write a commented configuration for a model, or the model directory of a torch network"
    parser = add_command(commands, "init", run, text)
    add_model(parser, optional=True)
    add_names(parser, "exposure", "labels or globs of exposures")
    add_names(parser, "outcome", "labels or globs of outcomes")
    parser.add_argument("-o", "--output", metavar="PATH", help="file to write (default: the terminal), or model folder")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    torch = parser.add_argument_group("a torch network outside Kipoi")
    torch.add_argument(
        "--from_torch", "--from-torch", metavar="MODULE:OBJECT", help="network, or class or function that gives one"
    )
    torch.add_argument("--length", type=int, metavar="BP", help="length of its sequences")
    torch.add_argument("--kwargs", metavar="YAML", default="{}", help="arguments of the class, as {n_outputs: 1}")
    torch.add_argument("--weights", metavar="FILE", help="state dict (default: the weights that the object has)")
    bases = "".join(ALLELES)
    torch.add_argument("--alphabet", default=bases, help=f"order of the bases (default: {bases})")
    add_names(torch, "labels", "names of its tasks, or of a profile's tracks")
    torch.add_argument(
        "--shape",
        metavar="N",
        type=int,
        nargs="+",
        default=[],
        help="shape of its input, such as 4 1000 (default: as it takes)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from pathlib import Path

    from kipoi_deepmr.errors import ConfigError
    from kipoi_deepmr.model import load_model
    from kipoi_deepmr.predict.draft import draft

    output = Path(args.output).expanduser() if args.output else None
    if (args.model is None) == (args.from_torch is None):
        raise ConfigError("name either a MODEL, of which a configuration is written, or --from_torch MODULE:OBJECT")
    if args.from_torch is not None:
        return _write_recipe(args, output)
    if output is not None and output.exists() and not args.overwrite:
        raise ConfigError(f"{output} exists: replace it with --overwrite or choose another name")
    text = draft(load_model(args.model, args.source), args.exposure, args.outcome)
    if output is None:
        print(text, end="")
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error
    print(f"wrote {output}: fill in the paths, then `kipoi deepmr check {output}`", file=sys.stderr)
    return 0


def _write_recipe(args: argparse.Namespace, folder: Any) -> int:
    from pathlib import Path

    import yaml

    from kipoi_deepmr.errors import ConfigError
    from kipoi_deepmr.model.recipe import write_recipe

    if folder is None or not args.length or args.length < 1:
        raise ConfigError("--from_torch needs --length, the bp of the network's sequences, and -o, the folder to write")
    try:
        kwargs = yaml.safe_load(args.kwargs)
    except yaml.YAMLError as error:
        raise ConfigError(f"--kwargs {args.kwargs}: not valid YAML: {error}") from error
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise ConfigError(f"--kwargs {args.kwargs}: write arguments by name, as {{n_outputs: 1}}")
    model = write_recipe(
        args.from_torch,
        folder,
        length=args.length,
        kwargs=kwargs,
        weights=Path(args.weights).expanduser() if args.weights else None,
        alphabet=args.alphabet,
        labels=args.labels,
        shape=args.shape,
        overwrite=args.overwrite,
    )
    tasks = ", ".join(target.name for target in model.targets()[:6])
    shape = model.kipoi.schema.inputs.shape
    print(
        f"wrote {folder} (model.yaml, model.py, weights.pt): one-hot sequences of the shape {shape}, the tasks {tasks}{', ...' if len(model.targets()) > 6 else ''}: "
        f"now `kipoi deepmr init {folder} --source dir -o config.yaml`",
        file=sys.stderr,
    )
    return 0
