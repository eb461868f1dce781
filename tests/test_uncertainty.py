"""A draw of MC-dropout is a thinned network: its masks, where they act, and what decides them."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.uncertainty import (
    DropoutMode,
    DropoutSite,
    MCDropout,
    ThinnedNetwork,
    explain_no_dropout,
    find_dropouts,
)
from tests.toy_models import ConvNet, ReverseComplementStack

CPU = torch.device("cpu")
LENGTH = 12
NAMES = ["chr8:0-12(+)", "chr8:20-32(+)", "chr9:0-12(-)"]


class Function(nn.Module):
    """A network that is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def one_hot(rows: int, length: int = LENGTH, seed: int = 0) -> Tensor:
    codes = np.random.default_rng(seed).integers(0, 4, (rows, length))
    return torch.from_numpy(np.eye(4, dtype=np.float32)[codes].transpose(0, 2, 1).copy())


def net(seed: int = 0, **kwargs) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet(LENGTH, 3, **kwargs).eval()


def draws_of(network: nn.Module, example: Tensor, **kwargs) -> MCDropout:
    return MCDropout(find_dropouts(network, example[:1]), **{"seed": 1, "device": CPU, **kwargs})


def predict(network: nn.Module, draws: MCDropout, x: Tensor, name: str = NAMES[0], draw: int = 0) -> Tensor:
    with torch.inference_mode():
        return ThinnedNetwork(network, draws.masks([name], draw).rows(None))(x)


def hear(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a command line that ran in this process did: ours stops propagation, Kipoi's silences all loggers."""
    caplog.set_level(logging.WARNING, logger="kipoi_deepmr")
    monkeypatch.setattr(logging.getLogger("kipoi_deepmr"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("kipoi_deepmr.uncertainty.sites"), "disabled", False)


# Which dropouts are found, and where


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "mask"),
    [
        (nn.Dropout(0.3), (6, 5), "elementwise", (1, 6, 5)),
        (nn.Dropout1d(0.3), (6, 5), "feature", (1, 6, 1)),
        (nn.Dropout2d(0.3), (6, 5, 4), "feature", (1, 6, 1, 1)),
        (nn.Dropout3d(0.3), (6, 5, 4, 3), "feature", (1, 6, 1, 1, 1)),
        (nn.AlphaDropout(0.3), (6, 5), "alpha", (1, 6, 5)),
        (nn.FeatureAlphaDropout(0.3), (6, 5), "feature_alpha", (1, 6, 1)),
        (nn.Dropout(0.3, inplace=True), (6, 5), "elementwise", (1, 6, 5)),
        (nn.Dropout1d(0.3), (6,), "row", (1, 1)),
        (nn.Dropout3d(0.3), (6, 5, 4), "row", (1, 1, 1, 1)),
        (Function(lambda x: F.dropout(x, 0.3, training=False)), (6, 5), "elementwise", (1, 6, 5)),
        (Function(lambda x: F.dropout(x, 0.3, training=True)), (6, 5), "elementwise", (1, 6, 5)),
        (Function(lambda x: F.dropout(input=x, p=0.3)), (6, 5), "elementwise", (1, 6, 5)),
        (Function(lambda x: torch.dropout(x, 0.3, False)), (6, 5), "elementwise", (1, 6, 5)),
        (Function(lambda x: torch.dropout_(x, 0.3, train=False)), (6, 5), "elementwise", (1, 6, 5)),
        (Function(lambda x: torch.feature_dropout(x, p=0.3, train=True)), (6, 5), "feature", (1, 6, 1)),
        (Function(lambda x: F.alpha_dropout(x, 0.3)), (6, 5), "alpha", (1, 6, 5)),
        (Function(lambda x: F.feature_alpha_dropout(x, 0.3)), (6, 5), "feature_alpha", (1, 6, 1)),
    ],
)
def test_every_dropout_of_torch_is_found_in_eval_mode(layer, shape, kind, mask):
    (site,) = find_dropouts(layer.eval(), torch.ones(1, *shape))
    assert site == DropoutSite(kind, 0.3, mask, 0, 1)


def test_sites_stand_in_the_order_in_which_they_run():
    assert [(site.kind, site.p) for site in find_dropouts(net(), one_hot(1))] == [
        ("feature", 0.3),
        ("elementwise", 0.25),
        ("alpha", 0.2),
    ]


def test_a_layer_that_is_used_twice_is_two_sites_with_masks_of_their_own():
    layer = nn.Dropout(0.5)
    network = Function(lambda x: torch.stack([layer(x), layer(x)], 1))
    found = predict(network, draws_of(network, torch.ones(1, 50)), torch.ones(1, 50))
    assert not torch.equal(found[:, 0], found[:, 1])


