"""A store of another format is refused at every door, in one sentence that says what to do; it may be replaced."""

import json
import shutil

import pytest
import yaml

from kipoi_deepmr import __version__, cli
from kipoi_deepmr.cube import Cube, Template, open_results
from kipoi_deepmr.errors import StoreError
from tests.small_stores import write_store


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format")
    config = json.loads(open_results(write_store(folder)).attrs["config"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def store(written, tmp_path):
    return shutil.copytree(written, tmp_path / "project") / "out.zarr"


def numbered(store, number):
    """Write another number into a store, or none."""
    root = store / "zarr.json"
    metadata = json.loads(root.read_text())
    metadata["attributes"] |= {"format": number, "source": "kipoi_deepmr 9.9.9"}
    if number is None:
        del metadata["attributes"]["format"]
    root.write_text(json.dumps(metadata))


def made_by_0_1(store):
    """Give a store the names of version 0.1, which called the dimension `method`."""
    for file in store.rglob("zarr.json"):
        file.write_text(file.read_text().replace('estimator"', 'method"'))
    for folder in list(store.rglob("estimator")):
        folder.rename(folder.with_name("method"))
    numbered(store, None)


DOORS = {
    "run": ["run", "config.yaml", "-o", "out.zarr"],
    "run --resume": ["run", "config.yaml", "-o", "out.zarr", "--resume"],
    "mr": ["mr", "out.zarr"],
    "report": ["report", "out.zarr", "-o", "report.html"],
    "plot": ["plot", "out.zarr", "--kind", "forest", "-o", "forest.svg"],
    **{name: ["export", "out.zarr", "--format", name, "-o", "files"] for name in ("tsv", "vcf")},
}


def test_a_store_says_its_format(store):
    assert open_results(store).attrs["format"] == 2


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_a_store_of_version_0_1(store, door, monkeypatch, capsys):
    made_by_0_1(store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    monkeypatch.chdir(store.parent)
    assert cli.main(DOORS[door]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "out.zarr is a store of format 1, written by kipoi_deepmr 9.9.9" in line
    assert f"kipoi_deepmr {__version__} reads format 2: make it again with `run --overwrite`" in line
    assert '`pip install "kipoi_deepmr<0.2"`' in line
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


@pytest.mark.parametrize("number", [3, "x", 2.5])
def test_a_format_of_the_future_asks_for_a_newer_version(store, number):
    numbered(store, number)
    for opening in (open_results, Cube):
        with pytest.raises(StoreError, match=rf'format {number}, .*`pip install "kipoi_deepmr>{__version__}"`'):
            opening(store)


def test_a_store_of_version_0_1_may_be_replaced_but_for_what_is_not_ours(store):
    effects = open_results(store)["effects"]
    coords = {name: variable.values for name, variable in effects.coords.items() if name != "completed"}
    template = Template(coords, "identity", "posterior", {"config_sha256": "0", "scale": "identity"})
    made_by_0_1(store)
    (store / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match=r"did not write \(thesis.tex\)"):
        Cube.create(store, template, overwrite=True)
    (store / "thesis.tex").unlink()
    Cube.create(store, template, overwrite=True)
    assert open_results(store).attrs["format"] == 2
