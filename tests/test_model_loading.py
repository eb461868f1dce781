"""Kipoi models loaded from directories: what they may look like, and what is said when they cannot be loaded."""

import importlib.util
import logging
import os
import sys
import textwrap
from pathlib import Path

import kipoi
import numpy as np
import pytest
import torch
from kipoi.sources import LocalSource
from torch import nn

from kipoi_deepmr.config import Config, parse_config
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model import load_model
from kipoi_deepmr.model.function import PredictFunction
from tests.kipoi_models import CONVOLUTION, DATALOADER_YAML, write_model

LENGTH = 60
CUSTOM = """\
import numpy as np
import torch
from kipoi.model import BaseModel
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(240, 4))

    def forward(self, x):
        return self.last(x)


class MyModel(BaseModel):
    def __init__(self, scale=1.0):
        torch.manual_seed(0)
        self.net = Net()
        self.scale = scale

    def predict_on_batch(self, x):
        {body}
"""
DATALOADER = '''\
import numpy as np
from kipoi.data import Dataset
{more}


class Loader(Dataset):
    """A dataloader of its own."""

    def __init__(self, intervals_file, fasta_file, offset={offset}):
        self.offset = offset

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return {{"inputs": np.full((4, 60), self.offset, "float32"), "metadata": {{}}}}
'''


def edit(folder: Path, *changes: tuple[str, str]) -> Path:
    text = (folder / "model.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "model.yaml").write_text(text)
    return folder


def custom(folder: Path, body: str = "return self.net(torch.from_numpy(x)).detach().numpy()", **kwargs) -> Path:
    write_model(folder, code=CUSTOM.format(body=body), **kwargs)
    text = (folder / "model.yaml").read_text()
    start, end = text.index("defined_as"), text.index("default_dataloader")
    (folder / "model.yaml").write_text("defined_as: model.MyModel\nargs: {scale: 1.0}\n" + text[end:])
    assert start == 0
    return folder


def own_dataloader(folder: Path, offset: int, more: str = "") -> Path:
    write_model(folder)
    text = (folder / "model.yaml").read_text()
    start, end = text.index("default_dataloader"), text.index("info:")
    (folder / "model.yaml").write_text(text[:start] + "default_dataloader: .\n" + text[end:])
    (folder / "dataloader.py").write_text(DATALOADER.format(offset=offset, more=more))
    (folder / "dataloader.yaml").write_text(DATALOADER_YAML)
    return folder


def one_hot(rows: int = 3, dtype=np.float32) -> np.ndarray:
    codes = np.random.default_rng(0).integers(0, 4, (rows, LENGTH))
    return np.ascontiguousarray(np.eye(4, dtype=dtype)[codes].transpose(0, 2, 1))


def refusal(folder: Path, source: str = "dir") -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), source)
    return str(caught.value)


def hear(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a command line that ran in this process did: ours stops propagation, Kipoi's silences all loggers."""
    caplog.set_level(logging.WARNING, logger="kipoi_deepmr")
    monkeypatch.setattr(logging.getLogger("kipoi_deepmr"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("kipoi_deepmr.model.kipoi_model"), "disabled", False)


# What is loaded


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [("  module_file: model.py\n  module_class: Net\n", "  module_class: model.Net\n")],
        [("  module_class: Net\n  module_kwargs: {}\n", "  module_obj: net\n")],
        [("  module_file: model.py\n  module_class: Net\n  module_kwargs: {}\n", "  module_obj: model.net\n")],
        [("defined_as: kipoi.model.PyTorchModel", "type: pytorch")],
    ],
    ids=["class and file", "class", "object and file", "object", "old"],
)
def test_a_pytorch_model_is_loaded_in_every_way_kipoi_knows(tmp_path, changes):
    folder = edit(write_model(tmp_path / "m", code=CONVOLUTION + "\n\nnet = Net()\n"), *changes)
    model = load_model("m", "dir", tmp_path)
    assert model.folder.samefile(folder)
    assert model.module.state_dict().keys() == torch.load(folder / "weights.pt").keys()
    expected = model.module(torch.from_numpy(one_hot())).detach().numpy()
    np.testing.assert_allclose(model.predict(one_hot()), expected, rtol=1e-6)
    assert model.predict(one_hot()).dtype == np.float64


