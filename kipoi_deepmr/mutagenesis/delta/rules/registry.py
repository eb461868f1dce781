"""The rules of operations: the window of an output, and how to compute it from the windows of the inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan
from kipoi_deepmr.mutagenesis.delta.state import Axes, arguments

aten = torch.ops.aten
Rule = Callable[[Plan, fx.Node], Followed]
RULES: dict[Any, Rule] = {}


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


def dimension(dim: int, layout: Axes) -> int:
    """Return a dimension counted without the batch; -1 is the batch."""
    return (dim if dim >= 0 else dim + len(layout.dims) + 1) - 1


COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")
_SINGULAR = {aten.sqrt.default, aten.rsqrt.default, aten.log.default, aten.log2.default, aten.log10.default}
_SINGULAR |= {aten.reciprocal.default, aten.sign.default}
_SINGULAR |= {getattr(getattr(aten, name), kind) for name in COMPARISONS for kind in ("Scalar", "Tensor")}
_ENDS = {aten.convolution.default, aten.addmm.default, aten.mm.default, aten.bmm.default}


def is_singular(node: fx.Node) -> bool:
    """Tell whether an operation makes much of a small error of its argument: near zero, or at a threshold."""
    if node.target is aten.pow.Tensor_Scalar:
        exponent = arguments(node)[1]
        return exponent < 1
    return node.target in _SINGULAR


def feeds_singular(node: fx.Node) -> bool:
    """Tell whether a node's values reach such an operation before they are weighted and summed.

    They then have to be those of the mutant: reference plus difference is not exactly 0 where the mutant is.
    """
    seen, open_ = set(), list(node.users)
    while open_:
        user = open_.pop()
        if is_singular(user):
            return True
        if user not in seen and user.target not in _ENDS:
            seen.add(user)
            open_.extend(user.users)
    return False
