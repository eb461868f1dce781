"""Effects and local estimates under the names of the R package TwoSampleMR.

The names are those of TwoSampleMR 0.7.9 (Hemani 2018): `harmonise_data` for the effects of variants, `mr`,
`mr_singlesnp` and `mr_leaveoneout` for the estimates. What TwoSampleMR does not have follows under the store's own
names. R takes a trait and its data set for one analysis, and here each sequence is one: `id.exposure` holds exposure
and sequence, and `exposure` is ``FOXA1 || chr8:1000-2000(+)``, as in MR-Base, which `split_exposure` cuts back to
the name; `originalname.exposure` is the name alone.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from kipoi_deepmr import instruments, terms
from kipoi_deepmr.coordinates import GenomeVariants
from kipoi_deepmr.cube import EFFECTS_GROUP, LOCAL_GROUP
from kipoi_deepmr.estimators import ESTIMATORS
from kipoi_deepmr.mr.diagnostics.influence import leave_one_out
from kipoi_deepmr.mr.estimators.ivw import ivw
from kipoi_deepmr.mr.estimators.wald_ratio import wald_ratio
from kipoi_deepmr.reading import read, sequence_blocks
from kipoi_deepmr.tables.tidy import direction, group, in_words

_PALINDROMES = ("AT", "TA", "CG", "GC")
_LEAST_TO_LEAVE_OUT = 3
_ALL_BY_IVW = "All"


def method_name(estimator: str) -> str:
    """Return TwoSampleMR's name of an estimator; one that it does not have keeps its own."""
    row = ESTIMATORS.get(estimator)
    return row.twosamplemr or estimator if row is not None else estimator


@dataclass(frozen=True, eq=False)
class VariantTables:
    """Tables of some sequences, one row per variant.

    Attributes
    ----------
    harmonised : pandas.DataFrame
        Columns of `harmonise_data`: SNP (``contig:position:reference:mutant`` on the plus strand, position from 1),
        effect_allele.*, other_allele.* (plus strand; the mutant is the effect allele), beta.*, se.*, pval.* (normal),
        eaf.* and samplesize.* (NA: mutations have neither), mr_keep (whether it is an instrument). All mutations of the
        sequences that count for the exposure.
    single_variant : pandas.DataFrame
        Columns of `mr_singlesnp`: the Wald ratio of each instrument, then ``All - METHOD`` with the local estimates.
    leave_one_out : pandas.DataFrame
        Columns of `mr_leaveoneout`: IVW without each instrument, then ``All``, which alone stands with fewer than three.
    sequences : int
        Number of sequences.
    """

    harmonised: pd.DataFrame
    single_variant: pd.DataFrame
    leave_one_out: pd.DataFrame
    sequences: int


def variant_tables(results: xr.DataTree) -> Iterator[VariantTables]:
    """Yield the tables of variants, some sequences of one exposure and one outcome at a time.

    Parameters
    ----------
    results
        An open store.

    Yields
    ------
    VariantTables
        In the order of exposures; the sequences that are bound and completed.

    Raises
    ------
    StoreError
        If the store has no estimates, which say what serves as an instrument, or is damaged.
    """
    local = group(results, LOCAL_GROUP)
    effects = results[EFFECTS_GROUP].to_dataset()
    counts = read(effects, "bound") & read(effects, "completed")
    for exposure in range(effects.sizes[terms.EXPOSURE]):
        for sequences in sequence_blocks(effects, np.flatnonzero(counts[exposure])):
            for outcome in range(effects.sizes[terms.OUTCOME]):
                block = _Block.read(effects, exposure, outcome, sequences, float(local.attrs["min_f"]))
                yield VariantTables(
                    _harmonised(block), _single_variant(block, local), _leave_one_out(block), len(sequences)
                )


