"""Effects of a run, block by block into the store, with what has to be estimated while the draws are there."""

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm.auto import tqdm

from kipoi_deepmr.cube import Cube
from kipoi_deepmr.effects import from_moments
from kipoi_deepmr.mutagenesis import Engine
from kipoi_deepmr.predict.predictor import engine_of
from kipoi_deepmr.predict.prepare import Job, describe_device

_LARGEST_BLOCK = 2**25


def write_effects(job: Job, cube: Cube, *, progress: bool = True, what: str = "sequences") -> None:
    """Compute and write the effects of every sequence that is not completed yet.

    Parameters
    ----------
    job
        The prepared run.
    cube
        Its store.
    progress
        Whether to show a progress bar.
    what
        What the bar counts.
    """
    done = cube.completed()
    todo = [index for index in range(len(done)) if not done[index]]
    if not todo:
        return
    mutants = job.mutants()
    first = job.block([next((index for index in todo if mutants[index]), todo[0])])
    kept = cube.keeps_draws or cube.drawn is not None
    engine = engine_of(job, first, keep_draws=kept)
    cube.note(f"{engine.name} engine on {describe_device(job.device)}", engine=engine.name)
    with tqdm(
        total=int(mutants.sum()),
        initial=int(mutants[done].sum()),
        unit=" mutants",
        unit_scale=True,
        desc=f"{int(done.sum())}/{len(done)} {what}",
        disable=not progress,
        smoothing=0.05,
        mininterval=0.5,
    ) as bar:
        for indices in _blocks(todo, _block_size(engine, cube.shard, len(job.positions))):
            _write_block(job, cube, engine, indices, bar)
            done[indices] = True
            bar.update(int(mutants[done].sum()) - bar.n)
            bar.set_description(f"{int(done.sum())}/{len(done)} {what}")


def _write_block(job: Job, cube: Cube, engine: Engine, indices: list[int], bar: tqdm) -> None:
    moments = engine.run(job.block(indices), job.positions, bar.update)
    shape = moments.mean.shape[:3]
    columns, pairs = moments.mean.shape[-1], moments.cross.shape[-2:]
    effects = from_moments(
        moments.mean.reshape(-1, columns),
        moments.squares.reshape(-1, columns),
        moments.cross.reshape(-1, *pairs),
        moments.draws,
        job.config.effects.standard_error,
    )
    drawn = None
    if cube.drawn is not None and moments.kept is not None:
        bound = job.sequences.bound[:, indices]
        drawn = job.from_draws.estimate(moments.kept, bound, cube.drawn, job.config.effects.standard_error)
    cube.write(
        indices[0],
        effects.reshaped(shape),
        moments.reference_mean.T,
        np.sqrt(moments.reference_squares.T / moments.draws),
        draws=np.moveaxis(moments.kept, -1, 0) if cube.keeps_draws and moments.kept is not None else None,
        drawn=drawn,
    )


def _block_size(engine: Engine, shard: int, positions: int) -> int:
    """Return how many sequences share a block: whole shards, a few batches where sequences are short, none too large."""
    asked = engine.request
    columns, draws = len(asked.columns), asked.count if asked.keep_draws else 0
    # Kept draws are numbers of half the size.
    numbers = 4 * positions * (2 * columns + asked.exposures * (columns - asked.exposures) + draws * columns // 2)
    wanted = engine.strategy.sequences_at_once(positions)
    return shard * -(-max(1, min(wanted, _LARGEST_BLOCK // numbers)) // shard)


def _blocks(todo: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield runs of sequences that follow each other, cut where a multiple of `size` begins."""
    start = 0
    while start < len(todo):
        stop = start + 1
        while stop < len(todo) and todo[stop] == todo[stop - 1] + 1 and todo[stop] // size == todo[start] // size:
            stop += 1
        yield list(todo[start:stop])
        start = stop
