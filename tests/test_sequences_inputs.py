import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kipoi.data import (
    BatchDataset,
    BatchGenerator,
    BatchIterator,
    Dataset,
    PreloadedDataset,
    SampleGenerator,
    SampleIterator,
)
from kipoi.metadata import GenomicRanges
from kipoi_utils.utils import override_default_kwargs
from kipoiseq.dataloaders import SeqIntervalDl, StringSeqIntervalDl

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import Genome, Signature, WindowInputs, Windows

DATA = Path(__file__).parents[2] / "shared" / "data" / "hg38_chr22_32000000_32300000.fa"
LENGTH = 12
BASES = np.array(list("ACGTN"))


def make_windows(starts: list[int], chrom: str = "chr1", strands: str | None = None, length: int = LENGTH) -> Windows:
    start = np.array(starts, np.int64)
    return Windows(
        chrom=np.full(len(starts), chrom),
        start=start,
        end=start + length,
        strand=np.array(list(strands or "+" * len(starts))),
    )


def write_fasta(folder: Path, chrom: str = "chr1") -> Path:
    path = folder / "genome.fa"
    bases = "".join(np.random.default_rng(0).choice(list("ACGTacgt"), 300))
    path.write_text(f">{chrom}\n{bases[:200]}NNNNNN{bases[200:]}\n")
    return path


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path)


def one_hot(genome: Genome, windows: Windows, alphabet: str = "ACGT") -> npt.NDArray[np.float64]:
    """Encode windows without Kipoi: shape (S, L, 4); 0.25 at N."""
    letters = np.stack([BASES[genome.codes(*window)] for window in windows.rows()])
    encoded = (letters[..., None] == np.array(list(alphabet))).astype(float)
    encoded[letters == "N"] = 0.25
    return encoded


@pytest.mark.parametrize("dtype", [None, "np.float32", np.float32, "int"])
@pytest.mark.parametrize("alphabet", ["ACGT", "AGCT", "TGCA"])
@pytest.mark.parametrize(
    ("alphabet_axis", "dummy_axis", "order"),
    [(1, None, (0, 1, 2)), (0, None, (0, 2, 1)), (0, 1, (0, 2, 3, 1)), (0, 2, (0, 2, 1, 3)), (2, 1, (0, 1, 3, 2))],
)
def test_one_hot_of_any_layout(
    fasta: Path, dtype: Any, alphabet: str, alphabet_axis: int, dummy_axis: int | None, order: tuple[int, ...]
) -> None:
    args = {"alphabet_axis": alphabet_axis, "dummy_axis": dummy_axis, "alphabet": alphabet, "dtype": dtype}
    windows = make_windows([5, 50, 0, 120])
    inputs = WindowInputs(SeqIntervalDl, {"fasta_file": fasta, **args}, windows, batch_size=3)
    rows = [2, 0, 3, 3]
    with Genome(fasta) as genome:
        expected = one_hot(genome, windows.take(rows), alphabet)
    if dummy_axis is not None:
        expected = expected[..., None]
    loaded = inputs.load(rows)
    assert loaded.dtype == {None: np.float64, "int": np.int64}.get(dtype, np.float32)
    assert np.array_equal(loaded, expected.transpose(order))


def test_unknown_bases(fasta: Path) -> None:
    windows = make_windows([195])
    with Genome(fasta) as genome:
        assert np.array_equal(
            WindowInputs(SeqIntervalDl, {"fasta_file": str(fasta)}, windows).load([0]), one_hot(genome, windows)
        )


def test_strings(fasta: Path) -> None:
    windows = make_windows([5, 195])
    with Genome(fasta) as genome:
        codes = [genome.codes("chr1", start, start + LENGTH) for start in windows.start]
    loaded = WindowInputs(StringSeqIntervalDl, {"fasta_file": fasta}, windows).load([1, 0])
    assert loaded.tolist() == ["".join(BASES[codes[1]]), "".join(BASES[codes[0]])]


@pytest.mark.parametrize("by_default", [False, True])
def test_strand(fasta: Path, by_default: bool) -> None:
    windows = make_windows([5, 5, 40], strands="+-+")
    dataloader = override_default_kwargs(SeqIntervalDl, {"use_strand": True}) if by_default else SeqIntervalDl
    args = {"fasta_file": fasta} if by_default else {"fasta_file": fasta, "use_strand": True}
    loaded = WindowInputs(dataloader, args, windows).load([0, 1, 2])
    with Genome(fasta) as genome:
        assert np.array_equal(loaded, one_hot(genome, windows))
    assert np.array_equal(loaded[1], loaded[0][::-1, ::-1])


