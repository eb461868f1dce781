"""The sequences of a run as one value: read once, some of them, shuffled, recentred, sent elsewhere."""

import hashlib
import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.sequences import Genome, Sequences, Windows, sample_sequences
from kipoi_deepmr.sequences import sequences as module

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
SIZES = {"chr1": 400, "chr2": 90}
LETTERS = np.array(list("ACGTN"))


def contigs() -> dict[str, str]:
    random = np.random.default_rng(0)
    bases = {name: "".join(random.choice(list("ACGT"), size)) for name, size in SIZES.items()}
    bases["chr1"] = bases["chr1"][:105] + "NNN" + bases["chr1"][108:]
    return bases


def windows(*rows: tuple[str, int, str], length: int = 20) -> Windows:
    chrom, start, strand = (np.array(column) for column in zip(*rows, strict=True))
    return Windows(chrom, start, start + length, strand)


SOME = windows(("chr1", 100, "+"), ("chr1", 100, "-"), ("chr1", 300, "-"), ("chr2", 35, "+"))
BOUND = np.array([[True, False, True, True], [False, True, True, False]])


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sequences") / "genome.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs().items()))
    return path


def read(fasta: Path, where: Windows = SOME) -> Sequences:
    with Genome(fasta) as genome:
        return Sequences.read(where, genome, bound=BOUND[:, : len(where)], exposures=("A", "B"))


@pytest.fixture(scope="module")
def sequences(fasta: Path) -> Sequences:
    return read(fasta)


