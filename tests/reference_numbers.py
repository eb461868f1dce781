"""Reads the numbers that R packages gave for fixed data: the committed subset, and the full set where it is present."""

import fnmatch
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COMMITTED = Path(__file__).parent / "reference"
FULL = Path(__file__).parents[2] / "shared" / "reference"
FOLDERS = {"committed": COMMITTED, "full": FULL}


@dataclass(frozen=True)
class Record:
    """One call of an R function: its options, and the value, error or message that came back."""

    dataset: str
    package: str
    key: str
    content: dict[str, Any]
    not_to_match: str

    @property
    def function(self) -> str:
        return re.sub(r"\(.*", "", self.key).removeprefix("correl:")

    @property
    def correlated(self) -> bool:
        return self.key.startswith("correl:")

    @property
    def value(self) -> Any:
        answer = self.content.get("value") if self.content["ok"] else None
        return None if answer is None else _flat(numbers(answer))

    @property
    def options(self) -> dict[str, Any]:
        """The non-default arguments in the key, with R's values as Python's."""
        inside = re.sub(r"^[^(]*\(|\)$", "", self.key)
        pairs = re.findall(r"([\w.]+)=('[^']*'|[^,']+)", inside)
        return {name: _python(text) for name, text in pairs}


@dataclass(frozen=True)
class DataSet:
    """The data of one reference file, and what the R packages made of them."""

    name: str
    data: dict[str, np.ndarray[Any, Any]]
    records: tuple[Record, ...]

    def record(self, package: str, key: str) -> Record:
        return next(record for record in self.records if (record.package, record.key) == (package, key))


def numbers(value: Any) -> Any:
    """Return the content with "NaN", "Inf" and null as floats, and lists of numbers as they are."""
    if isinstance(value, dict):
        return {name: numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if value is None or value in ("NaN", "Inf", "-Inf"):
        return float("nan" if value is None else value)
    return value


def names(source: str, prefix: str) -> list[str]:
    """Return the names of the data sets in a folder; empty where the folder is absent."""
    return sorted(path.stem for path in FOLDERS[source].glob(f"{prefix}*.json"))


@cache
def load(source: str, name: str) -> DataSet:
    """Return one data set of a folder."""
    content = json.loads((FOLDERS[source] / f"{name}.json").read_text())
    refused = content.get("do_not_match", [])
    calls = [(package, key, record) for package, made in content["results"].items() for key, record in made.items()]
    for table in content.get("tables", []):
        for key, row in table["rows"].items():
            record = {"ok": True, "value": dict(zip(table["fields"], row, strict=True))}
            calls.append((table["package"], key, record))
    records = tuple(
        Record(name, package, key, record, _refusal(refused, package, key)) for package, key, record in calls
    )
    data = {key: np.array(numbers(value), dtype=float) for key, value in content["data"].items()}
    return DataSet(name, data, records)


def _flat(value: Any) -> Any:
    if isinstance(value, dict) and "Heter.Stat" in value:
        value["Q"], value["Q.pval"] = value.pop("Heter.Stat")
    if isinstance(value, dict) and "predict" in value:
        value |= {end: value["predict"][end] for end in ("pi.lb", "pi.ub")}
        riley = value.get("predict_riley") or {}
        value |= {f"riley.{end}": riley.get(f"pi.{end}", float("nan")) for end in ("lb", "ub")}
    return value


def _refusal(refused: list[dict[str, str]], package: str, key: str) -> str:
    reasons = [
        entry["reason"]
        for entry in refused
        if fnmatch.fnmatchcase(package, entry.get("package", "*")) and _matches(key, entry["key"])
    ]
    return "; ".join(reasons)


def _matches(key: str, pattern: str) -> bool:
    # Only '*' is a wildcard in these files; the keys hold brackets that fnmatch would take for sets.
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), key) is not None


def _python(text: str) -> Any:
    if text in ("TRUE", "FALSE"):
        return text == "TRUE"
    return float(text) if re.fullmatch(r"[-+.\deE]+", text) else text.strip("'")


def sources(prefix: str) -> list[Any]:
    """Return (source, name) for every data set of both folders; a skipped case where the full folder is absent."""
    cases: list[Any] = [("committed", name) for name in names("committed", prefix)]
    full = [("full", name) for name in names("full", prefix)]
    missing = pytest.param("full", prefix, marks=pytest.mark.skip(reason=f"{FULL} is not on this machine"))
    return cases + (full or [missing])


def inputs(dataset: DataSet) -> list[np.ndarray[Any, Any]]:
    """Return bx, bxse, by, byse."""
    return [dataset.data[name] for name in ("bx", "bxse", "by", "byse")]


def mr_options(record: Record, dataset: DataSet) -> dict[str, Any]:
    """Return the keyword arguments of `mr.ivw` or `mr.egger` that repeat the call in R."""
    options = record.options
    if record.correlated:
        options["correlation"] = dataset.data["correlation"]
    return options


def rtol_of(name: str) -> float:
    """Return the relative tolerance of the reference: 1e-9, or 1e-8 for the ill-conditioned set."""
    return 1e-8 if name == "mr_edge_se_range" else 1e-9


def assert_close(actual: Any, expected: Any, *, rtol: float, atol: float = 0.0, label: str = "") -> None:
    """Compare with numpy's rule; NaN agrees with NaN alone."""
    atol = atol if np.isfinite(atol) else 0.0
    np.testing.assert_allclose(actual, np.asarray(expected, dtype=float), rtol=rtol, atol=atol, err_msg=label)
