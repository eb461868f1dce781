"""Runs from the YAML file to the store: against plain computations, and stopped, resumed and spoiled in every way."""

import errno
import importlib
import itertools
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import statsmodels.api as sm
import xarray as xr
import yaml
import zarr
from scipy import optimize, stats

import kipoi_deepmr
from kipoi_deepmr import terms
from kipoi_deepmr.config import load_config
from kipoi_deepmr.cube import locked
from kipoi_deepmr.errors import (
    ConfigError,
    ModelError,
    PredictionError,
    SequenceError,
    StoreError,
    TaskError,
)
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.running import check, run
from tests.kipoi_models import CONVOLUTION, plain_loop, write_model, write_peaks, write_project

# The package offers the function under the name of its module.
RUN = importlib.import_module("kipoi_deepmr.running")
LENGTH = 60
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
COLUMNS = [0, 2, 3]

# Returns NaN once a sequence holds the 8 bases that follow: references pass, one mutant does not.
TRAP = CONVOLUTION.replace(
    "        return self.last(self.second(self.first(x)))",
    "        y = self.last(self.second(self.first(x)))\n"
    "        code = (x[:, :, 20:28] * torch.arange(4.0)[:, None]).sum(1)\n"
    "        trap = torch.tensor({trap})\n"
    "        return torch.where((code == trap).all(1)[:, None], torch.nan, y)",
)


def genome_of(folder: Path) -> dict[str, str]:
    records = (record.split("\n", 1) for record in (folder / "genome.fa").read_text().split(">")[1:])
    return {name: bases.replace("\n", "").upper() for name, bases in records}


def window(contigs, chrom, start, strand="+"):
    """Return the name and the bases of the window around a peak, as the model reads them."""
    bases = contigs[chrom][start : start + LENGTH]
    name = f"{chrom}:{start}-{start + LENGTH}({strand})"
    return name, bases if strand == "+" else bases.translate(COMPLEMENT)[::-1]


