"""A model's network as one function of the sequence, on any input and output structure."""

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kipoi_deepmr.errors import ModelError, PredictionError
from kipoi_deepmr.model import InputBatch, Layout, SequenceNetwork, check_agreement, lent, sequence_dtype, to_batch
from kipoi_deepmr.model.function import ModelFiles
from kipoi_deepmr.model.network import find_module
from kipoi_deepmr.model.outputs import columns, output_parts
from tests.toy_models import ConvNet, TwoInputs

CPU = torch.device("cpu")
LENGTH = 8


def layout(key=None, dtype=np.float32) -> Layout:
    return Layout(key, 0, 1, "ACGT", (4, LENGTH), np.dtype(dtype))


def one_hot(rows: int = 3, dtype=np.float32) -> np.ndarray:
    codes = np.random.default_rng(0).integers(0, 4, (rows, LENGTH))
    return np.eye(4, dtype=dtype)[codes].transpose(0, 2, 1)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


class Named(nn.Module):
    """Takes what its forward names."""

    def forward(self, track: Tensor, seq: Tensor) -> Tensor:
        return seq.sum(2) + 10 * track[:, None]


class OneDict(nn.Module):
    def forward(self, inputs: dict) -> Tensor:
        return inputs["seq"].sum(2) + 10 * inputs["track"][:, None]


class Keywords(nn.Module):
    def forward(self, **inputs: Tensor) -> Tensor:
        return inputs["seq"].sum(2) + 10 * inputs["track"][:, None]


# Inputs


def test_one_array_is_the_only_argument():
    x = torch.from_numpy(one_hot())
    network = SequenceNetwork(Function(lambda x: x.sum(2)), layout(), (), False)
    assert torch.equal(network(x), x.sum(2))


@pytest.mark.parametrize("module", [Named(), OneDict(), Keywords()])
@pytest.mark.parametrize("extra", [False, True])
def test_a_dict_is_given_as_keywords_or_as_one_dict(module, extra):
    inputs = {"seq": one_hot(), "track": np.arange(3, dtype=np.float32)}
    if extra:
        inputs |= {"name": np.array(["a", "b", "c"]), "length": np.ones(3)}
    batch, keys = to_batch(inputs, layout("seq"), CPU, torch.float32)
    network = SequenceNetwork(module, layout("seq"), keys, True)
    expected = torch.from_numpy(inputs["seq"].sum(2) + 10 * inputs["track"][:, None])
    assert torch.equal(network(batch.sequence, *batch.others), expected)


