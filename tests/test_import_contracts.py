"""The import rules of pyproject.toml are a picture of the whole house: what is not in it, or against it, is told."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A file of its own in each room, so that every fault is told for itself.
FORBIDDEN = [
    ("cube", "torch"),
    ("estimate", "torch"),
    ("estimate", "kipoi"),
    ("estimate", "kipoiseq"),
    ("estimate", "kipoi_deepmr.predict"),
    ("estimate", "kipoi_deepmr.report"),
    ("tables", "torch"),
    ("report", "kipoi_deepmr.model"),
    ("plots", "kipoi"),
    ("exports", "kipoi_deepmr.predict"),
    ("tracks", "torch"),
    ("config", "numpy"),
    ("sequences", "xarray"),
    ("sequences", "kipoi_deepmr.config"),
    ("model", "pandas"),
    ("model", "kipoi_deepmr.cube"),
    ("mutagenesis", "kipoi"),
    ("mutagenesis", "kipoi_deepmr.model"),
    ("uncertainty", "xarray"),
    ("mr", "kipoi_deepmr.terms"),
    ("mr", "kipoi_deepmr.estimators"),
    ("mr", "kipoi_deepmr.meta"),
    ("meta", "pandas"),
    ("predict", "kipoi_deepmr.running"),
    ("predict", "kipoi_deepmr.estimate"),
]


def lint(folder):
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the linter says of a copy with every fault."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "kipoi_deepmr", folder / "kipoi_deepmr", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    package = folder / "kipoi_deepmr"
    for number, (room, module) in enumerate(FORBIDDEN):
        (package / room / f"wrong_{number}.py").write_text(f"import {module}\n")
    (package / "attic.py").write_text("")
    (package / "cellar").mkdir()
    (package / "cellar/__init__.py").write_text("")
    status, said = lint(folder)
    assert status == 1
    return said


@pytest.mark.parametrize(("number", "room", "module"), [(n, *fault) for n, fault in enumerate(FORBIDDEN)])
def test_a_forbidden_import_is_told(told, number, room, module):
    assert re.search(rf"kipoi_deepmr\.{room}\.wrong_{number} -> {re.escape(module)}\b", told), told


@pytest.mark.parametrize("room", ["attic", "cellar"])
def test_a_room_that_is_in_no_contract_is_an_error(told, room):
    undeclared = re.search(r"not listed as layers.*?\n\n(.*?)\n\n", told, re.DOTALL)
    assert undeclared and f"kipoi_deepmr.{room}" in undeclared[1], told