def test_the_path_is_counted_from_the_given_folder_and_the_home_folder_is_expanded(tmp_path, monkeypatch):
    write_model(tmp_path / "home" / "m")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_model("~/m", "dir").labels()
    assert load_model("home/m", "dir", tmp_path).labels()
    monkeypatch.chdir(tmp_path / "home")
    assert load_model("m", "dir").labels()


def test_a_custom_model_that_carries_a_network_is_loaded(tmp_path):
    model = load_model(str(custom(tmp_path / "m")), "dir")
    assert type(model.module).__name__ == "Net"
    assert model.predict(one_hot()).shape == (3, 4)


def test_a_custom_model_of_the_old_kind_is_loaded(tmp_path):
    folder = custom(tmp_path / "m")
    edit(
        folder,
        ("defined_as: model.MyModel\nargs: {scale: 1.0}", "type: custom\nargs: {file: model.py, object: MyModel}"),
    )
    assert load_model(str(folder), "dir").predict(one_hot()).shape == (3, 4)


@pytest.mark.parametrize(
    "body",
    [
        "return self.net(torch.as_tensor(x, dtype=torch.float32))",
        "self.net.train(); self.net.eval(); return self.net(torch.from_numpy(x)).detach().numpy()",
        "return list(self.net(torch.from_numpy(x)).detach().numpy().T)",
    ],
    ids=["tensor with gradient", "numpy", "a list of columns"],
)
def test_a_custom_model_may_return_tensors_arrays_or_lists(tmp_path, body):
    model = load_model(str(custom(tmp_path / "m", body)), "dir")
    model.module.train()
    expected = model.module.eval()(torch.from_numpy(one_hot())).detach().numpy()
    np.testing.assert_allclose(model.predict(one_hot()), expected, rtol=1e-6)


def test_a_model_that_stayed_in_training_mode_predicts_without_chance_and_stays_so(tmp_path):
    model = load_model(str(custom(tmp_path / "m")), "dir")
    model.module.train()
    np.testing.assert_array_equal(model.predict(one_hot()), model.predict(one_hot()))
    assert all(part.training for part in model.module.modules())


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("return self.net(torch.from_numpy(x['seq'])).detach().numpy()", {"seq": one_hot(), "gc": np.zeros(3)}),
        ("return self.net(torch.from_numpy(x['seq'])).detach().numpy()", {"gc": np.zeros((3, 1)), "seq": one_hot()}),
        ("return self.net(torch.from_numpy(x[1])).detach().numpy()", [np.zeros((3, 2)), one_hot()]),
        ("return self.net(torch.from_numpy(x[0])).detach().numpy()", [one_hot()]),
    ],
)
def test_rows_are_counted_in_lists_and_dicts_of_inputs(tmp_path, body, inputs):
    assert load_model(str(custom(tmp_path / "m", body)), "dir").predict(inputs).shape == (3, 4)


def test_a_dataloader_in_double_precision_serves_a_network_in_single(tmp_path):
    model = load_model(str(write_model(tmp_path / "m")), "dir")
    np.testing.assert_array_equal(model.predict(one_hot(dtype=np.float64)), model.predict(one_hot()))
    with pytest.raises(ModelError, match=r"predict_on_batch failed.*\(int64 \(3, 4, 60\)\).*dtype: np.float32"):
        model.predict(one_hot(dtype=np.int64))


def test_a_model_that_returns_fewer_rows_is_an_error(tmp_path):
    model = load_model(str(custom(tmp_path / "m", "return self.net(torch.from_numpy(x[:2])).detach().numpy()")), "dir")
    with pytest.raises(ModelError, match=r"shape \(2, 4\) for a batch of 3"):
        model.predict(one_hot())


