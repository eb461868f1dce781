"""Which engine runs: the delta one where it can and agrees, else the full one."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch

from kipoi_deepmr.errors import DeepMRError
from kipoi_deepmr.mutagenesis.agreement import SPREAD, Comparison, compare
from kipoi_deepmr.mutagenesis.blocks import Block
from kipoi_deepmr.mutagenesis.delta.delta import Delta, DeltaUnavailable
from kipoi_deepmr.mutagenesis.engine import Engine
from kipoi_deepmr.mutagenesis.ensemble import Ensemble
from kipoi_deepmr.mutagenesis.full.full import Full
from kipoi_deepmr.mutagenesis.strategy import Request, Strategy
from kipoi_deepmr.mutagenesis.variants import all_variants

logger = logging.getLogger(__name__)

_TIMED_DRAWS = 3
_SPREAD_OF_MEMBERS = 3
Wanted = Literal["auto", "delta", "full"]


def choose_engine(wanted: Wanted, block: Block, positions: range, requests: Sequence[Request]) -> Engine:
    """Return the engine of one network or of several, ready to run.

    ``auto`` times both on a batch and takes the faster one. The delta engine is compared with the full one on a sample
    of mutants of the first sequence; where it is not available or does not agree (see `agreement.compare`), the full engine
    is returned and the reason is logged once.

    Parameters
    ----------
    wanted
        ``full``, or ``delta`` / ``auto`` for the delta engine where it can be had.
    block
        The first sequence of the run.
    positions
        Window of positions.
    requests
        What is asked of each network: one, or the members of an ensemble. The engines are compared and timed on the
        first one. For the others the delta engine is tried on the mutants of three positions: both ends and the middle.

    Returns
    -------
    Engine
    """
    first = _choose(wanted, block, positions, requests[0])
    if len(requests) == 1:
        return Engine(first)
    members = [first]
    for request in requests[1:]:
        delta = Delta(request)
        follows = isinstance(first, Delta) and try_delta(delta, block, positions, spread=_SPREAD_OF_MEMBERS)
        members.append(delta if follows else Full(request))
    engine = Engine(Ensemble(members))
    engine.prepare(block)
    return engine


def _choose(wanted: Wanted, block: Block, positions: range, request: Request) -> Strategy:
    """Return the strategy of one network, ready to run."""
    if request.predictor.opaque:
        logger.info("torch cannot look into this model: the full engine runs")
        wanted = "full"
    if wanted == "full" or not len(all_variants(block.codes, positions, block.sequence.device)):
        full = Full(request)
        full.prepare(block)
        return full
    delta = Delta(request)
    works = try_delta(delta, block, positions)
    full = Full(request, delta.whole.in_precision(request.precision))
    full.prepare(block)
    if not works:
        return full
    if wanted == "auto" and not _is_faster(delta, full, block, positions):
        logger.info("the full engine is faster on this network: it runs")
        return full
    for operation in delta.coverage.stopped_at:
        logger.info("the network runs whole from %s on", operation)
    return delta


def try_delta(delta: Delta, block: Block, positions: range, *, spread: int = SPREAD) -> bool:
    """Tell whether the delta strategy is available and agrees with the full one, with a warning where it does not.

    Parameters
    ----------
    delta
        The strategy.
    block
        The first sequence of the run.
    positions, spread
        As `compare`.
    """
    found = compared(delta, block, positions, spread=spread)
    if isinstance(found, Comparison) and found.agrees:
        return True
    if isinstance(found, Comparison):
        logger.warning(
            "the delta engine differs from the full one by %.2g in output %d, where the largest effect is %.2g: the full "
            "engine runs",
            found.difference[found.worst],
            delta.request.columns[found.worst],
            found.effect[found.worst],
        )
    else:
        logger.warning("the delta engine is not available for this network (%s): the full engine runs", found)
    return False


def compared(delta: Delta, block: Block, positions: range, *, spread: int = SPREAD) -> Comparison | str:
    """Compare the delta strategy with the full one, if need be with the sequence taken as two.

    Returns
    -------
    Comparison or str
        The comparison, or why the delta engine is not available.
    """
    try:
        found: Comparison | str = compare(delta, block, positions, spread=spread)
    except (DeepMRError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  whatever fails here, the full engine can do it
        found = (
            str(error) if isinstance(error, DeltaUnavailable) else f"{type(error).__name__}: {error}".splitlines()[0]
        )
    if (isinstance(found, Comparison) and found.agrees) or not delta.double():
        return found
    return compared(delta, block, positions, spread=spread)


def _is_faster(delta: Delta, full: Full, block: Block, positions: range) -> bool:
    """Time one batch of each, a few draws of it."""
    cost = []
    for strategy in (delta, full):
        seconds, mutants = Engine(strategy).time(block, positions, 1, draws=_TIMED_DRAWS)
        cost.append(seconds / max(mutants, 1))
    return cost[0] <= cost[1]
