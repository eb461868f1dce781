"""Figures of an open store, each a function that returns a matplotlib Axes.

Every function takes the store first, draws on the `ax` that it is given (an Axes, or an empty Figure, whose size it then
sets) or on a new pyplot figure, and changes no global state of matplotlib. Colours are those of Okabe and Ito (2008).
"""

from kipoi_deepmr.errors import DependencyError

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError("figures need matplotlib: pip install 'kipoi_deepmr[plots]'") from error

from kipoi_deepmr.plots.density import density
from kipoi_deepmr.plots.forest import forest
from kipoi_deepmr.plots.funnel import funnel
from kipoi_deepmr.plots.heatmap import heatmap
from kipoi_deepmr.plots.leave_one_out import leave_one_out
from kipoi_deepmr.plots.logo import logo, profile
from kipoi_deepmr.plots.scatter import scatter

__all__ = ["density", "forest", "funnel", "heatmap", "leave_one_out", "logo", "profile", "scatter"]
