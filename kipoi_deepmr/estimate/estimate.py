"""From stored effects to local and global estimates; needs no model."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from kipoi_deepmr.config import Config, ControlsSection, Method, MRSection
from kipoi_deepmr.cube import (
    CONTROLS_GROUP,
    DRAWN_GROUP,
    EFFECTS_GROUP,
    GLOBAL_GROUP,
    LOCAL_GROUP,
    REVERSE_GROUP,
    open_results,
    write_estimates,
)
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.from_draws import DrawnEstimates
from kipoi_deepmr.estimate.local import local_estimates
from kipoi_deepmr.estimate.methods import outvoted
from kipoi_deepmr.estimate.overall import global_estimates, with_leave_one_out
from kipoi_deepmr.estimate.permuted import as_made, with_permutations
from kipoi_deepmr.estimate.summary import read_effects

logger = logging.getLogger(__name__)

# Seconds before a bar appears.
_PATIENCE = 2
_SECTIONS = ("mr", "meta", "controls")


def estimate_store(path: Path, config: Config, *, named: bool = True, progress: bool = False) -> Config:
    """Estimate local and global effects from the completed sequences of a store and write them into it.

    Parameters
    ----------
    path
        The store.
    config
        Its sections `mr`, `meta` and `controls` say what is estimated.
    named
        Whether the methods are asked for by name: otherwise those whose draws are missing are left out with a warning.
    progress
        Whether to show a bar when it takes long.

    Returns
    -------
    Config
        The settings with the shuffled sequences that the store holds. The sections are in the attribute `settings` of
        every group of estimates, too.

    Raises
    ------
    ConfigError
        If the seed of the controls is not that of the shuffled sequences.
    StoreError
        If no sequence is completed, a method that is asked for by name misses its draws, or the estimates cannot be written.
    """
    with open_results(path) as tree:
        effects = read_effects(path, tree)
        done = effects["completed"].values
        if not done.any():
            raise StoreError(f"{path} has no completed sequence yet: run it with --resume")
        if not done.all():
            logger.warning("only %d of %d sequences are completed: go on with run --resume", done.sum(), done.size)
        if weak := outvoted(config.mr.methods, config.mr.min_f):
            logger.warning(
                "mr.methods: in %s the many mutations that hardly change a prediction outvote the few that do: set mr.min_f, "
                "for example 10",
                ", ".join(weak),
            )
        config = config.model_copy(update={"controls": as_made(tree, config.controls)})
        drawn = _drawn(tree, effects)
        reduced = config.model_copy(update={"mr": _without_missing(drawn, config.mr, named)})
        groups = _both_directions(effects, drawn, reduced, progress, "")
        if CONTROLS_GROUP in tree.children:
            shuffled = read_effects(path, tree, f"{CONTROLS_GROUP}/{EFFECTS_GROUP}")
            if not shuffled["completed"].values.all():
                logger.warning("some shuffled sequences are not completed: go on with run --resume")
            plain = reduced.model_copy(update={"controls": ControlsSection()})
            drawn = _drawn(tree.children[CONTROLS_GROUP], shuffled)
            found = _both_directions(shuffled, drawn, plain, progress, " of shuffled sequences")
            groups |= {f"{CONTROLS_GROUP}/{name}": dataset for name, dataset in found.items()}
    settings = config.model_dump_json(include=set(_SECTIONS))
    write_estimates(path, {name: dataset.assign_attrs(settings=settings) for name, dataset in groups.items()})
    return config


def settings_of_estimates(tree: xr.DataTree) -> dict[str, Any]:
    """Return the sections of the configuration with which the estimates in a store were made; empty without estimates."""
    if LOCAL_GROUP not in tree.children:
        return {}
    settings: dict[str, Any] = json.loads(tree[LOCAL_GROUP].attrs.get("settings", "{}"))
    return settings


def _without_missing(drawn: DrawnEstimates, section: MRSection, named: bool) -> MRSection:
    """Leave out methods whose draws a store does not have."""
    missing = [method for method in section.methods if not drawn.has(method, section, reverse=False)]
    if not missing:
        return section
    left = [method for method in section.methods if method not in missing]
    if named or not left:
        raise drawn.missing(missing[0], section)
    logger.warning("left out: %s, which %s", _names(missing), _why(section))
    return section.model_copy(update={"methods": left})


def _names(methods: Iterable[Method]) -> str:
    return ", ".join(method.name for method in methods)


def _why(section: MRSection) -> str:
    return (
        "need the effects of every draw; the store has neither these (effects: {keep_draws: true}) nor estimates with "
        f"min_f: {section.min_f:g} and alpha: {section.alpha:g}"
    )


def _drawn(tree: xr.DataTree, effects: xr.Dataset) -> DrawnEstimates:
    return DrawnEstimates(effects, tree[DRAWN_GROUP].to_dataset() if DRAWN_GROUP in tree.children else None)


def _both_directions(
    effects: xr.Dataset, drawn: DrawnEstimates, config: Config, progress: bool, what: str
) -> dict[str, xr.Dataset]:
    groups: dict[str, xr.Dataset] = {}
    directions = (("", False), (f"{REVERSE_GROUP}/", True))[: 1 + config.mr.bidirectional]
    permuted = sum(drawn.kept or not method.row.draws for method in config.mr.methods)
    rounds = len(directions) * (len(config.mr.methods) + permuted * config.controls.permuted_exposure)
    total = rounds * int((effects["bound"].values & effects["completed"].values).sum())
    with tqdm(
        total=total, desc="estimates", unit=" estimates", delay=_PATIENCE, mininterval=0.5, disable=not progress
    ) as bar:
        for folder, reverse in directions:
            missing = [method for method in config.mr.methods if not drawn.has(method, config.mr, reverse=reverse)]
            if missing:
                towards = "the outcomes on the exposures" if reverse else "the exposures on the outcomes"
                logger.warning("no effects of %s%s by %s, which %s", towards, what, _names(missing), _why(config.mr))
            local = local_estimates(effects, config.mr, drawn, reverse=reverse, progress=bar.update)
            scale = str(effects.attrs["scale"])
            overall = global_estimates(local, config.meta, config.mr.alpha, scale, reverse=reverse)
            local = with_leave_one_out(local, config.meta, scale, reverse=reverse)
            if config.controls.permuted_exposure:
                local, overall = with_permutations(
                    effects, local, overall, config, drawn, reverse=reverse, progress=bar.update
                )
            groups |= {folder + LOCAL_GROUP: local, folder + GLOBAL_GROUP: overall}
    return groups
