"""Drafts of a configuration: what is chosen and what is left to fill in."""

import pytest
import yaml

from kipoi_deepmr.config import parse_config
from kipoi_deepmr.errors import TaskError
from kipoi_deepmr.model import load_model, select
from kipoi_deepmr.predict.draft import draft
from tests.kipoi_models import own_loader, profile, profile_tasks, write_model, write_project


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(str(write_model(tmp_path_factory.mktemp("draft") / "model")), "dir")


def test_the_first_output_is_the_exposure_and_the_first_that_looks_like_accessibility_the_outcome(model):
    written = yaml.safe_load(draft(model))
    assert written["exposures"] == {"TF1": {"task": "TF1", "peaks": "peaks/TF1.narrowPeak.gz"}}
    assert written["outcomes"] == {"DNase": {"task": "DNase"}}


def test_every_section_with_defaults_is_written_with_them(model):
    text = draft(model)
    config = parse_config(yaml.safe_load(text), model.folder)
    for name in ("sequences", "uncertainty", "effects", "mutagenesis", "mr", "meta", "controls"):
        assert f"\n{name}:\n" in text
        section = getattr(config, name)
        assert section == type(section)()


def test_a_glob_of_exposures_leaves_the_outcome_out_and_equal_labels_get_their_occurrence(model):
    written = yaml.safe_load(draft(model, ["*"], ["DNase"]))
    assert {name: (entry["task"], entry.get("occurrence")) for name, entry in written["exposures"].items()} == {
        "TF1": ("TF1", None),
        "TF2#1": ("TF2", 1),
        "TF2#2": ("TF2", 2),
    }
    assert written["exposures"]["TF2#1"]["peaks"] == "peaks/TF2_1.narrowPeak.gz"


def test_a_label_that_matches_nothing_is_named(model):
    with pytest.raises(TaskError, match="no output of the model matches 'TF9'"):
        draft(model, ["TF9"])


def test_the_draft_of_a_configuration_reduces_profiles(folder):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    text = draft(load_model(str(folder / "model"), "dir"), ["profile"], ["single"])
    assert "task: profile\n    reduce: sum" in text
    assert "reduce" not in text[text.index("outcomes:") : text.index("sequences:")]


def test_all_tracks_are_no_outcome_of_a_track_unless_asked_for(folder):
    profile(folder, '{"single": y[:, 0], "profile": y[:, None] * steps[:, None]}')
    path = folder / "model" / "model.yaml"
    path.write_text(path.read_text().replace('    single: {shape: "(1,)", doc: d}\n', ""))
    text = draft(load_model(str(folder / "model"), "dir"))
    assert "task: '0'" in text[text.index("exposures:") : text.index("outcomes:")]
    assert "task: '3'" in text[text.index("outcomes:") : text.index("sequences:")]
    config = yaml.safe_load(write_project(folder, profile_tasks(reduce="sum")).read_text())
    for name, task in (("A", 0), ("B", 2)):
        config["exposures"][name]["task"] = task
    config["outcomes"] = {"open": {"task": "profile", "reduce": "sum"}}
    selection = select(load_model(str(folder / "model"), "dir").targets(), parse_config(config, folder))
    assert len(selection.notes) == 2 and "A and open share tracks of one profile (0, profile)" in selection.notes[0]


@pytest.mark.parametrize("name", ["peaks_bed", "regions", "bed_file", "intervals_file"])
def test_the_draft_leaves_out_the_intervals_whatever_they_are_called(folder, name):
    write_model(folder / "model")
    own_loader(folder / "model", "seq", intervals=name)
    section = yaml.safe_load(draft(load_model(str(folder / "model"), "dir")))["dataloader"]
    assert section == {"args": {"fasta_file": "genome.fa"}}


def test_the_draft_asks_which_argument_takes_the_intervals(folder):
    write_model(folder / "model")
    own_loader(folder / "model", "seq", intervals="table")
    section = yaml.safe_load(draft(load_model(str(folder / "model"), "dir")))["dataloader"]
    assert section["intervals_arg"] == "FILL_IN" and section["args"]["fasta_file"] == "genome.fa"


FUNCTION = """\
from kipoiseq.dataloaders import SeqIntervalDl


def load(regions, fasta_file, offset=0):
    loader = SeqIntervalDl(regions, fasta_file, alphabet_axis=0, dtype="float32")
    for index in range(len(loader)):
        yield loader[index]
"""


def test_the_draft_of_a_model_with_a_function_as_dataloader(folder):
    write_model(folder / "model")
    own_loader(folder / "model", "seq", intervals="regions")
    (folder / "model" / "dataloader.py").write_text(FUNCTION)
    path = folder / "model" / "dataloader.yaml"
    text = (
        path.read_text()
        .replace("type: Dataset", "type: SampleGenerator")
        .replace("dataloader.Loader", "dataloader.load")
    )
    path.write_text(text)
    section = yaml.safe_load(draft(load_model(str(folder / "model"), "dir")))["dataloader"]
    assert section == {"args": {"fasta_file": "genome.fa"}}
