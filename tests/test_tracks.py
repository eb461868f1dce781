"""Tracks, read back by other programs: every base and every effect against the FASTA file and the store."""

import itertools

import numpy as np
import pyBigWig
import pysam
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from kipoi_deepmr import cube, export
from kipoi_deepmr.coordinates import genome_positions, plus_strand
from kipoi_deepmr.errors import OutputError, SequenceError
from kipoi_deepmr.sequences.genome import Genome
from kipoi_deepmr.tracks import Overlaps, bedgraph_lines, genome_order, signal, summarized, vcf_lines
from kipoi_deepmr.tracks.names import distinct
from tests.small_stores import COMPLEMENT, EXPOSURES, OUTCOMES, SIZES, UNKNOWN, WINDOWS, write_fasta, write_store

TASKS = [("exposure", name) for name in EXPOSURES] + [("outcome", name) for name in OUTCOMES]
PLAIN = {
    "mean": np.mean,
    "mean_abs": lambda effects: np.mean(np.abs(effects)),
    "max": np.max,
    "min": np.min,
    "strongest": lambda effects: max(effects, key=abs),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tracks")
    write_store(path)
    return path


@pytest.fixture(scope="module")
def effects(folder):
    return xr.open_datatree(folder / "out.zarr", engine="zarr")["effects"].to_dataset().load()


def plain_variants(effects):
    """Yield contig, coordinate, REF, ALT on the plus strand, sequence and the effects, one mutation at a time."""
    for s, (chrom, start, strand) in enumerate(WINDOWS):
        if not effects.completed[s]:
            continue
        for p, position in enumerate(effects.position.values.tolist()):
            at = start + position if strand == "+" else start + 12 - 1 - position
            reference = str(effects.reference_allele[s, p].item())
            for a, allele in enumerate("ACGT"):
                if allele != reference and reference != "N":
                    ref, alt = (b if strand == "+" else b.translate(COMPLEMENT) for b in (reference, allele))
                    yield chrom, at, ref, alt, str(effects.sequence[s].item()), (s, p, a)


def per_base(effects, side, task, summary):
    """Return the value of every base by contig and coordinate: the mean over windows of their summaries."""
    values = {}
    for (chrom, at, _), rows in itertools.groupby(plain_variants(effects), key=lambda v: (v[0], v[1], v[4])):
        found = [float(effects[f"{side}_effect"].values[(task, *row[-1])]) for row in rows]
        values.setdefault((chrom, at), []).append(PLAIN[summary](found))
    return {base: np.mean(of_windows) for base, of_windows in values.items()}


def test_spellings_of_names_stay_apart():
    names = ["CTCF", "ctcf", "C#1", "C 1", "C_1_2"]
    assert distinct(names, r"[^0-9A-Za-z_.]") == ["CTCF", "ctcf_2", "C_1", "C_1_2", "C_1_2_2"]


def test_positions_of_both_strands():
    found = genome_positions([100, 100], [110, 110], ["+", "-"], [0, 1, 9])
    assert found.tolist() == [[100, 101, 109], [109, 108, 100]]
    assert plus_strand([list("ACGTN")] * 2, ["+", "-"]).tolist() == [list("ACGTN"), list("TGCAN")]


def test_the_bases_are_those_of_the_fasta_on_the_plus_strand(folder, effects):
    contigs = write_fasta(folder / "again.fa")
    variants = list(plain_variants(effects))
    assert {(chrom, at) for chrom, at, *_ in variants} >= {("chr1", 71), ("chr2", 51), ("chr10", 46)}
    for chrom, at, ref, *_ in variants:
        assert contigs[chrom][at] == ref


def test_vcf_is_what_the_store_holds(folder, effects):
    contigs = write_fasta(folder / "again.fa")
    [path] = export(folder / "out.zarr", "vcf", folder / "vcf")
    found = list(pysam.VariantFile(str(path)))
    expected = {(v[0], v[1], v[3], v[4]): v for v in plain_variants(effects)}
    assert len(found) == len(expected)
    keys = ["TF_1", "TF_1_2", "CTCF", "open"]
    for record in found:
        chrom, _, ref, alt, _, index = expected[(record.chrom, record.start, record.alts[0], record.info["SEQ"])]
        assert (record.ref, record.alts) == (ref, (alt,))
        assert contigs[chrom][record.start] == record.ref
        assert record.info["POSITION"] == effects.position[index[1]]
        for key, (side, name) in zip(keys, TASKS, strict=True):
            one = effects.sel({side: name})
            assert np.float32(record.info[f"EFFECT_{key}"][0]) == one[f"{side}_effect"].values[index]
            assert np.float32(record.info[f"SE_{key}"][0]) == one[f"{side}_se"].values[index]
    # Sorted as the contigs stand in the header, then by position; the same mutation of two windows stands twice.
    order = [(list(SIZES).index(r.chrom), r.start, r.alts[0], r.info["SEQ"]) for r in found]
    assert order == sorted(order)
    assert sum(r.chrom == "chr1" and r.start == 8 for r in found) == 3 * 3
    assert not any((r.chrom, r.start) == UNKNOWN for r in found)


def test_the_header_says_what_a_task_is(folder):
    [path] = export(folder / "out.zarr", "vcf", folder / "header")
    assert path.read_text().startswith("##fileformat=VCFv4.3\n")
    header = pysam.VariantFile(str(path)).header
    assert {name: contig.length for name, contig in header.contigs.items()} == SIZES
    assert list(header.contigs) == list(SIZES)
    told = header.info["EFFECT_TF_1_2"].description
    assert "exposure TF 1 " in told
    assert 'output 1 of the model, label \\"TF 1\\"' in told
    assert "identity scale" in told
    assert "posterior standard error" in header.info["SE_open"].description
    assert "##deepmr_config_sha256=" in str(header)


def test_a_bgzipped_vcf_has_an_index(folder, effects):
    plain, *_ = export(folder / "out.zarr", "vcf", folder / "plain")
    path, index = export(folder / "out.zarr", "vcf", folder / "packed", compress=True)
    assert (path.name, index.name) == ("variants.vcf.gz", "variants.vcf.gz.tbi")
    with pysam.BGZFile(str(path)) as packed:
        assert packed.read().decode() == plain.read_text()
    here = list(pysam.VariantFile(str(path)).fetch("chr10", 20, 32))
    assert len(here) == (12 - 1) * 3
    assert sorted(p.name for p in (folder / "packed").iterdir()) == [path.name, index.name]


def test_a_vcf_needs_the_genome_of_the_run(folder, tmp_path):
    contigs = write_fasta(tmp_path / "other.fa")
    chrom, start = "chr2", 51  # position 0 of a window on the minus strand
    base = contigs[chrom][start]
    swapped = {**contigs, chrom: contigs[chrom][:start] + ("A" if base != "A" else "C") + contigs[chrom][start + 1 :]}
    (tmp_path / "other.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in swapped.items()))
    for form in ("vcf", "bigwig"):
        with pytest.raises(SequenceError, match=r"position 0 of chr2:40-52\(-\).*1 of 12 bases differ.*--fasta"):
            export(folder / "out.zarr", form, tmp_path / "out", fasta=tmp_path / "other.fa")
    (tmp_path / "short.fa").write_text(f">chr2\n{contigs['chr2']}\n>1\nA\n")
    with pytest.raises(SequenceError, match=r"no contig 'chr1'.*Did you mean '1'"):
        export(folder / "out.zarr", "vcf", tmp_path / "out", fasta=tmp_path / "short.fa")
    assert not list((tmp_path / "out").glob("*"))


def test_a_genome_that_is_gone_is_asked_for(tmp_path):
    store = write_store(tmp_path)
    (tmp_path / "genome.fa").rename(tmp_path / "moved.fa")
    with pytest.raises(OutputError, match=r"genome\.fa, which is gone.*--fasta"):
        export(store, "bigwig", tmp_path / "out")
    assert len(export(store, "bigwig", tmp_path / "out", fasta=tmp_path / "moved.fa")) == 4


@pytest.mark.parametrize("summary", PLAIN)
def test_bigwig_holds_the_effects_of_every_base(folder, effects, summary):
    paths = export(folder / "out.zarr", "bigwig", folder / "bigwig", summary=summary, overwrite=True)
    assert paths[0].name == f"exposure.TF_1.{summary}.bw"
    assert paths[1].name == f"exposure.TF_1_2.{summary}.bw"
    for path, (side, name) in zip(paths, TASKS, strict=True):
        task = effects[side].values.tolist().index(name)
        expected = per_base(effects, side, task, summary)
        with pyBigWig.open(str(path)) as big:
            assert big.chroms() == SIZES
            for chrom, size in SIZES.items():
                values = big.values(chrom, 0, size)
                for at, value in enumerate(values):
                    wanted = expected.get((chrom, at), np.nan)
                    np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_bedgraph_is_the_bigwig(folder):
    options = {"exposure": ["CTCF"], "outcome": ["open"]}
    graphs = export(folder / "out.zarr", "bedgraph", folder / "graph", **options)
    bigs = export(folder / "out.zarr", "bigwig", folder / "big", **options)
    for graph, big in zip(graphs, bigs, strict=True):
        comment, *lines = graph.read_text().splitlines()
        assert comment.startswith("# mean effect of the mutations of a base on ")
        rows = [line.split("\t") for line in lines]
        assert rows == sorted(rows, key=lambda row: (row[0].encode(), int(row[1])))
        with pyBigWig.open(str(big)) as file:
            read = [(c, s, e, v) for c in sorted(SIZES) for s, e, v in file.intervals(c) or ()]
        assert [(c, int(s), int(e)) for c, s, e, _ in rows] == [entry[:3] for entry in read]
        assert [np.float32(row[3]) for row in rows] == [np.float32(entry[3]) for entry in read]


@pytest.mark.parametrize("positions", [(0, 12), (1, 4), (8, 12)])
def test_a_window_of_positions_and_an_unfinished_store(tmp_path, positions):
    store = write_store(tmp_path, positions, completed=6)
    with xr.open_datatree(store, engine="zarr") as tree:
        effects = tree["effects"].to_dataset().load()
    expected = per_base(effects, "outcome", 0, "mean")
    found = {}
    for stretch in signal(effects, "outcome", 0):
        for at, value in enumerate(stretch.values, stretch.start):
            assert (stretch.chrom, at) not in found
            found[stretch.chrom, at] = value
    assert found == pytest.approx(expected)
    lines = [line for line in vcf_lines(tree, Genome(tmp_path / "genome.fa")) if line[0] != "#"]
    assert len(lines) == len(list(plain_variants(effects)))
    places = [(list(SIZES).index(line.split("\t")[0]), int(line.split("\t")[1])) for line in lines]
    assert places == sorted(places)


def test_blocks_do_not_change_a_track(folder, effects, monkeypatch):
    from kipoi_deepmr import reading

    whole = list(bedgraph_lines(signal(effects, "exposure", 0)))
    with cube.open_results(folder / "out.zarr") as tree, Genome(folder / "genome.fa") as genome:
        records = list(vcf_lines(tree, genome))
        monkeypatch.setattr(reading, "_VARIANTS_AT_ONCE", 1)
        assert list(bedgraph_lines(signal(effects, "exposure", 0))) == whole
        assert list(vcf_lines(tree, genome)) == records


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 40), st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=1)),
        max_size=8,
    )
)
def test_overlaps_are_means_and_each_base_stands_once(windows):
    windows.sort(key=lambda window: window[:2])
    sums, overlaps, found = {}, Overlaps(), []
    for contig, start, values in windows:
        found += overlaps.add(str(contig), np.arange(start, start + len(values)), np.array(values))
        for at, value in enumerate(values, start):
            if value == value:
                sums.setdefault((str(contig), at), []).append(value)
    found += overlaps.rest()
    bases = [(s.chrom, at, v) for s in found for at, v in enumerate(s.values.tolist(), s.start)]
    assert bases == [(*base, pytest.approx(np.mean(values))) for base, values in sorted(sums.items())]


