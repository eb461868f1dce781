"""The run in plain words: what was asked, of which model, with which settings."""

import json

import numpy as np
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import EFFECTS_GROUP, GLOBAL_GROUP
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import three_digits
from kipoi_deepmr.plots.choice import names
from kipoi_deepmr.reading import read
from kipoi_deepmr.report.draws import Draws

_UNITS = {
    "identity": "one unit of the model's own output",
    "logit": "one unit on the logit scale, that is 1 in the log odds of the model's probability",
    "log": "one unit on the log scale, that is a factor of e (2.72) in the model's output",
}
_SCALES = {
    "identity": "identity: the model's own output",
    "logit": "logit: log odds of the model's probability",
    "log": "natural logarithm of the model's output",
}


def estimand(results: xr.DataTree, estimator: str) -> str:
    """Say what the numbers mean, with the largest global effect as the example."""
    table = results[GLOBAL_GROUP].to_dataset()["estimate"].sel({terms.ESTIMATOR: estimator}).load()
    scale = str(results.attrs["scale"])
    text = (
        "Each estimate is the model-implied effect of an exposure on an outcome: by how much the model's prediction of "
        f"the outcome changes when mutations change its prediction of the exposure by {_UNITS[scale]}. It says what the "
        "network has learned, not what the cell does."
    )
    values = table.transpose(*terms.GLOBAL_DIMS).values
    if not np.isfinite(values).any():
        return text
    row, column = np.unravel_index(np.nanargmax(np.abs(values)), values.shape)
    exposure, outcome = str(table[terms.EXPOSURE].values[row]), str(table[terms.OUTCOME].values[column])
    value = float(values[row, column])
    unit = {"identity": "", "logit": " log odds", "log": " log units"}[scale]
    verb = "raise" if value >= 0 else "lower"
    return (
        f"{text} For example, mutations that raise {exposure} by 1{unit} {verb} {outcome} by "
        f"{three_digits(abs(value))}{unit} on average over the sequences ({label_of(estimator)})."
    )


def summary(results: xr.DataTree) -> dict[str, str | tuple[str, ...]]:
    """Return what a reader has to know of the run before its numbers; lists of names as tuples."""
    attrs, config = results.attrs, json.loads(results.attrs["config"])
    model, min_f = config["model"], config["mr"].get("min_f")
    draws = Draws.of(results)
    return {
        "model": f"{model['name']} (Kipoi source: {model['source']})",
        "exposures": _tasks(results, terms.EXPOSURE),
        "outcomes": _tasks(results, terms.OUTCOME),
        "sequences": _sequences(results),
        "draws": draws.text,
        "scale of effects": _SCALES[str(attrs["scale"])],
        "standard errors": draws.errors(str(attrs["standard_error"])) + _others(results),
        "instruments": f"mutations with F = (effect / SE)² of at least {min_f:g}"
        if min_f
        else "all mutations whose effects have a standard error",
        "estimators": ", ".join(label_of(name) for name in names(results, terms.ESTIMATOR)),
        "meta-analysis": _meta(results),
    }


def details(results: xr.DataTree) -> dict[str, str]:
    """Return what is needed to repeat the run."""
    attrs = results.attrs
    known: dict[str, object] = {
        "engine": attrs.get("engine"),
        "device": attrs.get("device"),
        "seed of the sequences": attrs.get("sequence_seed"),
        "seed of the draws": attrs.get("draw_seed"),
        "dropout layers": "\n".join(np.atleast_1d(attrs.get("dropout", [])).tolist()),
        "input": attrs.get("layout"),
        "configuration, sha256": attrs.get("config_sha256"),
        "weights, sha256": attrs.get("weights_sha256"),
        "software": ", ".join([str(attrs["source"]), *_versions(attrs.get("versions", "{}"))]),
        "history": attrs.get("history"),
    }
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def configuration(results: xr.DataTree) -> str:
    """Return the configuration with all defaults, as indented JSON."""
    return json.dumps(json.loads(results.attrs["config"]), indent=1, ensure_ascii=False)


def _others(results: xr.DataTree) -> str:
    """Name the estimators that take other errors than the store holds."""
    overall = results[GLOBAL_GROUP].to_dataset()
    if "standard_error" not in overall.coords:
        return ""
    kinds = zip(names(results, terms.ESTIMATOR), overall["standard_error"].values.tolist(), strict=True)
    others = [label_of(name) for name, kind in kinds if kind != results.attrs["standard_error"]]
    if not others:
        return ""
    return f" Whatever is chosen, {', '.join(others)} take the errors of the mean over draws (monte_carlo), which they need."


def _tasks(results: xr.DataTree, dim: str) -> tuple[str, ...]:
    effects = results[EFFECTS_GROUP].to_dataset()
    columns = (read(effects, name).tolist() for name in (dim, f"{dim}_task", f"{dim}_task_index"))
    return tuple(f"{name} (output {index}: {task})" for name, task, index in zip(*columns, strict=True))


def _sequences(results: xr.DataTree) -> str:
    effects = results[EFFECTS_GROUP].to_dataset()
    completed, bound = read(effects, "completed"), read(effects, "bound")
    start, end = read(effects, "start"), read(effects, "end")
    counts = bound.sum(axis=1)
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    lengths = "/".join(str(length) for length in np.unique(end - start))
    done = "" if completed.all() else f", {int(completed.sum())} of them computed"
    positions = effects.sizes[terms.POSITION]
    return (
        f"{counted(len(completed), 'reference sequence')} of {lengths} bp{done}; {each} for each exposure; {positions} positions "
        f"mutated to every other base: up to {3 * positions:,} mutations each"
    )


def _meta(results: xr.DataTree) -> str:
    attrs = results[GLOBAL_GROUP].attrs
    test = {"knha": "Knapp-Hartung test", "z": "z test"}.get(str(attrs["test"]), f"{attrs['test']} test")
    level = 100 * float(results[GLOBAL_GROUP]["ci_low"].attrs.get("confidence_level", 0.95))
    return f"random effects over sequences, τ² by {attrs['tau2_method']}, {test}, {level:.4g}% intervals"


def _versions(text: str) -> list[str]:
    return [f"{name} {version}" for name, version in json.loads(text).items()]


def counted(number: int, noun: str) -> str:
    """Return a number of things, one or several."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
