"""Networks on the device: checked against their models, refused where they differ, and given back."""

import numpy as np
import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import DropoutError, ModelError
from kipoi_deepmr.model import KipoiModel
from kipoi_deepmr.predict import lending
from kipoi_deepmr.predict.lending import digest_of
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.running import check
from tests.kipoi_models import (
    CUSTOM,
    HEAD,
    NO_DROPOUT,
    edit_yaml,
    ensemble,
    own_loader,
    refused,
    write_model,
    write_project,
)
from tests.test_model_loading import own_dataloader


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


def test_the_network_of_a_job_predicts_what_its_model_does_and_is_given_back_as_it_was(tmp_path):
    with prepare(load_config(write_project(tmp_path)), device="cpu") as job:
        module, (member,) = job.model.module, job.members
        assert not member.network.training
        inputs = job.inputs.load([0, 1])
        block = job.block([0, 1])
        given = member.network(block.sequence).numpy(force=True)
        np.testing.assert_allclose(given, job.model.predict(inputs, job.model.outputs(())), rtol=1e-6)
        assert digest_of(job.members) == member.digest
        module.train()
    assert not module.training


def test_the_digest_of_several_members_depends_on_all_and_their_order():
    class One:
        def __init__(self, digest):
            self.digest = digest

    members = [One("a"), One("b"), One("c")]
    found = [digest_of(some) for some in (members, members[::-1], members[:2], members[:1])]
    assert len(set(found)) == 4
    assert found[-1] == "a"


def test_draws_of_members_without_dropout_are_refused(tmp_path):
    said = refused(ensemble(tmp_path / "p", code=NO_DROPOUT, uncertainty={"draws": 3}), DropoutError)
    assert "no dropout" in said


def test_the_member_without_dropout_is_named_and_those_of_all_members_are_listed(tmp_path):
    config = ensemble(tmp_path / "p", uncertainty={"draws": 3})
    report = check(load_config(config), device="cpu")
    assert [line.partition(":")[0] for line in report.dropout] == ["one", "one", "two", "two", "three", "three"]
    write_model(tmp_path / "p" / "two", code=NO_DROPOUT, seed=1)
    said = refused(config, DropoutError)
    assert "no dropout runs in two" in said and "draws: 1" in said and "mc_dropout" not in said


def test_models_are_asked_before_their_networks_move_to_the_device(tmp_path, monkeypatch):
    order = []
    lent, predict = lending.lent, KipoiModel.predict

    def moved(*args):
        order.append("moved")
        return lent(*args)

    def asked(self, *args):
        order.append("asked")
        return predict(self, *args)

    monkeypatch.setattr(lending, "lent", moved)
    monkeypatch.setattr(KipoiModel, "predict", asked)
    check(load_config(ensemble(tmp_path / "p")), device="cpu")
    assert order == ["asked"] * 3 + ["moved"] * 3


def test_a_member_with_further_inputs_is_refused(tmp_path):
    config = ensemble(tmp_path / "p")
    folder = own_dataloader(tmp_path / "p" / "two", 0)
    (folder / "dataloader.py").write_text(TRACK)
    assert "uncertainty.members: two: besides the sequence two takes 'track'" in refused(config, ModelError)


def test_check_tells_how_rough_few_members_are(tmp_path):
    report = check(load_config(ensemble(tmp_path / "p")), device="cpu")
    assert report.draws == 3
    assert any("3 members: an error estimated from so few is itself uncertain by about 50%" in n for n in report.notes)
    assert any("model itself is not a member of the ensemble (one, two, three)" in n for n in report.notes)


def test_what_else_is_read_is_not_called_chance(folder):
    body = "return (2 if x.dtype == np.int8 else 1) * self.net(torch.from_numpy(x).float()).detach().numpy()"
    write_model(folder / "model", code=CUSTOM.format(body=body))
    edit_yaml(folder / "model", HEAD)
    own_loader(folder / "model", "seq.astype(np.int8)")
    with pytest.raises(ModelError, match="gives the same values each time: it reads something in them"):
        check(load_config(write_project(folder)), device="cpu")


def test_chance_in_predict_on_batch_is_an_error(folder):
    write_model(folder / "model", code=CUSTOM.format(body="return np.random.rand(len(x), 4)"))
    edit_yaml(folder / "model", HEAD)
    with pytest.raises(ModelError, match="asked for the same sequences again: chance is at work"):
        check(load_config(write_project(folder)), device="cpu")


TRACK = '''\
import numpy as np
from kipoi.data import Dataset
from kipoiseq.dataloaders import SeqIntervalDl


class Loader(Dataset):
    """A sequence and a track."""

    def __init__(self, intervals_file, fasta_file, offset=0):
        self.sequences = SeqIntervalDl(intervals_file, fasta_file, alphabet_axis=0, dtype="np.float32")

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, index):
        item = self.sequences[index]
        return {"inputs": {"seq": item["inputs"], "track": np.float32(1)}, "metadata": item["metadata"]}
'''
