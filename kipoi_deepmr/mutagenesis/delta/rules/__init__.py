"""One rule per operation."""

from kipoi_deepmr.mutagenesis.delta.rules import channels, convolution, elementwise, linear, pooling, shapes
from kipoi_deepmr.mutagenesis.delta.rules.registry import RULES, shape_of

__all__ = ["RULES", "channels", "convolution", "elementwise", "linear", "pooling", "shape_of", "shapes"]
