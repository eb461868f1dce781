"""The SpliceAI example: its network, its Kipoi model, its exons and its configurations."""

import importlib.metadata
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model import load_model, select
from kipoi_deepmr.model.kipoi_model import KipoiModel
from kipoi_deepmr.sequences import Genome, WindowInputs, Windows, sample_sequences

h5py = pytest.importorskip("h5py")

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "spliceai"
REGION = ROOT.parent / "shared" / "data" / "hg38_chr22_32000000_32300000.fa"
EXONS = EXAMPLE / "exons.narrowPeak"


def module_at(path: Path):
    spec = importlib.util.spec_from_file_location(f"example_spliceai_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model = module_at(EXAMPLE / "model" / "model.py")
dataloader = module_at(EXAMPLE / "model" / "dataloader.py")
exons = module_at(EXAMPLE / "exons.py")


def exon_bounds() -> dict[int, tuple[int, int]]:
    """Return start and end of the exons in the region, by number."""
    rows = (line.split("\t") for line in EXONS.read_text().splitlines())
    return {int(row[3].removeprefix("SLC5A1_exon")): (int(row[1]), int(row[2])) for row in rows}


@pytest.fixture(scope="module")
def region() -> str:
    if not REGION.is_file():
        pytest.skip(f"no {REGION}: the part of the genome that this test reads")
    return REGION.read_text().split("\n", 1)[1].replace("\n", "").upper()


def one_hot(bases: str) -> torch.Tensor:
    return torch.from_numpy(np.array([[base == letter for base in bases] for letter in "ACGT"], np.float32))[None]


def random_bases(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


# Files of weights in the layout of the package's


def keras_layers() -> list[dict]:
    """Describe the authors' network as their files do: class, options, inputs, in an order that is not that of data."""
    layers = [{"class_name": "InputLayer", "name": "input_1", "config": {}, "inbound_nodes": []}]
    counts = dict.fromkeys(("conv1d", "batch_normalization", "activation", "add", "cropping1d"), 0)

    def add(kind: str, inputs: list[str], **options) -> str:
        prefix = {"Conv1D": "conv1d", "BatchNormalization": "batch_normalization"}.get(kind, kind.lower())
        counts[prefix] += 1
        name = f"{prefix}_{counts[prefix]}"
        nodes = [[[source, 0, 0, {}] for source in inputs]]
        layers.append({"class_name": kind, "name": name, "config": options, "inbound_nodes": nodes})
        return name

    def convolve(source: str, kernel: int, dilation: int, filters: int = 32, activation: str = "linear") -> str:
        options = {"kernel_size": [kernel], "dilation_rate": [dilation], "activation": activation, "padding": "same"}
        return add("Conv1D", [source], filters=filters, **options)

    x = convolve("input_1", 1, 1)
    total = convolve(x, 1, 1)
    for kernel, dilation in ((11, 1), (11, 4), (21, 10), (41, 25)):
        for _ in range(4):
            inside = x
            for _ in range(2):
                norm = add("BatchNormalization", [inside], epsilon=0.001)
                inside = convolve(add("Activation", [norm], activation="relu"), kernel, dilation)
            x = add("Add", [inside, x])
        total = add("Add", [total, convolve(x, 1, 1)])
    cropped = add("Cropping1D", [total], cropping=[5000, 5000])
    convolve(cropped, 1, 1, filters=3, activation="softmax")
    return sorted(layers, key=lambda layer: layer["name"])


def write_weights(path: Path, seed: int, layers: list[dict] | None = None) -> Path:
    """Write a Keras file with random weights."""
    random = np.random.default_rng(seed)
    layers = layers or keras_layers()
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": layers}})
        weights = file.create_group("model_weights")
        for layer in layers:
            name, options = layer["name"], layer["config"]
            group = weights.create_group(name).create_group(name)
            if layer["class_name"] == "Conv1D":
                inputs = 4 if name == "conv1d_1" else 32
                shape = (options["kernel_size"][0], inputs, options["filters"])
                spread = (0.1 if shape[2] == 3 else 1) * (shape[0] * inputs) ** -0.5  # no probability is 0 or 1
                group["kernel:0"] = random.normal(0, spread, shape).astype(np.float32)
                group["bias:0"] = random.normal(0, 0.3, shape[2]).astype(np.float32)
            if layer["class_name"] == "BatchNormalization":
                for part in ("gamma", "moving_variance"):
                    group[f"{part}:0"] = random.uniform(0.5, 1.5, 32).astype(np.float32)
                for part in ("beta", "moving_mean"):
                    group[f"{part}:0"] = random.normal(0, 0.3, 32).astype(np.float32)
    return path


def evaluate_keras(path: Path, sequence: np.ndarray) -> np.ndarray:
    """Evaluate the graph that a file describes with numpy alone: (length, 4) to (length - 10000, 3)."""
    with h5py.File(path) as file:
        waiting = json.loads(file.attrs["model_config"])["config"]["layers"]
        values: dict[str, np.ndarray] = {}
        while waiting:
            layer = next(one for one in waiting if all(node[0] in values for node in _inputs(one)))
            waiting.remove(layer)
            inputs = [values[node[0]] for node in _inputs(layer)]
            group = file["model_weights"].get(f"{layer['name']}/{layer['name']}", {})
            weights = {name.removesuffix(":0"): group[name][()] for name in group}
            values[layer["name"]] = _evaluate(layer, inputs, weights, sequence)
    return values[layer["name"]]


def _inputs(layer: dict) -> list[list]:
    return layer["inbound_nodes"][0] if layer["inbound_nodes"] else []


def _evaluate(layer: dict, inputs: list[np.ndarray], weights: dict[str, np.ndarray], sequence: np.ndarray):
    options = layer["config"]
    if layer["class_name"] == "InputLayer":
        return sequence
    if layer["class_name"] == "Add":
        return inputs[0] + inputs[1]
    (x,) = inputs
    if layer["class_name"] == "BatchNormalization":
        scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + options["epsilon"])
        return (x - weights["moving_mean"]) * scale + weights["beta"]
    if layer["class_name"] == "Activation":
        assert options["activation"] == "relu"
        return np.maximum(x, 0)
    if layer["class_name"] == "Cropping1D":
        return x[options["cropping"][0] : -options["cropping"][1]]
    assert layer["class_name"] == "Conv1D"
    kernel, step = weights["kernel"], options["dilation_rate"][0]
    edge = (len(kernel) - 1) * step // 2
    padded = np.pad(x, ((edge, edge), (0, 0)))
    out = sum(padded[tap * step : tap * step + len(x)] @ kernel[tap] for tap in range(len(kernel))) + weights["bias"]
    if options["activation"] == "softmax":
        out = np.exp(out - out.max(1, keepdims=True))
        out /= out.sum(1, keepdims=True)
    return out


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for member in range(1, 6):
        write_weights(folder / f"spliceai{member}.h5", member)
    return folder


@pytest.fixture(scope="module")
def real_weights() -> list[Path]:
    try:
        version = importlib.metadata.version("spliceai")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package spliceai, whose weights these tests read, is not installed")
    assert version == "1.3.1"
    return model.weight_files()


@pytest.fixture(scope="module")
def spliceai(real_weights):
    return model.read_network(real_weights[0])


# The network


def test_the_network_gives_what_the_graph_of_the_file_gives(weights):
    bases = one_hot(random_bases(10_006))
    with torch.inference_mode():
        ours = model.read_network(weights / "spliceai1.h5").profile(bases)
    expected = evaluate_keras(weights / "spliceai1.h5", bases[0].T.numpy())
    assert ours.shape == (1, 3, 6)
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(ours[0].T, expected, rtol=0, atol=2e-6)


def test_the_exons_sites_are_those_of_the_profile(weights):
    network = model.read_network(weights / "spliceai2.h5")
    bases = torch.cat([one_hot(random_bases(model.WINDOW, seed)) for seed in (1, 2)])
    lengths = torch.tensor([1, 400])
    with torch.inference_mode():
        sites, profile = network(bases, lengths), network.profile(bases)
    middle = model.LONGEST_EXON
    assert profile.shape == (2, 3, 2 * middle + 1)
    expected = [
        [float(profile[row, 1, middle - length + 1]), float(profile[row, 2, middle])]
        for row, length in enumerate((1, 400))
    ]
    np.testing.assert_allclose(sites, expected, rtol=0, atol=2e-6)


def test_a_position_sees_5000_bases_to_either_side(weights):
    network = model.read_network(weights / "spliceai1.h5")
    bases = one_hot(random_bases(10_003)).requires_grad_()
    network.profile(bases)[0, 1, 1].backward()
    seen = bases.grad[0].abs().amax(0).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (1, 10_001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("Conv1D", "dilation_rate", [5]),
            r"another network than SpliceAI-10k: layer \('Conv1D', 32, 1, 5\) instead of",
        ),
        (("BatchNormalization", "epsilon", 1e-5), r"layer \('BatchNormalization', 1e-05\)"),
        (("Cropping1D", "cropping", [200, 200]), r"layer \('Cropping1D', \(200, 200\)\)"),
    ],
)
def test_another_network_is_refused(tmp_path, change, message):
    kind, option, value = change
    layers = keras_layers()
    next(layer for layer in layers if layer["class_name"] == kind)["config"][option] = value
    path = write_weights(tmp_path / "other.h5", 0, layers)
    with pytest.raises(ValueError, match=message):
        model.read_network(path)


