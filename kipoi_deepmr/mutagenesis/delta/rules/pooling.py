"""Pooling, and means and maxima over all positions."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.needs import Sliding
from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run, Step
from kipoi_deepmr.mutagenesis.delta.reach import Window
from kipoi_deepmr.mutagenesis.delta.rules.channels import over_channels
from kipoi_deepmr.mutagenesis.delta.rules.registry import aten, dimension, feeds_singular, rule, shape_of, with_defaults
from kipoi_deepmr.mutagenesis.delta.state import Axes, Rows, Unsupported, Windowed, arguments

# Stands where there is no entry: roots, logarithms and reciprocals of it are finite.
_ANY = 0.5


def _pooling(plan: Plan, node: fx.Node, kernel: Any, stride: Any, padding: Any) -> tuple[Window, Sliding, Window]:
    """Return the output's window, the kernel that slides, and the stretch of the input that the window needs."""
    windowed = plan.windowed(arguments(node)[0])
    layout = windowed.layout
    spatial = len(kernel) if len(kernel) > 1 else 1
    dims = range(len(layout.dims) - spatial, len(layout.dims))
    along = [index for index, dim in enumerate(dims) if layout.dims[dim] == (0,)]
    stride = stride or kernel
    if len(along) != 1 or any(kernel[index] != 1 for index in range(spatial) if index != along[0]):
        raise Unsupported("pooling over another axis than the position")
    size, step, pad = (option[along[0] if len(option) > 1 else 0] for option in (kernel, stride, padding))
    length = shape_of(node)[dims[along[0]]]
    start = -(-(windowed.window.start + pad - (size - 1)) // step)
    window = plan.needed(node, Window.clipped(start, (windowed.window.width - 1 + size - 1) // step + 1, length))
    stretch = Window(window.start * step - pad, (window.width - 1) * step + size, windowed.window.length)
    return window, Sliding(step, pad, size), stretch


def _taps(patch: Tensor, size: int, step: int, width: int) -> list[Tensor]:
    return [patch[:, :, :, tap : tap + (width - 1) * step + 1 : step] for tap in range(size)]


@rule(aten.max_pool2d_with_indices.default)
def _max_pool(plan: Plan, node: fx.Node) -> Followed:
    x, kernel, stride, padding, dilation, _ = with_defaults(node, [None, None, [], [0], [1], False])
    if any(step != 1 for step in dilation):
        raise Unsupported("dilated pooling")
    window, sliding, stretch = _pooling(plan, node, kernel, stride, padding)
    size, step = sliding.span, sliding.stride
    layout = plan.windowed(x).layout
    pooled = Windowed(Axes(layout.dims, (window.length, *layout.sizes[1:])), window, True)
    if window.length == 1:
        low, high = max(int(stretch.start.flat[0]), 0), min(int(stretch.start.flat[0]) + size, stretch.length)
        largest = _largest_of(plan, x, low, high)
        return Followed(pooled, lambda run: largest(run).unsqueeze(3), sliding)
    patch = plan.patch(x, stretch.start, stretch.width, -math.inf)
    missing = window.missing
    gone = None if missing is None else torch.from_numpy(missing).to(plan.device)[:, :, None]

    def pool(run: Run) -> Tensor:
        first, *others = _taps(patch(run), size, step, window.width)
        for other in others:
            first = torch.maximum(first, other)
        if gone is not None:
            # Nothing but the padding's -inf, which zero cannot multiply away, nor what a logarithm makes of zero.
            first = first.masked_fill(gone.reshape(*gone.shape, *(1 for _ in layout.sizes[1:])), _ANY)
        return first

    return Followed(pooled, pool, sliding)


@rule(aten.avg_pool2d.default)
def _average_pool(plan: Plan, node: fx.Node) -> Followed:
    x, kernel, stride, padding, _, include, divisor = with_defaults(node, [None, None, [], [0], False, True, None])
    window, sliding, stretch = _pooling(plan, node, kernel, stride, padding)
    size, step = sliding.span, sliding.stride
    windowed = plan.windowed(x)
    begin = window.entries * step - max(padding)
    end = np.minimum(begin + size, stretch.length + max(padding))
    inside = np.minimum(end, stretch.length) - np.maximum(begin, 0)
    counted = np.full(begin.shape, divisor) if divisor else end - begin if include else inside
    output = Windowed(Axes(windowed.layout.dims, (window.length, *windowed.layout.sizes[1:])), window, False)
    weight = torch.from_numpy(1.0 / np.maximum(counted, 1)).to(plan.device)[:, :, None]
    weight = weight.reshape(*weight.shape, *(1 for _ in windowed.layout.sizes[1:]))
    if feeds_singular(node):
        output = replace(output, is_value=True)
        moved, clear = plan.patch(x, stretch.start, stretch.width, 0.0), lambda data: data
    else:
        moved, clear = plan.moved_difference(x, stretch), plan.clear(output)

    def pool(run: Run) -> Tensor:
        first, *others = _taps(moved(run), size, step, window.width)
        for other in others:
            first = first + other
        return clear(first * weight.to(first.dtype))

    if window.length == 1 and not output.is_value and stretch.start.max() <= 0 and size >= stretch.length:
        # All positions: the changed ones alone, without the stretch of zeros around them.
        difference = plan.difference(x)
        whole: Step = lambda run: difference(run).sum(3, keepdim=True) * weight.to(difference(run).dtype)  # noqa: E731
        return Followed(output, whole, sliding)

    return Followed(output, pool, sliding)


@rule(aten.mean.dim, aten.sum.dim_IntList)
def _mean(plan: Plan, node: fx.Node) -> Followed:
    x, dims = arguments(node)[:2]
    windowed, difference = plan.windowed(x), plan.difference(x)
    reduced = [dimension(dim, windowed.layout) for dim in dims]
    if any(dim < 0 for dim in reduced):
        raise Unsupported("a mean over the batch")
    if not any(windowed.layout.holds_position(dim) for dim in reduced):
        return over_channels(plan, node)
    atoms = [atom for dim in reduced for atom in windowed.layout.dims[dim]]
    count = math.prod(windowed.layout.sizes[atom] for atom in atoms) if node.target is aten.mean.dim else 1
    axes = [3 + atom for atom in atoms]
    kept = [atom for atom in windowed.layout.order if atom not in atoms]
    shape = shape_of(node)

    def reduce(run: Run) -> Tensor:
        total = difference(run).sum(axes)
        back = sorted(kept)
        total = total.permute(0, 1, 2, *(3 + back.index(atom) for atom in kept))
        total = (total / count).reshape(*total.shape[:3], *shape)
        return (run.reference[node][:, None, None] + total).flatten(0, 2)

    return Followed(Rows(shape), reduce)


@rule(aten.amax.default, aten.max.dim)
def _largest(plan: Plan, node: fx.Node) -> Followed:
    x, dims = arguments(node)[:2]
    windowed = plan.windowed(x)
    reduced = [dimension(dim, windowed.layout) for dim in (dims if isinstance(dims, list | tuple) else [dims])]
    if node.target is aten.amax.default and not any(windowed.layout.holds_position(dim) for dim in reduced if dim >= 0):
        return over_channels(plan, node)
    if len(reduced) != 1 or windowed.layout.dims[reduced[0]] != (0,):
        raise Unsupported("a maximum over another axis than the position")
    largest = _largest_of(plan, x, 0, windowed.window.length)
    kept = [atom for atom in windowed.layout.order if atom != 0]
    shape = shape_of(node)

    def reduce(run: Run) -> Tensor:
        found = largest(run)
        return found.permute(0, 1, 2, *(2 + atom for atom in kept)).reshape(math.prod(found.shape[:3]), *shape)

    return Followed(Rows(shape), reduce)


def _largest_of(plan: Plan, x: fx.Node, low: int, high: int) -> Step:
    """Return a reader of the maximum over [low, high) of an axis, (strand, position, allele, *channels).

    Outside the window the running maxima of the reference from both sides stand for all entries.
    """
    windowed = plan.windowed(x)
    window, reference, value = windowed.window, plan.reference(x, windowed.layout), plan.value(x)
    before = torch.from_numpy((window.start - low).clip(0, high - low)).to(plan.device)
    behind = torch.from_numpy((window.start + window.width - low).clip(0, high - low)).to(plan.device)
    outside = (window.entries < low) | (window.entries >= high)
    is_cut = bool(outside.any())
    gone = torch.from_numpy(outside).to(plan.device)[:, :, None]
    gone = gone.reshape(*gone.shape, *(1 for _ in windowed.layout.sizes[1:]))

    def reduce(run: Run) -> Tensor:
        base = reference(run)[:, low:high]
        edge = base.new_full((len(base), 1, *base.shape[2:]), -math.inf)
        up_to = torch.cat([edge, base.cummax(1).values], 1)
        from_on = torch.cat([base.flip(1).cummax(1).values.flip(1), edge], 1)
        strand = torch.arange(len(base), device=plan.device)[:, None]
        around = torch.maximum(up_to[strand, before], from_on[strand, behind])[:, :, None]
        inside = value(run)
        if is_cut:
            inside = torch.where(gone, -math.inf, inside)
        return torch.maximum(inside.amax(3), around)

    return reduce
