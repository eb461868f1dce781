"""Mendelian-randomization estimators: pure functions of arrays (..., J), batched over the leading axes."""

from kipoi_deepmr.mr import diagnostics
from kipoi_deepmr.mr.core.inputs import Status
from kipoi_deepmr.mr.diagnostics import CochranQ, RuckerQ
from kipoi_deepmr.mr.diagnostics.conditional_strength import conditional_f
from kipoi_deepmr.mr.estimators.clustered import ClusteredResult, clustered_egger, clustered_ivw
from kipoi_deepmr.mr.estimators.cml import CMLResult, cml
from kipoi_deepmr.mr.estimators.contamination_mixture import ContaminationMixtureResult, contamination_mixture
from kipoi_deepmr.mr.estimators.cross_fitted_egger import CrossFittedEggerResult, cross_fitted_egger
from kipoi_deepmr.mr.estimators.cross_fitted_ivw import CrossFittedIVWResult, cross_fitted_ivw
from kipoi_deepmr.mr.estimators.debiased_ivw import DebiasedIVWResult, debiased_ivw
from kipoi_deepmr.mr.estimators.egger import EggerResult, egger
from kipoi_deepmr.mr.estimators.ivw import IVWResult, ivw
from kipoi_deepmr.mr.estimators.lasso import LassoResult, lasso
from kipoi_deepmr.mr.estimators.maximum_likelihood import MaximumLikelihoodResult, maximum_likelihood
from kipoi_deepmr.mr.estimators.median import MedianResult, penalized_weighted_median, simple_median, weighted_median
from kipoi_deepmr.mr.estimators.mode import ModeResult, simple_mode, weighted_mode
from kipoi_deepmr.mr.estimators.multivariable_egger import MultivariableEggerResult, multivariable_egger
from kipoi_deepmr.mr.estimators.multivariable_ivw import MultivariableIVWResult, multivariable_ivw
from kipoi_deepmr.mr.estimators.overlap_debiased_ivw import OverlapDebiasedIVWResult, overlap_debiased_ivw
from kipoi_deepmr.mr.estimators.penalized_ivw import PenalizedIVWResult, penalized_ivw
from kipoi_deepmr.mr.estimators.radial import RadialResult, radial_egger, radial_ivw
from kipoi_deepmr.mr.estimators.raps import RAPSResult, raps
from kipoi_deepmr.mr.estimators.wald_ratio import WaldRatioResult, wald_ratio
from kipoi_deepmr.mr.held_out import held_out_selection

__all__ = [
    "CMLResult",
    "ClusteredResult",
    "CochranQ",
    "ContaminationMixtureResult",
    "CrossFittedEggerResult",
    "CrossFittedIVWResult",
    "DebiasedIVWResult",
    "EggerResult",
    "IVWResult",
    "LassoResult",
    "MaximumLikelihoodResult",
    "MedianResult",
    "ModeResult",
    "MultivariableEggerResult",
    "MultivariableIVWResult",
    "OverlapDebiasedIVWResult",
    "PenalizedIVWResult",
    "RAPSResult",
    "RadialResult",
    "RuckerQ",
    "Status",
    "WaldRatioResult",
    "clustered_egger",
    "clustered_ivw",
    "cml",
    "conditional_f",
    "contamination_mixture",
    "cross_fitted_egger",
    "cross_fitted_ivw",
    "debiased_ivw",
    "diagnostics",
    "egger",
    "held_out_selection",
    "ivw",
    "lasso",
    "maximum_likelihood",
    "multivariable_egger",
    "multivariable_ivw",
    "overlap_debiased_ivw",
    "penalized_ivw",
    "penalized_weighted_median",
    "radial_egger",
    "radial_ivw",
    "raps",
    "simple_median",
    "simple_mode",
    "wald_ratio",
    "weighted_median",
    "weighted_mode",
]
