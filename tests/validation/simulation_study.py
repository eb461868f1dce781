"""Bias, coverage, type I error and power of every estimator on data like those of a run.

    python -m tests.validation.simulation_study [--replications 1000] [--quick] [--estimators NAME ...] [--output FOLDER]
                                                [--resume]

Writes results.csv.gz (a row per condition and estimator) and RESULTS.md (tables); README.md tells aims and design.
Random numbers do not depend on the estimators: with --estimators the rows of these are replaced, the others kept.
Each level of the errors is written to FOLDER/parts when it is done; --resume takes those that are there, if they have
the same estimators and replications. After a change of the code run it without.
"""

import argparse
import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tests.validation.design import (
    CORRELATIONS,
    FACTORS,
    PLEIOTROPY,
    SLOPES,
    Cell,
    Errors,
    Replications,
    Sample,
    draw_mutagenesis,
    factorial,
)
from tests.validation.estimators import ESTIMATORS
from tests.validation.performance import Performance, digest, measure, read, write

logger = logging.getLogger(__name__)
Results = dict[tuple[Cell, str], list[object]]

SEED = 20
VARIANTS = 300
# Replications that share a block of memory.
BLOCK = 100
# Shares of --replications: where there is no effect, and where there is one.
SHARES = {
    "closed": (1.0, 1.0),
    "draws": (1.0, 0.25),
    "iterative": (1.0, 0.25),
    "slow": (1.0, 0.1),
    "slowest": (1.0, 0.05),
}
MIDDLE_ERRORS = Errors(0.4, 8)
COHERENCES = (0.0, 0.03, 0.2)
COHERENT_CELLS = tuple(
    Cell(Errors(0.4, 8, coherence), 20, "none", slope) for coherence in COHERENCES for slope in SLOPES
)
MUTAGENESIS_VARIANTS, MUTAGENESIS_STRONG = 3000, 45
MUTAGENESIS_SLOPES = (0.0, 0.8)
# Of its replications where there is an effect.
MUTAGENESIS_SHARE = 0.2


@dataclass(frozen=True)
class Plan:
    """How much is computed.

    Attributes
    ----------
    replications : int
        Replications of which an estimator gets its share, see `SHARES`.
    estimators : tuple of str
        Names.
    errors : tuple of Errors
        Levels of the factorial design.
    designs : tuple of str
        ``factorial``, ``coherence``, ``mutagenesis``.
    """

    replications: int
    estimators: tuple[str, ...]
    errors: tuple[Errors, ...]
    designs: tuple[str, ...] = ("factorial", "coherence", "mutagenesis")


FULL = Plan(1000, tuple(ESTIMATORS), tuple(Errors(*pair) for pair in itertools.product(CORRELATIONS, FACTORS)))
QUICK = Plan(20, tuple(ESTIMATORS), (MIDDLE_ERRORS,))


def study(plan: Plan, folder: Path | None = None, *, resume: bool = False) -> list[Performance]:
    """Run the designs of a plan; keep each part in a folder, or take what an earlier run of the same plan left there."""
    rows: list[Performance] = []
    for name, run in _parts(plan):
        path = folder / f"{name}.csv.gz" if folder else None
        found = read(path) if path and resume and path.exists() else []
        if not _is_of(plan, found):
            found = run()
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, found)
        rows += found
        logger.info("%s: %d rows", name, len(rows))
    return ordered(rows)


def _is_of(plan: Plan, rows: list[Performance]) -> bool:
    """Tell whether rows are those of a plan: of its estimators and its number of replications, all of which the null has."""
    same = {row.estimator for row in rows} == set(plan.estimators)
    return same and max(row.replications for row in rows) == plan.replications


def _parts(plan: Plan) -> Iterator[tuple[str, Callable[[], list[Performance]]]]:
    """Yield the parts of the designs that share their errors, by name."""
    if "factorial" in plan.designs:
        for errors in plan.errors:
            name = f"factorial-{errors.correlation:g}-{errors.factors}"
            yield name, partial(run_cells, plan, "factorial", list(factorial(errors)))
    if "coherence" in plan.designs:
        for coherence in COHERENCES:
            cells = [cell for cell in COHERENT_CELLS if cell.errors.coherence == coherence]
            yield f"coherence-{coherence:g}", partial(run_cells, plan, "coherence", cells)
    if "mutagenesis" in plan.designs:
        yield "mutagenesis", partial(_mutagenesis, plan)


