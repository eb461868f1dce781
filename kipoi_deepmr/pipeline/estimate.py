"""From stored effects to local and global estimates; needs no model."""

import logging
from pathlib import Path

import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.config import Config
from kipoi_deepmr.cube import (
    EFFECTS_GROUP,
    GLOBAL_GROUP,
    LOCAL_GROUP,
    REVERSE_GROUP,
    explained,
    open_results,
    write_estimates,
)
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.pipeline.local import local_estimates
from kipoi_deepmr.pipeline.overall import global_estimates

logger = logging.getLogger(__name__)


def estimate_store(path: Path, config: Config) -> None:
    """Estimate local and global effects from the completed sequences of a store and write them into it.

    Parameters
    ----------
    path
        The store.
    config
        Its sections `mr`, `meta` and `controls` say what is estimated.

    Raises
    ------
    StoreError
        If no sequence is completed, or the estimates cannot be written.
    """
    with open_results(path) as tree:
        effects = _effects(path, tree)
        done = effects["completed"].values
        if not done.any():
            raise StoreError(f"{path} has no completed sequence yet: run it with --resume")
        if not done.all():
            logger.warning("only %d of %d sequences are completed: go on with run --resume", done.sum(), done.size)
        scale = str(tree.attrs["scale"])
        groups: dict[str, xr.Dataset] = {}
        for folder, reverse in (("", False), (f"{REVERSE_GROUP}/", True))[: 1 + config.mr.bidirectional]:
            local = local_estimates(effects, config.mr, scale, reverse=reverse)
            overall = global_estimates(local, config.meta, config.mr.alpha, scale, reverse=reverse)
            groups |= {folder + LOCAL_GROUP: local, folder + GLOBAL_GROUP: overall}
    write_estimates(path, groups)


def _effects(path: Path, tree: xr.DataTree) -> xr.Dataset:
    """Return `/effects`, its coordinates read into memory."""
    with explained(path, "read"):
        effects = tree[EFFECTS_GROUP].to_dataset()
        absent = [name for name in (*terms.EFFECTS, *terms.COORDS) if name not in effects.variables]
        if absent:
            raise StoreError(f"{path} is incomplete: {EFFECTS_GROUP} lacks {', '.join(absent)}; use run --overwrite")
        effects = effects.assign_coords({name: effects[name].load() for name in effects.coords})
        effects.encoding["source"] = str(path)
        return effects
