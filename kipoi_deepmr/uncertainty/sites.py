"""The dropouts that run in a network's forward pass: found by running it, in eval mode as in training."""

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

from kipoi_deepmr.errors import DropoutError, ModelError

logger = logging.getLogger(__name__)

Kind = Literal["elementwise", "feature", "row", "alpha", "feature_alpha", "gaussian"]


def gaussian_dropout(x: Tensor, p: float) -> Tensor:
    """Multiply each unit by a normal number of mean 1 and variance p / (1 - p) (Srivastava 2014).

    Torch has no function for it. It does nothing, as any dropout in eval mode, unless a draw is taken.

    Parameters
    ----------
    x : torch.Tensor
        Activation.
    p
        Probability to drop of the dropout with the same variance.
    """
    if has_torch_function_unary(x):
        masked: Tensor = handle_torch_function(gaussian_dropout, (x,), x, p)
        return masked
    return x


_FUNCTIONS: dict[Callable[..., Any], Kind] = {
    F.dropout: "elementwise",
    torch.dropout: "elementwise",
    torch.dropout_: "elementwise",
    F.dropout1d: "feature",
    F.dropout2d: "feature",
    F.dropout3d: "feature",
    torch.feature_dropout: "feature",
    torch.feature_dropout_: "feature",
    F.alpha_dropout: "alpha",
    torch.alpha_dropout: "alpha",
    torch.alpha_dropout_: "alpha",
    F.feature_alpha_dropout: "feature_alpha",
    torch.feature_alpha_dropout: "feature_alpha",
    torch.feature_alpha_dropout_: "feature_alpha",
    gaussian_dropout: "gaussian",
}
_IN_PLACE = {torch.dropout_, torch.feature_dropout_, torch.alpha_dropout_, torch.feature_alpha_dropout_}
_UNBATCHED_DIMENSIONS = {F.dropout1d: 2, F.dropout3d: 4}  # where the first axis counts as channels
_DROPOUT_MODULES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class DropoutSite:
    """One call of dropout in the network's forward pass.

    Attributes
    ----------
    kind : str
        ``elementwise``, ``feature`` (whole channels), ``row`` (everything; what Dropout1d does to (batch, features) and
        Dropout3d to four axes, as they take the first axis for channels), ``alpha``, ``feature_alpha`` or ``gaussian``.
    p : float
        Probability to drop.
    shape : tuple of int
        Shape of the mask: that of the dropout's input with length 1 on the batch axis.
    batch_axis : int
        Axis that grows with the batch.
    stack : int
        Rows of that axis per sequence, such as 2 where the reverse complement is stacked on the batch.
    """

    kind: Kind
    p: float
    shape: tuple[int, ...]
    batch_axis: int
    stack: int

    def describe(self) -> str:
        """Say the site in words."""
        stacked = f", stacked {self.stack} times on the batch" if self.stack > 1 else ""
        return f"{self.kind} dropout p={self.p:g} of {self.shape}{stacked}"


