"""Where the error of an effect comes from: thinned networks, whose masks a counter fixes."""

from kipoi_deepmr.uncertainty.draws import DrawMasks, Mask, MCDropout, ThinnedNetwork
from kipoi_deepmr.uncertainty.sites import (
    DropoutMode,
    DropoutSite,
    explain_no_dropout,
    find_dropouts,
    gaussian_dropout,
)

__all__ = [
    "DrawMasks",
    "DropoutMode",
    "DropoutSite",
    "MCDropout",
    "Mask",
    "ThinnedNetwork",
    "explain_no_dropout",
    "find_dropouts",
    "gaussian_dropout",
]