def local_results(results: xr.DataTree, *, reverse: bool = False) -> Iterator[pd.DataFrame]:
    """Yield the local estimates of one exposure at a time, in the columns of `mr`.

    Parameters
    ----------
    results
        An open store.
    reverse
        The effects of the outcomes on the exposures: each is then in the other's columns.

    Yields
    ------
    pandas.DataFrame
        id.exposure, id.outcome, outcome, exposure, method, nsnp, b, se, pval; then originalname.exposure, estimator,
        sequence, chrom, start, end, strand and the other variables of `/local`. Unlike `mr`, an estimate that could not
        be made keeps its row, with the reason as `status`.

    Raises
    ------
    StoreError
        If the store has no estimates, or not those of that direction.
    """
    tree, (cause, effect) = direction(results, reverse)
    local = group(tree, LOCAL_GROUP)
    order = [terms.OUTCOME, terms.SEQUENCE, terms.ESTIMATOR]
    where = ["chrom", "start", "end", "strand"]
    for number in range(local.sizes[terms.EXPOSURE]):
        one = local.isel({terms.EXPOSURE: number})
        frame = one.to_dataframe(dim_order=order).reset_index()
        frame = frame[frame["bound"]].astype(dict.fromkeys((terms.EXPOSURE, *order), str))
        name = frame[cause]
        table = pd.DataFrame(
            {
                "id.exposure": name + ":" + frame[terms.SEQUENCE],
                "id.outcome": frame[effect],
                "outcome": frame[effect],
                "exposure": name + " || " + frame[terms.SEQUENCE],
                "method": frame[terms.ESTIMATOR].map(method_name),
                "nsnp": frame["n_instruments"],
                "b": frame["estimate"],
                "se": frame["se"],
                "pval": frame["pvalue"],
                "originalname.exposure": name,
                "estimator": frame[terms.ESTIMATOR],
                "status": in_words(frame["status"], local["status"]),
            }
        )
        shown = {"n_instruments", "estimate", "se", "pvalue", "status"}
        rest = [name for name in sorted(local.data_vars, key=_order) if name not in shown]
        yield pd.concat([table, frame[[terms.SEQUENCE, *where, *rest]]], axis=1).reset_index(drop=True)


def _order(name: Hashable) -> tuple[bool, int, str]:
    known = list(terms.LOCAL)
    return name not in known, known.index(str(name)) if name in known else 0, str(name)


