"""The arithmetic of matrix products and convolutions: float32, or less of it where a user asks for speed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, fx

Precision = Literal["float32", "tf32", "bfloat16"]

aten = torch.ops.aten
_PRODUCTS = {
    aten.convolution.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.linear.default,
}


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Allow or forbid TensorFloat-32 in products on a GPU; torch allows it in convolutions unless it is told not to."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def lowered(weight: Tensor, precision: Precision) -> Tensor:
    """Return a weight in the type in which products take it."""
    return weight.to(torch.bfloat16) if precision == "bfloat16" else weight


def product(function: Callable[[Tensor, Tensor], Tensor], data: Tensor, weight: Tensor, precision: Precision) -> Tensor:
    """Multiply data with a weight from `lowered`; the result has the type of the data.

    Parameters
    ----------
    function
        Gives the product of its two arguments.
    data, weight
        What it is called with.
    precision
        ``tf32`` takes effect on a GPU only.
    """
    if precision == "bfloat16":
        return function(data.to(torch.bfloat16), weight).to(data.dtype)
    if precision == "tf32":
        with products_in(precision):
            return function(data, weight)
    return function(data, weight)


def lower_products(module: fx.GraphModule) -> None:
    """Let the products of a graph take bfloat16 and give float32 back, in place; all other operations stay as they are."""
    graph = module.graph
    lower: dict[fx.Node, fx.Node] = {}

    def cast(node: fx.Node, dtype: torch.dtype) -> fx.Node:
        copy: Any = aten._to_copy.default
        new = graph.call_function(copy, (node,), {"dtype": dtype})
        new.meta = {**node.meta, "val": node.meta["val"].to(dtype)}
        return new

    for node in [node for node in graph.nodes if node.target in _PRODUCTS]:
        given = node.meta["val"].dtype
        if not given.is_floating_point:
            continue
        for source in node.all_input_nodes:
            if source not in lower:
                with graph.inserting_after(source):
                    lower[source] = cast(source, torch.bfloat16)
        node.args = fx.map_arg(node.args, lower.__getitem__)
        node.kwargs = fx.map_arg(node.kwargs, lower.__getitem__)
        users = list(node.users)
        with graph.inserting_after(node):
            back = cast(node, given)
        for user in users:
            user.replace_input_with(node, back)
    graph.lint()
    module.recompile()
