"""The figures of the page with their captions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from kipoi_deepmr import plots, terms
from kipoi_deepmr.cube import EFFECTS_GROUP, GLOBAL_GROUP, LOCAL_GROUP
from kipoi_deepmr.plots.choice import mutations, names
from kipoi_deepmr.plots.sequence_logo import strongest_region
from kipoi_deepmr.reading import read
from kipoi_deepmr.report.extent import FOREST_ROWS, FORESTS, Dive, Extent
from kipoi_deepmr.report.figures import inline_svg

_PREDICTION = (
    "The line is the interval of the mean effect over sequences; the pale bar is the prediction interval, which holds the "
    "effect in a new sequence with the same probability; τ is the SD between sequences."
)


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    svg : tuple of Markup
        SVG elements, one under the other.
    caption : str
        What they show.
    """

    svg: tuple[Markup, ...]
    caption: str


def overview(results: xr.DataTree, selection: Extent) -> list[Picture]:
    """Return forests and densities of the outcomes that are drawn, and the heat map where there are several."""
    pictures, estimator = [], selection.estimator
    for place, outcome in enumerate(selection.outcomes):
        pair: dict[str, Any] = {"outcome": outcome, "estimator": estimator}
        parts = _parts(results, outcome, estimator)
        for part, chosen in enumerate(parts):
            which = f" ({part + 1} of {len(parts)})" if len(parts) > 1 else ""
            label = f"Forest plot of the global effects on {outcome}{which}"
            draw = partial(plots.forest, results, chosen, rows=FOREST_ROWS, **pair)
            pictures.append(
                _picture({label: draw}, f"Global effects on {outcome}{which}. {_PREDICTION}", f"o{place}f{part}")
            )
        label = f"Distribution of the local effects on {outcome}"
        draw = partial(plots.density, results, rows=FOREST_ROWS, **pair)
        caption = f"Local effects on {outcome}: a tick for each sequence, and their density."
        pictures.append(_picture({label: draw}, caption, f"o{place}d"))
    if len(names(results, terms.OUTCOME)) > 1:
        label = "Heat map of the global effects, exposures by outcomes"
        caption = "Global effects of every exposure on every outcome."
        pictures.append(_picture({label: partial(plots.heatmap, results, estimator=estimator)}, caption, "h"))
    return pictures


def forests(results: xr.DataTree, dive: Dive, estimators: tuple[str, ...], prefix: str) -> tuple[Picture, ...]:
    """Return the forest of the local effects of a pair by each of some estimators."""
    return tuple(
        _picture(
            {
                f"Forest plot of the local effects of {dive.exposure} on {dive.outcome} by {estimator}": partial(
                    plots.forest, results, dive.exposure, outcome=dive.outcome, estimator=estimator, rows=FOREST_ROWS
                )
            },
            f"Local effects of {dive.exposure} on {dive.outcome}, a row for each sequence, and the global effect.",
            f"{prefix}f{index}",
        )
        for index, estimator in enumerate(estimators)
    )


def of_sequence(results: xr.DataTree, dive: Dive, sequence: str, prefix: str) -> tuple[Picture, ...]:
    """Return scatter, funnel, the window with leave-one-out, and the logos of one sequence."""
    exposure, outcome = dive.exposure, dive.outcome
    results = _alone(results, exposure, outcome, sequence)
    one: dict[str, Any] = {"outcome": outcome, "sequence": sequence}
    region = strongest_region(mutations(results, exposure, outcome, sequence))
    where = f"{exposure} and {outcome} in {sequence}"
    scatter = _picture(
        {f"Scatter plot of the effects of mutations on {where}": partial(plots.scatter, results, exposure, **one)},
        f"Effects of the mutations on {exposure} and {outcome}, and the lines of the estimators. Mutations that lower "
        f"{exposure} are drawn with both signs turned.",
        f"{prefix}s",
    )
    funnel = _picture(
        {f"Funnel plot of {where}": partial(plots.funnel, results, exposure, **one)},
        "Funnel plot: the ratio of each mutation against its precision. A lopsided funnel speaks for directional "
        "pleiotropy.",
        f"{prefix}u",
    )
    window = _picture(
        {
            f"Effects on {exposure} along {sequence}": partial(plots.profile, results, exposure, region=region, **one),
            f"Leave-one-position-out of {where}": partial(plots.leave_one_out, results, exposure, **one),
        },
        f"Along the window: the effects on {exposure} (the shaded stretch holds the largest, see its logos), and the "
        "estimate without the mutations of each position in turn.",
        f"{prefix}w",
    )
    logos = _picture(
        {
            f"Sequence logo of the effects on {task} in {sequence}": partial(
                plots.logo, results, exposure, of=of, region=region, **one
            )
            for of, task in ((terms.EXPOSURE, exposure), (terms.OUTCOME, outcome))
        },
        "Logos of that stretch: a letter is as high as the prediction falls on average when the base is mutated; below the "
        "line mutations raise it. Letters and positions are those of the plus strand, counted from 1.",
        f"{prefix}l",
    )
    return scatter, funnel, window, logos


def _alone(results: xr.DataTree, exposure: str, outcome: str, sequence: str) -> xr.DataTree:
    """Return the store with the effects of one sequence and pair alone, in memory, for the figures that share them."""
    effects = results[EFFECTS_GROUP].to_dataset().drop_vars("error_covariance", errors="ignore")
    index = np.flatnonzero(read(effects, terms.SEQUENCE) == sequence)
    one = effects.isel({terms.SEQUENCE: index}).sel({terms.EXPOSURE: [exposure], terms.OUTCOME: [outcome]}).load()
    groups = {name: results[name].to_dataset() for name in (LOCAL_GROUP, GLOBAL_GROUP)}
    alone = xr.DataTree.from_dict({**groups, EFFECTS_GROUP: one})
    alone.attrs.update(results.attrs)
    return alone


def _picture(draws: Mapping[str, Callable[..., object]], caption: str, prefix: str) -> Picture:
    """Draw figures, named by what they show."""
    drawn = (inline_svg(draw, label, f"{prefix}{index}-") for index, (label, draw) in enumerate(draws.items()))
    return Picture(tuple(Markup(svg) for svg in drawn), caption)


def _parts(results: xr.DataTree, outcome: str, estimator: str) -> list[list[str]]:
    """Split the exposures, ranked by their estimates, into forests that fit a page."""
    where = {terms.OUTCOME: outcome, terms.ESTIMATOR: estimator}
    table = results[GLOBAL_GROUP].to_dataset()["estimate"].sel(where)
    ranked = [str(name) for name in table[terms.EXPOSURE].values[np.argsort(-table.values, kind="stable")]]
    if len(ranked) > FOREST_ROWS * FORESTS:
        return [ranked]
    size = -(-len(ranked) // -(-len(ranked) // FOREST_ROWS))
    return [ranked[start : start + size] for start in range(0, len(ranked), size)]