# Labels


def test_labels_come_from_the_label_file(tmp_path):
    model = load_model(str(write_model(tmp_path / "m")), "dir")
    assert model.labels() == ["TF1", "TF2", "TF2", "DNase"]
    assert [target.name for target in model.targets()] == ["TF1", "TF2#1", "TF2#2", "DNase"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[a, b, c, d]", ["a", "b", "c", "d"]),
        ("null", None),
        ("[]", None),
        ("[a, b]", None),
        ("[a, b, c, d, e]", None),
        ("absent.txt", None),
        (["a", "b", "c", "d", "", ""], ["a", "b", "c", "d"]),
        (["a", "", "c", "d"], ["a", "output_1", "c", "d"]),
        (["a b", "1", "c/d", "e"], ["a b", "1", "c/d", "e"]),
    ],
)
def test_outputs_without_a_label_each_are_numbered(tmp_path, labels, expected, capfd):
    model = load_model(str(write_model(tmp_path / "m", labels=labels)), "dir")
    names = [target.name for target in model.targets()]
    assert names == (expected or [f"output_{index}" for index in range(4)])
    assert capfd.readouterr().out == ""  # Kipoi prints there; `tasks --json` must stay JSON


def test_a_wrong_number_of_labels_is_a_warning(tmp_path, caplog, monkeypatch):
    hear(caplog, monkeypatch)
    load_model(str(write_model(tmp_path / "m", labels="[a, b]")), "dir").targets()
    assert "gives 2 labels for 4 outputs: its outputs are called output_0 to output_3" in caplog.text


@pytest.mark.parametrize(("labels", "expected"), [("null", "task"), ("absent.txt", "task"), ("[Pol2]", "Pol2")])
def test_a_single_output_without_label_has_the_name_of_its_array(tmp_path, labels, expected):
    folder = write_model(tmp_path / "m", kwargs={"outputs": 1}, outputs=1, labels=labels)
    assert [target.name for target in load_model(str(folder), "dir").targets()] == [expected]


TRACKS = ["task/0", "task/1", "task/2", "task/3", "task"]


@pytest.mark.parametrize(
    ("shape", "labels", "axis", "names"),
    [
        ("(60, 4)", "null", 2, TRACKS),
        ("(4, 60)", "null", 1, TRACKS),
        ("(10, 4)", "[a, b, c, d]", 2, [*"abcd", "task"]),
        ("(None, 4)", "null", 2, TRACKS),
        ("(2, 10)", "[a, b, c, d, e, f, g, h, i, j]", 2, [*"abcdefghij", "task"]),
        ("(60, 1)", "null", 2, ["task"]),
        ("(100, 60)", "null", 1, [*(f"task/{number}" for number in range(100)), "task"]),
    ],
)
def test_a_profile_has_a_task_for_each_track(tmp_path, shape, labels, axis, names):
    folder = edit(write_model(tmp_path / "m", labels=labels), ("shape: (4,)", f'shape: "{shape}"'))
    model = load_model(str(folder), "dir")
    assert [target.name for target in model.targets()] == names
    assert all(target.profile for target in model.targets())
    assert model.outputs().track_axes == (axis,)


@pytest.mark.parametrize("shape", ["(10, 4)", "(5, 12)", "(1, 4)", "(10, 10)", "(60, 60)"])
def test_positions_and_tracks_that_cannot_be_told_apart_are_asked_for(tmp_path, shape):
    folder = edit(write_model(tmp_path / "m", labels="null"), ("shape: (4,)", f'shape: "{shape}"'))
    with pytest.raises(ModelError, match=r"positions and tracks, but which is which\?.*column_labels"):
        load_model(str(folder), "dir").targets()


@pytest.mark.parametrize("shape", ["(None, None)", "(3, 10, 4)"])
def test_an_output_whose_tracks_cannot_be_told_is_an_error(tmp_path, shape):
    folder = edit(write_model(tmp_path / "m", labels="null"), ("shape: (4,)", f'shape: "{shape}"'))
    with pytest.raises(ModelError, match=r"or a profile, \(positions, tracks\)"):
        load_model(str(folder), "dir").targets()


