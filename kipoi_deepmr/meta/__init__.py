"""Random-effects meta-analysis of estimates from several studies (here: sequences)."""

from kipoi_deepmr.meta._studies import MetaStatus
from kipoi_deepmr.meta.influence import leave_one_out
from kipoi_deepmr.meta.intervals import Tau2Interval, tau2_interval
from kipoi_deepmr.meta.pooling import METHODS, TESTS, MetaResult, random_effects

__all__ = [
    "METHODS",
    "TESTS",
    "MetaResult",
    "MetaStatus",
    "Tau2Interval",
    "leave_one_out",
    "random_effects",
    "tau2_interval",
]