def test_a_shorter_network_and_unlike_shapes_are_refused(tmp_path):
    path = write_weights(tmp_path / "short.h5", 0, [one for one in keras_layers() if one["name"] != "cropping1d_1"])
    with pytest.raises(ValueError, match="71 layers instead of 72"):
        model.read_network(path)
    path = write_weights(tmp_path / "narrow.h5", 0)
    with h5py.File(path, "a") as file:
        group = file["model_weights/conv1d_3/conv1d_3"]
        del group["bias:0"]
        group["bias:0"] = np.zeros(16, np.float32)
    with pytest.raises(ValueError, match=r"narrow\.h5.*shape \(16,\) where SpliceAI-10k has \(32,\)"):
        model.read_network(path)


def test_files_that_hold_no_network_are_refused(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(ValueError, match=r"text\.h5 is not a Keras HDF5 file"):
        model.read_network(text)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"bare\.h5 is not a Keras HDF5 file"):
        model.read_network(tmp_path / "bare.h5")


# The Kipoi model


@pytest.fixture(scope="module")
def kipoi_folder(weights, tmp_path_factory) -> Path:
    """Return the model's folder with random weights instead of the package's."""
    folder = tmp_path_factory.mktemp("kipoi") / "model"
    shutil.copytree(EXAMPLE / "model", folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "model.yaml").read_text()
    assert "args: {}\n" in text
    (folder / "model.yaml").write_text(text.replace("args: {}\n", f"args: {{weights: {json.dumps(str(weights))}}}\n"))
    return folder


