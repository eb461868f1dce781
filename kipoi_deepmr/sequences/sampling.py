"""Samples the same windows for every exposure that shares them, whatever the order of lines, files and exposures."""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences.candidates import Axis, Intervals, priorities, read_source
from kipoi_deepmr.sequences.genome import Genome
from kipoi_deepmr.sequences.sequences import Sequences
from kipoi_deepmr.sequences.windows import ExposureReport, Windows

_CHUNK = 64

Predict = Callable[[Windows], npt.NDArray[np.floating]]


def sample_sequences(
    peaks: Mapping[str, Path],
    genome: Genome,
    *,
    length: int,
    per_exposure: int | None,
    chromosomes: Sequence[str] | None = None,
    seed: int = 1,
    max_n_fraction: float = 0.1,
    merge_distance: int = 0,
    use_strand: bool = False,
    predict: Predict | None = None,
    min_prediction: float | None = None,
) -> Sequences:
    """Sample windows around the peaks of each exposure, uniformly and without replacement, and read their bases.

    The window of a peak is ``[center - length // 2, center - length // 2 + length)``. Each window has a priority, a
    hash of the seed and its coordinates, and each exposure takes its usable windows of smallest priority. So the
    sample does not depend on the order of lines, files or exposures, exposures do not influence each other (unless
    windows are merged), and a region that several exposures share is sampled for all of them or for none as far as
    their sample sizes allow.

    A window is usable if it lies on a contig of the FASTA file and on the chosen chromosomes, does not leave its
    contig, and at most `max_n_fraction` of its bases are unknown. Equal windows are one. Unknown bases are counted, and
    predictions made, in the order of priority and only until each exposure has its sample; the reports count what was
    inspected.

    Parameters
    ----------
    peaks : Mapping[str, Path]
        File of intervals of each exposure; exposures may share a file.
    genome : Genome
        The FASTA file.
    length : int
        Length of the windows in bp.
    per_exposure : int or None
        Windows for each exposure; None takes all.
    chromosomes : Sequence[str], optional
        Contigs to sample from; all by default.
    seed : int, default 1
        Seed of the priorities.
    max_n_fraction : float, default 0.1
        Largest share of bases other than A, C, G, T.
    merge_distance : int, default 0
        A window whose centre is at most this many bp from that of a sampled window of smaller priority on the same
        contig and strand is replaced by that window (the nearest one).
    use_strand : bool, default False
        Take the strand of each interval (``.`` counts as ``+``) instead of ``+``.
    predict : callable, optional
        Predictions of the exposures for `n` windows: takes `Windows`, returns shape (E, n).
    min_prediction : float, optional
        Only windows predicted to reach this value, on the scale of `predict`, are sampled for an exposure. For a merged
        window the prediction of the window that replaces it decides.

    Returns
    -------
    Sequences
        In the order of the FASTA file, then of start, end, strand.

    Raises
    ------
    SequenceError
        An argument or a file is wrong, a chromosome is not in the FASTA file, no contig of a file is, or an exposure
        is left without windows.
    """
    _check(peaks, length, per_exposure, max_n_fraction, merge_distance, predict, min_prediction)
    axis = Axis(genome, length)
    wanted = axis.contigs(chromosomes)
    files = [Path(path).expanduser().resolve() for path in peaks.values()]
    spelled = dict(zip(files, peaks.values(), strict=True))
    sources = {file: read_source(Path(path), axis, wanted, use_strand) for file, path in spelled.items()}
    sampler = _Sampler(
        exposures=tuple(peaks),
        source_of=[list(sources).index(file) for file in files],
        keys=[source.keys for source in sources.values()],
        axis=axis,
        limit=per_exposure,
        max_n=max_n_fraction * length,
        merge_distance=merge_distance,
        predict=predict,
        min_prediction=-np.inf if min_prediction is None else min_prediction,
    )
    sampler.run(seed)
    report = tuple(
        sampler.report(row, Path(path), sources[file], per_exposure)
        for row, (path, file) in enumerate(zip(peaks.values(), files, strict=True))
    )
    _check_report(report)
    return sampler.sequences(report)


