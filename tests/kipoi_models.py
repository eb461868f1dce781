"""Kipoi model directories, peaks and genomes for tests."""

import gzip
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

MODEL_YAML = """\
defined_as: kipoi.model.PyTorchModel
args:
  module_file: model.py
  module_class: Net
  module_kwargs: {kwargs}
  weights: weights.pt
default_dataloader:
  defined_as: kipoiseq.dataloaders.SeqIntervalDl
  default_args: {dataloader}
info:
  authors: [{{name: kipoi_deepmr}}]
  doc: a model for tests
dependencies: {{pip: []}}
schema:
  inputs:
    name: seq
    shape: {shape}
    special_type: DNASeq
    doc: one-hot DNA
  targets:
    name: task
    shape: ({outputs},)
    doc: outputs
    column_labels: {labels}
{more}
"""

CONVOLUTION = '''\
"""A small convolutional network with dropout after its first layer."""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, length=60, outputs=4, p=0.3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(4, 8, 7, padding=3), nn.ReLU(), nn.MaxPool1d(4))
        self.second = nn.Sequential(nn.Dropout(p), nn.Conv1d(8, 8, 5, padding=2), nn.ReLU(), nn.Flatten())
        self.last = nn.Sequential(nn.Dropout(p), nn.Linear(8 * (length // 4), outputs), nn.Sigmoid())

    def forward(self, x):
        return self.last(self.second(self.first(x)))
'''


def write_model(
    folder: Path,
    *,
    code: str = CONVOLUTION,
    kwargs: dict | None = None,
    labels: Sequence[str] | str = ("TF1", "TF2", "TF2", "DNase"),
    outputs: int = 4,
    length: int = 60,
    shape: str | None = None,
    dataloader: str | None = None,
    seed: int = 0,
    more: str = "",
) -> Path:
    """Write a model directory with random weights that Kipoi loads with source ``dir``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code)
    namespace: dict = {"__name__": "model_under_test"}
    exec(compile(code, "model.py", "exec"), namespace)
    torch.manual_seed(seed)
    kwargs = kwargs or {}
    network = namespace["Net"](**kwargs)
    torch.save(network.state_dict(), folder / "weights.pt")
    if not isinstance(labels, str):
        (folder / "labels.txt").write_text("\n".join(labels) + "\n")
        labels = "labels.txt"
    described = MODEL_YAML.format(
        kwargs=kwargs,
        dataloader=dataloader or f"{{auto_resize_len: {length}, alphabet_axis: 0, dtype: np.float32}}",
        shape=shape or f"(4, {length})",
        outputs=outputs,
        labels=labels,
        more=textwrap.dedent(more),
    )
    (folder / "model.yaml").write_text(described)
    return folder


def write_genome(path: Path, sizes: dict[str, int], seed: int = 0) -> dict[str, str]:
    """Write a FASTA file of random contigs and return their sequences."""
    random = np.random.default_rng(seed)
    contigs = {name: "".join(random.choice(list("ACGT"), size)) for name, size in sizes.items()}
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    return contigs


def write_peaks(path: Path, rows: Sequence[tuple[str, int, int]]) -> Path:
    """Write a BED file, gzipped when it is called so."""
    text = "".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text)
    return path
