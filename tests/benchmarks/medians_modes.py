"""Time medians and modes with their bootstrap against a Python loop over pytwosamplemr, in one run.

    pip install pytwosamplemr
    python -m tests.benchmarks.medians_modes [--fits 900] [--instruments 3000] [--draws 1000]

Prints seconds for all fits here, those of the loop (measured on a few draws of one fit and multiplied up, because the
modes would take days) and the ratio.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kipoi_deepmr import mr

LOOP_DRAWS = {"simple median": 300, "weighted median": 300, "simple mode": 4, "weighted mode": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("fits", 900), ("instruments", 3000), ("draws", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    from pytwosamplemr import estimators as loop

    rng = np.random.default_rng(0)
    shape = (arguments.fits, arguments.instruments)
    truth = rng.normal(0, 1, shape) * rng.choice([0.02, 0.5], shape, p=[0.98, 0.02])
    se = 0.02 + 0.1 * np.abs(truth)
    bx, by = truth + se * rng.normal(size=shape), 0.8 * truth + se * rng.normal(size=shape)
    one = bx[0], by[0], se[0], se[0]
    ratio, ratio_se = by[0] / bx[0], se[0] / np.abs(bx[0])
    weight = {"simple": np.ones(shape[1]), "weighted": (bx[0] / se[0]) ** 2}

    def modes(weighting: str, draws: int) -> None:
        spread = ratio_se if weighting == "weighted" else np.ones(shape[1])
        for _ in range(draws):
            loop._mbe_est(rng.normal(ratio, ratio_se), spread, 1.0)

    theirs: dict[str, Callable[[int], Any]] = {
        "simple median": lambda draws: loop.weighted_median_boot_se(*one, weight["simple"], draws, 1),
        "weighted median": lambda draws: loop.weighted_median_boot_se(*one, weight["weighted"], draws, 1),
        "simple mode": lambda draws: modes("simple", draws),
        "weighted mode": lambda draws: modes("weighted", draws),
    }
    print(f"{shape[0]} fits x {shape[1]} instruments x {arguments.draws} draws")
    for name, estimator in (
        ("simple median", mr.simple_median),
        ("weighted median", mr.weighted_median),
        ("simple mode", mr.simple_mode),
        ("weighted mode", mr.weighted_mode),
    ):
        draws = LOOP_DRAWS[name]
        before = seconds(lambda name=name, draws=draws: theirs[name](draws)) / draws
        ours = seconds(lambda estimator=estimator: estimator(bx, se, by, se, n_boot=arguments.draws))
        after = seconds(lambda name=name, draws=draws: theirs[name](draws)) / draws
        expected = min(before, after) * arguments.draws * shape[0]
        print(f"{name:16} {ours:10.1f} s, loop {expected:12.0f} s, ratio {expected / ours:8.1f}")


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
