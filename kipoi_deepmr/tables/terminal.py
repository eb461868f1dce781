"""The global effects as text for a terminal."""

import pandas as pd
import xarray as xr

from kipoi_deepmr.cube import GLOBAL_GROUP
from kipoi_deepmr.tables.tidy import global_table

_TERMINAL_ROWS = 200
_TERMINAL_COLUMNS = 100


def terminal_table(results: xr.DataTree) -> str:
    """Return the global effects as text of at most 100 columns."""
    table = global_table(results)
    first, others = table.head(_TERMINAL_ROWS), len(table) - _TERMINAL_ROWS
    level = f"{100 * float(results[GLOBAL_GROUP]['ci_low'].attrs['confidence_level']):.10g}%"
    numbers = pd.DataFrame(
        {
            "method": first["method"],
            "estimate": first["estimate"].map(_number),
            f"{level} interval": [
                f"[{_number(low)}, {_number(high)}]"
                for low, high in zip(first["ci_low"], first["ci_high"], strict=True)
            ],
            "p": first["pvalue"].map(_pvalue),
            "tau": (first["tau2"] ** 0.5).map(_number),
            "I2": first["i2"].map(lambda i2: f"{i2:.1f}%" if i2 == i2 else "-"),
            "n": first["n_sequences"],
        }
    )
    left = _TERMINAL_COLUMNS - len(numbers.to_string(index=False).partition("\n")[0])
    names = _short([first["exposure"], first["outcome"]], left - 2)
    text = pd.concat([*names, numbers], axis=1).to_string(index=False)
    more = f"\n... and {others} rows more" if others > 0 else ""
    return (
        f"Global model-implied effects: outcome per exposure on the {results.attrs['scale']} scale,\n"
        f"{results.attrs['standard_error']} standard errors\n{text}{more}"
    )


def _short(columns: list[pd.Series], width: int) -> list[pd.Series]:
    """Cut names in their middle, so that two columns fit the width; the ends of names tell more than the middle."""
    longest = [max([len(str(column.name)), *column.map(len)]) for column in columns]
    half = width // 2
    limits = [max(half, width - longest[1]), max(half, width - longest[0])]
    return [column.map(lambda name, n=limit: cut(name, n)) for column, limit in zip(columns, limits, strict=True)]


def cut(name: str, width: int) -> str:
    """Shorten a name in its middle; the ends of names tell more."""
    tail = (width - 2) // 2
    return name if len(name) <= width else f"{name[: width - 2 - tail]}..{name[-tail:]}"


def _pvalue(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.1e}" if value >= 1e-300 else "<1e-300"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"
