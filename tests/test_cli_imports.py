"""What a command loads: reading and estimating need neither a network nor Kipoi, help needs the standard library alone."""

import json
import subprocess
import sys

import pytest

from kipoi_deepmr import cli
from tests.small_stores import write_store

NETWORKS = ["torch", "kipoi", "kipoiseq", "kipoi_deepmr.predict", "kipoi_deepmr.running", "kipoi_deepmr.model"]
HEAVY = [*NETWORKS, "numpy", "pandas", "pydantic", "scipy", "xarray", "yaml", "zarr"]
# After each command on its own; what an earlier one has loaded would be found after the later ones, too.
LOADED = """
import json, os, sys
from contextlib import redirect_stdout
from kipoi_deepmr.cli import main

commands, unwanted = json.loads(sys.argv[1])
found = {}
for command in commands:
    with redirect_stdout(open(os.devnull, "w")):
        assert main(command) == 0, command
    found[" ".join(command)] = [name for name in unwanted if name in sys.modules]
print(json.dumps(found))
"""


def loaded(commands, unwanted, folder):
    given = json.dumps([commands, unwanted])
    done = subprocess.run(
        [sys.executable, "-c", LOADED, given], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_and_version_load_nothing_heavy(tmp_path):
    names = [command.__name__.rpartition(".")[-1] for command in cli._COMMANDS]
    commands = [["--help"], ["--version"], *([name, "--help"] for name in names)]
    assert loaded(commands, HEAVY, tmp_path) == {" ".join(command): [] for command in commands}


def test_what_reads_a_store_loads_no_network_and_no_kipoi(tmp_path):
    pytest.importorskip("matplotlib")
    write_store(tmp_path)
    commands = [
        ["mr", "out.zarr", "--permuted_exposure", "2"],
        ["report", "out.zarr", "-o", "report.html"],
        ["plot", "out.zarr", "--kind", "scatter", "--exposure", "CTCF", "-o", "scatter.svg"],
        *(["export", "out.zarr", "--format", name, "-o", name] for name in ("tsv", "bedgraph", "bed", "vcf")),
    ]
    assert loaded(commands, NETWORKS, tmp_path) == {" ".join(command): [] for command in commands}
