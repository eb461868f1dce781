"""Only the selected outputs: the choice of columns moves through the graph up to the weights of the last layer."""

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_POINTWISE = {
    aten.sigmoid.default,
    aten.relu.default,
    aten.tanh.default,
    aten.softplus.default,
    aten.exp.default,
    aten.log.default,
    aten.neg.default,
    aten.threshold.default,
    aten.clamp.default,
    aten.elu.default,
    aten.gelu.default,
    aten.mul.Scalar,
    aten.add.Scalar,
    aten.div.Scalar,
}
_BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def select_early(module: fx.GraphModule, columns: Tensor) -> None:
    """Move the final choice of output columns towards the last linear layer, in place.

    The choice passes operations that act on each output alone; at a linear layer it takes the rows of the weight. An
    output that something else reads, or any other operation, stops it: the graph then computes the same as before.

    Parameters
    ----------
    module
        Graph whose output is ``aten.index.Tensor(x, [None, columns])``.
    columns : torch.Tensor, shape=(selected,), int64
        Those columns.
    """
    graph = module.graph
    output = list(graph.nodes)[-1].args[0]
    if not isinstance(output, fx.Node) or output.target is not aten.index.Tensor:
        return
    x = output.args[0]
    if not isinstance(x, fx.Node):
        return
    moved = _select(module, x, columns)
    if moved is not None:
        output.replace_all_uses_with(moved)
        graph.eliminate_dead_code()
        graph.lint()
        module.recompile()


def _select(module: fx.GraphModule, node: fx.Node, columns: Tensor, readers: int = 1) -> fx.Node | None:
    """Return a node with the chosen columns of another, or None where the choice cannot move further."""
    if len(node.users) > readers or node.op != "call_function":
        return None
    source: Any = node.args[0]
    args: list[Any] = list(node.args)
    if node.target in _POINTWISE or (node.target is aten.slice.Tensor and (*args, 0)[1] == 0):
        args[0] = _select(module, source, columns)
    elif node.target in _BINARY:
        for position in (0, 1):
            operand = args[position]
            if isinstance(operand, fx.Node):
                # Two slices of one tensor (both strands) share it: each choice is made for itself.
                args[position] = _select_operand(module, operand, columns, node)
    elif node.target is aten.addmm.default and not node.kwargs:
        bias, weight = _value(module, args[0]), _value(module, args[2])
        if bias is None or weight is None or bias.ndim != 1:
            return None
        args[0] = _constant(module, node, bias[columns])
        args[2] = _constant(module, node, weight[:, columns])
    else:
        return None
    if any(arg is None for arg in args):
        return None
    return _insert(module, node, args)


def _select_operand(module: fx.GraphModule, operand: fx.Node, columns: Tensor, before: fx.Node) -> fx.Node | None:
    shape, last = operand.meta["val"].shape, before.meta["val"].shape
    if len(shape) == 0 or shape[-1] == 1 or len(shape) < len(last):
        return None
    if operand.target is aten.slice.Tensor and (*operand.args, 0)[1] == 0 and len(operand.users) == 1:
        source = operand.args[0]
        assert isinstance(source, fx.Node)
        chosen = _chosen_once(module, source, columns)
        return None if chosen is None else _insert(module, operand, [chosen, *operand.args[1:]])
    return _select(module, operand, columns)


def _chosen_once(module: fx.GraphModule, source: fx.Node, columns: Tensor) -> fx.Node | None:
    """Select a node that both strands read, once: the second strand finds the first one's choice."""
    done: fx.Node | None = source.meta.get("chosen columns")
    if done is not None:
        return done
    if any(user.target is not aten.slice.Tensor for user in source.users):
        return None
    chosen = _select(module, source, columns, len(source.users))
    if chosen is not None:
        source.meta["chosen columns"] = chosen
    return chosen


def _insert(module: fx.GraphModule, node: fx.Node, args: list[Any]) -> fx.Node:
    with module.graph.inserting_before(node):
        target: Any = node.target
        new = module.graph.call_function(target, tuple(args), dict(node.kwargs))
    first = args[0].meta["val"] if node.target is not aten.addmm.default else None
    columns = args[2].meta["val"].shape[1] if first is None else first.shape[-1]
    new.meta = {"val": node.meta["val"].new_empty((*node.meta["val"].shape[:-1], columns))}
    return new


def _constant(module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    name = f"_selected_{sum(1 for key in dir(module) if key.startswith('_selected_'))}"
    module.register_buffer(name, value.detach().contiguous(), persistent=False)
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(name)
    node.meta = {"val": value}
    return node


def _value(module: fx.GraphModule, node: Any) -> Tensor | None:
    """Return the value of a node made of constants alone."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "get_attr":
        value: Any = getattr(module, str(node.target))
        return value if isinstance(value, Tensor) else None
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    values = {source: _value(module, source) for source in node.all_input_nodes}
    if any(value is None for value in values.values()):
        return None
    target: Any = node.target
    result = target(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
    return result if isinstance(result, Tensor) else None
