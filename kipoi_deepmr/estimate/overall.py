"""Global effects: meta-analysis of the local effects over sequences."""

import numpy as np
import xarray as xr

from kipoi_deepmr import meta, terms
from kipoi_deepmr.config import MetaSection
from kipoi_deepmr.estimate.local import flags, to_dataset


def global_estimates(
    local: xr.Dataset, section: MetaSection, alpha: float, scale: str, *, reverse: bool = False
) -> xr.Dataset:
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
    reverse
        Whether the local effects are those of the outcomes on the exposures.

    Returns
    -------
    xarray.Dataset
        The variables of `terms.GLOBAL`.
    """
    order = (*terms.GLOBAL_DIMS, terms.ESTIMATOR, terms.SEQUENCE)
    estimate, se = (local[name].transpose(*order).values for name in ("estimate", "se"))
    result = meta.random_effects(estimate, se, alpha=alpha, **section.model_dump())
    interval = meta.tau2_interval(estimate, se, alpha=alpha)
    named = {**vars(interval), **vars(result), "n_sequences": result.n_studies}
    values = {name: np.asarray(named[name], dtype=term.dtype) for name, term in terms.GLOBAL.items()}
    coords = {name: local[name] for name in terms.GLOBAL_DIMS}
    names = [str(name) for name in local[terms.ESTIMATOR].values]
    dataset = to_dataset(terms.GLOBAL, values, coords, names, scale, reverse=reverse)
    dataset.attrs.update(
        title="global effects: random-effects meta-analysis over sequences",
        tau2_method=section.method,
        test=section.test,
        prediction=section.prediction,
    )
    dataset = dataset.assign_coords({name: local[name] for name in terms.ESTIMATOR_COORDS})
    dataset[terms.ESTIMATOR].attrs["description"] = local[terms.ESTIMATOR].attrs["description"]
    dataset["status"].attrs.update(flags(meta.MetaStatus, {}))
    for name in ("ci_low", "ci_high", "tau2_low", "tau2_high", "prediction_low", "prediction_high"):
        dataset[name].attrs["confidence_level"] = 1 - alpha
    return dataset


def with_leave_one_out(local: xr.Dataset, section: MetaSection, scale: str, *, reverse: bool = False) -> xr.Dataset:
    """Add to the local effects the global effect without each sequence.

    Parameters
    ----------
    local, section, scale, reverse
        As in `global_estimates`.

    Returns
    -------
    xarray.Dataset
        The local effects with the variables of `terms.LOCAL_INFLUENCE`; NaN where a sequence has no estimate.
    """
    estimate, se = (local[name].values for name in ("estimate", "se"))
    found = {name: np.full(estimate.shape, term.fill, term.dtype) for name, term in terms.LOCAL_INFLUENCE.items()}
    for exposure, counts in enumerate(local["bound"].values):
        effect, error = estimate[exposure][:, counts], se[exposure][:, counts]
        result = meta.leave_one_out(effect, error, axis=1, **section.model_dump())
        present = np.isfinite(effect) & np.isfinite(error)
        found["leave_one_out"][exposure][:, counts] = np.where(present, result.estimate, np.nan)
        found["leave_one_out_se"][exposure][:, counts] = np.where(present, result.se, np.nan)
    return local.assign(
        {
            name: (term.dims, found[name], terms.attributes(term, scale, reverse=reverse))
            for name, term in terms.LOCAL_INFLUENCE.items()
        }
    )
