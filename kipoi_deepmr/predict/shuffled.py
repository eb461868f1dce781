"""Negative control: dinucleotide shuffles of the sequences, run through the model as further sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.cube import Template
from kipoi_deepmr.mutagenesis import Block
from kipoi_deepmr.predict.prepare import Job
from kipoi_deepmr.seeds import generator_of
from kipoi_deepmr.sequences import dinucleotide_shuffle


@dataclass(frozen=True)
class ShuffledJob(Job):
    """A job on shuffled sequences: everything but their bases is that of the windows they come from.

    Attributes
    ----------
    original : Job
        The job that they come from.
    origins : tuple of int
        Index in it of the window of each sequence.
    numbers : tuple of int
        Which shuffle of that window it is, from 1.
    """

    original: Job
    origins: tuple[int, ...]
    numbers: tuple[int, ...]

    def names(self) -> list[str]:
        """Return the names, which decide the shuffle and its draws."""
        return [f"{name}{terms.SHUFFLE}{number}" for name, number in zip(super().names(), self.numbers, strict=True)]

    def codes(self, indices: Sequence[int]) -> NDArray[np.int8]:
        """Return the shuffled bases, shape (sequence, length)."""
        return np.take_along_axis(super().codes(indices), self._orders(indices), axis=1)

    def block(self, indices: Sequence[int]) -> Block:
        """Load the windows onto the device and shuffle them."""
        whole, names = self.original.block([self.origins[index] for index in indices]), self.names()
        axis = self.network.layout.position_axis + 1
        shape = [1] * whole.sequence.ndim
        shape[0], shape[axis] = len(indices), -1
        order = torch.from_numpy(self._orders(indices)).to(self.device).view(shape).expand_as(whole.sequence)
        return Block(
            [names[index] for index in indices], self.codes(indices), whole.sequence.gather(axis, order), whole.others
        )

    def template(self) -> Template:
        """Return coordinates and attributes of the group of controls."""
        title = "effects of mutations in dinucleotide shuffles of the sequences"
        return replace(super().template(), attrs={"title": title, "settings": self.config.controls.of_shuffles()})

    def _orders(self, indices: Sequence[int]) -> NDArray[np.int64]:
        names, seed = self.names(), self.config.controls.seed
        given = zip(indices, super().codes(indices), strict=True)
        return np.stack([dinucleotide_shuffle(codes, generator_of(seed, names[index])) for index, codes in given])


def shuffled_job(job: Job) -> ShuffledJob | None:
    """Return the job on shuffled sequences that the configuration asks for; None if it asks for none."""
    controls = job.config.controls
    if not controls.shuffled_sequence:
        return None
    chosen = _chosen(job)
    origins = tuple(index for index in chosen for _ in range(controls.shuffled_sequence))
    numbers = tuple(number for _ in chosen for number in range(1, controls.shuffled_sequence + 1))
    given = {field.name: getattr(job, field.name) for field in fields(Job)}
    given["windows"] = job.windows.subset(origins)
    return ShuffledJob(**given, original=job, origins=origins, numbers=numbers)


def _chosen(job: Job) -> list[int]:
    """Return the windows to shuffle: for each exposure those whose names hash lowest, so that any order will do."""
    controls, names = job.config.controls, job.names()
    limit = controls.shuffled_per_exposure
    if limit is None:
        return list(range(len(names)))
    rank = np.argsort([generator_of(controls.seed, "shuffled", name).random() for name in names])
    return sorted({int(index) for bound in job.windows.bound for index in [i for i in rank if bound[i]][:limit]})
