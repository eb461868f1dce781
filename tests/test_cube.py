"""The store: what it holds, how it is laid out, and that nothing is lost when writing fails."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import warnings
from contextlib import suppress

import numpy as np
import pytest
import xarray as xr
import zarr

from kipoi_deepmr import __version__, terms
from kipoi_deepmr.cube import Cube, Template, check_replaceable, explained, locked, open_results, write_estimates
from kipoi_deepmr.effects import Effects
from kipoi_deepmr.errors import StoreError


class Died(BaseException):
    """Stands for a process that is killed."""


SIZES = {"exposure": 3, "outcome": 2, "sequence": 5, "position": 6, "allele": 4}


def text(words):
    return np.array(list(words), dtype=object)


def make_template(scale="logit", **sizes):
    size = {**SIZES, **sizes}
    random = np.random.default_rng(0)
    coords = {
        "exposure": text(f"TF{i}" for i in range(size["exposure"])),
        "outcome": text(f"open{i}" for i in range(size["outcome"])),
        "sequence": text(f"chr1:{i}-{i + 6}(+)" for i in range(size["sequence"])),
        "position": np.arange(10, 10 + size["position"]),
        "allele": text("ACGT"),
        "chrom": text(["chr1"] * size["sequence"]),
        "start": np.arange(size["sequence"]),
        "end": np.arange(size["sequence"]) + 6,
        "strand": text("+" * size["sequence"]),
        "reference_allele": random.choice(text("ACGTN"), (size["sequence"], size["position"])),
        "bound": random.random((size["exposure"], size["sequence"])) > 0.3,
        "exposure_task": text(f"task {i}" for i in range(size["exposure"])),
        "exposure_task_index": np.arange(size["exposure"]),
        "outcome_task": text(f"task {i}" for i in range(size["outcome"])),
        "outcome_task_index": np.arange(size["outcome"]),
    }
    attrs = {"config_sha256": "0" * 64, "history": "", "scale": scale, "standard_error": "posterior"}
    return Template(coords, scale, "posterior", attrs)


def make_block(template, count, seed=0):
    random = np.random.default_rng(seed)
    sizes = {dim: template.size(dim) for dim in SIZES} | {"sequence": count}

    def values(name):
        return random.normal(size=[sizes[dim] for dim in terms.EFFECTS[name].dims])

    effects = Effects(
        *(values(n) for n in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se", "error_covariance"))
    )
    tasks = sizes["exposure"] + sizes["outcome"]
    return effects, random.normal(size=(tasks, count)), random.random((tasks, count))


def make_estimates(value=1.0, methods=("egger", "ivw")):
    shape = [SIZES[dim] for dim in terms.LOCAL_DIMS] + [len(methods)]
    local = xr.Dataset(
        {"estimate": ((*terms.LOCAL_DIMS, terms.ESTIMATOR), np.full(shape, value))}, {"estimator": text(methods)}
    )
    overall = local.isel(sequence=0, drop=True)
    return {"local": local, "global": overall}


def make_store(path, **sizes):
    template = make_template(**sizes)
    store = Cube.create(path, template)
    store.write(0, *make_block(template, 2))
    return template, store


def plain(path):
    """Open a store as a user does; a warning is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_datatree(path, engine="zarr")


