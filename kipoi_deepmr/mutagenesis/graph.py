"""A network as two ATen graphs: what no dropout reaches, computed once for all draws, and the rest, once per draw."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal, Protocol

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from kipoi_deepmr.mutagenesis.output_columns import select_early
from kipoi_deepmr.mutagenesis.precision import Precision, lower_products, products_in
from kipoi_deepmr.mutagenesis.simplify import simplify
from kipoi_deepmr.mutagenesis.strategy import Predictor
from kipoi_deepmr.uncertainty import Draws, Mask

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-5
_PER_ROW = "grows with the batch"
Saved = tuple[Tensor, ...]


class Passes(Protocol):
    """A forward pass in two parts."""

    shared_layers: int
    bytes_per_row: int

    def before(self, sequence: Tensor, others: Sequence[Tensor]) -> Saved:
        """Compute what all draws share."""

    def after(self, saved: Saved, masks: Sequence[Mask]) -> Tensor:
        """Finish the pass for one draw; shape (batch, selected outputs)."""


class WholePasses:
    """The network as it is, once per draw: for networks whose graph cannot be captured."""

    shared_layers = 0

    def __init__(
        self,
        network: Callable[..., Tensor],
        draws: Draws,
        columns: Sequence[int],
        bytes_per_row: int,
        precision: Precision = "float32",
    ) -> None:
        self._network = network
        self._draws = draws
        self._autocast = precision == "bfloat16"
        self._columns = list(columns)
        self.bytes_per_row = bytes_per_row

    def before(self, sequence: Tensor, others: Sequence[Tensor]) -> Saved:
        """Keep the inputs."""
        return (sequence, *others)

    def after(self, saved: Saved, masks: Sequence[Mask]) -> Tensor:
        """Run the network on a copy of the inputs, which it may change in place."""
        inputs = [tensor.clone() for tensor in saved]
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self._autocast):
            predicted = self._draws.network(self._network, masks)(*inputs)
        return predicted[:, self._columns].to(inputs[0].dtype if self._autocast else predicted.dtype)


class CapturedPasses:
    """Two graphs made from one forward pass with concrete shapes.

    Parameters
    ----------
    network
        Called as ``network(sequence, *others)`` in eval mode.
    draws
        Source of the draws, which makes the network of a draw.
    columns
        Outputs to keep.
    sequence, others
        Inputs of the batch size for which the graphs hold.
    masks
        Masks of any draw, one per site.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        draws: Draws,
        columns: Sequence[int],
        sequence: Tensor,
        others: Sequence[Tensor],
        masks: Sequence[Mask],
    ) -> None:
        whole = trace(network, draws, columns, sequence, others, masks)
        self._before, self._after, self.shared_layers = _split(whole, 1 + len(others))
        rows = len(sequence)
        self.bytes_per_row = (_peak_bytes(self._before) + _peak_bytes(self._after)) // rows

    def lower(self) -> None:
        """Let products take bfloat16 from now on."""
        lower_products(self._before)
        lower_products(self._after)

    def before(self, sequence: Tensor, others: Sequence[Tensor]) -> Saved:
        """Compute what all draws share."""
        saved = self._before(sequence, *others)
        return tuple(saved)

    def after(self, saved: Saved, masks: Sequence[Mask]) -> Tensor:
        """Finish the pass for one draw."""
        output: Tensor = self._after(*saved, *mask_tensors(masks))
        return output


def trace(
    network: Callable[..., Tensor],
    draws: Draws,
    columns: Sequence[int],
    sequence: Tensor,
    others: Sequence[Tensor],
    masks: Sequence[Mask],
    *,
    mode: Literal["real", "fake"] = "real",
) -> fx.GraphModule:
    """Return a forward pass as an ATen graph without in-place operations.

    Parameters
    ----------
    network, draws, columns, sequence, others, masks
        As `CapturedPasses`.
    mode
        ``fake`` computes shapes only; the graph's own constants are then not usable.

    Returns
    -------
    torch.fx.GraphModule
        Its placeholders are the sequence, the other inputs and the tensors of the masks; it holds for the batch size
        of the inputs.
    """
    inputs = (sequence, *others)
    selected = list(columns)
    with_offset = [mask.offset is not None for mask in masks]

    def forward(*tensors: Tensor) -> Tensor:
        parts = iter(tensors[len(inputs) :])
        own = [Mask(next(parts), next(parts) if offset else None) for offset in with_offset]
        return draws.network(network, own)(*tensors[: len(inputs)])[:, selected]

    given = (*inputs, *mask_tensors(masks))
    fake = FakeTensorMode(allow_non_fake_inputs=True) if mode == "fake" else nullcontext()
    with torch.no_grad(), fake:
        if isinstance(fake, FakeTensorMode):
            given = tuple(fake.from_tensor(tensor) for tensor in given)
        # Once more, since the parts of composite operations such as recurrent layers show only in the graph.
        once = make_fx(functionalize(forward, remove="mutations"))(*given)
        whole = make_fx(functionalize(once, remove="mutations"))(*given)
    changing = [node for node in whole.graph.nodes if _changes_its_input(node)]
    if changing:
        raise RuntimeError(f"{changing[0].target} changes its input in place")
    _reshape_any_strides(whole)
    simplify(whole)
    select_early(whole, torch.tensor(selected, device=sequence.device))
    return whole


