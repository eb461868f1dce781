"""Effects into the store: which sequences share a block, what is written, what a second call leaves alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.cube import Cube, open_results
from kipoi_deepmr.mutagenesis import Request
from kipoi_deepmr.predict import compute
from kipoi_deepmr.predict.compute import write_effects
from kipoi_deepmr.predict.predictor import engine_of
from kipoi_deepmr.predict.prepare import prepare
from tests.kipoi_models import write_project


@pytest.mark.parametrize(
    ("shard", "todo", "at_once", "columns", "blocks"),
    [
        (1, range(4), 1, 3, [[0], [1], [2], [3]]),
        (1, range(5), 2, 3, [[0, 1], [2, 3], [4]]),
        (1, [0, 3, 4, 5], 2, 3, [[0], [3], [4, 5]]),
        (2, [2, 3, 4], 1, 3, [[2, 3], [4]]),
        # A thousand exposures and outcomes: the covariances of one sequence are enough to hold.
        (1, range(2), 2, 2000, [[0], [1]]),
        (2, range(4), 4, 2000, [[0, 1], [2, 3]]),
    ],
)
def test_blocks_fill_shards_and_stay_within_memory(shard, todo, at_once, columns, blocks):
    request = Request(None, None, 4, range(columns), columns // 2)
    strategy = SimpleNamespace(sequences_at_once=lambda _: at_once)
    size = compute._block_size(SimpleNamespace(request=request, strategy=strategy), shard, 8)
    assert list(compute._blocks(list(todo), size)) == blocks


def test_draws_that_are_kept_make_blocks_smaller():
    sizes = []
    for keep_draws in (False, True):
        request = Request(None, None, 1000, range(3), 2, keep_draws=keep_draws)
        strategy = SimpleNamespace(sequences_at_once=lambda _: 10**6)
        sizes.append(compute._block_size(SimpleNamespace(request=request, strategy=strategy), 1, 1000))
    assert sizes[1] < sizes[0] / 100


@pytest.fixture
def written(tmp_path):
    with prepare(load_config(write_project(tmp_path)), device="cpu") as job:
        cube = Cube.create(tmp_path / "out.zarr", job.template())
        write_effects(job, cube, progress=False)
        yield job, cube, tmp_path / "out.zarr"


def test_what_the_engine_gives_is_in_the_store_and_is_not_computed_twice(written, monkeypatch):
    job, cube, path = written
    names = range(len(cube.completed()))
    block = job.block(names)
    expected = engine_of(job, block).run(block, job.positions)
    with open_results(path) as tree:
        effects = tree["effects"].to_dataset().load()
    assert effects.completed.all()
    found = np.concatenate([effects.exposure_effect.values, effects.outcome_effect.values])
    largest = np.nanmax(np.abs(expected.mean))
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected.mean, rtol=0, atol=1e-5 * largest)
    errors = np.concatenate([effects.exposure_se.values, effects.outcome_se.values])
    np.testing.assert_allclose(
        np.moveaxis(errors, 0, -1), np.sqrt(expected.squares / expected.draws), rtol=0, atol=1e-5 * largest
    )

    def never(*args, **kwargs):
        raise AssertionError("asked for an engine")

    monkeypatch.setattr(compute, "engine_of", never)
    write_effects(job, cube, progress=False)
