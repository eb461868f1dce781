"""Saturation in-silico mutagenesis: the 3L mutants of each sequence through thinned networks."""

from kipoi_deepmr.mutagenesis.blocks import Block, BlockMoments
from kipoi_deepmr.mutagenesis.delta.engine import DeltaEngine
from kipoi_deepmr.mutagenesis.engine_choice import choose_engine
from kipoi_deepmr.mutagenesis.ensemble import EnsembleEngine, choose_engines
from kipoi_deepmr.mutagenesis.full import FullEngine
from kipoi_deepmr.mutagenesis.variants import Variants, all_variants, mutate

__all__ = [
    "Block",
    "BlockMoments",
    "DeltaEngine",
    "EnsembleEngine",
    "FullEngine",
    "Variants",
    "all_variants",
    "choose_engine",
    "choose_engines",
    "mutate",
]
