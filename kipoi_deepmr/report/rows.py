"""The tables of a report as rows of cells, each with the text to read and the value to sort by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.cube import CONTROLS_GROUP, GLOBAL_GROUP, REVERSE_GROUP
from kipoi_deepmr.estimators import SHOWN_INTERCEPT, label_of
from kipoi_deepmr.plots.canvas import three_digits
from kipoi_deepmr.plots.choice import local_effects, names
from kipoi_deepmr.report.extent import RANKED_ROWS, TABLE_ROWS
from kipoi_deepmr.tables.tidy import global_table, in_words


@dataclass(frozen=True)
class Cell:
    """A cell: what is read, what it is sorted by, and whether it is a number."""

    text: str
    key: str | float = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    heads : tuple of (str, str)
        Names of the columns and what they mean.
    rows : tuple of tuple of Cell
        Its rows; an empty row stands for rows that are left out.
    note : str
        What is left out.
    """

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def global_rows(results: xr.DataTree, exposure: str | None = None, outcome: str | None = None) -> Table:
    """Return the global effects: all of them, or those of one pair by every estimator."""
    frame = global_table(results)
    level = _level(results)
    if exposure is not None:
        frame = frame[(frame["exposure"] == exposure) & (frame["outcome"] == outcome)]
    left_out = len(frame) - TABLE_ROWS
    heads = {
        "exposure": "",
        "outcome": "",
        "estimator": "estimator of Mendelian randomization",
        "estimate": "mean effect over sequences: outcome per exposure",
        f"{level} interval": "of the mean effect",
        "p": "two-sided, of no effect",
        "τ": "SD of the effect between sequences",
        "I²": "share of the variation between sequences that is no sampling error",
        "prediction interval": "of the effect in a new sequence",
        "n": "sequences",
    }
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            name_cell(row["exposure"]),
            name_cell(row["outcome"]),
            name_cell(label_of(row["estimator"])),
            number_cell(row["estimate"]),
            interval_cell(row["ci_low"], row["ci_high"]),
            p_cell(row["pvalue"]),
            number_cell(np.sqrt(row["tau2"])),
            Cell(f"{row['i2']:.0f}%" if np.isfinite(row["i2"]) else "-", float(row["i2"]), True),
            interval_cell(row["prediction_low"], row["prediction_high"]),
            Cell(str(row["n_sequences"]), float(row["n_sequences"]), True),
        )
        for row in frame.head(TABLE_ROWS).to_dict("records")
    )
    if exposure is not None:
        return Table(tuple(heads.items())[2:], tuple(row[2:] for row in rows))
    note = f"The first {TABLE_ROWS} of {len(frame)} rows; `kipoi deepmr export` writes all." if left_out > 0 else ""
    return _of_pairs(results, tuple(heads.items()), rows, note)