def test_p_of_zero_is_no_dropout():
    assert find_dropouts(Function(lambda x: F.dropout(nn.Dropout(0.0)(x), 0.0)), torch.ones(1, 3)) == ()


def test_p_of_one_drops_all():
    for layer in (nn.Dropout(1.0), nn.AlphaDropout(1.0), nn.Dropout1d(1.0)):
        x = torch.ones(2, 3, 4)
        assert (predict(layer.eval(), draws_of(layer.eval(), x), x) == 0).all()


def test_the_batch_need_not_be_the_first_axis():
    layer = nn.Dropout(0.5).eval()
    network = Function(lambda x: layer(x.permute(2, 0, 1)).permute(1, 2, 0))  # (L, B, C)
    x = torch.ones(3, 8, LENGTH)
    (site,) = find_dropouts(network, x[:1])
    assert (site.batch_axis, site.shape) == (1, (LENGTH, 1, 8))
    draws = draws_of(network, x)
    found = predict(network, draws, x)
    assert torch.equal(found[0], found[1]) and found[0].unique().tolist() == [0.0, 2.0]
    rows = torch.tensor([1, 0, 1])
    mixed = ThinnedNetwork(network, draws.masks(NAMES[:2], 0).rows(rows))(x)
    for row, name in enumerate(NAMES[index] for index in rows):
        assert torch.equal(mixed[row], predict(network, draws, x[:1], name)[0])


def test_stacked_rows_of_a_sequence_share_a_mask():
    network = Function(lambda x: F.dropout(torch.cat([x, x, x]), 0.5))
    (site,) = find_dropouts(network, torch.ones(1, 9))
    assert (site.stack, site.shape) == (3, (1, 9))
    assert "stacked 3 times" in site.describe()


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x: F.dropout(torch.cat([x, x[:1]])), r"\(3, 4\) for 2 sequences and \(4, 4\)"),
        (lambda x: F.dropout(torch.cat([x, x[:1], x[:1]])), r"\(4, 4\) for 2 sequences and \(5, 4\)"),
        (lambda x: F.dropout(x @ x.T), r"\(2, 2\)"),
        (lambda x: F.dropout(torch.ones(5)), r"\(5,\)"),
    ],
)
def test_a_dropout_whose_mask_no_batch_can_share_is_an_error(function, shapes):
    with pytest.raises(ModelError, match=rf"dropout 1 of the network \(elementwise, p=0.5\) acts on {shapes}"):
        find_dropouts(Function(function), torch.ones(1, 4))


def test_a_network_that_runs_more_dropouts_for_larger_batches_is_an_error():
    def per_row(x: Tensor) -> Tensor:
        return torch.stack([F.dropout(row) for row in x])

    with pytest.raises(ModelError, match="another number of dropouts"):
        find_dropouts(Function(per_row), torch.ones(1, 4))


# What the masks do


