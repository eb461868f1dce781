"""Global effects of every exposure on every outcome."""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kipoi_deepmr import terms
from kipoi_deepmr.cube import GLOBAL_GROUP
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.plots.canvas import (
    INK,
    PALE,
    axes_for,
    decimals,
    figure_of_a_store,
    fixed,
    heading,
    text_width,
)
from kipoi_deepmr.plots.choice import one_of
from kipoi_deepmr.plots.labels import apart
from kipoi_deepmr.tables.tidy import group

_CELL = 0.3
_LUMINANCE = (0.299, 0.587, 0.114)
_NUMBERS_UP_TO = 8


@figure_of_a_store
def heatmap(
    results: xr.DataTree, *, estimator: str | None = None, rows: int = 60, ax: Axes | Figure | None = None
) -> Axes:
    """Draw the global effects as colours, exposures down and outcomes across.

    Numbers stand in the cells of up to eight outcomes; a dot marks an interval that does not hold 0; a cell without an
    estimate is grey and crossed.

    Parameters
    ----------
    results
        An open store.
    estimator
        Estimator. Default: ivw where the store has it, else the first one.
    rows
        Most exposures and most outcomes to draw, those with the largest mean |effect|; a note says so.
    ax
        Where to draw; see `kipoi_deepmr.plots`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the store does not have the estimator.
    StoreError
        If the store has no estimates.
    """
    estimator = one_of(results, terms.ESTIMATOR, estimator)
    table = (
        group(results, GLOBAL_GROUP).sel({terms.ESTIMATOR: estimator}).load().transpose(terms.EXPOSURE, terms.OUTCOME)
    )
    note = []
    for dim in (terms.EXPOSURE, terms.OUTCOME):
        if table.sizes[dim] > rows:
            other = terms.OUTCOME if dim == terms.EXPOSURE else terms.EXPOSURE
            size = np.nan_to_num(abs(table["estimate"]).fillna(0).mean(other).values)
            note.append(f"{rows} of {table.sizes[dim]} {dim}s, those with the largest effects")
            table = table.isel({dim: np.sort(np.argsort(-size, kind="stable")[:rows])})
    estimate = table["estimate"].values
    clear = (table["ci_low"].values > 0) | (table["ci_high"].values < 0)
    written = estimate.shape[1] <= _NUMBERS_UP_TO
    down = apart([str(name) for name in table[terms.EXPOSURE].values], 22)
    across = apart([str(name) for name in table[terms.OUTCOME].values], 18)
    beside, below = (text_width(labels, "medium") / 72 for labels in (down, across))
    width = 1.8 + beside + (0.72 if written else _CELL) * len(across)
    ax = axes_for(ax, 1.4 + 0.65 * below + _CELL * len(down), min(max(3.2, width), 14))
    finite = np.abs(estimate[np.isfinite(estimate)])
    top = min(finite.max(), 2.5 * np.percentile(finite, 90)) if finite.any() else 1.0
    image = ax.pcolormesh(
        estimate,
        cmap=colormaps["PuOr_r"].with_extremes(bad=PALE),
        vmin=-top,
        vmax=top,
        edgecolors="white",
        linewidth=0.8,
    )
    digits = decimals((table["ci_high"] - table["ci_low"]).values / 2)
    for (row, column), value in np.ndenumerate(estimate):
        dark = np.isfinite(value) and np.dot(image.to_rgba(value)[:3], _LUMINANCE) < 0.5
        mark = "×" if not np.isfinite(value) else f"{fixed(value, min(digits, 2))}" if written else ""  # noqa: RUF001
        mark += (" •" if written else "•") if clear[row, column] else ""
        ax.text(
            column + 0.5, row + 0.5, mark, ha="center", va="center", fontsize="small", color="white" if dark else INK
        )
    ax.set_xticks(np.arange(len(across)) + 0.5, across)
    ax.set_yticks(np.arange(len(down)) + 0.5, down)
    for label in ax.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("outcome")
    ax.set_ylabel("exposure")
    bar = ax.figure.colorbar(image, ax=ax, extend="both" if finite.size and finite.max() > top else "neither", pad=0.02)
    bar.set_label(f"outcome per exposure\n({results.attrs['scale']} scale)")
    bar.outline.set_visible(False)
    level = f"{100 * float(table['ci_low'].attrs.get('confidence_level', 0.95)):.4g}%"
    note.append(f"• the {level} interval does not hold 0")
    heading(ax, f"Global effects, {label_of(estimator)}", "\n".join(note), labels=down)
    return ax
