"""The numbers in the words of the examples' READMEs are those of their files and tables."""

import gzip
import re

import pytest

from tests.readme import README, ROOT

SIMULATED = ROOT / "examples" / "simulated_tf_accessibility"
SPLICEAI = ROOT / "examples" / "spliceai"
FACTORS = ("FOXA1", "HNF4A", "CTCF", "REST", "CEBPB")


def table(text, head):
    """Return the rows of the first table whose first head it is, as lists of cells."""
    found = re.search(rf"^\| {head} \|.*\n\|[ -|]*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def lines(name):
    return [line.split("\t") for line in (SIMULATED / name).read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def simulated():
    return (SIMULATED / "README.md").read_text(encoding="utf-8")


def test_the_performance_is_that_of_the_training(simulated):
    assert table(simulated, "target") == lines("performance.tsv")


def test_the_effects_are_those_of_the_readme_beside_the_truth(simulated):
    printed = re.findall(r"^ *(\w+) accessibility +ivw +(\S+) +\[(\S+), (\S+)\] .* (\d+)$", README, re.MULTILINE)
    truth = {row[0]: row for row in lines("truth.tsv")}
    rows = table(simulated, "factor")
    assert [row[0] for row in rows] == [row[0] for row in printed] == list(FACTORS)
    for (factor, role, true, _, effect, sequences, association), shown in zip(rows, printed, strict=True):
        assert [role, float(true), float(association)] == [truth[factor][1], *map(float, truth[factor][3:5])]
        numbers = [float(number) for number in re.findall(r"-?\d\.\d+", effect)]
        assert numbers == pytest.approx([float(number) for number in shown[1:4]], abs=5e-3)
        assert sequences == shown[4]


def test_the_genome_and_the_peaks_are_as_described(simulated):
    contigs = (SIMULATED / "genome.fa").read_text().split(">")[1:]
    sizes = [len("".join(contig.splitlines()[1:])) for contig in contigs]
    assert (
        f"**Genome**: four contigs, {sum(sizes) / 1e6:.1f} million bases. Regulatory elements of 200 bases" in simulated
    )
    assert len(sizes) == 4
    for factor in FACTORS:
        with gzip.open(SIMULATED / "peaks" / f"{factor}.narrowPeak.gz", "rt") as file:
            peaks = [line.rstrip("\n").split("\t") for line in file]
        assert {int(end) - int(start) for _, start, end, *_ in peaks} == {200}
        assert {int(peak[9]) for peak in peaks} == {100}


def test_the_words_about_exons_follow_the_tables():
    text = (SPLICEAI / "README.md").read_text(encoding="utf-8")
    effects, donors = re.split(r"^## What one mutation does$", text, flags=re.MULTILINE)
    *exons, overall = [(row[0], row[1], float(row[4].split()[0])) for row in table(effects, "exon")]
    assert f"The overall effect of {overall[2]} is a mean of these two kinds" in text
    follows = {int(length): effect for _, length, effect in exons if effect > 0.5}
    rest = [effect for _, _, effect in exons if effect <= 0.5]
    assert (len(exons), len(follows), len(rest), max(rest)) == (13, 6, 7, 0.04)
    told = f"all of {max(follows)} bases or fewer, the acceptor follows the donor almost one to one ({min(follows.values())}"
    assert told in text and f"to {max(follows.values())})" in text
    broken = {
        int(row[1]): float(row[3].split()[-1]) for row in table(donors, "exon") if float(row[3].split()[-1]) < 0.3
    }
    assert f"In six of the thirteen exons, of {min(broken)} to {max(broken)} bases" in text
    long = [float(row[3].split()[-1]) for row in table(donors, "exon") if int(row[1]) >= 150]
    assert len(broken) == 6 and len(long) == 4 and min(long) > 0.8
