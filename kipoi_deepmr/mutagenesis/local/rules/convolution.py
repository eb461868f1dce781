"""Convolution: a matrix product over the changed inputs only."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.local.plan import Plan, Run, Step
from kipoi_deepmr.mutagenesis.local.rules.registry import aten, rule, shape_of
from kipoi_deepmr.mutagenesis.local.state import Layout, Local, Unsupported, arguments
from kipoi_deepmr.mutagenesis.local.windows import Window

_FOLD_GAIN = 1.25


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
    length = shape_of(node)[along[0]]
    start = -(-(local.window.start + padding - reach) // stride)
    changed = Window.clipped(start, (local.window.width - 1 + reach) // stride + 1, length)
    window = plan.needed(node, changed)
    plan.sliding[node] = (stride, padding, reach + 1)
    channels = len(taps)
    sizes = (length, channels) if channels > 1 else (length,)
    dims = ((1,) if channels > 1 else (), *((0,) if dim == along[0] else () for dim in spatial))
    output = Local(Layout(dims, sizes), window, False)
    clear = plan.clear(output)
    read = _channels_last(layout)
    is_foldable = stride == 1 and groups == 1 and window is changed and window.width < length
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
