"""A figure as a file, without a display."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.style
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from kipoi_deepmr.errors import OutputError, SelectionError
from kipoi_deepmr.plots.density_plot import density
from kipoi_deepmr.plots.forest_plot import forest
from kipoi_deepmr.plots.funnel_plot import funnel
from kipoi_deepmr.plots.heat_map import heatmap
from kipoi_deepmr.plots.influence_plot import leave_one_out
from kipoi_deepmr.plots.scatter_plot import scatter
from kipoi_deepmr.plots.sequence_logo import logo, profile

KINDS: Mapping[str, Callable[..., Any]] = {
    "forest": forest,
    "density": density,
    "heatmap": heatmap,
    "scatter": scatter,
    "funnel": funnel,
    "loo": leave_one_out,
    "logo": logo,
    "profile": profile,
}
_FORMATS = (".svg", ".png", ".pdf")
# Of matplotlib's own defaults, whatever the user's settings are: the figures are laid out for them.
STYLE = {"font.size": 10, "axes.linewidth": 0.8, "svg.hashsalt": "kipoi_deepmr"}


GLYPH_MISSING = r"Glyph .* missing from"


def save(results: xr.DataTree, kind: str, output: str | Path, *, dpi: int = 200, **chosen: str) -> Path:
    """Draw a figure and write it.

    Parameters
    ----------
    results
        An open store.
    kind
        One of `KINDS`.
    output
        File to write, ``.svg``, ``.png`` or ``.pdf``; an existing one is replaced, a missing folder is made.
    dpi
        Dots per inch of a PNG and of dense clouds of points in the others.
    **chosen
        Arguments of the figure's function.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SelectionError
        If the store lacks what was asked for, or the figure does not have a choice or needs another one.
    StoreError
        If the store has no estimates, or not yet the effects of the sequence.
    OutputError
        If the file cannot be written, its name says no format, or it would have no dots.
    """
    path = Path(output).expanduser()
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(f"{path}: the name says no format; choose {', '.join(_FORMATS)}")
    if dpi < 1:
        raise OutputError(f"dpi is {dpi}: a figure has at least 1 dot per inch; 200 is usual")
    draw = KINDS[kind]
    known = inspect.signature(draw).parameters
    foreign = [name for name in chosen if name not in known]
    if foreign:
        raise SelectionError(f"a {kind} has no choice of {foreign[0]}: leave it out")
    if "exposure" not in chosen and "exposure" in known and known["exposure"].default is inspect.Parameter.empty:
        raise SelectionError(f"a {kind} shows one exposure: say which, with --exposure")
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure()
        draw(results, **chosen, ax=figure)
        _tell_missing(figure)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", GLYPH_MISSING)
                figure.savefig(path, dpi=dpi)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _tell_missing(figure: Figure) -> None:
    """Warn once of all letters that the font of the figures does not have."""
    font = get_font(findfont(FontProperties()))
    texts = (text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))
    missing = sorted(
        {letter for text in texts for letter in text if letter != "\n" and not font.get_char_index(ord(letter))}
    )
    if missing:
        some = " ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        warnings.warn(f"the font of the figures lacks {some}: names with them have boxes in their place", stacklevel=3)