@pytest.mark.parametrize("kind", ["elementwise", "feature", "row", "alpha", "feature_alpha"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_rate_of_kept_units_is_one_minus_p(kind, p):
    draws = MCDropout([DropoutSite(kind, p, (1, 20000), 0, 1)], seed=3, device=CPU)
    assert abs(draws.keep("s", 0, 0).mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / 20000)


@pytest.mark.parametrize("layer", [nn.Dropout(0.4), nn.AlphaDropout(0.4)])
def test_a_draw_is_what_torch_gives_for_the_same_kept_units(layer):
    x = torch.randn(1, 5000, dtype=torch.float64) + 0.3
    torch.manual_seed(0)
    trained = layer.train()(x)
    kept = trained != 0 if isinstance(layer, nn.Dropout) else torch.rand(0)
    if isinstance(layer, nn.AlphaDropout):
        dropped = trained[0].mode().values  # all dropped units come to one value
        kept = trained != dropped
        assert 0.3 < 1 - kept.double().mean() < 0.5
    draws = draws_of(layer.eval(), x, dtype=torch.float64)
    mask = draws.mask(draws.sites[0], kept)
    torch.testing.assert_close(mask(x), trained)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_alpha_dropout_preserves_mean_and_variance_of_a_standard_normal(p):
    x = torch.randn(1, 200000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = nn.AlphaDropout(p).eval()
    y = predict(layer, draws_of(layer, x, dtype=torch.float64), x)
    assert abs(float(y.mean())) < 0.02 and abs(float(y.var()) - 1) < 0.03


@pytest.mark.parametrize("layer", [nn.Dropout1d(0.5), nn.Dropout2d(0.5), nn.Dropout3d(0.5)])
def test_dropout_of_features_drops_whole_channels(layer):
    x = torch.ones(2, 64, *(3,) * {nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}[type(layer)])
    found = predict(layer.eval(), draws_of(layer.eval(), x), x).flatten(2)
    assert (found == found[..., :1]).all()
    assert sorted(found.unique().tolist()) == [0.0, 2.0]


def test_a_masked_forward_equals_the_network_with_hand_multiplied_activations():
    torch.manual_seed(0)
    first, last = nn.Linear(4 * LENGTH, 7), nn.Linear(7, 2)
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Dropout(0.4), last).eval()
    x = one_hot(5)
    draws = draws_of(network, x)
    for draw in range(3):
        kept = torch.from_numpy(draws.keep(NAMES[0], draw, 0))
        expected = last(F.relu(first(x.flatten(1))) * kept / 0.6)
        torch.testing.assert_close(predict(network, draws, x, draw=draw), expected)


def test_dropout_in_place_changes_its_input_as_in_training():
    def residual(x: Tensor) -> Tensor:
        y = x * 1
        F.dropout(y, 0.5, True, True)  # the result is not taken
        torch.dropout_(y, 0.5, True)
        return y

    draws = draws_of(Function(residual), torch.ones(1, 60))
    found = predict(Function(residual), draws, torch.ones(1, 60))
    kept = draws.keep(NAMES[0], 0, 0) & draws.keep(NAMES[0], 0, 1)
    np.testing.assert_array_equal(found.numpy(), 4.0 * kept)


def test_a_network_that_computes_in_another_type_keeps_it():
    network = Function(lambda x: nn.functional.linear(F.dropout(x.double(), 0.5), torch.eye(6, dtype=torch.float64)))
    draws = draws_of(network, torch.ones(1, 6))
    assert predict(network, draws, torch.ones(2, 6)).dtype == torch.float64
    half = Function(lambda x: F.dropout(x.half(), 0.5) + torch.ones(6, dtype=torch.float16))
    assert predict(half, draws, torch.ones(2, 6)).dtype == torch.float16


def test_masks_of_integer_sequences_are_not_integers():
    draws = MCDropout([DropoutSite("elementwise", 0.3, (1, 9), 0, 1)], seed=1, device=CPU, dtype=torch.int64)
    (mask,) = draws.masks(["s"], 0).rows(None)
    assert mask.factor.dtype == torch.float32 and float(mask.factor.max()) == pytest.approx(1 / 0.7)


# What decides the masks


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 5), st.sampled_from(NAMES), st.integers(0, 2**40))
def test_all_rows_share_the_masks_whatever_the_batch(batch, draw, name, seed):
    network, x = net(), one_hot(1).expand(9, -1, -1)
    draws = draws_of(network, x, seed=seed)
    found = predict(network, draws, x[:batch], name, draw)
    torch.testing.assert_close(found, found[:1].expand(batch, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:1], predict(network, draws, x[:1], name, draw), rtol=0, atol=1e-6)


def test_the_bits_of_a_mask_are_pinned():
    """They decide every result: a change of them makes old and new results differ."""
    draws = MCDropout([DropoutSite("elementwise", 0.5, (1, 16), 0, 1)], seed=1, device=CPU)
    assert "".join(map(str, draws.keep("chr8:0-12(+)", 0, 0)[0].astype(int))) == "1010100110111111"


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_another_seed_sequence_draw_or_site_has_another_mask(data):
    keys = st.tuples(st.integers(0, 3), st.sampled_from([*NAMES, "shared"]), st.integers(0, 12), st.integers(0, 2))
    one, other = data.draw(keys), data.draw(keys)
    sites = [DropoutSite("elementwise", 0.5, (1, 128), 0, 1)] * 3
    masks = [MCDropout(sites, seed=seed, device=CPU).keep(*key) for seed, *key in (one, other)]
    assert np.array_equal(*masks) == (one == other)


def test_masks_do_not_depend_on_what_was_drawn_before_or_on_global_seeds():
    draws = draws_of(net(), one_hot(1))
    first = draws.keep(NAMES[1], 4, 0)
    draws.masks(NAMES, 3)
    torch.manual_seed(99)
    np.random.seed(99)
    np.testing.assert_array_equal(draws.keep(NAMES[1], 4, 0), first)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 2, 0, 1, 0], [1]])
def test_each_row_of_a_mixed_batch_has_the_masks_of_its_sequence(rows):
    network, x = net(), one_hot(len(rows))
    draws = draws_of(network, x)
    with torch.inference_mode():
        mixed = ThinnedNetwork(network, draws.masks(NAMES, 2).rows(torch.tensor(rows)))(x)
    for row, index in enumerate(rows):
        torch.testing.assert_close(mixed[row], predict(network, draws, x[row : row + 1], NAMES[index], 2)[0])


