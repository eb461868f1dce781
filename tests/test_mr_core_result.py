"""What a result says of itself: a text that a person reads, and a table with a row for each fit."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from kipoi_deepmr import meta, mr
from kipoi_deepmr.mr import diagnostics
from kipoi_deepmr.mr.core.result import EstimateResult, Result
from tests.mr_helpers import draw

DRAWS = np.random.default_rng(1).normal(1, 0.1, (3, 2, 12, 9)) * np.linspace(0.5, 2, 9)


def several(*columns: np.ndarray) -> list[np.ndarray]:
    bx, bxse, by, byse = columns
    return [np.stack([bx, bx[..., ::-1]], axis=-2), np.stack([bxse, bxse], axis=-2), by, byse]


# A result of 3 x 2 fits of 9 instruments, for each kind of answer.
COLUMNS = draw(1, 9, (3, 2))
MADE: dict[str, Callable[[], Any]] = {
    **{
        name: partial(getattr(mr, name), *COLUMNS)
        for name in (
            *("ivw", "egger", "radial_ivw", "radial_egger", "maximum_likelihood", "debiased_ivw", "penalized_ivw"),
            *("overlap_debiased_ivw", "raps", "contamination_mixture", "lasso", "cml", "wald_ratio"),
        )
    },
    **{
        name: partial(getattr(mr, name), *COLUMNS, n_boot=10)
        for name in ("simple_median", "weighted_median", "penalized_weighted_median", "simple_mode", "weighted_mode")
    },
    **{
        name: partial(getattr(mr, name), *COLUMNS, groups=np.arange(9) // 2)
        for name in ("clustered_ivw", "clustered_egger")
    },
    **{name: partial(getattr(mr, name), *several(*COLUMNS)) for name in ("multivariable_ivw", "multivariable_egger")},
    **{
        name: partial(getattr(mr, name), DRAWS, 0.5 * DRAWS[..., ::-1])
        for name in ("cross_fitted_ivw", "cross_fitted_egger")
    },
    "rucker": partial(diagnostics.rucker, *COLUMNS),
    "leave_one_out": partial(diagnostics.leave_one_out, *COLUMNS),
    "CochranQ": partial(diagnostics.cochran_q, *COLUMNS),
    "RuckerQ": partial(diagnostics.rucker_q, *COLUMNS),
    "Presso": partial(diagnostics.presso, *COLUMNS, draws=10),
    "Steiger": partial(diagnostics.steiger, *COLUMNS, n_exposure=100, n_outcome=100),
    "SteigerFilter": partial(diagnostics.steiger_filter, *COLUMNS, n_exposure=100, n_outcome=100),
    "random_effects": partial(meta.random_effects, COLUMNS[0], COLUMNS[1]),
    "Tau2Interval": partial(meta.tau2_interval, COLUMNS[0], COLUMNS[1]),
}
# Sizes of the last axis of those whose rows are not whole fits.
LAST = {"wald_ratio": 9, "SteigerFilter": 9, "leave_one_out": 9, "multivariable_ivw": 2, "multivariable_egger": 2}


def subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_no_result_is_left_out() -> None:
    kinds = {type(make()) for make in MADE.values()}
    assert {kind for kind in subclasses(Result) if not kind.__subclasses__()} == kinds
    public = {getattr(room, name) for room in (mr, diagnostics, meta) for name in room.__all__}
    assert kinds <= public


@pytest.mark.parametrize("name", MADE)
def test_text_and_table_of_every_result(name: str) -> None:
    result = MADE[name]()
    shape = (3, 2, LAST[name]) if name in LAST else (3, 2)
    text = repr(result).splitlines()
    assert text[0].startswith(f"{name}, shape {shape}: ")
    assert "array" not in text[0] and all(len(line) < 200 for line in text)
    assert len(text) <= 15
    table = result.to_dataframe()
    assert len(table) == np.prod(shape)
    for column in table:
        if column in ("estimator", "confidence_level"):
            assert set(table[column]) == {getattr(result, column)}
        elif column not in ("status", "model"):
            wanted = getattr(result, column)
            wanted = wanted if wanted.shape == shape else np.broadcast_to(wanted[..., None], shape)
            np.testing.assert_array_equal(table[column], wanted.ravel())
    # What is not in the table has an axis of its own, and the text names it.
    told = {"left_out"} if name == "leave_one_out" else set()
    for further in set(result.arrays) - set(table) - told:
        assert f"{further} {getattr(result, further).shape}" in text[-1]
    if isinstance(result, EstimateResult):
        assert list(table)[:2] == ["estimator", "confidence_level"]
        assert "95% interval" in text[1]
    with pytest.raises(FrozenInstanceError):
        result.status = 0


def test_text_of_one_fit() -> None:
    one = mr.ivw([1.0, 2.0, -1.0], [0.1] * 3, [0.5, 1.1, -0.4], [0.1] * 3, alpha=0.1)
    assert repr(one) == (
        "ivw: estimate 0.5167, SE 0.04082, 90% interval [0.4495, 0.5838], p 1.04e-36, instruments 3, status ok\n"
        "  n_used 3, rse 0.9574, q 1.833, q_pvalue 0.3998, f_statistic 200"
    )
    none = mr.egger([1.0, 2.0], [0.1] * 2, [0.5, 1.1], [0.1] * 2, alpha=0.001)
    assert repr(none).startswith(
        "egger: estimate NaN, SE NaN, 99.9% interval NaN, p NaN, instruments 2, status too few instruments\n  intercept NaN"
    )
    pooled = meta.random_effects([0.4, 0.6], [0.1, 0.0])
    assert "studies 2, status invalid standard error\n" in repr(pooled)


def test_text_of_many_fits() -> None:
    bx, bxse, by, byse = draw(2, 5, (40, 30))
    bx[:, 1, 1:] = np.nan
    byse[0, 0, 0] = 0.0
    lines = repr(mr.egger(bx, bxse, by, byse)).splitlines()
    assert lines[0] == ("egger, shape (40, 30): 1159 ok, 40 too few instruments, 1 invalid standard error")
    assert [word.strip() for word in lines[1].split("  ") if word] == [
        *("axis_0, axis_1", "estimate", "SE", "95% interval", "p", "instruments", "status")
    ]
    assert len(lines) == 2 + 10 + 2 and lines[12] == "  and 1190 more rows"
    assert lines[2].split() == ["0,", "0", "NaN", "NaN", "NaN", "NaN", "5", "invalid", "standard", "error"]
    assert len({len(line) for line in lines[1:12]}) == 1
    assert repr(mr.ivw(*(np.zeros((0, 3)),) * 4)).startswith("ivw, shape (0,): no fits")


def test_a_fieller_set_of_two_rays_is_read_as_such() -> None:
    rays = replace(mr.ivw(*draw(1, 20)), ci_low=np.array(2.0), ci_high=np.array(-1.5))
    assert ", 95% interval up to -1.5 or from 2, p " in repr(rays)


def test_indices_of_the_table() -> None:
    bx, bxse, by, byse = COLUMNS
    alone = mr.ivw(bx[0, 0], bxse[0, 0], by[0, 0], byse[0, 0]).to_dataframe()
    assert list(alone.index) == [0] and alone.estimate[0] == mr.ivw(*COLUMNS).estimate[0, 0]
    row = mr.ivw(bx[0], bxse[0], by[0], byse[0]).to_dataframe()
    assert list(row.index) == [0, 1] and row.index.name == "axis_0"
    many = mr.multivariable_ivw(*several(*COLUMNS))
    table = many.to_dataframe()
    assert list(table.index.names) == ["axis_0", "axis_1", "exposure"]
    assert table.conditional_f[2, 1, 1] == many.conditional_f[2, 1, 1] and table.rse[2, 1, 1] == many.rse[2, 1]
    groups = list("aabbccddd")
    left = diagnostics.leave_one_out(*COLUMNS, groups=groups)
    assert left.to_dataframe().estimate[2, 1, "c"] == left.estimate[2, 1, 2]
    # As many fits as groups: a label is no number of a fit.
    square = diagnostics.leave_one_out(*draw(1, 4, (4,)), groups=list("wxyz"))
    assert "left_out" not in square.to_dataframe() and "left_out (" not in repr(square)


def test_words_of_codes() -> None:
    bx, bxse, by, byse = draw(3, 6, (2,))
    bx[1] = np.nan
    table = diagnostics.rucker(bx, bxse, by, byse).to_dataframe()
    assert list(table.status) == ["ok", "too few instruments"]
    assert list(table.model) == ["ivw_fixed", "none"]
    assert list(meta.tau2_interval([[1.0, np.nan], [1, 2]], np.ones((2, 2))).to_dataframe().status) == [
        *("too few studies", "ok")
    ]


def test_the_statistics_do_not_load_pandas() -> None:
    code = "import sys; from kipoi_deepmr import mr, meta; repr(mr.ivw([1.0], [1.0], [1.0], [1.0])); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
