"""Ensembles: a draw is a member, of several Kipoi models or inside one."""

import hashlib
import shutil
from pathlib import Path

import kipoi
import numpy as np
import pytest
import torch
import xarray as xr

from kipoi_deepmr.config import EffectsSection, MRSection, load_config
from kipoi_deepmr.errors import ConfigError, ModelError, StoreError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.estimate.from_draws import during_the_run
from kipoi_deepmr.model import Layout, load_model
from kipoi_deepmr.model.layout import convert
from kipoi_deepmr.mutagenesis import Engine, Ensemble, agreement
from kipoi_deepmr.predict.predictor import engine_of
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.running import check, run
from kipoi_deepmr.uncertainty import MCDropout, ThinnedNetwork, find_dropouts
from tests.kipoi_models import CONVOLUTION, NO_DROPOUT, ensemble, inside, refused, write_model

COLUMNS = [0, 2, 3]
POSITIONS = range(20, 28)
# The alphabet on the last axis and a dummy axis: the same network in another layout.
TURNED = CONVOLUTION.replace("def forward(self, x):", "def forward(self, x):\n        x = x[:, :, 0].transpose(1, 2)")


def go(config: Path, output: Path, **options):
    return run(load_config(config), output, device="cpu", progress=False, **options)["effects"].to_dataset().load()


def networks_of(folder: Path) -> list[torch.nn.Module]:
    return [kipoi.get_model(str(folder / name), source="dir").model.eval() for name in ("one", "two", "three")]


def one_hot(bases: str) -> torch.Tensor:
    return torch.tensor([[[float(base == letter) for base in bases] for letter in "ACGT"]])


def plainly(networks, effects, folder: Path, draws: int = 1, masked: bool = False) -> np.ndarray:
    """Mutant minus reference of each member and draw, (member * draw, sequence, position, allele, column)."""
    records = (record.split("\n", 1) for record in (folder / "genome.fa").read_text().split(">")[1:])
    contigs = {name: bases.replace("\n", "") for name, bases in records}
    shape = (len(networks) * draws, effects.sizes["sequence"], len(POSITIONS), 4, len(COLUMNS))
    found = np.full(shape, np.nan)
    for s in range(effects.sizes["sequence"]):
        one = effects.isel(sequence=s)
        bases = contigs[str(one.chrom.values)][int(one.start) : int(one.end)]
        for number, network in enumerate(networks):
            sites = find_dropouts(network, one_hot(bases)) if masked else ()
            masks = MCDropout(sites, seed=1, device=torch.device("cpu"), first=number * draws)
            for n in range(draws):
                thinned = ThinnedNetwork(network, masks.masks([str(one.sequence.values)], n).rows(None))

                def predict(text, thinned=thinned):
                    with torch.no_grad():
                        return thinned(one_hot(text))[0, COLUMNS].double().numpy()

                reference = predict(bases)
                for p, position in enumerate(POSITIONS):
                    for a, base in enumerate("ACGT"):
                        if base != bases[position]:
                            mutant = bases[:position] + base + bases[position + 1 :]
                            found[number * draws + n, s, p, a] = predict(mutant) - reference
    return found


def compare(effects, expected: np.ndarray) -> None:
    ours = np.concatenate([effects.exposure_effect.values, effects.outcome_effect.values])
    errors = np.concatenate([effects.exposure_se.values, effects.outcome_se.values])
    atol = 2e-5 * np.nanmax(np.abs(expected))
    np.testing.assert_allclose(np.moveaxis(ours, 0, -1), expected.mean(0), rtol=0, atol=atol)
    np.testing.assert_allclose(np.moveaxis(errors, 0, -1), expected.std(0), rtol=0, atol=atol)


@pytest.mark.parametrize("engine", ["delta", "full"])
def test_a_draw_is_a_model_of_the_ensemble(tmp_path, engine):
    config = ensemble(tmp_path / "p", code=NO_DROPOUT)
    config.write_text(config.read_text().replace("engine: delta", f"engine: {engine}"))
    effects = go(config, tmp_path / "out.zarr", batch_size=5)
    networks = networks_of(tmp_path / "p")
    compare(effects, plainly(networks, effects, tmp_path / "p"))


@pytest.mark.parametrize("engine", ["delta", "full"])
def test_a_draw_is_a_member_inside_the_model(tmp_path, engine):
    config = inside(tmp_path / "p", mutagenesis={"engine": engine, "positions": [20, 28]})
    effects = go(config, tmp_path / "out.zarr")
    model = load_model(str(tmp_path / "p" / "model"), "dir")
    members = [member.eval() for member in model.members()]
    compare(effects, plainly(members, effects, tmp_path / "p"))


def test_members_may_be_thinned_each_with_draws_of_its_own(tmp_path):
    config = ensemble(tmp_path / "p", uncertainty={"draws": 3})
    effects = go(config, tmp_path / "out.zarr")
    networks = networks_of(tmp_path / "p")
    compare(effects, plainly(networks, effects, tmp_path / "p", draws=3, masked=True))


