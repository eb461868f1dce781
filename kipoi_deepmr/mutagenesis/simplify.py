"""A captured graph in fewer kinds of operations, each computing what the original computed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_PARTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
_RESHAPES = (aten.reshape.default, aten.view.default, aten._unsafe_view.default)


def simplify(module: fx.GraphModule) -> None:
    """Write parts of a split as slices, gates as products, linear layers at each position as such, in place.

    A linear layer on tensors of more than two axes is captured as a product of matrices between two reshapes, of which the
    first joins the batch with other axes; a split has several outputs. Both are hard to follow for what comes after.

    Parameters
    ----------
    module
        Graph whose nodes know their values' shapes (``meta["val"]``).
    """
    module.graph.eliminate_dead_code()
    for node in list(module.graph.nodes):
        rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is not None:
            rewrite(node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _value(node: fx.Node) -> Tensor:
    value: Tensor = node.meta["val"]
    return value


def _insert(before: fx.Node, target: Any, args: tuple[Any, ...], value: Tensor) -> fx.Node:
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args)
    node.meta["val"] = value
    return node


def _split(node: fx.Node) -> None:
    """Each part becomes a slice, or the choice of one entry."""
    x: Any = node.args[0]
    given: Any = node.args[1:] if node.target is aten.unbind.int else node.args[2:]
    dim = given[0] if given else 0
    for user in list(node.users):
        index: Any = user.args[1]
        part = _value(user)
        if node.target is aten.unbind.int:
            new = _insert(node, aten.select.int, (x, dim, index), part)
        else:
            sizes = [value.shape[dim] for value in node.meta["val"]]
            start = sum(sizes[:index])
            new = _insert(node, aten.slice.Tensor, (x, dim, start, start + sizes[index]), part)
        user.replace_all_uses_with(new)


def _glu(node: fx.Node) -> None:
    x: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else -1
    value = _value(node)
    half = value.shape[dim]
    first = _insert(node, aten.slice.Tensor, (x, dim, 0, half), value)
    second = _insert(node, aten.slice.Tensor, (x, dim, half, 2 * half), value)
    gate = _insert(node, aten.sigmoid.default, (second,), value)
    node.replace_all_uses_with(_insert(node, aten.mul.Tensor, (first, gate), value))


def _linear(node: fx.Node) -> None:
    """Join reshape, product and reshape where only the last axis is another one behind them."""
    *bias, x, weight = node.args
    users = list(node.users)
    if node.kwargs or not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or x.target not in _RESHAPES:
        return
    if len(x.users) > 1 or len(users) != 1 or users[0].target not in _RESHAPES:
        return
    if bias and _value(bias[0]).ndim != 1:  # type: ignore[arg-type]
        return
    source: Any = x.args[0]
    given, found = _value(source), _value(users[0])
    if given.ndim < 3 or given.shape[:-1] != found.shape[:-1] or given.shape[-1] != _value(x).shape[-1]:
        return
    turned = _insert(node, aten.t.default, (weight,), _value(weight).t())
    new = _insert(node, aten.linear.default, (source, turned, *bias), found)
    users[0].replace_all_uses_with(new)


def _adaptive_max(node: fx.Node) -> None:
    """The maximum of all is one whose place nobody asks for."""
    x, size = node.args
    if list(size) != [1, 1] or any(user.args[1] != 0 for user in node.users):  # type: ignore[arg-type]
        return
    value = _value(x)  # type: ignore[arg-type]
    axes = [axis for axis in (value.ndim - 2, value.ndim - 1) if value.shape[axis] > 1]
    for user in list(node.users):
        user.replace_all_uses_with(_insert(node, aten.amax.default, (x, axes, True), _value(user)))


def _same_type(node: fx.Node) -> None:
    x: Any = node.args[0]
    if set(node.kwargs) <= {"dtype", "memory_format", "non_blocking"} and _value(x).dtype == _value(node).dtype:
        node.replace_all_uses_with(x)


_REWRITES: dict[Any, Callable[[fx.Node], None]] = {
    **dict.fromkeys(_PARTS, _split),
    aten.glu.default: _glu,
    aten.mm.default: _linear,
    aten.addmm.default: _linear,
    aten.adaptive_max_pool2d.default: _adaptive_max,
    aten._to_copy.default: _same_type,
}