@pytest.mark.parametrize("position", [0, 1])
def test_a_list_keeps_its_order_wherever_the_sequence_stands(position):
    class Pair(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            seq, track = (first, second) if position == 0 else (second, first)
            return seq.sum(2) + 10 * track[:, None]

    inputs = [np.arange(3, dtype=np.float32)]
    inputs.insert(position, one_hot())
    batch, keys = to_batch(inputs, layout(position), CPU, torch.float32)
    network = SequenceNetwork(Pair(), layout(position), keys, False)
    assert torch.equal(
        network(batch.sequence, *batch.others)[:, 0], torch.from_numpy(one_hot()[:, 0].sum(1)) + 10 * batch.others[0]
    )


def test_the_given_example_of_two_named_inputs_works():
    module = TwoInputs(LENGTH, 2).eval()
    inputs = {"track": np.ones((3, LENGTH)), "seq": one_hot(dtype=np.float64)}
    batch, keys = to_batch(inputs, layout("seq"), CPU, sequence_dtype(module, layout("seq", np.float64)))
    output = SequenceNetwork(module, layout("seq"), keys, True)(batch.sequence, *batch.others)
    assert output.shape == (3, 2) and output.dtype == torch.float32


def test_integers_beside_the_sequence_stay_integers():
    inputs = {"seq": one_hot(), "cell": np.array([1, 0, 2]), "flag": np.array([True, False, True])}
    batch, keys = to_batch(inputs, layout("seq"), CPU, torch.float32)
    assert keys == ("cell", "flag")
    assert [tensor.dtype for tensor in batch.others] == [torch.int64, torch.bool]


def test_arrays_with_negative_strides_are_taken():
    batch, _ = to_batch(one_hot()[:, ::-1, ::-1], layout(), CPU, torch.float32)
    np.testing.assert_array_equal(batch.sequence.numpy(), one_hot()[:, ::-1, ::-1])


# Types


@pytest.mark.parametrize(
    ("module", "given", "expected"),
    [
        (nn.Linear(3, 2), np.float64, torch.float32),
        (nn.Linear(3, 2).double(), np.float32, torch.float64),
        (nn.Linear(3, 2), np.int64, torch.float32),
        (nn.Linear(3, 2), np.bool_, torch.float32),
        (nn.Linear(3, 2).half(), np.float32, torch.float16),
        (nn.Flatten(), np.float64, torch.float64),
        (nn.Flatten(), np.int8, torch.float32),
        (nn.Embedding(2, 3), np.int64, torch.int64),
        (nn.Embedding(2, 3), np.float32, torch.float32),
    ],
)
def test_sequences_come_in_the_type_of_the_network(module, given, expected):
    assert sequence_dtype(module, layout(dtype=given)) is expected


@pytest.mark.parametrize("given", [np.float64, np.float32, np.int64, np.uint8])
def test_a_convolution_takes_what_any_dataloader_gives(given):
    module = ConvNet(LENGTH, 2).eval()
    dtype = sequence_dtype(module, layout(dtype=given))
    batch, _ = to_batch(one_hot(dtype=given), layout(), CPU, dtype)
    expected = module(torch.from_numpy(one_hot())).detach()
    torch.testing.assert_close(SequenceNetwork(module, layout(), (), False)(batch.sequence).detach(), expected)


@pytest.mark.parametrize("given", [np.int64, np.int32])
def test_an_embedding_takes_integers(given):
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(2, 3)
            self.last = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.embedding(x).mean((1, 2)))

    module = Embedded()
    batch, _ = to_batch(one_hot(dtype=given), layout(), CPU, sequence_dtype(module, layout(dtype=given)))
    assert SequenceNetwork(module, layout(), (), False)(batch.sequence).shape == (3, 2)


def test_a_network_that_casts_to_long_takes_integers():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.arange(8.0).reshape(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.table[x.long()].sum((1, 2))

    batch, _ = to_batch(one_hot(dtype=np.int8), layout(), CPU, sequence_dtype(Long(), layout(dtype=np.int8)))
    assert SequenceNetwork(Long(), layout(), (), False)(batch.sequence).shape == (3, 4)


# Outputs


Pair = collections.namedtuple("Pair", "late early")


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (lambda a, b: [a, b], [0, 1, 1]),
        (lambda a, b: (a, b), [0, 1, 1]),
        (lambda a, b: Pair(a, b), [0, 1, 1]),
        (lambda a, b: {"x": a, "y": b}, [0, 1, 1]),
        (lambda a, b: {"y": a, "x": b}, [1, 1, 0]),
        (lambda a, b: collections.OrderedDict(y=a, x=b), [1, 1, 0]),
    ],
)
def test_several_output_arrays_are_joined_in_order_and_those_of_a_dict_by_name(structure, expected):
    network = Function(lambda x: structure(torch.zeros(len(x)), torch.ones(len(x), 2)))
    output = SequenceNetwork(network, layout(), (), False)(torch.from_numpy(one_hot()))
    assert output.tolist() == [expected] * 3


@pytest.mark.parametrize("shape", [(3, 2, 5), (2, 2), (), (2,), (6,)])
def test_an_output_that_is_not_batch_by_tasks_is_an_error(shape):
    with pytest.raises(ModelError, match=r"for a batch of 3: needed is \(batch, tasks\)"):
        columns(torch.zeros(shape), 3)


def test_an_output_that_is_no_array_is_an_error():
    with pytest.raises(ModelError, match="needed is"):
        [columns(part, 3) for _, part in output_parts(None)]


# The network inside a Kipoi model