def test_members_without_draws_are_taken_as_they_are_though_they_have_dropout(tmp_path):
    config = ensemble(tmp_path / "p")
    effects = go(config, tmp_path / "out.zarr")
    networks = networks_of(tmp_path / "p")
    compare(effects, plainly(networks, effects, tmp_path / "p"))


def test_equal_members_have_no_error_and_are_told(tmp_path):
    config = ensemble(tmp_path / "p", ("one", "two"))
    for file in (tmp_path / "p" / "one").iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path / "p" / "two" / file.name)
    effects = go(config, tmp_path / "out.zarr")
    assert np.nanmax(np.abs(effects.exposure_effect)) > 0
    assert float(np.nanmax(effects.exposure_se)) == 0 == float(np.nanmax(effects.outcome_se))
    notes = check(load_config(config), device="cpu").notes
    assert any("one and two have the same weights" in note for note in notes)


def test_members_may_order_their_tasks_and_lay_out_their_input_in_other_ways(tmp_path):
    folder = tmp_path / "p"
    config = ensemble(folder, ("one", "two"), code=NO_DROPOUT)
    alone = go(config, tmp_path / "same.zarr")
    torch.manual_seed(1)
    write_model(
        folder / "two",
        code=TURNED.replace("nn.Dropout(p)", "nn.Identity()"),
        seed=1,
        labels=("TF2", "DNase", "TF1", "TF2"),
        dataloader="{auto_resize_len: 60, alphabet_axis: 2, dummy_axis: 1, alphabet: TGCA, dtype: np.float32}",
        shape="(60, 1, 4)",
    )
    state = torch.load(folder / "two" / "weights.pt")
    for key in ("last.1.weight", "last.1.bias"):
        state[key] = state[key][[1, 3, 0, 2]]
    state["first.0.weight"] = state["first.0.weight"].flip(1)
    torch.save(state, folder / "two" / "weights.pt")
    turned = go(config, tmp_path / "turned.zarr")
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se"):
        np.testing.assert_allclose(turned[name], alone[name], rtol=0, atol=1e-6)


def test_layouts_are_converted_into_each_other():
    one = Layout(None, 0, 1, "ACGT", (4, 7), np.dtype("float32"))
    other = Layout("seq", 2, 0, "TGAC", (7, 1, 4), np.dtype("float32"))
    codes = np.random.default_rng(0).integers(0, 4, (3, 7))
    first = torch.from_numpy(np.eye(4, dtype="float32")[codes].transpose(0, 2, 1).copy())
    second = convert(first, one, other)
    assert second.shape == (3, 7, 1, 4)
    assert other.matches({"seq": second.numpy()}, codes.astype(np.int8))
    assert torch.equal(convert(second, other, one), first)


def test_the_engine_is_compared_in_full_on_the_first_member_only(tmp_path, monkeypatch):
    seen = []

    def counted(local, block, positions, *, spread):
        seen.append(spread)
        return agreement.compare(local, block, positions, spread=spread)

    monkeypatch.setattr("kipoi_deepmr.mutagenesis.engine_choice.compare", counted)
    config = load_config(ensemble(tmp_path / "p"))
    with prepare(config, during_the_run(config), device="cpu") as job:
        engine = engine_of(job, job.block([0]))
    assert isinstance(engine.strategy, Ensemble)
    assert (engine.name, engine.request.count, seen) == ("delta", 3, [agreement.SPREAD, 3, 3])


def test_a_member_that_cannot_be_followed_runs_whole_beside_those_that_can(tmp_path, caplog):
    config = ensemble(tmp_path / "p", ("one", "two"), code=NO_DROPOUT)
    expected = go(config, tmp_path / "local.zarr")
    path = tmp_path / "p" / "two" / "model.py"
    path.write_text(NO_DROPOUT.replace("def forward(self, x):", "def forward(self, x):\n        x.sum().item()"))
    found = go(config, tmp_path / "mixed.zarr")
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)
    assert "the delta engine is not available" in caplog.text


def test_batches_are_halved_for_all_members_when_memory_is_short(tmp_path, monkeypatch):
    config = ensemble(tmp_path / "p")
    expected = go(config, tmp_path / "plenty.zarr")
    original, limit = Engine._moments, 7

    def moments(self, block, chunk, *rest):
        if len(chunk) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, block, chunk, *rest)

    monkeypatch.setattr(Engine, "_moments", moments)
    found = go(config, tmp_path / "short.zarr")
    np.testing.assert_allclose(found.exposure_se, expected.exposure_se, rtol=0, atol=1e-6)


def test_the_digest_and_the_names_of_the_members_are_in_the_store(tmp_path):
    config = ensemble(tmp_path / "p")
    go(config, tmp_path / "out.zarr")
    attrs = xr.open_datatree(tmp_path / "out.zarr", engine="zarr").attrs
    digests = [load_model(str(tmp_path / "p" / name), "dir").weights_digest() for name in ("one", "two", "three")]
    assert attrs["weights_sha256"] == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert (attrs["members"], attrs["draws"]) == (["one", "two", "three"], 3)


