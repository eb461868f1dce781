"""Figures of an open store, each a function that returns a matplotlib Axes.

Every function takes the store first, draws on the `ax` that it is given (an Axes, or an empty Figure, whose size it then
sets) or on a new pyplot figure, and changes no global state of matplotlib. Colours are those of Okabe and Ito (2008).
"""

from kipoi_deepmr.errors import DependencyError

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError("figures need matplotlib: pip install 'kipoi_deepmr[plots]'") from error

from kipoi_deepmr.plots.density_plot import density
from kipoi_deepmr.plots.forest_plot import forest
from kipoi_deepmr.plots.funnel_plot import funnel
from kipoi_deepmr.plots.heat_map import heatmap
from kipoi_deepmr.plots.influence_plot import leave_one_out
from kipoi_deepmr.plots.scatter_plot import scatter
from kipoi_deepmr.plots.sequence_logo import logo, profile

__all__ = ["density", "forest", "funnel", "heatmap", "leave_one_out", "logo", "profile", "scatter"]
