"""What a run asks for predictions: its networks, or a `predict_on_batch`, each with its draws, and the engine on them."""

from kipoi_deepmr.model import float_dtype
from kipoi_deepmr.mutagenesis import Block, Engine, Request, choose_engine
from kipoi_deepmr.predict.prepare import Job
from kipoi_deepmr.uncertainty import AsItIs, Draws, MCDropout


def engine_of(job: Job, block: Block, *, keep_draws: bool = False) -> Engine:
    """Return the engine that the configuration asks for, tried on a block and ready to run.

    Parameters
    ----------
    job
        The prepared run.
    block
        Its first sequence.
    keep_draws
        Whether the engine gives the effects of every draw, too.
    """
    requests = [request_of(job, number, keep_draws=keep_draws) for number in range(len(job.members))]
    return choose_engine(job.config.mutagenesis.engine, block, job.positions, requests)


def request_of(job: Job, number: int = 0, *, keep_draws: bool = False) -> Request:
    """Return what an engine is asked for of one of the members, by default the first."""
    member, config = job.members[number], job.config
    return Request(
        predictor=member.network,
        draws=draws_of(job, number),
        count=config.uncertainty.draws,
        columns=list(member.columns),
        exposures=len(job.selection.exposures),
        scale=config.effects.scale,
        batch_size=job.batch_size,
        memory=config.mutagenesis.memory_bytes,
        keep_draws=keep_draws,
        precision=config.mutagenesis.precision,
    )


def draws_of(job: Job, number: int = 0) -> Draws:
    """Return the draws of one of the members: thinned networks with numbers of their own, or the member as it is."""
    member, uncertainty = job.members[number], job.config.uncertainty
    if not member.sites:
        return AsItIs()
    return MCDropout(
        member.sites,
        seed=uncertainty.seed,
        device=job.device,
        dtype=float_dtype(member.network) or job.dtype,
        shared=uncertainty.shared_draws,
        first=number * uncertainty.draws,
    )