def ranked_rows(results: xr.DataTree, exposure: str, outcome: str, estimator: str) -> Table:
    """Return the sequences of an exposure, ranked by their local effects."""
    ranked = local_effects(results, exposure, outcome, estimator)
    local = local_effects_by_every_estimator(results, exposure, outcome, ranked)
    count = ranked.sizes[terms.SEQUENCE]
    shown = (
        range(count) if count <= RANKED_ROWS else [*range(RANKED_ROWS // 2), *range(count - RANKED_ROWS // 2, count)]
    )
    known = [name for name, one in local.items() if np.isfinite(one["intercept_pvalue"].values).any()]
    intercepts = {name: local[name] for name in sorted(known, key=lambda name: name != SHOWN_INTERCEPT)[:1]}
    heads = {
        "rank": "by the local effect, highest first",
        "sequence": "contig:start-end(strand), 0-based and half-open as in BED",
        "local effect": "outcome per exposure",
        f"{_level(results)} interval": "",
        "mean F": "mean (effect / SE)² of the exposure over mutations; below 10 is weak",
        "I²_GX": "share of the variation of the exposure effects that is no error",
        "mutations": "that serve as instruments",
    } | {f"intercept p ({label_of(name)})": "p-value of no directional pleiotropy" for name in intercepts}
    reasons = in_words(ranked["status"].values, ranked["status"])
    columns = {name: ranked[name].values for name in ("estimate", "ci_low", "ci_high", "f_statistic", "i2_gx")}
    labels, used = ranked[terms.SEQUENCE].values.tolist(), ranked["n_instruments"].values
    rows: list[tuple[Cell, ...]] = []
    for rank in shown:
        estimate, low, high, strength, share = (column[rank] for column in columns.values())
        missing = "" if np.isfinite(estimate) else reasons[rank].replace("_", " ")
        rows.append(
            (
                Cell(str(rank + 1), rank, True),
                name_cell(str(labels[rank])),
                number_cell(estimate) if not missing else Cell(missing, np.nan, True),
                interval_cell(low, high),
                number_cell(strength),
                number_cell(share),
                Cell(str(int(used[rank])), float(used[rank]), True),
                *(p_cell(one["intercept_pvalue"].values[rank]) for one in intercepts.values()),
            )
        )
    note = f"The first and the last {RANKED_ROWS // 2} of {count}." if len(rows) < count else ""
    return Table(tuple(heads.items()), tuple(rows), note)


def local_effects_by_every_estimator(
    results: xr.DataTree, exposure: str, outcome: str, ranked: xr.Dataset
) -> Mapping[str, xr.Dataset]:
    """Return the local effects by every estimator, in the order of a ranked dataset."""
    order = {terms.SEQUENCE: ranked[terms.SEQUENCE].values}
    estimators = names(results, terms.ESTIMATOR)
    return {name: local_effects(results, exposure, outcome, name).sel(order) for name in estimators}


def permuted_rows(results: xr.DataTree) -> Table | None:
    """Return the estimates with permuted exposure effects beside the estimates, where the run made them."""
    frame = global_table(results)
    if not set(terms.GLOBAL_PERMUTED) <= set(frame):
        return None
    heads = {
        "exposure": "",
        "outcome": "",
        "estimator": "",
        "estimate": "outcome per exposure",
        "permuted: mean": "mean of the estimates with permuted exposure effects; should be near 0",
        "permuted: range": "where the middle of them lies (1 - alpha)",
        "permuted: p": "share of permutations that are as many standard errors away from 0",
        "permutations": "",
    }
    rows = tuple(
        (
            *(name_cell(text) for text in (row["exposure"], row["outcome"], label_of(row["estimator"]))),
            number_cell(row["estimate"]),
            number_cell(row["permuted_mean"]),
            interval_cell(row["permuted_low"], row["permuted_high"]),
            p_cell(row["permuted_pvalue"]),
            Cell(f"{row['n_permuted']:.0f}", float(row["n_permuted"]), True),
        )
        for row in frame.head(TABLE_ROWS).to_dict("records")
    )
    return _of_pairs(results, tuple(heads.items()), rows)


def reverse_rows(results: xr.DataTree) -> Table | None:
    """Return both directions side by side, where the run estimated them."""
    return _beside(
        results,
        REVERSE_GROUP,
        ("exposure → outcome", "outcome per exposure"),
        ("outcome → exposure", "exposure per outcome, in the same sequences"),
    )


def shuffled_rows(results: xr.DataTree) -> Table | None:
    """Return the estimates in shuffled sequences beside the estimates, where the run made them."""
    return _beside(
        results,
        CONTROLS_GROUP,
        ("estimate", "outcome per exposure"),
        ("shuffled sequences", "outcome per exposure, in dinucleotide shuffles of the sequences"),
    )


def _beside(results: xr.DataTree, group: str, left: tuple[str, str], right: tuple[str, str]) -> Table | None:
    """Return the global effects of the store and of one of its groups side by side, where the group has some."""
    other = results.children.get(group)
    if other is None or GLOBAL_GROUP not in other.children:
        return None
    key = [*terms.GLOBAL_DIMS, terms.ESTIMATOR]
    both = pd.merge(global_table(results), global_table(other), on=key, suffixes=("", "_other"))
    level = f"{_level(results)} interval"
    heads = (("exposure", ""), ("outcome", ""), ("estimator", ""), left, (level, ""), right, (level, ""))
    rows = tuple(
        (
            *(name_cell(text) for text in (row["exposure"], row["outcome"], label_of(row["estimator"]))),
            number_cell(row["estimate"]),
            interval_cell(row["ci_low"], row["ci_high"]),
            number_cell(row["estimate_other"]),
            interval_cell(row["ci_low_other"], row["ci_high_other"]),
        )
        for row in both.head(TABLE_ROWS).to_dict("records")
    )
    return _of_pairs(results, heads, rows)


def _of_pairs(
    results: xr.DataTree, heads: tuple[tuple[str, str], ...], rows: tuple[tuple[Cell, ...], ...], note: str = ""
) -> Table:
    """Return a table whose first columns are exposure and outcome; an outcome that is the only one is said once."""
    outcomes = names(results, terms.OUTCOME)
    if len(outcomes) > 1:
        return Table(heads, rows, note)
    only = f"The outcome is {outcomes[0]}."
    return Table((heads[0], *heads[2:]), tuple((row[0], *row[2:]) for row in rows), f"{only} {note}".strip())


def name_cell(text: str) -> Cell:
    """Return a cell with a name."""
    return Cell(text, text.casefold())


def number_cell(value: Any) -> Cell:
    """Return a cell with a number of three digits."""
    return Cell(three_digits(float(value)), float(value), True)


def interval_cell(low: Any, high: Any) -> Cell:
    """Return a cell with an interval, sorted by its lower end."""
    if not np.isfinite([low, high]).all():
        return Cell("-", np.nan, True)
    return Cell(f"{number_cell(low).text} to {number_cell(high).text}", float(low), True)


def p_cell(value: Any) -> Cell:
    """Return a cell with a p-value."""
    text = "-" if not np.isfinite(value) else "<1e-300" if value < 1e-300 else f"{value:.2g}"
    return Cell(text, float(value), True)


def _level(results: xr.DataTree) -> str:
    attrs = results[GLOBAL_GROUP]["ci_low"].attrs
    return f"{100 * float(attrs.get('confidence_level', 0.95)):.4g}%"
