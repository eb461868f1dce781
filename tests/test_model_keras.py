"""Keras models on TensorFlow: draws with masks that a batch shares, through Kipoi and beside equal torch networks.

They need TensorFlow: ``pip install "torch==2.13.0" -e ".[test,keras]"``; without it they are skipped.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kipoi.sources import LocalSource
from torch import Tensor, nn

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import DropoutError, ModelError
from kipoi_deepmr.model import Layout, SequenceNetwork, load_model
from kipoi_deepmr.model.keras import KerasFunction, is_keras
from kipoi_deepmr.mutagenesis import Block, Engine, Full, Request
from kipoi_deepmr.running import check, run
from kipoi_deepmr.uncertainty import DropoutSite, MCDropout, ThinnedNetwork, find_dropouts, gaussian_dropout
from tests.kipoi_models import write_model, write_project

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason='TensorFlow is not installed (the extra "keras")'
    ),
    # Keras 3 on numpy 2 and TensorFlow's own imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
LENGTH = 20
CPU = torch.device("cpu")
NAME = "chr1:0-20(+)"


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", exc_type=ImportError)


def sequential(keras, layer=None, seed: int = 0):
    """A convolution, a dropout, BatchNormalization with averages of its own, and two tasks."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((LENGTH, 4)),
            layers.Conv1D(6, 5, activation="relu"),
            layer or layers.Dropout(0.4),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(2, activation="sigmoid"),
        ]
    )
    norm = model.layers[2]
    random = np.random.default_rng(seed)
    norm.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in norm.get_weights()])
    return model


class Twin(nn.Module):
    """The same network in torch, with the weights of the Keras model."""

    def __init__(self, model, drop):
        super().__init__()
        self.kernel, self.bias, *norm, self.dense, self.offset = (torch.from_numpy(w) for w in model.get_weights())
        self.gamma, self.beta, self.mean, self.variance = norm
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv1d(x.transpose(1, 2), self.kernel.permute(2, 1, 0), self.bias).relu().transpose(1, 2)
        x = self.drop(x)
        x = (x - self.mean) / (self.variance + 1e-3).sqrt() * self.gamma + self.beta
        return torch.sigmoid(F.dropout(x.flatten(1), 0.25, self.training) @ self.dense + self.offset)


def sequences(rows: int, seed: int = 0) -> Tensor:
    codes = np.random.default_rng(seed).integers(0, 4, (rows, LENGTH))
    return torch.from_numpy(np.eye(4, dtype=np.float32)[codes])


def draws_of(network, seed: int = 3) -> MCDropout:
    return MCDropout(find_dropouts(network, sequences(1)), seed=seed, device=CPU)


def predict(network, draws: MCDropout, x: Tensor, draw: int = 0, name: str = NAME) -> Tensor:
    with torch.inference_mode():
        return ThinnedNetwork(network, draws.masks([name], draw).rows(None))(x)


def spatial(x: Tensor) -> Tensor:
    return F.dropout1d(x.transpose(1, 2), 0.3).transpose(1, 2)


