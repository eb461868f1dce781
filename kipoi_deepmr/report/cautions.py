"""Warnings that matter to a reader of the numbers, in plain words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import binom

from kipoi_deepmr import terms
from kipoi_deepmr.cube import EFFECTS_GROUP, GLOBAL_GROUP, LOCAL_GROUP
from kipoi_deepmr.estimators import SHOWN_INTERCEPT, label_of
from kipoi_deepmr.plots.canvas import three_digits
from kipoi_deepmr.reading import read
from kipoi_deepmr.report.draws import Draws
from kipoi_deepmr.report.words import counted
from kipoi_deepmr.tables.tidy import in_words

WEAK_F = 10.0
DILUTED = 0.9
FEW_DRAWS = 20
FEW_SEQUENCES = 5
_LISTED = 8
_CHANCE = 0.05


@dataclass(frozen=True)
class Caution:
    """A warning.

    Attributes
    ----------
    title : str
        What was found.
    text : str
        What it means and what to do.
    where : tuple of str
        Where, one line each.
    """

    title: str
    text: str
    where: tuple[str, ...] = ()


def cautions(results: xr.DataTree) -> list[Caution]:
    """Return the warnings of a store with estimates, the most general first."""
    local, overall = results[LOCAL_GROUP].to_dataset(), results[GLOBAL_GROUP].to_dataset()
    checks: tuple[Callable[[xr.DataTree, xr.Dataset, xr.Dataset], Iterator[Caution]], ...] = (
        _incomplete,
        _noted,
        _draws,
        _dependent,
        _failed,
        _weak,
        _diluted,
        _pleiotropy,
        _heterogeneous,
        _sequences,
    )
    return [caution for check in checks for caution in check(results, local, overall)]


def _incomplete(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    done = read(results[EFFECTS_GROUP].to_dataset(), "completed")
    if not done.all():
        yield Caution(
            f"The run is not finished: {int(done.sum())} of {done.size} sequences are computed",
            "All numbers on this page use the sequences that are there. Finish the run with `run --resume`.",
        )


def _noted(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    notes = [str(note) for note in np.atleast_1d(results.attrs.get("notes", [])).tolist()]
    if notes:
        yield Caution("Notes on the choice of outputs and sequences", "Written when the run began.", _shortened(notes))


def _draws(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    draws = int(results.attrs["draws"])
    if draws < FEW_DRAWS:
        error = 100 / np.sqrt(2 * (draws - 1))
        yield Caution(
            f"Few draws: {draws}",
            f"A standard error from {draws} draws is itself uncertain by about {error:.0f}%. So are F statistics, "
            "weights and intervals. The published method takes 50 draws.",
        )


def _dependent(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    shared = Draws.of(results).shared
    if shared:
        yield Caution(
            f"All sequences share the {shared}",
            "So the errors of their local effects depend on each other, while the meta-analysis takes them as independent: "
            "the intervals of the global effects are too narrow.",
        )


def _failed(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    counts: dict[tuple[str, str], int] = {}
    status = local["status"].transpose(terms.ESTIMATOR, *terms.LOCAL_DIMS).values
    expected = (local["bound"].transpose(terms.EXPOSURE, terms.SEQUENCE).values & _completed(results))[:, None, :]
    for estimator, values in zip(local[terms.ESTIMATOR].values.tolist(), status, strict=True):
        codes, numbers = np.unique(values[np.broadcast_to(expected, values.shape)], return_counts=True)
        for reason, count in zip(in_words(codes, local["status"]), numbers, strict=True):
            if reason != "ok":
                counts[label_of(str(estimator)), reason.replace("_", " ")] = int(count)
    if counts:
        yield Caution(
            f"{counted(sum(counts.values()), 'local estimate')} could not be made",
            "They are left out of the global effects.",
            tuple(f"{estimator}: {count}, {reason}" for (estimator, reason), count in counts.items()),
        )
    table = overall["estimate"].transpose(*terms.GLOBAL_DIMS, terms.ESTIMATOR)
    codes = overall["status"].transpose(*terms.GLOBAL_DIMS, terms.ESTIMATOR).values
    missing = np.argwhere(~np.isfinite(table.values)).tolist()
    if missing:
        reasons = in_words((codes[tuple(index)] for index in missing), overall["status"])
        lines = [
            f"{_pair(table, index)}, {label_of(str(table[terms.ESTIMATOR].values[index[2]]))}: {reason.replace('_', ' ')}"
            for index, reason in zip(missing, reasons, strict=True)
        ]
        yield Caution(
            f"{counted(len(missing), 'global effect')} could not be made", "The table shows a dash.", _shortened(lines)
        )


def _weak(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    # The F of an exposure is the same for all outcomes but for mutations that lack an error in one of them.
    strength = local["f_statistic"].mean(terms.OUTCOME).transpose(terms.EXPOSURE, terms.SEQUENCE).values
    lines = []
    for name, row in zip(local[terms.EXPOSURE].values.tolist(), strength, strict=True):
        values = row[np.isfinite(row)]
        if values.size and np.median(values) < WEAK_F:
            count = f"below {WEAK_F:g} in {int((values < WEAK_F).sum())} of {values.size} sequences"
            middle = float(np.median(values))
            lines.append((middle, f"{name}: median F {three_digits(middle)}, {count}"))
    if not lines:
        return
    kind = str(results.attrs["standard_error"])
    meaning = (
        f" Standard errors are posterior SDs here: a low F says that {Draws.of(results).networks} disagree on the effects "
        "of most mutations, and does not rise with more draws."
        if kind == "posterior"
        else " More draws raise F."
    )
    yield Caution(
        f"Weak instruments: mean F below {WEAK_F:g} for {len(lines)} of {len(strength)} exposures",
        "F is (effect / SE)² of the exposure, averaged over the mutations of a sequence. Most mutations of a sequence do "
        "nothing, so a low mean is common; what IVW feels is that their errors pull it towards the slope of the outcome's "
        "errors on the exposure's, which come from the same draws. Compare with `mr --min_f 10`, or with estimators made "
        f"for weak instruments.{meaning}",
        _shortened([line for _, line in sorted(lines)]),
    )


def _diluted(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    egger = _egger_estimators(local)
    share = _by_pair(local, "i2_gx")
    lines = [
        (
            middle,
            f"{pair}: median I²_GX {three_digits(middle)}, below {DILUTED:g} in {int((values < DILUTED).sum())} of {len(values)}",
        )
        for pair, values in share
        if (middle := float(np.median(values))) < DILUTED
    ]
    if egger and lines:
        yield Caution(
            f"MR-Egger is diluted: I²_GX below {DILUTED:g} for {len(lines)} of {len(share)} pairs",
            "I²_GX is the share of the variation of the exposure effects that is no error. MR-Egger's slope is pulled "
            "towards zero by about 1 - I²_GX.",
            _shortened([line for _, line in sorted(lines)]),
        )


def _pleiotropy(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    alpha = 1 - float(local["ci_low"].attrs.get("confidence_level", 0.95))
    # Variants of MR-Egger tell the same: the first stands for all.
    for estimator in _egger_estimators(local)[:1]:
        lines = []
        pairs = _by_pair(local.sel({terms.ESTIMATOR: estimator}), "intercept_pvalue")
        for pair, values in pairs:
            hits = int((values < alpha).sum())
            excess = float(binom.sf(hits - 1, len(values), alpha))
            if excess * len(pairs) < _CHANCE:
                lines.append((excess, f"{pair}: p < {alpha:.3g} in {hits} of {len(values)} sequences"))
        if lines:
            yield Caution(
                f"Directional pleiotropy: {label_of(estimator)}'s intercept differs from 0 more often than by chance "
                f"for {len(lines)} of {len(pairs)} pairs",
                f"Mutations of these sequences change the outcome on average also where they do not change the exposure, "
                f"so IVW is biased in them. By chance {100 * alpha:.3g}% of the intercepts would have p < {alpha:.3g}; pairs "
                f"with more are listed at {100 * _CHANCE:.3g}% for all {len(pairs)} together (Bonferroni). "
                "Compare IVW with MR-Egger and look at the scatter plots: the bases may belong to another factor's motif.",
                _shortened([line for _, line in sorted(lines)]),
            )


def _heterogeneous(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    order = (*terms.GLOBAL_DIMS, terms.ESTIMATOR)
    low, high, outer_low, outer_high = (
        overall[name].transpose(*order).values for name in ("ci_low", "ci_high", "prediction_low", "prediction_high")
    )
    clear = ((low > 0) & (outer_low < 0)) | ((high < 0) & (outer_high > 0))
    table = overall["estimate"].transpose(*order)
    lines = [
        f"{_pair(table, i)}, {label_of(str(table[terms.ESTIMATOR].values[i[2]]))}" for i in np.argwhere(clear).tolist()
    ]
    if lines:
        yield Caution(
            f"The sign of the effect may differ between sequences: {counted(len(lines), 'global effect')}",
            "The confidence interval of the mean effect excludes 0, but the prediction interval of a new sequence's effect "
            "holds it.",
            _shortened(lines),
        )


def _sequences(results: xr.DataTree, local: xr.Dataset, overall: xr.Dataset) -> Iterator[Caution]:
    counts = overall["n_sequences"].transpose(*terms.GLOBAL_DIMS, terms.ESTIMATOR).values.max(axis=(1, 2))
    few = [
        f"{name}: {count}"
        for name, count in zip(overall[terms.EXPOSURE].values.tolist(), counts.tolist(), strict=True)
        if count < FEW_SEQUENCES
    ]
    if few:
        yield Caution(
            f"Few sequences for {counted(len(few), 'exposure')}",
            f"With fewer than {FEW_SEQUENCES} sequences tau² can hardly be estimated: intervals are too narrow or too wide.",
            _shortened(few),
        )


def _by_pair(local: xr.Dataset, name: str) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Return the finite values over sequences of each pair of exposure and outcome that has some."""
    table = local[name].transpose(*terms.LOCAL_DIMS)
    values, found = table.values, []
    for index in np.ndindex(values.shape[:2]):
        finite = values[index][np.isfinite(values[index])]
        if finite.size:
            found.append((_pair(table, index), finite))
    return found


def _pair(table: xr.DataArray, index: Sequence[int]) -> str:
    return f"{table[terms.EXPOSURE].values[index[0]]} on {table[terms.OUTCOME].values[index[1]]}"


def _egger_estimators(local: xr.Dataset) -> list[str]:
    """Return the estimators with an intercept, plain MR-Egger first."""
    known = np.isfinite(local["intercept"].transpose(terms.ESTIMATOR, *terms.LOCAL_DIMS).values).any(axis=(1, 2, 3))
    found = [str(name) for name, one in zip(local[terms.ESTIMATOR].values, known, strict=True) if one]
    return sorted(found, key=lambda name: name != SHOWN_INTERCEPT)


def _completed(results: xr.DataTree) -> npt.NDArray[np.bool_]:
    return np.asarray(read(results[EFFECTS_GROUP].to_dataset(), "completed"), dtype=np.bool_)


def _shortened(lines: Sequence[str]) -> tuple[str, ...]:
    more = (f"and {len(lines) - _LISTED} more",) if len(lines) > _LISTED + 1 else ()
    return (*lines[:_LISTED], *more) if more else tuple(lines)
