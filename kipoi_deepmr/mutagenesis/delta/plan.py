"""The delta program under construction: states of nodes, and readers of values and differences."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from kipoi_deepmr.mutagenesis.delta.needs import Needs
from kipoi_deepmr.mutagenesis.delta.reach import Mover, Reader, Window
from kipoi_deepmr.mutagenesis.delta.state import Axes, Rows, Unsupported, Windowed
from kipoi_deepmr.mutagenesis.precision import Precision, lowered, product

Step = Callable[["Run"], Tensor]


@dataclass
class Run:
    """Tensors of one pass over the program: of the reference, and of the mutants.

    Attributes
    ----------
    reference : dict
        Reference value of each node, batch of strands first.
    data : dict
        Windows of the mutants of each node: (strand, position, allele, width, *channels), or whole rows
        (strand * position * allele, ...).
    rows : dict
        Nodes of the part that runs whole, a mutant a row.
    forms : dict
        Windows of a node as values (True) or differences (False), where they had to be converted.
    canonical : dict
        References with the position in front.
    """

    reference: dict[fx.Node, Any] = field(default_factory=dict)
    data: dict[fx.Node, Tensor] = field(default_factory=dict)
    rows: dict[fx.Node, Any] = field(default_factory=dict)
    forms: dict[tuple[fx.Node, bool], Tensor] = field(default_factory=dict)
    canonical: dict[tuple[fx.Node, Axes], Tensor] = field(default_factory=dict)

    def forget(self, node: fx.Node) -> None:
        """Free what no later step reads."""
        for table in (self.reference, self.data, self.rows):
            table.pop(node, None)
        for is_value in (True, False):
            self.forms.pop((node, is_value), None)
        self.canonical = {key: tensor for key, tensor in self.canonical.items() if key[0] is not node}

    def branch(self) -> "Run":
        """Return a run that goes on from here without changing this one."""
        return Run(*(dict(getattr(self, part.name)) for part in fields(self)))


@dataclass(frozen=True)
class Followed:
    """What a rule says of a node: all that is known of it.

    Attributes
    ----------
    state : Windowed or Rows
        What of it a mutation changes.
    step : callable
        Computes that, from the data of its inputs.
    needs : callable or None
        The stretch of its input that a stretch of its own needs. None: the same stretch; for whole rows all of it.
    owned : bool
        Whether its data are a tensor of their own, which no other node's data share.
    multiply_adds : callable
        Counts the multiply-adds without which its data cannot be had, for one mutant of every position.
    """

    state: Windowed | Rows
    step: Step
    needs: Needs | None = None
    owned: bool = False
    multiply_adds: Callable[[], int] = lambda: 0

    def stretch_of_input(self, own: tuple[int, int], length: int) -> tuple[int, int]:
        """Return which stretch of an input of some length is needed for a stretch of the node; for whole rows of any."""
        if isinstance(self.state, Rows):
            return (0, length) if self.needs is None else self.needs(0, 1, length)
        return own if self.needs is None or own[0] >= own[1] else self.needs(*own, length)


@dataclass
class Plan:
    """What the rules of operations read and write.

    Attributes
    ----------
    device : torch.device
        Where the tensors are.
    alleles : int
        Mutants of a position.
    mutated : set of fx.Node
        Nodes that a mutation reaches.
    drawn : set of fx.Node
        Nodes that depend on the masks of a draw.
    constants : dict
        Tensors of nodes that depend on neither inputs nor masks.
    weights : dict
        Weights in the order in which a rule reads them, and in the type in which products take them.
    precision : str
        Arithmetic of products.
    followed : dict
        What the rules say of the nodes, in order.
    stretches : dict
        Stretch [low, high) of the position axis of a node on which the outputs depend, from `find_stretches`.
    current : fx.Node
        Node whose rule is being made.
    prefetch : list
        Conversions of nodes that all draws share, for steps of a draw.
    """

    device: torch.device
    alleles: int
    mutated: set[fx.Node]
    drawn: set[fx.Node]
    constants: dict[fx.Node, Any]
    weights: dict[tuple[str, str], Tensor]
    precision: Precision
    followed: dict[fx.Node, Followed] = field(default_factory=dict)
    stretches: dict[fx.Node, tuple[int, int]] = field(default_factory=dict)
    current: fx.Node | None = None
    prefetch: list[Step] = field(default_factory=list)

    def needed(self, node: fx.Node, window: Window) -> Window:
        """Return a window, or the stretch on which the outputs depend where that is shorter."""
        low, high = self.stretches.get(node, (0, window.length))
        if window.width <= high - low:
            return window
        return Window(np.full_like(window.start, low), max(high - low, 1), window.length)

    def find_stretches(self, nodes: Sequence[fx.Node], whole: Collection[fx.Node]) -> dict[fx.Node, tuple[int, int]]:
        """Go back from the outputs and find on which stretch of each node they depend.

        Parameters
        ----------
        nodes
            All nodes in order.
        whole
            Nodes of which everything is needed.

        Returns
        -------
        dict
            Per locally followed node the stretch [low, high); (0, 0) where nothing is needed.
        """
        stretches: dict[fx.Node, tuple[int, int]] = {}
        for node in reversed(nodes):
            state = self.state(node)
            if not isinstance(state, Windowed):
                continue
            length = state.layout.sizes[0]
            found = [(0, length)] if node in whole else []
            for user in node.users:
                if user in self.followed:
                    found.append(self.followed[user].stretch_of_input(stretches.get(user, (0, 0)), length))
            found = [stretch for stretch in found if stretch[0] < stretch[1]]
            low, high = min((s[0] for s in found), default=0), max((s[1] for s in found), default=0)
            stretches[node] = (max(low, 0), min(high, length))
        return stretches

    def state(self, node: Any) -> Windowed | Rows | None:
        """Return what is known of a node; None where it is not followed."""
        found = self.followed.get(node) if isinstance(node, fx.Node) else None
        return None if found is None else found.state

    def windowed(self, node: Any) -> Windowed:
        """Return the state of an argument that is followed locally."""
        state = self.state(node)
        if not isinstance(state, Windowed):
            raise Unsupported("an argument that the mutation does not reach through a window")
        return state

    def constant(self, node: Any) -> Tensor:
        """Return a weight."""
        if not isinstance(node, fx.Node) or node not in self.constants:
            raise Unsupported("a weight that depends on the input")
        tensor: Tensor = self.constants[node]
        return tensor

    def weight(self, node: fx.Node, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return a rearranged weight, made once for all programs."""
        if (node.name, key) not in self.weights:
            self.weights[node.name, key] = lowered(make().contiguous(), self.precision)
        return self.weights[node.name, key]

    def product(self, function: Callable[[Tensor, Tensor], Tensor], data: Tensor, weight: Tensor) -> Tensor:
        """Return the product of data with a weight from `weight`, in the precision of the run."""
        return product(function, data, weight, self.precision)

    def reference(self, node: fx.Node, layout: Axes) -> Step:
        """Return a reader of a node's reference as (strand, position, *channels)."""

        def read(run: Run) -> Tensor:
            if (node, layout) not in run.canonical:
                run.canonical[node, layout] = layout.canonical(run.reference[node])
            return run.canonical[node, layout]

        return read

    def window(self, node: fx.Node, layout: Axes, window: Window) -> Step:
        """Return a reader of a node's reference in a window: (strand, position, 1, width, *channels)."""
        reference, reader = self.reference(node, layout), Reader(window, self.device)

        def read(run: Run) -> Tensor:
            tensor = reference(run)
            return reader(tensor) if tensor.shape[1] == window.length else tensor[:, None, None]

        return read

    def value(self, node: fx.Node) -> Step:
        """Return a reader of a node's values in its window; entries that do not exist hold anything."""
        windowed = self.windowed(node)
        if windowed.is_value:
            return lambda run: run.data[node]
        reference = self.window(node, windowed.layout, windowed.window)
        return self._kept(node, True, lambda run: run.data[node] + reference(run))

    def own_value(self, node: fx.Node) -> Step | None:
        """Return a reader of a node's values as a tensor that may be overwritten; None where it would be a copy."""
        windowed = self.windowed(node)
        if windowed.is_value:
            return (lambda run: run.data[node]) if self.is_last_reader(node) else None
        if len(node.users) > 1 or self._is_shared(node):
            return None
        reference = self.window(node, windowed.layout, windowed.window)
        if self.is_last_reader(node):
            return lambda run: run.data[node].add_(reference(run))
        return lambda run: run.data[node] + reference(run)

    def is_last_reader(self, node: fx.Node) -> bool:
        """Tell whether the current step alone reads a node's data, so that it may overwrite them."""
        return self.followed[node].owned and len(node.users) == 1 and not self._is_shared(node)

    def _is_shared(self, node: fx.Node) -> bool:
        """Tell whether all draws share a node that the current step reads in each draw."""
        return self.current in self.drawn and node not in self.drawn

    def difference(self, node: fx.Node) -> Step:
        """Return a reader of a node's differences from the reference; entries that do not exist are zero."""
        windowed = self.windowed(node)
        if not windowed.is_value:
            return lambda run: run.data[node]
        reference = self.window(node, windowed.layout, windowed.window)
        clear = self.clear(windowed)
        return self._kept(node, False, lambda run: clear(run.data[node] - reference(run)))

    def clear(self, windowed: Windowed) -> Callable[[Tensor], Tensor]:
        """Return what sets entries that do not exist to zero, in place."""
        missing = windowed.window.missing
        if missing is None:
            return lambda data: data
        exists = torch.from_numpy(~missing).to(self.device)[:, :, None]
        exists = exists.reshape(*exists.shape, *(1 for _ in windowed.layout.sizes[1:]))
        return lambda data: data.mul_(exists)

    def moved_difference(self, node: fx.Node, window: Window) -> Step:
        """Return a reader of a node's differences in another window."""
        windowed, read = self.windowed(node), self.difference(node)
        if windowed.window.same(window):
            return read
        mover = Mover((windowed.window.start, windowed.window.width), (window.start, window.width), self.device)
        return lambda run: mover(read(run))

    def patch(self, node: fx.Node, start: np.ndarray, width: int, outside: float) -> Step:
        """Return a reader of a node's values in any stretch: mutant inside its window, reference around it.

        Parameters
        ----------
        node
            The node.
        start, width
            The stretch, shape (strand, position).
        outside
            Value of entries that do not exist.
        """
        windowed = self.windowed(node)
        stretch = Window(start, width, windowed.layout.sizes[0])
        reference = self.window(node, windowed.layout, stretch)
        difference = self.difference(node)
        mover = Mover((windowed.window.start, windowed.window.width), (start, width), self.device)
        missing = stretch.missing
        if missing is None:
            return lambda run: reference(run) + mover(difference(run))
        gone = torch.from_numpy(missing).to(self.device)[:, :, None]
        gone = gone.reshape(*gone.shape, *(1 for _ in windowed.layout.sizes[1:]))
        return lambda run: torch.where(gone, outside, reference(run) + mover(difference(run)))

    def whole(self, node: fx.Node) -> Step:
        """Return a reader of a node's whole values, (strand * position * allele, *shape)."""
        windowed, value = self.windowed(node), self.value(node)
        reference = self.reference(node, windowed.layout)
        window = windowed.window
        strands, positions = window.start.shape
        entries = window.entries
        strand, position, slot = np.nonzero((entries >= 0) & (entries < window.length))
        index = [torch.from_numpy(i).to(self.device) for i in (strand, position, entries[strand, position, slot], slot)]

        def make(run: Run) -> Tensor:
            base = reference(run)[:, None, None].expand(
                -1, positions, self.alleles, *(-1 for _ in windowed.layout.sizes)
            )
            full = base.expand(strands, *base.shape[1:]).clone()
            full.transpose(2, 3)[index[0], index[1], index[2]] = value(run).transpose(2, 3)[
                index[0], index[1], index[3]
            ]
            return windowed.layout.logical(full.flatten(0, 2)).contiguous()

        return make

    def _kept(self, node: fx.Node, is_value: bool, make: Step) -> Step:
        def read(run: Run) -> Tensor:
            if (node, is_value) not in run.forms:
                run.forms[node, is_value] = make(run)
            return run.forms[node, is_value]

        if self._is_shared(node):
            self.prefetch.append(read)
        return read