KINDS = {
    "Dropout": (lambda layers: layers.Dropout(0.4), lambda x: F.dropout(x, 0.4), "elementwise", (1, 16, 6)),
    "noise_shape": (
        lambda layers: layers.Dropout(0.4, noise_shape=(None, 16, 1)),
        lambda x: x * F.dropout(torch.ones_like(x[..., :1]), 0.4),
        "elementwise",
        (1, 16, 1),
    ),
    "SpatialDropout1D": (lambda layers: layers.SpatialDropout1D(0.3), None, "elementwise", (1, 1, 6)),
    "GaussianDropout": (
        lambda layers: layers.GaussianDropout(0.3),
        lambda x: gaussian_dropout(x, 0.3),
        "gaussian",
        (1, 16, 6),
    ),
    "AlphaDropout": (lambda layers: layers.AlphaDropout(0.3), lambda x: F.alpha_dropout(x, 0.3), "alpha", (1, 16, 6)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_dropouts_are_found_with_the_shape_of_their_masks(keras, kind):
    make, _, found, shape = KINDS[kind]
    sites = find_dropouts(KerasFunction(sequential(keras, make(keras.layers))), sequences(1))
    assert sites[0] == DropoutSite(found, sites[0].p, shape, 0, 1)
    assert sites[1] == DropoutSite("elementwise", 0.25, (1, 96), 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_that_of_an_equal_torch_network(keras, kind):
    make, drop, *_ = KINDS[kind]
    model = sequential(keras, make(keras.layers))
    ours = KerasFunction(model)
    twin = Twin(model, drop or (lambda x: x * F.dropout(torch.ones_like(x[:, :1]), 0.3))).eval()
    x = sequences(5)
    for draw in range(3):
        found = predict(ours, draws_of(ours), x, draw)
        torch.testing.assert_close(found, predict(twin, draws_of(twin), x, draw), rtol=0, atol=2e-6)
        assert not torch.allclose(found, ours(x), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_get_equal_predictions_and_the_batch_size_does_not_matter(keras, kind):
    ours = KerasFunction(sequential(keras, KINDS[kind][0](keras.layers)))
    draws, x = draws_of(ours), sequences(7)
    same = predict(ours, draws, x[:1].repeat(6, 1, 1))
    # Another mask would differ by far more than the kernels of some CPUs do from row to row.
    torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-6)
    whole = predict(ours, draws, x)
    for size in (1, 2, 3):
        parts = torch.cat([predict(ours, draws, x[at : at + size]) for at in range(0, 7, size)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_have_the_same_mask_to_the_last_bit(keras, kind):
    ours = KerasFunction(keras.Sequential([keras.Input((16, 6)), KINDS[kind][0](keras.layers)]))
    x = torch.rand(1, 16, 6, generator=torch.Generator().manual_seed(0)).repeat(6, 1, 1)
    same = predict(ours, MCDropout(find_dropouts(ours, x[:1]), seed=3, device=CPU), x)
    assert (same == same[0]).all() and not torch.equal(same, x)


def test_the_mean_of_alpha_and_gaussian_draws_is_that_of_keras_in_training(keras):
    for kind in ("GaussianDropout", "AlphaDropout"):
        layer = KINDS[kind][0](keras.layers)
        model = keras.Sequential([keras.Input((LENGTH, 4)), layer])
        ours = KerasFunction(model)
        draws, x = draws_of(ours), sequences(1)
        made = torch.stack([predict(ours, draws, x, draw) for draw in range(400)])
        theirs = torch.stack([torch.from_numpy(np.array(model(x.numpy(), training=True))) for _ in range(400)])
        assert abs(float(made.mean() - theirs.mean())) < 0.02
        assert abs(float(made.std() - theirs.std())) < 0.03


def test_without_a_draw_keras_predicts_as_it_does_and_nothing_of_it_changes(keras):
    model = sequential(keras)
    before = [weight.copy() for weight in model.get_weights()]
    call = keras.layers.Dropout.call
    ours = KerasFunction(model)
    x = sequences(4)
    torch.testing.assert_close(ours(x), torch.from_numpy(model.predict_on_batch(x.numpy())), rtol=0, atol=1e-6)
    predict(ours, draws_of(ours), x)
    assert keras.layers.Dropout.call is call
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_functional_models_with_named_inputs_two_outputs_and_layers_inside_layers(keras):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    seq, track = keras.Input((LENGTH, 4), name="seq"), keras.Input((3,), name="track")
    inner = keras.Sequential([keras.Input((LENGTH, 4)), layers.Conv1D(3, 3), layers.SpatialDropout1D(0.5)])
    x = layers.GlobalMaxPooling1D()(inner(seq))
    x = layers.Dropout(0.5)(layers.Concatenate()([x, track]))
    model = keras.Model([seq, track], [layers.Dense(1)(x), layers.Dense(2)(x)])
    layout = Layout("seq", 1, 0, "ACGT", (LENGTH, 4), np.dtype("float32"))
    network = SequenceNetwork(KerasFunction(model), layout, ("track",), True).eval()
    x, tracks = sequences(4), torch.rand(4, 3)
    expected = np.concatenate(model.predict_on_batch({"seq": x.numpy(), "track": tracks.numpy()}), axis=1)
    np.testing.assert_allclose(network(x, tracks).numpy(), expected, rtol=0, atol=1e-6)
    sites = find_dropouts(network, x[:1], [tracks[:1]])
    assert [site.shape for site in sites] == [(1, 1, 3), (1, 6)]
    draws = MCDropout(sites, seed=1, device=CPU)
    masks = draws.masks([NAME], 0).rows(None)
    thinned = ThinnedNetwork(network, masks)(x, tracks)
    assert not torch.allclose(thinned, network(x, tracks), atol=1e-3)


def test_the_engine_gives_each_sequence_its_own_draws_in_one_batch(keras):
    ours = KerasFunction(sequential(keras))
    layout = Layout(None, 1, 0, "ACGT", (LENGTH, 4), np.dtype("float32"))
    network = SequenceNetwork(ours, layout, (), False).eval()
    x = sequences(3)
    block = Block([f"s{n}" for n in range(3)], x.argmax(2).numpy().astype(np.int8), x)
    found = []
    for size in (4, 50):
        engine = Engine(Full(Request(network, draws_of(network), 3, [0, 1], 1, batch_size=size)))
        found.append(engine.run(block, range(5, 9)))
    np.testing.assert_allclose(found[0].mean, found[1].mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0].squares, found[1].squares, rtol=0, atol=1e-6)
    mutant = x[1:2].clone()
    mutant[0, 6] = torch.eye(4)[(int(x[1, 6].argmax()) + 1) % 4]
    effects = [
        predict(network, draws_of(network), mutant, n, "s1") - predict(network, draws_of(network), x[1:2], n, "s1")
        for n in range(3)
    ]
    allele = (int(x[1, 6].argmax()) + 1) % 4
    np.testing.assert_allclose(found[0].mean[1, 1, allele], torch.cat(effects).mean(0), rtol=0, atol=1e-6)


# Through Kipoi


def write_keras(folder: Path, model, file: str = "weights.keras") -> Path:
    write_model(folder, length=LENGTH, outputs=2, labels=("TF1", "DNase"))
    model.save(folder / file)
    text = (folder / "model.yaml").read_text()
    rest = text[text.index("default_dataloader") :].replace("alphabet_axis: 0", "alphabet_axis: 1")
    head = f"defined_as: kipoi.model.KerasModel\nargs: {{weights: {file}, backend: tensorflow}}\n"
    (folder / "model.yaml").write_text(head + rest.replace(f"(4, {LENGTH})", f"({LENGTH}, 4)"))
    return folder


def project(folder: Path, model, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    write_keras(folder / "model", model)
    task = {"exposures": {"A": {"task": "TF1"}, "B": None}, "outcomes": {"open": {"task": "DNase"}}}
    path = write_project(folder, {"mutagenesis": {"positions": [6, 10], "engine": "auto"}, **changes})
    text = path.read_text().replace("task: TF2", "task: 0").replace("    occurrence: 2\n", "")
    start, end = text.index("  B:"), text.index("outcomes:")
    assert task
    path.write_text(text[:start] + text[end:])
    return path


def test_a_keras_model_of_kipoi_runs_from_beginning_to_end(keras, tmp_path):
    model = sequential(keras)
    config = project(tmp_path / "p", model)
    report = check(load_config(config), device="cpu")
    assert (report.engine, len(report.dropout)) == ("full", 2)
    results = run(load_config(config), tmp_path / "out.zarr", device="cpu", progress=False)
    effects = results["effects"].to_dataset()
    loaded = load_model(str(tmp_path / "p" / "model"), "dir")
    assert is_keras(loaded.kipoi.model)
    network = Twin(loaded.kipoi.model, lambda x: F.dropout(x, 0.4)).eval()
    draws = MCDropout(find_dropouts(network, sequences(1)), seed=1, device=CPU)
    one = effects.isel(sequence=1)
    bases = (tmp_path / "p" / "genome.fa").read_text().split(f">{one.chrom.item()}\n")[1].split("\n")[0]
    window = bases[int(one.start) : int(one.end)]
    x = torch.tensor([[[float(base == letter) for letter in "ACGT"] for base in window]])
    mutant = x.clone()
    base = (window[7] == "A") * 1
    mutant[0, 7] = torch.eye(4)[base]
    found = torch.cat(
        [
            predict(network, draws, mutant, n, one.sequence.item()) - predict(network, draws, x, n, one.sequence.item())
            for n in range(4)
        ]
    )
    ours = [float(one.exposure_effect.sel(position=7)[0, base]), float(one.outcome_effect.sel(position=7)[0, base])]
    np.testing.assert_allclose(ours, found.mean(0), rtol=0, atol=2e-6)
    np.testing.assert_allclose(
        float(one.exposure_se.sel(position=7)[0, base]), found.std(0, correction=0)[0], rtol=0, atol=2e-6
    )


def test_a_keras_model_without_dropout_is_refused_and_told_of_ensembles(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((LENGTH, 4)), layers.Flatten(), layers.Dropout(0.0), layers.Dense(2)])
    with pytest.raises(DropoutError, match=r"Keras model without a Dropout.*method: ensemble"):
        check(load_config(project(tmp_path / "p", model)), device="cpu")


def test_keras_models_make_an_ensemble(keras, tmp_path):
    (tmp_path / "p").mkdir()
    for seed, name in enumerate(("one", "two")):
        write_keras(tmp_path / "p" / name, sequential(keras, seed=seed))
    members = {"method": "ensemble", "draws": 1, "members": ["one", "two"]}
    config = project(tmp_path / "p", sequential(keras), uncertainty=members)
    effects = run(load_config(config), tmp_path / "out.zarr", device="cpu", progress=False)["effects"].to_dataset()
    assert float(np.nanmax(effects.exposure_se)) > 0
    digests = {load_model(str(tmp_path / "p" / name), "dir").weights_digest() for name in ("one", "two", "model")}
    assert len(digests) == 2  # model and one are equal


def test_a_model_that_takes_three_axes_reads_a_dataloader_with_a_dummy_axis(keras, tmp_path):
    folder = write_keras(tmp_path / "p" / "model", sequential(keras))
    text = (folder / "model.yaml").read_text()
    text = text.replace("alphabet_axis: 1", "alphabet_axis: 1, dummy_axis: 2")
    (folder / "model.yaml").write_text(text.replace(f"({LENGTH}, 4)", f"({LENGTH}, 4, 1)"))
    written = {path.name: path.read_text() for path in folder.glob("model.yaml")}
    config = project(tmp_path / "p", sequential(keras))
    (folder / "model.yaml").write_text(written["model.yaml"])
    report = check(load_config(config), device="cpu")
    assert f"({LENGTH}, 4, 1)" in report.layout.replace("batch, ", "") and len(report.dropout) == 2


def test_a_model_that_does_more_than_its_keras_network_is_asked_through_predict_on_batch(keras, tmp_path, caplog):
    code = """
import keras
from kipoi.model import BaseModel


class Model(BaseModel):
    def __init__(self, weights):
        self.model = keras.models.load_model(weights)

    def predict_on_batch(self, x):
        return 2 * self.model.predict_on_batch(x)
"""
    (tmp_path / "p").mkdir()
    for seed, name in enumerate(("one", "two")):
        folder = write_keras(tmp_path / "p" / name, sequential(keras, seed=seed))
        (folder / "model.py").write_text(code)
        text = (folder / "model.yaml").read_text()
        head = "defined_as: model.Model\nargs: {weights: weights.keras}\n"
        (folder / "model.yaml").write_text(head + text[text.index("default_dataloader") :])
    members = {"method": "ensemble", "draws": 1, "members": ["one", "two"]}
    config = project(tmp_path / "p", sequential(keras), uncertainty=members)
    doubled = run(load_config(config), tmp_path / "out.zarr", device="cpu", progress=False)["effects"].to_dataset()
    assert "it does more than call the network" in caplog.text
    for seed, name in enumerate(("one", "two")):
        write_keras(tmp_path / "p" / name, sequential(keras, seed=seed))
    once = run(load_config(config), tmp_path / "once.zarr", device="cpu", progress=False)["effects"].to_dataset()
    np.testing.assert_allclose(doubled.outcome_effect, 2 * once.outcome_effect, rtol=0, atol=1e-6)


def test_dropout_inside_recurrent_layers_is_named(keras, caplog):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((LENGTH, 4)), layers.LSTM(3, dropout=0.2, name="memory"), layers.Dropout(0.5), layers.Dense(2)]
    )
    assert len(find_dropouts(KerasFunction(model), sequences(1))) == 1
    assert "the dropout inside memory stays off" in caplog.text


def test_an_architecture_of_keras_2_is_read_with_tf_keras(keras, tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="tf-keras is not installed")
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            tf_keras.Input((LENGTH, 4)),
            layers.Conv1D(6, 5, activation="relu"),
            layers.SpatialDropout1D(0.3),
            layers.Flatten(),
            layers.GaussianDropout(0.2),
            layers.AlphaDropout(0.2),
            layers.Dropout(0.2),
            layers.Dense(2, activation="sigmoid"),
        ]
    )
    folder = write_keras(tmp_path / "m", sequential(keras))
    model.save_weights(folder / "weights.h5")
    (folder / "arch.json").write_text(json.dumps({**json.loads(model.to_json()), "keras_version": "2.1.6"}))
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(text.replace("weights: weights.keras", "weights: weights.h5, arch: arch.json"))
    loaded = load_model(str(folder), "dir")
    assert type(loaded.kipoi.model).__module__.startswith("tf_keras")
    assert sys.modules["keras"] is keras
    x = sequences(4)
    expected = model.predict_on_batch(x.numpy())
    np.testing.assert_allclose(loaded.predict(x.numpy()), expected, rtol=0, atol=1e-6)
    ours = loaded.module
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=0, atol=1e-6)
    sites = find_dropouts(ours, x[:1])
    assert [(site.kind, site.shape) for site in sites] == [
        ("elementwise", (1, 1, 6)),
        ("gaussian", (1, 96)),
        ("alpha", (1, 96)),
        ("elementwise", (1, 96)),
    ]
    same = predict(ours, draws_of(ours), x[:1].repeat(3, 1, 1))
    assert (same == same[0]).all() and not torch.allclose(same[0], ours(x)[0], atol=1e-4)


