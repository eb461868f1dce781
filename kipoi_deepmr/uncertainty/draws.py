"""Where the error of an effect comes from: draws, each of which is a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kipoi_deepmr.uncertainty.sites import DropoutMode


@dataclass(frozen=True)
class Mask:
    """What a draw does to an activation x: ``x * factor + offset`` (offset only for alpha dropout)."""

    factor: Tensor
    offset: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the mask."""
        dropped = x * self.factor.to(x.dtype)
        return dropped if self.offset is None else dropped + self.offset.to(x.dtype)


class Site(Protocol):
    """Where a mask acts: the axis that grows with the batch, and its rows per sequence."""

    @property
    def batch_axis(self) -> int:
        """Axis of the mask that grows with the batch."""

    @property
    def stack(self) -> int:
        """Rows of that axis per sequence, such as 2 where the reverse complement is stacked on the batch."""


class DrawMasks:
    """What is drawn for some sequences at each site; `rows` gives the masks of a batch.

    Parameters
    ----------
    sites
        Where the masks act.
    drawn
        Per site a tensor with the sequences on its batch axis.
    sequences
        Number of sequences.
    mask
        Turns the number of a site and what is drawn for it into its mask.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        drawn: Sequence[Tensor],
        sequences: int,
        mask: Callable[[int, Tensor], Mask],
    ) -> None:
        self._sites = sites
        self._drawn = drawn
        self._sequences = sequences
        self._mask = mask

    def rows(self, sequence_of_row: Tensor | None) -> list[Mask]:
        """Return the masks of a batch whose rows belong to several sequences.

        Parameters
        ----------
        sequence_of_row : torch.Tensor or None, shape=(batch,), int64
            Which of the sequences each row belongs to; None when all belong to the same one: the masks then have
            length 1 on the batch axis.
        """
        masks = []
        for index, (site, drawn) in enumerate(zip(self._sites, self._drawn, strict=True)):
            if self._sequences > 1:
                if sequence_of_row is None:
                    raise ValueError(f"masks of {self._sequences} sequences need the sequence of each row")
                drawn = drawn.index_select(site.batch_axis, sequence_of_row.repeat(site.stack))
            masks.append(self._mask(index, drawn))
        return masks


class Draws(Protocol):
    """A source of draws: draw n is the network that `network` makes with the masks of draw n.

    Thinned networks are one source (`MCDropout`), the network as it is another (`AsItIs`, a member of an ensemble). What
    else may vary, such as an augmentation of the input, is one more class with these three.
    """

    @property
    def sites(self) -> Sequence[Site]:
        """Where the masks of a draw act, in the order of `masks`."""

    def masks(self, sequences: Sequence[str], draw: int) -> DrawMasks:
        """Return the masks of one draw for some sequences, on the device; names and number alone decide them."""

    def network(self, network: Callable[..., Tensor], masks: Sequence[Mask]) -> Callable[..., Tensor]:
        """Return the network of a draw, called as the given one."""


class ThinnedNetwork:
    """A network run with fixed masks, in eval mode otherwise; the network itself is not changed.

    Parameters
    ----------
    network
        Called as ``network(*inputs)``.
    masks
        One mask per dropout of the forward pass; without any, nothing is dropped.
    """

    def __init__(self, network: Callable[..., Tensor], masks: Sequence[Mask]) -> None:
        self._network = network
        self._mode = DropoutMode(lambda index, x, kind, p: masks[index](x) if masks else x)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Predict with the masks."""
        with self._mode:
            return self._network(*inputs)


class AsItIs:
    """No draws but one: the network as it is, nothing dropped."""

    sites: tuple[Site, ...] = ()

    def masks(self, sequences: Sequence[str], draw: int) -> DrawMasks:
        """Return no masks."""
        return DrawMasks((), (), len(sequences), lambda index, drawn: Mask(drawn, None))

    def network(self, network: Callable[..., Tensor], masks: Sequence[Mask] = ()) -> ThinnedNetwork:
        """Return the network without dropout."""
        return ThinnedNetwork(network, ())