def ordered(rows: list[Performance]) -> list[Performance]:
    """Sort the rows by design, condition and estimator."""
    kinds = {name: place for place, name in enumerate(PLEIOTROPY)}
    names = {name: place for place, name in enumerate(ESTIMATORS)}

    def place(row: Performance) -> tuple[object, ...]:
        errors = row.correlation, row.factors, row.coherence
        return (
            row.design != "factorial",
            row.design,
            kinds[row.pleiotropy],
            row.f_statistic,
            errors,
            row.slope,
            names[row.estimator],
        )

    return sorted(rows, key=place)


def run_cells(plan: Plan, design: str, cells: list[Cell]) -> list[Performance]:
    """Run cells that share their errors on the same random numbers, block by block."""
    errors = cells[0].errors
    seed = [SEED, int(100 * errors.correlation), errors.factors, int(1000 * errors.coherence)]
    rng = np.random.default_rng(seed)
    results: Results = {(cell, name): [] for cell in cells for name in plan.estimators}
    for first, count in _blocks(plan.replications):
        replications = Replications.draw(rng, errors, count, VARIANTS)
        for cell in cells:
            _run(results, cell, first, plan, replications.sample(cell))
    return [
        _row(design, cell, name, measure(found, cell.slope)) for (cell, name), found in results.items() if len(found)
    ]


def _mutagenesis(plan: Plan) -> list[Performance]:
    rows = []
    for slope in MUTAGENESIS_SLOPES:
        share = 1.0 if slope == 0 else MUTAGENESIS_SHARE
        chosen = replace(plan, replications=max(2, int(share * plan.replications)))
        rng = np.random.default_rng([SEED, 3])
        cell = Cell(Errors(0.4, 20), 10, "none", slope)
        results: Results = {(cell, name): [] for name in plan.estimators}
        for first, count in _blocks(chosen.replications, BLOCK // 10):
            sample = draw_mutagenesis(rng, count, MUTAGENESIS_VARIANTS, MUTAGENESIS_STRONG, slope)
            _run(results, cell, first, chosen, sample)
        rows += [_row("mutagenesis", cell, name, measure(found, slope)) for (_, name), found in results.items()]
    return rows


def _run(results: Results, cell: Cell, first: int, plan: Plan, sample: Sample) -> None:
    """Add the results of a block of replications that begins with number `first`."""
    for (of, name), found in results.items():
        count = _replications(plan, name, cell) - first
        if of == cell and count > 0:
            found.append(ESTIMATORS[name].run(sample.first(count)))


def _replications(plan: Plan, name: str, cell: Cell) -> int:
    null, effect = SHARES[ESTIMATORS[name].effort]
    return max(2, round((null if cell.slope == 0 else effect) * plan.replications))


def _blocks(replications: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    for first in range(0, replications, size):
        yield first, min(size, replications - first)


def _row(design: str, cell: Cell, name: str, measures: dict[str, float]) -> Performance:
    return Performance(
        design=design,
        pleiotropy=cell.pleiotropy,
        f_statistic=cell.f_statistic,
        correlation=cell.errors.correlation,
        factors=cell.errors.factors,
        coherence=cell.errors.coherence,
        slope=cell.slope,
        estimator=name,
        **measures,
    )


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replications", type=int, default=FULL.replications)
    parser.add_argument("--quick", action="store_true", help="one level of the errors, 20 replications")
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS), metavar="NAME")
    parser.add_argument("--resume", action="store_true", help="take the parts that an earlier run has finished")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start = time.perf_counter()
    plan = QUICK if arguments.quick else replace(FULL, replications=arguments.replications)
    parts = arguments.output / "parts"
    rows = study(replace(plan, estimators=tuple(arguments.estimators)), parts, resume=arguments.resume)
    path = arguments.output / "results.csv.gz"
    if len(arguments.estimators) < len(ESTIMATORS) and path.exists():
        rows = ordered([*rows, *(row for row in read(path) if row.estimator not in arguments.estimators)])
    write(path, rows)
    # From the rounded table, so that replacing some rows gives what one run gives.
    (arguments.output / "RESULTS.md").write_text(digest(read(path)))
    shutil.rmtree(parts)
    logger.info("%d rows in %.0f s, in %s", len(rows), time.perf_counter() - start, arguments.output)


if __name__ == "__main__":
    main()