@pytest.fixture(scope="module")
def loaded(kipoi_folder) -> KipoiModel:
    return load_model(str(kipoi_folder), "dir")


def windows_of(names: dict[str, Path], fasta: Path, **options) -> Windows:
    with Genome(fasta) as genome:
        return sample_sequences(names, genome, length=model.WINDOW, per_exposure=None, **options).windows


@pytest.mark.usefixtures("region")
def test_the_prediction_is_the_mean_over_the_members(loaded, tmp_path):
    shutil.copy(REGION, tmp_path / REGION.name)
    windows = windows_of({"donor": EXONS}, tmp_path / REGION.name)
    args = {"fasta_file": str(tmp_path / REGION.name), "exons_file": str(EXONS)}
    inputs = WindowInputs(loaded.dataloader, args, windows).load([1, 2])
    assert [target.name for target in loaded.targets()] == ["acceptor", "donor"]
    assert loaded.length({}, None) == model.WINDOW
    assert inputs["exon_length"].tolist() == [105, 60]
    predicted = loaded.predict(inputs)
    members = loaded.kipoi.members
    assert len(members) == 5
    assert all(isinstance(member, torch.nn.Module) and not member.training for member in members)
    with torch.inference_mode():
        given = [torch.from_numpy(inputs[name]) for name in ("seq", "exon_length")]
        alone = np.stack([member(*given).numpy() for member in members])
        whole = loaded.module(*given).numpy()
    assert alone.shape == (5, 2, 2)
    assert alone.std(0).min() > 1e-4
    np.testing.assert_allclose(predicted, alone.mean(0), atol=1e-6)
    np.testing.assert_allclose(whole, alone.mean(0), atol=1e-6)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: [])
    with pytest.raises(ModelError) as caught:
        load_model(str(EXAMPLE / "model"), "dir")
    assert "the package spliceai, which holds SpliceAI's weights, is not installed: pip install \"kipoi_deepmr" in str(
        caught.value
    )


def test_a_missing_file_of_weights_is_named(weights, tmp_path):
    for number in (1, 2, 4, 5):
        shutil.copy(weights / f"spliceai{number}.h5", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"lacks spliceai3.h5"):
        model.SpliceAI(str(tmp_path))


