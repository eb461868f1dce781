"""The effects of every draw, kept on request: those of a plain loop, and the moments are theirs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kipoi_deepmr.mutagenesis import Engine
from tests import toy_models
from tests.test_mutagenesis_full import LENGTH, delta_of, make, make_codes, make_layout, plain_loop


def engines(network, codes, **options):
    """Return both engines of one network with a block of sequences."""
    layout = make_layout()
    full, block = make(network, codes, layout, keep_draws=True, **options)
    return layout, block, {"full": full, "delta": delta_of(full)}


@pytest.mark.parametrize("name", ["full", "delta"])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_kept_draws_equal_a_plain_loop_and_make_the_moments(name, batch_size):
    torch.manual_seed(0)
    layout, block, both = engines(toy_models.ConvNet(LENGTH, 4), make_codes(3), batch_size=batch_size)
    engine = both[name]
    positions = range(3, LENGTH - 2)
    moments = engine.run(block, positions)
    expected, _ = plain_loop(engine, block, layout, positions)
    kept = moments.kept
    assert kept.dtype == np.float32
    largest = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(kept, expected.transpose(0, 3, 1, 2, 4), rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(kept.astype(float).mean(1), moments.mean, rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(kept.astype(float).var(1), moments.squares / moments.draws, rtol=0, atol=1e-6 * largest)
    other = Engine(type(engine.strategy)(replace(engine.request, keep_draws=False)))
    assert other.run(block, positions).kept is None


def test_what_is_rounding_is_zero_in_every_draw():
    class Half(torch.nn.Module):
        """Reads the first half alone."""

        def __init__(self):
            super().__init__()
            self.network = toy_models.Linear(LENGTH // 2, 3)

        def forward(self, x):
            return self.network(x[:, :, : LENGTH // 2])

    torch.manual_seed(0)
    _, block, both = engines(Half(), make_codes(2))
    moments = both["full"].run(block, range(LENGTH))
    blind = moments.kept[:, :, LENGTH // 2 :]
    assert (blind[np.isfinite(blind)] == 0).all()
    assert (moments.mean[:, LENGTH // 2 :][np.isfinite(moments.mean[:, LENGTH // 2 :])] == 0).all()


def test_what_float32_does_not_resolve_is_zero():
    """Beyond 16 units in the last place of the reference, and beyond 1e-6 of the sequence's largest effect."""

    class WeighsA(torch.nn.Module):
        def __init__(self, weights, bias):
            super().__init__()
            self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
            self.register_buffer("bias", torch.tensor(bias))

        def forward(self, x):
            return x[:, 0] @ self.weights + self.bias

    weights = np.zeros((LENGTH, 3))
    weights[:2, 0] = np.array([16, 17]) * 2.0**-23
    weights[:3, 2] = 1.0, 0.9e-6, 1.1e-6
    codes = np.ones((1, LENGTH), dtype=np.int8)
    engine, block = make(WeighsA(weights, [1.0, 0.0, 0.0]), codes, make_layout(), count=1, columns=[0, 2])
    mean = engine.run(block, range(LENGTH)).mean[0, :, 0]
    assert mean[:3, 0].tolist() == [0.0, 17 * 2.0**-23, 0.0]
    assert mean[:3, 1] == pytest.approx([1.0, 0.0, 1.1e-6], rel=1e-3, abs=0)


def test_kept_draws_count_against_the_memory_bound():
    _, _, both = engines(toy_models.Linear(LENGTH, 4), make_codes(1))
    asked = both["full"].request
    less = replace(asked, keep_draws=False).moment_bytes
    assert asked.moment_bytes - less == 4 * asked.count * len(asked.columns)
