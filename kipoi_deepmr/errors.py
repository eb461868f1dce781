"""The errors that kipoi_deepmr raises: each says what was read, where, what is allowed and what to do."""

import difflib
from collections.abc import Iterable


class DeepMRError(Exception):
    """Base of every error that kipoi_deepmr raises on purpose."""


class ConfigError(DeepMRError, ValueError):
    """The YAML file cannot be read or holds something that is not allowed."""


class SequenceError(DeepMRError, ValueError):
    """Peaks, intervals or the FASTA file cannot give the sequences that were asked for."""


class ModelError(DeepMRError, RuntimeError):
    """The Kipoi model cannot be loaded or does not do what kipoi_deepmr needs."""


class TaskError(ModelError, LookupError):
    """A task is unknown to the model or its label is ambiguous."""


class DropoutError(ModelError):
    """MC-dropout was asked for but no dropout runs in the model."""


class PredictionError(ModelError, ArithmeticError):
    """The model returned NaN or infinity, or a value outside the range of the chosen scale."""


class StoreError(DeepMRError, OSError):
    """The zarr store cannot be created, written, resumed or read."""


class OutputError(DeepMRError, OSError):
    """A file made from the store cannot be written, or what it needs is missing."""


class SelectionError(DeepMRError, LookupError):
    """An exposure, outcome, estimator or sequence was asked for that the store does not have."""


class DependencyError(DeepMRError, ImportError):
    """A library of an optional part is not installed."""


def suggestion(wrong: object, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest allowed word, or an empty string."""
    word = str(wrong)
    folded = {candidate.casefold(): candidate for candidate in allowed}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[near[0]]}'?" if near else ""
