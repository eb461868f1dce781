"""What `export` leaves behind: whole files or none, and clear words when it cannot."""

import errno
import io
import json
import subprocess
import sys
import time

import pandas as pd
import pytest

from kipoi_deepmr import cli, export
from kipoi_deepmr.cli import export as command
from kipoi_deepmr.errors import DependencyError, OutputError, SelectionError, StoreError
from kipoi_deepmr.exports import FORMATS, files
from kipoi_deepmr.exports.files import Files
from kipoi_deepmr.exports.writers import TextTable, index_ending
from kipoi_deepmr.tracks import SUMMARIES
from tests.small_stores import write_store

FILES = {
    "tsv": "harmonised.tsv single_variant.tsv leave_one_out.tsv local.tsv global.tsv",
    "parquet": "harmonised.parquet single_variant.parquet leave_one_out.parquet local.parquet global.parquet",
    "bedgraph": "exposure.CTCF.mean.bedgraph outcome.open.mean.bedgraph",
    "bigwig": "exposure.CTCF.mean.bw outcome.open.mean.bw",
    "bed": "CTCF.open.egger.bed CTCF.open.ivw.bed",
    "vcf": "variants.vcf",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("exports"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_command_line_has_the_formats_and_summaries():
    assert set(command._FORMATS) == set(FORMATS) == set(FILES)
    assert set(command._SUMMARIES) == set(SUMMARIES)


@pytest.mark.parametrize("form", FILES)
def test_every_format_from_the_command_line(store, tmp_path, capsys, form):
    argv = ["export", str(store), "--format", form, "-o", str(tmp_path / "new" / "out"), "--exposure", "CTCF"]
    assert cli.main(argv) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == [str(tmp_path / "new/out" / name) for name in FILES[form].split()]
    assert "wrote " in shown.err
    assert "100%" in shown.err or form == "vcf"  # N makes fewer variants than the bar awaits
    assert names(tmp_path / "new/out") == sorted(FILES[form].split())
    assert cli.main([*argv, "--json", "-q", "--overwrite"]) == 0
    shown = capsys.readouterr()
    assert [line.rsplit("/", 1)[1] for line in json.loads(shown.out)] == FILES[form].split()
    assert shown.err == ""


@pytest.mark.parametrize("form", ["bed", "bedgraph", "bigwig", "vcf"])
def test_names_do_not_depend_on_what_is_chosen(store, tmp_path, form):
    # TF#1, which comes first, is spelled TF_1.
    paths = export(store, form, tmp_path, exposure=["TF 1"])
    if form == "vcf":
        assert "EFFECT_TF_1_2=" in paths[0].read_text()
        assert "EFFECT_TF_1=" not in paths[0].read_text()
    else:
        assert "TF_1_2." in paths[0].name


@pytest.mark.parametrize("form", FILES)
def test_existing_files_stay_unless_asked(store, tmp_path, form):
    options = {"exposure": ["CTCF"]}
    name = FILES[form].split()[-1]
    (tmp_path / name).write_text("mine")
    (tmp_path / "other.txt").write_text("mine, too")
    with pytest.raises(OutputError, match=rf"{name} exists.*--overwrite"):
        export(store, form, tmp_path, **options)
    assert names(tmp_path) == sorted([name, "other.txt"])
    assert (tmp_path / name).read_text() == "mine"
    export(store, form, tmp_path, overwrite=True, **options)
    assert names(tmp_path) == sorted([*FILES[form].split(), "other.txt"])
    assert (tmp_path / name).read_bytes() != b"mine"
    assert (tmp_path / "other.txt").read_text() == "mine, too"


@pytest.mark.parametrize("form", FILES)
def test_a_full_disk_leaves_nothing_new_behind(store, tmp_path, monkeypatch, form):
    for name in FILES[form].split():
        (tmp_path / name).write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OutputError, match=r"No space left on device\. The disk is full"):
        export(store, form, tmp_path, exposure=["CTCF"], overwrite=True)
    assert {(tmp_path / name).read_text() for name in FILES[form].split()} == {"old"}


def test_a_disk_that_is_full_is_told_and_cleared(store):
    """Where files may not grow, those that were begun are gone afterwards."""
    forms = ["tsv", "vcf", "bedgraph"]
    script = (
        "import resource, signal, sys\n"
        "from kipoi_deepmr import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        f"for form in {forms}:\n"
        f"    argv = ['export', {str(store)!r}, '--format', form, '-q', '-o', sys.argv[1] + form]\n"
        "    assert cli.main(argv) == 1\n"
    )
    command = [sys.executable, "-c", script, f"{store.parent}/full-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(forms)
    for form, error in zip(forms, errors, strict=True):
        assert "cannot be written: File too large" in error
        assert names(store.parent / f"full-{form}") == []
    assert "Traceback" not in done.stderr


def test_an_interrupted_export_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), Files(tmp_path, ["a.tsv", "b.tsv"], overwrite=False) as open_files:
        with open_files.text("a.tsv") as handle:
            handle.write("half")
            raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_where_nothing_can_be_written(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"A file stands where a folder is needed"):
        export(store, "bed", tmp_path / "file")
    with pytest.raises(OutputError, match=r"A file stands where a folder is needed"):
        export(store, "bed", tmp_path / "file" / "below")
    (tmp_path / "CTCF.open.ivw.bed").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        export(store, "bed", tmp_path, exposure=["CTCF"], overwrite=True)


def test_options_that_are_not_known(store, tmp_path):
    with pytest.raises(OutputError, match=r"Did you mean 'bigwig'.*Allowed: tsv"):
        export(store, "bigwigs", tmp_path)
    with pytest.raises(OutputError, match="summary 'median' is not known"):
        export(store, "bigwig", tmp_path, summary="median")
    with pytest.raises(SelectionError, match=r"no exposure 'CTCFL'\. Did you mean 'CTCF'"):
        export(store, "tsv", tmp_path, exposure=["CTCFL"])
    with pytest.raises(SelectionError, match="none of these sequences counts"):
        export(store, "tsv", tmp_path, exposure=["TF 1"], sequence=["chr1:0-12(+)"])
    with pytest.raises(StoreError, match="does not exist"):
        export(tmp_path / "absent.zarr", "tsv", tmp_path)
    assert names(tmp_path) == []


def test_a_name_that_reads_as_nothing_is_refused(tmp_path):
    table = TextTable(io.StringIO())
    table.add(pd.DataFrame({"exposure": ["CTCF", None], "b": [1.0, float("nan")]}))
    with pytest.raises(OutputError, match="column exposure of the table holds the name 'NA'"):
        table.add(pd.DataFrame({"exposure": ["NA"], "b": [1.0]}))


def test_sequences_that_are_not_completed(tmp_path):
    store = write_store(tmp_path, completed=2)
    with pytest.raises(StoreError, match="run --resume"):
        export(store, "vcf", tmp_path / "out", sequence=["chr2:*"])
    assert len(export(store, "tsv", tmp_path / "out")) == 5


@pytest.mark.parametrize(("form", "library"), [("parquet", "pyarrow"), ("bigwig", "pyBigWig"), ("vcf", "pysam")])
def test_a_missing_library_is_named_with_its_extra(store, tmp_path, monkeypatch, form, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyError, match=rf"needs {library}: pip install 'kipoi_deepmr\[export\]'"):
        export(store, form, tmp_path / "out", compress=True)
    assert not (tmp_path / "out").exists()
    if form == "vcf":
        assert len(export(store, form, tmp_path / "out")) == 1


def test_an_export_needs_no_network_library(store, tmp_path):
    script = (
        "import sys, kipoi_deepmr\n"
        f"kipoi_deepmr.export({str(store)!r}, 'vcf', {str(tmp_path)!r})\n"
        "assert not {'torch', 'kipoi', 'kipoiseq'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_contigs_that_are_too_long_for_tbi_get_csi():
    assert index_ending({"chr1": 10, "chr2": 2**29}) == ".tbi"
    assert index_ending({"chr1": 2**29 + 1, "chr2": 10}) == ".csi"


def test_the_same_store_gives_the_same_bytes(store, tmp_path, monkeypatch):
    later = time.time() + 1000
    for form in FILES:
        one = export(store, form, tmp_path / "one", compress=form != "vcf")
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: later)
            two = export(store, form, tmp_path / "two", compress=form != "vcf")
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
