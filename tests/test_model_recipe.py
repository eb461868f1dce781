"""``kipoi deepmr init --from-torch``: a torch network becomes a Kipoi model directory that runs."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kipoi_deepmr import cli
from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model import load_model
from kipoi_deepmr.model.probe import InputShape
from kipoi_deepmr.model.recipe import write_recipe
from kipoi_deepmr.model.targets import Profile
from kipoi_deepmr.running import check, run
from tests.kipoi_models import CONVOLUTION, write_project

PARTS = """
class LastAxis(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return {"b": self.linear(x), "a": x.sum((1, 2))}


class Dummy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 2, (1, 60))

    def forward(self, x):
        return self.conv(x).flatten(1)


class Flat(nn.Module):
    def __init__(self, length=60, outputs=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4 * length, outputs))

    def forward(self, x):
        return self.layers(x)


class OneChannel(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, (4, 7)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)


class Double(OneChannel):
    def __init__(self):
        super().__init__()
        self.double()


class Tracks(nn.Module):
    def __init__(self, tracks=100, kernel=7, pooled=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, tracks, kernel), nn.AdaptiveAvgPool1d(5) if pooled else nn.Identity())

    def forward(self, x):
        return self.layers(x)


ready = Net()
numbers = [1, 2]


def fails():
    raise ValueError("no luck")
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A module of networks in the working directory."""
    (tmp_path / "my_networks.py").write_text(CONVOLUTION + PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_a_class_of_ones_own_becomes_a_model_that_runs(networks):
    torch.manual_seed(4)
    folder = networks / "p" / "model"
    argv = ["init", "--from-torch", "my_networks:Net", "--length", "60", "--kwargs", "{outputs: 4, p: 0.2}"]
    argv += ["--labels", "TF1", "TF2", "TF3", "DNase", "-o", str(folder)]
    assert cli.main(argv) == 0
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["model.py", "model.yaml", "weights.pt"]
    model = load_model(str(folder), "dir")
    assert [target.name for target in model.targets()] == ["TF1", "TF2", "TF3", "DNase"]
    config = write_project(networks / "p")
    config.write_text(config.read_text().replace("task: TF2", "task: TF3").replace("    occurrence: 2\n", ""))
    report = check(load_config(config), device="cpu")
    assert (report.engine, len(report.dropout)) == ("delta", 2)
    assert "p=0.2" in report.dropout[0]
    run(load_config(config), networks / "out.zarr", device="cpu", progress=False)


def test_the_weights_are_those_of_the_object_or_of_a_file(networks):
    import my_networks

    one = write_recipe("my_networks:ready", networks / "one", length=60)
    assert all(
        torch.equal(tensor, my_networks.ready.state_dict()[name]) for name, tensor in one.module.state_dict().items()
    )
    torch.manual_seed(11)
    other = my_networks.Net()
    torch.save(other.state_dict(), networks / "other.pt")
    two = write_recipe("my_networks:Net", networks / "two", length=60, weights=networks / "other.pt")
    x = np.eye(4, dtype="float32")[np.random.default_rng(0).integers(0, 4, (3, 60))].transpose(0, 2, 1).copy()
    np.testing.assert_allclose(two.predict(x), other.eval()(torch.from_numpy(x)).detach(), rtol=1e-6)
    assert one.weights_digest() != two.weights_digest()


def test_axes_and_outputs_are_found_by_trying(networks):
    last = write_recipe("my_networks:LastAxis", networks / "last", length=60)
    schema = yaml.safe_load((last.folder / "model.yaml").read_text())["schema"]
    assert schema["inputs"]["shape"] == "(60, 4)"
    assert [target.name for target in last.targets()] == ["a", "b/0", "b/1", "b/2", "b"]
    assert [target.profile is not None for target in last.targets()] == [False, True, True, True, True]
    dummy = write_recipe("my_networks:Dummy", networks / "dummy", length=60, alphabet="AGCT")
    described = yaml.safe_load((dummy.folder / "model.yaml").read_text())
    assert described["schema"]["inputs"]["shape"] == "(4, 1, 60)"
    assert described["default_dataloader"]["default_args"]["alphabet"] == "AGCT"


def test_a_network_that_takes_several_shapes_is_asked_about(networks, capsys):
    with pytest.raises(
        ConfigError, match=r"takes one-hot sequences of 60 bp in 8 shapes \(\(4, 60\), \(60, 4\), .*--shape"
    ):
        write_recipe("my_networks:Flat", networks / "m", length=60)
    assert not (networks / "m").exists()
    argv = [
        "init",
        "--from-torch",
        "my_networks:Flat",
        "--length",
        "60",
        "-o",
        str(networks / "m"),
        "--shape",
        "60",
        "4",
    ]
    assert cli.main(argv) == 0
    assert "one-hot sequences of the shape (60, 4)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match="--shape 5 60: needed are 4 bases and 60 positions"):
        write_recipe("my_networks:Flat", networks / "n", length=60, shape=(5, 60))


@pytest.mark.parametrize("name", ["OneChannel", "Double"])
def test_a_leading_dummy_axis_and_other_numbers_than_float32(networks, name):
    folder = networks / "p" / "model"
    write_recipe(f"my_networks:{name}", folder, length=60, labels=["a", "b"])
    described = yaml.safe_load((folder / "model.yaml").read_text())
    assert described["schema"]["inputs"]["shape"] == "(1, 4, 60)"
    changes = {
        "exposures": {"A": {"task": "a", "peaks": "peaks/A.bed"}, "B": None},
        "outcomes": {"open": {"task": "b"}},
        "uncertainty": {"method": "ensemble", "draws": 1, "members": ["model", "two"]},
    }
    write_recipe(f"my_networks:{name}", networks / "p" / "two", length=60, labels=["a", "b"])
    path = write_project(networks / "p", changes)
    config = yaml.safe_load(path.read_text())
    config["exposures"].pop("B")
    path.write_text(yaml.safe_dump(config))
    assert "(batch, 1, 4, 60)" in check(load_config(path), device="cpu").layout


@pytest.mark.parametrize("order", ["AP", "PA", "AP1", "A1P", "PA1", "P1A", "1AP", "1PA"])
def test_the_written_axes_are_those_of_kipoiseq(order):
    from kipoiseq.transforms import ReorderedOneHot

    shape = InputShape(order, 60)
    sequence = "".join(np.random.default_rng(0).choice(list("ACGT"), 60))
    given = ReorderedOneHot(**shape.axes())(sequence)
    assert given.shape == shape.sizes == shape.one_hot(torch.float32).shape[1:]
    bases = given.squeeze() if order.replace("1", "") == "PA" else given.squeeze().T
    np.testing.assert_array_equal(bases.argmax(1), ["ACGT".index(base) for base in sequence])


def test_positions_of_a_profile_are_those_that_follow_the_length(networks):
    same = write_recipe("my_networks:Tracks", networks / "same", length=60, kwargs={"kernel": 1})
    other = write_recipe("my_networks:Tracks", networks / "other", length=60, kwargs={"tracks": 2})
    for model, tracks, positions in ((same, 100, 60), (other, 2, 54)):
        assert len(model.targets()) == tracks + 1
        assert model.targets()[0].profile == Profile(positions, tracks)
        assert model.targets()[0].name == "output/0"
    with pytest.raises(ModelError, match=r"which is which.*--labels"):
        write_recipe("my_networks:Tracks", networks / "m", length=60, kwargs={"tracks": 3, "pooled": True})
    named = write_recipe(
        "my_networks:Tracks", networks / "m", length=60, kwargs={"tracks": 3, "pooled": True}, labels=["a", "b", "c"]
    )
    assert named.targets()[0].profile == Profile(5, 3)


SIBLING = """
from torch import nn
import widths
from {package}parts import activation


