"""What a figure shows: exposure, outcome, estimator, sequence and its instruments, chosen from a store."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from kipoi_deepmr import instruments, terms
from kipoi_deepmr.coordinates import GenomeVariants
from kipoi_deepmr.cube import EFFECTS_GROUP, GLOBAL_GROUP, LOCAL_GROUP
from kipoi_deepmr.errors import SelectionError, StoreError, suggestion
from kipoi_deepmr.estimators import ESTIMATORS, SHOWN_ALONE, Estimator
from kipoi_deepmr.reading import read
from kipoi_deepmr.tables.tidy import group

FloatArray = npt.NDArray[np.float64]
_SHOWN = 8
_LINES = 6


def names(results: xr.DataTree, dim: str) -> list[str]:
    """Return the names along a dimension of the estimates."""
    return [str(name) for name in group(results, GLOBAL_GROUP)[dim].values]


def one_of(results: xr.DataTree, dim: str, wanted: str | None) -> str:
    """Return the name that was asked for, or the first one.

    Parameters
    ----------
    results
        An open store.
    dim
        `exposure`, `outcome` or `estimator`.
    wanted
        The name. None takes the first one; for `estimator` it takes ivw where the store has it.

    Raises
    ------
    SelectionError
        If the store does not have it.
    """
    known = names(results, dim)
    if wanted is None:
        return SHOWN_ALONE if dim == terms.ESTIMATOR and SHOWN_ALONE in known else known[0]
    if wanted not in known:
        raise SelectionError(f"the store has no {dim} '{wanted}'.{suggestion(wanted, known)} It has {_listed(known)}")
    return wanted


def exposures_of(results: xr.DataTree, wanted: str | Sequence[str] | None) -> list[str]:
    """Return the exposures that were asked for; None takes all.

    Raises
    ------
    SelectionError
        If the store lacks one, or none is named.
    """
    if wanted is None:
        return names(results, terms.EXPOSURE)
    some = [wanted] if isinstance(wanted, str) else list(wanted)
    if not some:
        raise SelectionError("the list of exposures is empty: name some, or leave it out to draw all")
    return [one_of(results, terms.EXPOSURE, name) for name in some]


def lines_of(
    results: xr.DataTree, estimator: str | None, has_line: Callable[[Estimator], bool]
) -> tuple[list[str], str]:
    """Return the estimators whose lines a figure of one sequence draws: one, or as many as can be told apart.

    Parameters
    ----------
    results
        An open store.
    estimator
        The one that was asked for. None takes all that have a line, or six of them.
    has_line
        Tells whether an estimator has a line in the figure.

    Returns
    -------
    list of str
        The estimators.
    str
        What is not drawn, in words, to be added to a note; empty where nothing is left out.
    """
    known = names(results, terms.ESTIMATOR) if estimator is None else [one_of(results, terms.ESTIMATOR, estimator)]
    total = len(known)
    rows = _rows(results)
    known = [name for name in known if name not in rows or has_line(rows[name])]
    if estimator is not None:
        return known, "" if known else "; the estimator has no line here"
    chosen = sorted(known, key=lambda name: not (name in ESTIMATORS and ESTIMATORS[name].leading))[:_LINES]
    drawn = [name for name in known if name in chosen]
    return drawn, f"; {len(drawn)} of {total} estimators" if len(drawn) < total else ""


def _rows(results: xr.DataTree) -> dict[str, Estimator]:
    """Return what is known of the estimators of a store by their names in it, which may be a user's own."""
    methods = json.loads(group(results, LOCAL_GROUP).attrs.get("settings", "{}")).get("mr", {}).get("methods", [])
    own = {method["name"]: ESTIMATORS[method["estimator"]] for method in methods if isinstance(method, dict)}
    return {**ESTIMATORS, **own}


