"""The global effects as text for a terminal."""

import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP
from kipoi_deepmr.tables.tidy import every_estimate, global_table, group

_TERMINAL_ROWS = 200
_TERMINAL_COLUMNS = 100
_OF_THE_MEAN = "*"
_TITLES = {
    ("forward", None): "",
    ("reverse", None): "In reverse: effect of the outcome on the exposure, exposure per outcome",
    ("forward", "shuffled"): "Control: the same in shuffled sequences",
    ("reverse", "shuffled"): "Control in reverse",
}


def terminal_table(results: xr.DataTree) -> str:
    """Return the global effects as text of at most 100 columns, with those in reverse and of shuffled sequences.

    Parameters
    ----------
    results
        An open store.

    Raises
    ------
    StoreError
        If the store has no estimates yet.
    """
    group(results, GLOBAL_GROUP)
    scale, errors = results.attrs["scale"], results.attrs["standard_error"]
    parts = [f"Global model-implied effects: outcome per exposure on the {scale} scale,\n{errors} standard errors"]
    for direction, control, tree in every_estimate(results):
        title = _TITLES[direction, control]
        parts += [*(["", title] if title else []), _rows(tree, errors)]
    text = "\n".join(parts)
    notes = []
    if "p perm" in text:
        notes.append(
            "p perm: share of permutations of the exposure effects that are as many standard errors away from 0"
        )
        if (group(results, GLOBAL_GROUP)["n_permuted"] == 0).all((terms.EXPOSURE, terms.OUTCOME)).any():
            notes += [
                "(none where no permutation gave an estimate: estimators that need every draw are permuted only",
                "where the store keeps the draws, `effects: {keep_draws: true}`)",
            ]
    if f"{_OF_THE_MEAN} " in text:
        notes.append(f"{_OF_THE_MEAN} standard errors of the mean over draws (Monte Carlo), which the estimator needs")
    return "\n".join([text, *notes])


def _rows(results: xr.DataTree, errors: str) -> str:
    table = global_table(results)
    first, others = table.head(_TERMINAL_ROWS), len(table) - _TERMINAL_ROWS
    level = f"{100 * float(results[GLOBAL_GROUP]['ci_low'].attrs['confidence_level']):.10g}%"
    columns = {
        "estimator": _estimators(first, errors),
        "estimate": first["estimate"].map(_number),
        f"{level} interval": [
            f"[{_number(low)}, {_number(high)}]" for low, high in zip(first["ci_low"], first["ci_high"], strict=True)
        ],
        "p": first["pvalue"].map(_pvalue),
    }
    if set(terms.GLOBAL_PERMUTED) <= set(first):
        columns["p perm"] = first["permuted_pvalue"].map(lambda p: "-" if p != p else f"{p:.2g}")
    columns |= {
        "tau": (first["tau2"] ** 0.5).map(_number),
        "I2": first["i2"].map(lambda i2: f"{i2:.1f}%" if i2 == i2 else "-"),
        "n": first["n_sequences"],
    }
    numbers = pd.DataFrame(columns)
    left = _TERMINAL_COLUMNS - len(numbers.to_string(index=False).partition("\n")[0])
    columns_of_names, above = [first["exposure"], first["outcome"]], ""
    if first["outcome"].nunique() == 1 and sum(_longest(columns_of_names)) > left - 2:
        above = f"outcome: {cut(first['outcome'].iloc[0], _TERMINAL_COLUMNS - len('outcome: '))}\n"
        names = [first["exposure"].map(lambda name: cut(name, left - 1))]
    else:
        names = _short(columns_of_names, left - 2)
    text = pd.concat([*names, numbers], axis=1).to_string(index=False)
    return f"{above}{text}\n... and {others} rows more" if others > 0 else above + text


def _estimators(table: pd.DataFrame, errors: str) -> pd.Series:
    """Return the estimators, with a mark where one takes other errors than those stored."""
    if "standard_error" not in table:
        return table["estimator"]
    return table["estimator"] + (table["standard_error"] != errors).map({True: _OF_THE_MEAN, False: ""})


def _short(columns: list[pd.Series], width: int) -> list[pd.Series]:
    """Cut names in their middle, so that two columns fit the width; the ends of names tell more than the middle."""
    longest = _longest(columns)
    half = width // 2
    limits = [max(half, width - longest[1]), max(half, width - longest[0])]
    return [column.map(lambda name, n=limit: cut(name, n)) for column, limit in zip(columns, limits, strict=True)]


def _longest(columns: list[pd.Series]) -> list[int]:
    return [max([len(str(column.name)), *column.map(len)]) for column in columns]


def cut(name: str, width: int) -> str:
    """Shorten a name in its middle; the ends of names tell more."""
    width = max(width, 4)
    tail = (width - 2) // 2
    return name if len(name) <= width else f"{name[: width - 2 - tail]}..{name[-tail:]}"


def _pvalue(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.1e}" if value >= 1e-300 else "<1e-300"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"
