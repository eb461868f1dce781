"""Which files a store leaves as, and their writing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from kipoi_deepmr import terms
from kipoi_deepmr.cube import CONTROLS_GROUP, EFFECTS_GROUP, GLOBAL_GROUP, LOCAL_GROUP, open_results
from kipoi_deepmr.errors import OutputError, SelectionError, StoreError, suggestion
from kipoi_deepmr.exports.files import Files
from kipoi_deepmr.exports.writers import (
    ParquetTable,
    TextTable,
    index_ending,
    index_vcf,
    library,
    write_bgzip,
    write_bigwig,
)
from kipoi_deepmr.reading import read, select
from kipoi_deepmr.sequences.genome import Genome
from kipoi_deepmr.tables import global_results, local_results, variant_tables
from kipoi_deepmr.tables.tidy import every_estimate, group
from kipoi_deepmr.tracks import SUMMARIES, SUMMARY_MEANINGS, bed_lines, bedgraph_lines, check_windows, signal, vcf_lines
from kipoi_deepmr.tracks.names import distinct, vcf_keys

_VARIANT_TABLES = ("harmonised", "single_variant", "leave_one_out")
_ESTIMATE_TABLES = ("local", "global")
# What file systems and browsers do not like.
_FORBIDDEN_IN_FILES = r"[^\w.+-]"
_MUTANTS = len(terms.ALLELES) - 1


def export(
    store: str | Path,
    format: str,
    output: str | Path,
    *,
    exposure: Sequence[str] = (),
    outcome: Sequence[str] = (),
    sequence: Sequence[str] = (),
    fasta: str | Path | None = None,
    summary: str = "mean",
    compress: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Write a store as files that other programs read; memory stays bounded however large the store is.

    Parameters
    ----------
    store
        Folder of the store.
    format
        ``tsv`` or ``parquet``: the tables `harmonised`, `single_variant`, `leave_one_out` and `local` under the names of
        TwoSampleMR and `global` under those of metafor (see `kipoi_deepmr.tables`); with estimates of both directions
        `reverse_local` and `reverse_global`, with shuffled sequences `control_local` and `control_global` (and
        `control_reverse_local`, `control_reverse_global`), too.
        ``bedgraph`` or ``bigwig``: effects along the genome, a file per task (see `kipoi_deepmr.tracks.base_signal`).
        ``bed``: sequences with their local effects, a file per exposure, outcome and estimator
        (see `kipoi_deepmr.tracks.bed_lines`).
        ``vcf``: all mutations with effect and error on every task (see `kipoi_deepmr.tracks.vcf_lines`).
    output
        Folder for the files; made when it is missing.
    exposure, outcome, sequence
        Names, or patterns such as ``HepG2_*``. Default: all.
    fasta
        FASTA file of the genome, for ``bigwig`` and ``vcf``. Default: that of the run.
    summary
        What stands for the three mutations of a base in ``bedgraph`` and ``bigwig``: ``mean`` (default), ``mean_abs``,
        ``max``, ``min``, ``strongest``.
    compress
        Write gzipped text (``tsv``, ``bedgraph``, ``bed``), or bgzip with an index (``vcf``).
    overwrite
        Replace files of the same names.
    progress
        Whether to show a progress bar.

    Returns
    -------
    list of pathlib.Path
        The files. They appear together at the end; after an error none of them does.

    Raises
    ------
    OutputError
        If a file exists or cannot be written, an option is not allowed, or a name reads back as a missing value.
    DependencyError
        If the library of the format is not installed.
    StoreError
        If there is no such store, it has no estimates, or it is damaged.
    SelectionError
        If nothing in the store fits a name, or none of the sequences counts for any of the exposures.
    SequenceError
        If the FASTA file is missing or not that of the run.
    """
    _check_option("format", format, FORMATS)
    _check_option("summary", summary, SUMMARIES)
    with open_results(store) as whole:
        results = select(whole, exposure=exposure, outcome=outcome, sequence=sequence)
        _check_completed(results)
        job = _Export(whole, results, Path(output).expanduser(), fasta, summary, compress, overwrite, progress)
        return FORMATS[format](job)


