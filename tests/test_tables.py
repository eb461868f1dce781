"""Results as tables: what users read in a terminal and take into pandas."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.tables import global_records, global_table, local_results, local_table, terminal_table


def text(words):
    return np.array(list(words), dtype=object)


def make_estimates(known, coords, unit, alpha):
    """Return random estimates with the variables of `/local` or `/global`."""
    random = np.random.default_rng(0)
    dataset = xr.Dataset(coords=coords)
    for name, term in known.items():
        shape = [dataset.sizes[dim] for dim in term.dims]
        if name == "status":
            values = np.zeros(shape, np.int8)
        elif name.startswith("n_"):
            values = random.integers(3, 24, shape)
        else:
            scale = {"ratio": unit, "ratio squared": unit**2}.get(term.units, 1)
            values = scale * random.uniform(-1 if term.units == "ratio" else 0, 1, shape)
        dataset[name] = (term.dims, values, terms.attributes(term, "identity"))
    dataset["status"].attrs.update(flag_values=[0, 1], flag_meanings="ok too_few")
    dataset["ci_low"].attrs["confidence_level"] = 1 - alpha
    return dataset


def make_results(exposures=("FOXA1", "CTCF"), outcomes=("DNase", "H3K27ac"), unit=1.0, alpha=0.05):
    bound = np.ones((len(exposures), 3), bool)
    bound[0, 2] = False
    names = {"exposure": text(exposures), "outcome": text(outcomes), "estimator": text(["egger", "ivw"])}
    windows = {
        "sequence": text(f"chr1:{i}-{i + 8}(+)" for i in range(3)),
        "bound": (("exposure", "sequence"), bound),
        "chrom": ("sequence", text(["chr1"] * 3)),
        "start": ("sequence", np.arange(3)),
        "end": ("sequence", np.arange(3) + 8),
        "strand": ("sequence", text("+++")),
    }
    tree = xr.DataTree.from_dict(
        {
            "effects": xr.Dataset(),
            "local": make_estimates(terms.LOCAL, {**names, **windows}, unit, alpha),
            "global": make_estimates(terms.GLOBAL, names, unit, alpha),
        }
    )
    tree.attrs.update(scale="identity", standard_error="posterior")
    return tree


def test_the_global_table_has_a_row_per_exposure_outcome_and_method():
    results = make_results()
    table = global_table(results)
    assert len(table) == 2 * 2 * 2
    assert list(table.columns[:3]) == ["exposure", "outcome", "estimator"]
    assert set(table.columns[3:]) == set(terms.GLOBAL)
    for row in table.itertuples():
        where = {"exposure": row.exposure, "outcome": row.outcome, "estimator": row.estimator}
        assert row.estimate == float(results["global"]["estimate"].sel(where))
    assert isinstance(table["exposure"][0], str)


def test_the_local_table_has_the_sequences_that_are_bound():
    results = make_results()
    table = local_table(results)
    assert len(table) == (2 + 3) * 2 * 2
    assert "bound" not in table
    assert set(terms.LOCAL) <= set(table.columns)
    assert set(table.loc[table["exposure"] == "FOXA1", "sequence"]) == {"chr1:0-8(+)", "chr1:1-9(+)"}
    row = table[(table["exposure"] == "CTCF") & (table["estimator"] == "ivw")].iloc[0]
    where = {name: row[name] for name in ("exposure", "outcome", "sequence", "estimator")}
    assert row["se"] == float(results["local"]["se"].sel(where))
    assert (row["chrom"], row["start"], row["strand"]) == ("chr1", 0, "+")
    assert list(table.index) == list(range(len(table)))


def test_tables_survive_a_store(tmp_path):
    results = make_results()
    results.to_zarr(tmp_path / "x.zarr", zarr_format=3, consolidated=False)
    with xr.open_datatree(tmp_path / "x.zarr", engine="zarr", consolidated=False) as stored:
        for table in (global_table, local_table):
            ours, theirs = table(results), table(stored)
            pd.testing.assert_frame_equal(ours.astype(object), theirs[ours.columns].astype(object))
        assert terminal_table(stored) == terminal_table(results)


def test_the_terminal_table_shows_scale_errors_level_and_names():
    shown = terminal_table(make_results(alpha=0.001))
    assert "identity scale" in shown
    assert "posterior standard errors" in shown
    assert "99.9% interval" in shown
    assert len(shown.splitlines()) == 2 + 1 + 8
    for name in ("FOXA1", "CTCF", "H3K27ac", "egger", "ivw"):
        assert name in shown


LONG = ("HepG2_CTCF_None#1", "HepG2_CTCF_None#2", "a name of a transcription factor that is far too long for a line#3")


@pytest.mark.parametrize("unit", [1.0, -1e-9, -1e9, 1e-200])
@pytest.mark.parametrize("outcomes", [("DNase",), LONG[:2], ("x" * 90, "y" * 90)])
def test_the_terminal_table_fits_100_columns(unit, outcomes):
    shown = terminal_table(make_results(LONG, outcomes, abs(unit)))
    assert max(len(line) for line in shown.splitlines()) <= 100
    # Names that differ at their end stay apart.
    rows = [line for line in shown.splitlines() if " ivw " in line]
    assert len({row.split("ivw")[0] for row in rows}) == len(rows)


def test_short_names_are_not_cut():
    shown = terminal_table(make_results(("HepG2_CTCF_None#1", "x"), ("y",)))
    assert "HepG2_CTCF_None#1" in shown


def test_the_numbers_of_a_row():
    results = make_results(("FOXA1",), ("DNase",))
    numbers = {
        "estimate": (0.97649, 12345.6), "ci_low": (0.95, -3.0), "ci_high": (1.0, 1e-5), "pvalue": (4.21e-5, 1e-301),
        "tau2": (0.09, 0.0), "i2": (55.68, 0.0), "n_sequences": (12, 3),
    }  # fmt: skip
    for name, values in numbers.items():
        results["global"][name][0, 0, :] = np.array(values)
    first, second = (line.split() for line in terminal_table(results).splitlines()[3:5])
    assert first[2:] == ["egger", "0.976", "[0.95,", "1]", "4.2e-05", "0.3", "55.7%", "12"]
    assert second[2:] == ["ivw", "1.2e+04", "[-3,", "1e-05]", "<1e-300", "0", "0.0%", "3"]


def test_records_have_null_for_what_json_lacks():
    results = make_results(("FOXA1",), ("DNase",))
    results["global"]["prediction_high"][0, 0, :] = np.array([np.inf, np.nan])
    assert [row["prediction_high"] for row in global_records(results)] == [None, None]
    assert [row["status"] for row in global_records(results)] == ["ok", "ok"]


def test_a_missing_estimate_is_a_dash():
    results = make_results()
    for name in ("estimate", "ci_low", "ci_high", "pvalue", "tau2", "i2"):
        results["global"][name][0, 0, 0] = np.nan
    first = terminal_table(results).splitlines()[3]
    assert "nan" not in first.lower()
    assert "[-, -]" in first


def test_only_the_first_rows_are_shown():
    shown = terminal_table(make_results([f"TF{i}" for i in range(60)]))
    assert "... and 40 rows more" in shown
    assert "TF49" in shown
    assert "TF50" not in shown


def test_a_store_without_estimates_says_what_to_do():
    results = make_results()
    bare = xr.DataTree.from_dict({"effects": results["effects"].to_dataset()})
    for table in (global_table, local_table, terminal_table):
        with pytest.raises(StoreError, match="run --resume"):
            table(bare)


def with_permutations(results):
    known = results["global"].to_dataset()
    shape = [known.sizes[dim] for dim in terms.GLOBAL_PERMUTED["permuted_pvalue"].dims]
    added = {name: (term.dims, np.full(shape, 0.25)) for name, term in terms.GLOBAL_PERMUTED.items()}
    return known.assign(added)


def test_controls_and_the_other_direction_stand_below():
    results = make_results(("FOXA1",), ("DNase",))
    assert "p perm" not in terminal_table(results)
    assert "reverse" not in terminal_table(results)
    permuted = with_permutations(results)
    results["global"] = xr.DataTree(permuted)
    for name in ("reverse/global", "controls/global", "controls/reverse/global"):
        results[name] = xr.DataTree(results["global"].to_dataset() * 0 + 7)
        results[name]["ci_low"].attrs["confidence_level"] = 0.95
    shown = terminal_table(results).splitlines()
    assert sum("p perm " in line for line in shown) == 4
    assert sum(" 0.25 " in line for line in shown) == 2
    assert [line for line in shown if line.startswith(("In reverse", "Control"))] == [
        "In reverse: effect of the outcome on the exposure, exposure per outcome",
        "Control: the same in shuffled sequences",
        "Control in reverse",
    ]
    assert shown[-1].startswith("p perm: ")


def test_methods_with_errors_of_the_mean_are_marked():
    results = make_results()
    for kind in ("global", "local"):
        errors = ("estimator", text(["posterior", "monte_carlo"]))
        results[kind] = xr.DataTree(results[kind].to_dataset().assign_coords(standard_error=errors))
    shown = terminal_table(results).splitlines()
    assert all((" ivw* " in line) == (" egger " not in line) for line in shown[3:-1])
    assert shown[-1].startswith("* standard errors of the mean over draws")
    assert set(global_table(results)["standard_error"]) == {"posterior", "monte_carlo"}


def test_the_only_outcome_stands_above_where_names_would_be_cut():
    names = ("HepG2_a_long_name#1", "HepG2_a_long_name#2")
    shown = terminal_table(make_results(names, ("the name of an outcome that is longer than most of them",)))
    assert "outcome: the name of an outcome that is longer than most of them" in shown
    assert "HepG2_a_long_name#2" in shown


def test_estimators_have_the_names_of_twosamplemr():
    # `mr_method_list()$name` of TwoSampleMR 0.7.9; what it does not have keeps its own name.
    named = {
        "egger": "MR Egger",
        "ivw": "Inverse variance weighted",
        "ivw_fixed": "Inverse variance weighted (fixed effects)",
        "maximum_likelihood": "Maximum likelihood",
        "penalized_weighted_median": "Penalised weighted median",
        "raps": "Robust adjusted profile score (RAPS)",
        "simple_median": "Simple median",
        "simple_mode": "Simple mode",
        "weighted_median": "Weighted median",
        "weighted_mode": "Weighted mode",
        "cml": "cml",
        "ivw_delta": "ivw_delta",
    }
    results = make_results()
    local = results["local"].to_dataset().isel(estimator=[0] * len(named))
    results["local"] = xr.DataTree(local.assign_coords(estimator=text(named)))
    for table in local_results(results):
        assert dict(zip(table["estimator"], table["method"], strict=True)) == named


def test_records_hold_both_directions_and_the_controls():
    results = make_results()
    for number, path in enumerate(("reverse", "controls", "controls/reverse"), start=2):
        other = make_results(unit=float(number))
        for name in ("local", "global"):
            results[f"{path}/{name}"] = other[name]
    records = global_records(results)
    ways = [("forward", None), ("reverse", None), ("forward", "shuffled"), ("reverse", "shuffled")]
    assert [(row["direction"], row["control"]) for row in records[::8]] == ways
    trees = [results, *(results[path] for path in ("reverse", "controls", "controls/reverse"))]
    assert [row["estimate"] for row in records] == [
        value for tree in trees for value in global_table(tree)["estimate"].tolist()
    ]
    shown = terminal_table(results)
    assert [shown.count(line) for line in ("In reverse: ", "Control: ", "Control in reverse")] == [1, 1, 1]


def test_the_terminal_says_which_methods_are_permuted():
    results = make_results()
    overall = results["global"].to_dataset()
    for name, term in terms.GLOBAL_PERMUTED.items():
        overall[name] = (term.dims, np.ones([overall.sizes[dim] for dim in term.dims]))
    results["global"] = xr.DataTree(overall)
    assert "need every draw" not in terminal_table(results)
    overall["n_permuted"][..., 1] = 0
    results["global"] = xr.DataTree(overall)
    shown = terminal_table(results)
    assert "estimators that need every draw are permuted only\nwhere the store keeps the draws" in shown
    assert max(map(len, shown.splitlines())) <= 100
