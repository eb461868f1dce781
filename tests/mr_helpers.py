"""Random instruments, and invariants that every estimator must have."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
Estimator = Callable[..., Any]

seeds = st.integers(0, 10**6)
sizes = st.integers(3, 12)
factors = st.floats(1e-4, 1e4)


def draw(seed: int, n: int, batch: tuple[int, ...] = ()) -> tuple[Array, Array, Array, Array]:
    """Return bx, bxse, by, byse of shape (*batch, n) with the slope 0.8."""
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.3, (*batch, n))
    bxse = rng.uniform(0.01, 0.05, bx.shape)
    byse = rng.uniform(0.01, 0.05, bx.shape)
    by = 0.8 * bx + rng.normal(0, rng.choice([0.3, 1, 3]), bx.shape) * byse
    return bx, bxse, by, byse


def assert_same_fit(a: Any, b: Any, *, skip: tuple[str, ...] = (), rtol: float = 1e-7, atol: float = 1e-10) -> None:
    """Compare two results field by field."""
    for name in a.arrays:
        if name not in skip:
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=atol, err_msg=name)


def assert_scales(estimator: Estimator, columns: tuple[Array, ...], exposure: float, outcome: float) -> None:
    """Effects per exposure unit over outcome unit scale with the units; what has no unit stays."""
    bx, bxse, by, byse = columns
    plain = estimator(bx, bxse, by, byse)
    scaled = estimator(bx * exposure, bxse * exposure, by * outcome, byse * outcome)
    for name in ("estimate", "se", "ci_low", "ci_high"):
        np.testing.assert_allclose(
            getattr(scaled, name) * exposure / outcome,
            getattr(plain, name),
            rtol=1e-7,
            atol=1e-7 * plain.se.max(),
            err_msg=name,
        )
    for name in ("pvalue", "rse", "q", "q_pvalue", "n_instruments", "n_used", "status"):
        if hasattr(plain, name):
            np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-6, atol=1e-12, err_msg=name)


def assert_mirrors(estimator: Estimator, columns: tuple[Array, ...]) -> None:
    """An outcome counted in the other direction has the opposite effect, with the same certainty."""
    bx, bxse, by, byse = columns
    plain, mirrored = estimator(bx, bxse, by, byse), estimator(bx, bxse, -by, byse)
    np.testing.assert_allclose(mirrored.estimate, -plain.estimate, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(mirrored.ci_low, -plain.ci_high, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(mirrored.se, plain.se, rtol=1e-7)


def assert_sign_order_and_padding(
    estimator: Estimator, columns: tuple[Array, ...], seed: int, *, rtol: float = 1e-7
) -> None:
    """Nothing depends on the orientation or the order of the instruments, nor on absent ones."""
    bx, bxse, by, byse = columns
    n = bx.shape[-1]
    plain = estimator(bx, bxse, by, byse)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1.0, 1.0], n), rng.permutation(n)
    assert_same_fit(estimator(bx * sign, bxse, by * sign, byse), plain, rtol=rtol)
    assert_same_fit(estimator(bx[order], bxse[order], by[order], byse[order]), plain, rtol=rtol)
    padded = [np.insert(column, [0, n, n], 9.0) for column in columns]
    for position, which in ((0, 0), (n + 1, 2), (n + 2, 3)):
        padded[which][position] = np.nan
    assert_same_fit(estimator(*padded), plain, rtol=rtol)


def assert_batch_is_a_loop(estimator: Estimator, *, rtol: float = 1e-9) -> None:
    """Fits in a batch are what they are alone: also where a neighbour is absent, degenerate or wrong."""
    columns = draw(1, 8, (2, 5))
    columns[0][0, 1, 2:] = np.nan
    columns[2][1, 3] = np.nan
    columns[0][0, 0, 3] = 0.0
    columns[3][1, 0, 0] = 0.0
    together = estimator(*columns)
    assert together.estimate.shape == (2, 5)
    for index in np.ndindex(2, 5):
        alone = estimator(*(column[index] for column in columns))
        for name in alone.arrays:
            actual, wanted = getattr(together, name)[index], getattr(alone, name)
            np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=1e-12, err_msg=name)