def windows_of(folder: Path) -> dict[str, str]:
    """Return the windows of `write_project` in the order of the genome; a peak's centre decides."""
    centres = [("chr1", 120), ("chr1", 515), ("chr2", 305), ("chr2", 610)]
    contigs = genome_of(folder)
    return dict(window(contigs, chrom, centre - LENGTH // 2) for chrom, centre in centres)


def plain(path):
    """Open a store as a user does; a warning is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_datatree(path, engine="zarr")


def go(config: Path, output: Path, **options) -> xr.DataTree:
    return run(load_config(config), output, device="cpu", progress=False, **options)


def assert_same_results(one: xr.DataTree, other: xr.DataTree, tolerance: float = 1e-5) -> None:
    """Compare two stores within float noise, relative to the largest effect as the engines are."""
    effect = max(float(np.abs(other["effects"][f"{side}_effect"]).max()) for side in ("exposure", "outcome"))
    for group in ("effects", "local", "global"):
        ours, theirs = one[group].to_dataset().load(), other[group].to_dataset().load()
        assert set(ours.variables) == set(theirs.variables)
        for name, variable in ours.variables.items():
            if variable.dtype.kind != "f":
                assert variable.values.tolist() == theirs[name].values.tolist(), name
                continue
            if group == "effects":
                # Effects are differences of predictions below 1, which float32 rounds.
                size = max(effect, 8 * float(np.finfo(np.float32).eps) / tolerance) if tolerance else 0.0
                atol = tolerance * (1 if "reference" in name else effect * size if "covariance" in name else size)
            else:
                # Estimates divide by effects and by their errors, which amplifies the noise.
                atol = 1000 * tolerance * np.nanmax(np.abs(variable.values), initial=0)
            np.testing.assert_allclose(variable.values, theirs[name].values, rtol=0, atol=atol, err_msg=name)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "project"


@pytest.fixture
def config(folder):
    folder.mkdir()
    return write_project(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project with its finished store; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("done") / "project"
    folder.mkdir()
    config = write_project(folder)
    go(config, folder / "out.zarr")
    return config


@pytest.fixture
def finished(done, tmp_path):
    """A finished project to spoil."""
    shutil.copytree(done.parent, tmp_path / "project", copy_function=shutil.copy2)
    return tmp_path / "project" / done.name


def stop_after(monkeypatch, sequences: int, error: BaseException) -> None:
    """Let a run fail when it is about to write the sequence after `sequences`."""
    from kipoi_deepmr.cube import Cube

    original, count = Cube.write, itertools.count()

    def write(self, *args, **kwargs):
        if next(count) == sequences:
            raise error
        original(self, *args, **kwargs)

    monkeypatch.setattr(Cube, "write", write)


def test_the_store_equals_a_plain_computation(done):
    folder = done.parent
    effects = plain(folder / "out.zarr")["effects"].to_dataset()
    windows, positions = windows_of(folder), range(20, 28)
    assert effects["sequence"].values.tolist() == list(windows)
    draws, references = plain_loop(folder / "model", windows, COLUMNS, positions, draws=4)
    mean, sd = draws.mean(3), draws.std(3)
    largest = np.nanmax(np.abs(draws))
    centred = draws - mean[..., None, :]
    covariance = (centred[..., :2, None] * centred[..., None, 2:]).mean(3)

    def same(name, expected, scale):
        np.testing.assert_allclose(effects[name], expected, rtol=0, atol=1e-5 * scale, err_msg=name)

    same("exposure_effect", np.moveaxis(mean[..., :2], -1, 0), largest)
    same("exposure_se", np.moveaxis(sd[..., :2], -1, 0), largest)
    same("outcome_effect", np.moveaxis(mean[..., 2:], -1, 0), largest)
    same("outcome_se", np.moveaxis(sd[..., 2:], -1, 0), largest)
    same("error_covariance", np.moveaxis(covariance, (-2, -1), (0, 1)), largest**2)
    same("exposure_reference", references.mean(1).T[:2], 1)
    same("exposure_reference_sd", references.std(1).T[:2], 1)
    same("outcome_reference", references.mean(1).T[2:], 1)
    same("outcome_reference_sd", references.std(1).T[2:], 1)
    # NaN at the reference base alone.
    bases = np.array([list(read[20:28]) for read in windows.values()])
    at_reference = bases[..., None] == np.array(list("ACGT"))
    for name in ("exposure_effect", "outcome_se", "error_covariance"):
        assert (np.isnan(effects[name].values) == at_reference).all()


def test_coordinates_are_those_of_the_fasta_and_the_configuration(done):
    effects = plain(done.parent / "out.zarr")["effects"].to_dataset()
    windows = windows_of(done.parent)
    assert ["".join(row) for row in effects["reference_allele"].values] == [read[20:28] for read in windows.values()]
    assert effects["position"].values.tolist() == list(range(20, 28))
    assert effects["allele"].values.tolist() == list("ACGT")
    assert effects["exposure"].values.tolist() == ["A", "B"]
    assert effects["outcome"].values.tolist() == ["open"]
    assert effects["exposure_task"].values.tolist() == ["TF1", "TF2"]
    assert effects["exposure_task_index"].values.tolist() == [0, 2]
    assert effects["outcome_task"].values.tolist() == ["DNase"]
    assert effects["outcome_task_index"].values.tolist() == [3]
    assert effects["bound"].values.tolist() == [[True, True, True, False], [True, False, False, True]]
    named = zip(*(effects[name].values for name in ("chrom", "start", "end", "strand")), strict=True)
    assert [f"{chrom}:{start}-{end}({strand})" for chrom, start, end, strand in named] == list(windows)
    assert effects["completed"].all()


def test_every_variable_of_the_estimates_explains_itself(done):
    tree = plain(done.parent / "out.zarr")
    for group, known in (("local", {**terms.LOCAL, **terms.LOCAL_INFLUENCE}), ("global", terms.GLOBAL)):
        dataset = tree[group].to_dataset()
        assert set(dataset.data_vars) == set(known)
        for name, term in known.items():
            assert dataset[name].dims == term.dims
            assert dataset[name].attrs["long_name"]
            assert dataset[name].attrs["units"]
            if name == "status":
                assert dataset[name].dtype == np.int8
                assert len(dataset[name].attrs["flag_values"]) == len(dataset[name].attrs["flag_meanings"].split())
            else:
                assert dataset[name].dtype == (np.int64 if name.startswith("n_") else np.float64)
        assert dataset["estimate"].attrs["units"] == "outcome per exposure"
        assert dataset["estimate"].attrs["scale"] == "identity"
        assert dataset["ci_low"].attrs["confidence_level"] == 0.95
    attrs = tree.attrs
    config = load_config(done)
    assert attrs["config_sha256"] == config.sha256()
    assert json.loads(attrs["config"]) == json.loads(config.canonical())
    assert "effects started" in attrs["history"]
    assert "effects completed" in attrs["history"]
    assert json.loads(attrs["versions"])["zarr"] == zarr.__version__
    assert attrs["engine"] in {"delta", "full"}
    assert attrs["draws"] == 4
    assert attrs["draw_seed"] == attrs["sequence_seed"] == 1
    assert attrs["device"].startswith("cpu")
    for name in ("title", "source", "weights_sha256", "scale", "standard_error"):
        assert attrs[name]


def wls(y, x, weights):
    """Weighted regression with the errors of a multiplicative random-effects model that is never below 1."""
    fit = sm.WLS(y, x, weights=weights).fit()
    return fit.params, fit.bse / min(np.sqrt(fit.scale), 1), fit.ssr


def test_local_effects_equal_weighted_regressions(done):
    tree = plain(done.parent / "out.zarr")
    effects, local = tree["effects"].to_dataset(), tree["local"].to_dataset()
    for e, s in itertools.product(range(2), range(4)):
        found = local.isel(exposure=e, outcome=0, sequence=s)
        if not effects["bound"].values[e, s]:
            assert np.isnan(found["estimate"]).all()
            assert (found["status"] == -1).all()
            assert int(found["n_instruments"]) == 0
            continue
        bx, bxse, by, byse = (
            effects[name].values[index, s].ravel().astype(float)
            for name, index in (("exposure_effect", e), ("exposure_se", e), ("outcome_effect", 0), ("outcome_se", 0))
        )
        used = np.isfinite(bx) & (bxse > 0) & (byse > 0)
        bx, bxse, by, byse = (array[used] for array in (bx, bxse, by, byse))
        assert int(found["n_instruments"]) == used.sum()
        assert int(found["n_without_error"]) == 24 - used.sum()
        np.testing.assert_allclose(found["f_statistic"], np.mean((bx / bxse) ** 2))
        (ivw,), (ivw_se,), q = wls(by, bx, byse**-2.0)
        sign = np.sign(bx)
        (intercept, egger), (intercept_se, egger_se), rucker = wls(by * sign, sm.add_constant(np.abs(bx)), byse**-2.0)
        expected = {"ivw": (ivw, ivw_se, q, used.sum() - 1), "egger": (egger, egger_se, rucker, used.sum() - 2)}
        for method, (estimate, se, heterogeneity, df) in expected.items():
            one = found.sel({"estimator": method})
            np.testing.assert_allclose(one["estimate"], estimate, rtol=1e-9)
            np.testing.assert_allclose(one["se"], se, rtol=1e-9)
            np.testing.assert_allclose(one["ci_low"], estimate - stats.norm.ppf(0.975) * se, rtol=1e-9)
            np.testing.assert_allclose(one["pvalue"], 2 * stats.norm.sf(abs(estimate / se)), rtol=1e-9)
            np.testing.assert_allclose(one["q"], heterogeneity, rtol=1e-9)
            np.testing.assert_allclose(one["q_pvalue"], stats.chi2.sf(heterogeneity, df), rtol=1e-6)
        np.testing.assert_allclose(found.sel({"estimator": "egger"})["intercept"], intercept, rtol=1e-8)
        np.testing.assert_allclose(found.sel({"estimator": "egger"})["intercept_se"], intercept_se, rtol=1e-8)
        assert np.isnan(found.sel({"estimator": "ivw"})["intercept"])


def restricted_likelihood(tau2, y, v):
    w = 1 / (v + tau2)
    mean = (w * y).sum() / w.sum()
    return 0.5 * (np.log(v + tau2).sum() + np.log(w.sum()) + (w * (y - mean) ** 2).sum())


@pytest.mark.parametrize("method", ["REML", "DL"])
def test_global_effects_equal_meta_analyses_by_hand(finished, method):
    tree = re_estimate(finished.parent / "out.zarr", meta={"method": method})
    local, overall = tree["local"].to_dataset(), tree["global"].to_dataset()
    assert overall.attrs["tau2_method"] == method
    for e, m in itertools.product(range(2), range(2)):
        y = local["estimate"].values[e, 0, :, m]
        v = local["se"].values[e, 0, :, m][np.isfinite(y)] ** 2
        y = y[np.isfinite(y)]
        found = overall.isel(exposure=e, outcome=0, estimator=m)
        w = 1 / v
        q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
        if method == "DL":
            tau2 = max(0.0, (q - (len(y) - 1)) / (w.sum() - (w**2).sum() / w.sum()))
        else:
            grid = np.concatenate([[0], np.geomspace(1e-8, 1e4, 2000) * v.mean()])
            start = grid[np.argmin([restricted_likelihood(t, y, v) for t in grid])]
            tau2 = (
                start
                and optimize.minimize_scalar(
                    restricted_likelihood,
                    args=(y, v),
                    bounds=(start / 1.1, start * 1.1),
                    options={"xatol": 1e-12 * start},
                ).x
            )
        w = 1 / (v + tau2)
        np.testing.assert_allclose(found["tau2"], tau2, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(found["estimate"], (w * y).sum() / w.sum(), rtol=1e-4)
        np.testing.assert_allclose(found["se"], w.sum() ** -0.5, rtol=1e-4)
        np.testing.assert_allclose(found["q"], q, rtol=1e-8)
        assert int(found["n_sequences"]) == len(y)


def test_monte_carlo_errors_are_smaller_by_the_root_of_the_draws(done, tmp_path):
    shutil.copytree(done.parent, tmp_path / "p", ignore=shutil.ignore_patterns("out.zarr"))
    config = write_project(tmp_path / "p", {"effects": {"standard_error": "monte_carlo"}})
    posterior = plain(done.parent / "out.zarr")["effects"].to_dataset()
    found = go(config, tmp_path / "out.zarr")["effects"].to_dataset()
    np.testing.assert_allclose(found["exposure_effect"], posterior["exposure_effect"], rtol=1e-6)
    np.testing.assert_allclose(found["exposure_se"], posterior["exposure_se"] / 2, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found["error_covariance"], posterior["error_covariance"] / 4, rtol=1e-4, atol=1e-12)
    assert found["outcome_se"].attrs["standard_error"] == "monte_carlo"


def test_both_strands_and_unknown_bases(folder):
    folder.mkdir()
    config = write_project(
        folder,
        {
            "dataloader": {"args": {"fasta_file": "genome.fa", "use_strand": True}},
            "exposures": {
                "A": {"task": "TF1", "peaks": "peaks/stranded.bed"},
                "B": {"task": "TF2", "occurrence": 2, "peaks": "peaks/stranded.bed"},
            },
            "sequences": {"max_n_fraction": 0.5},
        },
    )
    genome = folder / "genome.fa"
    contigs = genome_of(folder)
    contigs["chr1"] = contigs["chr1"][:112] + "N" + contigs["chr1"][113:300] + "N" * 8 + contigs["chr1"][308:]
    genome.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    rows = [("chr1", 120, "+"), ("chr1", 120, "-"), ("chr1", 310, "+"), ("chr2", 305, "-")]
    (folder / "peaks/stranded.bed").write_text(
        "".join(f"{chrom}\t{centre - 5}\t{centre + 5}\tp\t0\t{strand}\n" for chrom, centre, strand in rows)
    )
    expected = dict(window(contigs, chrom, centre - 30, strand) for chrom, centre, strand in rows)
    report = check(load_config(config), device="cpu")
    tree = go(config, folder / "out.zarr")
    effects = tree["effects"].to_dataset()
    assert effects["sequence"].values.tolist() == list(expected)
    assert ["".join(row) for row in effects["reference_allele"].values] == [read[20:28] for read in expected.values()]
    assert effects["strand"].values.tolist() == ["+", "-", "+", "-"]
    draws, _ = plain_loop(folder / "model", expected, COLUMNS, range(20, 28), draws=4)
    largest = np.nanmax(np.abs(draws))
    np.testing.assert_allclose(
        effects["exposure_effect"], np.moveaxis(draws.mean(3)[..., :2], -1, 0), rtol=0, atol=1e-5 * largest
    )
    # The third window has nothing but N at the positions; one N in the others has no mutant.
    assert np.isnan(effects["exposure_effect"].isel(sequence=2)).all()
    assert (tree["local"]["n_instruments"].isel(sequence=2) == 0).all()
    assert np.isnan(tree["local"]["estimate"].isel(sequence=2)).all()
    assert (tree["global"]["n_sequences"] == 3).all()
    assert effects["completed"].all()
    assert report.mutants == int(np.isfinite(effects["exposure_effect"].isel(exposure=0)).sum())
    assert report.mutants < 3 * 4 * 8


def test_progress_counts_the_mutants_that_there_are(folder, capsys):
    folder.mkdir()
    config = write_project(folder, {"mutagenesis": {"positions": [28, 34]}})
    contigs = genome_of(folder)
    contigs["chr1"] = contigs["chr1"][:120] + "NNN" + contigs["chr1"][123:]
    (folder / "genome.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    run(load_config(config), folder / "out.zarr", device="cpu")
    said = capsys.readouterr().err
    assert "4/4 sequences: 100%" in said
    assert "63.0/63.0" in said
    assert "mutants/s" in said


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_nothing(done, tmp_path, batch_size):
    found = go(done, tmp_path / "out.zarr", batch_size=batch_size)
    assert_same_results(found, plain(done.parent / "out.zarr"))


def test_other_sequences_and_exposures_and_their_order_change_nothing(done, tmp_path):
    whole = plain(done.parent / "out.zarr")
    shutil.copytree(done.parent, tmp_path / "p", ignore=shutil.ignore_patterns("out.zarr"))
    config = tmp_path / "p" / done.name
    settings = yaml.safe_load(config.read_text())
    settings["exposures"] = {"B": settings["exposures"]["B"]}
    write_peaks(tmp_path / "p/peaks/B.bed.gz", [("chr2", 600, 620)])
    config.write_text(yaml.safe_dump(settings))
    alone = go(config, tmp_path / "alone.zarr")
    name = alone["effects"]["sequence"].values[0]
    one, same = alone["effects"].to_dataset().load(), whole["effects"].to_dataset().sel(exposure=["B"], sequence=[name])
    for variable in terms.EFFECTS:
        largest = float(np.abs(same[variable]).max())
        np.testing.assert_allclose(one[variable], same[variable], rtol=0, atol=1e-5 * largest)
    reverse = yaml.safe_load(done.read_text())
    reverse["exposures"] = dict(reversed(reverse["exposures"].items()))
    config.write_text(yaml.safe_dump(reverse, sort_keys=False))
    shutil.copytree(done.parent / "peaks", tmp_path / "p/peaks", dirs_exist_ok=True)
    turned = go(config, tmp_path / "turned.zarr")
    assert turned["effects"]["exposure"].values.tolist() == ["B", "A"]
    assert_same_results(
        xr.DataTree.from_dict(
            {g: turned[g].to_dataset().sel(exposure=["A", "B"]) for g in ("effects", "local", "global")}
        ),
        whole,
    )


def test_shared_draws_use_one_set_of_masks(folder):
    folder.mkdir()
    config = write_project(folder, {"uncertainty": {"draws": 3, "shared_draws": True, "seed": 5}})
    effects = go(config, folder / "out.zarr")["effects"].to_dataset()
    draws, references = plain_loop(
        folder / "model", windows_of(folder), COLUMNS, range(20, 28), draws=3, seed=5, shared=True
    )
    largest = np.nanmax(np.abs(draws))
    np.testing.assert_allclose(
        effects["exposure_effect"], np.moveaxis(draws.mean(3)[..., :2], -1, 0), rtol=0, atol=1e-5 * largest
    )
    np.testing.assert_allclose(effects["outcome_reference"], references.mean(1).T[2:], rtol=1e-5)
    independent, _ = plain_loop(folder / "model", windows_of(folder), COLUMNS, range(20, 28), draws=3, seed=5)
    assert np.nanmax(np.abs(draws - independent)) > 100e-5 * largest


def test_a_killed_run_resumes_to_the_same_result(folder):
    folder.mkdir()
    config = write_project(folder, {"mutagenesis": {"positions": [15, 45]}, "uncertainty": {"draws": 8}})
    store = folder / "out.zarr"
    command = [sys.executable, "-m", "kipoi_deepmr", "run", str(config), "-o", str(store), "--batch_size", "2", "-q"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any((store / "effects/completed/c").glob("[0-9]*")):
                break
            time.sleep(0.002)
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    before = plain(store)["effects"].to_dataset().load()
    count = int(before["completed"].sum())
    assert 1 <= count < 4
    whole = go(config, folder / "whole.zarr", batch_size=2)
    resumed = go(config, store, batch_size=2, resume=True)
    assert_same_results(resumed, whole)
    kept = resumed["effects"].to_dataset().isel(sequence=slice(count))
    for name in terms.EFFECTS:
        np.testing.assert_array_equal(kept[name], before[name].isel(sequence=slice(count)))
    assert "effects resumed" in plain(store).attrs["history"]
    assert sorted(p.name for p in folder.iterdir() if "zarr" in p.name) == ["out.zarr", "whole.zarr"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_stops_a_run_leaves_the_completed_sequences(done, tmp_path, monkeypatch, error):
    store = tmp_path / "out.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, error)
        with pytest.raises(type(error)):
            go(done, store, batch_size=1)
    stopped = plain(store)
    assert set(stopped.children) == {"effects"}
    assert stopped["effects"]["completed"].values.tolist() == [True, True, False, False]
    assert_same_results(go(done, store, batch_size=1, resume=True), plain(done.parent / "out.zarr"))


def test_a_full_disk_in_the_middle_is_explained_and_resumed(done, tmp_path, monkeypatch):
    store = tmp_path / "out.zarr"
    original, count = zarr.storage.LocalStore.set, itertools.count()

    async def write(self, key, value, *args, **kwargs):
        if "outcome_se/c" in key and next(count) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        await original(self, key, value, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", write)
        with pytest.raises(StoreError, match=r"disk is full.*--resume"):
            go(done, store, batch_size=1)
    assert plain(store)["effects"]["completed"].values.tolist() == [True, True, False, False]
    assert_same_results(go(done, store, batch_size=1, resume=True), plain(done.parent / "out.zarr"))


def test_a_mutant_that_cannot_be_predicted_is_named_and_the_others_are_kept(folder):
    folder.mkdir()
    config = write_project(folder)
    name, read = list(windows_of(folder).items())[2]
    base = next(base for base in "ACGT" if base != read[23])
    mutant = read[20:23] + base + read[24:28]
    trap = [float("ACGT".index(letter)) for letter in mutant]
    write_model(folder / "model", code=TRAP.replace("{trap}", str(trap)))
    with pytest.raises(PredictionError) as caught:
        go(config, folder / "out.zarr", batch_size=1)
    said = str(caught.value)
    assert name in said
    assert f"position 23 mutated to {base}" in said
    assert plain(folder / "out.zarr")["effects"]["completed"].values.tolist() == [True, True, False, False]


def test_a_store_without_estimates_gets_them(finished):
    store = finished.parent / "out.zarr"
    before = plain(store)
    before = {group: before[group].to_dataset().load() for group in ("effects", "local", "global")}
    shutil.rmtree(store / "local")
    assert_same_results(go(finished, store, resume=True), xr.DataTree.from_dict(before), 0)
    shutil.rmtree(store / "global")
    assert_same_results(re_estimate(store), xr.DataTree.from_dict(before), 0)
    plain(store)


def test_resume_starts_where_nothing_is_and_clears_a_leftover(done, tmp_path):
    store = tmp_path / "new" / "folder" / "out.zarr"
    (store.parent / "out.zarr.partial").mkdir(parents=True)
    assert_same_results(go(done, store, resume=True), plain(done.parent / "out.zarr"))
    assert [p.name for p in store.parent.iterdir()] == ["out.zarr"]


CHANGES = {
    "draws": ({"uncertainty": {"draws": 5}}, "other settings (uncertainty.draws)"),
    "scale": ({"effects": {"scale": "logit"}}, "other settings (effects.scale)"),
    "seed": ({"sequences": {"seed": 2}}, "other settings (sequences.seed)"),
    "positions": ({"mutagenesis": {"positions": [20, 29]}}, "other settings (mutagenesis.positions)"),
    "outcome": ({"outcomes": {"open": {"task": "TF2", "occurrence": 1}}}, "other settings (outcomes.open)"),
    "exposure": ({"exposures": {"C": {"task": 1, "peaks": "peaks/A.bed"}}}, "other settings (exposures.C)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_with_other_settings_is_refused(finished, change):
    changes, reason = CHANGES[change]
    before = (finished.parent / "out.zarr/zarr.json").read_bytes()
    with pytest.raises(StoreError) as caught:
        go(write_project(finished.parent, changes), finished.parent / "out.zarr", resume=True)
    assert reason in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert (finished.parent / "out.zarr/zarr.json").read_bytes() == before


def test_resume_with_exposures_in_another_order_is_refused(finished):
    settings = yaml.safe_load(finished.read_text())
    settings["exposures"] = dict(reversed(settings["exposures"].items()))
    finished.write_text(yaml.safe_dump(settings, sort_keys=False))
    with pytest.raises(StoreError, match="order of exposures"):
        go(finished, finished.parent / "out.zarr", resume=True)


@pytest.mark.parametrize("change", ["weights", "dropout", "peaks", "fasta", "fasta around"])
def test_resume_with_other_data_is_refused(finished, change):
    folder = finished.parent
    if change == "weights":
        write_model(folder / "model", seed=1)
    elif change == "dropout":
        write_model(folder / "model", kwargs={"p": 0.5})
    elif change == "peaks":
        write_peaks(folder / "peaks/A.bed", [("chr1", 100, 140), ("chr1", 501, 531), ("chr2", 300, 310)])
    else:
        text = (folder / "genome.fa").read_text()
        start = text.index("\n") + 1 + 90 + (22 if change == "fasta" else 2)
        other = "A" if text[start] != "A" else "C"
        (folder / "genome.fa").write_text(text[:start] + other + text[start + 1 :])
    reason = {
        "weights": "other weights",
        "dropout": "other dropouts",
        "peaks": r"other data \(sequence differs\)",
        "fasta": r"other data \(reference_allele differs\)",
        "fasta around": "other bases around the mutated positions: the FASTA file has changed",
    }[change]
    with pytest.raises(StoreError, match=reason):
        go(finished, folder / "out.zarr", resume=True)


def test_resume_may_change_the_estimators_and_what_has_no_influence(finished):
    changes = {
        "mr": {"methods": ["ivw"], "alpha": 0.1},
        "meta": {"method": "DL"},
        "mutagenesis": {"positions": [20, 28], "engine": "full", "memory": "1GiB"},
    }
    config = write_project(finished.parent, changes)
    tree = go(config, finished.parent / "out.zarr", resume=True)
    assert tree["local"]["estimator"].values.tolist() == ["ivw"]
    assert tree["global"]["ci_low"].attrs["confidence_level"] == 0.9
    assert tree["global"].attrs["tau2_method"] == "DL"
    assert tree.attrs["config_sha256"] == load_config(config).sha256()


def test_an_existing_store_is_a_clear_choice(finished, tmp_path):
    store = finished.parent / "out.zarr"
    with pytest.raises(StoreError, match=r"exists: continue it with --resume, replace it with --overwrite"):
        go(finished, store)
    with pytest.raises(StoreError, match="either --resume or --overwrite"):
        go(finished, store, resume=True, overwrite=True)
    config = write_project(finished.parent, {"uncertainty": {"draws": 2}})
    assert go(config, store, overwrite=True).attrs["draws"] == 2


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("kind", ["folder with files", "empty folder", "file", "below a file"])
def test_an_output_that_is_no_store_is_refused_before_the_model_is_loaded(config, tmp_path, kind, flags, monkeypatch):
    monkeypatch.setattr(RUN, "prepare", lambda *_, **__: pytest.fail("loaded the model"))
    output = tmp_path / "OUT.zarr"
    if kind == "folder with files":
        output.mkdir()
        (output / "thesis.tex").write_text("mine")
    elif kind == "empty folder":
        output.mkdir()
    else:
        output.write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match=r"no store of kipoi_deepmr|is a file, not a folder"):
        go(config, output / "x.zarr" if kind == "below a file" else output, **flags)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert output.exists()


def test_a_name_that_is_too_long_is_explained(config, tmp_path):
    with pytest.raises(StoreError, match=r"cannot be created: File name too long"):
        go(config, tmp_path / ("x" * 300))


def test_two_processes_cannot_write_one_store(finished):
    store = finished.parent / "out.zarr"
    with locked(store, "run"):
        for act in (lambda: go(finished, store, resume=True), lambda: go(finished, store, overwrite=True)):
            with pytest.raises(StoreError, match=r"is being written by process \d+ on .* \(run\)"):
                act()
        with pytest.raises(StoreError, match="is being written"):
            re_estimate(store)
    assert re_estimate(store)["local"].sizes["estimator"] == 2


def test_a_read_only_folder_is_refused_before_the_model_is_loaded(config, tmp_path, monkeypatch):
    monkeypatch.setattr(RUN, "prepare", lambda *_, **__: pytest.fail("loaded the model"))
    # A superuser may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr(RUN.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(StoreError, match=r"is read-only for you: choose another output"):
        go(config, tmp_path / "new" / "out.zarr")
    assert not (tmp_path / "new").exists()


def test_a_bad_configuration_leaves_the_store_to_be_overwritten(finished):
    store = finished.parent / "out.zarr"
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    config = write_project(finished.parent, {"outcomes": {"open": {"task": "DNas"}}})
    with pytest.raises(TaskError, match="Did you mean 'DNase'"):
        go(config, store, overwrite=True)
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_estimates_come_in_blocks_of_bounded_memory(finished, monkeypatch):
    store = finished.parent / "out.zarr"
    before = plain(store)["local"].to_dataset().load()
    sizes = []
    from kipoi_deepmr.estimate import summary as stage

    original = stage.instruments.select

    def select(bx, *args, **kwargs):
        sizes.append(bx.shape[1])
        return original(bx, *args, **kwargs)

    monkeypatch.setattr(stage, "_BLOCK_ELEMENTS", 2 * 8 * 3)
    monkeypatch.setattr(stage.instruments, "select", select)
    after = re_estimate(store)["local"].to_dataset().load()
    # First come the made-up numbers on which the methods are tried.
    assert sizes == [1, 2, 1, 2]
    xr.testing.assert_allclose(after, before, rtol=1e-12)


def test_re_estimating_changes_what_is_asked_and_keeps_the_rest(finished):
    store = finished.parent / "out.zarr"
    effects = plain(store)["effects"].to_dataset().load()
    strength = float(plain(store)["local"]["f_statistic"].median())
    tree = re_estimate(store, mr={"methods": ["ivw"], "min_f": strength}, meta={"test": "knha"})
    assert tree["local"]["estimator"].values.tolist() == ["ivw"]
    assert (tree["local"]["n_weak"] > 0).any()
    assert tree["global"].attrs["test"] == "knha"
    assert json.loads(tree.attrs["config"])["mr"]["min_f"] == strength
    assert "estimated again" in tree.attrs["history"]
    assert effects.identical(plain(store)["effects"].to_dataset().load())
    with pytest.raises(ConfigError, match=r"mr\.methods.*Did you mean 'ivw'"):
        re_estimate(store, mr={"methods": ["ivm"]})


def test_re_estimating_an_unfinished_store_says_so(done, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("kipoi_deepmr"), "propagate", True)
    store = tmp_path / "out.zarr"
    for sequences in (0, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(patch, sequences, KeyboardInterrupt())
            go(done, store, batch_size=1, overwrite=True)
        if not sequences:
            with pytest.raises(StoreError, match="no completed sequence yet"):
                re_estimate(store)
    tree = re_estimate(store)
    assert "only 2 of 4 sequences are completed" in caplog.text
    assert tree["global"].sel(exposure="A")["n_sequences"].max() == 2
    assert_same_results(go(done, store, batch_size=1, resume=True), plain(done.parent / "out.zarr"))


def test_damaged_effects_are_named(finished):
    store = finished.parent / "out.zarr"
    chunk = next(p for p in (store / "effects/exposure_effect/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(StoreError, match=r"out\.zarr.*cannot be read.*damaged"):
        re_estimate(store)
    shutil.rmtree(store / "effects/outcome_se")
    with pytest.raises(StoreError, match="lacks outcome_se"):
        re_estimate(store)


def test_a_store_is_found_from_within_and_through_a_link(finished, monkeypatch, tmp_path):
    store = finished.parent / "out.zarr"
    monkeypatch.chdir(store)
    assert "estimated again" in re_estimate(".").attrs["history"]
    link = tmp_path / "link.zarr"
    link.symlink_to(store)
    assert go(finished, link, overwrite=True)["effects"]["completed"].all()
    assert link.is_symlink()
    assert sorted(p.name for p in store.parent.iterdir() if "zarr" in p.name) == ["out.zarr"]


def spoiled(folder, kind):
    """Return changes of the configuration, or spoil a file, and say what the error has to name."""
    peaks, genome = folder / "peaks/A.bed", folder / "genome.fa"
    if kind == "unknown task":
        return {"exposures": {"A": {"task": "TF9", "peaks": "peaks/A.bed"}}}, TaskError, ["exposures.A.task", "TF9"]
    if kind == "ambiguous label":
        changes = {"exposures": {"A": {"task": "TF2", "peaks": "peaks/A.bed"}}}
        return changes, TaskError, ["exposures.A.task", "occurrence 1 (index 1)", "occurrence 2 (index 2)"]
    if kind == "exposure is outcome":
        changes = {"exposures": {"A": {"task": "DNase", "peaks": "peaks/A.bed"}}}
        return changes, TaskError, ["exposures.A", "outcomes.open", "no causal effect on itself"]
    if kind == "empty peaks":
        peaks.write_text("")
        return {}, SequenceError, ["A.bed"]
    if kind == "missing peaks":
        peaks.unlink()
        return {}, SequenceError, ["A.bed"]
    if kind == "two columns":
        peaks.write_text("chr1\t100\t140\nchr1\t500\n")
        return {}, SequenceError, ["A.bed", "2"]
    if kind == "no integers":
        peaks.write_text("chr1\t100\t140\nchr1\t5e2\tx\n")
        return {}, SequenceError, ["A.bed", "2"]
    if kind == "start > end":
        peaks.write_text("chr1\t100\t140\nchr1\t530\t500\n")
        return {}, SequenceError, ["A.bed", "2"]
    if kind == "contig mismatch":
        peaks.write_text("1\t100\t140\n")
        return {}, SequenceError, ["A.bed", "sed 's/^/chr/'"]
    if kind == "missing fasta":
        genome.unlink()
        return {}, SequenceError, ["genome.fa", "does not exist"]
    if kind == "no fasta argument":
        return {"dataloader": {"args": {}}}, ConfigError, ["dataloader.args.fasta_file"]
    if kind == "missing model":
        return {"model": {"name": "modell", "source": "dir"}}, ModelError, ["modell", "model.yaml"]
    if kind == "NaN":
        write_model(folder / "model", code=CONVOLUTION.replace("return self", "return float('nan') * self"))
        return {}, PredictionError, ["nan", "reference sequence"]
    if kind == "profile":
        profile = CONVOLUTION.replace("return self.last(", "return self.flat(").replace(
            "        self.last =", "        self.flat = nn.Unflatten(1, (8, -1))\n        self.last ="
        )
        write_model(folder / "model", code=profile)
        return {}, ModelError, ["(batch, tasks)"]
    if kind == "other number of outputs":
        write_model(folder / "model", kwargs={"outputs": 5})
        return {}, ModelError, ["4 outputs", "5"]
    if kind == "positions outside":
        return {"mutagenesis": {"positions": [50, 61]}}, ConfigError, ["mutagenesis.positions", "60 positions"]
    assert kind == "index without permission"
    return {}, SequenceError, ["genome.fa", "samtools faidx"]


@pytest.mark.parametrize(
    "kind",
    [
        "unknown task", "ambiguous label", "exposure is outcome", "empty peaks", "missing peaks", "two columns",
        "no integers", "start > end", "contig mismatch", "missing fasta", "no fasta argument", "missing model", "NaN",
        "profile", "other number of outputs", "positions outside", "index without permission",
    ],
)  # fmt: skip
def test_bad_input_is_explained_and_nothing_is_written(config, folder, kind, monkeypatch):
    changes, error, said = spoiled(folder, kind)
    if kind == "index without permission":
        # A superuser may write anywhere, so the answer of the system is replaced.
        monkeypatch.setattr("kipoi_deepmr.sequences.genome.os", SimpleNamespace(access=lambda *_: False, W_OK=2))
    text = config.read_text()
    if changes:
        settings = yaml.safe_load(text)
        for section, keys in changes.items():
            settings[section] = {**settings[section], **keys}
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
    for act in (lambda: check(load_config(config), device="cpu"), lambda: go(config, folder / "out.zarr")):
        with pytest.raises(error) as caught:
            act()
        for word in said:
            assert word in str(caught.value)
    assert not [p for p in folder.iterdir() if "zarr" in p.name]


def test_the_public_names_are_the_pipeline(done):
    assert kipoi_deepmr.run is run
    assert kipoi_deepmr.open_results(done.parent / "out.zarr")["effects"]["completed"].all()
