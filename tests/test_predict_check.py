"""`check`: what it counts and promises, against the run that follows."""

import re

import numpy as np
import pytest

from kipoi_deepmr import terms
from kipoi_deepmr.config import load_config
from kipoi_deepmr.predict.check import CheckReport, check
from tests.kipoi_models import write_project
from tests.test_running import genome_of, go

DRAWS = 6
CONTROLS = {
    "uncertainty": {"draws": DRAWS},
    "mutagenesis": {"positions": [10, 40], "engine": "delta"},
    "controls": {"shuffled_sequence": 2, "seed": 3},
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "project"


def test_check_says_what_a_run_will_do_and_leaves_no_files(folder):
    folder.mkdir()
    config = write_project(folder)
    before = set(folder.rglob("*"))
    report = check(load_config(config), device="cpu")
    assert isinstance(report, CheckReport)
    assert set(folder.rglob("*")) - before <= {folder / "genome.fa.fai"}
    assert report.sequences == 4
    assert report.positions == 8
    assert report.mutants == 4 * 8 * 3
    assert report.draws == 4
    assert report.engine in {"delta", "full"}
    assert len(report.dropout) == 2
    assert report.exposures["B"] == {
        "task": "TF2",
        "index": 2,
        "sequences": 2,
        "peaks": f"2 intervals in {folder / 'peaks/B.bed.gz'}",
    }
    assert report.milliseconds > 0
    tree = go(config, folder / "out.zarr")
    assert report.store_bytes == sum(tree["effects"][name].nbytes for name in terms.EFFECTS)


@pytest.mark.parametrize("everywhere", [True, False])
def test_check_of_windows_without_a_known_base(folder, everywhere):
    folder.mkdir()
    config = write_project(folder, {"mutagenesis": {"positions": [30, 33]}})
    contigs = genome_of(folder)
    for chrom, centre in [("chr1", 120), ("chr1", 515), ("chr2", 305), ("chr2", 610)][: 4 if everywhere else 1]:
        contigs[chrom] = contigs[chrom][:centre] + "NNN" + contigs[chrom][centre + 3 :]
    (folder / "genome.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    report = check(load_config(config), device="cpu")
    assert report.mutants == (0 if everywhere else 27)
    assert any("nothing to mutate" in note for note in report.notes) == everywhere
    tree = go(config, folder / "out.zarr")
    assert tree["effects"]["completed"].all()
    assert np.isnan(tree["global"]["estimate"]).all() == everywhere


def test_check_counts_the_controls(tmp_path):
    def report_of(**changes):
        return check(load_config(write_project(tmp_path, {**CONTROLS, **changes})), device="cpu")

    report = report_of()
    assert (report.sequences, report.mutants) == (4, 4 * 90)
    assert (report.control_sequences, report.control_mutants) == (8, 8 * 90)
    seconds = report.milliseconds * DRAWS * (report.mutants + report.control_mutants) / 1000
    assert report.estimated_seconds == pytest.approx(seconds, abs=0.1)
    assert report.store_bytes == 3 * report_of(controls={}).store_bytes
    assert not any(re.search("draw", note) for note in report.notes)
    note = next(note for note in report_of(effects={"keep_draws": True}).notes if "draws" in note)
    assert "in memory" in note
