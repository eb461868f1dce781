"""Train the example's network on two contigs of the simulated genome and measure it on a held-out one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from model.model import BindingNet
from pyfaidx import Fasta
from simulate import ALPHABET, FACTORS, WINDOW, load_motifs, log_accessibility, log_binding, log_signals, one_hot
from torch import nn

HERE = Path(__file__).resolve().parent
TARGETS = [*(factor.name for factor in FACTORS), "accessibility"]
TRAINING, VALIDATION, HELD_OUT = ("chr1", "chr2"), ("chr3",), ("chr4",)
MUTATED_PEAKS = 12


def base_codes(sequence: str) -> np.ndarray:
    """Turn A, C, G, T into 0, 1, 2, 3."""
    return np.array([ALPHABET.index(base) for base in sequence])


def network_input(codes: np.ndarray) -> torch.Tensor:
    """One-hot sequences as the network reads them, shape (batch, 4, length)."""
    return torch.tensor(one_hot(codes).swapaxes(-1, -2), dtype=torch.float32).contiguous()


def load_windows(folder: Path, contigs: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Load base codes, shape (windows, 200), and log signals, shape (windows, targets), of some contigs."""
    signals = pd.read_csv(folder / "signals.tsv.gz", sep="\t")
    signals = signals[signals["chrom"].isin(contigs)]
    genome = {name: base_codes(record[:].seq) for name, record in Fasta(str(folder / "genome.fa")).items()}
    codes = [
        genome[chrom][start : start + WINDOW] for chrom, start in zip(signals["chrom"], signals["start"], strict=True)
    ]
    return np.stack(codes), log_signals(signals)[TARGETS].to_numpy(np.float32)


def flip_half(sequences: torch.Tensor) -> torch.Tensor:
    """Replace a random half of the sequences by their reverse complements."""
    flipped = torch.rand(len(sequences)) < 0.5
    return torch.where(flipped[:, None, None], sequences.flip(1, 2), sequences)


def predict(network: nn.Module, codes: np.ndarray) -> np.ndarray:
    """Predict without dropout, shape (sequences, targets)."""
    network.eval()
    with torch.inference_mode():
        return torch.cat(
            [network(network_input(batch)) for batch in np.array_split(codes, len(codes) // 1024 + 1)]
        ).numpy()


def fit(network: nn.Module, folder: Path, epochs: int, batch_size: int, learning_rate: float) -> None:
    """Minimise the squared error on the training contigs, reporting it on the validation contig."""
    codes, signals = load_windows(folder, TRAINING)
    sequences, targets = network_input(codes), torch.tensor(signals)
    validation_codes, validation_signals = load_windows(folder, VALIDATION)
    steps = len(sequences) // batch_size
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps * epochs)
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        network.train()
        for batch in torch.randperm(len(sequences))[: steps * batch_size].split(batch_size):
            loss = nn.functional.mse_loss(network(flip_half(sequences[batch])), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        error = np.square(predict(network, validation_codes) - validation_signals).mean()
        print(
            f"epoch {epoch:2d}/{epochs}: validation error {error:.4f} ({time.perf_counter() - started:.1f} s)",
            flush=True,
        )


def point_mutants(codes: np.ndarray) -> np.ndarray:
    """All single-base substitutions of a sequence, shape (3 * length, length)."""
    positions, shifts = np.repeat(np.arange(len(codes)), 3), np.tile([1, 2, 3], len(codes))
    mutants = np.repeat(codes[None], len(positions), axis=0)
    mutants[np.arange(len(positions)), positions] = (codes[positions] + shifts) % 4
    return mutants


def true_signals(codes: np.ndarray) -> np.ndarray:
    """Noise-free log signals of the simulation, shape (sequences, targets)."""
    motifs = load_motifs()
    binding = np.stack([log_binding(one_hot(codes), factor, motifs[factor.name]) for factor in FACTORS], axis=-1)
    return np.concatenate([binding, log_accessibility(binding)[:, None]], axis=-1)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column of one array with the same column of another."""
    return np.array([np.corrcoef(first[:, column], second[:, column])[0, 1] for column in range(first.shape[1])])


def mutation_correlations(network: nn.Module, folder: Path, seed: int) -> np.ndarray:
    """Correlate predicted with true effects of all point mutations of held-out peaks, per target."""
    rng = np.random.default_rng(seed)
    genome = Fasta(str(folder / "genome.fa"))
    predicted, true = [], []
    for factor in FACTORS:
        peaks = pd.read_csv(folder / "peaks" / f"{factor.name}.narrowPeak.gz", sep="\t", header=None)
        peaks = peaks[peaks[0].isin(HELD_OUT)]
        for row in rng.choice(len(peaks), MUTATED_PEAKS, replace=False):
            chrom, start = peaks.iloc[row, 0], int(peaks.iloc[row, 1])
            codes = base_codes(genome[chrom][start : start + WINDOW].seq)
            sequences = np.concatenate([codes[None], point_mutants(codes)])
            for effects, signal in ((predicted, predict(network, sequences)), (true, true_signals(sequences))):
                effects.append(signal[1:] - signal[0])
    return correlations(np.concatenate(predicted), np.concatenate(true))


def performance(network: nn.Module, folder: Path, seed: int) -> pd.DataFrame:
    """Measure the network on the held-out contig."""
    codes, signals = load_windows(folder, HELD_OUT)
    predicted = predict(network, codes)
    table = pd.DataFrame(
        {
            "target": TARGETS,
            "correlation": correlations(predicted, signals),
            "rmse": np.sqrt(np.square(predicted - signals).mean(axis=0)),
            "correlation_noise_free": correlations(predicted, true_signals(codes)),
            "correlation_mutations": mutation_correlations(network, folder, seed),
        }
    )
    return table.round(3)


def main() -> None:
    """Read the command line, train, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Reads what simulate.py wrote. Writes model/weights.pt and performance.tsv: per target, on chr4, the "
        "correlation with the observed and with the noise-free signal, and that of predicted with true mutation effects.",
    )
    parser.add_argument(
        "-d", "--data", type=Path, default=HERE, help="folder that simulate.py wrote (default: beside this script)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE, help="folder to write to (default: beside this script)"
    )
    parser.add_argument(
        "--epochs", type=int, default=40, help="passes over the training windows (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="windows per step (default: %(default)s)")
    parser.add_argument(
        "--learning_rate", type=float, default=3e-3, help="peak of the one-cycle schedule (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of weights, order, strands and dropout (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    network = BindingNet(targets=len(TARGETS))
    fit(network, arguments.data, arguments.epochs, arguments.batch_size, arguments.learning_rate)
    (arguments.output / "model").mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), arguments.output / "model" / "weights.pt")
    table = performance(network, arguments.data, arguments.seed)
    table.to_csv(arguments.output / "performance.tsv", sep="\t", index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
