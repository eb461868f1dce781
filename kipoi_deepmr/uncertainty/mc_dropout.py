"""Draws of MC-dropout: a draw is a thinned network, its masks broadcast over the batch and fixed by a counter."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kipoi_deepmr.uncertainty.draws import DrawMasks, Mask, ThinnedNetwork
from kipoi_deepmr.uncertainty.sites import DropoutSite

_SELU_SATURATION = -1.7580993408473766  # -scale * alpha of SELU (Klambauer 2017), where alpha dropout sends a unit


class MCDropout:
    """Thinned networks: the same draw of a sequence has the same masks on any device, in any batch and any order.

    Parameters
    ----------
    sites
        The network's dropouts, from `find_dropouts`.
    seed
        Seed of the run.
    device
        Where the masks are used.
    dtype
        Type of the activations.
    shared
        Whether all sequences share the same thinned networks.
    first
        Number of the first draw, from which the others count on: members of an ensemble get draws of their own.

    Notes
    -----
    The bits of a mask come from a Philox generator keyed by BLAKE2b(seed, sequence, draw, index of the dropout)
    (Salmon 2011), so that nothing else decides them. MC-dropout as an approximate posterior: Gal & Ghahramani (2016).
    """

    def __init__(
        self,
        sites: Sequence[DropoutSite],
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        shared: bool = False,
        first: int = 0,
    ) -> None:
        self.sites = tuple(sites)
        self.device = device
        self._seed = seed
        self._dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
        self._shared = shared
        self._first = first

    def keep(self, sequence: str, draw: int, site: int) -> np.ndarray:
        """Return which units a draw keeps; for Gaussian dropout the standard normal noise of each unit.

        Parameters
        ----------
        sequence
            Coordinates of the sequence, such as ``chr8:1000-2000(+)``.
        draw
            Number of the draw, from 0.
        site
            Index of the dropout.

        Returns
        -------
        numpy.ndarray, shape=sites[site].shape, bool or float32
        """
        words = ("shared" if self._shared else sequence, str(self._first + draw), str(site))
        key = hashlib.blake2b("\0".join((str(self._seed), *words)).encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64)))
        if self.sites[site].kind == "gaussian":
            return generator.standard_normal(self.sites[site].shape, dtype=np.float32)
        return generator.random(self.sites[site].shape, dtype=np.float32) >= self.sites[site].p

    def masks(self, sequences: Sequence[str], draw: int) -> DrawMasks:
        """Return the masks of one draw for some sequences, on the device."""
        if self._shared:
            sequences = sequences[:1]
        stacked = []
        for index, site in enumerate(self.sites):
            kept = [self.keep(sequence, draw, index) for sequence in sequences]
            stacked.append(torch.from_numpy(np.concatenate(kept, axis=site.batch_axis)).to(self.device))
        return DrawMasks(self.sites, stacked, len(sequences), lambda index, kept: self.mask(self.sites[index], kept))

    def network(self, network: Callable[..., Tensor], masks: Sequence[Mask]) -> ThinnedNetwork:
        """Return the thinned network."""
        return ThinnedNetwork(network, masks)

    def mask(self, site: DropoutSite, kept: Tensor) -> Mask:
        """Turn kept units into what dropout does to an activation."""
        if site.kind == "gaussian":
            return Mask(1.0 + kept.to(self._dtype) * (site.p / (1.0 - site.p)) ** 0.5, None)
        if site.p >= 1.0:
            return Mask(torch.zeros_like(kept, dtype=self._dtype), None)
        if site.kind not in ("alpha", "feature_alpha"):
            return Mask(kept.to(self._dtype) / (1.0 - site.p), None)
        # Klambauer 2017: dropped units go to the saturation value; scale and shift restore mean and variance.
        scale = ((1.0 - site.p) * (1.0 + site.p * _SELU_SATURATION**2)) ** -0.5
        shift = -scale * _SELU_SATURATION * site.p
        units = kept.to(self._dtype)
        return Mask(units * scale, (1.0 - units) * (scale * _SELU_SATURATION) + shift)
