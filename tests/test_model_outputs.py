"""What a model returns as columns: the reductions of profiles, and the order of everything."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model.outputs import Outputs, Reduction

PROFILE = np.random.default_rng(0).normal(size=(2, 7, 3))
PLAIN = {"mean": np.mean, "sum": np.sum, "max": np.max, "logsumexp": logsumexp}


def joined(outputs, output):
    return outputs.join(output, 2).numpy()


@pytest.mark.parametrize("how", PLAIN)
@pytest.mark.parametrize("window", [None, (0, 7), (2, 5), (6, 7)])
def test_a_reduction_gives_each_track_and_all_tracks_together(how, window):
    found = Reduction(how, window)(torch.from_numpy(PROFILE)).numpy()
    part = PROFILE[:, slice(*window)] if window else PROFILE
    tracks = PLAIN[how](part, axis=1)
    np.testing.assert_allclose(found, np.column_stack([tracks, PLAIN[how](tracks, axis=1)]))


def test_a_window_that_ends_behind_the_profile_is_an_error():
    with pytest.raises(ModelError, match=r"window: \[0, 8\] leaves the profile, which has 7 positions"):
        Reduction("sum", (0, 8))(torch.from_numpy(PROFILE))


def test_one_track_has_no_column_for_all_tracks():
    assert Reduction("sum")(torch.from_numpy(PROFILE[:, :, :1])).shape == (2, 1)


@pytest.mark.parametrize("axis", [1, 2])
def test_profiles_are_summed_unless_asked_otherwise(axis):
    given = torch.from_numpy(PROFILE if axis == 2 else PROFILE.transpose(0, 2, 1).copy())
    sums = PROFILE.sum(1)
    np.testing.assert_allclose(joined(Outputs((axis,)), given), np.column_stack([sums, sums.sum(1)]))


def test_further_reductions_of_a_task_stand_after_all_tasks():
    number, reductions = torch.zeros(2, 1, dtype=torch.float64), [Reduction("max"), Reduction("mean", (0, 2))]
    outputs = Outputs((2, None), tuple((1, one) for one in reductions), tasks=5)
    found = joined(outputs, [torch.from_numpy(PROFILE), number])
    assert found.shape == (2, outputs.width) == (2, 6)
    assert [outputs.column(1, one) for one in reductions] == [1, 5]
    np.testing.assert_allclose(found[:, :3], PROFILE.max(1))
    np.testing.assert_allclose(found[:, 5], PROFILE[:, :2, 1].mean(1))


def test_the_arrays_of_a_dict_stand_in_the_order_of_their_names():
    given = {"b": torch.ones(2, 1), "a": torch.zeros(2, 2)}
    assert joined(Outputs(), given).tolist() == [[0.0, 0.0, 1.0]] * 2
