"""The command line: every command, and that every mistake of a user gets one clear line and costs nothing."""

import errno
import importlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
import zarr

from kipoi_deepmr import cli
from kipoi_deepmr.config import load_config
from kipoi_deepmr.cube import open_results
from tests.kipoi_models import CONVOLUTION, write_genome, write_model, write_peaks, write_project

PYTHON = [sys.executable, "-m", "kipoi_deepmr"]


@pytest.fixture(autouse=True)
def logging_as_before():
    """Take back what the command line does to the logger, which other tests read."""
    logger = logging.getLogger("kipoi_deepmr")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def config(folder):
    return write_project(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "project"
    path.mkdir()
    config = write_project(path)
    assert cli.main(["run", str(config), "-o", str(path / "out.zarr"), "--device", "cpu", "-q", "-q"]) == 0
    return config


@pytest.fixture
def finished(done, tmp_path, monkeypatch):
    shutil.copytree(done.parent, tmp_path / "project", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project" / done.name


def files(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def fails(capsys, *argv, status=1):
    """Run a command that has to fail and return its error text."""
    capsys.readouterr()
    assert cli.main([str(word) for word in argv]) == status
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    lines = shown.err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    return "\n".join(itertools.dropwhile(lambda line: not line.startswith("error: "), lines))


@pytest.fixture
def terminal(monkeypatch):
    screen = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr("kipoi_deepmr.cli.arguments.sys", SimpleNamespace(stderr=screen))


def test_a_file_gets_no_progress_bar(config, capsys):
    assert cli.main(["run", "config.yaml", "-o", "out.zarr", "--device", "cpu"]) == 0
    assert "mutants/s" not in capsys.readouterr().err


def test_run_shows_progress_and_the_global_table(config, capsys, terminal):
    assert cli.main(["run", "config.yaml", "-o", "new/out.zarr", "--device", "cpu", "--batch-size", "16"]) == 0
    shown = capsys.readouterr()
    assert "4/4 sequences: 100%" in shown.err
    assert "mutants/s" in shown.err
    assert "wrote new/out.zarr: open it with xarray.open_datatree('new/out.zarr', engine='zarr')" in shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith("Global model-implied effects")
    assert len(lines) == 3 + 2 * 2
    assert max(map(len, lines)) <= 100
    assert open_results("new/out.zarr")["effects"]["completed"].all()


def test_quiet_shows_no_bar_and_twice_no_warnings(config, capsys, terminal):
    settings = yaml.safe_load(config.read_text())
    settings["sequences"]["per_exposure"] = 25
    config.write_text(yaml.safe_dump(settings))
    for flags, words in ([[], ["only 3 of 25", "mutants/s"]], [["-q"], ["only 3 of 25"]], [["-q", "--quiet"], []]):
        assert cli.main(["run", "config.yaml", "-o", "out.zarr", "--device", "cpu", "--overwrite", *flags]) == 0
        said = capsys.readouterr().err
        for word in ("only 3 of 25", "mutants/s"):
            assert (word in said) == (word in words)


def test_hyphens_and_underscores_are_one(config):
    spellings = [["--batch_size", "8", "--num_workers", "0"], ["--batch-size", "8", "--num-workers", "0"]]
    for extra in [*spellings, ["--batch_size=8", "-n", "0"]]:
        assert (
            cli.main(["run", "config.yaml", "--output", "out.zarr", "--device=cpu", "-qq", "--overwrite", *extra]) == 0
        )
    for spelling in ("--min_f", "--min-f"):
        assert cli.main(["mr", "out.zarr", spelling, "1.5", "-q"]) == 0
        assert open_results("out.zarr")["local"].attrs["min_f"] == 1.5


def test_resume_and_overwrite(finished, capsys):
    said = fails(capsys, "run", "config.yaml", "-o", "out.zarr", "--device", "cpu")
    assert "--resume" in said
    assert "--overwrite" in said
    for choice in ("--resume", "--overwrite"):
        assert cli.main(["run", "config.yaml", "-o", "out.zarr", "--device", "cpu", "-q", choice]) == 0
    assert "effects resumed" not in open_results("out.zarr").attrs["history"]
    assert cli.main(["run", "config.yaml", "-o", "out.zarr", "--resume", "--overwrite"]) == 2


def test_mr_estimates_again_without_the_model(finished, capsys):
    shutil.rmtree(finished.parent / "model")
    assert cli.main("mr out.zarr --methods ivw --min_f 0.5 --alpha 0.1 --tau2 DL --test knha".split()) == 0
    shown = capsys.readouterr().out
    assert "90% interval" in shown
    assert "egger" not in shown
    results = open_results("out.zarr")
    assert results["global"].attrs["tau2_method"] == "DL"
    assert results["global"].attrs["test"] == "knha"
    assert json.loads(results.attrs["config"])["mr"] == {
        "methods": ["ivw"],
        "min_f": 0.5,
        "alpha": 0.1,
        "bidirectional": False,
    }


def test_mr_explains_what_is_not_allowed(finished, capsys):
    before = files(finished.parent)
    assert "Did you mean 'egger'" in fails(capsys, "mr", "out.zarr", "--methods", "eger")
    assert "mr.alpha" in fails(capsys, "mr", "out.zarr", "--alpha", "1.5")
    assert "meta.method" in fails(capsys, "mr", "out.zarr", "--tau2", "XX")
    assert "meta.test" in fails(capsys, "mr", "out.zarr", "--test", "knhb")
    assert "not valid YAML" in fails(capsys, "mr", "out.zarr", "--methods", "{name: x")
    assert "controls.permuted_exposure" in fails(capsys, "mr", "out.zarr", "--permuted_exposure", "-1")
    assert "mr.min_f" in fails(capsys, "mr", "out.zarr", "--min_f", "-1")
    assert "does not exist" in fails(capsys, "mr", "absent.zarr")
    assert "no store of kipoi_deepmr" in fails(capsys, "mr", ".")
    assert "no store of kipoi_deepmr" in fails(capsys, "mr", "config.yaml")
    assert files(finished.parent) == before


def test_tasks_lists_outputs_and_their_occurrences(config, capsys):
    assert cli.main(["tasks", "model", "--source", "dir"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines == [
        "index  label",
        "    0  TF1",
        "    1  TF2  occurrence: 1",
        "    2  TF2  occurrence: 2",
        "    3  DNase",
    ]
    assert "4 of 4 outputs" in shown.err
    assert cli.main(["tasks", "model", "--source=dir", "--match", "TF2*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"index": 1, "label": "TF2", "occurrence": 1, "name": "TF2#1"},
        {"index": 2, "label": "TF2", "occurrence": 2, "name": "TF2#2"},
    ]
    assert cli.main(["tasks", "model", "--source", "dir", "--match", "X*"]) == 1
    assert "none of the 4 outputs matches 'X*'" in capsys.readouterr().err
    assert cli.main(["tasks", "model", "--source", "dir", "--match", "X*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert "model.yaml" in fails(capsys, "tasks", "absent", "--source", "dir")
    assert "unknown Kipoi source" in fails(capsys, "tasks", "model", "--source", "nowhere")


def test_check_in_words_and_as_json(config, capsys):
    before = files(config.parent)
    assert cli.main(["check", "config.yaml", "--device", "cpu"]) == 0
    words = capsys.readouterr().out
    assert set(files(config.parent)) - set(before) <= {config.parent / "genome.fa.fai"}
    for word in ("exposures   A: output 0 TF1", "B: output 2 TF2", "dropout", "4 sequences x 8 positions = 96 mutants"):
        assert word in words
    assert cli.main(["check", "config.yaml", "--device", "cpu", "--json", "--batch_size", "5"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["mutants"] == 96
    assert report["batch_size"] == 5
    assert report["exposures"]["B"]["index"] == 2
    assert report["notes"] == []


def fill(path, changes):
    """Fill in the paths of a draft as a user would."""
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_a_draft_is_accepted_and_checked_once_its_paths_are_filled_in(config, capsys, folder):
    (folder / "sub").mkdir()
    argv = ["init", "model", "--source", "dir", "-o", "sub/draft.yaml", "--exposure", "TF*", "--outcome", "DN*"]
    assert cli.main(argv) == 0
    assert "kipoi deepmr check sub/draft.yaml" in capsys.readouterr().err
    draft = load_config("sub/draft.yaml")
    assert list(draft.exposures) == ["TF1", "TF2#1", "TF2#2"]
    assert list(draft.outcomes) == ["DNase"]
    for section in ("sequences", "uncertainty", "effects", "mutagenesis", "mr", "meta"):
        assert getattr(draft, section) == type(getattr(draft, section))()
    fill(
        folder / "sub/draft.yaml",
        {"genome.fa": "../genome.fa"}
        | {f"peaks/{name}.narrowPeak.gz": "../peaks/A.bed" for name in ("TF1", "TF2_1", "TF2_2")},
    )
    assert cli.main(["check", "sub/draft.yaml", "--device", "cpu", "-qq"]) == 0
    assert "exists" in fails(capsys, *argv)
    assert cli.main([*argv, "--overwrite"]) == 0
    assert "TF9" in fails(capsys, "init", "model", "--source", "dir", "--exposure", "TF9")
    assert "cannot be written" in fails(capsys, "init", "model", "--source", "dir", "-o", "absent/draft.yaml")


def test_a_draft_goes_to_the_terminal_without_an_output(config, capsys):
    assert cli.main(["init", "model", "--source", "dir"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["exposures"] == {"TF1": {"task": "TF1", "peaks": "peaks/TF1.narrowPeak.gz"}}
    assert settings["outcomes"] == {"DNase": {"task": "DNase"}}
    assert settings["sequences"]["per_exposure"] == 25


@pytest.mark.parametrize(
    ("labels", "exposure", "outcome"),
    [
        (["a_DNase", "b_DNase"], "b_DNase", "a_DNase"),
        (["x", "y"], "x", "y"),
        (["ATAC", "TF: 1 [x], #2", "z"], "TF: 1 [x], #2", "ATAC"),
    ],
)
def test_a_draft_never_takes_one_output_for_both_sides(folder, labels, exposure, outcome, capsys):
    write_model(folder / "model", labels=labels, outputs=len(labels), kwargs={"outputs": len(labels)})
    assert cli.main(["init", "model", "--source", "dir", "-o", "draft.yaml"]) == 0
    draft = load_config("draft.yaml")
    assert [task.task for task in draft.exposures.values()] == [exposure]
    assert [task.task for task in draft.outcomes.values()] == [outcome]
    assert cli.main(["init", "model", "--source", "dir", "-o", "all.yaml", "--exposure", "*"]) == 0
    assert outcome not in load_config("all.yaml").exposures


def test_a_model_of_one_output_has_no_draft(folder, capsys):
    write_model(folder / "model", labels=["x"], outputs=1, kwargs={"outputs": 1})
    assert "two different outputs" in fails(capsys, "init", "model", "--source", "dir")


SUGGESTED = """
postprocessing:
  deepmr:
    exposures:
      first: {task: TF1}
      second: {task: TF2, occurrence: 2, peaks: mine.bed}
      third: 1
    outcomes:
      open: DNase
    dataloader: {args: {use_strand: true}}
    sequences: {chromosomes: [chr1, chr2, chr3, chr4, chr5, chr6, chr7, chr8, chr9, chr10, chr11, chr12, chr13, chr14]}
    uncertainty: {draws: 7}
    effects: {scale: logit}
"""


def test_a_model_authors_block_is_honoured(folder, capsys):
    write_model(folder / "model", more=SUGGESTED)
    assert cli.main(["init", "model", "--source", "dir", "-o", "draft.yaml"]) == 0
    draft = load_config("draft.yaml")
    assert {name: one.peaks for name, one in draft.exposures.items()} == {
        "first": "peaks/first.narrowPeak.gz",
        "second": "mine.bed",
        "third": "peaks/third.narrowPeak.gz",
    }
    assert draft.outcomes["open"].task == "DNase"
    assert draft.dataloader.args == {"fasta_file": "genome.fa", "use_strand": True}
    assert draft.sequences.chromosomes[-1] == "chr14"
    assert draft.uncertainty.draws == 7
    assert draft.effects.scale == "logit"
    assert cli.main(["init", "model", "--source", "dir", "--exposure", "TF1"]) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)["exposures"]) == ["TF1"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{exposure: {}}", ["unknown key 'exposure'", "Did you mean 'exposures'"]),
        ("{uncertainty: {draw: 7}}", ["unknown key 'draw'", "Did you mean 'draws'"]),
        ("{uncertainty: 7}", ["uncertainty", "expected keys"]),
        ("{effects: {scale: probit}}", ["effects.scale", "probit"]),
    ],
)
def test_a_wrong_block_of_a_model_author_is_named(folder, capsys, block, said):
    write_model(folder / "model", more=f"postprocessing: {{deepmr: {block}}}")
    shown = fails(capsys, "init", "model", "--source", "dir")
    assert "postprocessing: deepmr:" in shown
    for word in said:
        assert word in shown


def replaced(old, new):
    def spoil(folder):
        text = (folder / "config.yaml").read_text()
        assert old in text
        (folder / "config.yaml").write_text(text.replace(old, new))

    return spoil


def peaks(text):
    return lambda folder: (folder / "peaks/A.bed").write_text(text)


def network(old, new):
    return lambda folder: write_model(folder / "model", code=CONVOLUTION.replace(old, new))


BAD = {
    "unknown task": (replaced("task: TF1", "task: TF11"), ["exposures.A.task", "TF11", "Did you mean 'TF1'"]),
    "ambiguous label": (replaced("    occurrence: 2\n", ""), ["exposures.B.task", "occurrence 2 (index 2)"]),
    "exposure is outcome": (replaced("task: TF1", "task: DNase"), ["exposures.A and outcomes.open"]),
    "empty peaks": (peaks(""), ["peaks/A.bed"]),
    "two columns": (peaks("chr1\t1\t2\nchr1\t5\n"), ["peaks/A.bed", "2"]),
    "no integers": (peaks("chr1\t1\t2\nchr1\ta\tb\n"), ["peaks/A.bed", "2", "'a'"]),
    "start > end": (peaks("chr1\t1\t2\nchr1\t9\t5\n"), ["peaks/A.bed", "2"]),
    "contig mismatch": (peaks("1\t100\t140\n"), ["peaks/A.bed", "genome.fa", "chr1"]),
    "tabs": (replaced("  task: DNase", "\ttask: DNase"), ["config.yaml", "line", "tab"]),
    "misspelt key": (replaced("uncertainty:", "uncertanty:"), ["line", "uncertanty", "Did you mean 'uncertainty'"]),
    "one draw": (replaced("draws: 4", "draws: 1"), ["uncertainty.draws", "at least 2"]),
    "no sequences": (replaced("    peaks: peaks/A.bed\n", ""), ["no sequences for A"]),
    "NaN": (network("return self", "return float('nan') * self"), ["nan", "output 0"]),
    "no dropout": (network("nn.Dropout(p)", "nn.Identity()"), ["uncertainty.method", "no dropout runs"]),
    "profile": (
        network("return self.last(self.second(self.first(x)))", "return self.first(x)"),
        ["(batch, tasks)", "(4, 8, 15)"],
    ),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["check", "run"])
def test_bad_input_costs_one_line_and_no_store(finished, capsys, kind, command):
    spoil, said = BAD[kind]
    folder = finished.parent
    before = files(folder / "out.zarr")
    spoil(folder)
    more = ["-o", "out.zarr", "--overwrite"] if command == "run" else []
    shown = fails(capsys, command, "config.yaml", "--device", "cpu", *more)
    for word in said:
        assert word in shown
    assert files(folder / "out.zarr") == before
    assert not [p for p in folder.iterdir() if p.name.startswith("out.zarr.")]


def test_a_missing_configuration_and_a_folder_are_named(config, capsys):
    for command in ("check", "run"):
        more = ["-o", "out.zarr"] if command == "run" else []
        assert "absent.yaml" in fails(capsys, command, "absent.yaml", *more)
        assert "project" in fails(capsys, command, str(config.parent), *more)


def test_outputs_that_cannot_be(config, capsys, monkeypatch):
    (config.parent / "OUT.zarr").mkdir()
    (config.parent / "OUT.zarr/thesis.tex").write_text("mine")
    for flag in ([], ["--overwrite"], ["--resume"]):
        assert "no store of kipoi_deepmr" in fails(capsys, "run", "config.yaml", "-o", "OUT.zarr", *flag)
        assert "no store of kipoi_deepmr" in fails(capsys, "run", "config.yaml", "-o", "config.yaml", *flag)
    assert (config.parent / "OUT.zarr/thesis.tex").read_text() == "mine"
    assert "a file, not a folder" in fails(capsys, "run", "config.yaml", "-o", "config.yaml/out.zarr")
    with monkeypatch.context() as patch:
        # A superuser may write anywhere, so the answer of the system is replaced.
        patch.setattr(os, "access", lambda *_: False)
        assert "read-only" in fails(capsys, "run", "config.yaml", "-o", "out.zarr")


def test_a_full_disk_exits_1_and_keeps_the_completed(config, capsys, monkeypatch):
    original, count = zarr.storage.LocalStore.set, itertools.count()

    async def write(self, key, value, *args, **kwargs):
        if "exposure_se/c" in key and next(count) >= 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        await original(self, key, value, *args, **kwargs)

    argv = ["run", "config.yaml", "-o", "out.zarr", "--device", "cpu", "--batch_size", "1", "-q"]
    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", write)
        assert "disk is full" in fails(capsys, *argv)
    assert int(open_results("out.zarr")["effects"]["completed"].sum()) == 1
    assert cli.main([*argv, "--resume"]) == 0


def test_interrupted_in_process(config, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    # The package offers the function under the name of its module.
    monkeypatch.setattr(importlib.import_module("kipoi_deepmr.predict.prepare"), "load_model", interrupt)
    assert cli.main(["run", "config.yaml", "-o", "out.zarr"]) == 130
    assert "run --resume" in capsys.readouterr().err
    assert cli.main(["check", "config.yaml"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


@pytest.mark.parametrize("argv", [[], ["rum"], ["run", "config.yaml"], ["run", "--batch_size", "x", "c", "-o", "o"]])
def test_wrong_usage_exits_2(argv, capsys):
    assert cli.main(argv) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["tasks"], ["init"], ["check"], ["run"], ["mr"]])
def test_help_of_every_command(command, capsys):
    assert cli.main([*command, "--help"], prog="kipoi deepmr") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: kipoi deepmr")
    assert max(map(len, shown.splitlines())) <= 120


def test_times_in_words():
    words = {
        0: "0.1 s", 59.94: "59.9 s", 59.97: "1.0 min", 119: "2.0 min", 3599: "1 h 0 min", 7199: "2 h 0 min",
        86399: "1 d 0 h", 172799: "2 d 0 h", 90000: "1 d 1 h",
    }  # fmt: skip
    assert {seconds: cli.check.duration(seconds) for seconds in words} == words


def test_control_c_exits_130_and_the_run_resumes(folder):
    write_project(folder, {"mutagenesis": {"positions": [15, 45]}, "uncertainty": {"draws": 100}})
    command = [*PYTHON, "run", "config.yaml", "-o", "out.zarr", "--batch_size", "2", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any((folder / "out.zarr/effects/completed/c").glob("[0-9]*")):
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.002)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted: completed sequences are kept; go on with `run --resume`" in err
    assert "Traceback" not in err
    assert not out
    assert 1 <= int(open_results("out.zarr")["effects"]["completed"].sum()) < 4
    resumed = subprocess.run([*command, "--resume", "-q"], capture_output=True, text=True, check=True)
    assert "Global model-implied effects" in resumed.stdout
    assert "mutants/s" not in resumed.stderr


def test_a_reader_that_leaves_early_gets_no_traceback(folder):
    labels = [f"a label that fills the buffer of the pipe {index}" for index in range(4000)]
    write_model(folder / "model", labels=labels, outputs=4000, kwargs={"outputs": 4000})
    shell = f"{' '.join(PYTHON)} tasks model --source dir | head -n 1"
    shown = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True)
    assert shown.stdout == "index  label\n"
    assert "Error" not in shown.stderr


def test_errors_of_a_real_process(folder):
    write_genome(folder / "genome.fa", {"chr1": 500})
    write_peaks(folder / "peaks.bed", [("chr1", 10, 20)])
    (folder / "config.yaml").write_text("model: {name: x, source: dir}\nexposure: {}\n")
    shown = subprocess.run([*PYTHON, "check", "config.yaml"], capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: config.yaml is not a valid configuration:")
    assert "Did you mean 'exposures'" in shown.stderr
    assert not shown.stdout
    shown = subprocess.run([*PYTHON, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("kipoi_deepmr ")
