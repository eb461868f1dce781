"""The pooled effect without each study."""

import math

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.meta._studies import read_studies
from kipoi_deepmr.meta.pooling import MetaResult, random_effects

# Effects held at a time: 32 MB for each array.
_BLOCK = 4_000_000


def leave_one_out(
    estimate: npt.ArrayLike,
    se: npt.ArrayLike,
    *,
    method: str = "REML",
    test: str = "z",
    alpha: float = 0.05,
    axis: int = -1,
    prediction: str = "default",
) -> MetaResult:
    """Pool the estimates again without each study in turn.

    Parameters
    ----------
    estimate, se : array_like
        As in `random_effects`; leaving out a study that is absent changes nothing.
    method, test, alpha, axis, prediction
        As in `random_effects`.

    Returns
    -------
    MetaResult
        Arrays of the input's shape, `axis` included: where a study stands, the result of the others.

    Raises
    ------
    ValueError
        As in `random_effects`.

    References
    ----------
    Viechtbauer and Cheung (2010), Research Synthesis Methods 1:112.
    """
    effect, error = read_studies(estimate, se, axis)
    batches, k = math.prod(effect.shape[:-1]), effect.shape[-1]

    def pool(effects: npt.ArrayLike, errors: npt.ArrayLike) -> MetaResult:
        return random_effects(effects, errors, method=method, test=test, alpha=alpha, prediction=prediction)

    flat_effect, flat_error = effect.reshape(batches, k), error.reshape(batches, k)
    # An empty part gives the fields their types where there is nothing to leave out, and checks the options.
    parts = [pool(np.zeros((0, 1)), np.ones((0, 1)))]
    size = max(1, _BLOCK // max(k, 1))
    for start in range(0, batches * k, size):
        row, left_out = np.divmod(np.arange(start, min(start + size, batches * k)), k)
        others = np.where(np.arange(k) == left_out[:, None], np.nan, flat_effect[row])
        parts.append(pool(others, flat_error[row]))
    arrays = {
        name: np.moveaxis(np.concatenate([part.arrays[name] for part in parts]).reshape(effect.shape), -1, axis)
        for name in parts[0].arrays
    }
    return MetaResult(**arrays, estimator="leave_one_out", confidence_level=1 - alpha)