def test_an_interrupted_ensemble_goes_on_unless_a_member_has_changed(tmp_path):
    config = ensemble(tmp_path / "p")
    go(config, tmp_path / "out.zarr")
    go(config, tmp_path / "out.zarr", resume=True)
    write_model(tmp_path / "p" / "two", seed=9)
    with pytest.raises(StoreError, match="other weights"):
        go(config, tmp_path / "out.zarr", resume=True)


# Errors


def test_a_model_that_is_not_the_mean_of_its_members_is_refused(tmp_path):
    said = refused(inside(tmp_path / "p", shift=1.0), ModelError)
    assert "the mean of the 3 `members` of the model is not its prediction" in said


def test_another_dropout_in_any_member_stops_a_resumed_run(tmp_path):
    config = ensemble(tmp_path / "p", ("one", "two"), uncertainty={"draws": 2})
    go(config, tmp_path / "out.zarr")
    path = tmp_path / "p" / "two" / "model.py"
    path.write_text(path.read_text().replace("p=0.3", "p=0.4"))
    with pytest.raises(StoreError, match="other dropouts"):
        go(config, tmp_path / "out.zarr", resume=True)


DOUBLE = (
    CONVOLUTION
    + """

class Net(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.double()
"""
)


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("first", ["one", "two"])
def test_members_may_take_other_numbers(tmp_path, draws, first):
    config = ensemble(tmp_path / "p", ("one", "two"), uncertainty={"draws": draws})
    expected = go(config, tmp_path / "same.zarr")
    options = "{auto_resize_len: 60, alphabet_axis: 0, dtype: np.float64}"
    for name in {first, *(["model"] if first == "one" else [])}:
        state = torch.load(tmp_path / "p" / name / "weights.pt")
        write_model(tmp_path / "p" / name, code=DOUBLE, dataloader=options)
        torch.save({key: tensor.double() for key, tensor in state.items()}, tmp_path / "p" / name / "weights.pt")
    found = go(config, tmp_path / "mixed.zarr")
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)


def test_members_inside_may_be_a_dict(tmp_path):
    config = inside(tmp_path / "p")
    expected = go(config, tmp_path / "list.zarr")
    path = tmp_path / "p" / "model" / "model.py"
    path.write_text(path.read_text().replace("list(self.model.networks)", "dict(enumerate(self.model.networks))"))
    found = go(config, tmp_path / "dict.zarr")
    np.testing.assert_array_equal(found.exposure_se, expected.exposure_se)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{method: ensemble, members: [a]}", "1 member cannot give a standard error; name at least 2 models"),
        ("{method: ensemble, members: []}", "expected at least one entry"),
        ("{method: ensemble, members: [a, a]}", "'a' is named twice"),
        ("{members: [a, b]}", "members belong to `method: ensemble`"),
        (
            "{method: ensemble, members: [{nam: a}, b]}",
            "uncertainty.members.0.nam: unknown key 'nam'. Did you mean 'name'?",
        ),
        ("{method: ensemble, members: [3, b]}", "expected a name or the keys name, source; found 3"),
        ("{method: ensemble, members: a}", "expected a list"),
        ("{method: ensemble, draws: 0}", "uncertainty.draws"),
    ],
)
def test_a_wrong_section_is_explained(tmp_path, section, said):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {name: m}\nexposures: {A: {task: a, peaks: a.bed}}\noutcomes: {B: b}\nuncertainty: " + section + "\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)


def test_members_and_draws_have_their_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {name: m}\nexposures: {A: {task: a, peaks: a.bed}}\noutcomes: {B: b}\n"
        "uncertainty: {method: ensemble, members: [a, {name: b, source: dir}]}\n"
    )
    section = load_config(path).uncertainty
    assert [(member.name, member.source) for member in section.members] == [("a", None), ("b", "dir")]
    assert section.draws == 1


@pytest.mark.parametrize("method", ["debiased_ivw", "raps", "cross_fitted_ivw"])
def test_draws_of_one_member_are_not_counted_as_independent(tmp_path, method):
    path = ensemble(tmp_path / "p", uncertainty={"draws": 3}, code=CONVOLUTION)
    config = load_config(path)
    with pytest.raises(
        ConfigError, match=r"standard_error: monte_carlo: .* 3 thinned networks of each of the 3 members"
    ):
        check(config.model_copy(update={"effects": EffectsSection(standard_error="monte_carlo")}), device="cpu")
    store = tmp_path / "out.zarr"
    with pytest.raises(ConfigError, match=f"mr.methods: {method}: the error of the mean over draws"):
        run(config.model_copy(update={"mr": MRSection(methods=[method])}), store, device="cpu", progress=False)
    run(config, store, device="cpu", progress=False)
    with pytest.raises(ConfigError, match=f"mr.methods: {method}: the error of the mean over draws"):
        re_estimate(store, mr={"methods": [method]})
