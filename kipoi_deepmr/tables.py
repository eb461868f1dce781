"""Results as tidy tables."""

import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP, LOCAL_GROUP

_TERMINAL_ROWS = 200


def global_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the global effects, one row per exposure, outcome and method.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, method and the variables of `/global`.
    """
    return _tidy(results[GLOBAL_GROUP].to_dataset(), (*terms.GLOBAL_DIMS, terms.METHOD))


def local_table(results: xr.DataTree) -> pd.DataFrame:
    """Return the local effects, one row per exposure, outcome, sequence and method, where the sequence is bound.

    Parameters
    ----------
    results
        An open store.

    Returns
    -------
    pandas.DataFrame
        Columns exposure, outcome, sequence, method and the variables of `/local`.
    """
    local = results[LOCAL_GROUP].to_dataset()
    table = _tidy(local, (*terms.LOCAL_DIMS, terms.METHOD))
    return table[table["bound"]].drop(columns="bound").reset_index(drop=True)


def terminal_table(results: xr.DataTree) -> str:
    """Return the global effects as text of at most 100 columns."""
    table = global_table(results)
    scale = str(results.attrs["scale"])
    shown = pd.DataFrame(
        {
            "exposure": table["exposure"].map(_short),
            "outcome": table["outcome"].map(_short),
            "method": table["method"],
            "estimate": table["estimate"].map(_number),
            "interval": [
                f"[{_number(low)}, {_number(high)}]"
                for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
            ],
            "p": table["pvalue"].map(lambda p: f"{p:.1e}" if p == p else "-"),
            "tau": (table["tau2"] ** 0.5).map(_number),
            "I2": table["i2"].map(lambda i2: f"{i2:.1f}%" if i2 == i2 else "-"),
            "n": table["n_sequences"],
        }
    )
    level = f"{100 * float(results[GLOBAL_GROUP]['ci_low'].attrs['confidence_level']):g}%"
    shown = shown.rename(columns={"interval": f"{level} interval"})
    text = shown.head(_TERMINAL_ROWS).to_string(index=False)
    more = f"\n... and {len(shown) - _TERMINAL_ROWS} rows more" if len(shown) > _TERMINAL_ROWS else ""
    return (
        f"Global model-implied effects: outcome per exposure on the {scale} scale, {results.attrs['standard_error']} "
        f"standard errors\n{text}{more}"
    )


def _tidy(dataset: xr.Dataset, index: tuple[str, ...]) -> pd.DataFrame:
    frame = dataset.to_dataframe(dim_order=list(index)).reset_index()
    return frame.astype({name: str for name in index if name in frame})


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"