def files(path):
    return {p.relative_to(path): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def failing_writes(monkeypatch, error, match, after=0):
    """Let the store's writes of keys that contain `match` fail, after some that succeed."""
    original, count = zarr.storage.LocalStore.set, itertools.count()

    async def write(self, key, value, *args, **kwargs):
        if match in key and next(count) >= after:
            raise error
        await original(self, key, value, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", write)


@pytest.mark.parametrize("scale", ["identity", "logit", "log"])
def test_every_variable_and_coordinate_says_what_it_is(tmp_path, scale):
    template = make_template(scale)
    Cube.create(tmp_path / "out.zarr", template)
    effects = plain(tmp_path / "out.zarr")["effects"].to_dataset()
    assert set(effects.data_vars) == set(terms.EFFECTS)
    assert set(effects.coords) == {*terms.COORDS, *terms.INDEXES} - {"estimator", "draw", "direction"}
    unit = {"identity": "1", "logit": "log odds", "log": "log"}[scale]
    for name, term in terms.EFFECTS.items():
        variable = effects[name]
        assert variable.dims == term.dims
        assert variable.dtype == np.float32
        assert np.isnan(variable).all()
        assert variable.attrs["long_name"] == term.long_name
        assert variable.attrs["scale"] == scale
        assert variable.attrs["standard_error"] == "posterior"
        expected = unit if name != "error_covariance" or unit == "1" else f"({unit})^2"
        assert variable.attrs["units"] == expected
    for name, values in template.coords.items():
        assert effects[name].values.astype(object).tolist() == np.asarray(values).astype(object).tolist()
        assert effects[name].attrs["long_name"]
    assert effects["start"].attrs["units"] == effects["end"].attrs["units"] == "bp"
    assert effects["completed"].dtype == effects["bound"].dtype == bool
    assert not effects["completed"].any()
    assert template.nbytes == sum(effects[name].nbytes for name in terms.EFFECTS)


def test_what_is_written_is_read_and_marked_completed(tmp_path):
    template, store = make_store(tmp_path / "out.zarr")
    effects, reference, sd = make_block(template, 2)
    found = plain(tmp_path / "out.zarr")["effects"].to_dataset()
    assert found["completed"].values.tolist() == [True, True, False, False, False]
    assert store.completed().tolist() == found["completed"].values.tolist()
    written = found.isel(sequence=slice(2))
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se", "error_covariance"):
        np.testing.assert_array_equal(written[name], getattr(effects, name).astype(np.float32))
        assert np.isnan(found[name].isel(sequence=slice(2, None))).all()
    np.testing.assert_array_equal(written["exposure_reference"], reference[:3].astype(np.float32))
    np.testing.assert_array_equal(written["outcome_reference"], reference[3:].astype(np.float32))
    np.testing.assert_array_equal(written["exposure_reference_sd"], sd[:3].astype(np.float32))
    np.testing.assert_array_equal(written["outcome_reference_sd"], sd[3:].astype(np.float32))


def test_strings_work_with_selections_and_pandas(tmp_path):
    make_store(tmp_path / "out.zarr")
    effects = plain(tmp_path / "out.zarr")["effects"].to_dataset().load()
    assert effects.sel(exposure="TF1", allele="C").exposure_effect.shape == (5, 6)
    assert effects.where(effects.chrom == "chr1", drop=True).sizes["sequence"] == 5
    assert effects.sel(sequence=effects.strand == "+").sizes["sequence"] == 5
    frame = effects["exposure_effect"].to_dataframe().reset_index()
    assert frame.loc[frame["exposure"] == "TF2", "exposure_effect"].size == 5 * 6 * 4
    assert set(frame["allele"]) == set("ACGT")
    assert set(frame["chrom"]) == {"chr1"}
    assert effects.groupby("chrom").mean()["exposure_reference"].sizes["chrom"] == 1


def test_a_shard_holds_whole_sequences_and_one_exposure_is_read_alone(tmp_path, monkeypatch):
    make_store(tmp_path / "out.zarr", position=500)
    group = zarr.open_group(tmp_path / "out.zarr" / "effects", mode="r")
    array = group["exposure_effect"]
    assert array.shards == (3, 1, 500, 4)
    assert array.chunks == (1, 1, 500, 4)
    assert group["error_covariance"].shards == (3, 2, 1, 500, 4)
    assert group["error_covariance"].chunks == (1, 1, 1, 500, 4)
    assert len([p for p in (tmp_path / "out.zarr/effects/exposure_effect/c").rglob("*") if p.is_file()]) == 2
    read = []
    original = zarr.storage.LocalStore.get

    async def get(self, key, prototype, byte_range=None):
        value = await original(self, key, prototype, byte_range)
        read.append(0 if value is None else len(value))
        return value

    monkeypatch.setattr(zarr.storage.LocalStore, "get", get)
    one = array[1, 0]
    alone = sum(read)
    assert one.shape == (500, 4)
    shard = (tmp_path / "out.zarr/effects/exposure_effect/c/0/0/0/0").stat().st_size
    assert alone < shard / 2


def test_many_sequences_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("kipoi_deepmr.cube.template._FILES_PER_VARIABLE", 2)
    template = make_template()
    store = Cube.create(tmp_path / "out.zarr", template)
    assert store.shard == 3
    whole = make_block(template, 3, seed=1)
    store.write(0, *whole)
    with pytest.raises(ValueError, match="multiple of the shard of 3"):
        store.write(1, *whole)
    store.write(3, *make_block(template, 2, seed=2))
    assert Cube(tmp_path / "out.zarr").shard == 3
    found = plain(tmp_path / "out.zarr")["effects"].to_dataset()
    assert found["completed"].all()
    np.testing.assert_array_equal(
        found["error_covariance"].isel(sequence=slice(3)), whole[0].error_covariance.astype(np.float32)
    )
    group = zarr.open_group(tmp_path / "out.zarr" / "effects", mode="r")
    assert group["exposure_effect"].shards == (3, 3, 6, 4)
    assert group["exposure_effect"].chunks == (1, 3, 6, 4)
    for name in terms.EFFECTS:
        assert len([p for p in (tmp_path / "out.zarr/effects" / name / "c").rglob("*") if p.is_file()]) == 2


@pytest.mark.parametrize(("sequences", "shard"), [(1000, 1), (1001, 2), (2001, 3)])
def test_a_variable_has_at_most_a_thousand_files(tmp_path, sequences, shard):
    template = make_template(exposure=1, outcome=1, sequence=sequences, position=1)
    assert Cube.create(tmp_path / "out.zarr", template).shard == shard


@pytest.mark.parametrize("name", [*terms.EFFECTS, "completed"])
def test_a_full_disk_is_explained_and_leaves_what_was_completed(tmp_path, monkeypatch, name):
    path = tmp_path / "out.zarr"
    template, store = make_store(path)
    before = plain(path)["effects"].to_dataset().load()
    with monkeypatch.context() as patch:
        failing_writes(patch, OSError(errno.ENOSPC, "No space left on device"), f"effects/{name}/c")
        with pytest.raises(StoreError, match=r"disk is full.*--resume.*completed are kept"):
            store.write(2, *make_block(template, 2, seed=3))
    # Where the marks themselves fail, zarr may still write some of them: the data stand already.
    assert store.completed()[:2].all()
    assert name == "completed" or not store.completed()[2:].any()
    after = plain(path)["effects"].to_dataset().load()
    assert after.isel(sequence=slice(2)).identical(before.isel(sequence=slice(2)))
    store.write(2, *make_block(template, 3, seed=3))
    assert store.completed().all()


def test_no_right_to_write_is_explained(tmp_path, monkeypatch):
    path = tmp_path / "out.zarr"
    failing_writes(monkeypatch, PermissionError(errno.EACCES, "Permission denied"), "zarr.json")
    with pytest.raises(StoreError, match=r"cannot be created: Permission denied.*choose another output") as caught:
        Cube.create(path, make_template())
    assert "completed" not in str(caught.value)
    assert not path.exists()


def test_nothing_stands_under_the_name_before_the_store_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / "out.zarr"
    with monkeypatch.context() as patch:
        failing_writes(patch, OSError(errno.ENOSPC, "No space left on device"), "outcome_se/zarr.json")
        with pytest.raises(StoreError, match="disk is full"):
            Cube.create(path, make_template())
        assert not path.exists()
        assert path.with_name("out.zarr.partial").exists()
    Cube.create(path, make_template())
    assert [p.name for p in path.parent.iterdir()] == ["out.zarr"]


def test_an_existing_store_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "out.zarr"
    make_store(path)
    before = files(path)
    with pytest.raises(StoreError, match=r"--resume.*--overwrite"):
        Cube.create(path, make_template())
    assert files(path) == before
    assert not Cube.create(path, make_template(), overwrite=True).completed().any()
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_a_store_stays_when_its_replacement_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "out.zarr"
    make_store(path)
    before = files(path)
    failing_writes(monkeypatch, OSError(errno.ENOSPC, "No space left on device"), "zarr.json", after=4)
    with pytest.raises(StoreError, match="disk is full"):
        Cube.create(path, make_template(), overwrite=True)
    assert files(path) == before


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "array", "other group", "notes", "hidden", "deep"])
def test_what_kipoi_deepmr_did_not_write_is_never_overwritten(tmp_path, kind):
    path = tmp_path / "out.zarr"
    if kind == "file":
        path.write_text("mine")
    elif kind == "array":
        zarr.create_array(path, shape=(2,), dtype="int8")
    elif kind == "other group":
        zarr.create_group(path, attributes={"mine": 1})
    elif kind in ("notes", "hidden", "deep"):
        make_store(path)
        mine = path / {"notes": "notes.txt", "hidden": ".notes/notes.txt", "deep": "effects/start/c/notes.txt"}[kind]
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "thesis.tex").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(StoreError, match=r"did not write|no store of kipoi_deepmr"):
        Cube.create(path, make_template(), overwrite=True)
    assert files(tmp_path) == before
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "files", "a store"])
@pytest.mark.parametrize("writing", ["store", "estimates"])
def test_what_the_user_keeps_beside_the_store_is_never_deleted(tmp_path, kind, writing):
    path, mine = tmp_path / "out.zarr", tmp_path / "out.zarr.partial"
    make_store(path)
    if kind == "a store":
        shutil.copytree(path, mine)
    elif kind == "files":
        mine.mkdir()
        (mine / "thesis.tex").write_text("mine")
    else:
        mine.write_text("mine")
    shutil.copytree(path, tmp_path / "out.zarr.replaced")
    before = files(tmp_path)
    with pytest.raises(StoreError, match=r"out.zarr.partial is in the way"):
        if writing == "estimates":
            write_estimates(path, make_estimates())
        else:
            Cube.create(path, make_template(), overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("writing", "step"), [*(("store", n) for n in (0, 1, 2, 9, 10**9)), ("estimates", 0)])
