"""Kipoi model directories, peaks and genomes for tests."""

import gzip
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import kipoi
import numpy as np
import pytest
import torch
import yaml

from kipoi_deepmr.config import load_config
from kipoi_deepmr.running import check
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork, find_dropouts

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


def write_project(
    folder: Path, changes: dict | None = None, genome: dict[str, int] | None = None, **model_options: object
) -> Path:
    """Write a model, a genome, peaks of two exposures that share one region, and the YAML file; return its path.

    `changes` replaces keys of the sections; a section that is None is left out.
    """
    if not (folder / "model").exists():
        write_model(folder / "model", **model_options)  # type: ignore[arg-type]
    if not (folder / "genome.fa").exists():
        write_genome(folder / "genome.fa", genome or {"chr1": 1200, "chr2": 700})
    write_peaks(folder / "peaks" / "A.bed", [("chr1", 100, 140), ("chr1", 500, 530), ("chr2", 300, 310)])
    write_peaks(folder / "peaks" / "B.bed.gz", [("chr1", 100, 140), ("chr2", 600, 620)])
    config: dict = {
        "model": {"name": "model", "source": "dir"},
        "dataloader": {"args": {"fasta_file": "genome.fa"}},
        "exposures": {
            "A": {"task": "TF1", "peaks": "peaks/A.bed"},
            "B": {"task": "TF2", "occurrence": 2, "peaks": "peaks/B.bed.gz"},
        },
        "outcomes": {"open": {"task": "DNase"}},
        "sequences": {"per_exposure": None},
        "uncertainty": {"draws": 4},
        "mutagenesis": {"positions": [20, 28], "engine": "delta"},
    }
    for section, keys in (changes or {}).items():
        if keys is None:
            config.pop(section, None)
        else:
            config[section] = {**config.get(section, {}), **keys}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def plain_loop(
    folder: Path,
    sequences: dict[str, str],
    columns: Sequence[int],
    positions: range,
    *,
    draws: int,
    seed: int = 1,
    shared: bool = False,
    dummy_axis: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Load a model with Kipoi and predict mutant by mutant and draw by draw, with nothing but the masks of the package.

    `sequences` are the bases that the model reads, under the names that decide the draws. Returns mutant minus reference,
    shape (sequence, position, allele, draw, column), NaN where there is no mutant, and the references, (sequence, draw,
    column).
    """
    network = kipoi.get_model(str(folder), source="dir").model.eval()

    def predict(thinned, bases):
        one_hot = np.array([[{"A": 0, "C": 1, "G": 2, "T": 3}.get(base, -1) == a for base in bases] for a in range(4)])
        one_hot = np.where([base == "N" for base in bases], 0.25, one_hot).astype(np.float32)
        batch = torch.from_numpy(one_hot[None, :, None] if dummy_axis else one_hot[None])
        with torch.no_grad():
            return thinned(batch)[0, list(columns)].double().numpy()

    length = len(next(iter(sequences.values())))
    example = torch.zeros((1, 4, 1, length) if dummy_axis else (1, 4, length))
    masks = MCDropout(find_dropouts(network, example), seed=seed, device=torch.device("cpu"), shared=shared)
    effects = np.full((len(sequences), len(positions), 4, draws, len(columns)), np.nan)
    references = np.empty((len(sequences), draws, len(columns)))
    for s, (name, bases) in enumerate(sequences.items()):
        for n in range(draws):
            thinned = ThinnedNetwork(network, masks.masks([name], n).rows(None))
            references[s, n] = predict(thinned, bases)
            for p, position in enumerate(positions):
                for a, base in enumerate("ACGT"):
                    if bases[position] not in (base, "N"):
                        mutant = bases[:position] + base + bases[position + 1 :]
                        effects[s, p, a, n] = predict(thinned, mutant) - references[s, n]
    return effects, references


CUSTOM = (
    CONVOLUTION
    + """

import numpy as np
from pathlib import Path
from kipoi.model import BaseModel


class Model(BaseModel):
    def __init__(self, weights):
        self.net = Net()
        self.net.load_state_dict(torch.load(weights))

    def predict_on_batch(self, x):
        {body}
"""
)
HEAD = "defined_as: model.Model\nargs: {weights: weights.pt}\n"
LOADER = '''\
import numpy as np
from kipoi.data import Dataset
from kipoiseq.dataloaders import SeqIntervalDl, StringSeqIntervalDl


class Loader(Dataset):
    """A dataloader of its own."""

    def __init__(self, {intervals}, fasta_file, offset=0):
        self.sequences = {loader}
        self.offset = offset

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, index):
        item = self.sequences[index]
        seq, ranges = item["inputs"], item["metadata"]["ranges"]
        return {{"inputs": {inputs}, "metadata": item["metadata"]}}
'''
ONE_HOT = 'SeqIntervalDl({intervals}, fasta_file, alphabet_axis=0, dtype="np.float32")'
DATALOADER_YAML = """\
type: Dataset
defined_as: dataloader.Loader
args:
  intervals_file: {doc: a}
  fasta_file: {doc: b}
  offset: {doc: c, optional: true}
info: {authors: [{name: me}], doc: d}
output_schema:
  inputs: {name: seq, shape: "(4, 60)", doc: DNA}
"""


def edit_yaml(folder: Path, head: str = "", *changes: tuple[str, str]) -> Path:
    """Replace the head of a model.yaml, and words in it."""
    text = (folder / "model.yaml").read_text()
    if head:
        text = head + text[text.index("default_dataloader") :]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "model.yaml").write_text(text)
    return folder


def own_loader(folder: Path, inputs: str, loader: str = ONE_HOT, intervals: str = "intervals_file") -> None:
    """Give a model a dataloader of its own, which makes `inputs` of the sequence `seq` and its `ranges`."""
    text = (folder / "model.yaml").read_text()
    start, end = text.index("default_dataloader"), text.index("info:")
    (folder / "model.yaml").write_text(text[:start] + "default_dataloader: .\n" + text[end:])
    code = LOADER.format(loader=loader.format(intervals=intervals), inputs=inputs, intervals=intervals)
    (folder / "dataloader.py").write_text(code)
    (folder / "dataloader.yaml").write_text(DATALOADER_YAML.replace("intervals_file", intervals))


PROFILE = CONVOLUTION.replace(
    "def forward(self, x):\n        return self.last(self.second(self.first(x)))",
    "def forward(self, x):\n"
    "        y = self.last(self.second(self.first(x)))\n"
    "        steps = torch.arange(1.0, 6.0)\n"
    "        return {returned}",
)
TARGETS = """\
  targets:
    profile: {{shape: "{shape}", doc: d{labels}}}
    single: {{shape: "(1,)", doc: d}}
"""


def profile_tasks(**reduce) -> dict:
    """Return exposures and outcomes that are tracks of that profile."""
    peaks = {"A": "peaks/A.bed", "B": "peaks/B.bed.gz"}
    return {
        "exposures": {
            name: {"task": f"profile/{number}", "peaks": peaks[name], **reduce} for name, number in (("A", 0), ("B", 2))
        },
        "outcomes": {"open": {"task": "profile/3", **reduce}},
    }


def profile(folder: Path, returned: str, shape: str = "(5, 4)", labels: str = ", column_labels: [0, 1, 2, 3]") -> Path:
    """Write a model with a profile along the sequence and a single number as outputs."""
    write_model(folder / "model", code=PROFILE.format(returned=returned))
    text = (folder / "model" / "model.yaml").read_text()
    targets = TARGETS.format(shape=shape, labels=labels)
    (folder / "model" / "model.yaml").write_text(text[: text.index("  targets:")] + targets)
    return folder


NO_DROPOUT = CONVOLUTION.replace("nn.Dropout(p)", "nn.Identity()")
MEMBERS_INSIDE = (
    NO_DROPOUT
    + """

from kipoi.model import BaseModel


class Several(nn.Module):
    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x):
        return torch.stack([network(x) for network in self.networks]).mean(0)


