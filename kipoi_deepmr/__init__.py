"""kipoi_deepmr: which causal effects has a genomic deep learning model learned?"""

__version__ = "0.1.0"
