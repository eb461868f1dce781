"""Estimates made again from the effects in a store, with other settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from kipoi_deepmr.config import Config, parse_config
from kipoi_deepmr.cube import Cube, locked, open_results
from kipoi_deepmr.estimate.estimate import estimate_store, settings_of_estimates
from kipoi_deepmr.estimate.methods import check_draws, check_methods
from kipoi_deepmr.estimate.permuted import check_controls, made_controls


def re_estimate(
    store: str | Path,
    *,
    mr: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    controls: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """Estimate again from the effects in a store; the model is not needed.

    Parameters
    ----------
    store
        Folder of the store.
    mr, meta, controls
        Settings to change in these sections of the stored configuration.
    progress
        Whether to show a bar when it takes long. Default: no.

    Returns
    -------
    xarray.DataTree
        The store with its new groups `local` and `global`.

    Raises
    ------
    ConfigError
        If a setting is not allowed.
    StoreError
        If there is no such store, or it has no completed sequence, or cannot be written.
    """
    path = Path(store).expanduser().resolve()
    with open_results(path), locked(path, "mr"):
        with open_results(path) as tree:
            config = _changed_settings(tree, path, {"mr": mr, "meta": meta, "controls": controls})
            check_methods(config.mr)
            check_draws(config, len(tree.attrs.get("members", ())))
        config = estimate_store(path, config, named="methods" in (mr or {}), progress=progress)
        Cube(path).note("estimated again", config=config.canonical(), config_sha256=config.sha256())
    return open_results(path)


def _changed_settings(tree: xr.DataTree, path: Path, changes: Mapping[str, Mapping[str, Any] | None]) -> Config:
    """Return the settings of the estimates in a store with what is asked for."""
    settings = json.loads(tree.attrs["config"]) | settings_of_estimates(tree)
    settings["controls"] = {**settings["controls"], **made_controls(tree)}
    for section, asked in changes.items():
        settings[section] = {**settings.get(section, {}), **(asked or {})}
    config = parse_config(settings, path.parent, "the request")
    check_controls(tree, config.controls)
    return config
