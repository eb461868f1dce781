"""Linear layers after flattening: the changed columns of the weight only."""

import math

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run
from kipoi_deepmr.mutagenesis.delta.rules.registry import aten, rule
from kipoi_deepmr.mutagenesis.delta.state import Rows, Unsupported, arguments


@rule(aten.addmm.default, aten.mm.default)
def _linear(plan: Plan, node: fx.Node) -> Followed:
    """Low-rank update: only the columns of the weight that belong to changed positions."""
    x, weight_node = arguments(node)[-2:]
    if node.kwargs:
        raise Unsupported("a scaled matrix product")
    windowed = plan.windowed(x)
    layout, window = windowed.layout, windowed.window
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
        if len(starts) == 1 and window.width == window.length:
            changed = plan.product(torch.matmul, difference(run).flatten(3).flatten(0, 2), rows_of_weight)
            changed = changed.view(*window.start.shape, plan.alleles, outputs)
            return (run.reference[node][:, None, None] + changed).flatten(0, 2)
        data = difference(run).reshape(len(group.reshape(-1)), plan.alleles, window.width, channels)
        out = data.new_empty((*data.shape[:2], outputs))
        for start, member in zip(starts.tolist(), members, strict=True):
            low = min(max(start, 0), window.length)
            high = max(low, min(start + window.width, window.length))
            if low == high:
                out[member] = 0.0
                continue
            part = data[member, :, low - start : high - start].flatten(2)
            out[member] = plan.product(torch.matmul, part, rows_of_weight[low * channels : high * channels])
        strands, positions = window.start.shape
        out = out.view(strands, positions, plan.alleles, outputs)
        return (run.reference[node][:, None, None] + out).flatten(0, 2)

    return Followed(Rows((outputs,)), multiply, multiply_adds=lambda: window.existing * channels * outputs)