def local_effects(results: xr.DataTree, exposure: str, outcome: str, estimator: str) -> xr.Dataset:
    """Return the local estimates of the sequences that count for an exposure, highest first, undefined ones last."""
    where = {terms.EXPOSURE: exposure, terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    local = group(results, LOCAL_GROUP).sel(where).load()
    local = local.isel({terms.SEQUENCE: np.flatnonzero(local["bound"].values)})
    return local.isel({terms.SEQUENCE: np.argsort(-local["estimate"].values, kind="stable")})


def sequence_of(
    results: xr.DataTree, exposure: str, outcome: str, estimator: str, wanted: str | None
) -> tuple[str, str]:
    """Return a sequence of an exposure and its rank in words.

    Parameters
    ----------
    results
        An open store.
    exposure, outcome, estimator
        Which local estimates rank the sequences.
    wanted
        The sequence. None takes the one whose estimate is the median.

    Raises
    ------
    SelectionError
        If the sequence does not count for the exposure, or no sequence has an estimate.
    """
    ranked = local_effects(results, exposure, outcome, estimator)
    known = [str(name) for name in ranked[terms.SEQUENCE].values]
    finite = int(np.isfinite(ranked["estimate"].values).sum())
    if wanted is None:
        if not finite:
            raise SelectionError(f"{exposure} has no sequence with an estimate by {estimator}: name one")
        wanted = known[(finite - 1) // 2]
    if wanted not in known:
        hint = suggestion(wanted, known)
        raise SelectionError(f"{exposure} has no sequence '{wanted}'.{hint} It has {_listed(known)}")
    rank = known.index(wanted) + 1
    return wanted, f"local effect {rank} of {finite}, highest first" if rank <= finite else "without an estimate"


@dataclass(frozen=True)
class Mutations:
    """The mutations of one sequence along the plus strand, and which of them are instruments.

    Attributes
    ----------
    bx, bxse, by, byse : numpy.ndarray, shape=(position, allele), float64
        Effects on exposure and outcome and their standard errors; NaN where a mutation is no instrument.
    exposure_effect, outcome_effect : numpy.ndarray, shape=(position, allele), float64
        The effects of all mutations; NaN at the reference allele.
    chrom, strand : str
        Contig, and the strand on which the model reads the window.
    coordinate : numpy.ndarray, shape=(position,), int64
        Positions on the contig, counted from 1 as genome browsers do, ascending.
    reference : numpy.ndarray, shape=(position,), str
        Bases of the reference on the plus strand.
    """

    bx: FloatArray
    bxse: FloatArray
    by: FloatArray
    byse: FloatArray
    exposure_effect: FloatArray
    outcome_effect: FloatArray
    chrom: str
    strand: str
    coordinate: npt.NDArray[np.int64]
    reference: npt.NDArray[np.str_]

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which mutations are instruments, shape (position, allele)."""
        return np.isfinite(self.bx)


def mutations(results: xr.DataTree, exposure: str, outcome: str, sequence: str) -> Mutations:
    """Read the mutations of one sequence.

    Raises
    ------
    StoreError
        If the effects of the sequence are not computed yet.
    """
    effects = results[EFFECTS_GROUP].to_dataset()
    index = np.flatnonzero(read(effects, terms.SEQUENCE) == sequence)
    if not read(effects, "completed")[index].all():
        raise StoreError(f"the effects of {sequence} are not computed yet: go on with `run --resume`")
    tasks = {
        terms.EXPOSURE: int(np.flatnonzero(read(effects, terms.EXPOSURE) == exposure)[0]),
        terms.OUTCOME: int(np.flatnonzero(read(effects, terms.OUTCOME) == outcome)[0]),
    }
    where = GenomeVariants.read(effects, index)
    order = np.argsort(where.coordinate[0])
    bx, bxse, by, byse = (
        read(effects, f"{side}_{what}", **{side: tasks[side], terms.SEQUENCE: int(index[0])})[order].astype(np.float64)
        for side in terms.GLOBAL_DIMS
        for what in ("effect", "se")
    )
    flat = [array.reshape(-1) for array in (bx, bxse, by, byse)]
    chosen = instruments.select(*flat, min_f=float(results[LOCAL_GROUP].attrs.get("min_f", 0)))
    return Mutations(
        bx=chosen.bx.reshape(bx.shape),
        bxse=chosen.bxse.reshape(bx.shape),
        by=chosen.by.reshape(bx.shape),
        byse=chosen.byse.reshape(bx.shape),
        exposure_effect=bx,
        outcome_effect=by,
        chrom=str(where.chrom[0]),
        strand=str(where.strand[0]),
        coordinate=where.coordinate[0][order] + 1,
        reference=where.reference[0][order],
    )


def _listed(known: Sequence[str]) -> str:
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