def test_reverse_strand_needs_a_dataloader_that_is_told(fasta: Path) -> None:
    with pytest.raises(SequenceError, match=r"Set use_strand: true in dataloader.args"):
        WindowInputs(SeqIntervalDl, {"fasta_file": fasta}, make_windows([5], strands="-"))


@pytest.mark.parametrize("use_strand", [False, True])
def test_names_without_chr(tmp_path: Path, use_strand: bool) -> None:
    fasta = write_fasta(tmp_path, "1")
    windows = make_windows([5, 30], chrom="1")
    loaded = WindowInputs(SeqIntervalDl, {"fasta_file": fasta, "use_strand": use_strand}, windows).load([1, 0])
    with Genome(fasta) as genome:
        assert np.array_equal(loaded, one_hot(genome, windows)[::-1])


def test_names_without_chr_against_the_will_of_the_user(tmp_path: Path) -> None:
    args = {"fasta_file": write_fasta(tmp_path, "1"), "num_chr_fasta": False}
    with pytest.raises(SequenceError, match=r"SeqIntervalDl\(.*num_chr_fasta=False.*failed: .*chr1"):
        WindowInputs(SeqIntervalDl, args, make_windows([5], chrom="1")).load([0])


def test_names_with_and_without_chr(tmp_path: Path) -> None:
    fasta = tmp_path / "genome.fa"
    fasta.write_text(f">KI270711.1\n{'ACGT' * 9}\n>chr1\n{'GATTACA' * 9}\n")
    one, other = make_windows([5], chrom="KI270711.1"), make_windows([7])
    both = Windows(
        *(np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("chrom", "start", "end", "strand"))
    )
    inputs = WindowInputs(SeqIntervalDl, {"fasta_file": fasta}, both)
    with Genome(fasta) as genome:
        for rows in ([0, 1], [1, 0], [0], [1]):
            assert np.array_equal(inputs.load(rows), one_hot(genome, both.take(rows)))


@pytest.mark.parametrize("length", [11, 12])
def test_default_length_does_not_resize(fasta: Path, length: int) -> None:
    dataloader = override_default_kwargs(SeqIntervalDl, {"auto_resize_len": 1000})
    windows = make_windows([5, 31], length=length)
    with Genome(fasta) as genome:
        expected = one_hot(genome, windows)
    assert np.array_equal(WindowInputs(dataloader, {"fasta_file": fasta}, windows).load([0, 1]), expected)
    args = {"fasta_file": fasta, "auto_resize_len": length}
    assert np.array_equal(WindowInputs(dataloader, args, windows).load([0, 1]), expected)


def test_another_length_is_refused(fasta: Path) -> None:
    with pytest.raises(SequenceError, match=r"resize the windows of 12 bp to auto_resize_len = 10\. Leave"):
        WindowInputs(SeqIntervalDl, {"fasta_file": fasta, "auto_resize_len": 10}, make_windows([5]))


def test_workers_and_batches_do_not_matter(fasta: Path) -> None:
    windows = make_windows(list(range(0, 70, 10)))
    expected = WindowInputs(SeqIntervalDl, {"fasta_file": fasta}, windows).load(range(7))
    for batch_size, num_workers in ((1, 0), (3, 2), (64, 0)):
        inputs = WindowInputs(
            SeqIntervalDl, {"fasta_file": fasta}, windows, batch_size=batch_size, num_workers=num_workers
        )
        assert np.array_equal(inputs.load(range(7)), expected)


def test_home_is_expanded(fasta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(fasta.parent))
    inputs = WindowInputs(SeqIntervalDl, {"fasta_file": "~/genome.fa"}, make_windows([5]))
    assert inputs.load([0]).shape == (1, LENGTH, 4)


