"""Stores for tests of figures and reports: windows on both strands, effects with known slopes, estimates included."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kipoi_deepmr import terms
from kipoi_deepmr.config import parse_config
from kipoi_deepmr.cube import Cube, Template
from kipoi_deepmr.effects import Effects
from kipoi_deepmr.estimate.estimate import estimate_store


def text(words):
    return np.array([str(word) for word in words], dtype=object)


def write_store(
    path: Path,
    exposures: tuple[str, ...] = ("FOXA1", "CTCF"),
    outcomes: tuple[str, ...] = ("DNase",),
    sequences: int = 7,
    length: int = 40,
    *,
    draws: int = 30,
    scale: str = "identity",
    standard_error: str = "posterior",
    completed: int | None = None,
    noise: float = 0.02,
    **sections: Any,
) -> Path:
    """Write a store. The slope of exposure e and outcome o is (e + 1) / (o + 1), larger in later sequences.

    Every exposure counts in all sequences but the last one, in which only the first exposure counts.
    """
    random = np.random.default_rng(0)
    start = 1_000_000 + 500 * np.arange(sequences)
    strand = np.where(np.arange(sequences) % 2, "-", "+")
    letters = random.integers(0, 4, (sequences, length))
    bound = np.ones((len(exposures), sequences), bool)
    bound[1:, -1] = False
    tasks = {"exposure": exposures, "outcome": outcomes}
    coords = {
        **{side: text(names) for side, names in tasks.items()},
        **{f"{side}_task": text(f"task of {name}" for name in names) for side, names in tasks.items()},
        **{f"{side}_task_index": np.arange(len(names)) for side, names in tasks.items()},
        "sequence": text(f"chr8:{s}-{s + length}({d})" for s, d in zip(start, strand, strict=True)),
        "position": np.arange(length),
        "allele": text(terms.ALLELES),
        "chrom": text(["chr8"] * sequences),
        "start": start,
        "end": start + length,
        "strand": text(strand),
        "reference_allele": np.array(terms.ALLELES, dtype=object)[letters],
        "bound": bound,
    }
    settings = {
        "model": {"name": "none", "source": "dir"},
        "exposures": {name: {"task": name} for name in exposures},
        "outcomes": {name: {"task": name} for name in outcomes},
        "sequences": {"intervals": "none.bed"},
        "uncertainty": {"draws": draws},
        "effects": {"scale": scale, "standard_error": standard_error},
        **sections,
        "mr": {"methods": ["egger", "ivw"], **sections.get("mr", {})},
    }
    config = parse_config(settings, path.parent)
    attrs = {
        "title": "Deep Mendelian randomization of none (dir)",
        "source": "kipoi_deepmr",
        "history": "a line of history",
        "config": config.canonical(),
        "config_sha256": config.sha256(),
        "versions": json.dumps({"numpy": np.__version__}),
        "draws": draws,
        "dropout": ["dropout p=0.05"],
        "device": "cpu",
        "scale": scale,
        "standard_error": standard_error,
        "notes": [],
    }
    cube = Cube.create(path, Template(coords, scale, standard_error, attrs))
    done = sequences if completed is None else completed
    mutated = np.arange(4) != letters[:done, :, None]
    bx = random.gamma(1, 0.3, (len(exposures), done, length, 1)) * random.uniform(-1, -0.5, (1, done, length, 4))
    slope = np.divide.outer(np.arange(1, 1 + len(exposures)), np.arange(1, 1 + len(outcomes)))
    tilt = np.linspace(0.8, 1.2, sequences)[:done, None, None]
    by = np.stack([slope[0, o] * tilt * bx[0] for o in range(len(outcomes))])
    by = by + random.normal(0, noise, by.shape)
    # The same outcome effects serve every exposure: those of exposure e are e + 1 times smaller.
    bx = bx[0] / np.arange(1, 1 + len(exposures))[:, None, None, None]
    bx = bx + random.normal(0, noise / 4, bx.shape)
    blocks = [bx, 0.02 + 0.1 * np.abs(bx), by, 0.02 + 0.1 * np.abs(by)]
    blocks.append(np.zeros((len(exposures), *by.shape)))
    effects = Effects(*(np.where(mutated, block, np.nan) for block in blocks))
    references = random.random((len(exposures) + len(outcomes), done))
    cube.write(0, effects, references, references)
    cube.note("another line", engine="full")
    estimate_store(path, config)
    return path
