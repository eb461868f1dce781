"""Tables under the names of R packages: their columns, their rows, and the store's numbers in them."""

import gzip

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import xarray as xr
from scipy import stats

from kipoi_deepmr import export, mr
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import SelectionError, StoreError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.reading import select
from kipoi_deepmr.tables import global_results, local_results, variant_tables
from tests.small_stores import EXPOSURES, WINDOWS, write_fasta, write_store

# TwoSampleMR 0.7.9: what `harmonise_data` documents and returns, without columns of proxies and logs.
HARMONISED = """SNP effect_allele.exposure other_allele.exposure effect_allele.outcome other_allele.outcome beta.exposure
    se.exposure beta.outcome se.outcome eaf.exposure pval.exposure samplesize.exposure eaf.outcome pval.outcome
    samplesize.outcome id.exposure id.outcome exposure outcome remove palindromic ambiguous mr_keep""".split()
MR = "id.exposure id.outcome outcome exposure method nsnp b se pval".split()
SINGLE = "exposure outcome id.exposure id.outcome samplesize SNP b se p".split()
# metafor: components of an `rma.uni` object, and of `predict`.
METAFOR = "estimate se zval pval ci.lb ci.ub tau2 I2 H2 QE QEp k pi.lb pi.ub".split()


def as_r_reads(path):
    """Read a file as `read.delim` does: NA is missing, TRUE and FALSE are logical."""
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["NA"], true_values=["TRUE"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables")
    export(write_store(path, bidirectional=True), "tsv", path / "tsv")
    return path


@pytest.fixture(scope="module")
def tree(folder):
    return xr.open_datatree(folder / "out.zarr", engine="zarr").load()


@pytest.fixture(scope="module")
def harmonised(folder):
    return as_r_reads(folder / "tsv/harmonised.tsv")


def of_store(tree, row):
    """Return the store's variables for a row, by name and index."""
    effects = tree["effects"].to_dataset()
    sequence = effects.sel(sequence=row["sequence"])
    alleles = "ACGT" if row["strand"] == "+" else "TGCA"
    return sequence.sel(exposure=row["originalname.exposure"], outcome=row["outcome"], position=row["position"]).isel(
        allele=alleles.index(row["effect_allele.exposure"])
    )


def test_harmonised_has_the_columns_of_twosamplemr(harmonised):
    assert list(harmonised.columns[: len(HARMONISED)]) == HARMONISED
    assert harmonised["mr_keep"].dtype == bool
    assert not harmonised[["SNP", "id.exposure", "id.outcome", "exposure", "outcome"]].isna().any(axis=None)
    assert (
        harmonised[["eaf.exposure", "eaf.outcome", "samplesize.exposure", "samplesize.outcome"]].isna().all(axis=None)
    )


def test_harmonised_holds_the_store(folder, tree, harmonised):
    contigs = write_fasta(folder / "again.fa")
    effects = tree["effects"].to_dataset()
    counts = effects["exposure_effect"].notnull() & effects["bound"] & effects["completed"]
    assert len(harmonised) == int(counts.sum())
    assert not harmonised.duplicated(["id.exposure", "id.outcome", "SNP"]).any()
    assert not harmonised[["remove", "ambiguous"]].any(axis=None)
    for _, row in harmonised.sample(150, random_state=0).iterrows():
        cell = of_store(tree, row)
        for side in ("exposure", "outcome"):
            assert np.float32(row[f"beta.{side}"]) == cell[f"{side}_effect"].values
            assert np.float32(row[f"se.{side}"]) == cell[f"{side}_se"].values
            assert row[f"effect_allele.{side}"] == row["SNP"].split(":")[3]
            assert row[f"other_allele.{side}"] == row["SNP"].split(":")[2]
        assert np.float32(row["error_covariance"]) == cell["error_covariance"].values
        chrom, at, reference, mutant = row["SNP"].split(":")
        assert contigs[chrom][int(at) - 1] == reference
        assert (row["chr.exposure"], row["pos.exposure"]) == (chrom, int(at))
        assert row["palindromic"] == ({reference, mutant} in ({"A", "T"}, {"C", "G"}))
        z = abs(row["beta.exposure"]) / row["se.exposure"] if row["se.exposure"] else np.inf
        assert row["pval.exposure"] == pytest.approx(2 * stats.norm.sf(z), rel=1e-5)


def test_the_instruments_of_a_sequence_give_its_local_estimates(folder, tree, harmonised):
    local = tree["local"].to_dataset()
    table = as_r_reads(folder / "tsv/local.tsv")
    assert list(table.columns[: len(MR)]) == MR
    assert len(table) == 2 * int(local["bound"].sum())
    kept = harmonised[harmonised["mr_keep"]].groupby(["id.exposure", "id.outcome"])
    for _, row in table.iterrows():
        data = kept.get_group((row["id.exposure"], row["id.outcome"]))
        assert len(data) == row["nsnp"]
        estimator = {"MR Egger": mr.egger, "Inverse variance weighted": mr.ivw}[row["method"]]
        fit = estimator(data["beta.exposure"], data["se.exposure"], data["beta.outcome"], data["se.outcome"])
        # The same numbers as float32, read from text.
        assert [row["b"], row["se"]] == pytest.approx([float(fit.estimate), float(fit.se)], rel=1e-5)
        cell = local.sel(
            {
                "exposure": row["originalname.exposure"],
                "outcome": row["outcome"],
                "sequence": row["sequence"],
                "estimator": row["estimator"],
            }
        )
        for column, name in {"b": "estimate", "se": "se", "pval": "pvalue", "q": "q", "i2_gx": "i2_gx"}.items():
            assert row[column] == float(cell[name])
        assert row["status"] == "ok"
        assert row["exposure"] == f"{row['originalname.exposure']} || {row['sequence']}"


def test_weak_variants_and_those_without_error_are_not_kept(tree, harmonised):
    strength = (harmonised["beta.exposure"] / harmonised["se.exposure"]) ** 2
    used = (strength >= tree["local"].attrs["min_f"]) & (harmonised["se.exposure"] > 0)
    assert (harmonised["mr_keep"] == used).all()
    assert 0 < (~used).sum() < len(used)
    assert (harmonised["se.exposure"] == 0).sum() == 3


def test_single_variants_are_wald_ratios(folder, harmonised):
    table = as_r_reads(folder / "tsv/single_variant.tsv")
    assert list(table.columns[: len(SINGLE)]) == SINGLE
    of_all = table["SNP"].str.startswith("All - ")
    local = as_r_reads(folder / "tsv/local.tsv")
    keys = ["id.exposure", "id.outcome"]
    both = table[of_all].assign(method=table["SNP"].str.removeprefix("All - ")).merge(local, on=[*keys, "method"])
    assert len(both) == of_all.sum() == len(local)
    for ours, theirs in (("b_x", "b_y"), ("se_x", "se_y"), ("p", "pval")):
        assert (both[ours] == both[theirs]).all()
    kept = harmonised[harmonised["mr_keep"]]
    both = table[~of_all].merge(kept, on=[*keys, "SNP"])
    assert len(both) == (~of_all).sum() == len(kept)
    np.testing.assert_allclose(both["b"], both["beta.outcome"] / both["beta.exposure"], rtol=1e-6)
    np.testing.assert_allclose(both["se"], both["se.outcome"] / abs(both["beta.exposure"]), rtol=1e-6)
    np.testing.assert_allclose(both["p"], 2 * stats.norm.sf(abs(both["b"]) / both["se"]), rtol=1e-6)
    # Each analysis stands together, its summary last, which is how the plots of TwoSampleMR take it.
    runs = (table["id.exposure"] != table["id.exposure"].shift()).cumsum()
    assert runs.nunique() == table["id.exposure"].nunique()
    assert of_all.groupby(runs).apply(lambda rows: rows.is_monotonic_increasing).all()


def test_leave_one_out_is_ivw_on_the_others(folder, harmonised):
    table = as_r_reads(folder / "tsv/leave_one_out.tsv")
    assert list(table.columns[: len(SINGLE)]) == SINGLE
    kept = harmonised[harmonised["mr_keep"]]
    assert len(table) == len(kept) + kept["id.exposure"].nunique()
    names = ["beta.exposure", "se.exposure", "beta.outcome", "se.outcome"]
    for identity in (f"{EXPOSURES[2]}:chr1:4-16(-)", f"{EXPOSURES[0]}:chr2:40-52(-)"):
        data = kept[kept["id.exposure"] == identity].set_index("SNP")[names]
        for _, row in table[table["id.exposure"] == identity].iterrows():
            others = data if row["SNP"] == "All" else data.drop(row["SNP"])
            fit = mr.ivw(*(others[name] for name in names))
            assert [row["b"], row["se"]] == pytest.approx([float(fit.estimate), float(fit.se)], rel=1e-5)


def test_with_two_instruments_only_all_stands_in_leave_one_out(tmp_path):
    store = write_store(tmp_path, (5, 6))
    with open_results(store) as tree:
        tables = list(variant_tables(tree))
    frame = pd.concat([table.leave_one_out for table in tables])
    kept = pd.concat([table.harmonised for table in tables]).query("mr_keep").groupby("id.exposure").size()
    for identity, rows in frame.groupby("id.exposure"):
        count = kept.get(identity, 0)
        assert len(rows) == (1 if count < 3 else count + 1)
        assert rows["SNP"].iloc[-1] == "All"
    assert kept.min() < 3


def test_global_results_have_the_names_of_metafor(folder, tree):
    table = as_r_reads(folder / "tsv/global.tsv")
    assert list(table.columns[:3]) == ["exposure", "outcome", "estimator"]
    assert list(table.columns[3 : 3 + len(METAFOR)]) == METAFOR
    overall = tree["global"].to_dataset()
    names = {
        "estimate": "estimate",
        "ci.lb": "ci_low",
        "I2": "i2",
        "QE": "q",
        "QEp": "q_pvalue",
        "pi.ub": "prediction_high",
    }
    for _, row in table.iterrows():
        cell = overall.sel({"exposure": row["exposure"], "outcome": row["outcome"], "estimator": row["estimator"]})
        for column, name in names.items():
            assert row[column] == float(cell[name])
        assert row["k"] == int(cell["n_sequences"])
        assert row["zval"] == row["estimate"] / row["se"]
        assert row["H2"] == pytest.approx(1 / (1 - row["I2"] / 100))
        assert (row["method"], row["test"], row["status"]) == ("REML", "z", "ok")


def test_h2_of_a_common_effect_is_q_over_df(tmp_path):
    with re_estimate(write_store(tmp_path), meta={"method": "FE"}) as results:
        table = global_results(results)
    assert set(table["method"]) == {"FE"}
    np.testing.assert_allclose(table["H2"], table["QE"] / (table["k"] - 1))


def test_the_other_direction_swaps_exposure_and_outcome(folder, tree):
    local, overall = (as_r_reads(folder / f"tsv/reverse_{name}.tsv") for name in ("local", "global"))
    assert set(overall["outcome"]) == set(EXPOSURES)
    assert set(overall["exposure"]) == {"open"}
    row = local.iloc[5]
    where = {"exposure": row["outcome"], "outcome": "open", "sequence": row["sequence"], "estimator": row["estimator"]}
    assert row["b"] == float(tree["reverse/local"]["estimate"].sel(where))
    assert row["id.exposure"] == f"open:{row['sequence']}"
    forward = xr.DataTree.from_dict({name: tree[name].to_dataset() for name in ("effects", "local", "global")})
    for table in (global_results, lambda *args, **options: next(local_results(*args, **options))):
        with pytest.raises(StoreError, match="--bidirectional"):
            table(forward, reverse=True)


def test_parquet_and_gzip_hold_the_same_tables(folder):
    plain = {path.stem: path for path in (folder / "tsv").iterdir()}
    packed = export(folder / "out.zarr", "tsv", folder / "gz", compress=True)
    parquet = export(folder / "out.zarr", "parquet", folder / "parquet")
    assert [path.name.split(".")[0] for path in packed] == [path.stem for path in parquet]
    for gz, columns in zip(packed, parquet, strict=True):
        assert gzip.decompress(gz.read_bytes()) == plain[columns.stem].read_bytes()
        ours = pyarrow.parquet.read_table(columns).to_pandas()
        theirs = as_r_reads(plain[columns.stem])
        assert list(ours.columns) == list(theirs.columns)
        assert len(ours) == len(theirs)
        for name in ours:
            if theirs[name].dtype.kind == "f":
                np.testing.assert_allclose(ours[name].astype(float), theirs[name], rtol=1e-6)
            else:
                assert ours[name].tolist() == theirs[name].tolist()


def test_blocks_do_not_change_a_table(folder, monkeypatch):
    from kipoi_deepmr import reading

    monkeypatch.setattr(reading, "_VARIANTS_AT_ONCE", 1)
    for path in export(folder / "out.zarr", "tsv", folder / "blocks"):
        assert path.read_bytes() == (folder / "tsv" / path.name).read_bytes()


def test_a_part_of_a_store(folder):
    with open_results(folder / "out.zarr") as tree:
        part = select(tree, exposure=["TF*"], sequence=["chr1:*(+)", "chr2:40-52(-)"])
        assert part["effects"]["exposure"].values.tolist() == ["TF#1", "TF 1"]
        assert part["local"].sizes["sequence"] == sum(w[0] == "chr1" and w[2] == "+" for w in WINDOWS) + 1
        assert part["reverse/global"].sizes["exposure"] == 2
        assert part.attrs == tree.attrs
        for wanted, message in (
            ({"exposure": ["CTFC"]}, "no exposure 'CTFC'. Did you mean 'CTCF'"),
            ({"outcome": ["shut*"]}, r"no outcome 'shut\*'.*It has 1: open"),
            ({"sequence": ["chrX:*"]}, "no sequence"),
        ):
            with pytest.raises(SelectionError, match=message):
                select(tree, **wanted)
        assert {t.harmonised["id.exposure"].iloc[0] for t in variant_tables(select(tree, exposure="CTCF"))} == {
            "CTCF:chr1:0-12(+)"
        }
