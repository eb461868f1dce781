"""Which engine runs: the local one where it can and agrees, else the full one."""

import logging
from typing import Any, Literal

import torch

from kipoi_deepmr.errors import DeepMRError
from kipoi_deepmr.mutagenesis.blocks import Block
from kipoi_deepmr.mutagenesis.full import FullEngine
from kipoi_deepmr.mutagenesis.local.engine import LocalEngine, LocalUnavailable, agrees
from kipoi_deepmr.mutagenesis.variants import all_variants

logger = logging.getLogger(__name__)

_TIMED_DRAWS = 3


def choose_engine(
    wanted: Literal["auto", "local", "full"], block: Block, positions: range, **options: Any
) -> FullEngine:
    """Return an engine that is ready to run.

    ``auto`` times both on a batch and takes the faster one. The local engine is compared with the full one on a sample
    of mutants of the first sequence; where it is not available or differs by more than 1e-5 of the largest effect (or the
    rounding of the predictions), the full engine is returned and the reason is logged once.

    Parameters
    ----------
    wanted
        ``full``, or ``local`` / ``auto`` for the local engine where it can be had.
    block
        The first sequence of the run.
    positions
        Window of positions.
    **options
        Arguments of `FullEngine`.

    Returns
    -------
    FullEngine or LocalEngine
    """
    full, local = FullEngine(**options), LocalEngine(**options)
    nothing = not len(all_variants(block.codes, positions, block.sequence.device))
    if getattr(full.network, "opaque", False):
        logger.info("torch cannot look into this model: the full engine runs")
        wanted = "full"
    if wanted == "full" or nothing or not try_local(local, block, positions):
        full.prepare(block)
        return full
    if wanted == "auto":
        full.share(local)
        full.prepare(block)
        if not _is_faster(local, full, block, positions):
            logger.info("the full engine is faster on this network: it runs")
            return full
    for operation in local.coverage.stopped_at:
        logger.info("the network runs whole from %s on", operation)
    return local


def try_local(local: LocalEngine, block: Block, positions: range) -> bool:
    """Tell whether a local engine is available and agrees with the full one, with a warning where it does not.

    Parameters
    ----------
    local
        The engine.
    block
        The first sequence of the run.
    positions
        Window of positions, of which some are compared.
    """
    try:
        found = local.difference_from_full(block, positions)
    except (DeepMRError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  whatever fails here, the full engine can do it
        reason = error if isinstance(error, LocalUnavailable) else f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning("the local engine is not available for this network (%s): the full engine runs", reason)
        return False
    if agrees(*found, block.sequence.dtype):
        return True
    logger.warning(
        "the local engine differs from the full one by %.2g where the largest effect is %.2g: the full engine runs",
        *found[:2],
    )
    return False


def _is_faster(local: FullEngine, full: FullEngine, block: Block, positions: range) -> bool:
    """Time one batch of each engine, a few draws of it."""
    cost = []
    for engine in (local, full):
        seconds, mutants = engine.time(block, positions, 1, draws=_TIMED_DRAWS)
        cost.append(seconds / max(mutants, 1))
    return cost[0] <= cost[1]
