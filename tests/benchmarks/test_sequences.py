"""What it may cost to prepare sequences: run by hand, ``pytest -m benchmark``."""

import time

import pytest

from kipoi_deepmr.config import load_config
from kipoi_deepmr.predict.prepare import prepare
from kipoi_deepmr.predict.shuffled import shuffled_job, shuffled_template
from tests.readme import ROOT

pytestmark = pytest.mark.benchmark

EXAMPLE = ROOT / "examples" / "simulated_tf_accessibility" / "config.yaml"


def seconds_of(copies: int) -> tuple[int, float]:
    """Shuffled sequences of the example, and the CPU time until their store could be made."""
    config = load_config(EXAMPLE)
    controls = config.controls.model_copy(update={"shuffled_sequence": copies})
    with prepare(config.model_copy(update={"controls": controls}), device="cpu") as job:
        begun = time.process_time()
        shuffled = shuffled_job(job)
        assert shuffled is not None
        shuffled_template(shuffled)
        shuffled.mutants()
        return len(shuffled.sequences), time.process_time() - begun


def test_820_shuffled_sequences_are_prepared_in_less_than_a_second():
    count, seconds = seconds_of(20)
    assert count == 820
    assert seconds < 1


def test_four_times_as_many_take_about_four_times_as_long():
    few, many = (min(seconds_of(copies)[1] for _ in range(3)) for copies in (20, 80))
    assert many < 6 * few
