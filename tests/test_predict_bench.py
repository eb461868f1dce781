"""`kipoi deepmr bench`: what it reports; no test asserts a time."""

import json

import pytest

from kipoi_deepmr import cli
from kipoi_deepmr.config import load_config
from kipoi_deepmr.errors import SequenceError
from kipoi_deepmr.estimate.from_draws import during_the_run
from kipoi_deepmr.mutagenesis import Engine
from kipoi_deepmr.mutagenesis.delta.program import DeltaProgram
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.running import bench
from tests.kipoi_models import write_project

KEYS = {"full_ms", "delta_ms", "ratio", "limit_ms", "max_difference", "engines_agree", "peak_memory_bytes", "coverage"}


def report_of(tmp_path, capsys, changes=None) -> dict:
    path = write_project(tmp_path, changes)
    assert cli.main(["bench", str(path), "--json", "-q", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_report_of_a_network_that_can_be_followed(tmp_path, capsys):
    report = report_of(tmp_path, capsys)
    assert set(report) > KEYS
    assert report["ratio"] == report["full_ms"] / report["delta_ms"]
    assert report["max_difference"] < 1e-5
    assert report["engines_agree"] is True
    assert report["coverage"] == 1
    assert report["peak_memory_bytes"] > 2**20
    assert 0 < report["limit_ms"] < report["full_ms"]
    assert cli.main(["bench", str(tmp_path / "config.yaml"), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(report)


def test_the_middle_is_timed_and_the_limit_is_that_of_the_middle(tmp_path, monkeypatch):
    timed = {"full": set(), "delta": set()}
    original = Engine._moments

    def moments(self, block, chunk, *rest):
        timed[self.name].add((int(chunk.position.min()), int(chunk.position.max())))
        return original(self, block, chunk, *rest)

    monkeypatch.setattr(Engine, "_moments", moments)
    monkeypatch.setattr("kipoi_deepmr.predict.bench._multiply_adds_per_second", lambda device: 1e6)
    report = bench(load_config(write_project(tmp_path)), device="cpu", batch_size=6)
    # Of the positions 20 to 27 the two in the middle.
    assert timed == {"full": {(23, 24)}, "delta": {(23, 24)}}
    # Position 24 reaches 7 outputs of a convolution, which pooling by 4 makes at most 3; these reach 7, by 5 taps each.
    assert report.limit_ms == pytest.approx((7 * 4 * 8 / 4 + 3 * 5 * 8 * 8 + 7 * 8 * 3) / 1e3, rel=1e-12)


def test_engines_that_disagree_are_reported_as_such(tmp_path, capsys, monkeypatch):
    original = DeltaProgram.after
    monkeypatch.setattr(DeltaProgram, "after", lambda self, *args: original(self, *args) * float("nan"))
    report = report_of(tmp_path, capsys)
    assert (report["engines_agree"], report["max_difference"]) == (False, None)


def test_what_a_lower_precision_does_is_measured(tmp_path, capsys):
    report = report_of(tmp_path, capsys, {"mutagenesis": {"precision": "bfloat16"}})
    assert report["precision"] == "bfloat16"
    for engine in ("full", "delta"):
        assert 0 < report[f"{engine}_precision_difference"] < 0.5
        assert 0.5 < report[f"{engine}_precision_slope"] < 2


def test_nothing_to_time_is_an_error(tmp_path):
    path = write_project(tmp_path, {"sequences": {"max_n_fraction": 0.5}})
    config = load_config(path)
    with prepare(config, during_the_run(config), device="cpu") as job:
        windows = list(job.sequences.windows.rows())
    records = (tmp_path / "genome.fa").read_text().split(">")[1:]
    contigs = {name: list(bases.replace("\n", "")) for name, _, bases in (one.partition("\n") for one in records)}
    for chrom, start, _, _ in windows:
        contigs[chrom][start + 20 : start + 28] = "N" * 8
    (tmp_path / "genome.fa").write_text("".join(f">{name}\n{''.join(bases)}\n" for name, bases in contigs.items()))
    with pytest.raises(SequenceError, match="nothing to time"):
        bench(load_config(path), device="cpu")
