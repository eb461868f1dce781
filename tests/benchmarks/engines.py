"""Time the engines on architectures that users have, against each other, a plain loop and tangermeme, in one run.

    pip install tangermeme                      # optional
    python -m tests.benchmarks.engines [--device cuda:0] [--only DeepSEA] [--precision bfloat16]

Prints a table: milliseconds per mutant and draw of a plain batched PyTorch loop, of tangermeme's saturation mutagenesis
(which knows no draws: one pass without dropout), of the full engine at its best batch size, and of the delta engine; their
ratio; the largest difference between the engines in units of the largest effect and of float32 rounding; the share of
multiply-adds in layers that are computed locally.
"""

import argparse
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from kipoi_deepmr.model import Layout, SequenceNetwork
from kipoi_deepmr.mutagenesis import Block, Delta, Engine, Full, Request, all_variants, mutate
from kipoi_deepmr.mutagenesis.agreement import compare
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork, find_dropouts
from tests import toy_models

DRAWS = 4
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """A network and where the sequence sits in its input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    alphabet_axis: int
    position_axis: int
    outputs: int
    batches: tuple[int, ...] = (16,)


CASES = {
    "DeepSEA/predict": Case(toy_models.DeepSEALike, (4, 1, 1000), 0, 2, 40),
    "Beluga": Case(toy_models.BelugaLike, (4, 1, 2000), 0, 2, 40),
    "Basset, dropout after the first pooling": Case(
        lambda: toy_models.BassetLike(early=True), (4, 600, 1), 0, 1, 40, (16, 64)
    ),
    "Basset, as published": Case(toy_models.BassetLike, (4, 600, 1), 0, 1, 40),
    "BPNet-like": Case(toy_models.BPNetLike, (4, 1000), 0, 1, 4, (4, 16, 64)),
}


@dataclass(frozen=True)
class Measurement:
    """Milliseconds per mutant and draw, and how far the engines agree."""

    plain_ms: float
    tangermeme_ms: tuple[float | None, float | None]
    full_ms: float
    delta_ms: float
    difference: float
    roundings: float
    coverage: float

    @property
    def ratio(self) -> float:
        return self.full_ms / self.delta_ms

    def row(self) -> str:
        others = " / ".join("-" if ms is None else f"{ms:.3g}" for ms in self.tangermeme_ms)
        return (
            f"{self.plain_ms:.3g} | {others} | {self.full_ms:.3g} | {self.delta_ms:.3g} | {self.ratio:.1f} "
            f"| {self.difference:.1e} ({self.roundings:.1f} eps) | {100 * self.coverage:.1f}%"
        )


@contextmanager
def prepared(case: Case, device: torch.device, sequences: int = 1) -> Iterator[tuple[dict, Block, range]]:
    """Make the network, a random sequence and what an engine is asked for."""
    torch.manual_seed(0)
    layout = Layout(None, case.alphabet_axis, case.position_axis, "ACGT", case.shape, np.dtype(np.float32))
    network = SequenceNetwork(case.make(), layout, (), False).eval().to(device)
    codes = np.random.default_rng(0).integers(0, 4, (sequences, layout.length)).astype(np.int8)
    canonical = np.eye(4, dtype=np.float32)[codes].reshape(sequences, layout.length, 4, *(1,) * (len(case.shape) - 2))
    one_hot = np.moveaxis(canonical, (1, 2), (case.position_axis + 1, case.alphabet_axis + 1))
    sequence = torch.from_numpy(np.ascontiguousarray(one_hot)).to(device)
    draws = MCDropout(find_dropouts(network, sequence[:1]), seed=1, device=device)
    columns = list(range(case.outputs))
    request = Request(network, draws, DRAWS, columns, case.outputs - 1)
    yield request, Block([f"benchmark {number}" for number in range(sequences)], codes, sequence), range(layout.length)


def plain_loop(request: Request, block: Block, positions: range, rows: int) -> float:
    """Milliseconds per mutant and draw of the loop that a user would write: batches of mutants, every layer."""
    network, draws = request.predictor, request.draws
    layout, device = network.layout, block.sequence.device
    chunk = all_variants(block.codes, positions, device).rows(0, rows)
    alleles = torch.as_tensor(layout.allele_rows, device=device)
    with torch.inference_mode():
        mutants = mutate(block.sequence, chunk, layout.alphabet_axis, layout.position_axis, alleles)
        thinned = ThinnedNetwork(network, draws.masks(block.names, 0).rows(None))
        thinned(mutants).cpu()
        start = time.perf_counter()
        for _ in range(3):
            thinned(mutants).cpu()
    return 1000 * (time.perf_counter() - start) / 3 / rows


class Plain(nn.Module):
    """The network for tangermeme: (batch, 4, length), dropout off."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return self.network(sequence.float().reshape(-1, *self.shape))


