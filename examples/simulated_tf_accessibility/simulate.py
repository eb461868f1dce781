"""Simulate a genome, the binding of five transcription factors, and the accessibility that this binding causes."""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ALPHABET = "ACGT"
CONTIGS = {"chr1": 500_000, "chr2": 500_000, "chr3": 200_000, "chr4": 200_000}
WINDOW = 200
STEP = 50
MEAN_GAP = 50
BASE_FREQUENCIES = (0.29, 0.21, 0.21, 0.29)
CORE_WIDTH = 12
SPECIFICITY = 0.75
BINDING_DEPTH = 100.0
ACCESSIBILITY_DEPTH = 200.0
NOISE_SD = 0.1
PEAK_THRESHOLD = 1.5


@dataclass(frozen=True)
class Factor:
    """A transcription factor: its motif, how strongly it binds, and what its binding does to accessibility."""

    name: str
    matrix_id: str
    role: str
    effect: float
    concentration: float
    frequency: float
    frequency_with_partner: float | None = None


FACTORS = (
    Factor("FOXA1", "MA0148.5", "strong activator", 1.0, 3.0, 0.25),
    Factor("HNF4A", "MA0114.5", "weak activator", 0.4, 3.7, 0.25),
    Factor("CTCF", "MA0139.2", "no effect", 0.0, 4.5, 0.25),
    Factor("REST", "MA0138.3", "repressor", -0.7, 4.2, 0.25),
    Factor("CEBPB", "MA0466.4", "co-occurs with FOXA1, no effect", 0.0, 3.0, 0.04, 0.8),
)
PARTNER = "FOXA1"


@dataclass(frozen=True)
class Motif:
    """The informative core of a count matrix: base probabilities and log-odds (nats), both of shape (width, 4)."""

    probabilities: np.ndarray
    log_odds: np.ndarray


