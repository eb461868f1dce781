import dataclasses
import hashlib
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import Genome, Sequences, Windows, sample_sequences

DATA = Path(__file__).parents[2] / "shared" / "data" / "hg38_chr22_32000000_32300000.fa"
LENGTH = 20


def random_bases(count: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=count))


def write_fasta(folder: Path, contigs: Mapping[str, str]) -> Path:
    path = folder / "genome.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    return path


def write_bed(folder: Path, name: str, rows: Sequence[Sequence[object]]) -> Path:
    path = folder / f"{name}.bed"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def centred(centers: Sequence[int], chrom: str = "chr1") -> list[tuple[object, ...]]:
    return [(chrom, center - 5, center + 5) for center in centers]


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path, {"chr2": random_bases(1000), "chr1": random_bases(2000, 1)})) as genome:
        yield genome


def chosen(sampled: Sequences, exposure: int = 0) -> set[str]:
    return set(sampled.take(sampled.bound[exposure]).names)


def counts(sampled: Sequences, exposure: int = 0) -> dict[str, int]:
    report = dataclasses.asdict(sampled.report[exposure])
    return {name: count for name, count in report.items() if isinstance(count, int) and count}


def test_fields_of_the_windows(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", [*centred([500, 100]), *centred([50], "chr2")])
    sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=None)
    assert list(sampled.names) == ["chr2:40-60(+)", "chr1:90-110(+)", "chr1:490-510(+)"]
    assert sampled.windows.chrom.tolist() == ["chr2", "chr1", "chr1"]
    assert sampled.windows.start.dtype == sampled.windows.end.dtype == np.int64
    assert sampled.bound.dtype == np.bool_ and sampled.bound.tolist() == [[True, True, True]]
    assert sampled.exposures == ("A",)
    assert len(sampled) == 3
    assert counts(sampled) == {"read": 3, "usable": 3, "selected": 3, "requested": 3}
    assert sampled.report[0].source == bed
    assert sampled.report[0].warnings == []


def test_odd_length_and_summit(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", [("chr1", 100, 200, "p", 1, ".", 1.0, 2.0, 3.0, 7)])
    sampled = sample_sequences({"A": bed}, genome, length=21, per_exposure=None)
    assert list(sampled.names) == ["chr1:97-118(+)"]


@pytest.mark.parametrize("use_strand", [False, True])
def test_strand(genome: Genome, tmp_path: Path, use_strand: bool) -> None:
    rows = [("chr1", 95, 105, "a", 0, strand) for strand in "+-."]
    sampled = sample_sequences(
        {"A": write_bed(tmp_path, "peaks", rows)}, genome, length=LENGTH, per_exposure=None, use_strand=use_strand
    )
    assert sampled.windows.strand.tolist() == (["+", "-"] if use_strand else ["+"])
    assert sampled.report[0].duplicate == (1 if use_strand else 2)


def test_edges_of_a_contig(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", centred([9, 10, 1990, 1991]))
    sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=None)
    assert list(sampled.names) == ["chr1:0-20(+)", "chr1:1980-2000(+)"]
    assert counts(sampled) == {"read": 4, "off_contig": 2, "usable": 2, "selected": 2, "requested": 2}


def test_counts_add_up(tmp_path: Path) -> None:
    text = random_bases(500) + "N" * 100 + random_bases(400)
    rows = [*centred([100, 100, 200, 5, 550]), *centred([100], "chrUn"), *centred([100], "chr2")]
    bed = write_bed(tmp_path, "peaks", rows)
    with Genome(write_fasta(tmp_path, {"chr1": text, "chr2": random_bases(300)})) as genome:
        every = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=5)
        first = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=5, chromosomes=["chr1"])
    shared = {"read": 7, "off_contig": 1, "duplicate": 1, "many_n": 1, "requested": 5}
    assert counts(every) == {**shared, "missing_contig": 1, "usable": 3, "selected": 3}
    assert counts(first) == {**shared, "other_chromosome": 2, "usable": 2, "selected": 2}
    assert first.report[0].warnings == [
        f"A: only 2 of 5 sequences could be sampled, and all are used (7 intervals in {bed}, of which 2 on other"
        " chromosomes, 1 too close to the end of their contig, 1 duplicates, 1 with too many N)."
    ]


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 1), (0.1, 2), (0.5, 3), (1.0, 4)])
def test_unknown_bases(tmp_path: Path, limit: float, expected: int) -> None:
    text = list(random_bases(400))
    text[100:102] = "NR"
    text[200:210] = "N" * 10
    text[290:310] = "n" * 20
    bed = write_bed(tmp_path, "peaks", centred([50, 100, 200, 300]))
    with Genome(write_fasta(tmp_path, {"chr1": "".join(text)})) as genome:
        sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=None, max_n_fraction=limit)
    assert len(sampled) == expected
    assert sampled.report[0].many_n == 4 - expected


