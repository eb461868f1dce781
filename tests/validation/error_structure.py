"""What the errors of real draws look like: the network of the example, whose numbers the designs of the study take.

    python -m tests.validation.error_structure [--config examples/simulated_tf_accessibility/config.yaml]

Prints, for each exposure against the first outcome, medians over some of its sequences.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kipoi_deepmr
from kipoi_deepmr.estimate.from_draws import during_the_run
from kipoi_deepmr.mutagenesis import all_variants, mutate
from kipoi_deepmr.predict.prepare import Job, prepare
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork

Array = np.ndarray[Any, Any]

DRAWS = 50
SEQUENCES = 2
EXAMPLE = Path(__file__).parents[2] / "examples" / "simulated_tf_accessibility" / "config.yaml"


def effects_of_draws(job: Job, index: int) -> Array:
    """Return mutant - reference of every variant in every draw, shape (draws, variants, outputs)."""
    block, layout = job.block([index]), job.network.layout
    variants = all_variants(block.codes, job.positions, job.device)
    alleles = torch.as_tensor(layout.allele_rows, device=job.device)
    chunk = variants.rows(0, len(variants))
    mutants = mutate(block.sequence, chunk, layout.alphabet_axis, layout.position_axis, alleles)
    draws = MCDropout(job.members[0].sites, seed=1, device=job.device)
    found = []
    with torch.inference_mode():
        for draw in range(DRAWS):
            thinned = ThinnedNetwork(job.network, draws.masks(block.names, draw).rows(None))
            found.append((thinned(mutants) - thinned(block.sequence)).double().cpu().numpy())
    return np.stack(found)


def describe(x: Array, y: Array) -> dict[str, float]:
    """Return what describes the errors of draws, both of shape (draws, variants)."""
    effect, sd = x.mean(axis=0), x.std(axis=0)
    kept = (sd > 0) & (y.std(axis=0) > 0)
    x, y, effect, sd = x[:, kept], y[:, kept], effect[kept], sd[kept]
    error, other = (x - effect) / sd, (y - y.mean(axis=0)) / y.std(axis=0)
    eigenvalues = np.linalg.eigvalsh(error @ error.T)
    oriented = (error * np.sign(effect)).sum(axis=1)
    count = len(effect)
    return {
        "mean F of the mean (Monte-Carlo)": float((DRAWS * (effect / sd) ** 2).mean()),
        "mean F, posterior": float(((effect / sd) ** 2).mean()),
        "correlation of the two errors": float((error * other).mean()),
        "its SD over variants": float((error * other).mean(axis=0).std()),
        "effective number of factors": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
        "coherence": float(((oriented**2).mean() - count) / (count * (count - 1))),
        "slope of SD on |effect|": float(np.polyfit(np.abs(effect), sd, 1)[0]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=EXAMPLE)
    config = kipoi_deepmr.load_config(parser.parse_args().config)
    with prepare(config, during_the_run(config), device="cpu") as job:
        columns = list(job.members[0].columns)
        outcome = columns[len(config.exposures)]
        for place, exposure in enumerate(config.exposures):
            bound = np.flatnonzero(job.sequences.bound[place])[:SEQUENCES]
            each = [effects_of_draws(job, int(index)) for index in bound]
            found = [describe(draws[..., columns[place]], draws[..., outcome]) for draws in each]
            print(exposure)
            for name in found[0]:
                print(f"  {name}: {np.median([values[name] for values in found]):.2f}")


if __name__ == "__main__":
    main()