class Sib(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, widths.WIDTH, 7), activation(), nn.Flatten(), nn.Linear(54 * 8, 2))

    def forward(self, x):
        return self.layers(x)
"""


def test_files_of_ones_own_that_it_imports_are_copied(networks, monkeypatch):
    package = networks / "pkg_of_nets" / "nets"
    package.mkdir(parents=True)
    parts = "from torch import nn\n\n\ndef activation():\n    return nn.ReLU()\n"
    for path, text in (
        (networks / "parts.py", parts),
        (networks / "widths.py", "WIDTH = 8\n"),
        (networks / "sibling.py", SIBLING.format(package="")),
        (package.parent / "__init__.py", ""),
        (package / "__init__.py", ""),
        (package / "parts.py", parts),
        (package / "core.py", SIBLING.format(package=".")),
    ):
        path.write_text(text)
    (networks / "elsewhere").mkdir()
    before = list(sys.path)
    for target in ("sibling:Sib", "pkg_of_nets.nets.core:Sib"):
        write_recipe(target, networks / target.partition(":")[0], length=60)
        assert sys.path == before
    for name in ("sibling", "parts", "widths", "pkg_of_nets", "pkg_of_nets.nets", "pkg_of_nets.nets.parts"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != networks.resolve()]
    )
    monkeypatch.chdir(networks / "elsewhere")
    assert len(load_model(str(networks / "sibling"), "dir").targets()) == 2
    assert len(load_model(str(networks / "pkg_of_nets.nets.core"), "dir").targets()) == 2


def test_a_network_that_needs_more_than_its_files_is_not_written(networks):
    (networks / "hidden_part.py").write_text("WIDTH = 8\n")
    code = SIBLING.format(package="").replace(
        "import widths", "import importlib\n\nwidths = importlib.import_module('hidden_part')"
    )
    (networks / "sneaky.py").write_text(code.replace("from parts import activation", "activation = nn.ReLU"))
    with pytest.raises(ModelError, match="hidden_part"):
        write_recipe("sneaky:Sib", networks / "m", length=60)
    assert not (networks / "m").exists()


@pytest.mark.parametrize(
    ("target", "options", "error", "said"),
    [
        ("my_networks", {}, ConfigError, "write module:object"),
        ("no_such_module:Net", {}, ConfigError, "no_such_module cannot be imported"),
        ("my_networks:Nett", {}, ConfigError, "my_networks has no Nett"),
        ("my_networks:Net", {"kwargs": {"width": 3}}, ConfigError, r"Net\(width=3\) fails"),
        ("my_networks:fails", {}, ConfigError, "no luck"),
        ("my_networks:numbers", {}, ConfigError, "fails"),
        ("my_networks:ready", {"kwargs": {"p": 1}}, ConfigError, "takes no --kwargs"),
        ("my_networks:Net", {"length": 3}, ModelError, "takes one-hot sequences of 3 bp in no shape"),
        ("my_networks:Net", {"weights": Path("absent.pt")}, ConfigError, "there is no such file"),
        ("my_networks:Net", {"weights": Path("wrong.pt")}, ModelError, "are not those of this network"),
        ("my_networks:Net", {"alphabet": "ACGU"}, ConfigError, "alphabet 'ACGU'"),
        ("my_networks:Net", {"labels": ["a", "b"]}, ConfigError, "2 labels for the outputs"),
    ],
)
def test_what_cannot_be_written_is_explained(networks, target, options, error, said):
    torch.save(torch.nn.Linear(2, 2).state_dict(), networks / "wrong.pt")
    with pytest.raises(error, match=said):
        write_recipe(target, networks / "m", **{"length": 60, **options})


def test_files_that_are_there_are_kept(networks):
    write_recipe("my_networks:Net", networks / "m", length=60)
    with pytest.raises(ConfigError, match=r"has model.yaml, model.py, weights.pt already"):
        write_recipe("my_networks:Net", networks / "m", length=60)
    write_recipe("my_networks:Net", networks / "m", length=60, overwrite=True)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["init"], "name either a MODEL"),
        (["init", "m", "--from-torch", "a:b"], "name either a MODEL"),
        (["init", "--from-torch", "a:b", "-o", "m"], "needs --length"),
        (["init", "--from-torch", "a:b", "--length", "60"], "needs --length"),
        (["init", "--from-torch", "a:b", "--length", "60", "-o", "m", "--kwargs", "[1]"], "write arguments by name"),
    ],
)
def test_wrong_arguments_are_explained(networks, argv, said, capsys):
    assert cli.main(argv) != 0
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(importlib.util.find_spec("bpnetlite") is None, reason="bpnet-lite is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_networks_of_bpnet_lite_run_as_an_ensemble_with_the_local_engine(tmp_path):
    project = tmp_path / "p"
    project.mkdir()
    for seed in range(2):
        torch.manual_seed(seed)
        kwargs = {"n_filters": 8, "n_layers": 3, "n_outputs": 2, "n_control_tracks": 0, "verbose": False}
        model = write_recipe("bpnetlite:BPNet", project / f"m{seed}", length=400, kwargs=kwargs)
    assert [target.name for target in model.targets()] == ["output_0/0", "output_0/1", "output_0", "output_1"]
    changes = {
        "model": {"name": "m0", "source": "dir"},
        "exposures": {"A": {"task": "output_0", "reduce": "logsumexp", "peaks": "peaks/A.bed"}, "B": None},
        "outcomes": {"open": {"task": "output_1"}},
        "uncertainty": {"method": "ensemble", "draws": 1, "members": ["m0", "m1"]},
        "mutagenesis": {"positions": [190, 194], "engine": "delta"},
    }
    path = write_project(project, changes, genome={"chr1": 2000, "chr2": 1200}, seed=0)
    config = yaml.safe_load(path.read_text())
    config["exposures"].pop("B")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    report = check(load_config(path), device="cpu")
    assert report.engine == "delta" and report.coverage > 0.5
    effects = run(load_config(path), tmp_path / "out.zarr", device="cpu", progress=False)["effects"]
    assert float(np.nanmax(np.abs(effects.exposure_effect))) > 0