# Exons and windows


def test_the_region_holds_the_exons_with_their_splice_sites(region):
    assert len(region) == 300_000
    bounds = exon_bounds()
    assert sorted(bounds) == list(range(2, 15))
    for start, end in bounds.values():
        assert region[start - 2 : start] == "AG"
        assert region[end : end + 2] == "GT"


def test_the_exons_are_those_of_the_package(real_weights):
    text = exons.annotation("grch38").read_text()
    assert exons.narrow_peaks(text, ["SLC5A1"], offset=32_000_000) == EXONS.read_text()


def test_exons_are_counted_in_the_direction_of_the_gene():
    header = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
    rows = "".join(f"{g}\t2\t{s}\t0\t990\t0,100,300,900,\t50,180,801,990,\n" for g, s in (("UP", "+"), ("DOWN", "-")))
    lines = [line.split("\t") for line in exons.narrow_peaks(header + rows, ["UP", "DOWN"]).splitlines()]
    # The third exon of UP, which is the second of DOWN, is longer than the model's window holds.
    assert [line[:4] for line in lines] == [["chr2", "100", "180", "UP_exon2"], ["chr2", "100", "180", "DOWN_exon3"]]
    assert [(line[5], line[9]) for line in lines] == [("+", "79"), ("-", "0")]
    with pytest.raises(SystemExit, match="no gene SIDEWAYS"):
        exons.narrow_peaks(header + rows, ["SIDEWAYS"])


def test_both_strands_are_read_around_the_last_base(tmp_path, loaded):
    bases = random_bases(12_000, 5)
    fasta = tmp_path / "genome.fa"
    fasta.write_text(f">chr1\n{bases[:6000]}N{bases[6001:]}\n")
    peaks = tmp_path / "exons.narrowPeak"
    peaks.write_text(
        "chr1\t5950\t6010\tup\t0\t+\t0\t-1\t-1\t59\n"  # last base 6009
        "chr1\t6020\t6121\tdown\t0\t-\t0\t-1\t-1\t0\n"  # last base 6020
    )
    windows = windows_of({"donor": peaks}, fasta, use_strand=True)
    args = {"fasta_file": str(fasta), "exons_file": str(peaks), "use_strand": True}
    inputs = WindowInputs(loaded.dataloader, args, windows).load(range(2))
    order = list(windows.strand)
    assert sorted(order) == ["+", "-"]
    forward, reverse = order.index("+"), order.index("-")
    assert inputs["exon_length"][[forward, reverse]].tolist() == [60, 101]
    assert inputs["seq"].dtype == np.float32
    middle = model.WINDOW // 2
    expected = one_hot(bases[6009 - middle : 6010 + middle])[0].numpy()
    expected[:, middle - 9] = 0  # the N, without which SpliceAI was not trained to be asked
    np.testing.assert_array_equal(inputs["seq"][forward], expected)
    complement = bases[6020 - middle : 6021 + middle][::-1].translate(str.maketrans("ACGT", "TGCA"))
    expected = one_hot(complement)[0].numpy()
    expected[:, middle + 20] = 0
    np.testing.assert_array_equal(inputs["seq"][reverse], expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\t5000\t5100\ta\t0\t.", "line 1: an exon needs a strand"),
        ("chr1\t5000\t5100", "line 1: an exon needs a strand"),
        ("chr1\t5000\t5401\ta\t0\t+", "line 1: an exon of 401 bases"),
        ("chr1\t5000\t5100\ta\t0\t+\nchr1\t5001\t5100\tb\t0\t+", "line 2: a second exon with this 5' splice site"),
    ],
)
def test_exons_that_cannot_be_asked_about_are_refused(tmp_path, line, message):
    path = tmp_path / "exons.bed"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        dataloader.read_exons(path)


def test_a_window_without_exon_is_named(tmp_path):
    fasta, windows, bed = (tmp_path / name for name in ("genome.fa", "windows.bed", "exons.bed"))
    fasta.write_text(f">chr1\n{random_bases(200)}\n")
    windows.write_text("chr1\t50\t151\n")
    bed.write_text("chr1\t80\t101\ta\t0\t-\nchr1\t80\t102\tb\t0\t+\n")
    with pytest.raises(ValueError, match=r"no exon on the strand \+ whose last base is chr1:101, the middle of"):
        dataloader.ExonDl(str(windows), str(fasta), str(bed))[0]
    bed.write_text("1\t80\t101\ta\t0\t+\n")
    assert int(dataloader.ExonDl(str(windows), str(fasta), str(bed))[0]["inputs"]["exon_length"]) == 21


