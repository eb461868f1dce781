"""The report: one page that holds what the store holds, in words that fit it."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from kipoi_deepmr import cli, open_results
from kipoi_deepmr.errors import OutputError, SelectionError, StoreError
from kipoi_deepmr.report import extent, render, write_report
from kipoi_deepmr.report.cautions import cautions
from kipoi_deepmr.report.extent import select
from kipoi_deepmr.report.rows import (
    global_rows,
    interval_cell,
    p_cell,
    permuted_rows,
    ranked_rows,
    reverse_rows,
    shuffled_rows,
)
from kipoi_deepmr.report.words import details, estimand, summary
from tests.report_store import write_store
from tests.test_tables import make_results

VOID = {"meta", "link", "br", "img", "input", "path", "use", "image", "rect"}


class Outline(HTMLParser):
    """Notes elements, identifiers, references and text; fails where elements do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.identifiers, self.references, self.addresses = [], [], [], []
        self.count: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.identifiers.append(value)
            if name in ("href", "xlink:href", "src"):
                (self.references if value.startswith("#") else self.addresses).append(value)
            self.references += [f"#{found}" for found in re.findall(r"url\(#([^)]+)\)", value or "")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def outline(page):
    found = Outline()
    found.feed(page)
    assert not found.open
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def results(folder):
    path = write_store(folder / "out.zarr", outcomes=("DNase", "H3K27ac"), mr={"bidirectional": True})
    with open_results(path) as tree:
        yield tree


@pytest.fixture(scope="module")
def page(folder, results):
    return write_report(results, folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(page):
    found = outline(page)
    assert len(set(found.identifiers)) == len(found.identifiers)
    assert {reference[1:] for reference in found.references} <= set(found.identifiers)
    assert all(address.startswith("data:") for address in found.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL))
    assert len(page.encode()) < 5e6


def test_every_pair_has_its_figures(page):
    found = outline(page)
    # Two outcomes: forest and density each, and the heat map; four pairs: two forests, six figures of each of three
    # sequences, in four frames.
    assert found.count["svg"] == 2 * 2 + 1 + 4 * (2 + 3 * 6)
    assert found.count["figure"] == 2 * 2 + 1 + 4 * (2 + 3 * 4)
    for label in re.findall(r'<svg[^>]*aria-label="([^"]*)"', page):
        assert re.search("FOXA1|CTCF|DNase|H3K27ac|exposures", label)
    for word in ("highest", "median", "lowest"):
        assert page.count(f": {word} local effect</h3>") == 4


def test_figures_keep_the_numbers_that_readers_see(page, results):
    where = {"exposure": "FOXA1", "outcome": "DNase", "estimator": "ivw"}
    one = results["global"].to_dataset().sel(where)
    shown = f"{float(one['estimate']):.3f} [{float(one['ci_low']):.3f}, {float(one['ci_high']):.3f}]"
    assert f">{shown}<" in page


def test_the_table_holds_the_global_effects(results):
    table = global_rows(results)
    heads = [head for head, _ in table.heads]
    assert len(table.rows) == 2 * 2 * 2
    overall = results["global"].to_dataset()
    names = {"IVW": "ivw", "MR-Egger": "egger"}
    for row in table.rows:
        cells = dict(zip(heads, row, strict=True))
        where = {
            "exposure": cells["exposure"].text,
            "outcome": cells["outcome"].text,
            "estimator": names[cells["estimator"].text],
        }
        one = overall.sel(where)
        assert cells["estimate"].key == float(one["estimate"])
        assert float(cells["estimate"].text.replace("−", "-")) == pytest.approx(float(one["estimate"]), rel=5e-3)  # noqa: RUF001
        assert cells["95% interval"].key == float(one["ci_low"])
        assert cells["p"].key == float(one["pvalue"])
        assert cells["τ"].key == float(np.sqrt(one["tau2"]))
        assert cells["n"].text == str(int(one["n_sequences"]))


def test_an_outcome_that_is_the_only_one_is_said_once_and_long_tables_are_folded(folder):
    many = tuple(f"TF{number}" for number in range(31))
    with open_results(write_store(folder / "many.zarr", exposures=many, sequences=5, length=12)) as tree:
        table = global_rows(tree)
        assert [head for head, _ in table.heads][:3] == ["exposure", "estimator", "estimate"]
        assert [cell.text for cell in table.rows[0][:2]] == ["TF0", "MR-Egger"]
        assert table.note == "The outcome is DNase."
        page = render(tree, exposure=["TF3"])
    assert "<details><summary>Global effects: table of 62 rows</summary>" in page
    assert page.count("<details>") == 3
    told = re.search(r"<dt>exposures</dt><dd>(.*?)</dd>", page, re.DOTALL)[1]
    assert told.startswith("<details><summary>31</summary>TF0 (output 0: task of TF0); TF1")


def test_sequences_are_ranked(results, monkeypatch):
    table = ranked_rows(results, "CTCF", "DNase", "ivw")
    heads = [head for head, _ in table.heads]
    effects = [row[heads.index("local effect")].key for row in table.rows]
    assert effects == sorted(effects, reverse=True)
    assert len(effects) == 6
    local = results["local"].to_dataset().sel({"exposure": "CTCF", "outcome": "DNase"})
    for row in table.rows:
        one = local.sel({"sequence": row[heads.index("sequence")].text})
        assert row[heads.index("mean F")].key == float(one["f_statistic"])
        expected = float(one["intercept_pvalue"].sel({"estimator": "egger"}))
        assert row[heads.index("intercept p (MR-Egger)")].key == expected
    monkeypatch.setattr("kipoi_deepmr.report.rows.RANKED_ROWS", 4)
    short = ranked_rows(results, "CTCF", "DNase", "ivw")
    assert [row[0].text for row in short.rows] == ["1", "2", "5", "6"]
    assert "of 6" in short.note


def test_both_directions_are_shown_when_they_were_estimated(results, page):
    table = reverse_rows(results)
    row = next(row for row in table.rows if [cell.text for cell in row[:3]] == ["FOXA1", "DNase", "IVW"])
    where = {"exposure": "FOXA1", "outcome": "DNase", "estimator": "ivw"}
    assert row[3].key == float(results["global"]["estimate"].sel(where))
    assert row[5].key == float(results["reverse/global"]["estimate"].sel(where))
    assert "Both directions" in page
    forward = xr.DataTree.from_dict({name: results[name].to_dataset() for name in ("local", "global")})
    assert reverse_rows(forward) is None


def test_negative_controls_are_shown_when_they_were_made(results, page):
    assert permuted_rows(results) is None
    assert "Negative controls" not in page
    tree = results.copy()
    overall = tree["global"].to_dataset().load()
    for name in ("permuted_mean", "permuted_sd", "permuted_low", "permuted_high", "permuted_pvalue", "n_permuted"):
        overall[name] = xr.full_like(overall["estimate"], 0.25)
    tree["global"] = xr.DataTree(overall)
    table = permuted_rows(tree)
    assert [cell.text for cell in table.rows[0][4:7]] == ["0.250", "0.250 to 0.250", "0.25"]
    assert shuffled_rows(tree) is None
    tree["controls"] = xr.DataTree.from_dict({"global": overall * 0 + 0.5})
    shuffled = shuffled_rows(tree)
    assert [cell.text for cell in shuffled.rows[0][5:]] == ["0.500", "0.500 to 0.500"]
    text = outline(render(tree, exposure=["CTCF"])).text
    assert "Permuted exposure effects" in text
    assert "keep their dinucleotides" in text


def test_the_run_is_told_in_words(results):
    told = summary(results)
    assert told["exposures"] == ("FOXA1 (output 0: task of FOXA1)", "CTCF (output 1: task of CTCF)")
    assert told["sequences"].startswith("7 reference sequences of 40 bp; 6 to 7 for each exposure; 40 positions")
    assert told["sequences"].endswith("mutated to every other base: up to 120 mutations each")
    assert told["draws"].startswith("30 thinned networks")
    assert told["standard errors"].startswith("posterior: the SD over draws")
    assert told["estimators"] == "MR-Egger, IVW"
    assert details(results)["configuration, sha256"] == results.attrs["config_sha256"]
    assert "take the errors of the mean" not in told["standard errors"]
    other = results.copy()
    overall = other["global"].to_dataset()
    kinds = np.where(overall["estimator"].values == "ivw", "monte_carlo", "posterior")
    other["global"] = xr.DataTree(overall.assign_coords(standard_error=("estimator", kinds)))
    assert "Whatever is chosen, IVW take the errors of the mean" in summary(other)["standard errors"]
    text = estimand(results, "ivw")
    assert "model-implied" in text
    assert "one unit of the model's own output" in text
    assert re.search(r"raise CTCF by 1 raise DNase by [12]\.\d+ on average", text)
    lowered = changed(results, "global", estimate=lambda values: -values)
    assert re.search(r"raise CTCF by 1 lower DNase by [12]\.\d+ on average", estimand(lowered, "ivw"))


def test_an_ensemble_is_told_as_one(folder):
    members = ["seed_a", "seed_b", "seed_c"]
    path = write_store(folder / "ensemble.zarr", draws=1, uncertainty={"method": "ensemble", "members": members})
    with open_results(path) as tree:
        tree.attrs |= {"draws": 3, "members": members}
        told, page = summary(tree), outline(render(tree, exposure=["CTCF"])).text
        assert told["draws"] == "the 3 members of an ensemble, the same for all sequences: seed_a, seed_b, seed_c"
        assert "how far members of the ensemble disagree" in told["standard errors"]
        assert "MC-dropout" not in page
        assert "thinned networks" not in page
        assert "All sequences share the members of the ensemble" in titles(tree)
        # Stores of earlier versions name the members in the configuration alone.
        del tree.attrs["members"]
        assert summary(tree)["draws"] == told["draws"]
        tree.attrs["standard_error"] = "monte_carlo"
        assert "the error of the mean ensemble's effect alone" in summary(tree)["standard errors"]
    uncertainty = {"method": "ensemble", "members": members, "draws": 20}
    with open_results(write_store(folder / "both.zarr", draws=60, uncertainty=uncertainty)) as tree:
        assert summary(tree)["draws"].startswith(
            "60: 20 thinned networks (MC-dropout), others for each sequence, of each"
        )
    with open_results(write_store(folder / "shared.zarr", uncertainty={"shared_draws": True, "draws": 30})) as tree:
        assert "All sequences share the thinned networks" in titles(tree)


@pytest.mark.parametrize(
    ("scale", "unit"), [("logit", "raise CTCF by 1 log odds raise"), ("log", r"a factor of e .* by 1 log units raise")]
)
def test_the_scale_is_in_the_words(results, scale, unit):
    tree = results.copy()
    tree.attrs["scale"] = scale
    assert re.search(unit, estimand(tree, "ivw"))


def titles(tree):
    return [caution.title for caution in cautions(tree)]


def changed(results, group, **values):
    tree = results.copy()
    dataset = tree[group].to_dataset().load()
    for name, value in values.items():
        dataset[name] = dataset[name] * 0 + value if np.isscalar(value) else value(dataset[name])
    tree[group] = xr.DataTree(dataset)
    return tree


def test_a_sound_store_has_no_cautions(results):
    sound = changed(results, "local", f_statistic=50.0, i2_gx=0.97, intercept_pvalue=0.5)
    sound = changed(sound, "global", prediction_low=1.0, prediction_high=2.0, ci_low=1.0, ci_high=2.0)
    assert titles(sound) == []
    assert "None of the checks found a reason for caution" in render(sound, exposure=["CTCF"])


@pytest.mark.parametrize(
    ("group", "values", "title"),
    [
        ("local", {"f_statistic": 4.0}, "Weak instruments: mean F below 10 for 2 of 2 exposures"),
        ("local", {"i2_gx": 0.6}, "MR-Egger is diluted: I²_GX below 0.9 for 4 of 4 pairs"),
        ("local", {"intercept_pvalue": 0.01}, "Directional pleiotropy: MR-Egger's intercept differs from 0"),
        ("global", {"prediction_low": -1.0, "ci_low": 0.1}, "The sign of the effect may differ between sequences: 8"),
        ("global", {"n_sequences": 3}, "Few sequences for 2 exposures"),
        ("global", {"estimate": np.nan}, "8 global effects could not be made"),
    ],
)
def test_what_matters_is_a_caution(results, group, values, title):
    sound = changed(results, "local", f_statistic=50.0, i2_gx=0.97, intercept_pvalue=0.5)
    sound = changed(sound, "global", prediction_low=1.0, prediction_high=2.0, ci_low=1.0, ci_high=2.0)
    (found,) = titles(changed(sound, group, **values))
    assert found.startswith(title)


@pytest.mark.parametrize(
    ("group", "values", "title"),
    [
        ("local", {"f_statistic": 10.0}, None),
        ("local", {"i2_gx": 0.9}, None),
        ("global", {"n_sequences": 4}, "Few sequences"),
        ("global", {"n_sequences": 5}, None),
        ("global", {"ci_low": -2.0, "ci_high": -0.1, "prediction_low": -3.0, "prediction_high": 0.1}, "The sign of"),
        ("global", {"ci_low": -2.0, "ci_high": 0.1, "prediction_low": -3.0, "prediction_high": 0.2}, None),
    ],
)
def test_the_bounds_of_the_cautions(results, group, values, title):
    sound = changed(results, "local", f_statistic=50.0, i2_gx=0.97, intercept_pvalue=0.5)
    sound = changed(sound, "global", prediction_low=1.0, prediction_high=2.0, ci_low=1.0, ci_high=2.0)
    found = titles(changed(sound, group, **values))
    assert found == [] if title is None else found[0].startswith(title)


def test_one_strong_sequence_does_not_make_instruments_strong(results):
    def one_strong(values):
        values = values * 0 + 4.0
        values[{"sequence": 0}] = 1000.0
        return values

    found = next(c for c in cautions(changed(results, "local", f_statistic=one_strong)) if "Weak" in c.title)
    assert found.where == tuple(
        f"{name}: median F 4.00, below 10 in {weak} of {weak + 1} sequences"
        for name, weak in (("CTCF", 5), ("FOXA1", 6))
    )


@pytest.mark.parametrize(("draws", "error"), [(2, 71), (5, 35), (19, 17), (20, None)])
def test_how_rough_an_error_from_few_draws_is(results, draws, error):
    tree = results.copy()
    tree.attrs["draws"] = draws
    found = [caution for caution in cautions(tree) if caution.title == f"Few draws: {draws}"]
    assert len(found) == (error is not None)
    assert all(f"is itself uncertain by about {error}%" in caution.text for caution in found)


def test_one_significant_intercept_in_many_is_chance(results):
    def one(values):
        values = values * 0 + 0.5
        values[{"exposure": 0, "outcome": 0, "sequence": 0}] = 0.04
        return values

    sound = changed(results, "local", f_statistic=50.0, i2_gx=0.97, intercept_pvalue=one)
    assert not any("pleiotropy" in title for title in titles(sound))


def test_an_excess_that_many_pairs_have_by_chance_is_none(folder):
    many = tuple(f"TF{number}" for number in range(12))
    with open_results(write_store(folder / "pairs.zarr", exposures=many, sequences=6, length=12)) as tree:

        def two_of_six(values):
            values = values * 0 + 0.5
            values[{"exposure": 0, "sequence": slice(0, 2)}] = 0.04
            return values

        assert not any("pleiotropy" in title for title in titles(changed(tree, "local", intercept_pvalue=two_of_six)))
        assert any("pleiotropy" in title for title in titles(changed(tree, "local", intercept_pvalue=0.04)))


def test_one_is_no_plural(folder):
    with open_results(write_store(folder / "one.zarr", exposures=("FOXA1",), sequences=1, length=12)) as tree:
        assert "Few sequences for 1 exposure" in titles(tree)
        assert summary(tree)["sequences"].startswith("1 reference sequence of 12 bp")


def test_failed_fits_are_counted_with_their_reasons(results):
    def fail(status):
        status[{"estimator": 0, "sequence": 0, "outcome": 0}] = 1
        return status

    caution = next(c for c in cautions(changed(results, "local", status=fail)) if "could not be made" in c.title)
    assert caution.title.startswith("2 local estimates")
    assert caution.where == ("MR-Egger: 2, too few instruments",)


def test_few_draws_and_an_unfinished_run_are_cautions(folder):
    path = write_store(folder / "part.zarr", draws=5, completed=4, standard_error="monte_carlo")
    with open_results(path) as tree:
        found = titles(tree)
        assert "The run is not finished: 4 of 7 sequences are computed" in found
        assert "Few draws: 5" in found
        page = render(tree)
    assert "says nothing on how far thinned networks disagree" in page
    assert "4 of them computed" in page


def test_the_selection_is_stated(results, monkeypatch):
    chosen = select(results)
    assert [(dive.exposure, dive.outcome) for dive in chosen.dives] == [
        ("FOXA1", "DNase"),
        ("CTCF", "DNase"),
        ("FOXA1", "H3K27ac"),
        ("CTCF", "H3K27ac"),
    ]
    where = {"exposure": "CTCF", "outcome": "DNase", "estimator": "ivw"}
    local = results["local"]["estimate"].sel(where)
    ranked = local["sequence"].values[np.argsort(-local.values)]
    assert [name for name, _ in chosen.dives[1].sequences] == [str(ranked[0]), str(ranked[2]), str(ranked[5])]
    monkeypatch.setattr(extent, "DIVES", 3)
    monkeypatch.setattr(extent, "SEQUENCES", 2)
    monkeypatch.setattr(extent, "OUTCOMES", 1)
    few = select(results)
    assert [len(dive.sequences) for dive in few.dives] == [1, 1, 0]
    assert few.dives[1].sequences == ((str(ranked[2]), "median local effect"),)
    notes = " ".join(few.left_out)
    for words in (
        "the one with the median",
        "first 3 of 4 pairs",
        "for the first 2 deep dives",
        "first 1 of 2 outcomes",
    ):
        assert words in notes
    assert [dive.exposure for dive in select(results, ["CTCF"]).dives] == ["CTCF", "CTCF"]


@pytest.mark.parametrize(
    ("exposures", "outcomes", "dives", "drawn", "each", "forests"),
    [(4, 3, 12, 12, 3, 2), (13, 1, 13, 13, 2, 1), (20, 1, 20, 20, 1, 1), (9, 5, 40, 36, 1, 1)],
)
def test_how_much_of_a_large_store_is_drawn(exposures, outcomes, dives, drawn, each, forests):
    tree = make_results([f"TF{i}" for i in range(exposures)], [f"open{i}" for i in range(outcomes)])
    chosen = select(tree)
    assert len(chosen.dives) == dives
    assert [len(dive.sequences) for dive in chosen.dives if dive.exposure != "TF0"] == [
        each if rank < drawn else 0 for rank in range(dives) if chosen.dives[rank].exposure != "TF0"
    ]
    assert len(chosen.forest_estimators) == forests
    assert len(chosen.outcomes) == min(outcomes, 4)


def test_errors_say_what_to_do(results, tmp_path):
    with pytest.raises(OutputError, match=r"name it report\.html"):
        write_report(results, tmp_path / "report.pdf")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(results, tmp_path / "file" / "report.html", exposure=["CTCF"])
    (tmp_path / "file").unlink()
    with pytest.raises(SelectionError, match="no exposure 'ctcf'"):
        write_report(results, tmp_path / "report.html", exposure=["ctcf"])
    with pytest.raises(StoreError, match="does not exist"):
        write_report(tmp_path / "none.zarr", tmp_path / "report.html")
    bare = xr.DataTree.from_dict({"effects": results["effects"].to_dataset()})
    with pytest.raises(StoreError, match="run --resume"):
        write_report(bare, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_names_are_text_not_markup(folder):
    name = "<b>&\"'{{1}}"
    with open_results(write_store(folder / "names.zarr", exposures=(name,), sequences=5)) as tree:
        page = render(tree)
    assert "<b>" not in page
    assert name in outline(page).text


def test_cells_of_what_is_missing():
    assert interval_cell(np.nan, 1.0).text == "-"
    assert [p_cell(p).text for p in (0.0, 1e-5, 0.321, 1.0, np.nan)] == ["<1e-300", "1e-05", "0.32", "1", "-"]


def test_the_commands_write_report_and_figures(folder, results, tmp_path, capsys):
    store = str(folder / "out.zarr")
    assert (
        cli.main(["report", store, "-o", str(tmp_path / "r.html"), "--exposure", "CTCF", "--estimator", "egger"]) == 0
    )
    assert "Local effects of CTCF, MR-Egger" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"wrote {tmp_path / 'r.html'}" in capsys.readouterr().err
    for kind in ("forest", "density", "heatmap", "scatter", "funnel", "loo", "logo", "profile"):
        exposure = [] if kind == "heatmap" else ["--exposure", "CTCF"]
        output = tmp_path / f"{kind}.svg"
        assert cli.main(["plot", store, "--kind", kind, *exposure, "-o", str(output)]) == 0
        assert output.read_text(encoding="utf-8").startswith("<?xml")
    capsys.readouterr()
    assert cli.main(["plot", store, "--kind", "forest", "-o", str(tmp_path / "new" / "folder" / "x.svg")]) == 0
    assert cli.main(["report", store, "-o", str(tmp_path / "other" / "r.html"), "--exposure", "CTCF"]) == 0
    assert (tmp_path / "other" / "r.html").exists()
    capsys.readouterr()
    for arguments, message in (
        (["--kind", "scatter", "-o", "x.svg"], "say which, with --exposure"),
        (["--kind", "heatmap", "--exposure", "CTCF", "-o", "x.svg"], "a heatmap has no choice of exposure"),
        (["--kind", "forest", "-o", "x.gif"], r"choose .svg, .png, .pdf"),
        (["--kind", "forest", "-o", str(tmp_path / "r.html" / "x.svg")], "cannot be written"),
    ):
        assert cli.main(["plot", store, *arguments]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_missing_library_is_named(module):
    code = f"import sys; sys.modules[{module!r}] = None; import kipoi_deepmr.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"need {module}: pip install 'kipoi_deepmr[plots]'" in done.stderr