class Carrier:
    def __init__(self, **parts):
        vars(self).update(parts)


def test_the_network_is_found_under_any_name_once():
    net, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert find_module(Carrier(model=net, other=other), ModelFiles(Path())) is net
    assert find_module(Carrier(net=net, device="cpu"), ModelFiles(Path())) is net
    assert find_module(Carrier(net=net, same=net), ModelFiles(Path())) is net
    with pytest.raises(ModelError, match=r"Carrier carries several networks \(a, b\): name the one to use `model`"):
        find_module(Carrier(a=net, b=other), ModelFiles(Path()))
    with pytest.raises(ModelError, match="Carrier carries no torch network"):
        find_module(Carrier(model="weights"), ModelFiles(Path()))


def test_a_model_that_is_itself_a_network_is_preferred_to_its_part():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) + 1

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(1, 1)

    whole, holder = Whole(), Holder()
    assert find_module(whole, ModelFiles(Path())) is whole
    assert find_module(holder, ModelFiles(Path())) is holder.model


# Lent and given back


def test_a_lent_network_is_given_back_as_it_was_even_after_an_error():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    module[1][1].eval()
    flags = [part.training for part in module.modules()]
    tf32 = torch.backends.cudnn.allow_tf32
    for fails in (False, True):
        try:
            with lent(module, CPU) as network:
                assert network is module
                assert not any(part.training for part in module.modules())
                assert not torch.backends.cudnn.allow_tf32
                if fails:
                    raise KeyError("stop")
        except KeyError:
            assert fails
        assert [part.training for part in module.modules()] == flags
        assert torch.backends.cudnn.allow_tf32 == tf32
        assert all(parameter.requires_grad for parameter in module.parameters())


# Agreement with predict_on_batch


def agree(module: nn.Module, expected: np.ndarray, key=None, keys=()) -> None:
    network = SequenceNetwork(module, layout(key), keys, key is not None)
    batch = InputBatch(torch.from_numpy(one_hot()), tuple(torch.ones(3) for _ in keys))
    check_agreement(network, batch, expected)


def test_a_network_that_gives_the_models_predictions_agrees():
    agree(Function(lambda x: x.sum(2)), one_hot().sum(2))


def test_a_step_after_the_network_is_noticed_with_its_size():
    with pytest.raises(ModelError, match=r"other values than its network \(by up to 1\)"):
        agree(Function(lambda x: x.sum(2)), one_hot().sum(2) + np.array([0, 0, 1, 0]))


def test_a_difference_of_a_thousandth_is_noticed_and_rounding_is_none():
    expected = one_hot().sum(2)
    agree(Function(lambda x: x.sum(2)), expected * (1 + 1e-6))
    with pytest.raises(ModelError, match="other values than its network"):
        agree(Function(lambda x: x.sum(2)), expected * (1 + 1e-3))


def test_another_shape_is_shown():
    with pytest.raises(ModelError, match=r"shape \(3, 2\), its network \(3, 4\)"):
        agree(Function(lambda x: x.sum(2)), one_hot().sum(2)[:, :2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_or_infinity_is_an_error_that_names_the_output(bad):
    def broken(x: Tensor) -> Tensor:
        return x.sum(2) + torch.tensor([0, 0, bad, 0])

    with pytest.raises(PredictionError, match=f"returns {bad} for output 2"):
        agree(Function(broken), broken(torch.from_numpy(one_hot())).numpy())


def test_a_network_that_cannot_be_called_is_explained():
    with pytest.raises(
        ModelError, match=r"network Named cannot be called with the dataloader's inputs \('seq', 'atac'\)"
    ):
        agree(Named(), one_hot().sum(2), "seq", ("atac",))
    with pytest.raises(ModelError, match=r"network Linear cannot be called.*mat1 and mat2"):
        agree(nn.Linear(3, 2), one_hot().sum(2))


def test_an_output_of_another_shape_keeps_its_own_explanation():
    with pytest.raises(ModelError, match="or a profile whose shape"):
        agree(Function(lambda x: x), one_hot().sum(2))
