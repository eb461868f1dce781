"""What all figures share: where they are drawn, colours, heads, numbers and the part of an axis that is shown."""

import functools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

P = ParamSpec("P")
FloatArray = npt.NDArray[np.float64]

# Okabe and Ito (2008): told apart with every common form of colour blindness, and by lightness in print.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#333333", "#6B6B6B", "#E4E4E4"
BASES = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": VERMILLION}

WIDTH = 4.7
# In points: labels of an axis of numbers, what lies between labels of rows and axes, and a handle of a legend.
_LABELS, _GAP, _HANDLE = 64, 14, 28
_LINES = ("-", "--", "-.", ":")
_METHOD_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)


def figure_of_a_store(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    """Make a function that draws take the names in a store as they are: a ``$`` in them begins no formula."""

    @functools.wraps(draw)
    def plain_text(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with matplotlib.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return plain_text


def axes_for(ax: Axes | Figure | None, height: float, width: float = WIDTH) -> Axes:
    """Return the Axes to draw on.

    Parameters
    ----------
    ax
        An Axes is taken as it is. An empty Figure gets the size and one Axes. None makes a pyplot figure.
    height, width
        Size of a new figure in inches.
    """
    if isinstance(ax, Axes):
        return ax
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    ax.set_size_inches(width, height)
    ax.set_layout_engine("constrained")
    return ax.add_subplot()


def plain(ax: Axes, *, grid: str = "") -> None:
    """Take away what carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=PALE, lw=0.8)  # type: ignore[arg-type]


def heading(
    ax: Axes,
    text: str,
    note: str = "",
    handles: Sequence[Artist] = (),
    *,
    columns: int = 3,
    labels: Iterable[str] = (),
    size: str = "medium",
) -> None:
    """Set the title; under it a note that says what was chosen or left out, and the legend, clear of the data.

    Parameters
    ----------
    ax
        The Axes.
    text
        Title.
    note
        Small type.
    handles
        Artists of the legend.
    columns
        Most entries of the legend side by side, if there is room.
    labels, size
        Names of rows on the left of the axes and their type, which leave less room.
    """
    figure = ax.get_figure(root=True)
    width = float(figure.get_size_inches()[0]) if figure else WIDTH
    room = 72 * width - max(_LABELS, text_width(labels, size) + _GAP)
    if handles:
        widest = text_width((str(handle.get_label()) for handle in handles), "small") + _HANDLE
        columns = max(1, min(columns, int(room // widest)))
    letter = FontProperties(size="small").get_size_in_points()
    line = 1.35 * letter
    height = line * (len(handles) + columns - 1) // columns if handles else 0.0
    lines = [line for part in note.split("\n") for line in textwrap.wrap(part, max(20, int(room / (0.56 * letter))))]
    bold = 0.68 * FontProperties(size="medium").get_size_in_points()
    ax.set_title(
        textwrap.fill(text, max(16, int(room / bold)), break_on_hyphens=False),
        loc="left",
        fontsize="medium",
        fontweight="bold",
        pad=7 + height + line * len(lines),
    )
    if lines:
        small = ax.annotate(
            "\n".join(lines),
            (0, 1),
            (0, 4 + height),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize="small",
            color=INK,
            annotation_clip=False,
        )
        small.set_in_layout(False)
    if handles:
        legend = ax.legend(
            handles=list(handles),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            borderpad=0.1,
            ncols=min(columns, len(handles)),
            frameon=False,
            fontsize="small",
            handlelength=1.6,
            handletextpad=0.5,
            columnspacing=1.1,
            labelspacing=0.25,
        )
        # The title's distance has kept the room; a long line must not press the axes together.
        legend.set_in_layout(False)


def text_width(texts: Iterable[str], size: str) -> float:
    """Return the width of a column of texts in points, by its two texts with most characters."""
    font = FontProperties(size=size)
    longest = sorted(texts, key=len)[-2:]
    return max((float(TextPath((0, 0), text, prop=font).get_extents().width) for text in longest if text), default=0.0)


def few_ticks(ax: Axes, number: int = 5) -> None:
    """Keep the numbers of the horizontal axis apart on a narrow figure."""
    ax.xaxis.set_major_locator(MaxNLocator(number))


def style_of(estimator: str, estimators: list[str]) -> tuple[str, str]:
    """Return colour and line of an estimator among those that are drawn."""
    index = estimators.index(estimator)
    return _METHOD_COLOURS[index % len(_METHOD_COLOURS)], _LINES[index % len(_LINES)]


def decimals(widths: npt.ArrayLike) -> int:
    """Return how many decimals show two digits of the wider half-widths of some intervals."""
    finite = np.asarray(widths, dtype=float)
    finite = finite[np.isfinite(finite) & (finite > 0)]
    if not finite.size:
        return 3
    return int(np.clip(1 - np.floor(np.log10(np.percentile(finite, 75))), 0, 6))


def fixed(value: float, digits: int) -> str:
    """Format with a number of decimals, without the sign of a rounded zero; very large and very small in powers."""
    if not np.isfinite(value):
        return "-"
    if abs(value) >= 1e5 or 0 < abs(value) < 0.2 * 10.0**-digits < 1e-4:
        return f"{value:.1e}"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # noqa: RUF001


def three_digits(value: float) -> str:
    """Format with three significant digits, zeros at the end included; a dash where there is no number."""
    if not np.isfinite(value):
        return "-"
    text = f"{value:#.3g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"
    return text.rstrip(".").replace("-", "−", 1) if value < 0 else text.rstrip(".")  # noqa: RUF001


def span(values: npt.ArrayLike, *include: float, reach: float = 4.0) -> tuple[float, float]:
    """Return limits that show most values; a few that lie far out do not decide.

    Parameters
    ----------
    values
        Values to show; NaN and infinity are left out.
    *include
        Values that must be seen.
    reach
        How many interquartile ranges beyond the quartiles are shown.
    """
    finite = np.asarray(values, dtype=float).ravel()
    finite = finite[np.isfinite(finite)]
    inside = [value for value in include if np.isfinite(value)]
    if finite.size:
        low, high = np.percentile(finite, (25, 75))
        fence = reach * (high - low)
        near = finite[(finite >= low - fence) & (finite <= high + fence)] if fence > 0 else finite
        inside += [float(near.min()), float(near.max())]
    if not inside:
        return -1.0, 1.0
    left, right = min(inside), max(inside)
    margin = 0.06 * (right - left) or 0.1 * abs(left) or 1.0
    return left - margin, right + margin


def spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return ranks to draw: all, or evenly spaced ones."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
