"""Model inputs of windows, made by the model's own Kipoi dataloader."""

import copy
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences.signature import Signature
from kipoi_deepmr.sequences.windows import Windows


class WindowInputs:
    """Loads the inputs of windows through a Kipoi dataloader.

    The dataloader reads a BED file of the windows (BED3, or BED6 if its argument ``use_strand`` is true), made for each
    call. Arguments that the user did not set are set where the dataloader has them: ``ignore_targets`` to True,
    ``num_chr_fasta`` to True if a contig has no ``chr``, and a resizing length to that of the windows.

    Parameters
    ----------
    dataloader : type
        The dataloader class of a Kipoi model: any subclass of ``kipoi.data.BaseDataLoader``.
    args : Mapping[str, object]
        Its arguments, without the intervals. Paths that begin with ``~`` are expanded.
    windows : Windows
        The windows.
    intervals_arg : str, optional
        The argument that takes the BED file: by default ``intervals_file``, or else the only one whose name contains
        ``interval``, ``bed`` or ``region``.
    batch_size : int, default 32
        Windows that the dataloader loads at a time.
    num_workers : int, default 0
        Processes that load; 0 loads in this process.

    Raises
    ------
    SequenceError
        The arguments do not fit the dataloader or the windows.
    """

    def __init__(
        self,
        dataloader: type,
        args: Mapping[str, object],
        windows: Windows,
        *,
        intervals_arg: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._dataloader: Any = dataloader
        self._signature = Signature(dataloader)
        self._intervals_arg = self._signature.intervals_arg(intervals_arg)
        self._args = {name: _expanded(value) for name, value in args.items()}
        self._signature.check(self._args, self._intervals_arg)
        self._complete_args()

    def of(self, windows: Windows) -> "WindowInputs":
        """Return the same for some of the windows, or for repetitions of them."""
        others = copy.copy(self)
        others.windows = windows
        return others

    def load(self, indices: Sequence[int]) -> Any:
        """Load the inputs of some windows.

        Parameters
        ----------
        indices : Sequence[int]
            Windows, in the order of the rows to return.

        Returns
        -------
        numpy.ndarray, list or dict of numpy.ndarray
            The inputs of the model; each array has ``len(indices)`` rows.

        Raises
        ------
        SequenceError
            The dataloader fails, or returns other windows than those it was asked for.
        """
        windows = self.windows.take(indices)
        if not len(windows):
            raise SequenceError("No window was asked for. Give at least one index.")
        with tempfile.TemporaryDirectory(prefix="kipoi_deepmr_") as folder:
            bed = Path(folder) / "windows.bed"
            bed.write_text(self._bed(windows), encoding="utf-8")
            try:
                batches = self._batches(bed, len(windows))
                inputs = _concatenated([batch["inputs"] for batch in batches])
                ranges = [batch.get("metadata", {}) for batch in batches]
            except SequenceError:
                raise
            except Exception as error:
                raise self._error(f"failed: {type(error).__name__}: {error}") from error
        self._check_rows(inputs, len(windows))
        self._check_ranges(ranges, windows)
        return inputs

    def _complete_args(self) -> None:
        lengths = np.unique(self.windows.end - self.windows.start)
        numeric = not all(chrom.startswith("chr") for chrom in np.unique(self.windows.chrom))
        defaults: dict[str, object] = {"ignore_targets": True}
        if numeric:
            defaults["num_chr_fasta"] = True
        if self._signature.default("auto_resize_len") is not None and lengths.size:
            defaults["auto_resize_len"] = int(lengths[0])
        resize = self._args.get("auto_resize_len")
        if resize is not None and lengths.size and resize != lengths[0]:
            raise self._error(
                f"would resize the windows of {lengths[0]} bp to auto_resize_len = {resize}. Leave auto_resize_len out"
                " of dataloader.args, or give the length of the windows"
            )
        for name, value in defaults.items():
            if name in self._signature.names:
                self._args.setdefault(name, value)
        self._stranded = bool(self._args.get("use_strand", self._signature.default("use_strand")))
        if not self._stranded and (self.windows.strand == "-").any():
            raise self._error(
                "is not told to use the strand, but some windows are on the strand '-'. Set use_strand: true in"
                " dataloader.args if the dataloader has that argument, or sample without strand"
            )

    def _bed(self, windows: Windows) -> str:
        if self._stranded:
            return "".join(f"{chrom}\t{start}\t{end}\t.\t0\t{strand}\n" for chrom, start, end, strand in windows.rows())
        return "".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end, _ in windows.rows())

    def _batches(self, bed: Path, count: int) -> list[Mapping[str, Any]]:
        loader = self._dataloader(**{**self._args, self._intervals_arg: str(bed)})
        batches: list[Mapping[str, Any]] = []
        rows = 0
        for batch in loader.batch_iter(batch_size=self.batch_size, num_workers=self.num_workers):
            if not isinstance(batch, Mapping) or "inputs" not in batch:
                raise self._error("returned batches without 'inputs'; a Kipoi dataloader returns dicts with that key")
            batches.append(batch)
            rows += max((len(array) for _, array in _leaves(batch["inputs"])), default=0)
            if rows > count:
                raise self._error(f"returned more than the {count} windows it was asked for")
        if not batches:
            raise self._error(f"returned nothing for {count} windows")
        return batches

    def _check_rows(self, inputs: Any, count: int) -> None:
        for name, array in _leaves(inputs):
            if len(array) != count:
                raise self._error(f"returned {len(array)} rows of {name} for {count} windows")

    def _check_ranges(self, metadata: list[Any], windows: Windows) -> None:
        if not all(isinstance(part, Mapping) and _has_coordinates(part.get("ranges")) for part in metadata):
            return
        try:
            ranges = _concatenated([{key: part["ranges"][key] for key in ("chr", "start", "end")} for part in metadata])
            start, end = (ranges[key].astype(np.int64) for key in ("start", "end"))
        except (TypeError, ValueError):
            return
        chrom = [str(name).removeprefix("chr") for name in ranges["chr"]]
        if not len(chrom) == len(start) == len(end) == len(windows):
            raise self._error(f"returned {len(start)} ranges for {len(windows)} windows")
        same = (start == windows.start) & (end == windows.end)
        same &= [one == str(other).removeprefix("chr") for one, other in zip(chrom, windows.chrom, strict=True)]
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            returned = f"{ranges['chr'][row]}:{ranges['start'][row]}-{ranges['end'][row]}"
            raise self._error(
                f"returned {returned} for the window {windows.names()[row]}. It must neither resize, drop nor reorder"
                " intervals; check dataloader.args for options that do"
            )

    def _error(self, what: str) -> SequenceError:
        args = ", ".join(f"{name}={value!r}" for name, value in self._args.items())
        return SequenceError(f"The dataloader {self._signature.title}({args}) {what.removesuffix('.')}.")


def _expanded(value: object) -> object:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return os.path.expanduser(text) if isinstance(text, str) and text.startswith("~") else text
    return value


def _is_container(tree: Any) -> bool:
    return isinstance(tree, list | tuple) and not (tree and isinstance(tree[0], str | bytes | int | float | np.generic))


def _leaves(tree: Any, name: str = "inputs") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, branch in tree.items():
            yield from _leaves(branch, f"{name}[{key!r}]")
    elif _is_container(tree):
        for position, branch in enumerate(tree):
            yield from _leaves(branch, f"{name}[{position}]")
    else:
        yield name, np.atleast_1d(tree)


def _concatenated(parts: list[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {key: _concatenated([part[key] for part in parts]) for key in parts[0]}
    if _is_container(parts[0]):
        return [_concatenated(list(branches)) for branches in zip(*parts, strict=True)]
    return np.concatenate([np.asarray(part) for part in parts])


def _has_coordinates(ranges: Any) -> bool:
    return isinstance(ranges, Mapping) and {"chr", "start", "end"} <= set(ranges)
