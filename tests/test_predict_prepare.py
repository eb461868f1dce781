"""A job: its parts, the blocks that it loads, and the settings that cannot be."""

import dataclasses

import numpy as np
import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.sequences import Genome
from tests.kipoi_models import write_project


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_config(write_project(tmp_path_factory.mktemp("prepare")))


@pytest.fixture(scope="module")
def job(config):
    with prepare(config, device="cpu") as job:
        yield job


def assert_same_blocks(one, other):
    assert (list(one.names), one.codes.tolist()) == (list(other.names), other.codes.tolist())
    assert one.sequence.equal(other.sequence)
    assert len(one.others) == len(other.others)


def test_a_block_is_what_the_dataloader_gives_for_its_sequences(job):
    block = job.block([2, 0])
    assert list(block.names) == [job.sequences.names[2], job.sequences.names[0]]
    np.testing.assert_array_equal(block.sequence.numpy(), job.inputs.load([2, 0]))
    np.testing.assert_array_equal(block.sequence.numpy().argmax(1), block.codes)


def test_a_job_of_some_sequences_loads_their_blocks(job):
    part = job.of(job.sequences.take([3, 1]))
    assert_same_blocks(part.block([1, 0]), job.block([1, 3]))
    assert part.mutants().tolist() == job.mutants()[[3, 1]].tolist()


def test_sequences_that_are_given_are_not_read_again(config, job, monkeypatch):
    some = job.sequences.take([3, 1])
    monkeypatch.setattr(Genome, "codes", lambda *_: pytest.fail("the FASTA file is read"))
    with prepare(config, device="cpu", sequences=some) as again:
        assert_same_blocks(again.block([0, 1]), job.block([3, 1]))
        assert again.sequences is some


def test_each_sequence_is_read_once_whatever_is_asked_of_the_job(config, monkeypatch):
    read, codes = [], Genome.codes
    monkeypatch.setattr(Genome, "codes", lambda *args: read.append(args[1:]) or codes(*args))
    with prepare(config, device="cpu") as job:
        job.template(), job.mutants(), job.block([0, 1]), job.notes()
        assert sorted(read) == sorted(job.sequences.windows.rows())


def test_the_template_shows_the_bases_and_digests_of_the_sequences(job):
    template = job.template()
    letters = np.array(list("ACGTN"))
    window = slice(job.positions.start, job.positions.stop)
    assert template.coords["reference_allele"].tolist() == letters[job.sequences.bases[:, window]].tolist()
    assert template.attrs["windows_sha256"] == job.sequences.digest
    assert template.attrs["fasta"] == str(job.config.directory / "genome.fa")
    for name in ("chrom", "start", "end", "strand"):
        assert template.coords[name].tolist() == getattr(job.sequences.windows, name).tolist()


def test_a_dataloader_that_gives_other_bases_later_is_caught(job):
    other = dataclasses.replace(job.sequences, bases=job.sequences.bases[::-1].copy())
    with pytest.raises(ModelError, match=r"other bases than the FASTA file for some of chr1:90-150\(\+\)"):
        job.of(other).block([0])


def test_tf32_is_for_gpus(config):
    changed = config.model_copy(update={"mutagenesis": config.mutagenesis.model_copy(update={"precision": "tf32"})})
    with pytest.raises(ConfigError, match="tf32 is arithmetic of NVIDIA GPUs"), prepare(changed, device="cpu"):
        pass


@pytest.mark.parametrize(
    "option",
    [{"batch_size": 0}, {"device": "cuda:99"}, {"device": "nonsense"}, {"device": "meta"}, {"num_workers": -1}],
)
def test_options_that_cannot_be_are_explained(config, option):
    with pytest.raises(ConfigError, match=r"batch size 0|-1 workers|is not there \(available: cpu"):
        prepare(config, **option).__enter__()