class _Export:
    """One export: a store, its selected part, where that goes, and how."""

    def __init__(
        self,
        whole: xr.DataTree,
        results: xr.DataTree,
        folder: Path,
        fasta: str | Path | None,
        summary: str,
        compress: bool,
        overwrite: bool,
        progress: bool,
    ) -> None:
        self.whole = whole
        self.results = results
        self.effects: xr.Dataset = results[EFFECTS_GROUP].to_dataset()
        self.summary = summary
        self.compress = compress
        self._folder, self._overwrite, self._progress, self._fasta = folder, overwrite, progress, fasta

    def files(self, names: Iterable[str], *, ending: str = "") -> Files:
        return Files(self._folder, [f"{name}{ending}" for name in names], overwrite=self._overwrite)

    def bar(self, total: int, unit: str) -> "tqdm[Any]":
        return tqdm(total=total, unit=f" {unit}", unit_scale=True, disable=not self._progress, mininterval=0.5)

    def genome(self) -> Genome:
        path = self._fasta or self.results.attrs.get("fasta")
        if path is None or (self._fasta is None and not Path(path).exists()):
            gone = "does not say where its FASTA file is" if path is None else f"was made from {path}, which is gone"
            raise OutputError(f"the store {gone}: give the FASTA file of the genome with --fasta")
        return Genome(Path(path))

    @property
    def tables(self) -> list[str]:
        """Names of the tables; raises where there are no estimates."""
        group(self.results, GLOBAL_GROUP)
        return [*_VARIANT_TABLES, *(name for names, _, _ in self.estimates() for name in names)]

    def estimates(self) -> Iterator[tuple[tuple[str, str], xr.DataTree, bool]]:
        """Yield the names of the tables of local and global estimates, the tree that both directions are in, and which."""
        for way, control, _ in every_estimate(self.results):
            reverse = way != terms.DIRECTIONS[0]
            prefix = "control_" * bool(control) + "reverse_" * reverse
            local, overall = (prefix + name for name in _ESTIMATE_TABLES)
            yield (local, overall), self.results.children[CONTROLS_GROUP] if control else self.results, reverse

    @property
    def gz(self) -> str:
        return ".gz" if self.compress else ""

    def tasks(self) -> list[tuple[str, int, str]]:
        """Return side, index and name of each task."""
        return [
            (side, index, str(name))
            for side in terms.GLOBAL_DIMS
            for index, name in enumerate(self.effects[side].values.tolist())
        ]

    def spelled(self, dim: str) -> dict[str, str]:
        """Return how file names spell the names along a dimension of the whole store."""
        estimates = self.whole[LOCAL_GROUP if dim == terms.ESTIMATOR else EFFECTS_GROUP].to_dataset()
        known = [str(name) for name in estimates[dim].values.tolist()]
        return dict(zip(known, distinct(known, _FORBIDDEN_IN_FILES), strict=True))

    def signal_names(self) -> list[str]:
        """Return the names of the files of tracks, one a task."""
        spelled = {side: self.spelled(side) for side in terms.GLOBAL_DIMS}
        return [f"{side}.{spelled[side][name]}.{self.summary}" for side, _, name in self.tasks()]


def _tsv(job: _Export) -> list[Path]:
    with job.files(job.tables, ending=f".tsv{job.gz}") as files, ExitStack() as stack:
        handles = [stack.enter_context(files.text(path.name)) for path in files.paths]
        _fill(job, dict(zip(job.tables, map(TextTable, handles), strict=True)))
    return files.paths


def _parquet(job: _Export) -> list[Path]:
    library("pyarrow", "parquet")
    with job.files(job.tables, ending=".parquet") as files, ExitStack() as stack:
        tables = [ParquetTable(stack.enter_context(files.writing(path.name))) for path in files.paths]
        for table in tables:
            stack.callback(table.close)
        _fill(job, dict(zip(job.tables, tables, strict=True)))
    return files.paths