def test_a_base_without_mutations_has_no_summary():
    effects = np.array([[np.nan, 1.0, -3.0, 2.0], [np.nan] * 4])
    expected = {"mean": 0.0, "mean_abs": 2.0, "max": 2.0, "min": -3.0, "strongest": -3.0}
    for summary, value in expected.items():
        np.testing.assert_array_equal(summarized(effects, summary), [value, np.nan])


def test_the_order_is_that_of_the_tools(effects):
    order = genome_order(effects)
    assert [WINDOWS[i][:2] for i in order] == sorted((w[:2] for w in WINDOWS), key=lambda w: (w[0].encode(), w[1]))
    assert [WINDOWS[i][0] for i in genome_order(effects, list(SIZES))][:2] == ["chr2", "chr10"]


def test_bed_has_the_local_effects(folder):
    paths = export(folder / "out.zarr", "bed", folder / "bed", exposure=["TF#1", "CTCF"])
    assert [path.name for path in paths] == [
        f"{exposure}.open.{method}.bed" for exposure in ("TF_1", "CTCF") for method in ("egger", "ivw")
    ]
    local = xr.open_datatree(folder / "out.zarr", engine="zarr")["local"].to_dataset()
    comment, *lines = paths[1].read_text().splitlines()
    here = local.sel({"exposure": "TF#1", "outcome": "open", "estimator": "ivw"})
    assert len(lines) == int(here.bound.sum()) == 7
    full = np.quantile(np.abs(here.estimate.values[here.bound.values]), 0.95)
    assert f"{full:.6g}" in comment
    for line in lines:
        chrom, start, end, name, score, strand = line.split("\t")
        value = float(here.estimate.sel(sequence=f"{chrom}:{start}-{end}({strand})"))
        assert float(name) == pytest.approx(value, rel=1e-5)
        assert int(score) == round(1000 * min(1, abs(value) / full))
    places = [(line.split("\t")[0].encode(), int(line.split("\t")[1])) for line in lines]
    assert places == sorted(places)


def test_a_missing_estimate_says_why_in_bed(tmp_path):
    # One position has three mutations: too few for MR-Egger.
    [path, _] = export(write_store(tmp_path, (5, 6)), "bed", tmp_path, exposure=["CTCF"], overwrite=True)
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    assert ["too_few_instruments", "0"] in [row[3:5] for row in rows]
    assert len(rows) == 8
