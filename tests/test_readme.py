"""The README's commands are those that work."""

import doctest
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


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """What the main command prints, and the store that it writes."""
    install, command = marked_block("ci: example").rsplit(" && ", 1)
    assert install == 'python3 -m venv .venv && .venv/bin/pip install "torch==2.13.0" .'
    words = shlex.split(command)
    assert words[:3] == [".venv/bin/kipoi", "deepmr", "run"]
    words[0] = str(Path(sys.executable).with_name("kipoi"))
    output = tmp_path_factory.mktemp("example") / words[-1]
    words[-1] = str(output)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout, output


@pytest.mark.example
def test_the_main_command_finds_the_true_effects(example):
    stdout, output = example
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
            stdout,
        )
    )
    assert [row[:2] for row in given] == [row[:2] for row in printed]
    for ours, theirs in zip(given, printed, strict=True):
        assert float(ours[2]) == pytest.approx(float(theirs[2]), abs=2e-3)


@pytest.mark.example
def test_the_chapter_about_xarray_is_what_xarray_does(example, monkeypatch):
    import kipoi_deepmr

    folder = example[1].parent
    config = kipoi_deepmr.load_config(ROOT / "examples/simulated_tf_accessibility/config.yaml")
    again = config.model_copy(update={"uncertainty": config.uncertainty.model_copy(update={"seed": 2})})
    kipoi_deepmr.run(again, folder / "seed-2.zarr", device="cpu", progress=False)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    chapter = re.search(r"^## Work with the results in xarray$(.*?)^## ", README, re.DOTALL | re.MULTILINE)[1]
    told: list[str] = []
    examples = doctest.DocTestParser().get_doctest(chapter, {}, "README.md", None, 0)
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=told.append)
    assert not told, "".join(told)
    assert len(examples.examples) > 15
    assert (folder / "foxa1.png").stat().st_size > 5000


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