def _fill(job: _Export, tables: Mapping[str, TextTable | ParquetTable]) -> None:
    counts = read(job.effects, "bound") & read(job.effects, "completed")
    if not counts.any():
        raise SelectionError("none of these sequences counts for any of these exposures: choose others")
    for (local, overall), tree, reverse in job.estimates():
        tables[overall].add(global_results(tree, reverse=reverse))
        for frame in local_results(tree, reverse=reverse):
            tables[local].add(frame)
    with job.bar(int(counts.sum()) * job.effects.sizes[terms.OUTCOME], "sequences") as bar:
        for block in variant_tables(job.results):
            for name in _VARIANT_TABLES:
                tables[name].add(getattr(block, name))
            bar.update(block.sequences)


def _bedgraph(job: _Export) -> list[Path]:
    names = job.signal_names()
    with job.files(names, ending=f".bedgraph{job.gz}") as files, job.bar(len(names), "files") as bar:
        for path, (side, index, name) in zip(files.paths, job.tasks(), strict=True):
            scale = job.results.attrs["scale"]
            with files.text(path.name) as handle:
                handle.write(f"# {SUMMARY_MEANINGS[job.summary]} on {name} ({side}), {scale} scale\n")
                handle.writelines(bedgraph_lines(signal(job.effects, side, index, job.summary)))
            bar.update()
    return files.paths


def _bigwig(job: _Export) -> list[Path]:
    library("pyBigWig", "bigWig")
    names = job.signal_names()
    with (
        job.genome() as genome,
        job.files(names, ending=".bw") as files,
        job.bar(len(names), "files") as bar,
    ):
        check_windows(job.effects, genome)
        for path, (side, index, _) in zip(files.paths, job.tasks(), strict=True):
            with files.writing(path.name) as partly:
                write_bigwig(partly, genome.sizes, signal(job.effects, side, index, job.summary))
            bar.update()
    return files.paths


def _bed(job: _Export) -> list[Path]:
    local = group(job.results, LOCAL_GROUP)
    dims = (*terms.GLOBAL_DIMS, terms.ESTIMATOR)
    spelled = {dim: job.spelled(dim) for dim in dims}
    labels = [[spelled[dim][str(name)] for name in local[dim].values] for dim in dims]
    cells = list(np.ndindex(*(local.sizes[dim] for dim in dims)))
    names = [".".join(label[at] for label, at in zip(labels, cell, strict=True)) for cell in cells]
    with job.files(names, ending=f".bed{job.gz}") as files, job.bar(len(names), "files") as bar:
        for path, cell in zip(files.paths, cells, strict=True):
            with files.text(path.name) as handle:
                handle.writelines(bed_lines(local, *cell))
            bar.update()
    return files.paths


def _vcf(job: _Export) -> list[Path]:
    if job.compress:
        library("pysam", "bgzip")
    with job.genome() as genome:
        name = f"variants.vcf{job.gz}"
        index = [name + index_ending(genome.sizes)] if job.compress else []
        with job.files([name, *index]) as files:
            lines = _counted(job, vcf_lines(job.results, genome, vcf_keys(job.whole[EFFECTS_GROUP].to_dataset())))
            if job.compress:
                with files.writing(name) as partly:
                    write_bgzip(partly, lines)
                    index_vcf(partly, genome.sizes)
            else:
                with files.text(name) as handle:
                    handle.writelines(lines)
    return files.paths


def _counted(job: _Export, lines: Iterator[str]) -> Iterator[str]:
    most = int(read(job.effects, "completed").sum()) * job.effects.sizes[terms.POSITION] * _MUTANTS
    with job.bar(most, "variants") as bar:
        for line in lines:
            yield line
            bar.update(not line.startswith("#"))


FORMATS: Mapping[str, Callable[[_Export], list[Path]]] = {
    "tsv": _tsv,
    "bedgraph": _bedgraph,
    "bigwig": _bigwig,
    "bed": _bed,
    "vcf": _vcf,
    "parquet": _parquet,
}


def _check_option(option: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise OutputError(f"{option} '{value}' is not known.{suggestion(value, allowed)} Allowed: {', '.join(allowed)}")


def _check_completed(results: xr.DataTree) -> None:
    if not read(results[EFFECTS_GROUP].to_dataset(), "completed").any():
        raise StoreError("none of these sequences is completed yet: finish the run with `run --resume`")
