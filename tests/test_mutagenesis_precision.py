"""Products in less than float32: what it changes, and what it leaves as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kipoi_deepmr.mutagenesis import Delta, Engine, Full, choose_engine
from kipoi_deepmr.mutagenesis.agreement import compare
from kipoi_deepmr.mutagenesis.precision import products_in
from tests.test_mutagenesis_delta import RandomNetwork
from tests.test_mutagenesis_full import LENGTH, DataDependent, make, make_codes, make_layout

CONV = {"kernel": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "activation": "gelu", "elementwise": True}


def engines(precision, head="flat"):
    torch.manual_seed(3)
    network = RandomNetwork([{**CONV, "kind": "conv", "p": 0.3}, {**CONV, "kind": "max", "p": 0.0}], head, True, LENGTH)
    full, block = make(network, make_codes(1), make_layout())
    request = replace(full.request, precision=precision)
    return [Engine(strategy(request)) for strategy in (Full, Delta)], block, request


def test_bfloat16_keeps_small_effects_in_the_local_engine_and_the_references_in_float32():
    (exact_full, _), block, _ = engines("float32")
    (full, local), _, _ = engines("bfloat16")
    expected = exact_full.run(block, range(LENGTH))
    low, better = full.run(block, range(LENGTH)), local.run(block, range(LENGTH))
    largest = np.nanmax(np.abs(expected.mean))
    from_full = np.nanmax(np.abs(low.mean - expected.mean)) / largest
    from_local = np.nanmax(np.abs(better.mean - expected.mean)) / largest
    # Products round to 8 bits: the engine of differences rounds those, the other one the predictions.
    assert 1e-5 < from_local < 2e-2
    assert from_local < from_full < 0.5
    np.testing.assert_allclose(better.reference_mean, expected.reference_mean, rtol=1e-6)
    assert np.abs(low.reference_mean - expected.reference_mean).max() > 1e-6


def test_an_uncaptured_network_takes_bfloat16_too():
    full, block = make(DataDependent(), make_codes(1), make_layout())
    expected = full.run(block, range(LENGTH)).mean
    found = Engine(Full(replace(full.request, precision="bfloat16"))).run(block, range(LENGTH)).mean
    difference = np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected))
    assert 1e-5 < difference < 0.5


def test_the_engines_are_compared_in_float32_and_then_run_as_asked(caplog):
    _, block, request = engines("bfloat16")
    engine = choose_engine("delta", block, range(LENGTH), [request])
    assert (engine.name, engine.strategy.precision) == ("delta", "bfloat16")
    assert not caplog.records
    assert compare(engine.strategy, block, range(LENGTH)).relative < 1e-5
    assert engine.strategy.precision == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_torch_is_left_as_it_was(precision):
    flags = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)  # noqa: E731
    before = flags()
    with products_in(precision):
        assert flags() == (precision == "tf32",) * 2
    assert flags() == before
    (full, local), block, _ = engines(precision)
    full.run(block, range(3))
    local.run(block, range(3))
    assert flags() == before


def test_passes_are_shared_between_engines_of_one_precision_only():
    (_, local), block, request = engines("bfloat16")
    local.prepare(block)
    whole = local.strategy.whole
    assert whole.in_precision("float32") is whole
    full = Engine(Full(request, whole.in_precision("bfloat16")))
    low = full.run(block, range(3)).reference_mean
    assert np.abs(low - local.run(block, range(3)).reference_mean).max() > 1e-6
