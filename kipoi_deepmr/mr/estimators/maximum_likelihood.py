"""Maximum likelihood: errors in both effects of a variant, at the global optimum of the profile likelihood."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import Design, build_two_error_design, read_correlation, whiten
from kipoi_deepmr.mr.core.inputs import (
    FloatArray,
    Status,
    check_option,
    read_associations,
    read_psi,
)
from kipoi_deepmr.mr.core.options import check_inference, is_random
from kipoi_deepmr.mr.core.profile import Profile, minimise
from kipoi_deepmr.mr.core.regression import chi2_pvalue, fit_status, inference
from kipoi_deepmr.mr.core.result import CausalResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MaximumLikelihoodResult(CausalResult):
    """Estimates of `maximum_likelihood`.

    Attributes
    ----------
    rse : ndarray of float64, shape (...)
        sqrt(q / (n_instruments - 1)); 1 with a single instrument.
    q, q_pvalue : ndarray of float64, shape (...)
        The criterion at its minimum, chi-squared with n_instruments - 1 degrees of freedom; NaN with a single
        instrument.
    """

    estimator: str = "maximum_likelihood"
    rse: FloatArray
    q: FloatArray
    q_pvalue: FloatArray


@np.errstate(all="ignore")
def maximum_likelihood(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    model: str = "default",
    psi: npt.ArrayLike = 0.0,
    correlation: npt.ArrayLike | None = None,
    distribution: str = "normal",
    alpha: float = 0.05,
) -> MaximumLikelihoodResult:
    r"""Maximum-likelihood estimate, with the true exposure effects as nuisance parameters.

    .. math:: Q(\beta) = \sum_j \frac{(y_j - \beta x_j)^2}{s_{yj}^2 + \beta^2 s_{xj}^2 - 2 \beta \psi_j s_{xj} s_{yj}},
              \qquad \mathrm{se}^2 = 2 / Q''(\hat\beta)

    The exposure effects are profiled out exactly, which leaves Q. It may have several minima: all are found, and the
    lowest is the estimate. (R's `mr_maxlik` and TwoSampleMR's `mr_two_sample_ml` search over all nuisance parameters
    and stop short of the optimum by up to a standard error.) Under directional pleiotropy the lowest minimum may lie
    far from the causal effect; `q` is large then.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        Effects of J variants on exposure and outcome and their standard errors, on any one scale each; leading axes
        broadcast. A variant is absent where one of the four, or psi, is NaN.
    model : {"default", "random", "fixed"}, default "default"
        "random" multiplies the standard error by max(RSE, 1); "default" is "fixed" below 4 instruments and "random"
        from 4 on, decided for every fit by its own number of instruments.
    psi : array_like, default 0
        Correlation of the two errors of a variant; broadcasts to (..., J). With a correlation matrix it is one value
        per fit: a scalar, or a last axis of length 1.
    correlation : array_like, shape (..., J, J), optional
        Correlation R of the instruments' errors, with cov(x_j, y_k) = psi R_jk s_xj s_yk (R's `mr_maxlik` builds a
        matrix that is not symmetric where psi is not 0). Rows of absent variants may be NaN. Each evaluation of Q
        factors a matrix: some hundred times J^3 operations per fit.
    distribution : {"normal", "t-dist"}, default "normal"
        Student t has n_instruments - 1 degrees of freedom.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    MaximumLikelihoodResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Burgess, Butterworth and Thompson (2013), Genetic Epidemiology 37:658; Zhao et al. (2020), Annals of Statistics
    48:1742 (profile likelihood).
    """
    check_option("model", model, ("default", "random", "fixed"))
    check_inference(distribution, alpha)
    data = read_associations(bx, bxse, by, byse)
    shared = read_psi(psi, data.shape)
    design, spread = build_two_error_design(data, shared)
    if correlation is None:
        profile = Profile.independent(design.x, design.y, spread, shared, where=design.used)
    else:
        if shared.ndim and shared.shape[-1] != 1:
            raise ValueError(
                f"with a correlation matrix psi must be one value per fit: a scalar or a last axis of length 1, "
                f"not of shape {shared.shape}"
            )
        matrix, design = _linked(design, read_correlation(correlation, data.shape))
        profile = Profile.correlated(design.x, design.y, spread, shared, matrix)
    minimum, value, curvature = minimise(profile)

    nothing = np.asarray(~(design.x != 0).any(axis=-1))
    status = fit_status(design.invalid, design.n_used, 1, nothing, minimum + curvature)
    answered = status == Status.OK
    estimate, q = np.where(answered, minimum, np.nan), np.where(answered, value, np.nan)
    df = design.n_used - 1
    rse = np.where(answered & (df < 1), 1.0, np.sqrt(q / df))
    random = is_random(model, design.n_instruments)
    se = np.sqrt(2 / np.where(answered, curvature, np.nan)) * np.where(random, np.maximum(rse, 1), 1.0)
    t_df = df if distribution == "t-dist" else None
    q = np.where(df > 0, q, np.nan)
    return MaximumLikelihoodResult(
        **inference(estimate, se, alpha=alpha, df=t_df),
        n_instruments=design.n_instruments,
        rse=rse,
        q=q,
        q_pvalue=chi2_pvalue(q, df),
        status=status,
    )


def _linked(design: Design, matrix: FloatArray) -> tuple[FloatArray, Design]:
    """Return the correlation of the variants that are used, with identity elsewhere, and who has no valid one."""
    _, valid = whiten(design.x[..., None], matrix, design.used)
    both = design.used[..., :, None] & design.used[..., None, :] & valid[..., None, None]
    invalid = np.where((design.invalid == Status.OK) & ~valid, Status.INVALID_CORRELATION, design.invalid)
    marked = replace(design, invalid=np.asarray(invalid, dtype=np.int64))
    return np.where(both, matrix, np.eye(matrix.shape[-1])), marked
