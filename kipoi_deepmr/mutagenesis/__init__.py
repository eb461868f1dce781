"""Saturation in-silico mutagenesis: the 3L mutants of each sequence through thinned networks."""

from kipoi_deepmr.mutagenesis.blocks import Block, BlockMoments
from kipoi_deepmr.mutagenesis.delta.delta import Delta
from kipoi_deepmr.mutagenesis.engine import Engine
from kipoi_deepmr.mutagenesis.engine_choice import choose_engine
from kipoi_deepmr.mutagenesis.ensemble import Ensemble
from kipoi_deepmr.mutagenesis.full.full import Full
from kipoi_deepmr.mutagenesis.strategy import Predictor, Request, Strategy
from kipoi_deepmr.mutagenesis.variants import Variants, all_variants, mutate

__all__ = [
    "Block",
    "BlockMoments",
    "Delta",
    "Engine",
    "Ensemble",
    "Full",
    "Predictor",
    "Request",
    "Strategy",
    "Variants",
    "all_variants",
    "choose_engine",
    "mutate",
]