def test_weights_that_are_not_there_are_named(keras, tmp_path):
    folder = write_keras(tmp_path / "m", sequential(keras))
    (folder / "weights.keras").unlink()
    with pytest.raises(ModelError, match="weights"):
        load_model(str(folder), "dir")


def without(monkeypatch, package: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )


def keras_2_architecture(folder: Path) -> Path:
    tf_keras = pytest.importorskip("tf_keras", reason="tf-keras is not installed")
    inputs = tf_keras.Input((LENGTH, 4))
    flat = tf_keras.layers.Flatten()(tf_keras.layers.Dropout(0.2)(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(flat))
    write_model(folder, length=LENGTH, outputs=2, labels=("TF1", "DNase"))
    model.save_weights(folder / "w.h5")
    (folder / "a.json").write_text(model.to_json())
    text = (folder / "model.yaml").read_text()
    args = "defined_as: kipoi.model.KerasModel\nargs: {weights: w.h5, arch: a.json, backend: tensorflow}\n"
    (folder / "model.yaml").write_text(args + text[text.index("default_dataloader") :])
    return folder


def test_the_extra_for_keras_2_is_named_where_it_is_missing(keras, tmp_path, monkeypatch):
    folder = keras_2_architecture(tmp_path / "m")
    without(monkeypatch, "tf_keras")
    with pytest.raises(ModelError, match=r"kipoi_deepmr\[keras2\]"):
        load_model(str(folder), "dir")


def test_the_error_of_keras_3_is_told_first(keras, tmp_path):
    pytest.importorskip("tf_keras", reason="tf-keras is not installed")

    class Unknown(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    folder = write_keras(tmp_path / "m", sequential(keras, Unknown()))
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), "dir")
    said = str(caught.value)
    assert 0 < said.index("Unknown") < said.index("Keras 2 (tf_keras) cannot read it, either")


def test_a_model_of_a_group_is_read_with_keras_2(keras, tmp_path):
    import kipoi

    folder = keras_2_architecture(tmp_path / "zoo" / "group")
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").unlink()
    (folder / "model-template.yaml").write_text(text.replace("w.h5", "{{ weights }}"))
    (folder / "models.tsv").write_text("model\tweights\nA\tw.h5\n")
    kipoi.config.add_source("group of keras", LocalSource(str(tmp_path / "zoo")))
    loaded = load_model("group/A", "group of keras")
    assert type(loaded.kipoi.model).__module__.startswith("tf_keras")


def test_another_backend_is_refused(tmp_path):
    code = """if True:
        import keras
        from kipoi_deepmr.model.function import ModelFiles
        from kipoi_deepmr.model.network import find_module
        model = keras.Sequential([keras.Input((20, 4)), keras.layers.Flatten(), keras.layers.Dense(2)])
        find_module(model, ModelFiles(None))
    """
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "the Keras model runs on torch, needed is TensorFlow: set KERAS_BACKEND=tensorflow" in done.stderr
