"""A network as a program that computes only what a mutation can reach."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils.flop_counter import flop_registry

from kipoi_deepmr.mutagenesis.blocks import Coverage
from kipoi_deepmr.mutagenesis.delta.needs import Sliding
from kipoi_deepmr.mutagenesis.delta.plan import Followed, Plan, Run, Step
from kipoi_deepmr.mutagenesis.delta.reach import Window
from kipoi_deepmr.mutagenesis.delta.rules import RULES, shape_of
from kipoi_deepmr.mutagenesis.delta.state import Rows, Unsupported, Windowed, arguments, call, find_axes
from kipoi_deepmr.mutagenesis.graph import bytes_of, peak_bytes, reached
from kipoi_deepmr.mutagenesis.precision import Precision
from kipoi_deepmr.mutagenesis.variants import MUTANTS

aten = torch.ops.aten


class DeltaProgram:
    """The steps for mutants at certain positions.

    Parameters
    ----------
    graph
        The network captured for the sequences.
    batch_graph
        Gives the network captured for a number of rows; called only when a part of it runs whole.
    n_inputs
        Number of its inputs; the placeholders after them are masks.
    positions : numpy.ndarray, shape=(sequence, position), int64
        Positions of each sequence that are mutated, each to three bases.
    position_axis
        Position axis of the sequence, counted without the batch.
    weights
        Rearranged weights, shared by all programs of the network.
    precision
        Arithmetic of the products that are computed locally.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        batch_graph: Callable[[int], fx.GraphModule],
        n_inputs: int,
        positions: np.ndarray,
        position_axis: int,
        weights: dict[tuple[str, str], Tensor],
        precision: Precision = "float32",
    ) -> None:
        self._nodes = list(graph.graph.nodes)
        holders = [node for node in self._nodes if node.op == "placeholder"]
        self._inputs, self._masks = holders[:n_inputs], holders[n_inputs:]
        sequence = self._inputs[0]
        self._mutated = reached(self._nodes, [sequence])
        self._drawn = reached(self._nodes, self._masks)
        self.rows = positions.size * MUTANTS
        constants = _constants(graph, self._nodes, holders)
        self._plan = Plan(
            sequence.meta["val"].device, MUTANTS, self._mutated, self._drawn, constants, weights, precision
        )
        layout = find_axes(shape_of(sequence), position_axis)
        self._start = Windowed(layout, Window(positions, 1, layout.sizes[0]), True)
        self._layout = layout
        self._compile()
        self._plan.stretches = self._plan.find_stretches(self._nodes, self._frontier)
        if any(self._is_wider_than_needed(node, one) for node, one in self._plan.followed.items()):
            self._compile()
        shared = [node for node in self._nodes if node not in self._drawn]
        self._last_use = _last_uses([*shared, *(node for node in self._nodes if node in self._drawn)])
        self._whole_constants = dict(self._plan.constants)
        self._batch_nodes = self._match(batch_graph) if self._tail else {}

    def _is_wider_than_needed(self, node: fx.Node, followed: Followed) -> bool:
        if not isinstance(followed.needs, Sliding) or not isinstance(followed.state, Windowed):
            return False
        low, high = self._plan.stretches[node]
        return followed.state.window.width > high - low

    def _compile(self) -> None:
        plan = self._plan
        plan.followed = {self._inputs[0]: Followed(self._start, self._data_of(self._inputs[0]))}
        plan.prefetch = []
        self._tail: list[fx.Node] = []
        self._stopped: dict[str, None] = {}
        for node in self._nodes:
            if node not in self._mutated or node.op == "placeholder" or node.op == "output":
                continue
            sources = [source for source in node.all_input_nodes if source in self._mutated]
            if _is_first_output(node) and isinstance(plan.state(sources[0]), Rows):
                plan.followed[node] = self._first_output(sources[0])
                continue
            if any(source in self._tail or isinstance(plan.state(source), Rows) for source in sources):
                self._tail.append(node)
                if any(isinstance(plan.state(source), Windowed) for source in sources):
                    self._stopped[f"{_name(node)} (it joins a window with whole rows)"] = None
                continue
            plan.current = node
            try:
                plan.followed[node] = self._follow(node)
            except Unsupported as reason:
                self._stopped[f"{_name(node)} ({reason})"] = None
                self._tail.append(node)
        self._frontier = self._find_frontier()

    def _follow(self, node: fx.Node) -> Followed:
        if node.target is operator.getitem:
            if not _is_first_output(node):
                raise Unsupported("a second output")
            return self._first_output(arguments(node)[0])
        if any(user.target is operator.getitem and not _is_first_output(user) for user in node.users):
            raise Unsupported("several outputs are used")
        if node.target not in RULES:
            raise Unsupported("no rule")
        found = RULES[node.target](self._plan, node)
        expected = shape_of(node)
        given = found.state.layout.shape if isinstance(found.state, Windowed) else found.state.shape
        if tuple(given) != tuple(expected):
            raise Unsupported(f"shape {given} instead of {expected}")
        return found

    def _first_output(self, source: fx.Node) -> Followed:
        return Followed(self._plan.followed[source].state, self._data_of(source))

    @staticmethod
    def _data_of(source: fx.Node) -> Step:
        return lambda run: run.data[source]

    def _find_frontier(self) -> dict[fx.Node, Step]:
        """Return the nodes whose whole rows the rest of the network needs."""
        frontier: dict[fx.Node, Step] = {}
        tail = set(self._tail)
        output = arguments(self._nodes[-1])[0]
        wanted = [source for node in self._tail for source in node.all_input_nodes]
        for node in (*wanted, output):
            if node in self._mutated and node not in tail and node not in frontier:
                self._plan.current = node
                is_windowed = isinstance(self._plan.state(node), Windowed)
                frontier[node] = self._plan.whole(node) if is_windowed else self._data_of(node)
        return frontier

    @property
    def coverage(self) -> Coverage:
        """How much is computed locally."""
        products = {node: _multiply_adds(node) for node in self._nodes if node.op == "call_function"}
        followed = sum(count for node, count in products.items() if node in self._plan.followed)
        return Coverage(followed / max(sum(products.values()), 1), tuple(self._stopped))

    def fewest_multiply_adds(self, draws: int) -> float:
        """Return the multiply-adds without which no mutant can be predicted, per mutant and draw.

        Changed inputs of convolutions and linear layers times the outputs that each of them reaches; operations from which
        on the network runs whole count whole; what no dropout reaches counts once for all draws. What is pooled counts for
        the mutation that lies worst on the kernels.

        Parameters
        ----------
        draws
            Number of draws.
        """
        positions = self._start.window.start
        total = 0.0
        for node in (node for node in self._nodes if node in self._mutated):
            followed = self._plan.followed.get(node)
            if followed is not None:
                count = followed.multiply_adds() / positions.size
            else:
                count = _multiply_adds(node) / len(positions)
            total += count if node in self._drawn else count / draws
        return total

    @property
    def bytes_per_position(self) -> int:
        """Estimated bytes of the largest step, for the three mutants of a position."""
        largest = 1
        for node, followed in self._plan.followed.items():
            state = followed.state
            if isinstance(state, Rows):
                largest = max(largest, 2 * math.prod(state.shape))
                continue
            strands, channels = len(state.window.start), math.prod(state.layout.sizes[1:])
            size = 4 * state.window.width * channels
            if node.target is aten.convolution.default:
                # Few changed inputs go through all taps at once.
                source = self._plan.windowed(arguments(node)[0])
                taps = max(state.window.width - source.window.width + 1, 1)
                if source.window.width < taps:
                    size += source.window.width * channels * taps
            largest = max(largest, strands * size)
        sequences = len(self._start.window.start)
        whole = peak_bytes(self._tail, bytes_of) // sequences
        return MUTANTS * max(4 * largest, whole)

    @property
    def bytes_per_sequence(self) -> int:
        """Estimated bytes of the references of one sequence, each with a copy that has the position in front."""
        tail = set(self._tail)
        order = sorted(self._nodes, key=lambda node: node in self._drawn)
        followed = [node for node in order if node not in tail and node not in self._plan.constants]
        return max(1, 2 * peak_bytes(followed, bytes_of) // len(self._start.window.start))

    def before(self, sequence: Tensor, others: Sequence[Tensor], mutants: Tensor) -> Run:
        """Compute what all draws share.

        Parameters
        ----------
        sequence : torch.Tensor, shape=(sequence, ...)
            The references in the network's layout.
        others : sequence of torch.Tensor, shape=(sequence, ...)
            The other inputs.
        mutants : torch.Tensor, shape=(sequence, position, allele, 4)
            The new one-hot columns in the network's order of bases.
        """
        run = Run(reference=dict(self._plan.constants))
        run.reference.update(zip(self._inputs, (sequence, *others), strict=True))
        channels = self._layout.sizes[1:]
        run.data[self._inputs[0]] = mutants.reshape(*mutants.shape[:3], 1, *channels)
        repeats = self.rows // len(sequence)
        run.rows.update(
            {
                holder: other.repeat_interleave(repeats, 0)
                for holder, other in zip(self._inputs[1:], others, strict=True)
            }
        )
        self._execute(run, [node for node in self._nodes if node not in self._drawn], drawn=False)
        return run

    @property
    def masks_of_rows(self) -> list[int]:
        """Indices of the masks that the part needs which runs whole."""
        tail = set(self._tail)
        needs = [any(user in tail or user not in self._mutated for user in holder.users) for holder in self._masks]
        return [index for index, needed in enumerate(needs) if needed and tail]

    def after(self, shared: Run, masks: Sequence[Tensor], rows: Mapping[int, Tensor]) -> Tensor:
        """Finish the pass for one draw; shape (sequence * position * allele, selected outputs).

        Parameters
        ----------
        shared
            What `before` gave.
        masks
            Masks of the references.
        rows
            Those of `masks_of_rows` with a row for each mutant, where they differ between the sequences.
        """
        run = shared.branch()
        run.reference.update(zip(self._masks, masks, strict=True))
        run.rows.update({holder: rows.get(i, masks[i]) for i, holder in enumerate(self._masks)})
        self._execute(run, [node for node in self._nodes if node in self._drawn], drawn=True)
        return run.rows[arguments(self._nodes[-1])[0]]

    def _execute(self, run: Run, nodes: Iterable[fx.Node], *, drawn: bool) -> None:
        tail, followed = set(self._tail), self._plan.followed
        for node in nodes:
            if node.op == "call_function" and node not in self._plan.constants:
                if node not in tail:
                    run.reference[node] = _call(node, run.reference)
                if node in followed:
                    run.data[node] = followed[node].step(run)
                elif self._tail and (node in tail or node not in self._mutated):
                    run.rows[node] = self._call_whole(node, run)
            if node in self._frontier:
                run.rows[node] = self._frontier[node](run)
            for source in self._last_use.get(node, ()):
                run.forget(source)
        if not drawn:
            for read in self._plan.prefetch:
                read(run)

    def _call_whole(self, node: fx.Node, run: Run) -> Any:
        """Run a node on whole rows: with the shapes of the graph of that batch, on the values of this one."""
        other = self._batch_nodes[node]
        values = dict(zip(other.all_input_nodes, node.all_input_nodes, strict=True))

        def find(source: fx.Node) -> Any:
            own = values[source]
            return run.rows[own] if own in run.rows else self._whole_constants[own]

        return call(other, *fx.map_arg(other.args, find), **fx.map_arg(other.kwargs, find))

    def _match(self, batch_graph: Callable[[int], fx.GraphModule]) -> dict[fx.Node, fx.Node]:
        others = list(batch_graph(self.rows).graph.nodes)
        if [node.target for node in self._nodes if node.op == "call_function"] != [
            node.target for node in others if node.op == "call_function"
        ]:
            raise Unsupported("the network does other things with a batch than with one sequence")
        matched = dict(zip(self._nodes, others, strict=True))
        # Constants whose shape holds the batch, such as the first state of a recurrent layer.
        for node in self._nodes:
            if node in self._plan.constants and node.op == "call_function":
                values = dict(zip(matched[node].all_input_nodes, node.all_input_nodes, strict=True))
                find = lambda source, values=values: self._whole_constants[values[source]]  # noqa: E731
                args, kwargs = (fx.map_arg(part, find) for part in (matched[node].args, matched[node].kwargs))
                self._whole_constants[node] = call(matched[node], *args, **kwargs)
        return matched


def _constants(graph: fx.GraphModule, nodes: Sequence[fx.Node], holders: Sequence[fx.Node]) -> dict[fx.Node, Any]:
    moving = reached(nodes, holders)
    constants: dict[fx.Node, Any] = {}
    for node in nodes:
        if node in moving or node.op == "output":
            continue
        constants[node] = getattr(graph, str(node.target)) if node.op == "get_attr" else _call(node, constants)
    return constants


def _call(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    find = values.__getitem__
    return call(node, *fx.map_arg(node.args, find), **fx.map_arg(node.kwargs, find))


def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            last[source] = node
    uses: dict[fx.Node, list[fx.Node]] = {}
    for source, node in last.items():
        if node.op != "output":
            uses.setdefault(node, []).append(source)
    return uses


def _multiply_adds(node: fx.Node) -> int:
    """Return the multiply-adds of a product; of a recurrent layer, its weights times the steps."""
    target: Any = node.target
    output = node.meta.get("val")
    given = [argument.meta.get("val") for argument in node.all_input_nodes]
    if "rnn" in str(target) or any(name in str(target) for name in (".lstm.", ".gru.")):
        first, *weights = (value for value in given if isinstance(value, Tensor))
        return first.numel() // first.shape[-1] * sum(weight.numel() for weight in weights if weight.ndim == 2)
    formula = flop_registry.get(getattr(target, "overloadpacket", None))
    if formula is None:
        return 0
    find = lambda source: source.meta["val"]  # noqa: E731
    args: Any = fx.map_arg(node.args, find)
    kwargs: Any = fx.map_arg(node.kwargs, find)
    return int(formula(*args, **kwargs, out_val=output)) // 2


def _is_first_output(node: fx.Node) -> bool:
    return node.target is operator.getitem and arguments(node)[1] == 0


def _name(node: fx.Node) -> str:
    return str(node.target)
