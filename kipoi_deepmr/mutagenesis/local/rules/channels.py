"""Operations across channels at each position, and the choice of one entry of an axis."""

import math

import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.local.plan import Plan, Run, Step
from kipoi_deepmr.mutagenesis.local.rules.registry import aten, dimension, rule, shape_of, with_defaults
from kipoi_deepmr.mutagenesis.local.state import Local, Rows, Unsupported, arguments, call


@rule(aten._softmax.default, aten._log_softmax.default)
def _softmax(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, dim, *rest = arguments(node)
    local, value = plan.local(x), plan.value(x)
    axis = local.layout.channel_axis(dimension(dim, local.layout))
    return Local(local.layout, local.window, True), lambda run: call(node, value(run), axis, *rest)


@rule(aten.logsumexp.default)
def _logsumexp(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    return over_channels(plan, node)


def over_channels(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    """Follow a mean, sum, maximum or logsumexp over one channel axis."""
    x, dims, keep = with_defaults(node, [None, None, False])[:3]
    local, value = plan.local(x), plan.value(x)
    reduced = [dimension(dim, local.layout) for dim in (dims if isinstance(dims, list | tuple) else [dims])]
    if len(reduced) != 1 or reduced[0] < 0:
        raise Unsupported("a reduction of several axes, or of the batch")
    axis = local.layout.channel_axis(reduced[0])
    output = Local(local.layout.without(reduced[0], keep=keep), local.window, True)
    return output, lambda run: call(node, value(run), [axis])


@rule(aten.select.int)
def _select(plan: Plan, node: fx.Node) -> tuple[Local | Rows, Step]:
    x, axis, index = arguments(node)
    local = plan.local(x)
    layout = local.layout
    dim = dimension(axis, layout)
    if dim < 0:
        raise Unsupported("one row of the batch")
    if layout.dims[dim] == (0,):
        return _at_position(plan, node, index % layout.sizes[0])
    if not layout.dims[dim]:
        return Local(layout.without(dim, keep=False), local.window, local.is_value), lambda run: run.data[x]
    channel = layout.channel_axis(dim)
    output = Local(layout.without(dim, keep=False), local.window, local.is_value)
    return output, lambda run: run.data[x].select(channel, index)


def _at_position(plan: Plan, node: fx.Node, index: int) -> tuple[Rows, Step]:
    """Return the values at one position, which every mutant has: where it does not reach, those of the reference."""
    x = arguments(node)[0]
    local = plan.local(x)
    start = torch.full(local.window.start.shape, index).numpy()
    patch = plan.patch(x, start, 1, math.nan)
    kept = [atom for atom in local.layout.order if atom != 0]
    shape = shape_of(node)
    plan.stretches[node] = (index, index + 1)

    def read(run: Run) -> Tensor:
        found = patch(run)[:, :, :, 0]
        found = found.permute(0, 1, 2, *(2 + atom for atom in kept))
        return found.reshape(math.prod(found.shape[:3]), *shape)

    return Rows(shape), read
