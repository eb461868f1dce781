"""What every result is: arrays over the same leading axes, which can be read as text and as a table."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status

if TYPE_CHECKING:
    import pandas as pd

_ABOUT = ("estimator", "confidence_level")
# Rows that are shown of many, and significant digits of a number.
_ROWS, _DIGITS = 10, 4


def in_words(codes: Iterable[Any]) -> dict[int, str]:
    """Return the words for the members of an enumeration."""
    return {int(code): code.name.lower().replace("_", " ") for code in codes}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result:
    """Arrays over common leading axes; the shape of the first one tells the rows of the table."""

    _axis: ClassVar[str | None] = None
    _words: ClassVar[Mapping[str, Mapping[int, str]]] = {"status": in_words(Status)}

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by their names."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _ABOUT}
        return {name: np.asarray(value) for name, value in given.items() if not isinstance(value, Result)}

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table with a row for each leading index; for results of several exposures, one for each exposure.

        Returns
        -------
        pandas.DataFrame
            A column for each field with one value a row, the status in words; what belongs to a fit is repeated for each
            of its exposures, instruments or left-out groups. Fields with a further axis stay outside.
        """
        import pandas as pd

        shape, names, labels = self._shape, self._axes, self._labels
        levels = [list(range(size)) for size in shape]
        if labels is not None:
            levels[-1] = labels.tolist()
        index: pd.Index[Any] | None = None
        if shape:
            index = (
                pd.MultiIndex.from_product(levels, names=names)
                if len(shape) > 1
                else pd.Index(levels[0], name=names[0])
            )
        columns = {name: self._told(name, values.ravel()) for name, values in self._columns.items()}
        about = {name: getattr(self, name) for name in _ABOUT if hasattr(self, name)}
        table = pd.DataFrame(columns, index=index)
        for place, (name, value) in enumerate(about.items()):
            table.insert(place, name, value)
        return table

    def __repr__(self) -> str:
        shape, columns = self._shape, self._columns
        count = math.prod(shape)
        first = {name: self._told(name, values.ravel()[:_ROWS]) for name, values in columns.items()}
        shown, known = self._main(first)
        others = {name: values for name, values in first.items() if name not in known}
        further = [
            f"{name} {values.shape}" for name, values in self.arrays.items() if name not in {*columns, self._axis}
        ]
        if not shape:
            parts = (
                ", ".join(f"{label} {texts[0]}" for label, texts in part.items()) for part in (shown, _text(others))
            )
            lines = [f"{self._title}: {next(parts)}", *(f"  {part}" for part in parts if part)]
        else:
            indices = [np.unravel_index(row, shape) for row in range(min(count, _ROWS))]
            head = {", ".join(self._axes): [", ".join(self._place(index)) for index in indices]}
            lines = [f"{self._title}, shape {shape}: {self._counts}", *_table(head | shown)]
            lines += [f"  and {count - _ROWS} more rows"] if count > _ROWS else []
            lines += [f"  with {', '.join(others)}: see to_dataframe()"] if others else []
        return "\n".join([*lines, *([f"  arrays: {', '.join(further)}"] if further else [])])

    @property
    def _title(self) -> str:
        return getattr(self, "estimator", type(self).__name__)

    @property
    def _shape(self) -> tuple[int, ...]:
        return next(iter(self.arrays.values())).shape

    @property
    def _axes(self) -> list[str]:
        names = [f"axis_{number}" for number in range(len(self._shape))]
        return [*names[:-1], self._axis] if self._axis else names

    @property
    def _labels(self) -> npt.NDArray[Any] | None:
        return self.arrays.get(self._axis) if self._axis else None

    @property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays with one value for each row; those of a fit stand in each row of the fit."""
        shape, columns = self._shape, {}
        for name, values in self.arrays.items():
            if name != self._axis and values.shape == shape:
                columns[name] = values
            elif name != self._axis and self._axis and values.shape == shape[:-1]:
                columns[name] = np.broadcast_to(values[..., None], shape)
        return columns

    @property
    def _counts(self) -> str:
        if "status" not in self.arrays:
            return f"{math.prod(self._shape)} rows"
        codes, counts = np.unique(self.arrays["status"], return_counts=True)
        words = self._told("status", codes)
        return ", ".join(f"{count} {word}" for word, count in zip(words, counts, strict=True)) or "no fits"

    def _told(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        words = self._words.get(name)
        return values if words is None else np.array([words[int(code)] for code in values], dtype=object)

    def _place(self, index: tuple[Any, ...]) -> list[str]:
        labels = self._labels
        return [str(number) for number in (index if labels is None else (*index[:-1], labels[index[-1]]))]

    def _main(self, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, list[str]], set[str]]:
        """Return what is shown of every row, and which of the columns it tells."""
        return _text(columns), set(columns)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EstimateResult(Result):
    """Estimates with their errors, one for each leading index of the input.

    Attributes
    ----------
    estimate, se : ndarray of float64, shape (...)
        The estimate and its standard error.
    ci_low, ci_high, pvalue : ndarray of float64, shape (...)
        Interval at `confidence_level` and two-sided p-value of no effect.
    status : ndarray of int64, shape (...)
        Why there is no estimate; not 0 (OK) exactly where the estimate is NaN.
    confidence_level : float
        Level 1 - alpha of the interval.
    estimator : str
        The function that made it.
    """

    _counted: ClassVar[str] = "n_instruments"

    estimate: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    pvalue: FloatArray
    status: IntArray
    confidence_level: float
    estimator: str

    def _main(self, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, list[str]], set[str]]:
        text = _text(columns)
        ends = zip(columns["ci_low"], columns["ci_high"], text["ci_low"], text["ci_high"], strict=True)
        shown = {
            "estimate": text["estimate"],
            "SE": text["se"],
            f"{100 * self.confidence_level:.10g}% interval": [_interval(*end) for end in ends],
            "p": text["pvalue"],
            self._counted.removeprefix("n_"): text[self._counted],
            "status": text["status"],
        }
        return shown, {"estimate", "se", "ci_low", "ci_high", "pvalue", "status", self._counted}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CausalResult(EstimateResult):
    """Causal effects, one for each leading index of the input.

    Attributes
    ----------
    estimate, se : ndarray of float64, shape (...)
        Causal effect (outcome units per exposure unit) and its standard error.
    ci_low, ci_high, pvalue : ndarray of float64, shape (...)
        Interval at level 1 - alpha and two-sided p-value of no effect.
    n_instruments : ndarray of int64, shape (...)
        Variants that are present.
    status : ndarray of int64, shape (...)
        A `Status`; not `Status.OK` exactly where the estimate is NaN.
    confidence_level : float
        Level 1 - alpha of the interval.
    estimator : str
        The function that made it.
    """

    n_instruments: IntArray


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InterceptResult(CausalResult):
    """Causal effects beside the intercept of MR-Egger.

    Attributes
    ----------
    intercept, intercept_se, intercept_ci_low, intercept_ci_high, intercept_pvalue : ndarray of float64, shape (...)
        Intercept: the mean directional pleiotropic effect, in outcome units; its p-value is the Egger test.
    """

    intercept: FloatArray
    intercept_se: FloatArray
    intercept_ci_low: FloatArray
    intercept_ci_high: FloatArray
    intercept_pvalue: FloatArray


def _text(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[str]]:
    return {name: [_number(value) for value in values] for name, values in columns.items()}


def _number(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "NaN" if math.isnan(value) else f"{value:.{_DIGITS}g}"


def _interval(low: float, high: float, low_text: str, high_text: str) -> str:
    if math.isnan(low) and math.isnan(high):
        return "NaN"
    # A Fieller set that lies outside of its ends.
    return f"up to {high_text} or from {low_text}" if low > high else f"[{low_text}, {high_text}]"


def _table(columns: Mapping[str, list[str]]) -> list[str]:
    widths = [max(map(len, [label, *texts])) for label, texts in columns.items()]
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
