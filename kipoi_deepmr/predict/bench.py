"""The delta against the full engine, on this machine, in one run."""

import resource
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.mutagenesis import Block, DeltaEngine, FullEngine
from kipoi_deepmr.mutagenesis.agreement import Comparison
from kipoi_deepmr.mutagenesis.engine_choice import compared
from kipoi_deepmr.predict.from_draws import FromDraws
from kipoi_deepmr.predict.prepare import Job, describe_device, prepare

_ROUNDS = 3
_BATCHES = (16, 64, 256)
_SEQUENCES = 4
_COMPARED = 40
_COMPARED_DRAWS = 8


@dataclass(frozen=True)
class BenchReport:
    """What `bench` measured.

    Attributes
    ----------
    device : str
        Where it ran.
    full_ms, delta_ms : float or None
        Milliseconds per mutant and draw, median over rounds; the full engine at its best batch size. None for a local
        engine that is not available.
    full_batch_size, delta_batch_size : int or None
        Mutants in a batch.
    ratio : float or None
        full_ms / delta_ms.
    max_difference : float or None
        Largest difference of a prediction over the largest effect among the sampled mutants; None where nothing has an
        effect, or a prediction of the delta engine is not a number.
    engines_agree : bool or None
        Whether a run would take the delta engine: every output agrees.
    peak_memory_bytes : int
        Largest memory of the process (CPU) or allocated on the GPU so far.
    coverage : float
        Share of multiply-adds in layers that are computed locally, 0 to 1.
    runs_whole_from : list of str
        Operations from which on the network runs whole.
    precision : str
        Arithmetic of the products: ``mutagenesis.precision``.
    full_precision_difference, delta_precision_difference : float or None
        Largest difference that the precision makes to a mean effect, over the largest effect, among some mutants; None
        for float32.
    full_precision_slope, delta_precision_slope : float or None
        Slope of the effects on the first outcome against those on the first exposure (through the origin, unweighted)
        over the same slope in float32.
    """

    device: str
    full_ms: float
    delta_ms: float | None
    full_batch_size: int
    delta_batch_size: int | None
    ratio: float | None
    max_difference: float | None
    engines_agree: bool | None
    peak_memory_bytes: int
    coverage: float
    runs_whole_from: list[str]
    precision: str = "float32"
    full_precision_difference: float | None = None
    delta_precision_difference: float | None = None
    full_precision_slope: float | None = None
    delta_precision_slope: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def bench(
    config: Config,
    from_draws: FromDraws,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
) -> BenchReport:
    """Time the engines on some sequences of a configuration, in turn.

    Parameters
    ----------
    config, from_draws, device, batch_size, num_workers
        As `prepare`. Without `batch_size` several are tried for the full engine and the fastest counts.

    Returns
    -------
    BenchReport

    Raises
    ------
    DeepMRError
        As `prepare`.
    """
    with prepare(config, from_draws, device=device, batch_size=batch_size, num_workers=num_workers) as job:
        if not job.mutants().any():
            raise SequenceError(
                "no sequence of the configuration has a known base in mutagenesis.positions: nothing to time"
            )
        block = job.block(np.argsort(-job.mutants(), kind="stable")[:_SEQUENCES].tolist())
        options = job.engine_options()
        candidates = [FullEngine(**options)]
        if batch_size is None:
            candidates += [FullEngine(**{**options, "batch_size": size}) for size in _BATCHES]
        full = min(candidates, key=lambda engine: _milliseconds(engine, job, block))
        delta = DeltaEngine(**options)
        found = compared(delta, block, job.positions)
        if isinstance(found, str):
            report = _report(job, full, None, _milliseconds(full, job, block), None, None, [found])
            return replace(report, **_losses(job, block, {"full": FullEngine}))
        rounds = [(_milliseconds(full, job, block), _milliseconds(delta, job, block)) for _ in range(_ROUNDS)]
        full_ms, delta_ms = (statistics.median(times) for times in zip(*rounds, strict=True))
        report = _report(job, full, delta, full_ms, delta_ms, found, list(delta.coverage.stopped_at))
        return replace(report, **_losses(job, block, {"full": FullEngine, "delta": DeltaEngine}))


def _losses(job: Job, block: Block, engines: Mapping[str, type[FullEngine]]) -> dict[str, Any]:
    """Return what the precision that was asked for changes in the effects of some positions in the middle."""
    precision = job.config.mutagenesis.precision
    found: dict[str, Any] = {"precision": precision}
    if precision == "float32":
        return found
    middle = job.positions[len(job.positions) // 2]
    some = range(max(middle - _COMPARED // 2, job.positions.start), min(middle + _COMPARED // 2, job.positions.stop))
    options = {**job.engine_options(), "count": min(_COMPARED_DRAWS, job.config.uncertainty.draws), "scale": "identity"}
    exact = FullEngine(**{**options, "precision": "float32"}).run(block, some).mean
    outcome = options["exposures"]
    for name, engine in engines.items():
        given = engine(**options).run(block, some).mean
        found[f"{name}_precision_difference"] = float(np.nanmax(np.abs(given - exact)) / np.nanmax(np.abs(exact)))
        slopes = [np.nansum(e[..., 0] * e[..., outcome]) / np.nansum(e[..., 0] ** 2) for e in (given, exact)]
        found[f"{name}_precision_slope"] = float(slopes[0] / slopes[1])
    return found


def _milliseconds(engine: FullEngine, job: Job, block: Block) -> float:
    seconds, mutants = engine.time(block, job.positions, 1)
    return 1000 * seconds / mutants / engine.count


def _report(
    job: Job,
    full: FullEngine,
    delta: DeltaEngine | None,
    full_ms: float,
    delta_ms: float | None,
    found: Comparison | None,
    stopped: list[str],
) -> BenchReport:
    relative = found.relative if found else None
    return BenchReport(
        device=describe_device(job.device),
        full_ms=full_ms,
        delta_ms=delta_ms,
        full_batch_size=int(full.batch_size or 1),
        delta_batch_size=int(delta.batch_size or 1) if delta else None,
        ratio=full_ms / delta_ms if delta_ms else None,
        max_difference=relative if relative is not None and np.isfinite(relative) else None,
        engines_agree=found.agrees if found else None,
        peak_memory_bytes=_peak_memory(job.device),
        coverage=delta.coverage.share if delta else 0.0,
        runs_whole_from=stopped,
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
