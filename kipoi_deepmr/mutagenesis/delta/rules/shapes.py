"""Operations that move entries: reshapes, permutations, flips, stacks, slices, crops, padding, indexing."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.needs import Shifted, mirrored
from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run
from kipoi_deepmr.mutagenesis.delta.reach import Window
from kipoi_deepmr.mutagenesis.delta.rules.registry import aten, dimension, rule, shape_of, with_defaults
from kipoi_deepmr.mutagenesis.delta.state import Axes, Unsupported, Windowed, arguments

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


@rule(*_SAME)
def _same(plan: Plan, node: fx.Node) -> Followed:
    x = arguments(node)[0]
    return Followed(plan.windowed(x), lambda run: run.data[x])


@rule(*_RESHAPES)
def _reshape(plan: Plan, node: fx.Node) -> Followed:
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    strands = windowed.window.start.shape[0]
    if node.meta["val"].shape[0] != strands:
        raise Unsupported("a reshape of the batch axis")
    layout, data_shape = windowed.layout, []
    while True:
        dims, broken = _grouped(layout, shape_of(node))
        if broken is None:
            break
        layout = layout.split(*broken)
        data_shape.append((3 + broken[0], layout.sizes[broken[0] : broken[0] + 2]))

    def split(run: Run) -> Tensor:
        data = run.data[x]
        for axis, sizes in data_shape:
            data = data.unflatten(axis, sizes)
        return data

    return Followed(Windowed(Axes(dims, layout.sizes), windowed.window, windowed.is_value), split)


def _grouped(layout: Axes, shape: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, int] | None]:
    """Return the atoms of each new dimension, or the atom that has to be split first and the length of its outer part."""
    atoms = layout.order
    dims: list[tuple[int, ...]] = []
    for size in shape:
        taken: list[int] = []
        while (before := math.prod(layout.size_of(tuple(taken)))) < size and atoms:
            atom = atoms.pop(0)
            outer, rest = divmod(size, before)
            if layout.sizes[atom] > outer and not rest and layout.sizes[atom] % outer == 0:
                return (), (atom, outer)
            taken.append(atom)
        if math.prod(layout.size_of(tuple(taken))) != size:
            raise Unsupported("a reshape that splits an axis")
        dims.append(tuple(taken))
    if atoms:  # a position axis of length 1
        spare = next((dim for dim in reversed(range(len(dims))) if not dims[dim]), len(dims) - 1)
        dims[spare] = (*dims[spare], *atoms)
    return tuple(dims), None


@rule(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(plan: Plan, node: fx.Node) -> Followed:
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    order = list(range(len(windowed.layout.dims) + 1))
    if node.target is aten.permute.default:
        order = [axis % len(order) for axis in arguments(node)[1]]
    elif node.target is aten.transpose.int:
        first, second = (axis % len(order) for axis in arguments(node)[1:3])
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    if order[0] != 0:
        raise Unsupported("a permutation of the batch axis")
    dims = tuple(windowed.layout.dims[axis - 1] for axis in order[1:])
    return Followed(
        Windowed(Axes(dims, windowed.layout.sizes), windowed.window, windowed.is_value), lambda run: run.data[x]
    )


@rule(aten.flip.default)
def _flip(plan: Plan, node: fx.Node) -> Followed:
    x, dims = arguments(node)
    windowed = plan.windowed(x)
    window, needs, axes = windowed.window, None, []
    for dim in (dimension(d, windowed.layout) for d in dims):
        if dim < 0:
            raise Unsupported("a flip of the batch axis")
        if windowed.layout.dims[dim] == (0,):
            window = window.mirrored()
            needs = mirrored
            axes.append(3)
        elif windowed.layout.dims[dim]:
            axes.append(windowed.layout.channel_axis(dim))
    return Followed(Windowed(windowed.layout, window, windowed.is_value), lambda run: run.data[x].flip(axes), needs)


@rule(aten.cat.default)
def _cat(plan: Plan, node: fx.Node) -> Followed:
    parts, axis = with_defaults(node, [None, 0])
    reached = {part: plan.windowed(part) for part in parts if part in plan.mutated}
    sources = list(reached.values())
    dim = dimension(axis, sources[0].layout)
    if dim < 0:
        if len(sources) < len(parts):
            raise Unsupported("a stack on the batch axis with what the mutation does not reach")
        return _cat_strands(plan, parts, [plan.windowed(part) for part in parts])
    if any(windowed.layout.dims != sources[0].layout.dims for windowed in sources):
        raise Unsupported("a concatenation of unequal axes")
    channel = sources[0].layout.channel_axis(dim)
    window = sources[0].window
    for windowed in sources[1:]:
        window = window.united(windowed.window)
    sizes = [part.meta["val"].shape[dim + 1] for part in parts]
    read = [plan.moved_difference(part, window) if part in reached else None for part in parts]
    layout = sources[0].layout.with_channels(dim, sum(sizes))

    def join(run: Run) -> Tensor:
        found = [None if one is None else one(run) for one in read]
        like = next(data for data in found if data is not None)
        # What the mutation does not reach does not differ from the reference.
        shapes = [[*like.shape[:channel], size, *like.shape[channel + 1 :]] for size in sizes]
        return torch.cat(
            [like.new_zeros(shape) if data is None else data for data, shape in zip(found, shapes, strict=True)],
            channel,
        )

    return Followed(Windowed(layout, window, False), join)


def _cat_strands(plan: Plan, parts: Sequence[fx.Node], sources: Sequence[Windowed]) -> Followed:
    if any(windowed.layout != sources[0].layout for windowed in sources):
        raise Unsupported("a stack of unequal shapes on the batch axis")
    width = max(windowed.window.width for windowed in sources)
    length = sources[0].window.length
    windows = [Window.clipped(windowed.window.start, width, length) for windowed in sources]
    read = [plan.moved_difference(part, window) for part, window in zip(parts, windows, strict=True)]
    window = Window(np.concatenate([window.start for window in windows]), windows[0].width, length)
    return Followed(Windowed(sources[0].layout, window, False), lambda run: torch.cat([part(run) for part in read]))


@rule(aten.stack.default)
def _stack(plan: Plan, node: fx.Node) -> Followed:
    parts, axis = with_defaults(node, [None, 0])
    sources = [plan.windowed(part) for part in parts]
    layout = sources[0].layout
    dim = (axis if axis >= 0 else axis + len(layout.dims) + 2) - 1
    if dim < 0 or any(windowed.layout != layout for windowed in sources):
        raise Unsupported("a stack of unequal shapes, or along the batch")
    window = sources[0].window
    for windowed in sources[1:]:
        window = window.united(windowed.window)
    is_value = all(windowed.is_value and windowed.window.same(window) for windowed in sources)
    read = [plan.value(part) if is_value else plan.moved_difference(part, window) for part in parts]
    # A new atom, the last axis of the data, unless there is one part only.
    atoms = (len(layout.sizes),) if len(parts) > 1 else ()
    dims = (*layout.dims[:dim], atoms, *layout.dims[dim:])
    sizes = (*layout.sizes, *(len(parts) for _ in atoms))
    if not atoms:
        return Followed(Windowed(Axes(dims, sizes), window, is_value), read[0])
    return Followed(
        Windowed(Axes(dims, sizes), window, is_value), lambda run: torch.stack([part(run) for part in read], -1)
    )


@rule(aten.slice.Tensor)
def _slice(plan: Plan, node: fx.Node) -> Followed:
    x, axis, start, stop, step = with_defaults(node, [0, 0, None, None, 1])
    windowed = plan.windowed(x)
    dim = dimension(axis, windowed.layout)
    size = windowed.window.start.shape[0] if dim < 0 else windowed.layout.size(dim)
    chosen = range(size)[slice(start, stop, step)]
    if len(chosen) == size and step == 1:
        return Followed(windowed, lambda run: run.data[x])
    if dim < 0:
        part = slice(chosen.start, chosen.stop, step)
        window = Window(windowed.window.start[part], windowed.window.width, windowed.window.length)
        return Followed(Windowed(windowed.layout, window, windowed.is_value), lambda run: run.data[x][part])
    if windowed.layout.dims[dim] == (0,):
        return _crop(plan, x, chosen)
    channel = windowed.layout.channel_axis(dim)
    layout = windowed.layout.with_channels(dim, len(chosen))
    index = torch.tensor(list(chosen), device=plan.device)
    return Followed(
        Windowed(layout, windowed.window, windowed.is_value), lambda run: run.data[x].index_select(channel, index)
    )


def _crop(plan: Plan, x: fx.Node, chosen: range) -> Followed:
    windowed = plan.windowed(x)
    if chosen.step != 1 or not chosen:
        raise Unsupported("a crop with a step")
    layout = Axes(windowed.layout.dims, (len(chosen), *windowed.layout.sizes[1:]))
    window = Window.clipped(windowed.window.start - chosen.start, windowed.window.width, len(chosen))
    inside = Window(window.start + chosen.start, window.width, windowed.window.length)
    read = plan.moved_difference(x, inside)
    cropped = Windowed(layout, window, False)
    clear = plan.clear(cropped)
    is_cut = window.missing is not None
    return Followed(cropped, lambda run: clear(read(run).clone() if is_cut else read(run)), Shifted(chosen.start))


@rule(aten.constant_pad_nd.default)
def _pad(plan: Plan, node: fx.Node) -> Followed:
    x, padding = arguments(node)[:2]
    windowed, read = plan.windowed(x), plan.difference(x)
    window, needs = windowed.window, None
    for pair in range(len(padding) // 2):
        dim = len(windowed.layout.dims) - 1 - pair
        left, right = padding[2 * pair : 2 * pair + 2]
        if not (left or right):
            continue
        if windowed.layout.dims[dim] != (0,):
            raise Unsupported("padding of an axis other than the position")
        if left < 0 or right < 0:
            if left > 0 or right > 0:
                raise Unsupported("padding on one side and a crop on the other")
            return _crop(plan, x, range(-left, window.length + right))
        window, needs = window.shifted(left, window.length + left + right), Shifted(-left)
    layout = Axes(windowed.layout.dims, (window.length, *windowed.layout.sizes[1:]))
    return Followed(Windowed(layout, window, False), read, needs)


@rule(aten.index.Tensor, aten.index_select.default)
def _index(plan: Plan, node: fx.Node) -> Followed:
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    if node.target is aten.index_select.default:
        axis, chosen = arguments(node)[1:3]
    else:
        given = [(axis, index) for axis, index in enumerate(arguments(node)[1]) if index is not None]
        if len(given) != 1:
            raise Unsupported("an index into several axes")
        axis, chosen = given[0]
    dim = dimension(axis, windowed.layout)
    index = plan.constant(chosen)
    if dim < 0 or index.ndim != 1 or index.dtype == torch.bool:
        raise Unsupported("an index into the batch, or by a mask")
    if windowed.layout.dims[dim] == (0,):
        return _index_positions(plan, node, index.tolist())
    channel = windowed.layout.channel_axis(dim)
    layout = windowed.layout.with_channels(dim, len(index))
    return Followed(
        Windowed(layout, windowed.window, windowed.is_value), lambda run: run.data[x].index_select(channel, index)
    )


def _index_positions(plan: Plan, node: fx.Node, index: list[int]) -> Followed:
    """Follow an index that names a stretch of the positions, or all of them from the end to the beginning."""
    x = arguments(node)[0]
    windowed = plan.windowed(x)
    length = windowed.window.length
    index = [position % length for position in index]
    if index == list(range(length - 1, -1, -1)):
        turned = Windowed(windowed.layout, windowed.window.mirrored(), windowed.is_value)
        return Followed(turned, lambda run: run.data[x].flip(3), mirrored)
    stretch = range(index[0], index[0] + len(index)) if index else range(0)
    if index != list(stretch):
        raise Unsupported("positions in another order")
    return _crop(plan, x, stretch)
