"""The delta against the full engine and against the limit, on this machine, in one run."""

import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from kipoi_deepmr.config import Config
from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.mutagenesis import Block, Delta, Engine, Full
from kipoi_deepmr.mutagenesis.agreement import Comparison
from kipoi_deepmr.mutagenesis.engine_choice import compared
from kipoi_deepmr.mutagenesis.precision import products_in
from kipoi_deepmr.predict.from_draws import NO_ESTIMATORS, FromDraws
from kipoi_deepmr.predict.predictor import request_of
from kipoi_deepmr.predict.prepare import Job, describe_device, prepare

_ROUNDS = 3
_BATCHES = (16, 64, 256)
_SEQUENCES = 4
_COMPARED = 40
_COMPARED_DRAWS = 8
# Rows of the square matrices whose product tells how fast the machine multiplies.
_LARGE = {"cpu": 2048, "cuda": 8192}
_ELSEWHERE = "cuda"


@dataclass(frozen=True)
class BenchReport:
    """What `bench` measured.

    Attributes
    ----------
    device : str
        Where it ran.
    full_ms, delta_ms : float or None
        Milliseconds per mutant and draw in the middle of the positions, median over rounds; the full engine at its best
        batch size. None for a delta engine that is not available.
    full_batch_size, delta_batch_size : int or None
        Mutants in a batch.
    ratio : float or None
        full_ms / delta_ms.
    limit_ms : float or None
        The fewest multiply-adds of a mutant of the middle position, at the rate of a large float32 matrix product that is
        measured in the same run: changed inputs of each convolution and linear layer times the outputs that each of them
        reaches, whole layers where the network runs whole, layers before the first dropout once for all draws. None where
        the operations of the network cannot be seen.
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
    limit_ms: float | None
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
    from_draws: FromDraws = NO_ESTIMATORS,
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
        request = request_of(job)
        full = Engine(Full(request))
        if batch_size is None:
            candidates = [full, *(Engine(Full(replace(request, batch_size=size))) for size in _BATCHES)]
            full = min(candidates, key=lambda engine: _milliseconds(engine, job, block))
        strategy = Delta(request)
        found = compared(strategy, block, job.positions)
        is_there = isinstance(found, Comparison)
        delta = Engine(strategy) if is_there else None
        rounds = [[_milliseconds(one, job, block) for one in (full, delta) if one] for _ in range(_ROUNDS)]
        times = [statistics.median(column) for column in zip(*rounds, strict=True)]
        report = _report(job, full, delta, times, found)
        limit = _limit_ms(strategy, block, job.positions)
        return replace(
            report, limit_ms=limit, **_losses(job, block, {"full": Full, **({"delta": Delta} if is_there else {})})
        )


def _limit_ms(strategy: Delta, block: Block, positions: range) -> float | None:
    """Return the time of the fewest multiply-adds; None where the graph of the network cannot be had."""
    if strategy.request.predictor.opaque:
        return None
    known = [position for position in positions if block.codes[0, position] >= 0]
    try:
        fewest = strategy.fewest_multiply_adds(block, known[len(known) // 2])
    except Exception:  # noqa: BLE001  whatever fails here, there is no graph to count
        return None
    return 1000 * fewest / _multiply_adds_per_second(block.sequence.device)


def _multiply_adds_per_second(device: torch.device) -> float:
    """Return the rate of a large float32 matrix product, the best of some."""
    size = _LARGE.get(device.type, _LARGE[_ELSEWHERE])
    left, right = torch.rand(2, size, size, device=device)
    seconds = []
    with products_in("float32"):
        for _ in range(_ROUNDS + 1):
            start = time.perf_counter()
            torch.mm(left, right)[0, 0].item()
            seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def _losses(job: Job, block: Block, strategies: Mapping[str, type[Full] | type[Delta]]) -> dict[str, Any]:
    """Return what the precision that was asked for changes in the effects of some positions in the middle."""
    precision = job.config.mutagenesis.precision
    found: dict[str, Any] = {"precision": precision}
    if precision == "float32":
        return found
    middle = job.positions[len(job.positions) // 2]
    some = range(max(middle - _COMPARED // 2, job.positions.start), min(middle + _COMPARED // 2, job.positions.stop))
    few = min(_COMPARED_DRAWS, job.config.uncertainty.draws)
    request = replace(request_of(job), count=few, scale="identity")
    exact = Engine(Full(replace(request, precision="float32"))).run(block, some).mean
    outcome = request.exposures
    for name, strategy in strategies.items():
        given = Engine(strategy(request)).run(block, some).mean
        found[f"{name}_precision_difference"] = float(np.nanmax(np.abs(given - exact)) / np.nanmax(np.abs(exact)))
        slopes = [np.nansum(e[..., 0] * e[..., outcome]) / np.nansum(e[..., 0] ** 2) for e in (given, exact)]
        found[f"{name}_precision_slope"] = float(slopes[0] / slopes[1])
    return found


def _milliseconds(engine: Engine, job: Job, block: Block) -> float:
    seconds, mutants = engine.time(block, job.positions, 1)
    return 1000 * seconds / mutants / engine.request.count


def _report(job: Job, full: Engine, delta: Engine | None, times: list[float], found: Comparison | str) -> BenchReport:
    compared_ = found if isinstance(found, Comparison) else None
    relative = compared_.relative if compared_ else None
    return BenchReport(
        device=describe_device(job.device),
        full_ms=times[0],
        delta_ms=times[1] if delta else None,
        full_batch_size=full.batch_size,
        delta_batch_size=delta.batch_size if delta else None,
        ratio=times[0] / times[1] if delta else None,
        limit_ms=None,
        max_difference=relative if relative is not None and np.isfinite(relative) else None,
        engines_agree=compared_.agrees if compared_ else None,
        peak_memory_bytes=_peak_memory(job.device),
        coverage=delta.coverage.share if delta else 0.0,
        runs_whole_from=list(delta.coverage.stopped_at) if delta else [str(found)],
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
