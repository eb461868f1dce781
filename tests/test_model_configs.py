"""The configurations of `model_configs`: their tasks are those of the models, and they run with networks of the same shapes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from kipoi_deepmr.config import Config, load_config
from kipoi_deepmr.model import Targets, select
from kipoi_deepmr.running import check, run
from tests.kipoi_models import write_genome, write_model, write_peaks

FOLDER = Path(__file__).parents[1] / "model_configs"
DEEPSEA = Path(__file__).parents[2] / "shared" / "data" / "deepsea_predictor_names.txt"
LIKE = "from tests.toy_models import {name}\n\n\nclass Net({name}):\n    pass\n"
BPNET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 21, padding=10)
        self.second = nn.Conv1d(8, 8, 3, padding=2, dilation=2)
        self.profile = nn.Conv1d(8, 8, 1)
        self.count = nn.Linear(8, 8)

    def forward(self, x):
        x = torch.relu(self.first(x.transpose(1, 2)))
        x = x + torch.relu(self.second(x))
        counts = torch.exp(self.count(x.mean(2)))[:, None]
        both = torch.softmax(self.profile(x), 2).transpose(1, 2) * counts
        return {name: both[..., 2 * n : 2 * n + 2] for n, name in enumerate(("Oct4", "Sox2", "Nanog", "Klf4"))}
"""
DEEPSTARR = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(4, 6, 7, padding=3), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2))
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(744, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 2))

    def forward(self, x):
        return self.dense(self.features(x[..., 0].transpose(1, 2)))
"""


@dataclass(frozen=True)
class StandIn:
    """A network of the same shapes as a model of the zoo, with random weights."""

    code: str
    length: int
    shape: str
    dataloader: str
    outputs: int
    kwargs: dict

    def write(self, folder: Path, labels: list[str] | str, seed: int) -> Path:
        return write_model(
            folder,
            code=self.code,
            kwargs=self.kwargs,
            labels=labels,
            outputs=self.outputs,
            length=self.length,
            shape=self.shape,
            dataloader=f"{{auto_resize_len: {self.length}, {self.dataloader}}}",
            seed=seed,
        )


NARROW = {"width": 0.01}
_DEEPSEA = "alphabet_axis: 0, dummy_axis: 1, dtype: np.float32"
STAND_INS = {
    "deepsea_predict_hepg2": StandIn(LIKE.format(name="DeepSEALike"), 1000, '"(4, 1, 1000)"', _DEEPSEA, 919, NARROW),
    "deepsea_beluga_hepg2": StandIn(
        LIKE.format(name="BelugaLike"), 2000, '"(4, 1, 2000)"', f"{_DEEPSEA}, alphabet: AGCT", 2002, NARROW
    ),
    "basset": StandIn(
        LIKE.format(name="BassetLike"),
        600,
        '"(4, 600, 1)"',
        "alphabet_axis: 0, dummy_axis: 2, dtype: np.float32",
        164,
        NARROW,
    ),
    "bpnet_oskn": StandIn(BPNET, 1000, '"(1000, 4)"', "dtype: np.float32", 1, {}),
    "deepstarr": StandIn(DEEPSTARR, 249, '"(249, 4, 1)"', "alphabet_axis: 1, dummy_axis: 2, dtype: np.float32", 2, {}),
}
STAND_INS["deepsea_predict_hepg2_foxa1_ezh2"] = STAND_INS["deepsea_predict_hepg2"]


def labels_of(config: Config, outputs: int) -> list[str]:
    """Return labels that hold all tasks of a configuration, twice where it names an occurrence."""
    named = [task for task in (*config.exposures.values(), *config.outcomes.values()) if isinstance(task.task, str)]
    labels = [str(task.task) for task in named] + [str(task.task) for task in named if task.occurrence]
    return labels + [f"other_{number}" for number in range(outputs - len(labels))]


def small(data: dict, folder: Path) -> dict:
    """Cut a configuration down to one sequence and a few positions; its tasks stay."""
    data["sequences"]["per_exposure"] = 1
    data["uncertainty"] = {**data["uncertainty"], **({} if "members" in data["uncertainty"] else {"draws": 2})}
    middle = data.get("mutagenesis", {}).get("positions", [100, 102])[0]
    data["mutagenesis"] = {"positions": [middle, middle + 2], "engine": "delta"}
    data["dataloader"] = {"args": {"fasta_file": str(folder / "genome.fa")}}
    return data


def test_every_configuration_is_tested_here_or_with_its_example():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*STAND_INS, "spliceai"}


@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_a_configuration_says_where_genome_and_peaks_come_from(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    assert "# Genome: " in text and "# Peaks:  " in text
    load_config(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", ["deepsea_predict_hepg2", "deepsea_predict_hepg2_foxa1_ezh2", "deepsea_beluga_hepg2"])
def test_the_tasks_are_outputs_of_deepsea(name):
    if not DEEPSEA.exists():
        pytest.skip(f"the labels of DeepSEA are not at {DEEPSEA}")
    targets = Targets(DEEPSEA.read_text().splitlines())
    assert len(targets) == 919
    selection = select(targets, load_config(FOLDER / f"{name}.yaml"))
    assert [target.label for target in selection.outcomes.values()] == ["HepG2_DNase_None"]
    for factor, target in selection.exposures.items():
        assert target.label.removeprefix("HepG2_").rpartition("_")[0].replace("-", "") == factor
        assert target.occurrence == 1


@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_a_configuration_runs_with_a_network_of_the_same_shapes(name, tmp_path):
    config = load_config(FOLDER / f"{name}.yaml")
    stand_in, data = STAND_INS[name], yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    chromosomes = config.sequences.chromosomes or ["chr1"]
    write_genome(tmp_path / "genome.fa", dict.fromkeys(chromosomes, 3000))
    for exposure in config.exposures.values():
        write_peaks(tmp_path / str(exposure.peaks), [(chromosomes[0], 1400, 1500)])
    members = [member.name for member in config.uncertainty.members or ()] or ["model"]
    for seed, member in enumerate(members):
        folder = stand_in.write(tmp_path / member, write_labels(name, config, stand_in), seed)
        if name == "bpnet_oskn":
            described = yaml.safe_load((folder / "model.yaml").read_text())
            factors = ("Oct4", "Sox2", "Nanog", "Klf4")
            described["schema"]["targets"] = {factor: {"shape": "(1000, 2)", "doc": "counts"} for factor in factors}
            (folder / "model.yaml").write_text(yaml.safe_dump(described))
    data["model"] = {"name": members[0], "source": "dir"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small(data, tmp_path), sort_keys=False))
    report = check(load_config(path), device="cpu")
    assert set(report.exposures) == set(config.exposures)
    assert (report.engine, report.draws) == ("delta", max(len(members), 2))
    effects = run(load_config(path), tmp_path / "out.zarr", device="cpu", progress=False)["effects"].to_dataset()
    known = np.isfinite(effects.exposure_effect.values).sum()
    assert known == len(config.exposures) * effects.sizes["sequence"] * 2 * 3
    assert float(np.nanmax(np.abs(effects.exposure_effect))) > 0


def write_labels(name: str, config: Config, stand_in: StandIn) -> list[str] | str:
    """Return the labels of the stand-in: the model's own where they are at hand."""
    if name in ("deepstarr", "bpnet_oskn"):
        return "null"
    if stand_in.outputs == 919 and DEEPSEA.exists():
        return DEEPSEA.read_text().splitlines()
    return labels_of(config, stand_in.outputs)
