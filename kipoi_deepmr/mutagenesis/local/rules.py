"""One rule per operation: the window of its output, and how to compute it from the windows of its inputs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.local.plan import Plan, Run, Step
from kipoi_deepmr.mutagenesis.local.state import Layout, Local, Rows, Unsupported, arguments, call
from kipoi_deepmr.mutagenesis.local.windows import Window

aten = torch.ops.aten
Rule = Callable[[Plan, fx.Node], tuple[Local | Rows, Step]]
RULES: dict[Any, Rule] = {}

_FOLD_GAIN = 1.25

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
    aten.log.default,
    aten.log1p.default,
    aten.expm1.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.abs.default,
    aten.neg.default,
    aten.sin.default,
    aten.cos.default,
    aten.erf.default,
    aten.reciprocal.default,
    aten.pow.Tensor_Scalar,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
)
_SAME = (
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
)
_RESHAPES = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
)


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register the rule of some operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def with_defaults(node: fx.Node, defaults: Sequence[Any]) -> list[Any]:
    """Return the arguments of a node, those left out from `defaults`."""
    given = arguments(node)
    return [*given, *defaults[len(given) :]]


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's (first) output for one sequence, without the batch."""
    value = node.meta["val"]
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(value.shape[1:])


def _dim(dim: int, layout: Layout) -> int:
    """Return a dimension counted without the batch; -1 is the batch."""
    return (dim if dim >= 0 else dim + len(layout.dims) + 1) - 1


