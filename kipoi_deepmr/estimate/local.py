"""Local effects: Mendelian randomization of each exposure, outcome and sequence."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import mr, terms
from kipoi_deepmr.config import MRSection
from kipoi_deepmr.estimate.from_draws import WITHOUT_DRAWS, DrawnEstimates
from kipoi_deepmr.estimate.methods import estimate, results_of
from kipoi_deepmr.estimate.summary import Summary, summaries

_ANY_NUMBER = 100

Progress = Callable[[int], object]


def unseen(_: int) -> None:
    """Show no progress."""


def local_estimates(
    effects: xr.Dataset,
    section: MRSection,
    drawn: DrawnEstimates,
    *,
    reverse: bool = False,
    progress: Progress = unseen,
) -> xr.Dataset:
    """Estimate the effect of each exposure on each outcome in each sequence that it binds.

    Parameters
    ----------
    effects
        The group `/effects` of a store, from `read_effects`.
    section
        Estimators and their options.
    drawn
        Where the estimates come from that need every draw.
    reverse
        Estimate the effect of each outcome on each exposure instead, in the same sequences.
    progress
        Called with the number of sequences that a method has done for an exposure.

    Returns
    -------
    xarray.Dataset
        The variables of `terms.LOCAL`; NaN where a sequence does not count for an exposure.
    """
    sizes = {**{dim: effects.sizes[dim] for dim in terms.LOCAL_DIMS}, terms.ESTIMATOR: len(section.methods)}
    values = {
        name: np.full([sizes[dim] for dim in term.dims], term.fill, term.dtype) for name, term in terms.LOCAL.items()
    }
    for summary in summaries(effects, jointly=any(method.row.joint for method in section.methods)):
        chosen = (summary.reversed() if reverse else summary).selected(section.min_f)
        for name, array in {**describe(chosen), **fit(chosen, section, values, progress)}.items():
            values[name][summary.exposure][:, summary.sequences] = array
        for index, method in enumerate(section.methods):
            if method.row.draws:
                found = drawn.of(method, section, summary.exposure, summary.sequences, reverse=reverse)
                for name, array in found.items():
                    values[name][summary.exposure][:, summary.sequences, index] = array
                progress(len(summary.sequences))
    coords = {name: effects[name] for name in (*terms.LOCAL_DIMS, "bound", "chrom", "start", "end", "strand")}
    names = [method.name for method in section.methods]
    dataset = to_dataset(terms.LOCAL, values, coords, names, str(effects.attrs["scale"]), reverse=reverse)
    stored = str(effects.attrs["standard_error"])
    kinds = ["monte_carlo" if method.row.of_the_mean else stored for method in section.methods]
    term = terms.ESTIMATOR_COORDS["standard_error"]
    dataset = dataset.assign_coords(
        standard_error=(term.dims, np.array(kinds, dtype=object), terms.attributes(term, str(effects.attrs["scale"])))
    )
    dataset.attrs.update(title="local effects: Mendelian randomization of each sequence", min_f=section.min_f)
    dataset[terms.ESTIMATOR].attrs["description"] = _describe_methods(section)
    absent = {terms.ABSENT: "not_bound_or_not_completed"}
    if any(method.row.draws for method in section.methods):
        absent = {WITHOUT_DRAWS: "draws_not_in_store", **absent}
    dataset["status"].attrs.update(flags(mr.Status, absent))
    for name in ("ci_low", "ci_high"):
        dataset[name].attrs["confidence_level"] = 1 - section.alpha
    return dataset


def describe(chosen: Summary) -> dict[str, NDArray[Any]]:
    """Return what a user has to know of the instruments, shape (outcome, sequence) each."""
    data = (chosen.bx, chosen.bxse, chosen.by, chosen.byse)
    rucker = mr.diagnostics.rucker_q(*data)
    # Which of two correlations is larger does not depend on the number of observations, if it is the same for both.
    steiger = mr.diagnostics.steiger_filter(*data, n_exposure=_ANY_NUMBER, n_outcome=_ANY_NUMBER)
    return {
        "n_instruments": np.isfinite(chosen.bx).sum(-1),
        "n_weak": np.asarray(chosen.n_weak),
        "n_without_error": np.asarray(chosen.n_without_error),
        "f_statistic": mr.diagnostics.mean_f_statistic(*data[:2]),
        "i2_gx": mr.diagnostics.i2_gx(chosen.bx, chosen.bxse, chosen.byse),
        "q_difference": rucker.q_difference,
        "q_difference_pvalue": rucker.q_difference_pvalue,
        "steiger_share": _share(steiger.keep, chosen.bx),
    }


def _share(held: NDArray[np.bool_], bx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of instruments for which something holds; NaN without instruments."""
    count = np.isfinite(bx).sum(-1)
    return np.divide(held.sum(-1), count, out=np.full(count.shape, np.nan), where=count > 0)


def fit(
    chosen: Summary, section: MRSection, wanted: Iterable[str], progress: Progress = unseen
) -> dict[str, NDArray[Any]]:
    """Estimate with every method.

    Parameters
    ----------
    chosen
        The instruments.
    section
        The methods.
    wanted
        Names of variables; those that a method does not have are left blank, and all of a method that needs draws.
    progress
        Called with the number of sequences after each method.

    Returns
    -------
    dict of str to array, shape=(outcome, sequence, method)
    """
    names = [name for name in wanted if terms.ESTIMATOR in terms.LOCAL[name].dims]
    shape = (*chosen.bx.shape[:-1], len(section.methods))
    found = {name: np.full(shape, terms.LOCAL[name].fill, terms.LOCAL[name].dtype) for name in names}
    for index, method in enumerate(section.methods):
        if method.row.draws:
            continue
        result = estimate(method, chosen, section.alpha)
        for name in results_of(method, names):
            found[name][..., index] = getattr(result, name)
        progress(len(chosen.sequences))
    return found


def to_dataset(
    known: Mapping[str, terms.Term],
    values: Mapping[str, NDArray[Any]],
    coords: Mapping[str, xr.DataArray],
    methods: list[str],
    scale: str,
    *,
    reverse: bool,
) -> xr.Dataset:
    """Return variables with their coordinates and attributes."""
    described = terms.attributes(terms.INDEXES[terms.ESTIMATOR], scale)
    index = (terms.ESTIMATOR, np.array(methods, dtype=object), described)
    variables = {
        name: (known[name].dims, array, terms.attributes(known[name], scale, reverse=reverse))
        for name, array in values.items()
    }
    dataset = xr.Dataset(
        variables, coords={**{name: array.variable for name, array in coords.items()}, terms.ESTIMATOR: index}
    )
    dataset.attrs["direction"] = (
        "effect of the outcome on the exposure" if reverse else "effect of the exposure on the outcome"
    )
    return dataset


def flags(status: Any, absent: Mapping[int, str]) -> dict[str, Any]:
    """Return the CF attributes that say what a status means, those of `absent` first."""
    named = [*absent.items(), *((int(member), member.name.lower()) for member in status)]
    return {"flag_values": [value for value, _ in named], "flag_meanings": " ".join(name for _, name in named)}


def _describe_methods(section: MRSection) -> str:
    described = []
    for method in section.methods:
        options = ", ".join(f"{key}: {value}" for key, value in method.options.items())
        errors = " (Monte-Carlo errors)" if method.row.of_the_mean else ""
        name = f"{method.name}: {method.row.title}{errors}"
        described.append(f"{name} with {options}" if options else name)
    return "; ".join(described)
