"""Random-effects meta-analysis of estimates from several studies (here: sequences)."""

from kipoi_deepmr.meta._studies import MetaStatus
from kipoi_deepmr.meta.pooling import METHODS, TESTS, MetaResult, random_effects

__all__ = ["METHODS", "TESTS", "MetaResult", "MetaStatus", "random_effects"]
