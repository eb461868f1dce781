"""The scales of effects, and what stands outside of their domain."""

import numpy as np
import pytest
import torch

from kipoi_deepmr.mutagenesis.scale import transform


def test_a_saturated_probability_counts_as_the_nearest_one_that_float32_resolves():
    found = transform(torch.tensor([0.0, 1e-9, 0.25, 1.0], dtype=torch.float64), "logit")
    edge = np.log(1.1920929e-7 / (1 - 1.1920929e-7))
    assert found.tolist() == pytest.approx([edge, edge, np.log(1 / 3), -edge])


@pytest.mark.parametrize(
    ("scale", "given", "expected"),
    [
        ("identity", [-2.0, 0.0, 3.0], [-2.0, 0.0, 3.0]),
        ("log", [-1.0, 0.0, np.e], [np.nan, np.nan, 1.0]),
        ("logit", [-0.1, 0.5, 1.1], [np.nan, 0.0, np.nan]),
    ],
)
def test_what_lies_outside_of_the_domain_has_no_value(scale, given, expected):
    found = transform(torch.tensor(given, dtype=torch.float64), scale).tolist()
    assert found == pytest.approx(expected, nan_ok=True)
