"""A commented configuration for a model, to be edited."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from kipoi_deepmr.config import Config, parse_config
from kipoi_deepmr.errors import ConfigError, SequenceError, TaskError, suggestion
from kipoi_deepmr.model import KipoiModel, Target, Targets
from kipoi_deepmr.sequences import Signature

_ACCESSIBILITY = re.compile(r"dnase|atac|faire|accessib", re.IGNORECASE)
_FILL_IN = "FILL_IN"
_SECTIONS = ("sequences", "uncertainty", "effects", "mutagenesis", "mr", "meta", "controls")


def draft(model: KipoiModel, exposures: Sequence[str] = (), outcomes: Sequence[str] = ()) -> str:
    """Write a configuration for a model as YAML with comments.

    Parameters
    ----------
    model
        The model.
    exposures, outcomes
        Labels or globs of its outputs. Default: the model author's own choice (``postprocessing: deepmr:`` in its
        model.yaml), else the first output, and the first that looks like accessibility (or the last) as outcome.

    Returns
    -------
    str
        YAML that `load_config` accepts; only the paths have to be filled in.

    Raises
    ------
    TaskError
        If a label or glob matches no output, or the model has a single output.
    ConfigError
        If the model author's block holds something that is not allowed.
    """
    targets, suggested = model.targets(), _suggested(model)
    chosen = _tasks(targets, exposures, outcomes, suggested)
    if "intervals" not in suggested["sequences"]:
        for name, entry in chosen["exposures"].items():
            entry.setdefault("peaks", f"peaks/{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.narrowPeak.gz")
    blocks = [
        f"# Deep Mendelian randomization of {model.name}. Run it: kipoi deepmr run THIS_FILE -o results.zarr",
        "# `kipoi deepmr tasks` lists the outputs of the model; `kipoi deepmr check THIS_FILE` checks this file.",
        _yaml({"model": suggested["model"] or {"name": model.name, "source": model.source}}),
        _dataloader(model, suggested["dataloader"]),
        f"# names are yours; a task is one of the model's {len(targets)} outputs (label, index or glob)",
        _yaml({"exposures": chosen["exposures"]}),
        _yaml({"outcomes": chosen["outcomes"]}),
    ]
    blocks += [_section(name, suggested[name]) for name in _SECTIONS]
    text = "\n".join(blocks) + "\n"
    parse_config(yaml.safe_load(text), model.folder, f"the draft, with `postprocessing: deepmr:` of {model.folder}")
    return text


def _suggested(model: KipoiModel) -> dict[str, dict[str, Any]]:
    """Return every section of the model author's block, empty where there is none."""
    origin = f"`postprocessing: deepmr:` of {model.folder}"
    block = model.suggested_config()
    for name, section in block.items():
        if name not in Config.model_fields:
            hint = suggestion(name, Config.model_fields)
            raise ConfigError(f"{origin}: unknown key '{name}'.{hint} Allowed: {', '.join(Config.model_fields)}")
        if not isinstance(section, dict):
            raise ConfigError(f"{origin}: {name}: expected keys, found {section!r}")
    return {name: dict(block.get(name, {})) for name in Config.model_fields}


def _tasks(
    targets: Targets, exposures: Sequence[str], outcomes: Sequence[str], suggested: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    if len(targets) < 2:
        raise TaskError(f"the model has {len(targets)} output: an exposure and an outcome are two different outputs")
    found = [_matching(targets, pattern) for pattern in outcomes]
    chosen_outcomes = list(dict.fromkeys(target for match in found for target in match))
    if not chosen_outcomes and not suggested["outcomes"]:
        chosen_outcomes = [_first_outcome(targets)]
    # A glob for exposures leaves the outcomes out; an output that is named for both is `check`'s to explain.
    found = [
        match if len(match) == 1 else [target for target in match if target not in chosen_outcomes]
        for match in (_matching(targets, pattern) for pattern in exposures)
    ]
    chosen_exposures = list(dict.fromkeys(target for match in found for target in match))
    if not chosen_exposures and not suggested["exposures"]:
        chosen_exposures = [_first_exposure(targets, chosen_outcomes)]
    return {
        side: {target.name: _entry(target) for target in chosen}
        or {
            name: dict(entry) if isinstance(entry, dict) else {"task": entry} for name, entry in suggested[side].items()
        }
        for side, chosen in (("exposures", chosen_exposures), ("outcomes", chosen_outcomes))
    }


def _first_exposure(targets: Targets, outcomes: Sequence[Target]) -> Target:
    left = [target for target in targets if target not in outcomes] or list(targets)
    return next((target for target in left if not _ACCESSIBILITY.search(target.label)), left[0])


def _first_outcome(targets: Targets) -> Target:
    found = next((target for target in targets if _ACCESSIBILITY.search(target.label)), None)
    # All tracks of a profile together hold the exposure that is one of them.
    return found or next((target for target in reversed(targets) if not target.is_sum), targets[len(targets) - 1])


def _entry(target: Target) -> dict[str, Any]:
    return {
        "task": target.label,
        **({"occurrence": target.occurrence} if target.repeated else {}),
        **({"reduce": "sum"} if target.profile else {}),
    }


def _matching(targets: Targets, pattern: str) -> list[Target]:
    found = targets.matching(pattern)
    if not found:
        raise TaskError(f"no output of the model matches '{pattern}'; `kipoi deepmr tasks` lists them")
    return found


def _dataloader(model: KipoiModel, suggested: dict[str, Any]) -> str:
    signature, fasta = Signature(model.dataloader), model.known_fasta_args()
    section: dict[str, Any] = {}
    intervals = suggested.get("intervals_arg")
    try:
        intervals = signature.intervals_arg(intervals)
    except SequenceError:
        section["intervals_arg"] = _FILL_IN
    names = [name for name in signature.names if name in fasta[:1] or signature.is_required(name)]
    args = {name: "genome.fa" if "fasta" in name or name in fasta else _FILL_IN for name in names if name != intervals}
    if not fasta and "fasta_arg" not in suggested:
        section["fasta_arg"] = next((name for name in args if "fasta" in name), _FILL_IN)
    merged = {**section, **suggested, "args": {**args, **(suggested.get("args") or {})}}
    return "# handed to the model's own Kipoi dataloader; the intervals come from `sequences`\n" + _yaml(
        {"dataloader": merged}
    )


def _section(name: str, suggested: dict[str, Any]) -> str:
    annotation: Any = Config.model_fields[name].annotation
    section: type[BaseModel] = annotation
    lines, defaults = [f"{name}:"], section().model_dump(mode="json")
    for key, field in section.model_fields.items():
        value = suggested.get(key, defaults[key])
        off = "# " if value is None and key not in suggested else ""
        lines.append(f"  {off}{key}: {_inline(value)}  # {field.description}")
    lines += [f"  {key}: {_inline(value)}" for key, value in suggested.items() if key not in section.model_fields]
    return "\n".join(lines)


def _inline(value: Any) -> str:
    return _yaml({"value": value}, flow=True, width=10**6).removeprefix("{value: ").removesuffix("}")


def _yaml(data: dict[str, Any], flow: bool = False, width: int = 100) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=width)
    return text.rstrip()
