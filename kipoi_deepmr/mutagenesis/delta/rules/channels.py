"""Operations across channels at each position, and the choice of one entry of an axis."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.needs import Only
from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run, Step
from kipoi_deepmr.mutagenesis.delta.rules.registry import aten, dimension, rule, shape_of, with_defaults
from kipoi_deepmr.mutagenesis.delta.state import Rows, Unsupported, Windowed, arguments, call


@rule(aten._softmax.default, aten._log_softmax.default)
def _softmax(plan: Plan, node: fx.Node) -> Followed:
    x, dim, *rest = arguments(node)
    windowed, value = plan.windowed(x), plan.value(x)
    axis = windowed.layout.channel_axis(dimension(dim, windowed.layout))
    return Followed(Windowed(windowed.layout, windowed.window, True), lambda run: call(node, value(run), axis, *rest))


@rule(aten.logsumexp.default)
def _logsumexp(plan: Plan, node: fx.Node) -> Followed:
    return over_channels(plan, node)


@rule(aten.var.correction, aten.std.correction)
def _spread(plan: Plan, node: fx.Node) -> Followed:
    x, dims = with_defaults(node, [None, None])[:2]
    windowed, value = plan.windowed(x), plan.value(x)
    reduced = [dimension(dim, windowed.layout) for dim in dims or []]
    if len(reduced) != 1 or reduced[0] < 0:
        raise Unsupported("a variance over several axes, or over the batch")
    axis = windowed.layout.channel_axis(reduced[0])
    keep = bool(node.kwargs.get("keepdim", False))
    correction: Any = node.kwargs.get("correction", 1)
    output = Windowed(windowed.layout.without(reduced[0], keep=keep), windowed.window, True)
    return Followed(output, lambda run: call(node, value(run), [axis], correction=correction))


@rule(aten.native_layer_norm.default)
def _layer_norm(plan: Plan, node: fx.Node) -> Followed:
    """Follow a normalisation over the channels of each position."""
    x, shape, weight, bias, eps = arguments(node)
    windowed, value = plan.windowed(x), plan.value(x)
    if len(shape) != 1:
        raise Unsupported("a normalisation over several axes")
    axis = windowed.layout.channel_axis(len(windowed.layout.dims) - 1)
    weight, bias = (None if given is None else plan.constant(given) for given in (weight, bias))

    def normalize(run: Run) -> Tensor:
        data = value(run).movedim(axis, -1)
        return torch.nn.functional.layer_norm(data, shape, weight, bias, eps).movedim(-1, axis)

    return Followed(Windowed(windowed.layout, windowed.window, True), normalize)


@rule(aten.linear.default)
def _linear(plan: Plan, node: fx.Node) -> Followed:
    """Follow a linear layer at each position; its bias is in the reference."""
    x, weight_node = arguments(node)[:2]
    windowed, difference = plan.windowed(x), plan.difference(x)
    dim = len(windowed.layout.dims) - 1
    axis = windowed.layout.channel_axis(dim)
    plan.constant(weight_node)
    weight = plan.weight(node, "turned", lambda: plan.constant(weight_node).t())
    output = Windowed(windowed.layout.with_channels(dim, weight.shape[1]), windowed.window, False)
    product: Step = lambda run: plan.product(torch.matmul, difference(run).movedim(axis, -1), weight).movedim(-1, axis)  # noqa: E731
    others = math.prod(windowed.layout.sizes[1:]) // len(weight)
    return Followed(
        output, product, owned=True, multiply_adds=lambda: windowed.window.existing * others * weight.numel()
    )


def over_channels(plan: Plan, node: fx.Node) -> Followed:
    """Follow a mean, sum, maximum or logsumexp over one channel axis."""
    x, dims, keep = with_defaults(node, [None, None, False])[:3]
    windowed, value = plan.windowed(x), plan.value(x)
    reduced = [dimension(dim, windowed.layout) for dim in (dims if isinstance(dims, list | tuple) else [dims])]
    if len(reduced) != 1 or reduced[0] < 0:
        raise Unsupported("a reduction of several axes, or of the batch")
    axis = windowed.layout.channel_axis(reduced[0])
    output = Windowed(windowed.layout.without(reduced[0], keep=keep), windowed.window, True)
    return Followed(output, lambda run: call(node, value(run), [axis]))


@rule(aten.select.int)
def _select(plan: Plan, node: fx.Node) -> Followed:
    x, axis, index = arguments(node)
    windowed = plan.windowed(x)
    layout = windowed.layout
    dim = dimension(axis, layout)
    if dim < 0:
        raise Unsupported("one row of the batch")
    if layout.dims[dim] == (0,):
        return _at_position(plan, node, index % layout.sizes[0])
    if not layout.dims[dim]:
        return Followed(
            Windowed(layout.without(dim, keep=False), windowed.window, windowed.is_value), lambda run: run.data[x]
        )
    channel = layout.channel_axis(dim)
    output = Windowed(layout.without(dim, keep=False), windowed.window, windowed.is_value)
    return Followed(output, lambda run: run.data[x].select(channel, index))


def _at_position(plan: Plan, node: fx.Node, index: int) -> Followed:
    """Return the values at one position, which every mutant has: where it does not reach, those of the reference."""
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    start = torch.full(windowed.window.start.shape, index).numpy()
    patch = plan.patch(x, start, 1, math.nan)
    kept = [atom for atom in windowed.layout.order if atom != 0]
    shape = shape_of(node)

    def read(run: Run) -> Tensor:
        found = patch(run)[:, :, :, 0]
        found = found.permute(0, 1, 2, *(2 + atom for atom in kept))
        return found.reshape(math.prod(found.shape[:3]), *shape)

    return Followed(Rows(shape), read, Only(index))
