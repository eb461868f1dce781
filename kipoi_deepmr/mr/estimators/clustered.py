"""IVW and MR-Egger with standard errors that allow for instruments which err together, such as those of a position."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.design import Design, build_design, keep_zero_outcomes
from kipoi_deepmr.mr.core.groups import Groups, read_groups
from kipoi_deepmr.mr.core.inputs import FloatArray, IntArray, Status, check_option, read_associations
from kipoi_deepmr.mr.core.options import check_options
from kipoi_deepmr.mr.core.regression import Fit, dot, inference, intercept_inference, through_origin, with_intercept
from kipoi_deepmr.mr.core.result import InterceptResult

_CORRECTIONS = ("CR1", "CR2")
# Leverage that rounding cannot tell from 1: without the group nothing would be left to estimate with.
_FULL_LEVERAGE = 1e-12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClusteredResult(InterceptResult):
    """Estimates of `clustered_ivw` and `clustered_egger`: those of `ivw` and `egger` with cluster-robust standard errors.

    The intercept has its own degrees of freedom and is NaN for IVW. The status is TOO_FEW_INSTRUMENTS also where there are
    fewer than two groups (MR-Egger: three), or where without one of them nothing would be left to estimate with.

    Attributes
    ----------
    df : ndarray of float64, shape (...)
        Degrees of freedom of Student's t: n_groups - 1 with "CR1", Satterthwaite's with "CR2".
    n_groups : ndarray of int64, shape (...)
        Groups with at least one variant of positive weight.
    """

    df: FloatArray
    n_groups: IntArray


@np.errstate(all="ignore")
def clustered_ivw(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    groups: npt.ArrayLike,
    correction: str = "CR2",
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "t-dist",
    alpha: float = 0.05,
) -> ClusteredResult:
    r"""IVW with a sandwich standard error: instruments of one group may err together in any way.

    .. math:: \mathrm{se}^2 = \Big(\sum_j w_j x_j^2\Big)^{-2} c \sum_g \Big(\sum_{j \in g} w_j x_j \tilde e_j\Big)^2

    with residuals e of the IVW fit. "CR1": e as it is, c = G / (G - 1) (J - 1) / (J - 1). "CR2": c = 1 and the
    residuals of a group divided by the square root of 1 - its leverage, so that the variance is unbiased when the
    errors are independent with variances proportional to 1 / w.

    Estimand: that of `ivw`; only the standard error differs. It answers to correlation inside groups and to unequal
    variances, not to correlation between groups (all mutants share the draws of the network), nor to bias from weak
    instruments or from errors that exposure and outcome share. There is no max(RSE, 1): with under-dispersion the
    standard error may be smaller than the fixed-effect one. With few groups, or a few groups that hold most weight,
    prefer "CR2" with its degrees of freedom; where these are below 4 the p-value is not to be trusted.

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `ivw`; a variant with NaN is absent.
    groups : array_like, shape (J,)
        Labels of the instruments that belong together, for example their positions.
    correction : {"CR1", "CR2"}, default "CR2"
        Correction for a finite number of groups, as above.
    weights, psi
        As in `ivw`.
    distribution : {"normal", "t-dist"}, default "t-dist"
        Student t with the degrees of freedom in the result.
    alpha : float, default 0.05
        One minus the level of the interval.

    Returns
    -------
    ClusteredResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    Liang and Zeger (1986), Biometrika 73:13; Bell and McCaffrey (2002), Survey Methodology 28:169 (CR2 and its
    degrees of freedom); Cameron and Miller (2015), Journal of Human Resources 50:317.
    """
    design, parts = _read(bx, bxse, by, byse, groups, correction, weights, psi, distribution, alpha, "ivw")
    fit = through_origin(design)
    size = np.sqrt(dot(design.x, design.x))[..., None]
    basis = (design.x / size)[..., None]
    return _result(design, parts, fit, basis, 1 / size, None, correction, distribution, alpha)


@np.errstate(all="ignore")
def clustered_egger(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    *,
    groups: npt.ArrayLike,
    correction: str = "CR2",
    weights: str = "simple",
    psi: npt.ArrayLike = 0.0,
    distribution: str = "t-dist",
    alpha: float = 0.05,
) -> ClusteredResult:
    """MR-Egger with a sandwich standard error: instruments of one group may err together in any way.

    Estimand: that of `egger`; the standard errors and their limits are those of `clustered_ivw` with two columns
    (factor of "CR1": G / (G - 1) (J - 1) / (J - 2)).

    Parameters
    ----------
    bx, bxse, by, byse : array_like, shape (..., J)
        As in `egger`; a variant with NaN is absent, one with bx = 0 becomes the point (0, 0).
    groups, correction, weights, psi, distribution, alpha
        As in `clustered_ivw`.

    Returns
    -------
    ClusteredResult
        Arrays of shape (...).

    Raises
    ------
    ValueError
        For shapes that do not fit, or an option that is not known.

    References
    ----------
    As for `clustered_ivw`; Bowden, Davey Smith and Burgess (2015), International Journal of Epidemiology 44:512.
    """
    design, parts = _read(bx, bxse, by, byse, groups, correction, weights, psi, distribution, alpha, "egger")
    fit = with_intercept(design)
    saa = dot(design.sign, design.sign)
    mean = dot(design.sign, design.x) / saa
    x = design.x - mean[..., None] * design.sign
    level, size = np.sqrt(saa), np.sqrt(dot(x, x))
    basis = np.stack([x / size[..., None], design.sign / level[..., None]], axis=-1)
    slope = np.stack([1 / size, np.zeros(size.shape)], axis=-1)
    intercept = np.stack([-mean / size, 1 / level], axis=-1)
    return _result(design, parts, fit, basis, slope, intercept, correction, distribution, alpha)


def _read(
    bx: npt.ArrayLike,
    bxse: npt.ArrayLike,
    by: npt.ArrayLike,
    byse: npt.ArrayLike,
    groups: npt.ArrayLike,
    correction: str,
    weights: str,
    psi: npt.ArrayLike,
    distribution: str,
    alpha: float,
    estimator: str,
) -> tuple[Design, Groups]:
    check_option("correction", correction, _CORRECTIONS)
    check_options("default", False, False, weights, distribution, alpha)
    data = read_associations(bx, bxse, by, byse)
    parts = read_groups(groups, data.shape[-1])
    design = build_design(data, weights=weights, psi=psi, penalized=False)
    return (design if estimator == "ivw" else keep_zero_outcomes(design, data)), parts


def _result(
    design: Design,
    parts: Groups,
    fit: Fit,
    basis: FloatArray,
    slope: FloatArray,
    intercept: FloatArray | None,
    correction: str,
    distribution: str,
    alpha: float,
) -> ClusteredResult:
    """Return the result, given an orthonormal basis of the columns and the coefficients as combinations of it."""
    n_groups = np.count_nonzero(parts.count(design.used), axis=-1)
    # I - Z_g' Z_g for the rows Z_g of a group: what the other groups add up to.
    products = np.moveaxis(basis[..., :, None] * basis[..., None, :], -3, -1)
    together, apart = (np.moveaxis(add(products), -1, -3) for add in (parts.inside, parts.outside))
    values, vectors = np.linalg.eigh(np.where(np.isfinite(apart).all(axis=(-2, -1), keepdims=True), apart, 0.0))
    few = (n_groups <= basis.shape[-1]) | (values <= _FULL_LEVERAGE).any(axis=(-2, -1))
    few &= fit.status == Status.OK
    status = np.asarray(np.where(few, Status.TOO_FEW_INSTRUMENTS, fit.status), dtype=np.int64)
    ok = status == Status.OK
    root = np.einsum("...ik,...k,...jk->...ij", vectors, 1 / np.sqrt(values), vectors)

    def found(estimate: FloatArray, contrast: FloatArray) -> tuple[FloatArray, ...]:
        if correction == "CR1":
            variance, df = _cr1(parts, basis, fit.residual, contrast, design.n_used, n_groups)
        else:
            variance, df = _cr2(parts, basis, fit.residual, np.einsum("...gkl,...l->...gk", root, contrast), together)
        estimate, se, df = (np.where(ok, values, np.nan) for values in (estimate, np.sqrt(variance), df))
        return estimate, se, df

    estimate, se, df = found(fit.slope, slope)
    line = (np.full(status.shape, np.nan),) * 3 if intercept is None else found(fit.intercept, intercept)
    t_df, line_df = (df, line[2]) if distribution == "t-dist" else (None, None)
    return ClusteredResult(
        estimator="clustered_ivw" if intercept is None else "clustered_egger",
        **inference(estimate, se, alpha=alpha, df=t_df),
        **intercept_inference(*line[:2], alpha=alpha, df=line_df),
        df=df,
        n_instruments=design.n_instruments,
        n_groups=np.asarray(n_groups, dtype=np.int64),
        status=status,
    )


def _cr1(
    parts: Groups,
    basis: FloatArray,
    residual: FloatArray,
    contrast: FloatArray,
    n_used: IntArray,
    n_groups: npt.NDArray[np.intp],
) -> tuple[FloatArray, FloatArray]:
    score = parts.inside(np.einsum("...jk,...k->...j", basis, contrast) * residual)
    factor = n_groups / (n_groups - 1) * (n_used - 1) / (n_used - basis.shape[-1])
    return factor * dot(score, score), np.asarray(n_groups - 1, dtype=np.float64)


def _cr2(
    parts: Groups, basis: FloatArray, residual: FloatArray, adjusted: FloatArray, together: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return variance and degrees of freedom; `adjusted` is the contrast times (I - Z_g' Z_g)^(-1/2).

    f(I - Z_g Z_g') Z_g = Z_g f(I - Z_g' Z_g): matrices as small as the number of columns take the place of those as
    large as the group.
    """
    score = np.moveaxis(parts.inside(np.moveaxis(basis * residual[..., None], -2, -1)), -1, -2)
    root_of_variance = np.einsum("...gk,...gk->...g", adjusted, score)
    # Satterthwaite: the variance is a quadratic form whose matrix has the inner products u_g' u_h as elements.
    inner = np.einsum("...gk,...gkl,...gl->...g", adjusted, together, adjusted)
    shared = np.einsum("...gkl,...gl->...gk", together, adjusted)
    own = np.einsum("...gk,...gk->...g", shared, shared)
    crossed = np.einsum("...gk,...gl->...kl", shared, shared)
    diagonal = inner - own
    squares = np.einsum("...kl,...kl->...", crossed, crossed) - dot(own, own) + dot(diagonal, diagonal)
    return dot(root_of_variance, root_of_variance), np.asarray(diagonal.sum(axis=-1) ** 2 / squares)
