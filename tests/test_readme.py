"""The README's commands are those that work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def marked_block(name: str) -> str:
    """Return the fenced block after a comment such as ``<!-- ci: example -->``."""
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no block after <!-- {name} -->"
    return found[1].strip()


@pytest.mark.example
def test_the_main_command_finds_the_true_effects(tmp_path):
    install, command = marked_block("ci: example").rsplit(" && ", 1)
    assert install == 'python3 -m venv .venv && .venv/bin/pip install "torch==2.13.0" .'
    words = shlex.split(command)
    assert words[:3] == [".venv/bin/kipoi", "deepmr", "run"]
    words[0] = str(Path(sys.executable).with_name("kipoi"))
    output = tmp_path / words[-1]
    words[-1] = str(output)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    results = xr.open_datatree(output, engine="zarr")
    rows = (ROOT / "examples/simulated_tf_accessibility/truth.tsv").read_text().splitlines()[1:]
    truth = {row.split("\t")[0]: float(row.split("\t")[3]) for row in rows}
    local = results["local"]["estimate"].sel({"method": "ivw", "outcome": "accessibility"})
    overall = results["global"]["estimate"].sel({"method": "ivw", "outcome": "accessibility"})
    assert set(truth) == set(local["exposure"].values)
    for exposure, effect in truth.items():
        assert np.nanmedian(local.sel(exposure=exposure).values) == pytest.approx(effect, abs=0.15)
        assert float(overall.sel(exposure=exposure)) == pytest.approx(effect, abs=0.15)
    # The table in the README is what this command prints (estimates to the digits shown there).
    given, printed = (
        re.findall(r"^ *(\w+) accessibility +(\w+) +(-?[\d.e-]+)", t, re.MULTILINE)
        for t in (
            marked_block("example output"),
            done.stdout,
        )
    )
    assert [row[:2] for row in given] == [row[:2] for row in printed]
    for ours, theirs in zip(given, printed, strict=True):
        assert float(ours[2]) == pytest.approx(float(theirs[2]), abs=2e-3)


def test_the_configuration_in_the_readme_is_valid(tmp_path):
    from kipoi_deepmr.config import load_config

    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml")
    assert config.exposures["FOXA1"].task == "HepG2_FOXA1_None"


def test_every_command_in_the_readme_exists(capsys):
    from kipoi_deepmr.cli import main

    for command in set(re.findall(r"`kipoi deepmr (\w+)", README)):
        assert main([command, "--help"]) == 0
        assert command in capsys.readouterr().out
