"""Convolution of the changed inputs only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.needs import Sliding
from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Step
from kipoi_deepmr.mutagenesis.delta.reach import Mover, Window
from kipoi_deepmr.mutagenesis.delta.rules.registry import aten, rule, shape_of
from kipoi_deepmr.mutagenesis.delta.state import Axes, Unsupported, Windowed, arguments

# Up to which factor outputs may be computed beyond the window, to be dropped.
_WIDER = 1.25


@dataclass(frozen=True)
class Kernel:
    """A convolution along the position axis.

    Attributes
    ----------
    node : torch.fx.Node
        Its node.
    taps : torch.Tensor, shape=(out, in / groups, tap)
        Its weight.
    stride, padding, dilation, groups : int
        As in `torch.nn.Conv1d`.
    """

    node: fx.Node
    taps: Tensor
    stride: int
    padding: int
    dilation: int
    groups: int

    @property
    def size(self) -> int:
        """Number of taps."""
        return int(self.taps.shape[-1])

    @property
    def reach(self) -> int:
        """Distance of the last tap from the first."""
        return (self.size - 1) * self.dilation


@rule(aten.convolution.default)
def _convolution(plan: Plan, node: fx.Node) -> Followed:
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    kernel, along = _kernel(plan, node, windowed.layout)
    length = shape_of(node)[along]
    start = -(-(windowed.window.start + kernel.padding - kernel.reach) // kernel.stride)
    width = (windowed.window.width - 1 + kernel.reach) // kernel.stride + 1
    window = plan.needed(node, Window.clipped(start, width, length))
    channels = len(kernel.taps)
    sizes = (length, channels) if channels > 1 else (length,)
    spatial = range(1, len(windowed.layout.dims))
    dims = ((1,) if channels > 1 else (), *((0,) if dim == along else () for dim in spatial))
    output = Windowed(Axes(dims, sizes), window, False)
    product, clear = _product(plan, x, kernel, window), plan.clear(output)
    shape = (*window.start.shape, plan.alleles, window.width, *sizes[1:])
    return Followed(
        output,
        lambda run: clear(product(run).reshape(shape)),
        Sliding(kernel.stride, kernel.padding, kernel.reach + 1),
        owned=True,
        multiply_adds=lambda: _reached(kernel, windowed.window, window) * kernel.taps[..., 0].numel(),
    )


def _reached(kernel: Kernel, inputs: Window, outputs: Window) -> int:
    """Return how many pairs of a changed input and an output that it reaches there are."""
    first = np.maximum(inputs.start, 0)[..., None]
    stop = np.minimum(inputs.start + inputs.width, inputs.length)[..., None]
    exists = (outputs.entries >= 0) & (outputs.entries < outputs.length)
    left = outputs.entries * kernel.stride - kernel.padding
    places = (left + tap * kernel.dilation for tap in range(kernel.size))
    return sum(int((exists & (place >= first) & (place < stop)).sum()) for place in places)


def _kernel(plan: Plan, node: fx.Node, layout: Axes) -> tuple[Kernel, int]:
    """Return the convolution and the dimension along which it slides."""
    _, weight_node, _, strides, paddings, dilations, transposed, _, groups = arguments(node)
    spatial = range(1, len(layout.dims))
    along = [dim for dim in spatial if layout.dims[dim] == (0,)]
    weight = plan.constant(weight_node)
    if transposed or len(along) != 1 or layout.holds_position(0):
        raise Unsupported("a transposed convolution, or one whose position axis is not spatial")
    across = [dim for dim in spatial if dim != along[0]]
    if any(weight.shape[dim + 1] != layout.size(dim) or paddings[dim - 1] for dim in across):
        raise Unsupported("a convolution that slides along a second axis")
    taps = weight.movedim(along[0] + 1, -1).flatten(1, -2)
    stride, padding, dilation = (option[along[0] - 1] for option in (strides, paddings, dilations))
    return Kernel(node, taps, stride, padding, dilation, groups), along[0]


def _product(plan: Plan, x: fx.Node, kernel: Kernel, window: Window) -> Step:
    """Return what computes the differences in a window: (rows, width, out), entries that do not exist hold anything."""
    windowed = plan.windowed(x)
    read = _channels_last(windowed.layout)
    # Where the changed inputs reach, as if the axis had no ends.
    start = windowed.window.start + kernel.padding - kernel.reach
    reached = Window(start, windowed.window.width + kernel.reach, window.length)
    if kernel.stride == kernel.groups == 1 and reached.same(window) and windowed.window.width < kernel.size:
        entries = plan.weight(kernel.node, "entries", lambda: kernel.taps.flip(-1).permute(1, 2, 0).flatten(1))
        inputs = plan.difference(x)
        return lambda run: plan.product(partial(_spread, kernel), read(inputs(run)), entries)
    # Weights and data with the channels last are what the fastest convolutions take.
    weight = plan.weight(kernel.node, "slide", lambda: kernel.taps.permute(0, 2, 1))
    patch = Window(
        window.start * kernel.stride - kernel.padding,
        (window.width - 1) * kernel.stride + kernel.reach + 1,
        windowed.window.length,
    )
    before = windowed.window.start - patch.start
    behind = patch.width - windowed.window.width - before
    if bool((before == before.flat[0]).all()):
        left, right = int(before.flat[0]), int(behind.flat[0])
        padding = max(left, right, 0)
        if kernel.stride == 1 or padding == left:
            first, inputs = (padding - left) // kernel.stride, plan.difference(x)
            slide = partial(_slide, kernel, padding)
            return lambda run: plan.product(slide, read(inputs(run)), weight)[:, first : first + window.width]
    elif kernel.stride == 1 and reached.width <= _WIDER * window.width:
        move = Mover((reached.start, reached.width), (window.start, window.width), plan.device)
        shape, inputs = (*window.start.shape, plan.alleles, reached.width, -1), plan.difference(x)
        slide = partial(_slide, kernel, kernel.reach)
        return lambda run: move(plan.product(slide, read(inputs(run)), weight).reshape(shape)).flatten(0, 2)
    moved, slide = plan.moved_difference(x, patch), partial(_slide, kernel, 0)
    return lambda run: plan.product(slide, read(moved(run)), weight)


def _channels_last(layout: Axes) -> Callable[[Tensor], Tensor]:
    """Return what brings data to (rows, width, channels), channels in the order of the node's dimensions."""
    order = [atom + 3 for atom in layout.order if atom != 0]

    def bring(data: Tensor) -> Tensor:
        if order != sorted(order):
            data = data.permute(0, 1, 2, 3, *order)
        return data.reshape(math.prod(data.shape[:3]), data.shape[3], -1)

    return bring


def _spread(kernel: Kernel, data: Tensor, weight: Tensor) -> Tensor:
    """Carry each of few changed inputs (rows, changed, in) to all outputs that it reaches, weight (in, taps * out)."""
    rows, changed, _ = data.shape
    spread = (data.flatten(0, 1) @ weight).view(rows, changed, kernel.size, -1)
    if changed == 1 and kernel.dilation == 1:
        return spread[:, 0]
    out = spread.new_zeros((rows, changed + kernel.reach, spread.shape[-1]))
    for entry in range(changed):
        out[:, entry : entry + kernel.reach + 1 : kernel.dilation] += spread[:, entry]
    return out


def _slide(kernel: Kernel, padding: int, data: Tensor, weight: Tensor) -> Tensor:
    """Convolve stretches (rows, stretch, in) with a weight (out, tap, in)."""
    stretch = data.unsqueeze(1).permute(0, 3, 1, 2)
    taps = weight.unsqueeze(1).permute(0, 3, 1, 2)
    out = F.conv2d(stretch, taps, None, (1, kernel.stride), (0, padding), (1, kernel.dilation), kernel.groups)
    return out.permute(0, 2, 3, 1)[:, 0]
