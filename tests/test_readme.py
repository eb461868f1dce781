"""The README's commands are those that work."""

import doctest
import re

import numpy as np
import pytest
import xarray as xr
import yaml

from tests.readme import README, ROOT, marked_block


@pytest.mark.example
def test_the_main_command_finds_the_true_effects(example):
    stdout, output = example
    results = xr.open_datatree(output, engine="zarr")
    rows = (ROOT / "examples/simulated_tf_accessibility/truth.tsv").read_text().splitlines()[1:]
    truth = {row.split("\t")[0]: float(row.split("\t")[3]) for row in rows}
    local = results["local"].estimate.sel(estimator="ivw", outcome="accessibility")
    overall = results["global"].estimate.sel(estimator="ivw", outcome="accessibility")
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
    assert len(examples.examples) == 15
    assert (folder / "foxa1.png").stat().st_size > 5000


def test_the_configuration_in_the_readme_is_valid(tmp_path):
    from kipoi_deepmr.config import load_config

    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml")
    assert config.exposures["FOXA1"].task == "HepG2_FOXA1_None"


def test_the_configuration_in_the_readme_shows_the_defaults():
    from kipoi_deepmr.config import Config

    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    checked = 0
    for name in ("sequences", "uncertainty", "effects", "mutagenesis", "mr", "meta", "controls"):
        defaults = Config.model_fields[name].annotation().model_dump(mode="json")
        for key, value in shown[name].items():
            if key != "chromosomes":
                assert value == defaults[key], f"{name}.{key}"
                checked += 1
    assert checked > 12


def test_every_command_in_the_readme_exists(capsys):
    from kipoi_deepmr.cli import main

    for command in set(re.findall(r"`kipoi deepmr (\w+)", README)):
        assert main([command, "--help"]) == 0
        assert command in capsys.readouterr().out