SEVERAL = """\
  targets:
    z: {shape: "(2,)", doc: d, column_labels: [p, q]}
    a: {shape: "(1,)", doc: d}
    m: {shape: "(1,)", doc: d, column_labels: [r]}
"""


def with_targets(folder: Path, targets: str, returned: str) -> Path:
    body = f"y = self.net(torch.from_numpy(x)).detach().numpy(); return {returned}"
    text = (custom(folder, body) / "model.yaml").read_text()
    (folder / "model.yaml").write_text(text[: text.index("  targets:")] + targets)
    return folder


@pytest.mark.parametrize(
    "returned",
    ["dict(z=y[:, :2], a=y[:, 2], m=y[:, 3:])", "dict(m=y[:, 3:], a=y[:, 2], z=y[:, :2])"],
)
def test_a_dict_of_outputs_keeps_its_labels_in_any_order(tmp_path, returned):
    model = load_model(str(with_targets(tmp_path / "m", SEVERAL, returned)), "dir")
    assert [target.name for target in model.targets()] == ["a", "r", "z/p", "z/q"]
    network = model.module.eval()(torch.from_numpy(one_hot())).detach().numpy()
    np.testing.assert_allclose(model.predict(one_hot()), network[:, [2, 3, 0, 1]], rtol=1e-6)


def test_a_list_of_outputs_is_labelled_in_order(tmp_path):
    schema = '  targets:\n  - {name: z, shape: "(2,)", doc: d, column_labels: [p, q]}\n'
    schema += '  - {name: a, shape: "(2,)", doc: d}\n'
    model = load_model(str(with_targets(tmp_path / "m", schema, "[y[:, :2], y[:, 2:]]")), "dir")
    assert [target.name for target in model.targets()] == ["z/p", "z/q", "a/0", "a/1"]
    full = schema.replace('"(2,)", doc: d}', '"(2,)", doc: d, column_labels: [p, s]}')
    model = load_model(str(with_targets(tmp_path / "n", full, "[y[:, :2], y[:, 2:]]")), "dir")
    assert [target.name for target in model.targets()] == ["z/p", "z/q", "a/p", "a/s"]
    assert model.predict(one_hot()).shape == (3, 4)


@pytest.mark.parametrize("returned", ["dict(z=y[:, :2], b=y[:, 2], m=y[:, 3])", "[y[:, :2], y[:, 2], y[:, 3]]"])
def test_outputs_that_the_schema_does_not_name_are_an_error(tmp_path, returned):
    model = load_model(str(with_targets(tmp_path / "m", SEVERAL, returned)), "dir")
    with pytest.raises(ModelError, match=r"its schema describes \['a', 'm', 'z'\]: its outputs cannot be told apart"):
        model.predict(one_hot())


# Each model has its own modules


HELPER = "from layers import WIDTH\n" + CONVOLUTION.replace("nn.Conv1d(4, 8, 7", "nn.Conv1d(4, WIDTH, 7").replace(
    "nn.Conv1d(8, 8, 5", "nn.Conv1d(WIDTH, 8, 5"
)


