"""Mendelian-randomization estimators: pure functions of arrays (..., J), batched over the leading axes."""

from kipoi_deepmr.mr import diagnostics
from kipoi_deepmr.mr._inputs import Status
from kipoi_deepmr.mr.diagnostics import CochranQ, RuckerQ
from kipoi_deepmr.mr.egger import EggerResult, egger
from kipoi_deepmr.mr.ivw import IVWResult, ivw
from kipoi_deepmr.mr.ratio import RatioResult, ratio

__all__ = [
    "CochranQ",
    "EggerResult",
    "IVWResult",
    "RatioResult",
    "RuckerQ",
    "Status",
    "diagnostics",
    "egger",
    "ivw",
    "ratio",
]
