"""What the schema of a model's model.yaml says: the tasks of each output array, the length of the sequence."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model.outputs import output_parts, tasks_of

logger = logging.getLogger(__name__)

_SEQUENCES = ("DNASeq", "DNAStringSeq")


@dataclass(frozen=True)
class OutputArray:
    """An output array of a model, as its schema describes it.

    Attributes
    ----------
    name : str or None
        Its name.
    shape : tuple of int or None
        Its shape without the batch axis; None for a length that is not fixed.
    labels : list of str or None
        Labels of its tasks, or of the tracks of a profile.
    length : int or None
        Length of the model's sequences, which tells the positions of a profile from its tracks.
    """

    name: str | None
    shape: tuple[int | None, ...]
    labels: list[str] | None
    length: int | None

    @cached_property
    def track_axis(self) -> int | None:
        """Axis of a profile's tracks, batch counted; None where the array is no profile.

        It is the axis with as many entries as there are labels, else the one beside the axis of the sequence's length.

        Raises
        ------
        ModelError
            If positions and tracks cannot be told apart.
        """
        if len(self.shape) != 2 or self.shape == (None, None):
            return None
        labelled = [
            axis for axis, size in enumerate(self.shape) if self.labels is not None and size == len(self.labels)
        ]
        positions = [axis for axis, size in enumerate(self.shape) if size is None]
        positions = positions or [axis for axis, size in enumerate(self.shape) if size == self.length]
        found = labelled if len(labelled) == 1 else [1 - axis for axis in positions]
        if len(found) != 1:
            raise ModelError(
                f"the schema gives the output {self.name or ''} the shape {self.shape}, positions and tracks, but which is "
                f"which? {'None' if not positions else 'More than one'} of them is the length of the sequence "
                f"({self.length or 'not known'}): name the tracks as column_labels in model.yaml (for init --from_torch: "
                "--labels)"
            )
        return found[0] + 1

    @property
    def tracks(self) -> int | None:
        """Number of its tasks without that of all tracks together; None where the schema does not say it."""
        if self.track_axis is not None:
            return self.shape[self.track_axis - 1]
        return None if len(self.shape) > 1 or None in self.shape else self.shape[0] if self.shape else 1

    @property
    def positions(self) -> int | None:
        """Number of positions of a profile; None where the schema does not say it, or it is no profile."""
        return None if self.track_axis is None else self.shape[2 - self.track_axis]

    @property
    def tasks(self) -> int | None:
        """Number of its tasks; None where the schema does not say it."""
        return self.tracks if self.track_axis is None or self.tracks is None else tasks_of(self.tracks)

    def task_labels(self, *, several: bool) -> list[str] | None:
        """Return a label for each task, None where the schema gives none; `several` says that there are more arrays."""
        own, profile = self.labels, self.track_axis is not None
        if own is None and self.name is not None and self.tracks == 1:
            own = [self.name]
        elif own is None and self.name is not None and self.tracks is not None and (several or profile):
            own = [str(number) for number in range(self.tracks)]
            own = own if several else [f"{self.name}/{label}" for label in own]
        if own is None:
            return None
        if several and len(own) > 1:
            own = [f"{self.name}/{label}" for label in own]
        return own + ([self.name or "all"] if profile and len(own) > 1 else [])


def output_arrays(schemas: Any, length: int | None) -> list[OutputArray]:
    """Return the output arrays of a schema, those of a dict in the order of their names.

    Parameters
    ----------
    schemas
        `schema.targets` of a Kipoi model.
    length
        Length of its sequences, where it is fixed.
    """
    found = []
    for key, schema in _parts(schemas):
        name = schema.name or key
        shape, labels = tuple(schema.shape or ()), _column_labels(schema)
        found.append(OutputArray(None if name is None else str(name), shape, labels, length))
    return found


def sequence_length(schemas: Any) -> int | None:
    """Return the length in bp that a schema gives the sequence; None where it gives none.

    Parameters
    ----------
    schemas
        `schema.inputs` of a Kipoi model.

    Raises
    ------
    ConfigError
        If several inputs may be the sequence, and they differ in length.
    """
    inputs = [(key, schema, _one_hot_length(schema)) for key, schema in _parts(schemas)]
    marked = [one for one in inputs if getattr(one[1].special_type, "value", one[1].special_type) in _SEQUENCES]
    lengths = {str(schema.name or key): length for key, schema, length in (marked or inputs) if length}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ConfigError(
            f"the schema gives several inputs that may be the sequence other lengths ({said}): write the length as "
            "sequences.length"
        )
    return next(iter(lengths.values()), None)


def _parts(schemas: Any) -> list[tuple[Any, Any]]:
    return list(output_parts(schemas if isinstance(schemas, Mapping | list | tuple) else [schemas]))


def _one_hot_length(schema: Any) -> int | None:
    sizes = [size for size in tuple(schema.shape or ()) if size not in (None, 1)]
    return int(next((size for size in sizes if size != 4), 4)) if 4 in sizes and len(sizes) == 2 else None


def _column_labels(schema: Any) -> list[str] | None:
    """Return the labels of an array without empty lines at the end; None for none or for a label file that is not there."""
    labels = [str(label) for label in schema.column_labels or ()]
    while labels and not labels[-1].strip():
        labels.pop()
    if len(labels) == 1 and Path(labels[0]).suffix in (".txt", ".tsv", ".csv"):
        logger.warning("the label file %s of the model is not there", labels[0])
        return None
    return labels or None
