"""From stored effects to local and global estimates; needs no model."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import instruments, meta, mr, terms
from kipoi_deepmr.config import MetaSection, MRSection
from kipoi_deepmr.cube import EFFECTS_GROUP, explained, open_results, write_estimates
from kipoi_deepmr.errors import StoreError

logger = logging.getLogger(__name__)

_BLOCK_ELEMENTS = 2**21
_METHODS: Mapping[str, Callable[..., Any]] = {"egger": mr.egger, "ivw": mr.ivw}
_ABSENT = -1
_LONG_NAMES = {"egger": "MR-Egger (Bowden 2015)", "ivw": "inverse-variance weighted (Burgess 2013)"}


def estimate_store(path: Path, mr_section: MRSection, meta_section: MetaSection) -> None:
    """Estimate local and global effects from the completed sequences of a store and write them into it.

    Parameters
    ----------
    path
        The store.
    mr_section, meta_section
        Estimators and their options.

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
        local = local_estimates(effects, mr_section, scale)
        overall = global_estimates(local, meta_section, mr_section.alpha, scale)
    write_estimates(path, local, overall)


def local_estimates(effects: xr.Dataset, section: MRSection, scale: str) -> xr.Dataset:
    """Estimate the effect of each exposure on each outcome in each sequence that it binds.

    Parameters
    ----------
    effects
        The group `/effects` of a store.
    section
        Estimators and their options.
    scale
        Scale of the effects, for the attributes.

    Returns
    -------
    xarray.Dataset
        The variables of `terms.LOCAL`; NaN where a sequence does not count for an exposure.
    """
    sizes = {**{dim: effects.sizes[dim] for dim in terms.LOCAL_DIMS}, terms.METHOD: len(section.methods)}
    values = {name: np.full([sizes[dim] for dim in term.dims], *_blank(name)) for name, term in terms.LOCAL.items()}
    for exposure, sequences in _blocks(effects):
        chosen = _instruments(effects, exposure, sequences, section.min_f)
        for index, method in enumerate(section.methods):
            result = _METHODS[method](chosen.bx, chosen.bxse, chosen.by, chosen.byse, alpha=section.alpha)
            for name, array in values.items():
                if terms.METHOD in terms.LOCAL[name].dims and hasattr(result, name):
                    array[exposure][:, sequences, index] = getattr(result, name)
        found = {
            "n_instruments": np.isfinite(chosen.bx).sum(-1),
            "n_weak": chosen.n_weak,
            "n_without_error": chosen.n_without_error,
            "f_statistic": mr.diagnostics.mean_f_statistic(chosen.bx, chosen.bxse),
            "i2_gx": mr.diagnostics.i2_gx(chosen.bx, chosen.bxse, chosen.byse),
        }
        for name, array in found.items():
            values[name][exposure][:, sequences] = array
    coords = {name: effects[name] for name in (*terms.LOCAL_DIMS, "bound", "chrom", "start", "end", "strand")}
    dataset = _dataset(terms.LOCAL, values, coords, section.methods, scale)
    dataset.attrs.update(title="local effects: Mendelian randomization of each sequence", min_f=section.min_f)
    dataset["status"].attrs.update(_flags(mr.Status, "not_bound_or_not_completed"))
    for name in ("ci_low", "ci_high"):
        dataset[name].attrs["confidence_level"] = 1 - section.alpha
    return dataset


def global_estimates(local: xr.Dataset, section: MetaSection, alpha: float, scale: str) -> xr.Dataset:
    """Combine the local effects of each exposure and outcome by random-effects meta-analysis.

    Parameters
    ----------
    local
        The group `/local`.
    section
        Estimator of tau2 and test.
    alpha
        1 - confidence level of the intervals.
    scale
        Scale of the effects, for the attributes.

    Returns
    -------
    xarray.Dataset
        The variables of `terms.GLOBAL`.
    """
    order = (*terms.GLOBAL_DIMS, terms.METHOD, terms.SEQUENCE)
    estimate, se = (local[name].transpose(*order).values for name in ("estimate", "se"))
    result = meta.random_effects(estimate, se, method=section.method, test=section.test, alpha=alpha)
    values = {name: getattr(result, "n_studies" if name == "n_sequences" else name) for name in terms.GLOBAL}
    values["status"] = values["status"].astype(np.int8)
    coords = {name: local[name] for name in terms.GLOBAL_DIMS}
    dataset = _dataset(terms.GLOBAL, values, coords, [str(name) for name in local[terms.METHOD].values], scale)
    dataset.attrs.update(
        title="global effects: random-effects meta-analysis over sequences",
        tau2_method=section.method,
        test=section.test,
    )
    dataset["status"].attrs.update(_flags(meta.MetaStatus, None))
    for name in ("ci_low", "ci_high", "prediction_low", "prediction_high"):
        dataset[name].attrs["confidence_level"] = 1 - alpha
    return dataset


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


def _blocks(effects: xr.Dataset) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield an exposure and some sequences that count for it, so that memory stays bounded."""
    variants = effects.sizes[terms.POSITION] * effects.sizes[terms.ALLELE] * effects.sizes[terms.OUTCOME]
    size = max(1, _BLOCK_ELEMENTS // variants)
    counts = effects["bound"].values & effects["completed"].values
    for exposure in range(len(counts)):
        sequences = np.flatnonzero(counts[exposure])
        for start in range(0, len(sequences), size):
            yield exposure, sequences[start : start + size]


def _instruments(
    effects: xr.Dataset, exposure: int, sequences: NDArray[np.int64], min_f: float
) -> instruments.Instruments:
    variant = (terms.POSITION, terms.ALLELE)

    def read(name: str, **one: int) -> NDArray[np.float32]:
        chosen = effects[name].isel({**one, terms.SEQUENCE: sequences})
        with explained(Path(effects.encoding.get("source", "the store")), "read"):
            stacked: NDArray[np.float32] = chosen.values.reshape(*chosen.shape[: -len(variant)], -1)
        return stacked

    one = {terms.EXPOSURE: exposure}
    return instruments.select(
        read("exposure_effect", **one)[None],
        read("exposure_se", **one)[None],
        read("outcome_effect"),
        read("outcome_se"),
        min_f=min_f,
    )


def _blank(name: str) -> tuple[Any, Any]:
    if name == "status":
        return _ABSENT, np.int8
    return (0, np.int64) if name.startswith("n_") else (np.nan, np.float64)


def _dataset(
    known: Mapping[str, terms.Term],
    values: Mapping[str, NDArray[Any]],
    coords: Mapping[str, xr.DataArray],
    methods: list[Any],
    scale: str,
) -> xr.Dataset:
    method = np.array([str(name) for name in methods], dtype=object)
    note = "; ".join(f"{name}: {_LONG_NAMES[name]}" for name in method)
    # xarray's sel has an argument of the same name, which wins without a word.
    note += f". Select one with .sel({{'method': '{method[0]}'}}), not .sel(method=...)"
    index = (terms.METHOD, method, terms.attributes(terms.INDEXES[terms.METHOD], scale, description=note))
    variables = {
        name: (known[name].dims, array, terms.attributes(known[name], scale)) for name, array in values.items()
    }
    return xr.Dataset(
        variables, coords={**{name: array.variable for name, array in coords.items()}, terms.METHOD: index}
    )


def _flags(status: Any, absent: str | None) -> dict[str, Any]:
    """Return the CF attributes that say what a status means."""
    named = [(int(member), member.name.lower()) for member in status]
    if absent:
        named.insert(0, (_ABSENT, absent))
    return {"flag_values": [value for value, _ in named], "flag_meanings": " ".join(name for _, name in named)}