def test_unknown_bases_are_inspected_lazily(genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected: list[int] = []
    codes = Genome.codes
    monkeypatch.setattr(Genome, "codes", lambda *args: inspected.append(1) or codes(*args))
    bed = write_bed(tmp_path, "peaks", centred(range(20, 1900)))
    sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=7)
    assert len(inspected) == 7


def test_shared_file_is_read_once(genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    bed = write_bed(tmp_path, "peaks", centred(range(100, 400, 10)))
    sampled = sample_sequences(dict.fromkeys("ABC", bed), genome, length=LENGTH, per_exposure=4)
    assert len(read) == 1
    assert sampled.bound.shape == (3, 4) and sampled.bound.all()


def test_shared_regions_are_sampled_together(genome: Genome, tmp_path: Path) -> None:
    shared = centred(range(100, 1000, 10))
    peaks = {name: write_bed(tmp_path, name, shared) for name in "AB"}
    sampled = sample_sequences(peaks, genome, length=LENGTH, per_exposure=10)
    assert len(sampled) == 10 and sampled.bound.all()


def test_seed_changes_the_sample(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", centred(range(100, 1900)))
    samples = [
        chosen(sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=20, seed=seed)) for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]


def by_priority(centers: Sequence[int], seed: int) -> list[int]:
    """Return centres on chr1 in the order in which they are sampled."""
    return sorted(
        centers,
        key=lambda center: hashlib.blake2b(
            f"{seed}\tchr1\t{center - 10}\t{center + 10}\t+".encode(), digest_size=8
        ).digest(),
    )


def test_sample_is_the_same_on_every_machine(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", centred(range(100, 1900, 100)))
    sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=3, seed=1)
    assert (sampled.windows.start + 10).tolist() == sorted(by_priority(range(100, 1900, 100), 1)[:3])
    assert sampled.windows.start.tolist() == [190, 490, 1490]


def test_sampling_is_uniform(genome: Genome, tmp_path: Path) -> None:
    centers = range(100, 1100, 100)
    bed = write_bed(tmp_path, "peaks", centred(centers))
    hits = np.zeros(10)
    for seed in range(400):
        sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=3, seed=seed)
        hits[(sampled.windows.start + 10) // 100 - 1] += 1
    expected = 400 * 3 / 10
    # Drawing 3 of 10 without replacement gives (10 - 3) / (10 - 1) of a chi-square of 9 degrees of freedom (99.9%: 27.9).
    assert ((hits - expected) ** 2 / expected).sum() < 27.9 * 7 / 9


centers_of_exposures = st.lists(st.lists(st.integers(20, 400), min_size=1, max_size=25), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(centers=centers_of_exposures, per_exposure=st.integers(1, 6), seed=st.integers(0, 99), data=st.data())
def test_order_does_not_matter(centers: list[list[int]], per_exposure: int, seed: int, data: st.DataObject) -> None:
    merge = data.draw(st.sampled_from([0, 3, 30]))
    order = data.draw(st.permutations(range(len(centers))))
    shuffled = [data.draw(st.permutations(one)) for one in centers]
    with tempfile.TemporaryDirectory() as name, Genome(write_fasta(Path(name), {"chr1": random_bases(500)})) as genome:
        folder = Path(name)

        def sample(peaks: dict[str, Path]) -> Sequences:
            return sample_sequences(
                peaks, genome, length=LENGTH, per_exposure=per_exposure, seed=seed, merge_distance=merge
            )

        one = sample({str(row): write_bed(folder, f"a{row}", centred(centers[row])) for row in range(len(centers))})
        other = sample({str(row): write_bed(folder, f"b{row}", centred(shuffled[row])) for row in order})
        assert one.names == other.names
        assert np.array_equal(one.bound[list(order)], other.bound)
        assert sorted(one.names) == sorted(set(one.names))
        assert one.bound.any(axis=0).all()
        assert (one.bound.sum(axis=1) <= per_exposure).all()
        for row, report in enumerate(one.report):
            lost = report.off_contig + report.duplicate + report.many_n
            assert report.read == len(centers[row]) == lost + report.usable
            assert report.selected == one.bound[row].sum() <= report.usable
        if merge == 0:
            assert [report.selected for report in one.report] == [min(per_exposure, len(set(one))) for one in centers]
            alone = [sample({"x": folder / f"a{row}.bed"}) for row in range(len(centers))]
            assert [chosen(one, row) for row in range(len(centers))] == [chosen(single) for single in alone]
        else:
            assert (np.diff(one.windows.start) > merge).all()


def test_merging_replaces_neighbours_across_exposures(genome: Genome, tmp_path: Path) -> None:
    peaks = {
        "A": write_bed(tmp_path, "A", centred(range(100, 1900, 100))),
        "B": write_bed(tmp_path, "B", centred(range(110, 1910, 100))),
    }
    apart = sample_sequences(peaks, genome, length=LENGTH, per_exposure=None, merge_distance=9)
    merged = sample_sequences(peaks, genome, length=LENGTH, per_exposure=None, merge_distance=10)
    assert len(apart) == 36 and apart.bound.sum() == 36
    assert len(merged) == 18 and merged.bound.all()
    assert 0 < (merged.windows.start % 100 == 90).sum() < 18


@pytest.mark.parametrize(("between", "nearest"), [(107, 100), (108, 115)])
def test_merging_takes_the_nearest_window(genome: Genome, tmp_path: Path, between: int, nearest: int) -> None:
    peaks = {"A": write_bed(tmp_path, "A", centred([100, 115])), "B": write_bed(tmp_path, "B", centred([between]))}
    last = [seed for seed in range(20) if by_priority([100, 115, between], seed)[-1] == between]
    assert {by_priority([100, 115], seed)[0] for seed in last} == {100, 115}
    for seed in last:
        sampled = sample_sequences(peaks, genome, length=LENGTH, per_exposure=None, seed=seed, merge_distance=14)
        assert (sampled.windows.start + 10).tolist() == [100, 115]
        assert (sampled.windows.start[sampled.bound[1]] + 10).tolist() == [nearest]


def test_merging_within_an_exposure_counts_duplicates(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "A", [*centred([100, 103, 500]), *centred([103], "chr2")])
    sampled = sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=None, merge_distance=5)
    assert len(sampled) == 3
    assert counts(sampled) == {"read": 4, "duplicate": 1, "usable": 3, "selected": 3, "requested": 3}


def test_merging_keeps_strands_and_contigs_apart(tmp_path: Path) -> None:
    rows = [("a", 485, 495, ".", 0, "+"), ("b", 5, 15, ".", 0, "+"), ("b", 5, 15, ".", 0, "-")]
    with Genome(write_fasta(tmp_path, {"a": random_bases(500), "b": random_bases(500)})) as genome:
        sampled = sample_sequences(
            {"A": write_bed(tmp_path, "A", rows)},
            genome,
            length=LENGTH,
            per_exposure=None,
            merge_distance=100,
            use_strand=True,
        )
    assert list(sampled.names) == ["a:480-500(+)", "b:0-20(+)", "b:0-20(-)"]


def by_start(windows: Windows) -> npt.NDArray[np.float64]:
    """Predict from the coordinate alone: exposure 0 likes every third window, exposure 1 every second."""
    place = (windows.start + 10) // 10
    return np.stack([place % 3 == 0, place % 2 == 0]).astype(float)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_min_prediction(genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    sizes: list[int] = []

    def predict(windows: Windows) -> npt.NDArray[np.float64]:
        sizes.append(len(windows))
        return by_start(windows)

    monkeypatch.setattr("kipoi_deepmr.sequences.sampling._CHUNK", chunk)
    bed = write_bed(tmp_path, "peaks", centred(range(100, 1900, 10)))
    sampled = sample_sequences(
        {"A": bed, "B": bed}, genome, length=LENGTH, per_exposure=12, predict=predict, min_prediction=0.5
    )
    assert sampled.bound.sum(axis=1).tolist() == [12, 12]
    assert (by_start(sampled.windows)[sampled.bound] == 1).all()
    assert max(sizes) == chunk and sum(sizes) < 180
    below = [report.below_min_prediction for report in sampled.report]
    assert counts(sampled) == {
        "read": 180, "usable": 180 - below[0], "selected": 12, "requested": 12, "below_min_prediction": below[0]
    }  # fmt: skip
    assert below == [20, 14]


def test_min_prediction_only_binds_listed_exposures(genome: Genome, tmp_path: Path) -> None:
    peaks = {"A": write_bed(tmp_path, "A", centred([100, 200])), "B": write_bed(tmp_path, "B", centred([200, 300]))}
    sampled = sample_sequences(
        peaks,
        genome,
        length=LENGTH,
        per_exposure=None,
        predict=lambda windows: np.ones((2, len(windows))),
        min_prediction=1.0,
    )
    assert sampled.bound.tolist() == [[True, True, False], [False, True, True]]


def test_min_prediction_of_merged_windows(genome: Genome, tmp_path: Path) -> None:
    peaks = {
        "A": write_bed(tmp_path, "A", centred(range(100, 1900, 100))),
        "B": write_bed(tmp_path, "B", centred(range(110, 1910, 100))),
    }

    def predict(windows: Windows) -> npt.NDArray[np.float64]:
        return np.stack([np.ones(len(windows)), windows.start % 100 == 0])

    sampled = sample_sequences(
        peaks,
        genome,
        length=LENGTH,
        per_exposure=None,
        merge_distance=10,
        predict=predict,
        min_prediction=0.5,
    )
    at_b = sampled.windows.start % 100 == 0
    assert 0 < at_b.sum() < 18 and len(sampled) == 18
    assert sampled.bound[0].all()
    assert np.array_equal(sampled.bound[1], at_b)
    assert sampled.report[1].below_min_prediction == (~at_b).sum()


@pytest.mark.parametrize("values", [np.ones((1, 3)), np.full((2, 3), np.nan)])
def test_bad_predictions(genome: Genome, tmp_path: Path, values: npt.NDArray[np.float64]) -> None:
    bed = write_bed(tmp_path, "peaks", centred([100, 200, 300]))
    with pytest.raises(SequenceError, match=r"\(2, 3\) \(exposures, windows\) without NaN"):
        sample_sequences(
            {"A": bed, "B": bed},
            genome,
            length=LENGTH,
            per_exposure=1,
            predict=lambda windows: values,
            min_prediction=0.5,
        )


@pytest.mark.parametrize(
    ("names", "contigs", "messages"),
    [
        (["1", "2"], ["chr1", "chr2"], ["(1, 2)", "(chr1, chr2)", "sed 's/^/chr/'"]),
        (["chr1"], ["1", "2", "3", "X"], ["(chr1)", "(1, 2, 3, …)", "sed 's/^chr//'"]),
        (["NC_1"], ["chr1"], ["(NC_1)", "same genome assembly"]),
    ],
)
def test_no_common_contig(tmp_path: Path, names: list[str], contigs: list[str], messages: list[str]) -> None:
    bed = write_bed(tmp_path, "peaks", [(name, 100, 200) for name in names])
    fasta = write_fasta(tmp_path, {name: random_bases(500) for name in contigs})
    with Genome(fasta) as genome, pytest.raises(SequenceError) as caught:
        sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=None)
    assert all(message in str(caught.value) for message in [str(bed), str(fasta), *messages])


def test_many_missing_contigs_are_a_warning(genome: Genome, tmp_path: Path) -> None:
    rows = [*centred([100]), *centred([100, 200], "chrUn")]
    sampled = sample_sequences({"A": write_bed(tmp_path, "A", rows)}, genome, length=LENGTH, per_exposure=None)
    assert len(sampled.report[0].warnings) == 1
    assert "2 of 3 intervals" in sampled.report[0].warnings[0]


@pytest.mark.parametrize(
    ("chromosomes", "message"),
    [
        (["chr1", "chr3"], "'chr3', which .*genome.fa does not have. Did you mean 'chr[12]'"),
        (["1"], "Did you mean 'chr1'"),
        ([1], "Did you mean 'chr1'"),
        (["scaffold"], "It has chr2, chr1"),
        ([], "Give a list of names"),
        ("chr1", "Give a list of names"),
    ],
)
def test_bad_chromosomes(genome: Genome, tmp_path: Path, chromosomes: Sequence[str], message: str) -> None:
    bed = write_bed(tmp_path, "peaks", centred([100]))
    with pytest.raises(SequenceError, match=message):
        sample_sequences({"A": bed}, genome, length=LENGTH, per_exposure=1, chromosomes=chromosomes)


def test_no_usable_window_gives_the_counts(genome: Genome, tmp_path: Path) -> None:
    peaks = {"A": write_bed(tmp_path, "A", centred([100])), "B": write_bed(tmp_path, "B", centred([5, 1999]))}
    with pytest.raises(SequenceError, match=r"left for B: 2 intervals in .*B.bed, of which 2 too close to the end"):
        sample_sequences(peaks, genome, length=LENGTH, per_exposure=1)


def test_no_usable_window_on_the_chromosomes(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path, "peaks", centred([100]))
    with pytest.raises(SequenceError, match=r"A: .* 1 on other chromosomes; B: .*; and 2 more exposures"):
        sample_sequences(dict.fromkeys("ABCDEFG", bed), genome, length=LENGTH, per_exposure=1, chromosomes=["chr2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peaks": {}}, "Name at least one"),
        ({"length": 0}, "At least 1 bp"),
        ({"per_exposure": 0}, "per_exposure is 0"),
        ({"max_n_fraction": 1.5}, "max_n_fraction is 1.5"),
        ({"merge_distance": -1}, "merge_distance is -1"),
        ({"min_prediction": 0.5}, "Give both or neither"),
        ({"predict": by_start}, "Give both or neither"),
    ],
)
def test_bad_arguments(genome: Genome, tmp_path: Path, change: dict[str, object], message: str) -> None:
    bed = write_bed(tmp_path, "peaks", centred([100]))
    arguments = {"peaks": {"A": bed}, "genome": genome, "length": LENGTH, "per_exposure": 1, **change}
    with pytest.raises(SequenceError, match=message):
        sample_sequences(**arguments)


def test_real_genome(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is absent")
    fasta = tmp_path / DATA.name
    fasta.write_bytes(DATA.read_bytes())
    rows = [("chr22", start, start + 300) for start in range(0, 299_700, 1_000)]
    with Genome(fasta) as genome:
        sampled = sample_sequences({"A": write_bed(tmp_path, "A", rows)}, genome, length=1000, per_exposure=25)
        assert len(sampled) == 25
        assert all(
            (genome.codes("chr22", start, end) >= 0).all()
            for start, end in zip(sampled.windows.start, sampled.windows.end, strict=True)
        )
    assert sampled.report[0].off_contig == 1
