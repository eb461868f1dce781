"""Effects as `estimate` reads them, made by hand: no store, no model."""

import numpy as np
import xarray as xr

from kipoi_deepmr import terms


def make_effects(
    exposures: int = 2,
    outcomes: int = 2,
    sequences: int = 3,
    positions: int = 6,
    *,
    bound: np.ndarray | None = None,
    draws: int = 16,
    kept: bool = False,
    standard_error: str = "posterior",
    seed: int = 0,
) -> xr.Dataset:
    """Return random effects with the base at position p being p modulo 4; with `kept` also those of every draw."""
    random = np.random.default_rng(seed)
    sizes = {
        terms.EXPOSURE: exposures,
        terms.OUTCOME: outcomes,
        terms.SEQUENCE: sequences,
        terms.POSITION: positions,
        terms.ALLELE: len(terms.ALLELES),
        terms.DRAW: draws,
    }
    reference = np.arange(positions)[:, None] % 4 == np.arange(4)
    variables = {}
    for name, term in {**terms.EFFECTS, **(terms.DRAWS if kept else {})}.items():
        values = random.normal(0, 1, [sizes[dim] for dim in term.dims]).astype(term.dtype)
        if name.endswith("_se"):
            values = np.abs(values) / 10 + 0.05
        if name == "error_covariance":
            values = values / 1000
        if name.endswith("_draws"):
            effect = variables[name.replace("draws", "effect")][1]
            values = (effect[:, :, None] + values / 10).astype(term.dtype)
        variables[name] = (term.dims, np.where(reference, np.nan, values) if terms.ALLELE in term.dims else values)
    text = {
        terms.EXPOSURE: [f"E{index}" for index in range(exposures)],
        terms.OUTCOME: [f"O{index}" for index in range(outcomes)],
        terms.SEQUENCE: [f"s{index}" for index in range(sequences)],
        terms.ALLELE: list(terms.ALLELES),
    }
    coords = {
        **{name: np.array(words, dtype=object) for name, words in text.items()},
        terms.POSITION: 10 + np.arange(positions),
        "bound": ((terms.EXPOSURE, terms.SEQUENCE), np.ones((exposures, sequences), bool) if bound is None else bound),
        "completed": (terms.SEQUENCE, np.ones(sequences, bool)),
        "chrom": (terms.SEQUENCE, np.array(["chr1"] * sequences, dtype=object)),
        "start": (terms.SEQUENCE, np.arange(sequences)),
        "end": (terms.SEQUENCE, np.arange(sequences) + positions),
        "strand": (terms.SEQUENCE, np.array(["+"] * sequences, dtype=object)),
    }
    attrs = {"draws": draws, "standard_error": standard_error, "scale": "identity"}
    effects = xr.Dataset(variables, coords, attrs)
    effects.encoding["source"] = "hand-made.zarr"
    return effects


def mutants(effects: xr.Dataset, name: str, **index: int) -> np.ndarray:
    """Return a variable of one sequence as (variant,), the reference base left out, in the order of positions."""
    values = effects[name].isel(index).values
    return values[np.isfinite(values)].astype(float)