def seeded(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def words(bases: np.ndarray) -> list[str]:
    return ["".join(row) for row in LETTERS[bases]]


def test_names_and_bases_are_those_of_the_windows(sequences: Sequences) -> None:
    genome = contigs()
    forward = [genome["chr1"][100:120], genome["chr1"][300:320], genome["chr2"][35:55]]
    turned = [bases.translate(COMPLEMENT)[::-1] for bases in forward]
    assert words(sequences.bases) == [forward[0], turned[0], turned[1], forward[2]]
    assert sequences.names == ("chr1:100-120(+)", "chr1:100-120(-)", "chr1:300-320(-)", "chr2:35-55(+)")
    assert (len(sequences), sequences.length, sequences.bases.dtype) == (4, 20, np.int8)
    assert sequences.digest == hashlib.sha256(b"".join(row.tobytes() for row in sequences.bases)).hexdigest()


def test_mutants_are_three_at_each_known_base_of_the_positions(sequences: Sequences) -> None:
    assert sequences.mutants(range(20)).tolist() == [51, 51, 60, 60]
    assert sequences.mutants(range(4, 7)).tolist() == [3, 9, 9, 9]
    assert sequences.mutants(range(12, 15)).tolist() == [9, 0, 9, 9]


@pytest.mark.parametrize("indices", [[2, 0, 2], np.array([3]), np.array([False, True, False, True]), [], range(1, 3)])
def test_some_are_those_rows_of_everything(sequences: Sequences, indices) -> None:
    rows = np.flatnonzero(indices).tolist() if isinstance(indices, np.ndarray) and indices.dtype == bool else indices
    for whole in (sequences, sequences.shuffled(1, seeded)):
        part = whole.take(indices)
        assert list(part.names) == [whole.names[row] for row in rows]
        assert part.windows.names() == tuple(sequences.names[row] for row in rows)
        assert words(part.bases) == [words(whole.bases)[row] for row in rows]
        assert part.bound.tolist() == [[row[index] for index in rows] for row in whole.bound.tolist()]
        assert part.bases_of_windows.tolist() == [sequences.bases[row].tolist() for row in rows]
        assert (part.exposures, part.report) == (whole.exposures, whole.report)


def test_shuffled_copies_keep_windows_dinucleotides_and_the_order_that_makes_them(sequences: Sequences) -> None:
    copies = sequences.shuffled(3, seeded)
    assert type(copies) is Sequences
    assert copies.names[:4] == (*(f"chr1:100-120(+) shuffle {n}" for n in (1, 2, 3)), "chr1:100-120(-) shuffle 1")
    assert copies.windows.names() == tuple(np.repeat(sequences.names, 3))
    for row, bases in enumerate(copies.bases):
        origin = sequences.bases[row // 3]
        assert Counter(pairwise(bases.tolist())) == Counter(pairwise(origin.tolist()))
        assert origin[copies.order[row]].tolist() == bases.tolist() != origin.tolist()
    assert (copies.bases_of_windows == np.repeat(sequences.bases, 3, axis=0)).all()
    assert (copies.bound == np.repeat(BOUND, 3, axis=1)).all()


def test_a_copy_depends_on_its_name_alone(sequences: Sequences) -> None:
    whole, part = sequences.shuffled(2, seeded), sequences.take([2]).shuffled(1, seeded)
    assert part.names[0] == whole.names[4]
    assert (part.bases[0] == whole.bases[4]).all()


def test_everything_is_made_once_and_grows_with_the_number_of_sequences(fasta: Path, monkeypatch) -> None:
    calls: Counter[str] = Counter()

    def counted(owner: object, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (calls.update([name]), original(*args))[1])

    counted(Genome, "codes")
    counted(Windows, "names")
    counted(module, "dinucleotide_shuffle")
    for count in (1, 2, 4):
        for copies in (1, 5):
            calls.clear()
            sequences = read(fasta, SOME.take(range(count)))
            found = sequences.shuffled(copies, seeded)
            found.mutants(range(20)), found.digest, found.bases_of_windows
            for row in range(len(found)):
                found.take([row])
            assert calls == {"codes": count, "names": 1, "dinucleotide_shuffle": count * copies}


lengths = st.integers(1, 40)


@given(own=lengths, other=lengths, strand=st.sampled_from("+-"))
def test_other_lengths_share_the_centre_that_sampling_takes(fasta: Path, own: int, other: int, strand: str) -> None:
    bed = fasta.parent / f"peak{strand}.bed"
    bed.write_text(f"chr1\t149\t152\tpeak\t0\t{strand}\nchr2\t44\t45\tpeak\t0\t{strand}\n")
    with Genome(fasta) as genome:
        one, wanted = (
            sample_sequences({"A": bed}, genome, length=length, per_exposure=None, use_strand=True)
            for length in (own, other)
        )
        found = one.recentred(other, genome)
        assert found.names == wanted.names
        assert (found.bases == wanted.bases).all()
        assert one.recentred(own, genome).names == one.names


def test_windows_that_leave_their_contig_are_counted_and_named(fasta: Path, sequences: Sequences) -> None:
    with Genome(fasta) as genome:
        assert sequences.recentred(90, genome).names[3] == "chr2:0-90(+)"
        with pytest.raises(SequenceError, match=r"1 of 4 windows leave .* 91 bp long \(chr2:35-55\(\+\)\)"):
            sequences.recentred(91, genome)
        with pytest.raises(SequenceError, match=r"4 of 4 windows .*\(chr1:100-120\(\+\), .*, …\)\. Leave these"):
            sequences.recentred(222, genome)


def test_shuffled_copies_are_not_shuffled_or_recentred_again(fasta: Path, sequences: Sequences) -> None:
    copies = sequences.shuffled(1, seeded)
    with Genome(fasta) as genome, pytest.raises(SequenceError, match="cannot be recentred"):
        copies.recentred(10, genome)
    with pytest.raises(SequenceError, match="cannot be shuffled"):
        copies.shuffled(1, seeded)


def test_a_pickle_takes_one_byte_a_base_and_needs_no_fasta_file(tmp_path: Path) -> None:
    bases = "".join(np.random.default_rng(1).choice(list("ACGT"), 2000))
    (tmp_path / "genome.fa").write_text(f">chr1\n{bases}\n")
    many = windows(*(("chr1", start, "+-"[start % 2]) for start in range(900)), length=1000)
    with Genome(tmp_path / "genome.fa") as genome:
        sequences = Sequences.read(many, genome, bound=np.ones((5, 900), bool), exposures=tuple("ABCDE"))
    for file in tmp_path.iterdir():
        file.unlink()
    for value, limit in ((sequences, 1.1), (sequences.take(range(100)).shuffled(2, seeded), 3.1)):
        sent = pickle.dumps(value)
        assert len(sent) < limit * value.bases.size
        got = pickle.loads(sent)
        assert (got.names, got.digest) == (value.names, value.digest)
        assert got.take([7]).windows.names() == value.take([7]).windows.names()
