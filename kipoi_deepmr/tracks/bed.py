"""Sequences with their local effects as BED6."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.reading import read
from kipoi_deepmr.tables.tidy import in_words

_BRIGHTEST = 1000
_QUANTILE = 0.95


def bed_lines(local: xr.Dataset, exposure: int, outcome: int, estimator: int) -> Iterator[str]:
    """Yield the sequences that count for an exposure, with the effect of the exposure on an outcome in each.

    Columns: contig, start, end; name, which is the estimate to six digits, or why there is none (`status`); score;
    strand. The score is 1000 x |estimate| / the 95th percentile of |estimate| over the lines, at most 1000, so that one
    outlier does not make all others pale; 0 without an estimate. A comment in the first line says so with the
    percentile.

    Parameters
    ----------
    local
        The group `/local` of a store.
    exposure, outcome, estimator
        Indices.

    Yields
    ------
    str
        Lines, sorted by contig name, start and end.

    Raises
    ------
    StoreError
        If the store is damaged.
    """
    which = {terms.EXPOSURE: exposure, terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    bound = np.flatnonzero(read(local, "bound", **{terms.EXPOSURE: exposure}))
    estimate, status = (read(local, name, **which)[bound] for name in ("estimate", "status"))
    reasons = in_words(status, local["status"])
    sizes = np.abs(estimate[np.isfinite(estimate)])
    full = float(np.quantile(sizes, _QUANTILE)) if sizes.size else 0.0
    names = [str(local[dim].values[index]) for dim, index in which.items()]
    yield (
        f"# name: effect of {names[0]} on {names[1]} by {names[2]}; "
        f"score: {_BRIGHTEST} x |effect| / {full:.6g} (95th percentile), at most {_BRIGHTEST}\n"
    )
    chrom, start, end, strand = (read(local, name)[bound].tolist() for name in ("chrom", "start", "end", "strand"))
    for at in sorted(range(bound.size), key=lambda i: (chrom[i].encode(), start[i], end[i], strand[i])):
        known = np.isfinite(estimate[at])
        name = f"{estimate[at]:.6g}" if known else reasons[at]
        score = round(min(1.0, abs(estimate[at]) / full) * _BRIGHTEST) if known and full else 0
        yield f"{chrom[at]}\t{start[at]}\t{end[at]}\t{name}\t{score}\t{strand[at]}\n"
