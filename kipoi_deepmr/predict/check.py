"""Validate everything without a long prediction, and say what a run would cost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kipoi_deepmr.config import Config
from kipoi_deepmr.model import Selection
from kipoi_deepmr.mutagenesis import Engine
from kipoi_deepmr.predict.from_draws import NO_ESTIMATORS, FromDraws
from kipoi_deepmr.predict.predictor import engine_of
from kipoi_deepmr.predict.prepare import Job, describe_device, prepare
from kipoi_deepmr.predict.shuffled import shuffled_job

_TIMED = 3


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes
    ----------
    model, layout, device, engine : str
        The model, where its sequence sits, where it runs, and how.
    exposures, outcomes : dict
        Per name the label and index of the model's output, and how a profile becomes one number; for exposures also what
        became of its peaks.
    sequences, positions, mutants : int
        Size of the job.
    control_sequences, control_mutants : int
        Shuffled sequences and their mutants.
    draws, batch_size : int
        Draws per mutant, mutants in a batch.
    coverage : float
        Share of the network's multiply-adds in layers of which only the reach of a mutation is computed, 0 to 1.
    runs_whole_from : list of str
        Operations from which on the network runs whole, with the reason.
    dropout : list of str
        The dropouts that run in the network.
    store_bytes : int
        Size of the effects before compression.
    milliseconds : float
        Measured time per mutant and draw.
    estimated_seconds : float
        Time of the mutagenesis, with that of the controls.
    notes : list of str
        What a user should know.
    """

    model: str
    layout: str
    device: str
    engine: str
    exposures: dict[str, dict[str, Any]]
    outcomes: dict[str, dict[str, Any]]
    sequences: int
    positions: int
    mutants: int
    control_sequences: int
    control_mutants: int
    draws: int
    batch_size: int
    coverage: float
    runs_whole_from: list[str]
    dropout: list[str]
    store_bytes: int
    milliseconds: float
    estimated_seconds: float
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def check(
    config: Config,
    from_draws: FromDraws = NO_ESTIMATORS,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
) -> CheckReport:
    """Check tasks, peaks against the FASTA file, dropouts and engine, and time a few batches.

    Parameters
    ----------
    config, from_draws, device, batch_size, num_workers
        As `prepare`.

    Returns
    -------
    CheckReport

    Raises
    ------
    DeepMRError
        As `prepare`.
    """
    with prepare(config, from_draws, device=device, batch_size=batch_size, num_workers=num_workers) as job:
        mutants = job.mutants()
        total = int(mutants.sum())
        controls = shuffled_job(job)
        control_mutants = controls.mutants() if controls else mutants[:0]
        templates = [one.template() for one in (job, controls) if one is not None]
        block = job.block([int(mutants.argmax())])
        keep_draws = job.config.effects.keep_draws or templates[0].drawn is not None
        engine = engine_of(job, block, keep_draws=keep_draws)
        seconds, timed = engine.time(block, job.positions, _TIMED) if total else (0.0, 1)
        per_mutant = seconds / timed
        tasks = _tasks(job.selection)
        reports = {report.exposure: report for report in job.sequences.report}
        nothing = [] if total else ["nothing to mutate: no sequence has a known base in mutagenesis.positions"]
        return CheckReport(
            model=f"{job.model.name} ({job.model.source})",
            layout=job.network.layout.describe(),
            device=describe_device(job.device),
            engine=engine.name,
            exposures={
                name: {**task, "sequences": reports[name].selected, "peaks": reports[name].losses}
                for name, task in tasks[: len(job.selection.exposures)]
            },
            outcomes=dict(tasks[len(job.selection.exposures) :]),
            sequences=len(job.sequences),
            positions=len(job.positions),
            mutants=total,
            control_sequences=len(control_mutants),
            control_mutants=int(control_mutants.sum()),
            draws=engine.request.count,
            batch_size=engine.batch_size,
            coverage=float(np.round(engine.coverage.share, 4)),
            runs_whole_from=list(engine.coverage.stopped_at),
            dropout=job.dropouts(),
            store_bytes=sum(template.nbytes for template in templates),
            milliseconds=float(np.round(1000 * per_mutant / engine.request.count, 5)),
            estimated_seconds=float(np.round(per_mutant * (total + control_mutants.sum()), 1)),
            notes=[*job.notes(), *nothing, *_draws_in_memory(job, engine)],
        )


def _tasks(selection: Selection) -> list[tuple[str, dict[str, Any]]]:
    """Return exposures, then outcomes: label and index of the model's output, and what becomes of a profile."""
    names = (*selection.exposures, *selection.outcomes)
    found = []
    for name, target, reduction in zip(names, selection.targets, selection.reductions, strict=True):
        entry: dict[str, Any] = {"task": target.label, "index": target.index}
        if target.profile is not None and reduction is not None:
            entry["profile"] = f"{reduction.describe()} of a {target.profile.describe()}"
        found.append((name, entry))
    return found


def _draws_in_memory(job: Job, engine: Engine) -> list[str]:
    if not engine.request.keep_draws:
        return []
    size = 4 * engine.request.count * len(job.positions) * 4 * len(engine.request.columns)
    stored = "and in the store" if job.config.effects.keep_draws else "for the methods that need them"
    return [f"the draws of a sequence take {size / 2**20:,.1f} MiB in memory {stored}"]
