"""Members: what gives the draws of a configuration, and which are refused."""

import shutil

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import ModelError, TaskError
from kipoi_deepmr.model import load_model, select
from kipoi_deepmr.predict.members import find_members
from tests.kipoi_models import NO_DROPOUT, ensemble, inside, refused, write_model, write_project


def members_of(path):
    """Return the model of a configuration, and its members."""
    config = load_config(path)
    model = load_model(config.model.name, config.model.source, config.directory)
    return model, find_members(config, model, select(model.targets(), config))


def test_without_an_ensemble_the_network_of_the_model_is_the_only_member(tmp_path):
    model, (member,) = members_of(write_project(tmp_path))
    assert (member.name, member.model, member.module) == (model.name, model, model.module)
    assert member.columns == (0, 2, 3)


def test_networks_inside_the_model_are_numbered_from_one(tmp_path):
    model, members = members_of(inside(tmp_path / "p"))
    assert [member.name for member in members] == ["member 1", "member 2", "member 3"]
    assert all(member.model is model for member in members)
    assert len({id(member.module) for member in members}) == 3


def test_the_model_of_the_configuration_is_not_loaded_again_as_a_member(tmp_path):
    path = ensemble(tmp_path / "p", uncertainty={"members": ["model", "one"]})
    model, (first, second) = members_of(path)
    assert first.model is model
    assert second.model is not model


def test_the_columns_of_a_member_follow_its_own_order_of_tasks(tmp_path):
    path = ensemble(tmp_path / "p", ("one", "two"))
    write_model(tmp_path / "p" / "two", labels=("TF2", "DNase", "TF1", "TF2"))
    _, members = members_of(path)
    labels = [[member.model.targets()[column].name for column in member.columns] for member in members]
    assert [member.columns for member in members] == [(0, 2, 3), (2, 3, 1)]
    assert labels[0] == labels[1] == ["TF1", "TF2#2", "DNase"]


def test_members_with_other_tasks_are_refused_before_any_sequence_is_read(tmp_path):
    config = ensemble(tmp_path / "p")
    write_model(tmp_path / "p" / "two", labels=("TF1", "TF2", "TF3", "ATAC"))
    (tmp_path / "p" / "peaks" / "A.bed").write_text("not read\n")
    said = refused(config, TaskError)
    assert "uncertainty.members: two: it has no output 'TF2#2' (exposures.B); it has 4 (TF1, TF2, TF3, ATAC)" in said


def test_members_that_read_another_length_are_refused(tmp_path):
    pooled = NO_DROPOUT.replace("nn.Flatten())", "nn.AdaptiveAvgPool1d(1), nn.Flatten())").replace(
        "8 * (length // 4)", "8"
    )
    config = ensemble(tmp_path / "p", ("one", "two"), code=pooled)
    write_model(tmp_path / "p" / "two", code=pooled, length=80)
    said = refused(config, ModelError)
    assert "uncertainty.members: two: it reads sequences of 80 bp" in said and "of 60 bp" in said


def test_a_model_without_members_is_refused(tmp_path):
    (tmp_path / "p").mkdir()
    config = write_project(tmp_path / "p", {"uncertainty": {"method": "ensemble", "draws": 1}})
    said = refused(config, ModelError)
    assert "has no members inside" in said and "uncertainty.members" in said


def test_a_member_that_is_not_there_is_named(tmp_path):
    config = ensemble(tmp_path / "p")
    shutil.rmtree(tmp_path / "p" / "two")
    assert "two is not a Kipoi model directory" in refused(config, ModelError)
