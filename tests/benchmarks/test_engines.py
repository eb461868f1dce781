"""The speed and memory that the engines are meant to have: run by hand on a quiet machine, ``pytest -m benchmark``."""

import subprocess
import sys

import pytest
import torch

from kipoi_deepmr.mutagenesis import Delta, Engine, Full
from tests.benchmarks.engines import CASES, measure, milliseconds, prepared

pytestmark = pytest.mark.benchmark

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RATIOS = {
    "DeepSEA/predict": 12,
    "Beluga": 12,
    "Basset, dropout after the first pooling": 8,
    "Basset, as published": 8,
    "BPNet-like": 2,
}
BOUND = 2**26


@pytest.fixture(autouse=True)
def all_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_the_local_engine_is_faster_and_the_full_engine_no_slower_than_a_loop(name):
    found = measure(CASES[name], DEVICE, others=False)
    assert found.ratio >= (RATIOS[name] if DEVICE.type == "cpu" else 1)
    assert found.full_ms <= 1.1 * found.plain_ms


@pytest.mark.parametrize("strategy", [Full, Delta])
def test_the_cost_of_a_mutant_does_not_grow_with_their_number(strategy):
    case = CASES["Basset, dropout after the first pooling"]
    times = []
    for sequences in (1, 4):
        with prepared(case, DEVICE, sequences) as (request, block, positions):
            made = Engine(strategy(request))
            milliseconds(made, block, positions)
            few = positions[:100]
            times.append([min(milliseconds(made, block, where) for _ in range(3)) for where in (few, positions)])
    (few, many), (_, several) = times
    assert many <= 1.2 * few
    assert several <= 1.2 * many


MEMORY = """
import resource, sys, torch
from dataclasses import replace
from kipoi_deepmr.mutagenesis import Delta, Engine, Full
from tests.benchmarks.engines import CASES, prepared
strategy, sequences, draws = {"full": Full, "delta": Delta}[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])
with prepared(CASES["DeepSEA/predict"], torch.device("cpu"), sequences) as (request, block, _):
    made = Engine(strategy(replace(request, count=draws, memory=int(sys.argv[4]))))
    made.prepare(block)
    made.run(block, range(480, 484))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made.run(block, range(300, 400 if strategy is Delta else 320))
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.parametrize("engine", ["full", "delta"])
@pytest.mark.parametrize(("sequences", "draws"), [(1, 2), (3, 2), (1, 8)])
def test_memory_stays_under_the_bound_for_any_number_of_sequences_and_draws(engine, sequences, draws):
    arguments = [engine, str(sequences), str(draws), str(BOUND)]
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True)
    # Beside the activations there are the programs' rearranged weights, and what the allocator keeps.
    assert int(done.stdout) < 3 * BOUND
