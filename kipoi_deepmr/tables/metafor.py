"""Global effects under the names of the R package metafor."""

import numpy as np
import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP
from kipoi_deepmr.tables.tidy import direction, global_table, group, in_words

# `rma.uni` (Viechtbauer 2010) and, for the prediction interval, `predict.rma`.
_NAMES = {
    "estimate": "estimate",
    "se": "se",
    "zval": "zval",
    "pvalue": "pval",
    "ci_low": "ci.lb",
    "ci_high": "ci.ub",
    "tau2": "tau2",
    "i2": "I2",
    "H2": "H2",
    "q": "QE",
    "q_pvalue": "QEp",
    "n_sequences": "k",
    "prediction_low": "pi.lb",
    "prediction_high": "pi.ub",
}


def global_results(results: xr.DataTree, *, reverse: bool = False) -> pd.DataFrame:
    """Return the global effects under the names of metafor, one row per exposure, outcome and estimator.

    Parameters
    ----------
    results
        An open store.
    reverse
        The effects of the outcomes on the exposures: each is then in the other's column.

    Returns
    -------
    pandas.DataFrame
        exposure, outcome, estimator; estimate, se, zval (with Knapp-Hartung errors a t statistic, as in metafor), pval,
        ci.lb, ci.ub, tau2, I2 (percent), H2, QE, QEp, k, pi.lb, pi.ub; method (metafor's: the estimator of tau2), test,
        status, and the other variables of `/global`.

    Raises
    ------
    StoreError
        If the store has no estimates, or not those of that direction.
    """
    tree, (cause, effect) = direction(results, reverse)
    overall = group(tree, GLOBAL_GROUP)
    table = global_table(tree)
    known = {*terms.GLOBAL_DIMS, terms.ESTIMATOR, "status", *_NAMES}
    table["zval"] = table["estimate"] / table["se"]
    with np.errstate(divide="ignore", invalid="ignore"):
        # I2 = 1 - 1 / H2 wherever tau2 is estimated; a common effect has H2 = Q / df, which I2 cuts off at 1.
        between, common = 1 / (1 - table["i2"] / 100), table["q"] / (table["n_sequences"] - 1)
    table["H2"] = common if overall.attrs["tau2_method"] == "FE" else between
    index = {cause: "exposure", effect: "outcome", terms.ESTIMATOR: "estimator"}
    named = table[[*index, *_NAMES]].rename(columns={**_NAMES, **index})
    named["method"] = overall.attrs["tau2_method"]
    named["test"] = overall.attrs["test"]
    named["status"] = in_words(table["status"], overall["status"])
    return pd.concat([named, table[[name for name in table if name not in known]]], axis=1)
