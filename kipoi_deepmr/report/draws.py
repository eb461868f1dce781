"""What the draws of a run are, in plain words: thinned networks, members of an ensemble, or both."""

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Draws:
    """The draws of a run.

    Attributes
    ----------
    text : str
        How many there are, of what, and whether the sequences share them.
    networks : str
        What disagrees where a standard error is large.
    mean : str
        Of what an effect is that of the mean.
    shared : str
        What all sequences have in common, so that their errors depend on each other; empty where there is nothing.
    """

    text: str
    networks: str
    mean: str
    shared: str

    @classmethod
    def of(cls, results: xr.DataTree) -> "Draws":
        """Read them from the root of a store."""
        uncertainty = json.loads(results.attrs["config"])["uncertainty"]
        shared = bool(uncertainty.get("shared_draws"))
        count = "the same for all sequences" if shared else "others for each sequence"
        if uncertainty["method"] == "mc_dropout":
            text = f"{results.attrs['draws']} thinned networks (MC-dropout), {count}"
            return cls(text, "thinned networks", "network", "thinned networks" if shared else "")
        members = [str(name) for name in np.atleast_1d(results.attrs.get("members", [])).tolist()]
        members = members or [str(member["name"]) for member in uncertainty.get("members") or []]
        each = int(uncertainty["draws"])
        number = len(members) or int(results.attrs["draws"]) // each
        listed = f": {', '.join(members)}" if members else ""
        text = f"the {number} members of an ensemble, the same for all sequences{listed}"
        if each > 1:
            text = f"{results.attrs['draws']}: {each} thinned networks (MC-dropout), {count}, of each of {text}"
        return cls(text, "members of the ensemble", "ensemble", "members of the ensemble")

    def errors(self, kind: str) -> str:
        """Say what a standard error is, for `posterior` or `monte_carlo`."""
        if kind == "posterior":
            return (
                f"posterior: the SD over draws of a mutation's effect, that is how far {self.networks} disagree. It does "
                "not shrink with more draws."
            )
        return (
            f"monte_carlo: SD over draws / sqrt(draws), the error of the mean {self.mean}'s effect alone. It shrinks with "
            f"more draws and says nothing on how far {self.networks} disagree."
        )
