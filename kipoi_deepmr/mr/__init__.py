"""Mendelian-randomization estimators: pure functions of arrays (..., J), batched over the leading axes."""

from kipoi_deepmr.mr import diagnostics
from kipoi_deepmr.mr._inputs import Status
from kipoi_deepmr.mr.clustered import ClusteredResult, clustered_egger, clustered_ivw
from kipoi_deepmr.mr.debiased_ivw import DebiasedIVWResult, debiased_ivw
from kipoi_deepmr.mr.diagnostics import CochranQ, RuckerQ
from kipoi_deepmr.mr.egger import EggerResult, egger
from kipoi_deepmr.mr.ivw import IVWResult, ivw
from kipoi_deepmr.mr.maximum_likelihood import MaximumLikelihoodResult, maximum_likelihood
from kipoi_deepmr.mr.median import MedianResult, penalized_weighted_median, simple_median, weighted_median
from kipoi_deepmr.mr.penalized_ivw import PenalizedIVWResult, penalized_ivw
from kipoi_deepmr.mr.ratio import RatioResult, ratio

__all__ = [
    "ClusteredResult",
    "CochranQ",
    "DebiasedIVWResult",
    "EggerResult",
    "IVWResult",
    "MaximumLikelihoodResult",
    "MedianResult",
    "PenalizedIVWResult",
    "RatioResult",
    "RuckerQ",
    "Status",
    "clustered_egger",
    "clustered_ivw",
    "debiased_ivw",
    "diagnostics",
    "egger",
    "ivw",
    "maximum_likelihood",
    "penalized_ivw",
    "penalized_weighted_median",
    "ratio",
    "simple_median",
    "weighted_median",
]
