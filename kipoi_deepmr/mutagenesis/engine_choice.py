"""Which engine runs: the delta one where it can and agrees, else the full one."""

import logging
from typing import Any, Literal

import torch

from kipoi_deepmr.errors import DeepMRError
from kipoi_deepmr.mutagenesis.agreement import SPREAD, Comparison, compare
from kipoi_deepmr.mutagenesis.blocks import Block
from kipoi_deepmr.mutagenesis.delta.engine import DeltaEngine, DeltaUnavailable
from kipoi_deepmr.mutagenesis.full import FullEngine
from kipoi_deepmr.mutagenesis.variants import all_variants

logger = logging.getLogger(__name__)

_TIMED_DRAWS = 3


def choose_engine(
    wanted: Literal["auto", "delta", "full"], block: Block, positions: range, **options: Any
) -> FullEngine:
    """Return an engine that is ready to run.

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
    **options
        Arguments of `FullEngine`.

    Returns
    -------
    FullEngine or DeltaEngine
    """
    full, delta = FullEngine(**options), DeltaEngine(**options)
    nothing = not len(all_variants(block.codes, positions, block.sequence.device))
    if getattr(full.network, "opaque", False):
        logger.info("torch cannot look into this model: the full engine runs")
        wanted = "full"
    if wanted == "full" or nothing:
        full.prepare(block)
        return full
    works = try_delta(delta, block, positions)
    full.share(delta)
    full.prepare(block)
    if not works:
        return full
    if wanted == "auto" and not _is_faster(delta, full, block, positions):
        logger.info("the full engine is faster on this network: it runs")
        return full
    for operation in delta.coverage.stopped_at:
        logger.info("the network runs whole from %s on", operation)
    return delta


def try_delta(delta: DeltaEngine, block: Block, positions: range, *, spread: int = SPREAD) -> bool:
    """Tell whether a delta engine is available and agrees with the full one, with a warning where it does not.

    Parameters
    ----------
    local
        The engine.
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
            delta.columns[found.worst],
            found.effect[found.worst],
        )
    else:
        logger.warning("the delta engine is not available for this network (%s): the full engine runs", found)
    return False


def compared(delta: DeltaEngine, block: Block, positions: range, *, spread: int = SPREAD) -> Comparison | str:
    """Compare a delta engine with the full one, if need be with the sequence taken as two.

    Returns
    -------
    Comparison or str
        The comparison, or why the engine is not available.
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


def _is_faster(delta: FullEngine, full: FullEngine, block: Block, positions: range) -> bool:
    """Time one batch of each engine, a few draws of it."""
    cost = []
    for engine in (delta, full):
        seconds, mutants = engine.time(block, positions, 1, draws=_TIMED_DRAWS)
        cost.append(seconds / max(mutants, 1))
    return cost[0] <= cost[1]