def read_counts(path: Path) -> dict[str, np.ndarray]:
    """Read a file in JASPAR format into count matrices of shape (width, 4), by matrix identifier."""
    matrices: dict[str, list[list[float]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith(">"):
            rows = matrices.setdefault(line[1:].split()[0], [])
        elif line and not line.startswith("#"):
            rows.append([float(count) for count in line[line.index("[") + 1 : line.index("]")].split()])
    return {identifier: np.array(rows).T for identifier, rows in matrices.items()}


def informative_core(counts: np.ndarray) -> Motif:
    """Keep the at most `CORE_WIDTH` consecutive columns that carry most information."""
    probabilities = (counts + 1.0) / (counts + 1.0).sum(axis=1, keepdims=True)
    log_odds = np.log(probabilities / np.array(BASE_FREQUENCIES))
    information = (probabilities * log_odds).sum(axis=1)
    width = min(CORE_WIDTH, len(counts))
    start = int(np.argmax(np.convolve(information, np.ones(width), mode="valid")))
    return Motif(probabilities[start : start + width], log_odds[start : start + width])


def load_motifs(path: Path = HERE / "motifs.jaspar") -> dict[str, Motif]:
    """Load the core of each factor's motif, by the factor's name."""
    counts = read_counts(path)
    return {factor.name: informative_core(counts[factor.matrix_id]) for factor in FACTORS}


def one_hot(codes: np.ndarray) -> np.ndarray:
    """Turn base codes 0..3 into one-hot vectors along a new last axis."""
    return np.eye(4)[codes]


def site_affinities(bases: np.ndarray, motif: Motif, concentration: float) -> np.ndarray:
    """Weigh every placement of a motif on both strands; the consensus weighs exp(concentration).

    Parameters
    ----------
    bases : np.ndarray, shape=(..., length, 4)
        One-hot sequences.

    Returns
    -------
    np.ndarray, shape=(..., length - width + 1)
        Sum over the strands of exp(specificity * (score - best score) + concentration).
    """
    width = len(motif.log_odds)
    starts = bases.shape[-2] - width + 1
    affinities = np.zeros((*bases.shape[:-2], starts))
    for matrix in (motif.log_odds, motif.log_odds[::-1, ::-1]):
        score = sum(bases[..., offset : offset + starts, :] @ matrix[offset] for offset in range(width))
        affinities += np.exp(SPECIFICITY * (score - matrix.max(axis=1).sum()) + concentration)
    return affinities


def log_binding(bases: np.ndarray, factor: Factor, motif: Motif) -> np.ndarray:
    """Log enrichment of a factor on whole sequences: log(1 + sum of the affinities of all sites).

    Parameters
    ----------
    bases : np.ndarray, shape=(..., length, 4)
        One-hot sequences.

    Returns
    -------
    np.ndarray, shape=(...)
        Zero without any site, about `factor.concentration` with one perfect site.
    """
    return np.log1p(site_affinities(bases, motif, factor.concentration).sum(axis=-1))


def log_accessibility(binding: np.ndarray) -> np.ndarray:
    """Log accessibility caused by the log binding of all factors, along the last axis."""
    return binding @ np.array([factor.effect for factor in FACTORS])


def plant_sites(codes: np.ndarray, rng: np.random.Generator, motifs: dict[str, Motif]) -> None:
    """Overwrite parts of one regulatory element with binding sites that do not overlap, in place."""
    free = np.ones(len(codes), dtype=bool)
    present: set[str] = set()
    for factor in FACTORS:
        partnered = factor.frequency_with_partner is not None and PARTNER in present
        if rng.random() >= (factor.frequency_with_partner if partnered else factor.frequency):
            continue
        present.add(factor.name)
        for _ in range(1 + int(rng.random() < 0.25)):
            plant_site(codes, free, rng, motifs[factor.name])


def plant_site(codes: np.ndarray, free: np.ndarray, rng: np.random.Generator, motif: Motif) -> None:
    """Draw one site from the motif and write it at a free place, in a random orientation."""
    site = np.array([rng.choice(4, p=column) for column in motif.probabilities])
    if rng.random() < 0.5:
        site = 3 - site[::-1]
    starts = [start for start in range(len(codes) - len(site) + 1) if free[start : start + len(site)].all()]
    start = int(rng.choice(starts))
    codes[start : start + len(site)] = site
    free[start : start + len(site)] = False


def simulate_contig(length: int, rng: np.random.Generator, motifs: dict[str, Motif]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one contig as base codes, with the starts of its regulatory elements."""
    codes = rng.choice(4, size=length, p=BASE_FREQUENCIES)
    starts = []
    start = STEP
    while start + WINDOW + STEP <= length:
        plant_sites(codes[start : start + WINDOW], rng, motifs)
        starts.append(start)
        start += WINDOW + int(rng.integers(0, 2 * MEAN_GAP + 1))
    return codes, np.array(starts)


def window_binding(codes: np.ndarray, starts: np.ndarray, motifs: dict[str, Motif]) -> np.ndarray:
    """Log binding of every factor in the windows at `starts`, shape (windows, factors)."""
    bases = one_hot(codes)
    columns = []
    for factor in FACTORS:
        motif = motifs[factor.name]
        affinities = site_affinities(bases, motif, factor.concentration)
        sites = np.lib.stride_tricks.sliding_window_view(affinities, WINDOW - len(motif.log_odds) + 1)
        columns.append(np.log1p(sites[starts].sum(axis=-1)))
    return np.stack(columns, axis=1)


def sequencing_counts(log_signal: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson reads around a signal that varies log-normally from region to region."""
    return rng.poisson(depth * np.exp(log_signal + rng.normal(0.0, NOISE_SD, log_signal.shape)))


def signals_table(contig: str, codes: np.ndarray, rng: np.random.Generator, motifs: dict[str, Motif]) -> pd.DataFrame:
    """Reads of every factor and of the accessibility assay in windows at every `STEP` bases of a contig."""
    starts = np.arange(0, len(codes) - WINDOW + 1, STEP)
    binding = window_binding(codes, starts, motifs)
    table = pd.DataFrame({"chrom": contig, "start": starts, "end": starts + WINDOW})
    table[[factor.name for factor in FACTORS]] = sequencing_counts(binding, BINDING_DEPTH, rng)
    table["accessibility"] = sequencing_counts(log_accessibility(binding), ACCESSIBILITY_DEPTH, rng)
    return table


def log_signals(table: pd.DataFrame) -> pd.DataFrame:
    """Log enrichment over the assay's depth, the scale on which the effects are linear and the network predicts."""
    depths = {factor.name: BINDING_DEPTH for factor in FACTORS} | {"accessibility": ACCESSIBILITY_DEPTH}
    return pd.DataFrame({name: np.log((table[name] + 0.5) / depth) for name, depth in depths.items()})


def peak_tables(
    contig: str, codes: np.ndarray, starts: np.ndarray, motifs: dict[str, Motif]
) -> dict[str, pd.DataFrame]:
    """Regulatory elements that each factor binds, in narrowPeak columns, with the summit in the middle."""
    binding = window_binding(codes, starts, motifs)
    return {
        factor.name: narrow_peaks(contig, factor.name, starts[bound], binding[bound, index])
        for index, factor in enumerate(FACTORS)
        for bound in [binding[:, index] > PEAK_THRESHOLD]
    }


def narrow_peaks(contig: str, name: str, starts: np.ndarray, log_enrichment: np.ndarray) -> pd.DataFrame:
    """Lay peaks out in the ten columns of narrowPeak."""
    enrichment = np.exp(log_enrichment)
    return pd.DataFrame(
        {
            "chrom": contig,
            "start": starts,
            "end": starts + WINDOW,
            "name": [f"{name}_{contig}_{start}" for start in starts],
            "score": np.minimum(1000, np.round(10 * enrichment)).astype(int),
            "strand": ".",
            "signal": np.round(enrichment, 3),
            "p": -1,
            "q": -1,
            "summit": WINDOW // 2,
        }
    )


def write_gzip(table: pd.DataFrame, path: Path, header: bool) -> None:
    """Write a tab-separated table, compressed without a time stamp, so that the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(sep="\t", index=False, header=header, lineterminator="\n")
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def write_fasta(contigs: dict[str, np.ndarray], path: Path, line_width: int = 100) -> None:
    """Write base codes as FASTA."""
    with path.open("w", newline="\n") as fasta:
        for name, codes in contigs.items():
            sequence = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)[codes].tobytes().decode()
            lines = (sequence[start : start + line_width] for start in range(0, len(sequence), line_width))
            fasta.write(f">{name}\n" + "\n".join(lines) + "\n")


def truth_table(signals: pd.DataFrame) -> pd.DataFrame:
    """True effects, beside the association across regions that a regression without perturbations would report."""
    logs = log_signals(signals)
    return pd.DataFrame(
        [
            {
                "exposure": factor.name,
                "role": factor.role,
                "matrix_id": factor.matrix_id,
                "true_effect": factor.effect,
                "association": round(float(np.polyfit(logs[factor.name], logs["accessibility"], 1)[0]), 3),
            }
            for factor in FACTORS
        ]
    )


def simulate(output: Path, seed: int) -> None:
    """Simulate everything and write it under `output`."""
    rng = np.random.default_rng(seed)
    motifs = load_motifs()
    contigs, signals = {}, []
    peaks: dict[str, list[pd.DataFrame]] = {factor.name: [] for factor in FACTORS}
    for contig, length in CONTIGS.items():
        contigs[contig], starts = simulate_contig(length, rng, motifs)
        signals.append(signals_table(contig, contigs[contig], rng, motifs))
        for name, table in peak_tables(contig, contigs[contig], starts, motifs).items():
            peaks[name].append(table)
    output.mkdir(parents=True, exist_ok=True)
    write_fasta(contigs, output / "genome.fa")
    write_gzip(pd.concat(signals), output / "signals.tsv.gz", header=True)
    for name, tables in peaks.items():
        write_gzip(pd.concat(tables), output / "peaks" / f"{name}.narrowPeak.gz", header=False)
    truth_table(pd.concat(signals)).to_csv(output / "truth.tsv", sep="\t", index=False, lineterminator="\n")


def main() -> None:
    """Read the command line and simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes genome.fa, peaks/*.narrowPeak.gz, signals.tsv.gz (reads per 200-bp window, for train.py) and "
        "truth.tsv (the effects that deepmr should find). The same seed gives the same bytes.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE, help="folder to write to (default: beside this script)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the random generator (default: %(default)s)")
    arguments = parser.parse_args()
    simulate(arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
