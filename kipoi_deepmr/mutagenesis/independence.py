"""What has to be known of a network before mutants share a batch: whether its rows are independent, and keep their masks."""

import torch
from torch import Tensor

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.mutagenesis.blocks import Block
from kipoi_deepmr.mutagenesis.graph import Passes
from kipoi_deepmr.uncertainty import Draws

PROBE = 4
_TOLERANCE = 1e-4
_ROUNDING = 16 * torch.finfo(torch.float32).eps


def rows_keep_their_masks(passes: Passes, draws: Draws, block: Block) -> bool:
    """Try whether a batch of two sequences gives each the prediction that it has alone.

    Parameters
    ----------
    passes
        The captured network, for a batch of `PROBE` rows.
    draws
        Source of the masks.
    block
        Its first sequence is used.
    """
    names = [block.names[0], block.names[0] + " (another)"]
    row_of = torch.tensor([0, 1, 1, 0], device=block.sequence.device)[:PROBE]
    saved = passes.before(*_repeated(block))
    mixed = passes.after(saved, draws.masks(names, 0).rows(row_of))
    alone = [passes.after(saved, draws.masks([name], 0).rows(None)) for name in names]
    expected = torch.stack([alone[int(row)][index] for index, row in enumerate(row_of)])
    tolerance = _TOLERANCE * float(expected.abs().max())
    return bool(torch.allclose(mixed, expected, rtol=0, atol=max(tolerance, 1e-12)))


def check_independence(passes: Passes, draws: Draws, block: Block, position_axis: int) -> None:
    """Check that a prediction is the same each time and in any company.

    Parameters
    ----------
    passes, draws, block
        As `rows_keep_their_masks`.
    position_axis
        Position axis of the sequence, counted without the batch.

    Raises
    ------
    ModelError
        If it differs from call to call, or with the other rows of the batch.
    """
    sequence, others = _repeated(block)
    company = torch.cat([sequence[:1], sequence[1:].roll(1, position_axis + 1)])
    masks = draws.masks(block.names[:1], 0).rows(None)
    alone, again, mixed = (
        passes.after(passes.before(given, others), masks)[0].double() for given in (sequence, sequence, company)
    )
    allowed = _TOLERANCE * alone.abs() + _ROUNDING * alone.abs().max()
    for other, reason in ((again, "of one sequence differs from call to call"), (mixed, "depends on its batch")):
        if bool(((other - alone).abs() > allowed).any()):
            raise ModelError(
                f"the model's prediction {reason}, also where all dropout masks are fixed: by "
                f"{float((other - alone).abs().max()):.2g} where it is {float(alone.abs().max()):.2g}. An effect would "
                "not be that of a mutation. Look for noise, or for statistics of the batch, in its forward pass"
            )


def _repeated(block: Block) -> tuple[Tensor, list[Tensor]]:
    index = torch.zeros(PROBE, dtype=torch.int64, device=block.sequence.device)
    return block.sequence[index], [other[index] for other in block.others]
