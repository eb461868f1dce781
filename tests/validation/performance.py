"""Performance of an estimator over replications, with Monte-Carlo errors, and its tables."""

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Performance:
    """One estimator in one condition. A number with `_mc` is the Monte-Carlo standard error of the one before it.

    Attributes
    ----------
    replications, answered : int, float
        Replications, and the share of them with an estimate; what follows is about these.
    bias, sd : float
        Mean of the estimate - slope, and standard deviation of the estimate.
    median_bias : float
        Median of the estimate - slope.
    se_ratio : float
        Median standard error / sd.
    coverage : float
        Share of 95% intervals that hold the slope.
    rejection : float
        Share of p-values below 0.05: the type I error where the slope is 0, else the power.
    """

    design: str
    pleiotropy: str
    f_statistic: float
    correlation: float
    factors: int
    coherence: float
    slope: float
    estimator: str
    replications: int
    answered: float
    bias: float
    bias_mc: float
    median_bias: float
    sd: float
    se_ratio: float
    coverage: float
    coverage_mc: float
    rejection: float
    rejection_mc: float


# Answers that a condition needs to be counted in the tables.
ENOUGH = 40

_KINDS = {
    field.name: {"str": str, "int": int, "float": float}[getattr(field.type, "__name__", str(field.type))]
    for field in fields(Performance)
}


def measure(results: Sequence[Any], slope: float) -> dict[str, float]:
    """Return the measures over the results of an estimator for blocks of replications."""
    names = ("estimate", "se", "ci_low", "ci_high", "pvalue")
    estimate, se, low, high, pvalue = (
        np.concatenate([np.atleast_1d(getattr(result, name)) for result in results]) for name in names
    )
    answered = np.isfinite(estimate) & np.isfinite(se)
    count = int(answered.sum())
    found: dict[str, float] = {"replications": len(estimate), "answered": count / len(estimate)}
    if count < 2:
        return found | dict.fromkeys((field.name for field in fields(Performance)[10:]), np.nan)
    estimate, se, low, high, pvalue = (array[answered] for array in (estimate, se, low, high, pvalue))
    sd = float(estimate.std(ddof=1))

    def share(happened: Any) -> tuple[float, float]:
        p = float(np.mean(happened))
        return p, float(np.sqrt(p * (1 - p) / count))

    coverage, coverage_mc = share((low <= slope) & (slope <= high))
    rejection, rejection_mc = share(pvalue < 0.05)
    return found | {
        "bias": float(estimate.mean() - slope),
        "bias_mc": sd / np.sqrt(count),
        "median_bias": float(np.median(estimate) - slope),
        "sd": sd,
        "se_ratio": float(np.median(se)) / sd,
        "coverage": coverage,
        "coverage_mc": coverage_mc,
        "rejection": rejection,
        "rejection_mc": rejection_mc,
    }


def write(path: Path, rows: Iterable[Performance]) -> None:
    """Write the table as compressed CSV, numbers with four decimals; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Performance))
    for row in rows:
        writer.writerow(_short(value) for value in asdict(row).values())
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read(path: Path) -> list[Performance]:
    """Read the table."""
    with gzip.open(path, "rt", newline="") as file:
        return [
            Performance(**{name: _KINDS[name](value or "nan") for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def digest(rows: Sequence[Performance]) -> str:
    """Return Markdown tables: an estimator a row, what matters most a column."""
    parts = ["Made by `python -m tests.validation.simulation_study`; see README.md for what the columns mean.\n"]
    main = [row for row in rows if row.design == "factorial"]
    for pleiotropy in dict.fromkeys(row.pleiotropy for row in main):
        chosen = [row for row in main if row.pleiotropy == pleiotropy]
        parts += [f"## Factorial design, pleiotropy: {pleiotropy}\n", _factorial(chosen)]
    for design in dict.fromkeys(row.design for row in rows if row.design != "factorial"):
        parts += [f"## {design}\n", _others([row for row in rows if row.design == design])]
    return "\n".join(parts)


def _factorial(rows: Sequence[Performance]) -> str:
    strengths = sorted({row.f_statistic for row in rows})
    measures: list[tuple[str, bool, Callable[[list[Performance]], str]]] = [
        ("type I", True, lambda cells: _mean_and_worst([cell.rejection for cell in cells], max)),
        ("bias", False, lambda cells: _mean_and_worst([cell.bias for cell in cells], lambda x: max(x, key=abs))),
        ("coverage", False, lambda cells: _mean_and_worst([cell.coverage for cell in cells], min)),
        ("power", False, lambda cells: _mean_and_worst([cell.rejection for cell in cells], None)),
    ]
    head = ["estimator", *(f"{name}, F={f:g}" for name, _, _ in measures for f in strengths), "answered, F=2"]
    lines = [head, ["---"] * len(head)]
    for estimator in dict.fromkeys(row.estimator for row in rows):
        own = [row for row in rows if row.estimator == estimator]
        line = [estimator]
        for _, null, summary in measures:
            for f in strengths:
                cells = [row for row in own if row.f_statistic == f and (row.slope == 0) == null]
                line.append(summary([cell for cell in cells if cell.answered * cell.replications >= ENOUGH]))
        weak = [row.answered for row in own if row.f_statistic == min(strengths)]
        lines.append([*line, f"{np.mean(weak):.2f}" if weak else ""])
    return _markdown(lines)


def _others(rows: Sequence[Performance]) -> str:
    head = ["estimator", "coherence", "slope", "answered", "bias", "(MC)", "SE / SD", "coverage", "rejection", "(MC)"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        numbers = (row.answered, row.bias, row.bias_mc, row.se_ratio, row.coverage, row.rejection, row.rejection_mc)
        lines.append([row.estimator, f"{row.coherence:g}", f"{row.slope:g}", *(f"{value:.3f}" for value in numbers)])
    return _markdown(lines)


def _mean_and_worst(values: list[float], worst: Callable[[list[float]], float] | None) -> str:
    if not values:
        return ""
    mean = f"{np.mean(values):.2f}"
    return mean if worst is None else f"{mean} ({worst(values):.2f})"


def _markdown(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _short(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".")