def test_a_mixed_batch_must_say_whose_its_rows_are():
    with pytest.raises(ValueError, match="masks of 3 sequences need the sequence of each row"):
        draws_of(net(), one_hot(1)).masks(NAMES, 0).rows(None)


def test_both_strands_share_the_masks():
    network = net()
    both = ReverseComplementStack(network).eval()
    x = one_hot(3)
    draws, plain = draws_of(both, x), draws_of(network, x)
    assert [site.stack for site in draws.sites] == [2, 2, 2]
    for draw in range(3):
        forward, reverse = (predict(network, plain, s, draw=draw) for s in (x, x.flip((1, -1))))
        torch.testing.assert_close(predict(both, draws, x, draw=draw), (forward + reverse) / 2)
        rows = torch.tensor([0, 1, 0])
        mixed = ThinnedNetwork(both, draws.masks(NAMES[:2], draw).rows(rows))(x)
        torch.testing.assert_close(mixed[1:2], predict(both, draws, x[1:2], NAMES[1], draw))
        torch.testing.assert_close(predict(both, draws, x, draw=draw), predict(both, draws, x.flip((1, -1)), draw=draw))


def test_shared_draws_are_the_same_for_all_sequences():
    network, x = net(), one_hot(4)
    draws = draws_of(network, x, shared=True)
    np.testing.assert_array_equal(draws.keep(NAMES[0], 1, 0), draws.keep(NAMES[2], 1, 0))
    with torch.inference_mode():
        mixed = ThinnedNetwork(network, draws.masks(NAMES, 1).rows(torch.tensor([0, 1, 2, 0])))(x)
    torch.testing.assert_close(mixed, predict(network, draws, x, draw=1))
    assert not torch.allclose(mixed, predict(network, draws, x, draw=2))


# The model is left alone


def test_everything_but_dropout_stays_in_eval_mode_and_the_model_as_it_was():
    network = net()
    network.norm.running_mean.fill_(0.7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = one_hot(6)
    draws = draws_of(network, x)
    alone = torch.cat([predict(network, draws, row[None]) for row in x])
    torch.testing.assert_close(predict(network, draws, x), alone)
    assert not any(part.training for part in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.inference_mode():
        assert torch.equal(network(x), network(x))


def test_the_mode_ends_when_the_network_fails():
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            ThinnedNetwork(broken, [])(torch.ones(1))
    assert F.dropout(torch.ones(3), training=False).tolist() == [1, 1, 1]


def test_the_mode_counts_anew_at_each_pass():
    seen = []
    mode = DropoutMode(lambda index, x, kind, p: seen.append(index) or x)
    for _ in range(2):
        with mode:
            F.dropout(F.dropout(torch.ones(2)))
    assert seen == [0, 1, 0, 1]


# No dropout


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Linear(3, 2), "It has none"),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0)), r"dropout modules \(1\), but with p=0 or never called"),
        (nn.LSTM(3, 3, num_layers=2, dropout=0.5), "That of LSTM runs inside one call"),
        (nn.ModuleDict({"attend": nn.MultiheadAttention(4, 2, dropout=0.1)}), "That of attend runs inside"),
    ],
)
def test_a_model_without_dropout_is_told_what_was_looked_for_and_what_to_do(network, found):
    said = explain_no_dropout(network)
    assert "looked for nn.Dropout, Dropout1d/2d/3d, AlphaDropout and the functions" in str(said)
    assert "Choose a model with dropout" in str(said)
    with pytest.raises(type(said), match=found):
        raise said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_told_so():
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval(), torch.ones(1, 3))
    assert find_dropouts(scripted, torch.ones(1, 3)) == ()
    assert "TorchScript" in str(explain_no_dropout(scripted))


def test_a_dropout_that_cannot_be_followed_beside_others_is_a_warning(caplog, monkeypatch):
    hear(caplog, monkeypatch)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True).eval()
    with caplog.at_level(logging.WARNING):
        sites = find_dropouts(layer, torch.ones(1, 5, 8))
    assert len(sites) == 3
    assert "the dropout inside self_attn stays off in all draws" in caplog.text


def test_one_recurrent_layer_has_no_dropout_to_warn_of(caplog, monkeypatch):
    hear(caplog, monkeypatch)
    network = nn.GRU(3, 3)
    network.dropout = 0.5
    find_dropouts(Function(lambda x: network(x)[0]), torch.ones(1, 5, 3))
    assert not caplog.records
