"""Operations entry by entry: activations, masks of dropout, sums, products, BatchNorm."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run, Step
from kipoi_deepmr.mutagenesis.delta.reach import Mover, Reader, Window
from kipoi_deepmr.mutagenesis.delta.rules.registry import COMPARISONS, aten, feeds_singular, is_singular, rule, shape_of
from kipoi_deepmr.mutagenesis.delta.state import Axes, Unsupported, Windowed, arguments, call

_POINTWISE = (
    aten.relu.default,
    aten.threshold.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.silu.default,
    aten.elu.default,
    aten.celu.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.relu6.default,
    aten.softplus.default,
    aten.mish.default,
    aten.exp.default,
    aten.exp2.default,
    aten.log.default,
    aten.log2.default,
    aten.log10.default,
    aten.log1p.default,
    aten.expm1.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.abs.default,
    aten.neg.default,
    aten.sin.default,
    aten.cos.default,
    aten.erf.default,
    aten.sign.default,
    aten.softshrink.default,
    aten.hardshrink.default,
    aten.square.default,
    aten.logit.default,
    aten.atan.default,
    aten.reciprocal.default,
    aten.pow.Tensor_Scalar,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
)
_ROUNDED = "an argument that is a rounded sum, where a small error makes much"
# Operations of several operands, any of which may be reached by the mutation, and those whose result is no difference.
_OF_VALUES = (
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    *(getattr(getattr(aten, name), kind) for name in COMPARISONS for kind in ("Scalar", "Tensor")),
    aten.logical_and.default,
    aten.logical_or.default,
    aten.logical_not.default,
    aten.bitwise_and.Tensor,
    aten.bitwise_or.Tensor,
    aten.bitwise_not.default,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
    aten.addcmul.default,
    aten.addcdiv.default,
    aten.pow.Scalar,
    aten.log_sigmoid_forward.default,
    aten._to_copy.default,
)
_VALUE_READERS = {
    *_POINTWISE,
    *_OF_VALUES,
    aten.native_layer_norm.default,
    aten.amax.default,
    aten.max.dim,
    aten.logsumexp.default,
    aten._softmax.default,
    aten._log_softmax.default,
}


@rule(*_POINTWISE)
def _pointwise(plan: Plan, node: fx.Node) -> Followed:
    x, *rest = arguments(node)
    windowed, own = plan.windowed(x), plan.own_value(x)
    if is_singular(node) and not windowed.is_value:
        raise Unsupported(_ROUNDED)
    operation: Any = node.target
    in_place: Any = getattr(aten, f"{operation.overloadpacket.__name__}_", None)
    if own is not None and in_place is not None and operation._overloadname in in_place.overloads():
        compute: Step = lambda run: getattr(in_place, operation._overloadname)(own(run), *rest, **node.kwargs)  # noqa: E731
    else:
        value = plan.value(x)
        compute = lambda run: call(node, value(run), *rest, **node.kwargs)  # noqa: E731
    if any(user.target in _VALUE_READERS for user in node.users) or feeds_singular(node):
        return Followed(Windowed(windowed.layout, windowed.window, True), compute, owned=True)
    # All that follows reads differences: made here, they need no tensor of their own.
    output = Windowed(windowed.layout, windowed.window, False)
    reference, clear = plan.window(node, windowed.layout, windowed.window), plan.clear(output)
    return Followed(output, lambda run: clear(compute(run).sub_(reference(run))), owned=True)


@rule(*_OF_VALUES)
def _of_values(plan: Plan, node: fx.Node) -> Followed:
    """Follow an operation on values: each operand is read in the window that holds what any of them can change."""
    mutated = [operand for operand in node.all_input_nodes if operand in plan.mutated]
    sources = [plan.windowed(operand) for operand in mutated]
    layout, window = sources[0].layout, sources[0].window
    if any(windowed.layout != layout for windowed in sources) or layout.shape != shape_of(node):
        raise Unsupported("an operation on tensors of unequal shape that the mutation reaches")
    if is_singular(node) and not all(windowed.is_value for windowed in sources):
        raise Unsupported(_ROUNDED)
    for windowed in sources[1:]:
        window = window.united(windowed.window)
    readers: dict[fx.Node, Callable[[Run], Any]] = {}
    for operand in node.all_input_nodes:
        if operand not in plan.mutated:
            readers[operand] = plan.window(operand, layout, window)
        elif plan.windowed(operand).window.same(window):
            readers[operand] = plan.value(operand)
        elif operand.meta["val"].is_floating_point():
            readers[operand] = plan.patch(operand, window.start, window.width, 0.0)
        else:
            raise Unsupported("a choice by what another stretch says")

    def compute(run: Run) -> Tensor:
        find = lambda operand: readers[operand](run)  # noqa: E731
        given = call(node, *fx.map_arg(node.args, find), **fx.map_arg(node.kwargs, find))
        return given[0] if isinstance(given, tuple) else given

    return Followed(Windowed(layout, window, True), compute)


@rule(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
)
def _batch_norm(plan: Plan, node: fx.Node) -> Followed:
    x, weight, bias, mean, variance, *options = arguments(node)
    training = False if node.target is aten._native_batch_norm_legit_no_training.default else options[0]
    if training:
        raise Unsupported("BatchNorm in training mode")
    windowed = plan.windowed(x)
    scale = torch.rsqrt(plan.constant(variance) + options[-1])
    if weight is not None:
        scale = scale * plan.constant(weight)
    shift = -plan.constant(mean) * scale
    if bias is not None:
        shift = shift + plan.constant(bias)
    factor, offset = (_on_features(plan, vector, windowed) for vector in (scale, shift))
    if not windowed.is_value:
        return Followed(windowed, lambda run: run.data[x] * factor, owned=True)
    return Followed(windowed, lambda run: (run.data[x] * factor).add_(offset), owned=True)


def _on_features(plan: Plan, vector: Tensor, windowed: Windowed) -> Tensor:
    """Return one number per entry of the first dimension, a channel or a flattened axis, as the data have it."""
    layout = windowed.layout
    if not layout.holds_position(0):
        return _on_channels(vector, layout, 0)
    if len(layout.dims) != 1:
        raise Unsupported("BatchNorm over positions")
    return Reader(windowed.window, plan.device)(layout.canonical(vector[None]))


def _on_channels(vector: Tensor, layout: Axes, dim: int) -> Tensor:
    shape = [1] * (3 + len(layout.sizes))
    if layout.dims[dim]:
        shape[layout.channel_axis(dim)] = len(vector)
    return vector.reshape(shape)


@rule(
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.add.Scalar,
    aten.sub.Scalar,
    aten.mul.Scalar,
    aten.div.Scalar,
    aten.rsub.Scalar,
    aten.maximum.default,
    aten.minimum.default,
    aten.pow.Tensor_Tensor,
    aten._prelu_kernel.default,
)
def _binary(plan: Plan, node: fx.Node) -> Followed:
    left, right = arguments(node)[:2]
    operands = [operand for operand in (left, right) if isinstance(operand, fx.Node) and operand in plan.mutated]
    if len(operands) == 2:
        return _two_mutated(plan, node)
    if isinstance(left, fx.Node) and left in plan.mutated:
        return _one_mutated(plan, node, left, right, first=True)
    return _one_mutated(plan, node, right, left, first=False)


def _one_mutated(plan: Plan, node: fx.Node, x: fx.Node, other: Any, *, first: bool) -> Followed:
    windowed = plan.windowed(x)
    if shape_of(node) != windowed.layout.shape:
        raise Unsupported("broadcasting of a tensor that the mutation reaches")
    operand: Callable[[Run], Any] = lambda run: other  # noqa: E731
    if isinstance(other, fx.Node):
        operand = plan.window(other, windowed.layout, windowed.window)
    is_scaling = node.target in (aten.mul.Tensor, aten.mul.Scalar) or (
        first and node.target in (aten.div.Tensor, aten.div.Scalar)
    )
    is_shift = node.target in (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar)
    enters_draw = node in plan.drawn and x not in plan.drawn
    if is_scaling and not node.kwargs and (not windowed.is_value or (enters_draw and not feeds_singular(node))):
        read = plan.difference(x)
        return Followed(
            Windowed(windowed.layout, windowed.window, False), lambda run: call(node, read(run), operand(run))
        )
    if is_shift and first and not windowed.is_value:
        return Followed(windowed, lambda run: run.data[x])
    value = plan.value(x)
    if first:
        return Followed(
            Windowed(windowed.layout, windowed.window, True),
            lambda run: call(node, value(run), operand(run), **node.kwargs),
        )

    def reversed_(run: Run) -> Tensor:
        given = operand(run)
        given = given if isinstance(given, Tensor) else torch.as_tensor(given, device=plan.device)
        return call(node, given, value(run), **node.kwargs)

    return Followed(Windowed(windowed.layout, windowed.window, True), reversed_)


def _two_mutated(plan: Plan, node: fx.Node) -> Followed:
    left, right = arguments(node)[:2]
    first, second = plan.windowed(left), plan.windowed(right)
    if first.window.start.shape != second.window.start.shape:
        raise Unsupported("an operation on two tensors of unequal batches")
    layout = first.layout if first.layout.shape == shape_of(node) else second.layout
    spread = [_broadcast(windowed.layout, layout) for windowed in (first, second)]
    if layout.shape != shape_of(node):
        raise Unsupported("an operation on two tensors of unequal shape that the mutation reaches")
    window = first.window.united(second.window)
    is_sum = node.target in (aten.add.Tensor, aten.sub.Tensor)
    if is_sum and not node.kwargs and first.layout == second.layout and not feeds_singular(node):
        return Followed(Windowed(layout, window, False), _sum(plan, node, window), owned=True)
    if first.is_value and second.is_value and first.window.same(second.window):
        return Followed(
            Windowed(layout, window, True),
            lambda run: call(node, spread[0](run.data[left]), spread[1](run.data[right]), **node.kwargs),
        )
    one, two = plan.moved_difference(left, window), plan.moved_difference(right, window)
    if is_sum:
        return Followed(
            Windowed(layout, window, False),
            lambda run: call(node, spread[0](one(run)), spread[1](two(run)), **node.kwargs),
        )
    base = [plan.window(part, layout, window) for part in (left, right)]
    return Followed(
        Windowed(layout, window, True),
        lambda run: call(node, spread[0](one(run)) + base[0](run), spread[1](two(run)) + base[1](run), **node.kwargs),
    )


def _broadcast(given: Axes, wanted: Axes) -> Callable[[Tensor], Tensor]:
    """Return what brings data of one layout to axes of another, which has channels where it has length 1."""
    if given == wanted:
        return lambda data: data
    if len(given.dims) != len(wanted.dims):
        raise Unsupported("an operation on two tensors of unequal shape that the mutation reaches")
    places: list[int | None] = [None] * len(wanted.sizes)
    for own, other in zip(given.dims, wanted.dims, strict=True):
        if own and (len(own) != len(other) or given.size_of(own) != wanted.size_of(other)):
            raise Unsupported("an operation on two tensors of unequal shape that the mutation reaches")
        for atom, place in zip(own, other, strict=False):
            places[place] = atom
    if places[0] != 0:
        raise Unsupported("a tensor for all positions, with one for each")
    order = [3 + atom for atom in places if atom is not None]

    def bring(data: Tensor) -> Tensor:
        data = data.permute(0, 1, 2, *order)
        for place, atom in enumerate(places):
            if atom is None:
                data = data.unsqueeze(3 + place)
        return data

    return bring


def _sum(plan: Plan, node: fx.Node, window: Window) -> Step:
    """Add or subtract differences in place: the operand that covers the window takes in the other one."""
    left, right = arguments(node)[:2]
    sign = 1 if node.target is aten.add.Tensor else -1
    wide, narrow, signs = left, right, (1, sign)
    if not plan.windowed(left).window.same(window) or (
        plan.is_last_reader(right) and plan.windowed(right).window.same(window)
    ):
        wide, narrow, signs = right, left, (sign, 1)
    is_own = left is not right and plan.is_last_reader(wide) and plan.windowed(wide).window.same(window)
    base, other = plan.moved_difference(wide, window), plan.difference(narrow)
    inside = plan.windowed(narrow).window
    mover = Mover((inside.start, inside.width), (window.start, window.width), plan.device)

    def add(run: Run) -> Tensor:
        total = base(run) if is_own else base(run).clone()
        if signs[0] < 0:
            total.neg_()
        return mover.add(total, other(run), signs[1])

    return add
