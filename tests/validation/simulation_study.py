"""Bias, coverage, type I error and power of every estimator on data like those of a run.

    python -m tests.validation.simulation_study [--replications 1000] [--quick] [--estimators NAME ...] [--output FOLDER]

Writes results.csv.gz (a row per condition and estimator) and RESULTS.md (tables); README.md tells aims and design.
Random numbers do not depend on the estimators: with --estimators the rows of these are replaced, the others kept.
"""

import argparse
import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
# Shares of --replications: where there is no effect and pleiotropy is none or balanced, and elsewhere.
SHARES = {
    "closed": (1.0, 1.0),
    "draws": (1.0, 0.25),
    "iterative": (1.0, 0.25),
    "slow": (0.2, 0.2),
    "slowest": (0.05, 0.05),
}
# Slow estimators run where the errors are in between.
SLOW_ERRORS = Errors(0.4, 8)
COHERENCES = (0.0, 0.03, 0.2)
COHERENT_CELLS = tuple(
    Cell(Errors(0.4, 8, coherence), 20, "none", slope) for coherence in COHERENCES for slope in SLOPES
)
MUTAGENESIS_VARIANTS, MUTAGENESIS_STRONG = 3000, 45
MUTAGENESIS_SLOPES = (0.0, 0.8)
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
QUICK = Plan(20, tuple(ESTIMATORS), (SLOW_ERRORS,))


def study(plan: Plan) -> list[Performance]:
    """Run the designs of a plan."""
    rows: list[Performance] = []
    if "factorial" in plan.designs:
        for errors in plan.errors:
            rows += run_cells(plan, "factorial", list(factorial(errors)))
            logger.info("%s: %d rows", errors, len(rows))
    if "coherence" in plan.designs:
        for coherence in COHERENCES:
            rows += run_cells(
                plan, "coherence", [cell for cell in COHERENT_CELLS if cell.errors.coherence == coherence]
            )
    if "mutagenesis" in plan.designs:
        rows += _mutagenesis(plan)
    return ordered(rows)


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
    slow = errors == SLOW_ERRORS
    names = [name for name in plan.estimators if slow or not ESTIMATORS[name].effort.startswith("slow")]
    results: Results = {(cell, name): [] for cell in cells for name in names}
    for first, count in _blocks(plan.replications):
        replications = Replications.draw(rng, errors, count, VARIANTS)
        for cell in cells:
            _run(results, cell, first, plan, replications.sample(cell))
    return [
        _row(design, cell, name, measure(found, cell.slope)) for (cell, name), found in results.items() if len(found)
    ]


def _mutagenesis(plan: Plan) -> list[Performance]:
    rows = []
    smaller = replace(plan, replications=max(2, int(MUTAGENESIS_SHARE * plan.replications)))
    for slope in MUTAGENESIS_SLOPES:
        rng = np.random.default_rng([SEED, 3])
        cell = Cell(Errors(0.4, 20), 10, "none", slope)
        results: Results = {(cell, name): [] for name in plan.estimators}
        for first, count in _blocks(smaller.replications, BLOCK // 10):
            sample = draw_mutagenesis(rng, count, MUTAGENESIS_VARIANTS, MUTAGENESIS_STRONG, slope)
            _run(results, cell, first, smaller, sample)
        rows += [_row("mutagenesis", cell, name, measure(found, slope)) for (_, name), found in results.items()]
    return rows


def _run(results: Results, cell: Cell, first: int, plan: Plan, sample: Sample) -> None:
    """Add the results of a block of replications that begins with number `first`."""
    for (of, name), found in results.items():
        count = _replications(plan, name, cell) - first
        if of == cell and count > 0:
            found.append(ESTIMATORS[name].run(sample.first(count)))


def _replications(plan: Plan, name: str, cell: Cell) -> int:
    valid, other = SHARES[ESTIMATORS[name].effort]
    null = cell.slope == 0 and cell.pleiotropy in ("none", "balanced")
    return max(2, round((valid if null else other) * plan.replications))


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
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start = time.perf_counter()
    plan = QUICK if arguments.quick else replace(FULL, replications=arguments.replications)
    rows = study(replace(plan, estimators=tuple(arguments.estimators)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "results.csv.gz"
    if len(arguments.estimators) < len(ESTIMATORS) and path.exists():
        rows = ordered([*rows, *(row for row in read(path) if row.estimator not in arguments.estimators)])
    write(path, rows)
    # From the rounded table, so that replacing some rows gives what one run gives.
    (arguments.output / "RESULTS.md").write_text(digest(read(path)))
    logger.info("%d rows in %.0f s, in %s", len(rows), time.perf_counter() - start, arguments.output)


if __name__ == "__main__":
    main()