def importable(folder: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(parents=True)
    (folder / "layers.py").write_text(f"WIDTH = {width}\n")
    monkeypatch.syspath_prepend(folder)
    write_model(folder, code=HELPER)
    sys.modules.pop("layers", None)
    sys.path.remove(str(folder))
    return edit(folder, ("  module_file: model.py\n  module_class: Net\n", "  module_class: model.Net\n"))


@pytest.mark.parametrize("first_entry", [True, False])
def test_a_second_model_does_not_get_the_files_of_the_first(tmp_path, monkeypatch, first_entry):
    folders = [importable(tmp_path / str(width), width, monkeypatch) for width in (8, 5)]
    if first_entry:  # as with `python -m`; a console script has no such entry
        monkeypatch.syspath_prepend("")
    before = dict(sys.modules), list(sys.path), os.getcwd()
    for folder, width in [*zip(folders, (8, 5), strict=True), (folders[0], 8)]:
        assert load_model(str(folder), "dir").module.first[0].out_channels == width
    assert not {"model", "layers"} & set(sys.modules)
    assert (list(sys.path), os.getcwd()) == before[1:]


def test_a_module_of_the_same_name_that_was_imported_before_is_neither_used_nor_lost(tmp_path, monkeypatch):
    folder = importable(tmp_path / "m", 5, monkeypatch)
    stale = tmp_path / "other" / "model.py"
    stale.parent.mkdir()
    stale.write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(stale.parent)
    import model

    try:
        assert load_model(str(folder), "dir").module.first[0].out_channels == 5
        assert sys.modules["model"] is model
    finally:
        del sys.modules["model"]


def test_a_model_may_have_a_package_of_its_own(tmp_path):
    for width in (8, 5):
        folder = tmp_path / str(width)
        (folder / "net").mkdir(parents=True)
        write_model(folder, code=CONVOLUTION)
        (folder / "net" / "__init__.py").write_text("from net import parts\n")
        (folder / "net" / "parts.py").write_text(CONVOLUTION + f"\n\nWIDTH = {width}\nNet.width = WIDTH\n")
        edit(folder, ("  module_file: model.py\n  module_class: Net\n", "  module_class: net.parts.Net\n"))
        assert load_model(str(folder), "dir").module.width == width
    assert not any(name.partition(".")[0] == "net" for name in sys.modules)


def test_a_file_called_like_an_installed_package_does_not_disturb_it(tmp_path):
    folder = write_model(tmp_path / "m")
    for name in ("torch", "numpy", "random", "__main__", "conftest"):
        (folder / f"{name}.py").write_text("raise RuntimeError\n")
    before = {name: sys.modules.get(name) for name in ("torch", "numpy", "random", "__main__")}
    load_model(str(folder), "dir")
    assert {name: sys.modules.get(name) for name in before} == before


@pytest.mark.parametrize("more", ["", "from extra import SIGN  # noqa"])
def test_a_second_dataloader_of_its_own_does_not_get_the_first_ones_class(tmp_path, more):
    models = []
    for offset in (3, 7):
        folder = own_dataloader(tmp_path / str(offset), offset, more)
        (folder / "extra.py").write_text(f"SIGN = {offset}\n")
        models.append(load_model(str(folder), "dir"))
    for model, offset in zip(models, (3, 7), strict=True):
        assert model.argument({}, "offset", None) == offset
        assert model.argument({"offset": 9}, "offset", None) == 9
        batch = next(model.dataloader(intervals_file="a", fasta_file="b").batch_iter(batch_size=1))
        assert (batch["inputs"] == offset).all()
    assert not {"dataloader", "extra"} & set(sys.modules)


# What the dataloader is given


def configured(folder: Path, args: dict, **dataloader) -> Config:
    return parse_config(
        {
            "model": {"name": "m"},
            "dataloader": {"args": args, **dataloader},
            "exposures": {"A": {"task": 0, "peaks": "a.bed"}},
            "outcomes": {"D": 1},
        },
        folder,
    )


def test_files_among_the_arguments_become_absolute_and_other_text_stays(tmp_path):
    model = load_model(str(write_model(tmp_path / "m")), "dir")
    for name in ("a.bw", "ACGT.fa"):
        (tmp_path / name).write_text("")
    long = "A" * 5000
    args = {"fasta_file": "hg19.fa", "bigwigs": ["a.bw", "b.bw"], "one": "a.bw", "empty": "", "long": long, "nul": "\0"}
    expected = {"fasta_file": str(tmp_path / "hg19.fa"), "bigwigs": [str(tmp_path / "a.bw"), "b.bw"]}
    expected |= {"one": str(tmp_path / "a.bw"), "empty": "", "long": long, "nul": "\0"}
    assert model.dataloader_args(configured(tmp_path, args)) == expected
    assert list(model.dataloader_args(configured(tmp_path, args))) == list(args)


def test_the_fasta_argument_is_recognised_or_asked_for(tmp_path):
    model = load_model(str(own_dataloader(tmp_path / "m", 1)), "dir")
    assert model.fasta_arg(configured(tmp_path, {"fasta_file": "x"})) == "fasta_file"
    with pytest.raises(ConfigError, match=r"dataloader.args.fasta_file is required"):
        model.fasta_arg(configured(tmp_path, {}))
    assert model.fasta_arg(configured(tmp_path, {"other": "x"}, fasta_arg="other")) == "other"


@pytest.mark.parametrize("dataloader", ["{alphabet_axis: 0}", "{alphabet_axis: 0, auto_resize_len: 60}"])
def test_the_length_comes_from_the_dataloader_or_the_schema(tmp_path, dataloader):
    model = load_model(str(write_model(tmp_path / "m", dataloader=dataloader)), "dir")
    assert model.length({}, None) == 60
    assert model.length({"auto_resize_len": 30}, None) == 30
    with pytest.raises(ConfigError, match=r"sequences.length is 50, but the model's dataloader makes sequences of 30"):
        model.length({"auto_resize_len": 30}, 50)
    with pytest.raises(ConfigError, match="auto_resize_len is 'sixty': needed is a number of bp"):
        model.length({"auto_resize_len": "sixty"}, None)


INPUTS = """\
  inputs:
    cond: {{shape: "(4, 30)", doc: d}}
    dna: {{shape: "(4, 60)", {marked}doc: d}}
"""


@pytest.mark.parametrize("marked", ["special_type: DNASeq, ", ""])
def test_the_length_is_that_of_the_input_that_is_the_sequence(tmp_path, marked):
    folder = write_model(tmp_path / "m", dataloader="{alphabet_axis: 0}")
    text = (folder / "model.yaml").read_text()
    start, end = text.index("  inputs:"), text.index("  targets:")
    (folder / "model.yaml").write_text(text[:start] + INPUTS.format(marked=marked) + text[end:])
    model = load_model(str(folder), "dir")
    if marked:
        assert model.length({}, None) == 60
        return
    with pytest.raises(ConfigError, match=r"cond: 30, dna: 60\): write the length as sequences.length"):
        model.length({}, None)


def test_a_length_that_nothing_says_is_asked_for(tmp_path):
    folder = write_model(tmp_path / "m", dataloader="{alphabet_axis: 0}", shape='"(None, 4)"')
    model = load_model(str(folder), "dir")
    assert model.length({}, 77) == 77
    with pytest.raises(ConfigError, match=r"write it as sequences.length"):
        model.length({}, None)


def test_the_digest_of_the_weights_tells_them_apart(tmp_path):
    one, same, other = (load_model(str(write_model(tmp_path / str(i), seed=i // 2)), "dir") for i in range(3))
    assert one.weights_digest() == same.weights_digest() != other.weights_digest()
    before = one.weights_digest()
    one.module.register_buffer("count", torch.tensor(3))
    assert one.weights_digest() != before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {}),
        ("postprocessing:\n  deepmr: {outcomes: {D: DNase}}\n", {"outcomes": {"D": "DNase"}}),
        ("postprocessing:\n  variant_effects: true\n", {}),
        ("postprocessing: [deepmr]\n", {}),
        ("postprocessing:\n  deepmr:\n", {}),
        ("postprocessing:\n  deepmr: {exposures: {β: TF1}}\n", {"exposures": {"β": "TF1"}}),
    ],
)
def test_the_authors_own_settings_are_read_from_the_model(tmp_path, more, expected):
    folder = write_model(tmp_path / "m")
    text = (folder / "model.yaml").read_text()
    model = load_model(str(folder), "dir")
    (folder / "model.yaml").write_text(text + more, encoding="utf-8")
    assert model.suggested_config() == expected
    (folder / "model.yaml").write_text(text + "postprocessing: {deepmr: [1, 2]}\n")
    with pytest.raises(ConfigError, match=r"`postprocessing: deepmr:` of .*: expected keys, found \[1, 2\]"):
        model.suggested_config()


# What cannot be loaded


def test_a_folder_without_model_yaml_is_an_error(tmp_path):
    assert "is not a Kipoi model directory: it has no model.yaml" in refusal(tmp_path)
    assert "is not a Kipoi model directory" in refusal(tmp_path / "nowhere")


def test_an_unknown_source_is_an_error_that_needs_no_network(tmp_path, monkeypatch):
    import kipoi

    monkeypatch.setattr(kipoi.config, "list_sources", lambda: pytest.fail("lists, and so clones, every source"))
    said = refusal(tmp_path, "kipio")
    assert "unknown Kipoi source 'kipio'. Did you mean 'kipoi'? Known: " in said and "github-permalink" in said


def test_a_zoo_that_cannot_be_reached_is_explained(monkeypatch):
    import kipoi

    def fails(self, model):
        raise ValueError("model DeepSEA/predict doesn't exist")

    monkeypatch.setattr(type(kipoi.config.get_source("kipoi")), "pull_model", fails)
    said = refusal(Path("DeepSEA/predict"), "kipoi")
    assert "cloned from GitHub at first use" in said and "source: dir" in said and "doesn't exist" in said


def test_weights_that_are_a_whole_module_are_explained(tmp_path):
    folder = write_model(tmp_path / "m")
    torch.save(nn.Linear(2, 2), folder / "weights.pt")
    said = refusal(folder)
    assert "is a pickled object, not a state dict" in said and "save `model.state_dict()` instead" in said


def test_missing_weights_are_named(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / "weights.pt").unlink()
    said = refusal(folder)
    assert "weights.pt" in said and "could not be read or downloaded" in said


def test_weights_of_another_network_are_explained(tmp_path):
    folder = write_model(tmp_path / "m")
    torch.save(nn.Linear(2, 2).state_dict(), folder / "weights.pt")
    assert "Error(s) in loading state_dict for Net" in refusal(folder)


@pytest.mark.parametrize(
    "change", [[], [("  module_file: model.py\n  module_class: Net\n", "  module_class: model.Net\n")]]
)
def test_a_missing_package_is_named(tmp_path, change):
    folder = edit(write_model(tmp_path / "m"), *change)
    (folder / "model.py").write_text("import no_such_package\n" + CONVOLUTION)
    said = refusal(folder)
    assert "needs 'no_such_package'" in said and "install the package" in said


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_a_missing_package_that_is_optional_is_named_with_its_extra(tmp_path):
    folder = write_model(tmp_path / "m")
    text = (folder / "model.yaml").read_text()
    head = "defined_as: kipoi.model.KerasModel\nargs: {weights: weights.pt}\n"
    (folder / "model.yaml").write_text(head + text[text.index("default_dataloader") :])
    said = refusal(folder)
    assert "needs 'tensorflow'" in said and 'pip install "kipoi_deepmr[keras]"' in said


@pytest.mark.parametrize(
    "change", [[], [("  module_file: model.py\n  module_class: Net\n", "  module_class: model.Net\n")]]
)
def test_a_missing_model_file_is_not_taken_for_a_package(tmp_path, change):
    folder = edit(write_model(tmp_path / "m"), *change)
    (folder / "model.py").unlink()
    said = refusal(folder)
    assert "model.py" in said or "needs 'model'" in said
    assert "file" in said


def test_a_missing_class_and_an_error_in_the_code_are_shown(tmp_path):
    folder = edit(
        write_model(tmp_path / "m"), ("  module_file: model.py\n  module_class: Net\n", "  module_class: model.Nett\n")
    )
    assert "Nett" in refusal(folder) and "install the package" not in refusal(folder)
    (folder / "model.py").write_text("def f(:\n")
    assert "SyntaxError" in refusal(folder) or "invalid syntax" in refusal(folder)


@pytest.mark.parametrize("text", ["", "args: {}", "model: [", "- a\n"])
def test_a_broken_model_yaml_is_an_error_that_names_the_model(tmp_path, text):
    folder = write_model(tmp_path / "m")
    (folder / "model.yaml").write_text(text)
    assert str(folder) in refusal(folder)


def test_a_model_without_network_is_asked_through_predict_on_batch(tmp_path):
    folder = custom(tmp_path / "m", "return x.sum((1, 2))[:, None] * np.ones((1, 4))")
    code = (folder / "model.py").read_text().replace("self.net = Net()", "self.net = 3")
    (folder / "model.py").write_text(code)
    model = load_model(str(folder), "dir")
    assert isinstance(model.module, PredictFunction) and model.module is model.module
    x = torch.from_numpy(one_hot())
    np.testing.assert_array_equal(model.module(x).numpy(), model.predict(one_hot()))
    before = model.weights_digest()
    assert before == load_model(str(folder), "dir").weights_digest()
    (folder / "table.csv").write_text("1")
    assert load_model(str(folder), "dir").weights_digest() != before


def test_a_model_that_cannot_predict_is_an_error(tmp_path):
    folder = custom(tmp_path / "m")
    code = (folder / "model.py").read_text().replace("self.net = Net()", "self.predict_on_batch = None")
    (folder / "model.py").write_text(code)
    with pytest.raises(ModelError, match=r"carries no torch network .* has no predict_on_batch"):
        _ = load_model(str(folder), "dir").module


@pytest.mark.parametrize("body", ["return ['a', 'b']", "return None", "return np.array(['x'] * len(x))"])
def test_an_output_that_holds_no_numbers_is_an_error(tmp_path, body):
    model = load_model(str(custom(tmp_path / "m", body)), "dir")
    with pytest.raises(ModelError, match="is not understood"):
        model.predict(one_hot())


def test_loading_leaves_torch_load_alone_and_lets_models_use_it_in_any_way(tmp_path):
    original = torch.load
    code = CONVOLUTION + textwrap.dedent(
        """
        import os
        for load in (lambda p: torch.load(p, "cpu"), lambda p: torch.load(f=p), lambda p: torch.load(p, map_location="cpu")):
            if os.path.exists("weights.pt"):
                load("weights.pt")
        """
    )
    load_model(str(write_model(tmp_path / "m", code=code)), "dir")
    assert torch.load is original


# Models of a group

NO_NETWORK = """\
import numpy as np
from kipoi.model import BaseModel


class Model(BaseModel):
    def __init__(self, weights, seed):
        self.seed = seed

    def predict_on_batch(self, x):
        return np.full((len(x), 4), float(self.seed))
"""


def test_models_of_a_group_have_their_own_digests_and_the_authors_configuration(tmp_path):
    folder = write_model(tmp_path / "zoo" / "group")
    (folder / "model.py").write_text(NO_NETWORK)
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").unlink()
    head = "defined_as: model.Model\nargs: {weights: weights.pt, seed: {{ seed }}}\n"
    block = "postprocessing:\n  deepmr:\n    uncertainty: {seed: {{ seed }}}\n"
    (folder / "model-template.yaml").write_text(head + text[text.index("default_dataloader") :] + block)
    (folder / "models.tsv").write_text("model\tseed\nA\t1\nB\t2\n")
    kipoi.config.add_source("group", LocalSource(str(tmp_path / "zoo")))
    one, two = load_model("group/A", "group"), load_model("group/B", "group")
    assert (one.folder, one.weights_digest()) != (two.folder, two.weights_digest())
    assert one.weights_digest() == load_model("group/A", "group").weights_digest()
    assert (one.suggested_config(), two.suggested_config()) == (
        {"uncertainty": {"seed": 1}},
        {"uncertainty": {"seed": 2}},
    )
