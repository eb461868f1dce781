"""Where the error of an effect comes from: draws, each a network, such as thinned ones whose masks a counter fixes."""

from kipoi_deepmr.uncertainty.draws import AsItIs, DrawMasks, Draws, Mask, Site, ThinnedNetwork
from kipoi_deepmr.uncertainty.mc_dropout import MCDropout
from kipoi_deepmr.uncertainty.sites import (
    DropoutMode,
    DropoutSite,
    explain_no_dropout,
    find_dropouts,
    gaussian_dropout,
)

__all__ = [
    "AsItIs",
    "DrawMasks",
    "Draws",
    "DropoutMode",
    "DropoutSite",
    "MCDropout",
    "Mask",
    "Site",
    "ThinnedNetwork",
    "explain_no_dropout",
    "find_dropouts",
    "gaussian_dropout",
]
