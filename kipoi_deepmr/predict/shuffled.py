"""Negative control: dinucleotide shuffles of the sequences, run through the model as further sequences."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kipoi_deepmr.cube import Template
from kipoi_deepmr.predict.prepare import Job
from kipoi_deepmr.seeds import generator_of


def shuffled_job(job: Job) -> Job | None:
    """Return the job on shuffled sequences that the configuration asks for; None if it asks for none.

    Everything but their bases is that of the windows they come from.
    """
    controls = job.config.controls
    if not controls.shuffled_sequence:
        return None
    chosen = job.sequences.take(_chosen(job))
    return job.of(chosen.shuffled(controls.shuffled_sequence, partial(generator_of, controls.seed)))


def shuffled_template(job: Job) -> Template:
    """Return coordinates and attributes of the group of controls, for a job on shuffled sequences."""
    title = "effects of mutations in dinucleotide shuffles of the sequences"
    return replace(job.template(), attrs={"title": title, "settings": job.config.controls.of_shuffles()})


def _chosen(job: Job) -> NDArray[np.int64]:
    """Return the sequences to shuffle: for each exposure those whose names hash lowest, so that any order will do."""
    controls, sequences = job.config.controls, job.sequences
    limit = controls.shuffled_per_exposure
    if limit is None:
        return np.arange(len(sequences))
    rank = np.argsort([generator_of(controls.seed, "shuffled", name).random() for name in sequences.names])
    return np.unique(np.concatenate([rank[bound[rank]][:limit] for bound in sequences.bound]))