class Model(BaseModel):
    def __init__(self, shift=0.0):
        torch.manual_seed(3)
        self.model = Several([Net(), Net(), Net()])
        self.members = list(self.model.networks)
        self.shift = shift

    def predict_on_batch(self, x):
        return self.model(torch.from_numpy(x)).detach().numpy() + self.shift
"""
)


def ensemble(folder: Path, names=("one", "two", "three"), *, uncertainty: dict | None = None, **options) -> Path:
    """Write models with other weights each, and a configuration; `model` is the first of them."""
    folder.mkdir()
    for seed, name in enumerate(names):
        write_model(folder / name, seed=seed, **options)
    shutil.copytree(folder / names[0], folder / "model")
    section = {"method": "ensemble", "draws": 1, "members": list(names), **(uncertainty or {})}
    return write_project(folder, {"uncertainty": section})


def inside(folder: Path, shift: float = 0.0, **changes) -> Path:
    """Write one model with three members inside."""
    folder.mkdir()
    write_model(folder / "model", code=MEMBERS_INSIDE)
    text = (folder / "model" / "model.yaml").read_text()
    rest = text[text.index("default_dataloader") :]
    (folder / "model" / "model.yaml").write_text(f"defined_as: model.Model\nargs: {{shift: {shift}}}\n{rest}")
    return write_project(folder, {"uncertainty": {"method": "ensemble", "draws": 1}, **changes})


def refused(config: Path, kind: type[Exception]) -> str:
    """Return what `check` says when it refuses a configuration."""
    with pytest.raises(kind) as caught:
        check(load_config(config), device="cpu")
    return str(caught.value)
