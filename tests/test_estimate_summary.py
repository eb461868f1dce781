"""Stored effects as instruments: blocks, the reference base, errors of the mean, permutations, both directions."""

import numpy as np
import pytest

from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import StoreError
from kipoi_deepmr.estimate import summary as module
from kipoi_deepmr.estimate.summary import read_effects, summaries
from tests.hand_made import make_effects, mutants
from tests.small_stores import write_store


def test_the_reference_base_is_left_out_and_the_mutants_of_a_position_stand_together():
    effects = make_effects(positions=5)
    one = next(summaries(effects))
    assert one.bx.shape == (2, 3, 15)
    assert one.n_positions == 5
    assert one.positions.tolist() == np.repeat(np.arange(10, 15), 3).tolist()
    for outcome, sequence in np.ndindex(2, 3):
        of_exposure = {"exposure": 0, "sequence": sequence}
        np.testing.assert_array_equal(one.bx[outcome, sequence], mutants(effects, "exposure_effect", **of_exposure))
        np.testing.assert_array_equal(one.bxse[outcome, sequence], mutants(effects, "exposure_se", **of_exposure))
        of_outcome = {"outcome": outcome, "sequence": sequence}
        np.testing.assert_array_equal(one.by[outcome, sequence], mutants(effects, "outcome_effect", **of_outcome))
        of_both = mutants(effects, "error_covariance", **of_exposure, outcome=outcome)
        np.testing.assert_array_equal(one.covariance[outcome, sequence], of_both)


def test_an_unknown_base_has_no_mutants():
    effects = make_effects(sequences=1)
    for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se", "error_covariance"):
        effects[name].values[..., 2, :] = np.nan
    one = next(summaries(effects))
    assert np.isnan(one.bx[..., 6:9]).all() and np.isfinite(np.delete(one.bx, range(6, 9), axis=-1)).all()
    assert one.selected(0.0).n_without_error.tolist() == [[0], [0]]


@pytest.mark.parametrize(("jointly", "blocks"), [(False, [2, 2, 1]), (True, [1] * 5)])
def test_blocks_hold_as_many_sequences_as_the_bound_on_numbers_allows(monkeypatch, jointly, blocks):
    bound = np.ones((2, 6), bool)
    bound[0, 2] = False
    effects = make_effects(sequences=6, bound=bound)
    # A sequence has 18 mutants for each of 2 outcomes, and of 2 exposures where all are read at once.
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 2 * 18 * 2 + 1)
    whole = next(iter(summaries(make_effects(sequences=6, bound=bound), only=0)))
    found = list(summaries(effects, jointly=jointly, only=0))
    assert [len(one.sequences) for one in found] == blocks
    assert np.concatenate([one.sequences for one in found]).tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(np.concatenate([one.by for one in found], axis=1)[:, 0], whole.by[:, 0])
    assert {one.exposure for one in summaries(effects)} == {0, 1}


def test_only_sequences_that_count_and_are_completed_are_read():
    effects = make_effects(bound=np.array([[True, True, False], [False, False, False]]))
    effects["completed"].values[0] = False
    assert [(one.exposure, one.sequences.tolist()) for one in summaries(effects)] == [(0, [1])]


def test_errors_of_the_mean_shrink_by_the_root_of_the_draws_once():
    one = next(summaries(make_effects(draws=16)))
    mean = one.of_the_mean()
    np.testing.assert_allclose(mean.bxse, one.bxse / 4, rtol=1e-14)
    np.testing.assert_allclose(mean.byse, one.byse / 4, rtol=1e-14)
    np.testing.assert_allclose(mean.correlation, one.correlation, rtol=1e-12)
    assert mean.of_the_mean() is mean
    stored = next(summaries(make_effects(standard_error="monte_carlo")))
    assert stored.of_the_mean() is stored


def test_a_correlation_stays_within_its_bounds_and_is_zero_without_errors():
    effects = make_effects(sequences=1)
    effects["error_covariance"].values[:] *= 1e6
    effects["exposure_se"].values[0, 0, 0] = 0.0
    found = next(summaries(effects)).correlation
    assert (found[..., :3] == 0).all()
    assert set(np.unique(found[..., 3:])) == {-1.0, 1.0}


def test_the_three_mutants_of_a_position_are_permuted_together_with_their_errors():
    one = next(summaries(make_effects(sequences=2, positions=3)))
    orders = np.array([[2, 0, 1], [0, 2, 1]])
    moved = one.permuted(orders)
    for sequence, order in enumerate(orders):
        where = [3 * position + mutant for position in order for mutant in range(3)]
        for name in ("bx", "bxse"):
            before, after = getattr(one, name)[:, sequence], getattr(moved, name)[:, sequence]
            np.testing.assert_array_equal(after, before[:, where])
    np.testing.assert_array_equal(moved.by, one.by)
    np.testing.assert_array_equal(moved.byse, one.byse)
    assert (moved.covariance == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_of_several_causes_only_the_own_one_is_permuted(reverse):
    one = list(summaries(make_effects(exposures=3), jointly=True))[3 - 1]
    one = one.reversed() if reverse else one
    orders = np.tile(np.arange(one.n_positions)[::-1], (3, 1))
    before, after = one.selected(0.0).joint, one.permuted(orders).selected(0.0).joint
    assert before is not None and after is not None
    if reverse:
        # All outcomes are causes here, and all are permuted alike.
        assert before.pairs == [(0, 0), (1, 0)]
        assert not np.array_equal(before.causes[0], after.causes[0])
        np.testing.assert_array_equal(before.effects, after.effects)
    else:
        assert before.pairs == [(2, 0), (2, 1)]
        np.testing.assert_array_equal(before.causes[:2], after.causes[:2])
        assert not np.array_equal(before.causes[2], after.causes[2])


def test_a_joint_instrument_is_strong_for_one_cause_and_has_an_error_for_every_one():
    effects = make_effects(sequences=1, positions=4)
    effects["exposure_effect"].values[:] = np.where(np.isnan(effects["exposure_effect"].values), np.nan, 0.1)
    effects["exposure_se"].values[:] = np.where(np.isnan(effects["exposure_se"].values), np.nan, 0.1)
    effects["exposure_effect"].values[1, 0, 0, 1] = 1.0  # strong for the other exposure
    effects["exposure_effect"].values[0, 0, 1, 0] = 1.0  # strong for this one, without an error for the other
    effects["exposure_se"].values[1, 0, 1, 0] = 0.0
    joint = next(summaries(effects, jointly=True)).selected(10.0).joint
    assert joint is not None
    assert np.flatnonzero(np.isfinite(joint.causes[0, 0])).tolist() == [0]


def test_reversed_exchanges_cause_and_effect():
    one = next(summaries(make_effects()))
    back = one.reversed()
    np.testing.assert_array_equal(back.bx, one.by)
    np.testing.assert_array_equal(back.byse, one.bxse)
    assert back.reverse and not back.reversed().reverse


def test_what_a_store_lacks_is_named(tmp_path):
    path = write_store(tmp_path)
    with open_results(path) as tree:
        effects = read_effects(path, tree)
        assert (effects.attrs["draws"], effects.attrs["scale"]) == (30, "identity")
        tree["effects"] = tree["effects"].to_dataset().drop_vars(["outcome_se", "bound"])
        with pytest.raises(StoreError, match=r"out\.zarr is incomplete: effects lacks outcome_se, bound; use run"):
            read_effects(path, tree)