def test_real_genome(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is absent")
    fasta = tmp_path / DATA.name
    fasta.write_bytes(DATA.read_bytes())
    windows = make_windows([0, 150_000, 299_000], chrom="chr22", length=1000)
    args = {"fasta_file": fasta, "alphabet_axis": 0, "dummy_axis": 1, "dtype": "np.float32"}
    loaded = WindowInputs(SeqIntervalDl, args, windows).load([0, 1, 2])
    with Genome(fasta) as genome:
        assert np.array_equal(loaded[:, :, 0], one_hot(genome, windows).transpose(0, 2, 1))


def read_bed(path: str) -> list[tuple[str, int, int]]:
    rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
    assert {len(row) for row in rows} == {3}
    return [(chrom, int(start), int(end)) for chrom, start, end in rows]


def sample(chrom: str, start: int, end: int, ranges: bool = True) -> dict[str, Any]:
    """One sample with nested inputs whose numbers say which window it is."""
    metadata = {"ranges": GenomicRanges(chrom, start, end, "x")} if ranges else {"gene": "g"}
    inputs = {"one": np.full((2, 3), start), "two": [np.array([end]), np.float32(start)]}
    return {"inputs": inputs, "metadata": metadata}


def stacked(rows: list[tuple[str, int, int]]) -> dict[str, Any]:
    start, end = (np.array(column) for column in list(zip(*rows, strict=True))[1:])
    return {"inputs": {"one": np.broadcast_to(start[:, None, None], (len(rows), 2, 3)), "two": [end[:, None], start]}}


class Samples(Dataset):  # type: ignore[misc]
    def __init__(self, intervals_file: str) -> None:
        self.rows = read_bed(intervals_file)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return sample(*self.rows[index])


class Batches(BatchDataset):  # type: ignore[misc]
    def __init__(self, bed_path: str) -> None:
        self.rows = read_bed(bed_path)

    def __len__(self) -> int:
        return -(-len(self.rows) // 2)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return stacked(self.rows[2 * index : 2 * index + 2])


class SampleSteps(SampleIterator):  # type: ignore[misc]
    def __init__(self, region_list: str, option: int = 0) -> None:
        self.rows = iter(read_bed(region_list))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return sample(*next(self.rows), ranges=False)


class BatchSteps(BatchIterator):  # type: ignore[misc]
    def __init__(self, regions: str, embedding: str = "e") -> None:
        self.rows = iter([read_bed(regions)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return stacked(next(self.rows))


def generate_samples(input_bed: str, fasta_file: str | None = None) -> Iterator[dict[str, Any]]:
    for row in read_bed(input_bed):
        yield sample(*row)


def generate_batches(intervals: str) -> Iterator[dict[str, Any]]:
    yield stacked(read_bed(intervals))


def load_everything(target_regions: str) -> dict[str, Any]:
    return stacked(read_bed(target_regions))


def subclass(base: type, function: Any) -> type:
    return type("FromFunction", (base,), {}).from_fn(function)


@pytest.mark.parametrize(
    "dataloader",
    [
        Samples,
        Batches,
        SampleSteps,
        BatchSteps,
        subclass(SampleGenerator, generate_samples),
        subclass(BatchGenerator, generate_batches),
        subclass(PreloadedDataset, load_everything),
    ],
)
def test_every_kind_of_dataloader(dataloader: type) -> None:
    windows = make_windows([5, 50, 20, 7, 90])
    loaded = WindowInputs(dataloader, {}, windows, batch_size=2).load([4, 1, 1, 0, 2])
    start = [90, 50, 50, 5, 20]
    assert isinstance(loaded, dict) and list(loaded) == ["one", "two"]
    assert loaded["one"].shape == (5, 2, 3) and loaded["one"][:, 1, 2].tolist() == start
    assert isinstance(loaded["two"], list)
    assert loaded["two"][0].tolist() == [[value + LENGTH] for value in start]
    assert loaded["two"][1].tolist() == start


def test_named_intervals_argument() -> None:
    class Odd(Samples):
        def __init__(self, where: str, intervals_b: str = "b", intervals_a: str = "a") -> None:
            super().__init__(where)

    windows = make_windows([5])
    assert WindowInputs(Odd, {}, windows, intervals_arg="where").load([0])["one"][0, 0, 0] == 5
    with pytest.raises(SequenceError, match=r"unclear which .*takes where, intervals_b, intervals_a\. Name it in"):
        WindowInputs(Odd, {}, windows)
    with pytest.raises(
        SequenceError, match=r"'were', but the dataloader Odd has no such argument. Did you mean 'where'"
    ):
        WindowInputs(Odd, {}, windows, intervals_arg="were")


def test_only_required_argument_is_preferred() -> None:
    class Two(Samples):
        def __init__(self, peaks_bed: str, exclude_regions: str | None = None) -> None:
            super().__init__(peaks_bed)

    assert WindowInputs(Two, {}, make_windows([5])).load([0])["one"][0, 0, 0] == 5


def test_targets_are_not_loaded_unless_the_user_wants_them() -> None:
    ignored: list[bool] = []

    class Labelled(Samples):
        def __init__(self, intervals_file: str, ignore_targets: bool = False) -> None:
            ignored.append(ignore_targets)
            super().__init__(intervals_file)

    for args in ({}, {"ignore_targets": False}):
        WindowInputs(Labelled, args, make_windows([5])).load([0])
    assert ignored == [True, False]


def test_an_embedding_is_no_bed() -> None:
    class Embedded(Samples):
        def __init__(self, target_regions: str, embedding: str, embedded_peaks: str) -> None:
            super().__init__(target_regions)

    assert Signature(Embedded).intervals_arg(None) == "target_regions"


def test_keyword_arguments_are_passed_on() -> None:
    class Open(Samples):
        def __init__(self, intervals_file: str, **options: object) -> None:
            assert options == {"anything": 1}
            super().__init__(intervals_file)

    assert WindowInputs(Open, {"anything": 1}, make_windows([5])).load([0])["one"][0, 0, 0] == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, r"needs the argument\(s\) fasta_file"),
        ({"fasta_file": "a", "fasta_fil": "b"}, "no argument 'fasta_fil'. Did you mean 'fasta_file'"),
        ({"fasta_file": "a", "intervals_file": "b"}, "sets 'intervals_file'.*Remove it"),
    ],
)
def test_bad_arguments(args: Mapping[str, object], message: str) -> None:
    with pytest.raises(SequenceError, match=message):
        WindowInputs(SeqIntervalDl, args, make_windows([5]))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (make_windows([300]), "shape"),
        (make_windows([5], chrom="chr9"), "chr9"),
    ],
)
def test_low_level_errors_name_the_dataloader(fasta: Path, window: Windows, message: str) -> None:
    both = Windows(
        *(np.concatenate([getattr(one, name) for one in (make_windows([5]), window)]) for name in ("chrom", "start")),
        np.concatenate([[5 + LENGTH], window.end]),
        np.array(["+", "+"]),
    )
    with pytest.raises(
        SequenceError, match=rf"The dataloader SeqIntervalDl\(fasta_file=.*failed: .*{message}"
    ) as caught:
        WindowInputs(SeqIntervalDl, {"fasta_file": fasta}, both).load([0, 1])
    assert caught.value.__cause__ is not None


