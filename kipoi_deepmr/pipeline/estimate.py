"""From stored effects to local and global estimates; needs no model."""

import logging
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from kipoi_deepmr.config import Config, ControlsSection
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
from kipoi_deepmr.pipeline.controls import with_permutations
from kipoi_deepmr.pipeline.drawn import DrawnEstimates
from kipoi_deepmr.pipeline.local import local_estimates
from kipoi_deepmr.pipeline.methods import needs_draws, outvoted
from kipoi_deepmr.pipeline.overall import global_estimates, with_leave_one_out
from kipoi_deepmr.pipeline.summary import read_effects

logger = logging.getLogger(__name__)

# Seconds before a bar appears.
_PATIENCE = 2


def estimate_store(path: Path, config: Config, *, progress: bool = False) -> None:
    """Estimate local and global effects from the completed sequences of a store and write them into it.

    Parameters
    ----------
    path
        The store.
    config
        Its sections `mr`, `meta` and `controls` say what is estimated.
    progress
        Whether to show a bar when it takes long.

    Raises
    ------
    StoreError
        If no sequence is completed, or the estimates cannot be written.
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
        groups = _both_directions(effects, _drawn(tree, effects), config, progress)
        if CONTROLS_GROUP in tree.children:
            shuffled = read_effects(path, tree, f"{CONTROLS_GROUP}/{EFFECTS_GROUP}")
            if not shuffled["completed"].values.all():
                logger.warning("some shuffled sequences are not completed: go on with run --resume")
            plain = config.model_copy(update={"controls": ControlsSection()})
            found = _both_directions(shuffled, _drawn(tree.children[CONTROLS_GROUP], shuffled), plain, progress)
            groups |= {f"{CONTROLS_GROUP}/{name}": dataset for name, dataset in found.items()}
    write_estimates(path, groups)


def without_missing_draws(path: Path, tree: xr.DataTree, config: Config) -> Config:
    """Return the settings without the methods whose draws a store does not have, with a warning that names them."""
    drawn = _drawn(tree, read_effects(path, tree))
    missing = [method for method in config.mr.methods if not drawn.has(method, config.mr)]
    left = [method for method in config.mr.methods if method not in missing]
    if not missing or not left:
        return config
    logger.warning(
        "left out: %s, which need the effects of every draw; the store has neither these (effects: {keep_draws: true}) "
        "nor estimates with min_f: %g and alpha: %g",
        ", ".join(method.name for method in missing),
        config.mr.min_f,
        config.mr.alpha,
    )
    return config.model_copy(update={"mr": config.mr.model_copy(update={"methods": left})})


def _drawn(tree: xr.DataTree, effects: xr.Dataset) -> DrawnEstimates:
    return DrawnEstimates(effects, tree[DRAWN_GROUP].to_dataset() if DRAWN_GROUP in tree.children else None)


def _both_directions(
    effects: xr.Dataset, drawn: DrawnEstimates, config: Config, progress: bool
) -> dict[str, xr.Dataset]:
    groups: dict[str, xr.Dataset] = {}
    directions = (("", False), (f"{REVERSE_GROUP}/", True))[: 1 + config.mr.bidirectional]
    permuted = sum(not needs_draws(method) for method in config.mr.methods) * config.controls.permuted_exposure
    rounds = len(directions) * (len(config.mr.methods) + permuted)
    total = rounds * int((effects["bound"].values & effects["completed"].values).sum())
    with tqdm(
        total=total, desc="estimates", unit=" estimates", delay=_PATIENCE, mininterval=0.5, disable=not progress
    ) as bar:
        for folder, reverse in directions:
            local = local_estimates(effects, config.mr, drawn, reverse=reverse, progress=bar.update)
            scale = str(effects.attrs["scale"])
            overall = global_estimates(local, config.meta, config.mr.alpha, scale, reverse=reverse)
            local = with_leave_one_out(local, config.meta, scale, reverse=reverse)
            if config.controls.permuted_exposure:
                local, overall = with_permutations(
                    effects, local, overall, config, reverse=reverse, progress=bar.update
                )
            groups |= {folder + LOCAL_GROUP: local, folder + GLOBAL_GROUP: overall}
    return groups
