"""A commented configuration for a model, to be edited."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import ConfigError, TaskError
from kipoi_deepmr.model import LoadedModel, Target, Targets

_ACCESSIBILITY = re.compile(r"dnase|atac|faire|accessib", re.IGNORECASE)
_SECTIONS = ("sequences", "uncertainty", "effects", "mutagenesis", "mr", "meta")


def draft(model: LoadedModel, exposures: Sequence[str] = (), outcomes: Sequence[str] = ()) -> str:
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
        If a label or glob matches no output.
    """
    targets, suggested = model.targets(), model.suggested_config()
    unknown = set(suggested) - set(Config.model_fields)
    if unknown:
        raise ConfigError(f"postprocessing.deepmr in {model.folder}: unknown keys {', '.join(sorted(unknown))}")
    chosen = {
        "exposures": _chosen(targets, exposures, suggested.get("exposures"), _first_exposure(targets), peaks=True),
        "outcomes": _chosen(targets, outcomes, suggested.get("outcomes"), _first_outcome(targets), peaks=False),
    }
    if "intervals" in suggested.get("sequences", {}):
        for entry in chosen["exposures"].values():
            entry.pop("peaks", None)
    blocks = [
        f"# Deep Mendelian randomization of {model.name}. Run it: kipoi deepmr run THIS_FILE -o results.zarr",
        "# `kipoi deepmr tasks` lists the outputs of the model; `kipoi deepmr check THIS_FILE` checks this file.",
        _yaml({"model": suggested.get("model", {"name": model.name, "source": model.source})}),
        _dataloader(model, suggested.get("dataloader", {})),
        f"# names are yours; a task is one of the model's {len(targets)} outputs (label, index or glob)",
        _yaml({"exposures": chosen["exposures"]}),
        _yaml({"outcomes": chosen["outcomes"]}),
    ]
    blocks += [_section(name, suggested.get(name, {})) for name in _SECTIONS]
    return "\n".join(blocks) + "\n"


def _first_exposure(targets: Targets) -> Target:
    return next((target for target in targets if not _ACCESSIBILITY.search(target.label)), targets[0])


def _first_outcome(targets: Targets) -> Target:
    return next((target for target in targets if _ACCESSIBILITY.search(target.label)), targets[len(targets) - 1])


def _chosen(targets: Targets, asked: Sequence[str], suggested: Any, first: Target, *, peaks: bool) -> dict[str, Any]:
    if not asked and suggested:
        return {name: entry if isinstance(entry, dict) else {"task": entry} for name, entry in suggested.items()}
    found = [target for pattern in asked for target in _matching(targets, pattern)] or [first]
    entries: dict[str, Any] = {}
    for target in found:
        entry: dict[str, Any] = {"task": target.label}
        if target.repeated:
            entry["occurrence"] = target.occurrence
        if peaks:
            entry["peaks"] = f"peaks/{re.sub(r'[^A-Za-z0-9._-]+', '_', target.name)}.narrowPeak.gz"
        entries[target.name] = entry
    return entries


def _matching(targets: Targets, pattern: str) -> list[Target]:
    found = targets.matching(pattern)
    if not found:
        raise TaskError(f"no output of the model matches '{pattern}'; `kipoi deepmr tasks` lists them")
    return found


def _dataloader(model: LoadedModel, suggested: dict[str, Any]) -> str:
    signature = inspect.signature(model.dataloader.__init__).parameters
    required = [
        name
        for name, parameter in signature.items()
        if parameter.default is inspect.Parameter.empty
        and name != "self"
        and "interval" not in name
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    args = {name: "genome.fa" if "fasta" in name else "FILL_IN" for name in required}
    merged = {**suggested, "args": {**args, **suggested.get("args", {})}}
    return "# handed to the model's own Kipoi dataloader; the intervals come from `sequences`\n" + _yaml(
        {"dataloader": merged}
    )


def _section(name: str, suggested: dict[str, Any]) -> str:
    annotation: Any = Config.model_fields[name].annotation
    section: type[BaseModel] = annotation
    lines = [f"{name}:"]
    for key, field in section.model_fields.items():
        value = suggested.get(key, field.get_default(call_default_factory=True))
        off = "# " if value is None and key not in suggested else ""
        lines.append(f"  {off}{key}: {_inline(value)}  # {field.description}")
    return "\n".join(lines)


def _inline(value: Any) -> str:
    return _yaml({"value": value}, flow=True).removeprefix("{value: ").removesuffix("}")


def _yaml(data: dict[str, Any], flow: bool | None = None) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=100)
    return text.rstrip()