class DropoutMode(TorchFunctionMode):
    """Runs every dropout of a forward pass, in eval mode as in training, through one function.

    Parameters
    ----------
    apply
        Called as ``apply(index, x, kind, p)`` at the index-th dropout of the pass, returns its output.
    """

    def __init__(self, apply: Callable[[int, Tensor, Kind, float], Tensor]) -> None:
        super().__init__()
        self._apply = apply
        self._count = 0

    def __enter__(self) -> Self:
        """Start counting dropouts from 0."""
        self._count = 0
        super().__enter__()
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace calls of dropout; let everything else pass."""
        kwargs = kwargs or {}
        kind = _FUNCTIONS.get(func) if isinstance(func, Hashable) else None
        if kind is None:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        p = float(args[1] if len(args) > 1 else kwargs.get("p", 0.5))
        if p == 0.0:
            return x
        if _UNBATCHED_DIMENSIONS.get(func) == x.dim():
            kind = "row"
        index = self._count
        self._count += 1
        dropped = self._apply(index, x, kind, p)
        in_place = func in _IN_PLACE or bool(kwargs.get("inplace", len(args) > 3 and args[3]))
        return x.copy_(dropped) if in_place and dropped is not x else dropped


def find_dropouts(
    network: Callable[..., Tensor], sequence: Tensor, others: Sequence[Tensor] = ()
) -> tuple[DropoutSite, ...]:
    """Find the dropouts that run in a network's forward pass, in the order in which they run.

    Parameters
    ----------
    network
        Called as ``network(sequence, *others)`` in eval mode.
    sequence : torch.Tensor, shape=(1, ...)
        Input for one sequence.
    others : sequence of torch.Tensor, shape=(1, ...)
        Further inputs.

    Returns
    -------
    tuple of DropoutSite
        Empty when no dropout runs. ``p=0`` is no dropout.

    Raises
    ------
    ModelError
        If a dropout's input does not grow with the batch along exactly one axis.
    """
    if isinstance(network, nn.Module):
        _warn_of_hidden_dropout(network)
    shapes = []
    for batch in (2, 3):
        seen: list[tuple[Kind, float, tuple[int, ...]]] = []

        def record(index: int, x: Tensor, kind: Kind, p: float, seen: list[Any] = seen) -> Tensor:
            seen.append((kind, p, tuple(x.shape)))
            return x

        repeated = [tensor.expand(batch, *tensor.shape[1:]).clone() for tensor in (sequence, *others)]
        with torch.inference_mode(), DropoutMode(record):
            network(*repeated)
        shapes.append(seen)
    if len(shapes[0]) != len(shapes[1]):
        raise ModelError("the network runs another number of dropouts for another batch size: draws cannot be defined")
    return tuple(_site(index, *pair) for index, pair in enumerate(zip(*shapes, strict=True)))


def _site(
    index: int, two: tuple[Kind, float, tuple[int, ...]], three: tuple[Kind, float, tuple[int, ...]]
) -> DropoutSite:
    kind, p, shape = two
    axes = [axis for axis, sizes in enumerate(zip(shape, three[2], strict=False)) if sizes[0] != sizes[1]]
    if len(axes) != 1 or len(shape) != len(three[2]) or 3 * shape[axes[0]] != 2 * three[2][axes[0]]:
        raise ModelError(
            f"dropout {index + 1} of the network ({kind}, p={p:g}) acts on {shape} for 2 sequences and {three[2]} for 3: "
            "its mask cannot be shared by a batch, which needs exactly one axis that grows with the batch"
        )
    mask = list(shape)
    mask[axes[0]] = 1
    shared_from = {"feature": 2, "feature_alpha": 2, "row": 0}.get(kind, len(mask))
    mask[shared_from:] = [1] * len(mask[shared_from:])
    return DropoutSite(kind, p, tuple(mask), axes[0], shape[axes[0]] // 2)


def explain_no_dropout(module: nn.Module) -> DropoutError:
    """Return the error for a network in which no dropout runs, naming what was looked for."""
    idle = [
        name or "(the network itself)" for name, part in module.named_modules() if isinstance(part, _DROPOUT_MODULES)
    ]
    hidden = _hidden_dropouts(module)
    if hidden:
        found = f"That of {', '.join(hidden)} runs inside one call, where its mask cannot be fixed."
    elif getattr(module, "why_no_dropout", ""):
        found = str(module.why_no_dropout)
    elif idle:
        found = f"It has dropout modules ({', '.join(idle)}), but with p=0 or never called in eval mode."
    elif any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        found = "It is compiled with TorchScript, where no dropout can be seen: give the network as Python code."
    else:
        found = "It has none."
    return DropoutError(
        "uncertainty.method is mc_dropout, but no dropout runs in the model's forward pass (looked for nn.Dropout, "
        f"Dropout1d/2d/3d, AlphaDropout and the functions of torch.nn.functional). {found} "
        "Choose a model with dropout, give the model a dropout layer in the place where it was trained with one, or name "
        "several models of the same tasks: uncertainty: {method: ensemble, members: [...]}"
    )


def _hidden_dropouts(module: nn.Module) -> list[str]:
    """Return the parts whose dropout runs inside one call: between recurrent layers, on attention weights."""
    told = [name for part in module.modules() for name in getattr(part, "hidden_dropouts", list)()]
    return told + [
        name or type(part).__name__
        for name, part in module.named_modules()
        if (isinstance(part, nn.RNNBase) and part.num_layers > 1 and part.dropout > 0)
        or (isinstance(part, nn.MultiheadAttention) and part.dropout > 0)
    ]


def _warn_of_hidden_dropout(module: nn.Module) -> None:
    hidden = _hidden_dropouts(module)
    if hidden:
        logger.warning(
            "the dropout inside %s stays off in all draws: it runs inside one call, where its mask cannot be fixed",
            ", ".join(hidden),
        )
