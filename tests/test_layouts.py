"""Models of any input and output form from the YAML file to the store: each gives what the plain network gives."""

from pathlib import Path

import numpy as np
import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import ConfigError, DropoutError, ModelError, StoreError, TaskError
from kipoi_deepmr.model import Reduction, load_model
from kipoi_deepmr.running import check, run
from tests.kipoi_models import (
    CONVOLUTION,
    CUSTOM,
    HEAD,
    edit_yaml,
    own_loader,
    profile,
    profile_tasks,
    write_model,
    write_project,
)

# The numbers of the exposures A, B and of the outcome, wherever the model puts its outputs.
PLAIN_TASKS = [0, 2, 3]


def effects_of(config: Path, name: str = "out.zarr"):
    return run(load_config(config), config.parent / name, device="cpu", progress=False)["effects"].to_dataset().load()


def assert_same(one, other, factor: float = 1.0) -> None:
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se"):
        # Rounding of predictions below 1 in float32.
        np.testing.assert_allclose(one[name], factor * other[name], rtol=0, atol=5e-7 * factor, err_msg=name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Effects of the plain network, one-hot in, (batch, tasks) out."""
    folder = tmp_path_factory.mktemp("plain") / "p"
    folder.mkdir()
    return effects_of(write_project(folder))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


# Inputs


@pytest.mark.parametrize("dtype", ["np.int8", "int", "np.float64"])
def test_one_hot_of_any_type(folder, plain, dtype):
    code = CONVOLUTION.replace("def forward(self, x):", "def forward(self, x):\n        x = x.float()")
    options = f"{{auto_resize_len: 60, alphabet_axis: 0, dtype: {dtype}}}"
    assert_same(effects_of(write_project(folder, code=code, dataloader=options)), plain)


def test_the_sequence_as_text(folder, plain):
    body = """rows = [[[float(base == letter) for base in text] for letter in "ACGT"] for text in x]
        return self.net(torch.tensor(rows)).detach().numpy()"""
    write_model(folder / "model", code=CUSTOM.format(body=body), shape="()")
    edit_yaml(
        folder / "model",
        HEAD,
        ("SeqIntervalDl", "StringSeqIntervalDl"),
        ("auto_resize_len: 60, alphabet_axis: 0, dtype: np.float32", "auto_resize_len: 60"),
    )
    config = write_project(folder)
    report = check(load_config(config), device="cpu")
    assert (report.engine, report.layout, len(report.dropout)) == ("full", "the input: text of 60 bases", 2)
    assert_same(effects_of(config), plain)


def test_text_beside_a_track_in_a_dict(folder, plain):
    body = """rows = [[[float(base == letter) for base in text] for letter in "ACGT"] for text in x["text"]]
        return self.net(torch.tensor(rows)).detach().numpy() * x["gain"][:, None]"""
    write_model(folder / "model", code=CUSTOM.format(body=body), shape="()")
    edit_yaml(folder / "model", HEAD)
    own_loader(
        folder / "model",
        '{"gain": np.float32(2), "text": seq}',
        "StringSeqIntervalDl({intervals}, fasta_file)",
        "regions",
    )
    assert_same(effects_of(write_project(folder, {"sequences": {"length": 60}})), plain, factor=2)


TEXT_BODY = """rows = [[[float(base == letter) for base in {text}] for letter in "{letters}"] for text in x{key}]
        return self.net(torch.tensor(rows)).detach().numpy()"""


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("str(seq).lower()", {"text": "text", "letters": "acgt", "key": ""}),
        ("np.array([str(seq)])", {"text": "text[0]", "letters": "ACGT", "key": ""}),
        ("np.bytes_(str(seq))", {"text": "text.decode()", "letters": "ACGT", "key": ""}),
    ],
    ids=["lower case", "an axis of length 1", "bytes"],
)
def test_text_is_given_back_as_the_dataloader_writes_it(folder, plain, inputs, body):
    write_model(folder / "model", code=CUSTOM.format(body=TEXT_BODY.format(**body)))
    edit_yaml(folder / "model", HEAD)
    own_loader(folder / "model", inputs, "StringSeqIntervalDl({intervals}, fasta_file)")
    assert_same(effects_of(write_project(folder, {"sequences": {"length": 60}})), plain)


def test_text_and_its_reverse_complement_are_mutated_alike(folder, plain):
    body = """turned = [str(text)[::-1].translate(str.maketrans("ACGT", "TGCA")) for text in x["rev"]]
        assert turned == list(x["fwd"])
        """ + TEXT_BODY.format(text="text", letters="ACGT", key='["fwd"]')
    write_model(folder / "model", code=CUSTOM.format(body=body))
    edit_yaml(folder / "model", HEAD)
    turned = 'str(seq)[::-1].translate(str.maketrans("ACGT", "TGCA"))'
    own_loader(folder / "model", f'{{"fwd": seq, "rev": {turned}}}', "StringSeqIntervalDl({intervals}, fasta_file)")
    found = effects_of(write_project(folder, {"sequences": {"length": 60}, "dataloader": {"sequence_input": "all"}}))
    assert_same(found, plain)


@pytest.mark.parametrize(
    ("inputs", "seq", "cell"), [('{"seq": seq, "cell": cell}', '["seq"]', '["cell"]'), ("[cell, seq]", "[1]", "[0]")]
)
def test_a_text_beside_the_sequence_is_that_of_each_sequence(folder, plain, inputs, seq, cell):
    body = f"""gain = np.array([2.0 if str(c) == "liver" else 1.0 for c in x{cell}], "float32")
        return self.net(torch.from_numpy(np.ascontiguousarray(x{seq}))).detach().numpy() * gain[:, None]"""
    write_model(folder / "model", code=CUSTOM.format(body=body))
    edit_yaml(folder / "model", HEAD)
    own_loader(
        folder / "model",
        inputs.replace("cell}", '"liver" if ranges.start % 2 else "k562"}').replace(
            "[cell,", '["liver" if ranges.start % 2 else "k562",'
        ),
    )
    found = effects_of(write_project(folder))
    gain = 1.0 + plain.start.values % 2
    np.testing.assert_allclose(found.outcome_effect, plain.outcome_effect * gain[:, None, None], rtol=0, atol=1e-6)


def test_inputs_in_inputs_are_refused(folder):
    write_model(folder / "model")
    own_loader(folder / "model", '{"dna": {"seq": seq}}')
    with pytest.raises(ModelError, match="gives the input 'dna' as dict, needed is an array"):
        check(load_config(write_project(folder)), device="cpu")


def test_a_track_that_stays_fixed_is_that_of_each_sequence(folder, plain):
    code = CONVOLUTION.replace(
        "def forward(self, x):\n        return self.last(self.second(self.first(x)))",
        "def forward(self, track, seq):\n        return self.last(self.second(self.first(seq))) * track[:, :1]",
    )
    write_model(folder / "model", code=code)
    own_loader(folder / "model", '{"seq": seq, "track": np.array([ranges.start, 1.0], dtype="float32")}')
    found = effects_of(write_project(folder))
    gain = plain.start.values.astype("float32")[:, None, None]
    for name in ("exposure_effect", "outcome_se"):
        np.testing.assert_allclose(found[name], plain[name] * gain, rtol=2e-4, atol=1e-3)


def test_a_list_by_position_and_intervals_under_another_name(folder, plain):
    code = CONVOLUTION.replace("def forward(self, x):", "def forward(self, track, x):")
    write_model(folder / "model", code=code)
    own_loader(folder / "model", '[np.zeros(3, dtype="float32"), seq]', intervals="peaks_bed")
    assert_same(effects_of(write_project(folder)), plain)


TWICE = CONVOLUTION.replace(
    "def forward(self, x):\n        return self.last(self.second(self.first(x)))",
    "def forward(self, x, y):\n"
    "        y = y.flip(1).permute(0, 2, 1).flip(1)\n"
    "        return self.last(self.second(self.first(x))) + 0 * (x - y).sum((1, 2))[:, None] - ((x - y) ** 2).sum((1, 2))[:, None]",
)


def twice(folder: Path, chosen) -> Path:
    """The sequence and its reverse complement with the bases on the last axis; what differs between them shows."""
    write_model(folder / "model", code=TWICE)
    own_loader(folder / "model", "[seq, seq[::-1, ::-1].T.copy()]")
    return write_project(folder, {"dataloader": {"args": {"fasta_file": "genome.fa"}, **chosen}})


def test_forward_and_reverse_complement_are_mutated_alike(folder, plain):
    config = twice(folder, {"sequence_input": "all"})
    assert "with it input '1'" in check(load_config(config), device="cpu").layout
    assert_same(effects_of(config), plain)


def test_one_of_two_inputs_is_mutated_when_it_is_named(folder, plain):
    found = effects_of(twice(folder, {"sequence_input": 0}))
    difference = found.outcome_effect - plain.outcome_effect
    np.testing.assert_allclose(difference.values[np.isfinite(difference.values)], -2, rtol=1e-3)


def test_two_inputs_with_the_sequence_are_asked_for(folder):
    with pytest.raises(
        ModelError, match=r"stands in 2 inputs of the model \(0, 1\): which one is mutated\?.*sequence_input"
    ):
        check(load_config(twice(folder, {})), device="cpu")
    with pytest.raises(
        ModelError, match=r"sequence_input: 1 is no input that holds the sequence of the forward strand"
    ):
        check(load_config(twice(folder, {"sequence_input": 1})), device="cpu")


@pytest.mark.parametrize("length", [40, 60])
def test_a_model_of_any_length_takes_that_of_the_configuration(folder, length):
    code = CONVOLUTION.replace("nn.Flatten()", "nn.AdaptiveMaxPool1d(15), nn.Flatten()")
    write_model(folder / "model", code=code, dataloader="{alphabet_axis: 0, dtype: np.float32}", shape='"(4, None)"')
    effects = effects_of(write_project(folder, {"sequences": {"length": length}}))
    assert set(effects.end.values - effects.start.values) == {length}


def test_a_dataloader_without_intervals_is_an_error_before_the_model_is_asked(folder):
    write_model(folder / "model")
    own_loader(folder / "model", "seq", intervals="table")
    with pytest.raises(Exception, match=r"takes the intervals.*table.*Name it in dataloader.intervals_arg"):
        check(load_config(write_project(folder)), device="cpu")


# Models asked through predict_on_batch


def test_what_predict_on_batch_does_more_counts(folder, plain, caplog):
    write_model(folder / "model", code=CUSTOM.format(body="return 3 * self.net(torch.from_numpy(x)).detach().numpy()"))
    edit_yaml(folder / "model", HEAD)
    assert_same(effects_of(write_project(folder)), plain, factor=3)
    assert "it does more than call the network: every mutant goes through predict_on_batch" in caplog.text


@pytest.mark.parametrize(
    ("given", "forward"),
    [
        ("torch.from_numpy(x).transpose(1, 2)", "assert x.shape[-1] == 4\n        x = x.transpose(1, 2)"),
        ("torch.from_numpy(x)[:, :, None]", "x = x[:, :, 0, :]"),
    ],
    ids=["AssertionError", "IndexError"],
)
def test_a_network_that_fails_in_any_way_is_asked_through_predict_on_batch(folder, plain, given, forward):
    code = CUSTOM.format(body=f"return self.net({given}).detach().numpy()")
    code = code.replace("def forward(self, x):", f"def forward(self, x):\n        {forward}")
    write_model(folder / "model", code=code)
    edit_yaml(folder / "model", HEAD)
    assert_same(effects_of(write_project(folder)), plain)


TABLE = """\
import numpy as np
from kipoi.model import BaseModel


class Net:
    def state_dict(self):
        return {{}}


class Model(BaseModel):
    def __init__(self, weights):
        self.table = np.random.default_rng({seed}).normal(size=(4, 60, 4))

    def predict_on_batch(self, x):
        return np.tanh(np.einsum("bap,apt->bt", x, self.table) / 8)
"""


def table(folder: Path, seed: int) -> np.ndarray:
    edit_yaml(write_model(folder, code=TABLE.format(seed=seed)), HEAD)
    return np.random.default_rng(seed).normal(size=(4, 60, 4))


def test_a_model_without_a_network_runs_in_an_ensemble(folder):
    tables = [table(folder / f"m{seed}", seed) for seed in range(3)]
    members = {"method": "ensemble", "draws": 1, "members": ["m0", "m1", "m2"]}
    table(folder / "model", 0)
    config = write_project(folder, {"uncertainty": members, "mutagenesis": {"positions": [20, 23], "engine": "auto"}})
    assert check(load_config(config), device="cpu").engine == "full"
    effects = effects_of(config)
    one = effects.isel(sequence=0)
    bases = (folder / "genome.fa").read_text().split(f">{one.chrom.item()}\n")[1].split("\n")[0]
    window = bases[int(one.start) : int(one.end)]

    def predictions(text):
        x = np.array([[base == letter for base in text] for letter in "ACGT"])
        return np.array([np.tanh(np.einsum("ap,apt->t", x, one) / 8) for one in tables])[:, PLAIN_TASKS]

    for position in range(20, 23):
        for allele, letter in enumerate("ACGT"):
            if letter == window[position]:
                continue
            moved = predictions(window[:position] + letter + window[position + 1 :]) - predictions(window)
            at = one.sel(position=position).isel(allele=allele)
            np.testing.assert_allclose(at.exposure_effect, moved.mean(0)[:2], rtol=0, atol=2e-6)
            np.testing.assert_allclose(at.outcome_se, moved.std(0)[2:], rtol=0, atol=2e-6)


def test_what_lies_beside_a_model_without_a_network_does_not_change_it_but_its_files_do(folder):
    for seed in (0, 1):
        table(folder / f"m{seed}", seed)
    table(folder / "model", 0)
    members = {"method": "ensemble", "draws": 1, "members": ["m0", "m1"]}
    config = write_project(folder, {"uncertainty": members, "mutagenesis": {"positions": [20, 22], "engine": "auto"}})
    output = folder / "m0" / "out.zarr"
    run(load_config(config), output, device="cpu", progress=False)
    (folder / "m0" / "report.html").write_text("report")
    (folder / "m0" / "config.yaml").write_text("a: 1")
    run(load_config(config), output, device="cpu", progress=False, resume=True)
    path = folder / "m1" / "model.py"
    path.write_text(path.read_text().replace("/ 8", "/ 9"))
    with pytest.raises(StoreError, match="other weights"):
        run(load_config(config), output, device="cpu", progress=False, resume=True)


def test_another_predict_on_batch_of_the_same_network_stops_a_resumed_run(folder):
    write_model(folder / "model", code=CUSTOM.format(body="return 3 * self.net(torch.from_numpy(x)).detach().numpy()"))
    edit_yaml(folder / "model", HEAD)
    config = write_project(folder)
    run(load_config(config), folder / "out.zarr", device="cpu", progress=False)
    path = folder / "model" / "model.py"
    path.write_text(path.read_text().replace("return 3 *", "return 30 *"))
    with pytest.raises(StoreError, match="other weights"):
        run(load_config(config), folder / "out.zarr", device="cpu", progress=False, resume=True)


def test_a_model_without_a_network_has_no_draws_of_dropout(folder):
    table(folder / "model", 0)
    with pytest.raises(DropoutError, match=r"no dropout of torch runs.*method: ensemble"):
        check(load_config(write_project(folder)), device="cpu")


# Outputs

REDUCED = {"mean": 3.0, "sum": 15.0, "max": 5.0}


@pytest.mark.parametrize("how", REDUCED)
@pytest.mark.parametrize(
    ("returned", "shape"),
    [
        ('{{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}}', "(5, 4)"),
        ('{{"profile": y[:, :, None] * steps, "single": y[:, :1]}}', "(4, 5)"),
    ],
    ids=["positions first", "tracks first"],
)
def test_a_profile_is_reduced_to_a_number(folder, plain, how, returned, shape):
    profile(folder, returned.format(), shape)
    found = effects_of(write_project(folder, profile_tasks(reduce=how)))
    assert_same(found, plain, factor=REDUCED[how])


def test_a_window_of_a_profile(folder, plain):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    found = effects_of(write_project(folder, profile_tasks(reduce="sum", window=[1, 3])))
    assert_same(found, plain, factor=5)


@pytest.mark.parametrize("engine", ["delta", "full"])
def test_parts_of_one_profile_are_exposures_and_outcomes_of_their_own(folder, plain, engine):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    part = {"task": "profile/0", "reduce": "sum", "peaks": "peaks/A.bed"}
    changes = {
        "exposures": {
            "A": {**part, "window": [0, 1]},
            "B": {**part, "window": [2, 3]},
            "C": {**part, "reduce": "max", "window": [0, 3]},
        },
        "outcomes": {"open": {"task": "profile/0", "reduce": "mean", "window": [3, 5]}},
        "mutagenesis": {"engine": engine},
        "mr": {"methods": ["ivw"]},
    }
    found = effects_of(write_project(folder, changes))
    expected = plain.exposure_effect.sel(exposure="A", sequence=found.sequence)
    for name, factor in (("A", 1), ("B", 3), ("C", 3)):
        np.testing.assert_allclose(found.exposure_effect.sel(exposure=name), factor * expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.outcome_effect.sel(outcome="open"), 4.5 * expected, rtol=0, atol=2e-6)


def test_overlapping_parts_of_one_profile_on_both_sides_are_refused(folder):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    changes = profile_tasks(reduce="sum", window=[0, 3])
    changes["outcomes"] = {"open": {"task": "profile/2", "reduce": "sum", "window": [2, 5]}}
    with pytest.raises(TaskError, match=r"the same output 'profile/2'.*windows of a profile that do not overlap"):
        check(load_config(write_project(folder, changes)), device="cpu")


def test_logsumexp_and_all_tracks_together(folder):
    profile(folder, "[torch.log(y[:, None] * steps[:, None]), y]")
    text = (folder / "model" / "model.yaml").read_text().replace("    profile: {", "  - {name: profile, ")
    (folder / "model" / "model.yaml").write_text(
        text.replace('    single: {shape: "(1,)"', '  - {name: y, shape: "(4,)"')
    )
    model = load_model(str(folder / "model"), "dir")
    assert [target.name for target in model.targets()] == [
        *(f"profile/{number}" for number in range(4)),
        "profile",
        *(f"y/{number}" for number in range(4)),
    ]
    x = np.eye(4, dtype="float32")[np.random.default_rng(0).integers(0, 4, (3, 60))].transpose(0, 2, 1).copy()
    asked = [(4, Reduction("logsumexp")), (1, Reduction("max", (0, 2))), (2, Reduction("logsumexp", (0, 2)))]
    joined = model.predict(x, model.outputs(asked))
    y = joined[:, 5:]
    np.testing.assert_allclose(np.exp(joined[:, 4]), 15 * y.sum(1), rtol=1e-5)
    np.testing.assert_allclose(np.exp(joined[:, 1]), 2 * y[:, 1], rtol=1e-5)
    np.testing.assert_allclose(np.exp(joined[:, 2]), 3 * y[:, 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            profile_tasks(),
            TaskError,
            "exposures.A: 'profile/0' is a profile along the sequence, an effect is one number: add reduce",
        ),
        (
            {**profile_tasks(reduce="sum"), "outcomes": {"open": {"task": "single", "reduce": "sum"}}},
            TaskError,
            "leave `reduce` out",
        ),
        (
            profile_tasks(reduce="sum", window=[2, 9]),
            ModelError,
            r"window: \[2, 9\] leaves the profile, which has 5 positions",
        ),
        (profile_tasks(reduce="median"), ConfigError, "Allowed: mean, sum, max, logsumexp"),
        (profile_tasks(window=[0, 3]), ConfigError, "window belongs to a profile"),
        (profile_tasks(reduce="sum", window=[3, 3]), ConfigError, r"write \[start, end\)"),
    ],
)
def test_a_wrong_reduction_is_an_error_before_any_long_work(folder, changes, error, said):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    with pytest.raises(error, match=said):
        check(load_config(write_project(folder, changes)), device="cpu")


def test_a_profile_that_the_schema_does_not_describe_is_an_error(folder):
    profile(folder, '{"single": y[:, 0], "profile": y[:, :, None, None] * steps}')
    with pytest.raises(ModelError, match=r"needed is \(batch, positions, tracks\) or \(batch, tracks, positions\)"):
        check(load_config(write_project(folder, profile_tasks(reduce="sum"))), device="cpu")