def _reshape_any_strides(module: fx.GraphModule) -> None:
    """Let reshapes take tensors of any strides, and be the same operation for every batch size."""
    views = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
    for node in module.graph.nodes:
        if node.target in views:
            node.target = torch.ops.aten.reshape.default
    for node in list(module.graph.nodes):
        is_copy = node.target is torch.ops.aten.clone.default and isinstance(node.args[0], fx.Node)
        if is_copy and all(user.target is torch.ops.aten.reshape.default for user in node.users):
            node.replace_all_uses_with(node.args[0])
    module.recompile()


def _changes_its_input(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def capture(
    network: Predictor,
    draws: Draws,
    columns: Sequence[int],
    sequence: Tensor,
    others: Sequence[Tensor],
    masks: Sequence[Mask],
    precision: Precision = "float32",
) -> Passes:
    """Capture a network, or fall back to running it whole for each draw.

    Parameters
    ----------
    network, draws, columns, sequence, others, masks
        As `CapturedPasses`.
    precision
        Arithmetic of products.

    Returns
    -------
    Passes
        `CapturedPasses` when the graph can be captured and gives what the network gives, else `WholePasses`.
    """
    whole = WholePasses(network, draws, columns, _parameter_free_bytes(sequence), precision)
    if network.opaque:
        return whole
    try:
        with products_in("float32"):
            expected = draws.network(network, masks)(sequence.clone(), *others)[:, list(columns)]
            captured = CapturedPasses(network, draws, columns, sequence, others, masks)
            given = captured.after(captured.before(sequence, others), masks)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001  any failure to trace means the same: run the network as it is
        logger.warning("the network's graph cannot be captured (%s): every draw runs all layers", _first_line(error))
        return whole
    if not torch.allclose(given, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())):
        logger.warning("the captured graph differs from the network: every draw runs all layers")
        return whole
    if precision == "bfloat16":
        captured.lower()
    return captured


def mask_tensors(masks: Sequence[Mask]) -> list[Tensor]:
    """Return the tensors of some masks in the order of the graph's placeholders."""
    return [tensor for mask in masks for tensor in (mask.factor, mask.offset) if tensor is not None]


def _split(whole: fx.GraphModule, inputs: int) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    nodes = list(whole.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    drawn = reached(nodes, placeholders[inputs:])
    for node in reached(nodes, placeholders[:inputs]):
        node.meta[_PER_ROW] = True
    constant = {node for node in nodes if node.op == "get_attr"}
    saved = [
        node
        for node in nodes
        if node not in drawn
        and node not in constant
        and any(user in drawn or user.op == "output" for user in node.users)
    ]
    first, second = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in drawn and node.op != "output":
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in saved))
    first.eliminate_dead_code()
    copies = {node: second.placeholder(f"saved_{index}") for index, node in enumerate(saved)}
    for node, copy in copies.items():
        copy.meta = node.meta
    for node in nodes:
        if node in drawn or node in constant or node.op == "output":
            copies[node] = second.node_copy(node, copies.__getitem__)
    second.eliminate_dead_code()
    layers = sum(node.op == "call_function" for node in first.nodes)
    return fx.GraphModule(whole, first), fx.GraphModule(whole, second), layers


def reached(nodes: Sequence[fx.Node], sources: Sequence[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on some nodes, themselves included."""
    reached = set(sources)
    for node in nodes:
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return reached


def _peak_bytes(module: fx.GraphModule) -> int:
    """Return the largest number of bytes that live at once in activations that grow with the batch."""
    return peak_bytes([node for node in module.graph.nodes if node.op != "get_attr"], _bytes)


def peak_bytes(nodes: Sequence[fx.Node], size: Callable[[fx.Node], int]) -> int:
    """Return the largest number of bytes that live at once when some nodes run in order, each freed after its last use.

    Parameters
    ----------
    nodes
        The nodes.
    size
        Gives the bytes of a node.
    """
    sizes = {node: size(node) for node in nodes if node.op in ("placeholder", "call_function")}
    last_use = {source: index for index, node in enumerate(nodes) for source in node.all_input_nodes}
    live = peak = 0
    for index, node in enumerate(nodes):
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(source, 0) for source in node.all_input_nodes if last_use[source] == index)
    return peak


def _bytes(node: fx.Node) -> int:
    return bytes_of(node) if _PER_ROW in node.meta else 0


def bytes_of(node: fx.Node) -> int:
    """Return the bytes of what a captured node computes; 0 for views."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    if node.target in _VIEWS:
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in values if isinstance(tensor, Tensor))


_VIEWS = {
    torch.ops.aten.reshape.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.permute.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.t.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.alias.default,
    torch.ops.aten.expand.default,
}


def _parameter_free_bytes(sequence: Tensor) -> int:
    """Guess the bytes of activations per row of a network whose graph is unknown: 64 channels, four at once."""
    return 64 * sequence[0].numel() * sequence.element_size()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
