"""Instruments that belong together, for example the three mutants of a position, and sums over all but one group."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of J variants into G groups; `order` sorts the variants by group, group g from `start[g]` on."""

    labels: npt.NDArray[Any]
    order: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]

    @property
    def end(self) -> npt.NDArray[np.intp]:
        """One past the last sorted variant of each group."""
        return np.append(self.start[1:], self.order.size)

    def inside(self, values: FloatArray) -> FloatArray:
        """Return the sums over each group, shape (..., G), of values (..., J)."""
        if self.labels.size == 0:
            return np.zeros((*values.shape[:-1], 0))
        return np.asarray(np.add.reduceat(values[..., self.order], self.start, axis=-1), dtype=np.float64)

    def count(self, members: BoolArray) -> IntArray:
        """Return how many of the variants in each group are members, shape (..., G)."""
        return self.inside(members.astype(np.float64)).astype(np.int64)

    def outside(self, values: FloatArray) -> FloatArray:
        """Return the sums over all other groups, shape (..., G).

        They are added up from both ends instead of subtracted from the total: a group may hold almost all weight.
        """
        own = self.inside(values)
        total = np.zeros(own.shape)
        total[..., 1:] = np.cumsum(own[..., :-1], axis=-1)
        total[..., :-1] += np.cumsum(own[..., :0:-1], axis=-1)[..., ::-1]
        return total


def read_groups(groups: npt.ArrayLike | None, n_variants: int) -> Groups:
    """Return the partition that the labels make; without labels every variant is a group of its own."""
    if groups is None:
        each = np.arange(n_variants)
        return Groups(each, each, each)
    given: npt.NDArray[Any] = np.asarray(groups)
    if given.shape != (n_variants,):
        raise ValueError(
            f"groups must have one label per variant, shape ({n_variants},), the same for every fit; got {given.shape}"
        )
    if given.dtype.kind not in "biufSU" or (given.dtype.kind == "f" and np.isnan(given).any()):
        raise ValueError(f"groups must be numbers or strings without NaN, for example positions; got {given.dtype}")
    labels, code = np.unique(given, return_inverse=True)
    order = np.argsort(code, kind="stable")
    return Groups(labels, order, np.searchsorted(code[order], np.arange(labels.size)))
