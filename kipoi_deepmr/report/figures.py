"""Figures as SVG for a page that holds many of them."""

import io
import re
import warnings
from collections.abc import Callable
from html import escape

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kipoi_deepmr.plots.file import GLYPH_MISSING, STYLE

_TEXT = {"font.family": "DejaVu Sans", "svg.fonttype": "none"}
_DPI = 130
# What the page's own style sheet says for all figures, what has no effect, and the layout of the source.
_SPARE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>",
        r" font-family: 'DejaVu Sans';?",
        r' transform="rotate\(-0 [^)]*\)"',
        r"(?<=>)\s+(?=<)",
        r"\n(?=L |z|M |Q |C |\")",
        r"<g ?/>",
    )
]
_TAG = re.compile(r"<[^>]+>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_IDENTIFIER = re.compile(r'\bid="([^"]+)"')


def inline_svg(draw: Callable[..., object], label: str, prefix: str) -> str:
    """Draw a figure and return it as an SVG element.

    Parameters
    ----------
    draw
        A function of `kipoi_deepmr.plots` that lacks but its `ax`.
    label
        What the figure shows, for those who cannot see it.
    prefix
        Put before the identifiers in the SVG, to tell the figures of one page apart.

    Returns
    -------
    str
        Text stays text; numbers are rounded to 1/100 point.
    """
    target = io.StringIO()
    with matplotlib.style.context(["default", STYLE, _TEXT]):
        figure = Figure(dpi=_DPI)
        with warnings.catch_warnings():
            # The browser has other fonts for such letters; their width here is an estimate.
            warnings.filterwarnings("ignore", GLYPH_MISSING)
            draw(ax=figure)
            # Figure.savefig would lay out and draw everything once more beforehand.
            FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    for pattern in _SPARE:
        svg = pattern.sub("", svg)
    svg = _prefixed(svg, prefix)
    svg = _TAG.sub(_rounded, svg)
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    width = float(box[1]) if box else 0.0
    head = f'<svg role="img" aria-label="{escape(label, quote=True)}" style="--width: {width:.0f}pt" '
    head_end = svg.index(">")
    opening = re.sub(r' (?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", svg[len("<svg") : head_end])
    return head + opening.strip() + svg[head_end:]


def _prefixed(svg: str, prefix: str) -> str:
    """Make identifiers unique on the page, and drop those that nothing refers to."""
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = _IDENTIFIER.sub(lambda found: f'id="{prefix}{found[1]}"' if found[1] in wanted else "", svg)
    return re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{prefix}", svg)


def _rounded(tag: re.Match[str]) -> str:
    """Round the coordinates in a tag; the numbers that readers see stand between tags."""
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag[0])
