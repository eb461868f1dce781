"""Jobs on shuffled sequences: which are shuffled, and what the model is given for them."""

import json

import numpy as np
import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.estimate.permuted import generator_of
from kipoi_deepmr.predict import shuffled
from kipoi_deepmr.predict.prepare import Job, prepare
from kipoi_deepmr.predict.shuffled import shuffled_job, shuffled_template
from kipoi_deepmr.sequences import Genome, dinucleotide_shuffle
from tests.kipoi_models import CONVOLUTION, own_loader, write_model, write_project

TRACK = CONVOLUTION.replace(
    "def forward(self, x):\n        return self.last(self.second(self.first(x)))",
    "def forward(self, track, seq):\n        return self.last(self.second(self.first(seq))) * track[:, :1]",
)


def controls(**settings):
    return {"controls": {"shuffled_sequence": 2, "seed": 3, **settings}}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job of a model with a further input, which is that of the window."""
    folder = tmp_path_factory.mktemp("shuffled")
    write_model(folder / "model", code=TRACK)
    own_loader(folder / "model", '{"seq": seq, "track": np.array([ranges.start, 1.0], dtype="float32")}')
    with prepare(load_config(write_project(folder, controls())), device="cpu") as job:
        yield job


def asking(job, **settings):
    """Return the job with other settings of the controls."""
    section = job.config.controls.model_copy(update=settings)
    return Job(**{**vars(job), "config": job.config.model_copy(update={"controls": section})})


def test_a_configuration_without_controls_has_no_such_job(job):
    assert shuffled_job(asking(job, shuffled_sequence=0)) is None


def test_copies_stand_beside_each_other_and_are_shuffled_by_seed_and_name(job):
    found = shuffled_job(job)
    assert type(found) is Job
    assert list(found.sequences.names) == [f"{name} shuffle {n}" for name in job.sequences.names for n in (1, 2)]
    for row, name in enumerate(found.sequences.names):
        read = job.sequences.bases[row // 2]
        order = dinucleotide_shuffle(read, generator_of(3, name))
        assert found.sequences.bases[row].tolist() == read[order].tolist()
    assert (found.sequences.bound == np.repeat(job.sequences.bound, 2, axis=1)).all()
    other = shuffled_job(asking(job, seed=4))
    assert (other.sequences.bases != found.sequences.bases).any()


def test_the_model_gets_the_inputs_of_the_window_with_the_positions_in_another_order(job):
    found = shuffled_job(job)
    block, whole = found.block([5, 0, 2]), job.block([2, 0, 1])
    for row, index in enumerate((5, 0, 2)):
        order = found.sequences.order[index].astype(int)
        np.testing.assert_array_equal(block.sequence[row].numpy(), whole.sequence[row].numpy()[:, order])
        np.testing.assert_array_equal(block.codes[row], block.sequence[row].numpy().argmax(0))
    assert block.others[0].equal(whole.others[0])


def test_names_and_bases_are_made_once_for_all_copies(job, monkeypatch):
    counted = []
    original = shuffled.generator_of
    monkeypatch.setattr(shuffled, "generator_of", lambda *args: counted.append(args) or original(*args))
    monkeypatch.setattr(Genome, "codes", lambda *_: pytest.fail("the FASTA file is read"))
    for copies in (1, 20):
        counted.clear()
        found = shuffled_job(asking(job, shuffled_sequence=copies))
        shuffled_template(found), found.mutants(), found.block([0, 1]), found.block(range(4))
        assert len(counted) == 4 * copies == len(found.sequences)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_some_sequences_per_exposure_are_enough_whatever_stands_beside_them(job, limit):
    asked = asking(job, shuffled_per_exposure=limit, shuffled_sequence=1)
    found = shuffled_job(asked).sequences
    bound = job.sequences.bound.sum(1)
    assert (found.bound.sum(1) >= np.minimum(limit, bound)).all()
    assert len(found) <= limit * len(bound)
    turned = shuffled_job(asked.of(job.sequences.take([3, 2, 1, 0]))).sequences
    assert dict(zip(found.names, found.bases.tolist(), strict=True)) == dict(
        zip(turned.names, turned.bases.tolist(), strict=True)
    )


def test_the_group_of_controls_says_how_its_sequences_were_made(job):
    template = shuffled_template(shuffled_job(job))
    assert json.loads(template.attrs["settings"]) == {
        "shuffled_sequence": 2,
        "shuffled_per_exposure": None,
        "seed": 3,
    }
    assert template.coords["sequence"].tolist() == list(shuffled_job(job).sequences.names)
    assert template.coords["start"].tolist() == np.repeat(job.sequences.windows.start, 2).tolist()