def tangermeme(case: Case, request: Request, block: Block, rows: int, *, fast: bool) -> float | None:
    """Milliseconds per mutant of tangermeme's saturation mutagenesis, or None where it is not installed."""
    if importlib.util.find_spec("tangermeme") is None:
        return None
    from tangermeme.saturation_mutagenesis import saturation_mutagenesis

    length = request.predictor.layout.length
    # Its fast path is tried where the slow one would take long: on the whole sequence.
    start, end = (0, length) if fast else (length // 2, length // 2 + 16)
    device = block.sequence.device
    given = block.sequence.reshape(1, 4, length)
    model = Plain(request.predictor, case.shape).eval()
    call = lambda: saturation_mutagenesis(  # noqa: E731
        model, given, start=start, end=end, batch_size=rows, raw_outputs=True, device=str(device), fast=fast
    )
    if not fast:
        call()
    begin = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begin) / (3 * (end - start))


def milliseconds(engine: Engine, block: Block, positions: range) -> float:
    """Milliseconds per mutant and draw of an engine, all of its overhead included."""
    seconds, mutants = engine.time(block, positions, 1)
    return 1000 * seconds / mutants / engine.request.count


def measure(case: Case, device: torch.device, precision: str = "float32", *, others: bool = True) -> Measurement:
    """Measure a network: rounds of all engines in turn, the median of each counts."""
    with prepared(case, device) as (request, block, positions):
        request = replace(request, precision=precision)
        # The best batch size of the loop and of the full engine is found in each round: times vary.
        fulls = [Engine(Full(replace(request, batch_size=size))) for size in (*case.batches, None)]
        delta = Engine(Delta(request))
        found = compare(delta.strategy, block, positions)
        rounds = [
            (
                min(plain_loop(request, block, positions, rows) for rows in case.batches),
                min(milliseconds(full, block, positions) for full in fulls),
                milliseconds(delta, block, positions),
            )
            for _ in range(ROUNDS)
        ]
        plain_ms, full_ms, delta_ms = (statistics.median(column) for column in zip(*rounds, strict=True))
        slow, fast = (tangermeme(case, request, block, 32, fast=f) if others else None for f in (False, True))
        roundings = (found.difference / (torch.finfo(torch.float32).eps * found.prediction)).max()
        share = delta.coverage.share
        return Measurement(plain_ms, (slow, fast), full_ms, delta_ms, found.relative, float(roundings), share)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="part of the name of a network")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    args = parser.parse_args()
    device = torch.device(args.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{hardware}; Python {platform.python_version()}, torch {torch.__version__}; {DRAWS} draws", file=sys.stderr)
    print(
        "| network | plain loop, ms | tangermeme / its fast path, ms | full, ms | local, ms | full / local "
        "| largest difference | local layers |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        if args.only.lower() in name.lower():
            print(f"| {name} | {measure(case, device, args.precision).row()} |", flush=True)


if __name__ == "__main__":
    main()
