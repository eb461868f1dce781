"""Time estimators against a Python loop over pytwosamplemr and over statsmodels, in one run.

    pip install pytwosamplemr                   # optional
    python -m tests.benchmarks.estimators [--fits 900] [--instruments 3000] [--draws 1000] [--only ivw]

Prints a table: seconds for all fits here; those of the loops, measured on a few fits (or draws of one fit) before and
after ours, the lesser of the two, and multiplied up, because the modes would take days; the ratios; and by how much the
memory of the process grew at its peak. IVW and MR-Egger come with mean F, I2_GX, Q, Q' and the intercept.
"""

import argparse
import importlib.util
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kipoi_deepmr import mr

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Data:
    """Summary data of all fits, shape (fit, instrument)."""

    bx: Array
    bxse: Array
    by: Array
    byse: Array

    @property
    def columns(self) -> tuple[Array, Array, Array, Array]:
        return self.bx, self.bxse, self.by, self.byse


@dataclass(frozen=True)
class Case:
    """What is timed; the loops map a number of fits (for medians and modes: of draws of one fit) to nothing."""

    ours: Callable[[Data, int], Any]
    pytwosamplemr: Callable[[Data, int], Any]
    statsmodels: Callable[[Data, int], Any] | None
    few: int
    draws: bool


def simulated(fits: int, instruments: int) -> Data:
    """Effects like those of all mutations of a sequence: many near zero, a few large."""
    random = np.random.default_rng(0)
    shape = (fits, instruments)
    truth = random.normal(0, 1, shape) * random.choice([0.02, 0.5], shape, p=[0.98, 0.02])
    se = 0.02 + 0.1 * np.abs(truth)
    return Data(truth + se * random.normal(size=shape), se, 0.8 * truth + se * random.normal(size=shape), se)


def regressions(data: Data, _: int) -> Any:
    return mr.ivw(*data.columns), mr.egger(*data.columns)


def regressions_of_pytwosamplemr(data: Data, fits: int) -> Any:
    from pytwosamplemr import mr_egger, mr_input, mr_ivw

    for row in range(fits):
        given = mr_input(*(column[row] for column in data.columns))
        found = mr_ivw(given), mr_egger(given)
    return found


def regressions_of_statsmodels(data: Data, fits: int) -> Any:
    import statsmodels.api as sm

    for row in range(fits):
        bx, bxse, by, byse = (column[row] for column in data.columns)
        weights, sign = byse**-2, np.sign(bx)
        line = sm.WLS(by, bx, weights=weights).fit()
        oblique = sm.WLS(sign * by, sm.add_constant(np.abs(bx)), weights=weights).fit()
        for fit in (line, oblique):
            found = fit.params, fit.bse, fit.pvalues, fit.conf_int(), fit.ssr
        spread = np.abs(bx) / byse, byse / bxse
        mean = np.average(spread[0], weights=spread[1] ** 2)
        found += (np.mean((bx / bxse) ** 2), np.sum(((spread[0] - mean) * spread[1]) ** 2))
    return found


def median(weighted: bool) -> Callable[[Data, int], Any]:
    """Bootstrap of the median by pytwosamplemr."""

    def loop(data: Data, draws: int) -> Any:
        from pytwosamplemr.estimators import weighted_median_boot_se

        bx, bxse, by, byse = (column[0] for column in data.columns)
        weights = (bx / byse) ** 2 if weighted else np.ones(len(bx))
        return weighted_median_boot_se(bx, by, bxse, byse, weights, draws, 1)

    return loop


def mode(weighted: bool) -> Callable[[Data, int], Any]:
    """Bootstrap of the mode by pytwosamplemr."""

    def loop(data: Data, draws: int) -> None:
        from pytwosamplemr.estimators import _mbe_est

        random = np.random.default_rng(1)
        bx, _, by, byse = (column[0] for column in data.columns)
        ratio, ratio_se = by / bx, byse / np.abs(bx)
        for _ in range(draws):
            _mbe_est(random.normal(ratio, ratio_se), ratio_se if weighted else np.ones(len(bx)), 1.0)

    return loop


def bootstrapped(estimator: Callable[..., Any]) -> Callable[[Data, int], Any]:
    return lambda data, draws: estimator(*data.columns, n_boot=draws)


CASES = {
    "IVW and MR-Egger with diagnostics": Case(
        regressions, regressions_of_pytwosamplemr, regressions_of_statsmodels, few=20, draws=False
    ),
    "simple median": Case(bootstrapped(mr.simple_median), median(False), None, few=300, draws=True),
    "weighted median": Case(bootstrapped(mr.weighted_median), median(True), None, few=300, draws=True),
    "simple mode": Case(bootstrapped(mr.simple_mode), mode(False), None, few=4, draws=True),
    "weighted mode": Case(bootstrapped(mr.weighted_mode), mode(True), None, few=4, draws=True),
}


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak() -> int:
    """Return the most bytes that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(case: Case, data: Data, draws: int) -> list[str]:
    """Return a row of the table."""
    loops = {"pytwosamplemr": case.pytwosamplemr if importlib.util.find_spec("pytwosamplemr") else None}
    loops["statsmodels"] = case.statsmodels
    times = len(data.bx) * (draws if case.draws else 1) / case.few

    def others() -> dict[str, float]:
        return {name: seconds(lambda loop=loop: loop(data, case.few)) for name, loop in loops.items() if loop}

    held = peak()
    ours = min(seconds(lambda: case.ours(data, draws)) for _ in range(1 if case.draws else 5))
    grown = peak() - held
    rounds = [others() for _ in range(3)]
    expected = {name: times * min(one[name] for one in rounds) for name in rounds[0]}
    cells = [f"{expected[name]:.3g}" if name in expected else "-" for name in loops]
    ratios = [f"{expected[name] / ours:.3g}" if name in expected else "-" for name in loops]
    return [f"{ours:.3g}", *cells, *ratios, f"{grown / 2**20:.0f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("fits", 900), ("instruments", 3000), ("draws", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="part of the name of an estimator")
    arguments = parser.parse_args()
    data = simulated(arguments.fits, arguments.instruments)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{arguments.fits} fits x {arguments.instruments} instruments, {arguments.draws} draws of the bootstrap; "
        f"{os.cpu_count()} CPUs{load}; Python {platform.python_version()}, numpy {np.__version__}",
        file=sys.stderr,
    )
    print(
        "| estimator | here, s | loop over pytwosamplemr, s | loop over statsmodels, s | ratio | ratio "
        "| memory, MiB |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, case in CASES.items():
        if arguments.only.lower() in name.lower():
            print(f"| {name} | {' | '.join(measure(case, data, arguments.draws))} |", flush=True)


if __name__ == "__main__":
    main()