# Configurations


@pytest.mark.parametrize(
    "path", [EXAMPLE / "config.yaml", ROOT / "model_configs" / "spliceai.yaml"], ids=lambda p: p.stem
)
def test_the_configurations_name_the_models_tasks(path, loaded):
    config = load_config(path)
    chosen = select(loaded.targets(), config)
    assert [target.name for target in chosen.exposures.values()] == ["donor"]
    assert [target.name for target in chosen.outcomes.values()] == ["acceptor"]
    assert config.resolve(config.model.name) == EXAMPLE / "model"
    assert set(config.dataloader.args) <= {"fasta_file", "exons_file", "use_strand", "num_chr_fasta"}
    start, end = config.mutagenesis.positions
    middle, shortest = model.WINDOW // 2, min(end - start for start, end in exon_bounds().values())
    # The last bases of the exon and the donor, not the 3' splice site of the shortest exon.
    assert middle - shortest + 20 < start < middle - 3
    assert middle + 6 < end


def test_the_example_finds_its_files():
    config = load_config(EXAMPLE / "config.yaml")
    exons_file = config.resolve(config.dataloader.args["exons_file"])
    assert exons_file == config.resolve(config.exposures["donor"].peaks)
    assert exons_file.is_file()
    assert config.dataloader.args["fasta_file"] == REGION.name


# The trained networks on the genome


def test_the_trained_network_is_the_graph_of_its_file(spliceai, real_weights, region):
    bases = one_hot(region[62_000:72_060])
    with torch.inference_mode():
        ours = spliceai.profile(bases)[0].T
    np.testing.assert_allclose(ours, evaluate_keras(real_weights[0], bases[0].T.numpy()), rtol=0, atol=2e-6)


def test_annotated_splice_sites_are_found_and_hardly_anything_else(spliceai, region):
    first, last = 66_800, 68_800  # exons 3, 4 and 5
    with torch.inference_mode():
        profile = spliceai.profile(one_hot(region[first - 5000 : last + 5000]))[0].numpy()
    sites = {1: [], 2: []}
    for number in (3, 4, 5):
        start, end = exon_bounds()[number]
        sites[1].append(start - first)
        sites[2].append(end - 1 - first)
    for channel, places in sites.items():
        assert profile[channel, places].min() > 0.9
        elsewhere = np.delete(profile[channel], places)
        assert len(elsewhere) == 1997
        assert elsewhere.max() < 0.1
        assert np.mean(elsewhere < 0.001) > 0.99


@pytest.mark.parametrize(("number", "low", "high"), [(3, 0.0, 0.01), (8, 0.85, 1.0)])
def test_a_broken_donor_takes_the_acceptor_of_a_short_exon_with_it(spliceai, region, number, low, high):
    start, end = exon_bounds()[number]
    middle = model.WINDOW // 2
    bases = region[end - 1 - middle : end + middle]
    assert bases[middle + 1] == "G"
    mutant = bases[: middle + 1] + "A" + bases[middle + 2 :]
    with torch.inference_mode():
        reference, changed = spliceai(torch.cat([one_hot(bases), one_hot(mutant)]), torch.tensor([end - start] * 2))
    assert reference.min() > 0.85
    assert changed[1] < 0.01
    assert low <= changed[0] <= high


@pytest.mark.parametrize("number", [3, 8])
def test_the_readme_tells_what_a_broken_donor_does(real_weights, region, number):
    row = re.search(
        rf"^\| {number} \| \d+ \| (.*) → (.*) \| (.*) → (.*) \|$", (EXAMPLE / "README.md").read_text(), re.M
    )
    start, end = exon_bounds()[number]
    middle = model.WINDOW // 2
    reference = one_hot(region[end - 1 - middle : end + middle])
    mutant = reference.clone()
    mutant[0, :, middle + 1] = torch.tensor([1.0, 0, 0, 0])
    ensemble = model.SpliceAI()
    inputs = {"seq": torch.cat([reference, mutant]).numpy(), "exon_length": np.array([end - start] * 2)}
    (acceptor, donor), (acceptor_left, donor_left) = ensemble.predict_on_batch(inputs)
    expected = [donor, donor_left, acceptor, acceptor_left]
    assert [float(cell) for cell in row.groups()] == pytest.approx(expected, abs=0.0051)
