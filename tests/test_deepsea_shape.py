"""DeepSEA's shape from beginning to end: 1000 bp as (4, 1, 1000), 919 labels that repeat, both strands, real hg38.

The architecture is DeepSEA's with few channels and random weights, so the answers mean nothing; they are compared with a
plain loop.
"""

import inspect
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from kipoi_deepmr import cli
from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import TaskError
from kipoi_deepmr.model import load_model
from kipoi_deepmr.running import check
from tests import toy_models
from tests.kipoi_models import plain_loop, write_model, write_peaks

DATA = Path(__file__).parents[2] / "shared" / "data"
FASTA = DATA / "hg38_chr22_32000000_32300000.fa"
LABELS = DATA / "deepsea_predictor_names.txt"

pytestmark = pytest.mark.skipif(
    not (FASTA.exists() and LABELS.exists()), reason=f"the region of hg38 and DeepSEA's labels are not in {DATA}"
)

POSITIONS = range(498, 501)
DRAWS = 3
STARTS = (20_000, 120_000, 240_000)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepsea")
    code = "import torch\nfrom torch import Tensor, nn\n\n\n" + inspect.getsource(toy_models.DeepSEALike)
    write_model(
        folder / "DeepSEA",
        code=code.replace("class DeepSEALike", "class Net"),
        kwargs={"width": 0.02},
        labels=LABELS.read_text().splitlines(),
        outputs=919,
        shape="(4, 1, 1000)",
        dataloader="{auto_resize_len: 1000, alphabet_axis: 0, dummy_axis: 1, dtype: np.float32}",
    )
    shutil.copy(FASTA, folder / "hg38.fa")
    contig = FASTA.read_text().partition("\n")[0][1:].split()[0]
    peaks = [(contig, start + 400, start + 600) for start in STARTS]
    write_peaks(folder / "peaks/FOXA1.bed", peaks[:2])
    write_peaks(folder / "peaks/CTCF.bed.gz", peaks[1:])
    settings = {
        "model": {"name": "DeepSEA", "source": "dir"},
        "dataloader": {"args": {"fasta_file": "hg38.fa"}},
        "exposures": {
            "FOXA1": {"task": "HepG2_FOXA1_None", "occurrence": 1, "peaks": "peaks/FOXA1.bed"},
            "CTCF": {"task": "HepG2_CTCF_None", "occurrence": 2, "peaks": "peaks/CTCF.bed.gz"},
        },
        "outcomes": {"DNase": {"task": "HepG2_DNase_None"}},
        "sequences": {"per_exposure": None},
        "uncertainty": {"draws": DRAWS},
        "mutagenesis": {"positions": [POSITIONS.start, POSITIONS.stop]},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def test_labels_repeat_and_are_told_apart_by_occurrence(config):
    labels = LABELS.read_text().splitlines()
    targets = load_model(str(config.parent / "DeepSEA"), "dir").targets()
    assert [target.label for target in targets] == labels
    assert len(targets) == len({target.name for target in targets}) == 919
    assert len(set(labels)) == 844
    settings = yaml.safe_load(config.read_text())
    del settings["exposures"]["CTCF"]["occurrence"]
    ambiguous = config.with_name("ambiguous.yaml")
    ambiguous.write_text(yaml.safe_dump(settings))
    with pytest.raises(TaskError) as caught:
        check(load_config(ambiguous), device="cpu")
    found = [index for index, label in enumerate(labels) if label == "HepG2_CTCF_None"]
    assert len(found) > 1
    for occurrence, index in enumerate(found, 1):
        assert f"occurrence {occurrence} (index {index})" in str(caught.value)


def test_the_store_equals_a_plain_computation(config, capsys):
    output = config.parent / "out.zarr"
    report = check(load_config(config), device="cpu")
    assert report.mutants == len(STARTS) * len(POSITIONS) * 3
    assert len(report.dropout) == 3
    assert all("stacked 2 times" in site for site in report.dropout)
    assert cli.main(["run", str(config), "-o", str(output), "--device", "cpu", "-q", "-q"]) == 0
    shown = capsys.readouterr().out
    assert "FOXA1" in shown
    assert "CTCF" in shown

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effects = xr.open_datatree(output, engine="zarr")["effects"].to_dataset().load()
    header, _, bases = FASTA.read_text().partition("\n")
    contig, bases = header[1:].split()[0], bases.replace("\n", "").upper()
    windows = {f"{contig}:{start}-{start + 1000}(+)": bases[start : start + 1000] for start in STARTS}
    assert effects["sequence"].values.tolist() == list(windows)
    assert effects["bound"].values.tolist() == [[True, True, False], [False, True, True]]
    read = ["".join(row) for row in effects["reference_allele"].values]
    assert read == [window[POSITIONS.start : POSITIONS.stop] for window in windows.values()]

    labels = LABELS.read_text().splitlines()
    ctcf = [index for index, label in enumerate(labels) if label == "HepG2_CTCF_None"][1]
    columns = [labels.index("HepG2_FOXA1_None"), ctcf, labels.index("HepG2_DNase_None")]
    assert [*effects["exposure_task_index"].values, *effects["outcome_task_index"].values] == columns
    draws, references = plain_loop(config.parent / "DeepSEA", windows, columns, POSITIONS, draws=DRAWS, dummy_axis=True)
    mean, sd = draws.mean(3), draws.std(3)
    centred = draws - mean[..., None, :]
    covariance = (centred[..., :2, None] * centred[..., None, 2:]).mean(3)
    # A random network has tiny effects on probabilities near one half, whose own resolution in float32 is 6e-8.
    noise = max(1e-5 * np.nanmax(np.abs(draws)), 3e-7)
    expected = {
        "exposure_effect": np.moveaxis(mean[..., :2], -1, 0),
        "exposure_se": np.moveaxis(sd[..., :2], -1, 0),
        "outcome_effect": np.moveaxis(mean[..., 2:], -1, 0),
        "outcome_se": np.moveaxis(sd[..., 2:], -1, 0),
        "exposure_reference": references.mean(1).T[:2],
        "outcome_reference": references.mean(1).T[2:],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(effects[name], values, rtol=1e-6, atol=noise, err_msg=name)
    assert np.nanmax(np.abs(draws)) > 20 * noise
    np.testing.assert_allclose(
        effects["error_covariance"],
        np.moveaxis(covariance, (-2, -1), (0, 1)),
        rtol=0,
        atol=noise * np.nanmax(np.abs(draws)),
    )