def test_missing_fasta(tmp_path: Path) -> None:
    with pytest.raises(SequenceError, match=r"fasta_file = '.*absent\.fa', which does not exist"):
        WindowInputs(SeqIntervalDl, {"fasta_file": tmp_path / "absent.fa"}, make_windows([5]))


def test_no_window() -> None:
    with pytest.raises(SequenceError, match="at least one index"):
        WindowInputs(Samples, {}, make_windows([5])).load([])


class Reordering(Samples):
    def __init__(self, intervals_file: str) -> None:
        super().__init__(intervals_file)
        self.rows.sort()


class Dropping(Samples):
    def __init__(self, intervals_file: str) -> None:
        super().__init__(intervals_file)
        del self.rows[0]


class Resizing(Samples):
    def __getitem__(self, index: int) -> dict[str, Any]:
        chrom, start, end = self.rows[index]
        return sample(chrom, start - 1, end + 1)


class Shifting(Samples):
    """Moves a single window."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        chrom, start, end = self.rows[index]
        return sample(chrom, start + (start == 5), end + (start == 5))


class Vague(Samples):
    def __getitem__(self, index: int) -> dict[str, Any]:
        chrom, start, _ = self.rows[index]
        return {**sample(chrom, start, start + LENGTH), "metadata": {"ranges": GenomicRanges(chrom, "?", "?", "x")}}


class Silent(Samples):
    def __init__(self, intervals_file: str) -> None:
        self.rows = []


class Bare(BatchIterator):  # type: ignore[misc]
    def __init__(self, intervals_file: str) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter([np.ones((2, 3))])


class Endless(BatchIterator):  # type: ignore[misc]
    def __init__(self, intervals_file: str) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield {"inputs": np.ones((2, 3))}


class Uneven(BatchIterator):  # type: ignore[misc]
    def __init__(self, intervals_file: str) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        yield {"inputs": [np.ones((2, 3)), np.ones((1, 3))]}


@pytest.mark.parametrize(
    ("dataloader", "message"),
    [
        (Reordering, r"returned chr1:5-17 for the window chr1:50-62\(\+\)"),
        (Resizing, r"returned chr1:49-63 for the window chr1:50-62\(\+\)"),
        (Shifting, r"returned chr1:6-18 for the window chr1:5-17\(\+\)"),
        (Dropping, r"returned 1 rows of inputs\['one'\] for 2 windows"),
        (Silent, "returned nothing for 2 windows"),
        (Bare, "returned batches without 'inputs'"),
        (Endless, "returned more than the 2 windows"),
        (Uneven, r"returned 1 rows of inputs\[1\] for 2 windows"),
    ],
)
def test_wrong_windows_are_noticed(dataloader: type, message: str) -> None:
    with pytest.raises(SequenceError, match=rf"The dataloader {dataloader.__name__}\(\) {message}"):
        WindowInputs(dataloader, {}, make_windows([50, 5])).load([0, 1])


def test_ranges_that_are_no_coordinates_are_not_compared() -> None:
    assert WindowInputs(Vague, {}, make_windows([50, 5])).load([0, 1])["one"][:, 0, 0].tolist() == [50, 5]


def test_temporary_files_are_removed(fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    WindowInputs(SeqIntervalDl, {"fasta_file": fasta}, make_windows([5])).load([0])
    assert os.listdir(scratch) == []