def test_what_a_killed_process_left_beside_the_store_is_cleared_wherever_it_died(tmp_path, monkeypatch, writing, step):
    path = tmp_path / "out.zarr"
    make_store(path)

    def write():
        if writing == "estimates":
            write_estimates(path, make_estimates())
        else:
            Cube.create(path, make_template(), overwrite=True)

    write()
    with monkeypatch.context() as patch, suppress(Died):
        count = itertools.count()
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name), count, step))
        if step == 10**9:
            patch.setattr("kipoi_deepmr.cube.folders._MARK", "not yet marked")
            patch.setattr("pathlib.Path.touch", dying(lambda _: None, itertools.count(), 0))
        write()
    assert (tmp_path / "out.zarr.partial").exists()
    write()
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def dying(original, count, step):
    """Return a function of the file system that stands for a process that is killed just after a step."""

    def function(*args, **kwargs):
        original(*args, **kwargs)
        if next(count) == step:
            raise Died

    return function


def test_estimates_are_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.zarr"
    make_store(path)
    write_estimates(path, make_estimates(1.0))
    write_estimates(path, make_estimates(2.0, methods=("ivw",)))
    tree = plain(path)
    assert tree["local"].sizes["estimator"] == tree["global"].sizes["estimator"] == 1
    assert (tree["local"]["estimate"] == 2).all()
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_estimates_of_controls_are_replaced_and_deleted_with_the_others(tmp_path):
    path = tmp_path / "out.zarr"
    make_store(path)
    Cube.attach(path, "controls", make_template())
    controls = {f"controls/{name}": dataset for name, dataset in make_estimates(7.0).items()}
    write_estimates(path, {**make_estimates(1.0), **controls})
    with open_results(path) as results:
        assert (results["controls/local"]["estimate"] == 7).all()
    write_estimates(path, make_estimates(2.0))
    with open_results(path) as results:
        assert (results["local"]["estimate"] == 2).all()
        assert list(results["controls"].children) == ["effects"]


