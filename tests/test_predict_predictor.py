"""What is asked for predictions: the request of each member, and the engine that a configuration names."""

from pathlib import Path

import numpy as np

from kipoi_deepmr.config import load_config
from kipoi_deepmr.model import PredictFunction
from kipoi_deepmr.mutagenesis import Delta, Ensemble, Full
from kipoi_deepmr.predict.predictor import draws_of, engine_of, request_of
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.uncertainty import AsItIs, MCDropout
from tests.kipoi_models import CONVOLUTION, write_project
from tests.test_ensembles import ensemble

ASKED = {
    "uncertainty": {"draws": 5, "seed": 9},
    "effects": {"scale": "logit"},
    "mutagenesis": {"positions": [20, 28], "engine": "full", "memory": "1MiB", "precision": "bfloat16"},
}


def test_a_request_holds_what_the_configuration_asks_for(tmp_path):
    with prepare(load_config(write_project(tmp_path, ASKED)), device="cpu", batch_size=7) as job:
        request = request_of(job, keep_draws=True)
        assert request.predictor is job.network
        assert (request.count, request.columns, request.exposures) == (5, [0, 2, 3], 2)
        assert (request.scale, request.batch_size, request.memory) == ("logit", 7, 2**20)
        assert (request.keep_draws, request.precision) == (True, "bfloat16")
        assert isinstance(engine_of(job, job.block([0])).strategy, Full)


def test_members_are_taken_as_they_are_or_draw_networks_of_their_own(tmp_path):
    with prepare(load_config(ensemble(tmp_path / "plain")), device="cpu") as job:
        assert [type(draws_of(job, number)) for number in range(3)] == [AsItIs] * 3
        assert isinstance(engine_of(job, job.block([0])).strategy, Ensemble)
    thinned = ensemble(tmp_path / "thinned", ("one", "two"), uncertainty={"draws": 2})
    with prepare(load_config(thinned), device="cpu") as job:
        first, second = (draws_of(job, number) for number in range(2))
        assert {type(first), type(second)} == {MCDropout}
        # Draw 0 of the second member is draw 2 of the run.
        assert (second.keep("a", 0, 0) == first.keep("a", 2, 0)).all()
        assert not (second.keep("a", 0, 0) == first.keep("a", 0, 0)).all()


PLAIN = CONVOLUTION.replace("nn.Dropout(p)", "nn.Identity()")
# A list hides the network from who looks for one: what is left is predict_on_batch.
HOLDING = """

from kipoi.model import BaseModel


class Model(BaseModel):
    def __init__(self, seed, hidden):
        torch.manual_seed(seed)
        network = Net().eval()
        self.held = [network] if hidden else network
        self.predict = network

    def predict_on_batch(self, x):
        return self.predict(torch.from_numpy(x)).detach().numpy()
""".replace("self.predict = network", "self.predict = lambda x: network(x)")


def asked(folder: Path, *, hidden: bool) -> Path:
    path = ensemble(folder, ("one", "two"), code=PLAIN + HOLDING)
    for seed, name in enumerate(("model", "one", "two")):
        described = folder / name / "model.yaml"
        rest = described.read_text().partition("default_dataloader")[2]
        args = f"args: {{seed: {max(seed, 1)}, hidden: {str(hidden).lower()}}}"
        described.write_text(f"defined_as: model.Model\n{args}\ndefault_dataloader{rest}")
    return path


def test_a_torch_network_and_predict_on_batch_are_asked_through_one_protocol(tmp_path):
    found = []
    for hidden, kind in ((False, Delta), (True, Full)):
        with prepare(load_config(asked(tmp_path / str(hidden), hidden=hidden)), device="cpu") as job:
            block = job.block([0])
            engine = engine_of(job, block)
            assert job.network.opaque == isinstance(job.network.module, PredictFunction) == hidden
            assert {type(member) for member in engine.strategy.members} == {kind}
            found.append(engine.run(block, job.positions))
    np.testing.assert_allclose(found[1].mean, found[0].mean, rtol=0, atol=1e-5 * np.nanmax(np.abs(found[0].mean)))
    np.testing.assert_allclose(found[1].reference_mean, found[0].reference_mean, rtol=1e-5)