@rule(*_POINTWISE)
def _pointwise(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, *rest = arguments(node)
    local, value = plan.local(x), plan.value(x)
    return Local(local.layout, local.window, True), lambda run: call(node, value(run), *rest, **node.kwargs)


@rule(*_SAME)
def _same(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x = arguments(node)[0]
    return plan.local(x), lambda run: run.data[x]


@rule(*_RESHAPES)
def _reshape(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x = arguments(node)[0]
    local = plan.local(x)
    strands = local.window.start.shape[0]
    if node.meta["val"].shape[0] != strands:
        raise Unsupported("a reshape of the batch axis")
    atoms = local.layout.order
    dims: list[tuple[int, ...]] = []
    for size in shape_of(node):
        taken: list[int] = []
        while math.prod(local.layout.sizes[atom] for atom in taken) < size and atoms:
            taken.append(atoms.pop(0))
        if math.prod(local.layout.sizes[atom] for atom in taken) != size:
            raise Unsupported("a reshape that splits an axis")
        dims.append(tuple(taken))
    if atoms:  # a position axis of length 1
        spare = next((dim for dim in reversed(range(len(dims))) if not dims[dim]), len(dims) - 1)
        dims[spare] = (*dims[spare], *atoms)
    return Local(Layout(tuple(dims), local.layout.sizes), local.window, local.is_value), lambda run: run.data[x]


@rule(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x = arguments(node)[0]
    local = plan.local(x)
    order = list(range(len(local.layout.dims) + 1))
    if node.target is aten.permute.default:
        order = [axis % len(order) for axis in arguments(node)[1]]
    elif node.target is aten.transpose.int:
        first, second = (axis % len(order) for axis in arguments(node)[1:3])
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    if order[0] != 0:
        raise Unsupported("a permutation of the batch axis")
    dims = tuple(local.layout.dims[axis - 1] for axis in order[1:])
    return Local(Layout(dims, local.layout.sizes), local.window, local.is_value), lambda run: run.data[x]


@rule(aten.flip.default)
def _flip(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, dims = arguments(node)
    local = plan.local(x)
    window, axes = local.window, []
    for dim in (_dim(d, local.layout) for d in dims):
        if dim < 0:
            raise Unsupported("a flip of the batch axis")
        if local.layout.dims[dim] == (0,):
            window = window.mirrored()
            axes.append(3)
        elif local.layout.dims[dim]:
            axes.append(local.layout.channel_axis(dim))
    return Local(local.layout, window, local.is_value), lambda run: run.data[x].flip(axes)


@rule(aten.cat.default)
def _cat(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    parts = arguments(node)[0]
    axis = arguments(node)[1] if len(arguments(node)) > 1 else 0
    locals_ = [plan.local(part) for part in parts]
    dim = _dim(axis, locals_[0].layout)
    if dim < 0:
        return _cat_strands(plan, parts, locals_)
    if any(local.layout.dims != locals_[0].layout.dims for local in locals_):
        raise Unsupported("a concatenation of unequal axes")
    channel = locals_[0].layout.channel_axis(dim)
    window = locals_[0].window
    for local in locals_[1:]:
        window = window.united(local.window)
    read = [plan.moved_difference(part, window) for part in parts]
    layout = locals_[0].layout.with_channels(dim, sum(local.layout.size(dim) for local in locals_))
    return Local(layout, window, False), lambda run: torch.cat([part(run) for part in read], channel)


def _cat_strands(plan: Plan, parts: Sequence[fx.Node], locals_: Sequence[Local]) -> tuple[Local, Step]:
    if any(local.layout != locals_[0].layout for local in locals_):
        raise Unsupported("a stack of unequal shapes on the batch axis")
    width = max(local.window.width for local in locals_)
    length = locals_[0].window.length
    windows = [Window.clipped(local.window.start, width, length) for local in locals_]
    read = [plan.moved_difference(part, window) for part, window in zip(parts, windows, strict=True)]
    window = Window(np.concatenate([window.start for window in windows]), windows[0].width, length)
    return Local(locals_[0].layout, window, False), lambda run: torch.cat([part(run) for part in read])


@rule(aten.slice.Tensor)
def _slice(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, axis, start, stop, step = with_defaults(node, [0, 0, None, None, 1])
    local = plan.local(x)
    dim = _dim(axis, local.layout)
    size = local.window.start.shape[0] if dim < 0 else local.layout.size(dim)
    chosen = range(size)[slice(start, stop, step)]
    if len(chosen) == size and step == 1:
        return local, lambda run: run.data[x]
    if dim < 0:
        part = slice(chosen.start, chosen.stop, step)
        window = Window(local.window.start[part], local.window.width, local.window.length)
        return Local(local.layout, window, local.is_value), lambda run: run.data[x][part]
    if local.layout.dims[dim] == (0,):
        return _crop(plan, x, chosen)
    channel = local.layout.channel_axis(dim)
    layout = local.layout.with_channels(dim, len(chosen))
    index = torch.tensor(list(chosen), device=plan.device)
    return Local(layout, local.window, local.is_value), lambda run: run.data[x].index_select(channel, index)


def _crop(plan: Plan, x: fx.Node, chosen: range) -> tuple[Local, Step]:
    local = plan.local(x)
    if chosen.step != 1 or not chosen:
        raise Unsupported("a crop with a step")
    layout = Layout(local.layout.dims, (len(chosen), *local.layout.sizes[1:]))
    window = Window.clipped(local.window.start - chosen.start, local.window.width, len(chosen))
    inside = Window(window.start + chosen.start, window.width, local.window.length)
    read = plan.moved_difference(x, inside)
    cropped = Local(layout, window, False)
    clear = plan.clear(cropped)
    return cropped, lambda run: clear(read(run))


@rule(aten.constant_pad_nd.default)
def _pad(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, padding = arguments(node)[:2]
    local, read = plan.local(x), plan.difference(x)
    window = local.window
    for pair in range(len(padding) // 2):
        dim = len(local.layout.dims) - 1 - pair
        left, right = padding[2 * pair : 2 * pair + 2]
        if not (left or right):
            continue
        if local.layout.dims[dim] != (0,) or left < 0 or right < 0:
            raise Unsupported("padding of an axis other than the position")
        window = window.shifted(left, window.length + left + right)
    layout = Layout(local.layout.dims, (window.length, *local.layout.sizes[1:]))
    return Local(layout, window, False), read


@rule(aten.index.Tensor, aten.index_select.default)
def _index(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x = arguments(node)[0]
    local = plan.local(x)
    if node.target is aten.index_select.default:
        axis, chosen = arguments(node)[1:3]
    else:
        given = [(axis, index) for axis, index in enumerate(arguments(node)[1]) if index is not None]
        if len(given) != 1:
            raise Unsupported("an index into several axes")
        axis, chosen = given[0]
    dim = _dim(axis, local.layout)
    index = plan.constant(chosen)
    if dim < 0 or index.ndim != 1 or index.dtype == torch.bool:
        raise Unsupported("an index into the batch, or by a mask")
    channel = local.layout.channel_axis(dim)
    layout = local.layout.with_channels(dim, len(index))
    return Local(layout, local.window, local.is_value), lambda run: run.data[x].index_select(channel, index)


@rule(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
)
def _batch_norm(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, weight, bias, mean, variance, *options = arguments(node)
    training = False if node.target is aten._native_batch_norm_legit_no_training.default else options[0]
    if training:
        raise Unsupported("BatchNorm in training mode")
    local = plan.local(x)
    scale = torch.rsqrt(plan.constant(variance) + options[-1])
    if weight is not None:
        scale = scale * plan.constant(weight)
    if not local.is_value:
        scale = _on_channels(scale, local.layout, 0)
        return local, lambda run: run.data[x] * scale
    shift = -plan.constant(mean) * scale
    if bias is not None:
        shift = shift + plan.constant(bias)
    scale, shift = (_on_channels(vector, local.layout, 0) for vector in (scale, shift))
    return local, lambda run: run.data[x] * scale + shift


def _on_channels(vector: Tensor, layout: Layout, dim: int) -> Tensor:
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
)
def _binary(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    left, right = arguments(node)[:2]
    operands = [operand for operand in (left, right) if isinstance(operand, fx.Node) and operand in plan.mutated]
    if len(operands) == 2:
        return _two_mutated(plan, node)
    if isinstance(left, fx.Node) and left in plan.mutated:
        return _one_mutated(plan, node, left, right, first=True)
    return _one_mutated(plan, node, right, left, first=False)


def _one_mutated(plan: Plan, node: fx.Node, x: fx.Node, other: Any, *, first: bool) -> tuple[Local, Step]:
    local = plan.local(x)
    if shape_of(node) != local.layout.shape:
        raise Unsupported("broadcasting of a tensor that the mutation reaches")
    operand: Callable[[Run], Any] = lambda run: other  # noqa: E731
    if isinstance(other, fx.Node):
        operand = plan.window(other, local.layout, local.window)
    is_scaling = node.target in (aten.mul.Tensor, aten.mul.Scalar) or (
        first and node.target in (aten.div.Tensor, aten.div.Scalar)
    )
    is_shift = node.target in (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar)
    enters_draw = node in plan.drawn and x not in plan.drawn
    if is_scaling and not node.kwargs and (enters_draw or not local.is_value):
        read = plan.difference(x)
        return Local(local.layout, local.window, False), lambda run: call(node, read(run), operand(run))
    if is_shift and first and not local.is_value:
        return local, lambda run: run.data[x]
    value = plan.value(x)
    if first:
        return Local(local.layout, local.window, True), lambda run: call(node, value(run), operand(run), **node.kwargs)

    def reversed_(run: Run) -> Tensor:
        given = operand(run)
        given = given if isinstance(given, Tensor) else torch.as_tensor(given, device=plan.device)
        return call(node, given, value(run), **node.kwargs)

    return Local(local.layout, local.window, True), reversed_


def _two_mutated(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    left, right = arguments(node)[:2]
    first, second = plan.local(left), plan.local(right)
    if first.layout != second.layout or first.window.start.shape != second.window.start.shape:
        raise Unsupported("an operation on two tensors of unequal shape that the mutation reaches")
    window = first.window.united(second.window)
    joined = Local(first.layout, window, False)
    one, two = plan.moved_difference(left, window), plan.moved_difference(right, window)
    if node.target in (aten.add.Tensor, aten.sub.Tensor):
        return joined, lambda run: call(node, one(run), two(run), **node.kwargs)
    base = [plan.window(part, first.layout, window) for part in (left, right)]
    return Local(first.layout, window, True), lambda run: call(
        node, one(run) + base[0](run), two(run) + base[1](run), **node.kwargs
    )


@rule(aten.convolution.default)
def _convolution(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, weight_node, _, strides, paddings, dilations, transposed, _, groups = arguments(node)
    local = plan.local(x)
    layout = local.layout
    spatial = range(1, len(layout.dims))
    along = [dim for dim in spatial if layout.dims[dim] == (0,)]
    weight = plan.constant(weight_node)
    if transposed or len(along) != 1 or layout.holds_position(0):
        raise Unsupported("a transposed convolution, or one whose position axis is not spatial")
    across = [dim for dim in spatial if dim != along[0]]
    if any(weight.shape[dim + 1] != layout.size(dim) or paddings[dim - 1] for dim in across):
        raise Unsupported("a convolution that slides along a second axis")
    stride, padding, dilation = (option[along[0] - 1] for option in (strides, paddings, dilations))
    taps = weight.movedim(along[0] + 1, -1).flatten(1, -2)
    reach = (taps.shape[-1] - 1) * dilation
    length = shape_of(node)[along[0] - 1 + 1]
    start = -(-(local.window.start + padding - reach) // stride)
    window = Window.clipped(start, (local.window.width - 1 + reach) // stride + 1, length)
    channels = len(taps)
    sizes = (length, channels) if channels > 1 else (length,)
    dims = ((1,) if channels > 1 else (), *((0,) if dim == along[0] else () for dim in spatial))
    output = Local(Layout(dims, sizes), window, False)
    clear = plan.clear(output)
    read = _channels_last(layout)
    is_foldable = stride == 1 and groups == 1 and window.width < length
    if is_foldable and local.window.width * _FOLD_GAIN <= window.width:
        difference = plan.difference(x)
        product = plan.weight(node, "taps", lambda: taps.flip(-1).permute(1, 2, 0).flatten(1))
        kernel = taps.shape[-1]
        return output, lambda run: clear(
            _fold(read(difference(run)), product, kernel, dilation, window.width).reshape(
                *run_shape(window, plan), *sizes[1:]
            )
        )
    patch = Window(window.start * stride - padding, (window.width - 1) * stride + reach + 1, local.window.length)
    moved = plan.moved_difference(x, patch)
    kernel_weight = plan.weight(node, "kernel", lambda: taps)

    def convolve(run: Run) -> Tensor:
        data = read(moved(run))
        out = F.conv1d(data.transpose(1, 2), kernel_weight, None, stride, 0, dilation, groups)
        return clear(out.transpose(1, 2).reshape(*run_shape(window, plan), *sizes[1:]))

    return output, convolve


def run_shape(window: Window, plan: Plan) -> tuple[int, int, int, int]:
    """Return the leading axes of data: strand, position, allele, width."""
    return (*window.start.shape, plan.alleles, window.width)


def _channels_last(layout: Layout) -> Callable[[Tensor], Tensor]:
    """Return what brings data to (rows, width, channels), channels in the order of the node's dimensions."""
    order = [atom + 3 for atom in layout.order if atom != 0]

    def bring(data: Tensor) -> Tensor:
        if order != sorted(order):
            data = data.permute(0, 1, 2, 3, *order)
        return data.reshape(math.prod(data.shape[:3]), data.shape[3], -1)

    return bring


def _fold(data: Tensor, product: Tensor, kernel: int, dilation: int, width: int) -> Tensor:
    """Spread the changed inputs (rows, changed, in) over the outputs (rows, width, out) that they reach."""
    rows, changed, _ = data.shape
    spread = (data.flatten(0, 1) @ product).view(rows, changed, kernel, -1)
    if changed == 1 and dilation == 1:
        return spread[:, 0]
    out = spread.new_zeros((rows, width, spread.shape[-1]))
    for entry in range(changed):
        out[:, entry : entry + (kernel - 1) * dilation + 1 : dilation] += spread[:, entry]
    return out


def _pooling(plan: Plan, node: fx.Node, kernel: Any, stride: Any, padding: Any) -> tuple[Window, int, int, Window]:
    """Return the output's window, kernel, stride and the stretch of the input that it needs."""
    local = plan.local(arguments(node)[0])
    layout = local.layout
    spatial = len(kernel) if len(kernel) > 1 else 1
    dims = range(len(layout.dims) - spatial, len(layout.dims))
    along = [index for index, dim in enumerate(dims) if layout.dims[dim] == (0,)]
    stride = stride or kernel
    if len(along) != 1 or any(kernel[index] != 1 for index in range(spatial) if index != along[0]):
        raise Unsupported("pooling over another axis than the position")
    size, step, pad = (option[along[0] if len(option) > 1 else 0] for option in (kernel, stride, padding))
    length = shape_of(node)[dims[along[0]]]
    start = -(-(local.window.start + pad - (size - 1)) // step)
    window = Window.clipped(start, (local.window.width - 1 + size - 1) // step + 1, length)
    stretch = Window(window.start * step - pad, (window.width - 1) * step + size, local.window.length)
    return window, size, step, stretch


def _taps(patch: Tensor, size: int, step: int, width: int) -> list[Tensor]:
    return [patch[:, :, :, tap : tap + (width - 1) * step + 1 : step] for tap in range(size)]


@rule(aten.max_pool2d_with_indices.default)
def _max_pool(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, kernel, stride, padding, dilation, _ = with_defaults(node, [None, None, [], [0], [1], False])
    if any(step != 1 for step in dilation):
        raise Unsupported("dilated pooling")
    window, size, step, stretch = _pooling(plan, node, kernel, stride, padding)
    layout = plan.local(x).layout
    patch = plan.patch(x, stretch.start, stretch.width, -math.inf)

    def pool(run: Run) -> Tensor:
        first, *others = _taps(patch(run), size, step, window.width)
        for other in others:
            first = torch.maximum(first, other)
        return first

    return Local(Layout(layout.dims, (window.length, *layout.sizes[1:])), window, True), pool


@rule(aten.avg_pool2d.default)
def _average_pool(plan: Plan, node: fx.Node) -> tuple[Local, Step]:
    x, kernel, stride, padding, _, include, divisor = with_defaults(node, [None, None, [], [0], False, True, None])
    window, size, step, stretch = _pooling(plan, node, kernel, stride, padding)
    local = plan.local(x)
    begin = window.entries * step - max(padding)
    end = np.minimum(begin + size, stretch.length + max(padding))
    inside = np.minimum(end, stretch.length) - np.maximum(begin, 0)
    counted = np.full(begin.shape, divisor) if divisor else end - begin if include else inside
    output = Local(Layout(local.layout.dims, (window.length, *local.layout.sizes[1:])), window, False)
    weight = torch.from_numpy(1.0 / np.maximum(counted, 1)).to(plan.device, torch.float32)[:, :, None]
    weight = weight.reshape(*weight.shape, *(1 for _ in local.layout.sizes[1:]))
    moved, clear = plan.moved_difference(x, stretch), plan.clear(output)

    def pool(run: Run) -> Tensor:
        first, *others = _taps(moved(run), size, step, window.width)
        for other in others:
            first = first + other
        return clear(first * weight.to(first.dtype))

    return output, pool


@rule(aten.mean.dim, aten.sum.dim_IntList)
def _mean(plan: Plan, node: fx.Node) -> tuple[Rows, Step]:
    x, dims = arguments(node)[:2]
    local, difference = plan.local(x), plan.difference(x)
    reduced = [_dim(dim, local.layout) for dim in dims]
    if any(dim < 0 for dim in reduced) or not any(local.layout.holds_position(dim) for dim in reduced):
        raise Unsupported("a mean over channels, or over the batch")
    atoms = [atom for dim in reduced for atom in local.layout.dims[dim]]
    count = math.prod(local.layout.sizes[atom] for atom in atoms) if node.target is aten.mean.dim else 1
    axes = [3 + atom for atom in atoms]
    kept = [atom for atom in local.layout.order if atom not in atoms]
    shape = shape_of(node)

    def reduce(run: Run) -> Tensor:
        total = difference(run).sum(axes)
        back = sorted(kept)
        total = total.permute(0, 1, 2, *(3 + back.index(atom) for atom in kept))
        total = (total / count).reshape(*total.shape[:3], *shape)
        return (run.reference[node][:, None, None] + total).flatten(0, 2)

    return Rows(shape), reduce


@rule(aten.amax.default, aten.max.dim)
def _largest(plan: Plan, node: fx.Node) -> tuple[Rows, Step]:
    x, dims = arguments(node)[:2]
    local = plan.local(x)
    reduced = [_dim(dim, local.layout) for dim in (dims if isinstance(dims, list | tuple) else [dims])]
    if len(reduced) != 1 or local.layout.dims[reduced[0]] != (0,):
        raise Unsupported("a maximum over another axis than the position")
    window, reference = local.window, plan.reference(x, local.layout)
    before = torch.from_numpy((window.start).clip(0, window.length)).to(plan.device)
    behind = torch.from_numpy((window.start + window.width).clip(0, window.length)).to(plan.device)
    patch = plan.patch(x, window.start, window.width, -math.inf)
    kept = [atom for atom in local.layout.order if atom != 0]
    shape = shape_of(node)

    def reduce(run: Run) -> Tensor:
        base = reference(run)
        edge = base.new_full((len(base), 1, *base.shape[2:]), -math.inf)
        up_to = torch.cat([edge, base.cummax(1).values], 1)
        from_on = torch.cat([base.flip(1).cummax(1).values.flip(1), edge], 1)
        strand = torch.arange(len(base), device=plan.device)[:, None]
        around = torch.maximum(up_to[strand, before], from_on[strand, behind])[:, :, None]
        largest = torch.maximum(patch(run).amax(3), around)
        largest = largest.permute(0, 1, 2, *(2 + atom for atom in kept))
        return largest.reshape(math.prod(largest.shape[:3]), *shape)

    return Rows(shape), reduce


@rule(aten.addmm.default, aten.mm.default)
def _linear(plan: Plan, node: fx.Node) -> tuple[Rows, Step]:
    """Low-rank update: only the columns of the weight that belong to changed positions."""
    x, weight_node = arguments(node)[-2:]
    if node.kwargs:
        raise Unsupported("a scaled matrix product")
    local = plan.local(x)
    layout, window = local.layout, local.window
    if len(layout.dims) != 1:
        raise Unsupported("a matrix product of more than two axes")
    weight = plan.constant(weight_node)
    outputs = weight.shape[1]

    def arrange() -> Tensor:
        sizes = [layout.sizes[atom] for atom in layout.order]
        back = [layout.order.index(atom) for atom in range(len(layout.sizes))]
        return weight.reshape(*sizes, outputs).permute(*back, len(sizes)).reshape(-1, outputs)

    rows_of_weight = plan.weight(node, "rows", arrange)
    channels = math.prod(layout.sizes[1:])
    starts, group = np.unique(window.start, return_inverse=True)
    members = [torch.from_numpy(np.flatnonzero(group.reshape(-1) == g)).to(plan.device) for g in range(len(starts))]
    difference = plan.difference(x)

    def multiply(run: Run) -> Tensor:
        data = difference(run).reshape(len(group.reshape(-1)), plan.alleles, window.width, channels)
        out = data.new_empty((*data.shape[:2], outputs))
        for start, member in zip(starts.tolist(), members, strict=True):
            low, high = max(start, 0), min(start + window.width, window.length)
            part = data[member, :, low - start : high - start].flatten(2)
            out[member] = part @ rows_of_weight[low * channels : high * channels]
        strands, positions = window.start.shape
        out = out.view(strands, positions, plan.alleles, outputs)
        return (run.reference[node][:, None, None] + out).flatten(0, 2)

    return Rows((outputs,)), multiply