def test_estimates_stay_when_new_ones_do_not_fit_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "out.zarr"
    make_store(path)
    write_estimates(path, make_estimates(1.0))
    before = files(path)
    with monkeypatch.context() as patch:
        failing_writes(patch, OSError(errno.ENOSPC, "No space left on device"), "estimate/c")
        with pytest.raises(StoreError, match="disk is full"):
            write_estimates(path, make_estimates(2.0))
    assert files(path) == before


@pytest.mark.parametrize("step", range(5))
def test_a_process_that_dies_between_the_groups_leaves_no_mixture(tmp_path, monkeypatch, step):
    path = tmp_path / "out.zarr"
    make_store(path)
    write_estimates(path, make_estimates(1.0))
    original, count = os.replace, itertools.count()

    def replace(old, new):
        if os.path.basename(new).removeprefix("old-") in ("local", "global") and next(count) == step:
            raise Died
        original(old, new)

    def consolidate(_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        if step == 4:
            patch.setattr("kipoi_deepmr.cube.estimates.consolidate", consolidate)
        with pytest.raises(Died):
            write_estimates(path, make_estimates(2.0, methods=("ivw",)))
    assert {g for g in plain(path).groups if g != "/"} == {"/effects"}
    tree = open_results(path)
    found = {float(tree[name]["estimate"].max()) for name in ("local", "global") if name in tree.children}
    assert len(found) <= 1
    for name in ("local", "global"):
        if name in tree.children:
            assert tree[name].sizes["estimator"] == (1 if found == {2.0} else 2)
    write_estimates(path, make_estimates(3.0))
    assert float(plain(path)["global"]["estimate"].min()) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_consolidated_metadata_is_what_the_folders_hold(tmp_path):
    path = tmp_path / "out.zarr"
    _, store = make_store(path)
    write_estimates(path, make_estimates())
    store.note("one", engine="full")
    store.note("two")
    gathered = json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert {p.parent.relative_to(path).as_posix() for p in path.rglob("zarr.json")} - {"."} == set(gathered)
    tree = plain(path)
    assert [line.split(": ", 1)[1] for line in tree.attrs["history"].splitlines()] == ["one", "two"]
    assert all(f" kipoi_deepmr {__version__}: " in line for line in tree.attrs["history"].splitlines())
    assert tree.attrs["engine"] == "full"
    consolidated, direct = (xr.open_datatree(path, engine="zarr", consolidated=c) for c in (True, False))
    assert consolidated.identical(direct)


def test_a_cut_off_mark_means_not_completed(tmp_path):
    path = tmp_path / "out.zarr"
    _, store = make_store(path)
    (path / "effects/completed/c/1").write_bytes(b"")
    assert store.completed().tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("damage", ["no effects", "no completed", "broken json", "array for group"])
def test_a_damaged_store_is_named(tmp_path, damage):
    path = tmp_path / "out.zarr"
    make_store(path)
    if damage == "no effects":
        shutil.rmtree(path / "effects")
    elif damage == "no completed":
        shutil.rmtree(path / "effects/completed")
    elif damage == "broken json":
        (path / "effects/completed/zarr.json").write_text("{")
    else:
        shutil.copy(path / "effects/zarr.json", path / "effects/completed/zarr.json")
    with pytest.raises(StoreError, match=r"out\.zarr.*(incomplete|damaged)"):
        Cube(path)


def test_open_results_names_what_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        open_results(tmp_path / "absent.zarr")
    (tmp_path / "file.zarr").write_text("")
    for path in (tmp_path, tmp_path / "file.zarr"):
        with pytest.raises(StoreError, match="no store of kipoi_deepmr"):
            open_results(path)
    with pytest.raises(StoreError, match="no store of kipoi_deepmr"):
        check_replaceable(tmp_path / "absent.zarr")


def test_a_store_that_was_replaced_meanwhile_is_not_written(tmp_path):
    path = tmp_path / "out.zarr"
    template, store = make_store(path)
    Cube.create(path, template, overwrite=True)
    before = files(path)
    for write in (lambda: store.write(2, *make_block(template, 2)), lambda: store.note("mine", config="mine")):
        with pytest.raises(StoreError, match="was replaced by another process"):
            write()
    assert files(path) == before
    shutil.rmtree(path)
    with pytest.raises(StoreError, match="cannot be written"):
        store.write(2, *make_block(template, 2))


def test_what_another_process_notes_is_kept(tmp_path):
    path = tmp_path / "out.zarr"
    _, store = make_store(path)
    Cube(path).note("theirs", engine="full")
    store.note("ours")
    assert [line.split(": ", 1)[1] for line in plain(path).attrs["history"].splitlines()] == ["theirs", "ours"]
    assert plain(path).attrs["engine"] == "full"


def test_one_process_at_a_time_holds_a_store(tmp_path):
    path = tmp_path / "new" / "out.zarr"
    with locked(path, "run"):
        with pytest.raises(StoreError, match=rf"out.zarr is being written by process {os.getpid()} on .* \(run\)"):
            with locked(path, "mr"):
                pass
        with locked(path.with_name("other.zarr"), "run"):
            pass
    # A process that was killed leaves its file, not its lock.
    (path.parent / ".out.zarr.lock").write_text("process 1")
    with pytest.raises(KeyError), locked(path, "mr"):
        raise KeyError
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_on_a_file_that_was_replaced_is_none(tmp_path, monkeypatch, made_anew):
    path, file, flock = tmp_path / "out.zarr", tmp_path / ".out.zarr.lock", fcntl.flock

    def after_another_ended(held, how):
        monkeypatch.undo()
        file.unlink()
        if made_anew:
            file.touch()
        flock(held, how)

    monkeypatch.setattr(fcntl, "flock", after_another_ended)
    with locked(path, "run"), pytest.raises(StoreError, match="is being written by"), locked(path, "mr"):
        pass


def test_unfinished_files_of_a_killed_process_are_swept(tmp_path):
    path = tmp_path / "out.zarr"
    make_store(path)
    left = [path / f"zarr.{'a' * 32}.partial", path / f"effects/start/c/0.{'b' * 32}.partial"]
    for file in left:
        file.touch()
    assert not Cube.create(path, make_template(), overwrite=True).completed().any()
    mine = path / "mine.partial"
    for file in (*left, mine):
        file.touch()
    Cube(path).clear_unfinished()
    assert [file.exists() for file in (*left, mine)] == [False, False, True]


def test_what_zarr_says_while_writing_is_explained(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"), explained(tmp_path, "written"):
        raise zarr.errors.ContainsGroupError("a group exists in store")