def _check(
    peaks: Mapping[str, Path],
    length: int,
    per_exposure: int | None,
    max_n_fraction: float,
    merge_distance: int,
    predict: Predict | None,
    min_prediction: float | None,
) -> None:
    rules = (
        (bool(peaks), "No exposure has a file of intervals. Name at least one."),
        (length >= 1, f"The length of the windows is {length}. At least 1 bp is needed."),
        (
            per_exposure is None or per_exposure >= 1,
            f"per_exposure is {per_exposure}. Use at least 1, or None for all windows.",
        ),
        (0 <= max_n_fraction <= 1, f"max_n_fraction is {max_n_fraction}. Use a share between 0 and 1."),
        (merge_distance >= 0, f"merge_distance is {merge_distance}. Use 0 (merge equal windows only) or more bp."),
        (
            (predict is None) == (min_prediction is None),
            "min_prediction and a model to predict with are needed together. Give both or neither.",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise SequenceError(message)


@dataclass(frozen=True, eq=False)
class _Candidate:
    key: int
    listed: npt.NDArray[np.bool_]
    bases: npt.NDArray[np.int8]
    many_n: bool
    prediction: npt.NDArray[np.floating] | None = None


@dataclass(eq=False)
class _Choice:
    order: int
    prediction: npt.NDArray[np.floating] | None
    bound: npt.NDArray[np.bool_]
    bases: npt.NDArray[np.int8]


class _Sampler:
    """Goes through the windows of all exposures once, by priority, until each exposure has its sample."""

    def __init__(
        self,
        exposures: tuple[str, ...],
        source_of: list[int],
        keys: list[npt.NDArray[np.int64]],
        axis: Axis,
        limit: int | None,
        max_n: float,
        merge_distance: int,
        predict: Predict | None,
        min_prediction: float,
    ) -> None:
        self.exposures = exposures
        self.axis = axis
        self.limit = np.inf if limit is None else limit
        self.max_n = max_n
        self.merge_distance = merge_distance
        self.predict = predict
        self.min_prediction = min_prediction
        self.keys, first = np.unique(np.concatenate(keys), return_inverse=True)
        by_window = np.argsort(first, kind="stable")
        self._sources = np.repeat(np.arange(len(keys)), [len(part) for part in keys])[by_window]
        self._first = np.searchsorted(first[by_window], np.arange(len(self.keys) + 1))
        self._exposures_of = np.array(source_of)[None, :] == np.arange(len(keys))[:, None]
        zeros = np.zeros(len(exposures), np.int64)
        self.selected, self.many_n, self.below, self.merged = (zeros.copy() for _ in range(4))
        self.open = np.ones(len(exposures), np.bool_)
        self._chosen: dict[int, _Choice] = {}
        self._sorted: list[int] = []

    def run(self, seed: int) -> None:
        order = np.lexsort((self.keys, priorities(self.axis.windows(self.keys), seed)))
        next_one = 0
        while next_one < len(order) and self.open.any():
            chunk, next_one = self._chunk(order, next_one)
            for candidate in self._predicted(chunk):
                self._place(candidate)
                self.open = self.selected < self.limit

    def _chunk(self, order: npt.NDArray[np.int64], next_one: int) -> tuple[list[_Candidate], int]:
        size = 1 if self.predict is None else _CHUNK
        chunk: list[_Candidate] = []
        good = 0
        while good < size and next_one < len(order):
            window = order[next_one]
            next_one += 1
            sources = self._sources[self._first[window] : self._first[window + 1]]
            listed = self._exposures_of[sources].any(axis=0)
            if (listed & self.open).any():
                key = int(self.keys[window])
                bases = self.axis.bases(key)
                chunk.append(_Candidate(key, listed, bases, int((bases < 0).sum()) > self.max_n))
                good += not chunk[-1].many_n
        return chunk, next_one

    def _predicted(self, chunk: list[_Candidate]) -> list[_Candidate]:
        good = [candidate for candidate in chunk if not candidate.many_n]
        if self.predict is None or not good:
            return chunk
        keys = np.array([candidate.key for candidate in good], np.int64)
        needed = (len(self.exposures), len(keys))
        values = np.asarray(self.predict(self.axis.windows(keys)), np.float64)
        if values.shape != needed or np.isnan(values).any():
            raise SequenceError(
                f"The predictions of candidate windows have shape {values.shape} and {np.isnan(values).sum()} NaN;"
                f" {needed} (exposures, windows) without NaN is needed to apply min_prediction."
            )
        columns = dict(zip(keys.tolist(), values.T, strict=True))
        return [replace(one, prediction=columns.get(one.key)) for one in chunk]

    def _place(self, candidate: _Candidate) -> None:
        wanting = candidate.listed & self.open
        near = self._near(candidate.key)
        if near is not None:
            self.merged += wanting & near.bound
            wanting = wanting & ~near.bound
        elif candidate.many_n:
            self.many_n += wanting
            return
        prediction = candidate.prediction if near is None else near.prediction
        passing = wanting if prediction is None else wanting & (prediction >= self.min_prediction)
        self.below += wanting & ~passing
        self.selected += passing
        if near is not None:
            near.bound |= passing
        elif passing.any():
            self._chosen[candidate.key] = _Choice(len(self._chosen), prediction, passing, candidate.bases)
            bisect.insort(self._sorted, candidate.key)

    def _near(self, key: int) -> _Choice | None:
        """Return the nearest chosen window of the same contig and strand, within the merge distance."""
        if not self.merge_distance:
            return None
        lowest, highest = self.axis.span(key)
        left = bisect.bisect_left(self._sorted, max(lowest, key - 2 * self.merge_distance))
        right = bisect.bisect_right(self._sorted, min(highest, key + 2 * self.merge_distance))
        same_strand = [other for other in self._sorted[left:right] if other % 2 == key % 2]
        if not same_strand:
            return None
        return self._chosen[min(same_strand, key=lambda other: (abs(other - key), self._chosen[other].order))]

    def report(self, row: int, path: Path, source: Intervals, per_exposure: int | None) -> ExposureReport:
        many_n, below, merged = int(self.many_n[row]), int(self.below[row]), int(self.merged[row])
        usable = len(source.keys) - many_n - below - merged
        return ExposureReport(
            exposure=self.exposures[row],
            source=path,
            read=source.read,
            other_chromosome=source.other_chromosome,
            missing_contig=source.missing_contig,
            off_contig=source.off_contig,
            duplicate=source.duplicate + merged,
            many_n=many_n,
            below_min_prediction=below,
            usable=usable,
            selected=int(self.selected[row]),
            requested=usable if per_exposure is None else per_exposure,
        )

    def sequences(self, report: tuple[ExposureReport, ...]) -> Sequences:
        windows = self.axis.windows(np.array(self._sorted, np.int64))
        chosen = [self._chosen[key] for key in self._sorted]
        bases, bound = np.stack([one.bases for one in chosen]), np.stack([one.bound for one in chosen], axis=1)
        return Sequences(windows, windows.names(), bases, bound, self.exposures, report)


def _check_report(report: tuple[ExposureReport, ...]) -> None:
    empty = [one for one in report if not one.selected]
    if empty:
        listing = "; ".join(f"{one.exposure}: {one.losses}" for one in empty[:5])
        more = f"; and {len(empty) - 5} more exposures" if len(empty) > 5 else ""
        raise SequenceError(
            f"No usable sequence is left for {listing}{more}. Give more intervals or chromosomes, a genome of the same"
            " assembly, or looser limits (max_n_fraction, min_prediction)."
        )
