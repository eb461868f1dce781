"""Run or resume: effects block by block into the store, then the estimates."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kipoi_deepmr.config import Config, parse_config
from kipoi_deepmr.cube import (
    CONTROLS_GROUP,
    Cube,
    Template,
    check_readable,
    check_replaceable,
    explained,
    locked,
    open_results,
)
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate.estimate import estimate_store
from kipoi_deepmr.estimate.from_draws import covers, during_the_run
from kipoi_deepmr.estimate.permuted import as_made
from kipoi_deepmr.predict import bench as timing
from kipoi_deepmr.predict import check as trial
from kipoi_deepmr.predict.compute import write_effects
from kipoi_deepmr.predict.prepare import Job, prepare
from kipoi_deepmr.predict.shuffled import shuffled_job, shuffled_template

logger = logging.getLogger(__name__)

_RE_ESTIMATED = ("mr", "meta", "controls")
_WITHOUT_INFLUENCE = ("engine", "memory")
_SAME_MODEL = {"weights_sha256": "weights", "dropout": "dropouts", "layout": "input"}


def run(
    config: Config,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> xr.DataTree:
    """Run Deep Mendelian randomization and write the store.

    Parameters
    ----------
    config
        The settings, from `load_config`.
    output
        Folder of the zarr store to write.
    resume
        Go on with a store that was interrupted; completed sequences are kept. Starts anew when there is no store.
    overwrite
        Replace an existing store.
    device
        torch device such as ``cpu`` or ``cuda:0``. Default: the first GPU, else the CPU.
    batch_size
        Mutants in a batch. Default: what the memory bound allows.
    num_workers
        Processes of the dataloader.
    progress
        Whether to show a progress bar.

    Returns
    -------
    xarray.DataTree
        Groups `effects`, `local` and `global`.

    Raises
    ------
    DeepMRError
        With the reason, before any long work where possible. Sequences that are completed stay in the store.
    """
    path = Path(output).expanduser().resolve()
    with explained(path, "created"):
        _check_output(path, resume=resume, overwrite=overwrite)
    with locked(path, "run"):
        estimators = during_the_run(config)
        with prepare(config, estimators, device=device, batch_size=batch_size, num_workers=num_workers) as job:
            for note in job.notes():
                logger.warning("%s", note)
            template = job.template()
            if resume and path.exists():
                cube = _continue(path, template, config)
            else:
                cube = Cube.create(path, template, overwrite=overwrite)
                cube.note("effects started")
            write_effects(job, cube, progress=progress)
            _write_controls(job, path, progress=progress)
        cube.note("effects completed")
        config = estimate_store(path, config, progress=progress)
        cube.note("estimated", config=config.canonical(), config_sha256=config.sha256())
    return open_results(path)


def check(
    config: Config, *, device: str | None = None, batch_size: int | None = None, num_workers: int = 0
) -> trial.CheckReport:
    """Validate everything that a run needs, without a long prediction, and say what it would cost.

    Parameters
    ----------
    config, device, batch_size, num_workers
        As `run`.

    Returns
    -------
    CheckReport

    Raises
    ------
    DeepMRError
        As `run`.
    """
    return trial.check(config, during_the_run(config), device=device, batch_size=batch_size, num_workers=num_workers)


def bench(
    config: Config, *, device: str | None = None, batch_size: int | None = None, num_workers: int = 0
) -> timing.BenchReport:
    """Time the delta against the full engine on some sequences of a configuration.

    Parameters
    ----------
    config, device, batch_size, num_workers
        As `run`. Without `batch_size` several are tried for the full engine and the fastest counts.

    Returns
    -------
    BenchReport

    Raises
    ------
    DeepMRError
        As `run`.
    """
    return timing.bench(config, during_the_run(config), device=device, batch_size=batch_size, num_workers=num_workers)


def _write_controls(job: Job, path: Path, *, progress: bool) -> None:
    shuffled = shuffled_job(job)
    if shuffled is None:
        return
    template = shuffled_template(shuffled)
    cube = Cube.attach(path, CONTROLS_GROUP, template)
    _check_same_data(cube, template, "controls or the sequences have changed")
    _check_drawn(cube, template)
    write_effects(shuffled, cube, progress=progress, what="shuffled sequences")


def _check_output(path: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise StoreError("choose either --resume or --overwrite")
    if path.exists():
        check = check_replaceable if overwrite else check_readable
        check(path)
        if not resume and not overwrite:
            raise StoreError(
                f"{path} exists: continue it with --resume, replace it with --overwrite, or choose another name"
            )
    nearest = next(folder for folder in path.parents if folder.exists())
    if not nearest.is_dir():
        raise StoreError(f"{path} cannot be created: {nearest} is a file, not a folder")
    for folder in (nearest, path):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(f"{folder} is read-only for you: choose another output, or ask for the rights")


def _continue(path: Path, template: Template, config: Config) -> Cube:
    cube = Cube(path)
    cube.clear_unfinished()
    stored = cube.attrs
    before = parse_config(json.loads(stored["config"]), config.directory, f"the configuration in {path}")
    changed = _changed(json.loads(before.canonical()), json.loads(config.canonical()))
    if changed:
        raise StoreError(
            f"{path} was made with other settings ({', '.join(changed)}): use the same configuration, --overwrite, or "
            "another name"
        )
    for key, what in _SAME_MODEL.items():
        if stored.get(key) != template.attrs[key]:
            raise StoreError(f"{path} was made with other {what} of the model: use --overwrite or another name")
    _check_same_data(cube, template, "the peaks or the FASTA file have changed")
    if stored.get("windows_sha256") != template.attrs["windows_sha256"]:
        raise StoreError(
            f"{path} was made from other bases around the mutated positions: the FASTA file has changed; use --overwrite "
            "or another name"
        )
    _check_drawn(cube, template)
    if not config.controls.shuffled_sequence:
        with open_results(path) as tree:
            as_made(tree, config.controls)
    cube.note("effects resumed")
    return cube


def _check_drawn(cube: Cube, template: Template) -> None:
    if template.drawn is not None and (cube.drawn is None or not covers(cube.drawn, template.drawn)):
        raise StoreError(
            f"{cube.path} was begun without {', '.join(template.drawn.methods)} in mr.methods (or with another min_f, alpha or "
            "direction), which need the draws while they are there: use the same methods, --overwrite, or another name"
        )


def _check_same_data(cube: Cube, template: Template, reason: str) -> None:
    for name, values in template.coords.items():
        if not np.array_equal(cube.coordinate(name).astype(object), np.asarray(values).astype(object)):
            raise StoreError(
                f"{cube.path} was made from other data ({name} differs): {reason}; use --overwrite or another name"
            )


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the settings that differ and have an influence on the effects."""
    changed = []
    for section in dict.fromkeys([*before, *now]):
        if section in _RE_ESTIMATED:
            continue
        old, new = before.get(section) or {}, now.get(section) or {}
        keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
        changed += [f"{section}.{key}" for key in keys if section != "mutagenesis" or key not in _WITHOUT_INFLUENCE]
        if not keys and section in ("exposures", "outcomes") and list(old) != list(new):
            changed.append(f"order of {section}")
    return changed
