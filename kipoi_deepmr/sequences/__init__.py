"""From peaks to model inputs: intervals are read, sampled, and loaded by the model's own Kipoi dataloader."""

from kipoi_deepmr.sequences.genome import Genome
from kipoi_deepmr.sequences.inputs import WindowInputs
from kipoi_deepmr.sequences.peaks import read_intervals
from kipoi_deepmr.sequences.sampling import sample_sequences
from kipoi_deepmr.sequences.sequences import Sequences
from kipoi_deepmr.sequences.shuffle import dinucleotide_shuffle
from kipoi_deepmr.sequences.signature import Signature
from kipoi_deepmr.sequences.windows import ExposureReport, Windows

__all__ = [
    "ExposureReport",
    "Genome",
    "Sequences",
    "Signature",
    "WindowInputs",
    "Windows",
    "dinucleotide_shuffle",
    "read_intervals",
    "sample_sequences",
]
