"""What commands print: tables that fit 100 columns, and JSON for scripts."""

import json

import pytest

from kipoi_deepmr import cli
from kipoi_deepmr.cli.lines import in_lines
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.tables import global_table
from tests.kipoi_models import write_project
from tests.small_stores import write_store

LONG = "ENCODE DNase-seq of " + "a tissue with a very long description, " * 4 + "replicate 1"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "a folder whose name is rather long, because it stands among many others of a large project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return write_project(folder, {"outcomes": {"open": {"task": LONG}}}, labels=["TF1", "TF2", "TF2", LONG])


def words(text):
    return text.split()


def test_check_fits_the_terminal_and_cuts_nothing(project, capsys):
    assert cli.main(["check", "config.yaml", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    report = json.loads(json_of(["check", "config.yaml", "--device", "cpu"], capsys))
    assert " ".join(words(LONG)) in " ".join(words(shown))
    for site in report["dropout"]:
        assert " ".join(words(site)) in " ".join(words(shown))


def json_of(argv, capsys):
    capsys.readouterr()
    assert cli.main([*argv, "--json", "-q"]) == 0
    return capsys.readouterr().out


def test_tasks_fit_the_terminal_and_cut_nothing(project, capsys):
    assert cli.main(["tasks", "model", "--source", "dir"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2] == "    1  TF2  occurrence: 1"
    assert " ".join(words(LONG)) in " ".join(words("\n".join(lines)))
    assert json.loads(json_of(["tasks", "model", "--source", "dir"], capsys))[3]["label"] == LONG


def test_run_and_mr_print_the_global_table_as_json(project, capsys):
    rows = json.loads(json_of(["run", "config.yaml", "-o", "out.zarr", "--device", "cpu"], capsys))
    assert [(row["exposure"], row["estimator"]) for row in rows] == [(e, m) for e in "AB" for m in ("egger", "ivw")]
    with open_results("out.zarr") as results:
        table = global_table(results)
    assert [row["estimate"] for row in rows] == table["estimate"].tolist()
    rows = json.loads(json_of(["mr", "out.zarr", "--methods", "ivw"], capsys))
    assert [row["estimator"] for row in rows] == ["ivw", "ivw"]
    assert {row["status"] for row in rows} == {"ok"}


def test_json_has_null_where_there_is_no_estimate(tmp_path, capsys):
    rows = json.loads(
        json_of(["mr", str(write_store(tmp_path)), "--min_f", "1e12"], capsys), parse_constant=lambda word: word
    )
    assert all(row["estimate"] is None and row["n_sequences"] == 0 for row in rows)
    assert all(row["status"] != "ok" and isinstance(row["status"], str) for row in rows)


@pytest.mark.parametrize("text", ["", "short", "word " * 60, "x" * 250])
def test_lines_keep_every_word(text):
    lines = in_lines("label", text, 12).splitlines()
    assert lines[0].startswith("label")
    assert all(len(line) <= 100 for line in lines)
    assert "".join("".join(lines).split()) == "label" + "".join(text.split())
