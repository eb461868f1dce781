"""The adjusted profile score of a slope, given the variance of pleiotropic effects, and its equation for that variance."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from kipoi_deepmr.mr.core.inputs import BoolArray, FloatArray
from kipoi_deepmr.mr.core.losses import Loss


@dataclass(frozen=True, eq=False)
class ScoreRows:
    """Fits (F, J): effects, the variances of their errors and the covariance; what is not used is 0."""

    x: FloatArray
    y: FloatArray
    xx: FloatArray
    yy: FloatArray
    xy: FloatArray
    used: BoolArray

    def __getitem__(self, rows: npt.NDArray[np.intp] | BoolArray | slice) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def variance(self, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the residual variances."""
        b = slope[:, None]
        total = self.yy + b * (b * self.xx - 2 * self.xy) + tau2[:, None]
        return np.where(self.used, total, 1.0)

    def residual(self, slope: FloatArray) -> FloatArray:
        """Return the residuals."""
        return self.y - slope[:, None] * self.x

    def loss(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the sums of the losses."""
        t = self.residual(slope) / np.sqrt(self.variance(slope, tau2))
        return np.asarray(loss.rho(t).sum(axis=-1), dtype=np.float64)

    def score(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the first and the second derivative of the loss with respect to the slope."""
        variance = self.variance(slope, tau2)
        spread, residual = np.sqrt(variance), self.residual(slope)
        lean = (slope[:, None] * self.xx - self.xy) / variance
        adjusted = self.x + residual * lean
        turned = residual * (self.xx / variance - 2 * lean**2) - self.x * lean
        t = residual / spread
        pull = loss.slope(t) / spread
        first = -(pull * adjusted).sum(axis=-1)
        second = loss.bend(t) * adjusted**2 / variance - pull * (turned - adjusted * lean)
        return first, np.asarray(second.sum(axis=-1), dtype=np.float64)

    def excess(self, loss: Loss, slope: FloatArray, tau2: FloatArray) -> FloatArray:
        """Return the left side of the equation for tau2: positive where the residuals are too large."""
        variance = self.variance(slope, tau2)
        t = self.residual(slope) / np.sqrt(variance)
        terms = self.xx * (t * loss.slope(t) - loss.delta) / variance
        return np.asarray(terms.sum(axis=-1), dtype=np.float64)