@dataclass(frozen=True, eq=False)
class _Block:
    """Effects of an exposure and an outcome in some sequences, shape (sequence, position, allele) each."""

    exposure: str
    outcome: str
    variants: GenomeVariants
    columns: Mapping[str, NDArray[np.float32]]
    covariance: NDArray[np.float32]
    chosen: instruments.Instruments

    @classmethod
    def read(
        cls, effects: xr.Dataset, exposure: int, outcome: int, sequences: NDArray[np.intp], min_f: float
    ) -> "_Block":
        some = {terms.SEQUENCE: sequences}
        pair = {terms.EXPOSURE: exposure, terms.OUTCOME: outcome}
        columns = {
            f"{kind}.{side}": read(effects, f"{side}_{name}", **{side: pair[side]}, **some)
            for side in terms.GLOBAL_DIMS
            for kind, name in (("beta", "effect"), ("se", "se"))
        }
        flat = {name: values.reshape(len(sequences), -1) for name, values in columns.items()}
        bx, bxse, by, byse = (flat[name] for name in ("beta.exposure", "se.exposure", "beta.outcome", "se.outcome"))
        return cls(
            exposure=str(effects[terms.EXPOSURE].values[exposure]),
            outcome=str(effects[terms.OUTCOME].values[outcome]),
            variants=GenomeVariants.read(effects, sequences),
            columns=columns,
            covariance=read(effects, "error_covariance", **pair, **some),
            chosen=instruments.select(bx, bxse, by, byse, min_f=min_f),
        )

    @property
    def data(self) -> tuple[NDArray[np.float64], ...]:
        """The instruments: bx, bxse, by, byse of shape (sequence, variant)."""
        return self.chosen.bx, self.chosen.bxse, self.chosen.by, self.chosen.byse

    def names(self, sequence: NDArray[np.intp]) -> dict[str, Any]:
        """Columns that say which analysis a row belongs to."""
        names = self.variants.sequence[sequence].tolist()
        return {
            "id.exposure": [f"{self.exposure}:{name}" for name in names],
            "id.outcome": self.outcome,
            "exposure": [f"{self.exposure} || {name}" for name in names],
            "outcome": self.outcome,
        }

    def snps(self, found: tuple[NDArray[np.intp], ...]) -> list[str]:
        """Names of variants, given their sequence, position and allele."""
        sequence, position, allele = found
        columns = (
            self.variants.chrom[sequence],
            self.variants.coordinate[sequence, position] + 1,
            self.variants.reference[sequence, position],
            self.variants.mutant[sequence, allele],
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [f"{chrom}:{at}:{reference}:{mutant}" for chrom, at, reference, mutant in rows]


def _harmonised(block: _Block) -> pd.DataFrame:
    known = np.logical_and.reduce([np.isfinite(values) for values in block.columns.values()])
    found = np.nonzero(known)
    sequence, position, allele = found
    variants = block.variants
    mutant, reference = variants.mutant[sequence, allele], variants.reference[sequence, position]
    numbers = {name: values[known] for name, values in block.columns.items()}
    table: dict[str, Any] = {"SNP": block.snps(found)}
    for side in terms.GLOBAL_DIMS:
        table |= {f"effect_allele.{side}": mutant, f"other_allele.{side}": reference}
    table |= numbers
    for side in terms.GLOBAL_DIMS:
        table |= {f"eaf.{side}": np.nan, f"pval.{side}": _normal(numbers[f"beta.{side}"], numbers[f"se.{side}"])}
        table |= {f"samplesize.{side}": np.nan}
    table |= block.names(sequence)
    table |= {
        "remove": False,
        "palindromic": np.isin(np.char.add(reference, mutant), _PALINDROMES),
        "ambiguous": False,
        "mr_keep": np.isfinite(block.chosen.bx).reshape(known.shape)[known],
        "chr.exposure": variants.chrom[sequence],
        "pos.exposure": variants.coordinate[sequence, position] + 1,
        "originalname.exposure": block.exposure,
        "sequence": variants.sequence[sequence],
        "strand": variants.strand[sequence],
        "position": variants.position[position],
        "error_covariance": block.covariance[known],
    }
    return pd.DataFrame(table)


def _single_variant(block: _Block, local: xr.Dataset) -> pd.DataFrame:
    fit = wald_ratio(*block.data)
    here = local.sel({terms.SEQUENCE: block.variants.sequence, terms.EXPOSURE: block.exposure})
    summary = here.sel({terms.OUTCOME: block.outcome}).transpose(terms.SEQUENCE, terms.ESTIMATOR, ...)
    methods = [method_name(name) for name in local[terms.ESTIMATOR].values.tolist()]
    numbers = {"b": "estimate", "se": "se", "p": "pvalue"}
    return _by_variant(
        block,
        {column: getattr(fit, name) for column, name in numbers.items()},
        np.ones(len(block.variants.sequence), dtype=bool),
        [f"All - {name}" for name in methods],
        {column: summary[name].values for column, name in numbers.items()},
    )


def _leave_one_out(block: _Block) -> pd.DataFrame:
    without, whole = leave_one_out(*block.data, estimator="ivw"), ivw(*block.data)
    numbers = {"b": "estimate", "se": "se", "p": "pvalue"}
    return _by_variant(
        block,
        {column: getattr(without, name) for column, name in numbers.items()},
        whole.n_instruments >= _LEAST_TO_LEAVE_OUT,
        [_ALL_BY_IVW],
        {column: getattr(whole, name)[:, None] for column, name in numbers.items()},
    )


def _by_variant(
    block: _Block,
    variants: Mapping[str, NDArray[np.float64]],
    shown: NDArray[np.bool_],
    labels: list[str],
    summaries: Mapping[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """Return a row per instrument of the sequences that are `shown`, then those of all instruments, by sequence."""
    shape = next(iter(block.columns.values())).shape
    used = (np.isfinite(block.chosen.bx) & shown[:, None]).reshape(shape)
    found = np.nonzero(used)
    sequences = shape[0]
    of_summary = np.repeat(np.arange(sequences), len(labels))
    sequence = np.concatenate([found[0], of_summary])
    position = block.variants.position[found[1]].astype(np.float64)
    names = block.names(sequence)
    table = pd.DataFrame(
        {
            **{name: names[name] for name in ("exposure", "outcome", "id.exposure", "id.outcome")},
            "samplesize": np.nan,
            "SNP": block.snps(found) + labels * sequences,
            **{
                name: np.concatenate([values.reshape(shape)[used], summaries[name].reshape(-1)])
                for name, values in variants.items()
            },
            "originalname.exposure": block.exposure,
            "sequence": block.variants.sequence[sequence],
            "position": pd.array(np.append(position, np.full(of_summary.size, np.nan)), dtype="Int64"),
        }
    )
    return table.iloc[np.argsort(sequence, kind="stable")].reset_index(drop=True)


def _normal(effect: NDArray[np.float32], se: NDArray[np.float32]) -> NDArray[np.float64]:
    """Two-sided p-values; NaN where neither an effect nor an error is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(effect.astype(np.float64)) / se
    return np.asarray(2 * special.ndtr(-z))
