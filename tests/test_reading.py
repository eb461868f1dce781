"""Which part of a store a name or a pattern chooses."""

import numpy as np
import pytest
import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.reading import select

SEQUENCES = ("chr1:0-5(+)", "chr1:9-14(-)", "chr2:0-5(+)")


def text(words):
    return np.array(list(words), dtype=object)


def dataset(sequences):
    coords = {"exposure": text(["TF[1]", "TF1", "tf2"]), "outcome": text(["open"]), "sequence": text(sequences)}
    return xr.Dataset({"value": (tuple(coords), np.zeros([len(names) for names in coords.values()]))}, coords)


@pytest.fixture
def results():
    shuffles = [f"{name}{terms.SHUFFLE}{number}" for name in SEQUENCES for number in (1, 2)]
    return xr.DataTree.from_dict({"effects": dataset(SEQUENCES), "controls/effects": dataset(shuffles)})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["TF[1]"], ["TF[1]"]),
        (["TF[12]"], ["TF1"]),
        (["TF*"], ["TF[1]", "TF1"]),
        (["tf2", "TF1"], ["TF1", "tf2"]),
        ("TF1", ["TF1"]),
    ],
)
def test_a_name_is_taken_before_a_pattern_and_the_order_is_that_of_the_store(results, wanted, found):
    assert select(results, exposure=wanted)["effects"]["exposure"].values.tolist() == found


def test_shuffled_sequences_go_with_those_that_they_come_from(results):
    chosen = select(results, sequence=["chr1:9-*", "chr2:*"])
    assert chosen["effects"]["sequence"].values.tolist() == list(SEQUENCES[1:])
    assert chosen["controls/effects"]["sequence"].values.tolist() == [
        f"{name}{terms.SHUFFLE}{number}" for name in SEQUENCES[1:] for number in (1, 2)
    ]
