"""The page: figures and tables put into the template."""

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import xarray as xr
from markupsafe import Markup, escape

from kipoi_deepmr import __version__
from kipoi_deepmr.cube import GLOBAL_GROUP, LOCAL_GROUP, open_results
from kipoi_deepmr.errors import OutputError
from kipoi_deepmr.estimators import label_of
from kipoi_deepmr.report import words
from kipoi_deepmr.report.cautions import cautions
from kipoi_deepmr.report.extent import Dive, Extent, select
from kipoi_deepmr.report.pictures import Picture, forests, of_sequence, overview
from kipoi_deepmr.report.rows import Table, global_rows, permuted_rows, ranked_rows, reverse_rows, shuffled_rows

_IN_MEMORY = 2**28


@dataclass(frozen=True)
class SequenceView:
    """The figures of one sequence."""

    name: str
    why: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class DiveView:
    """A deep dive as the template shows it."""

    anchor: str
    exposure: str
    outcome: str
    estimates: Table
    ranked: Table
    forests: tuple[Picture, ...]
    sequences: tuple[SequenceView, ...]


def write_report(
    store: str | Path | xr.DataTree,
    output: str | Path,
    *,
    exposure: Sequence[str] | None = None,
    estimator: str | None = None,
) -> Path:
    """Write the report of a store: one HTML file that needs nothing else.

    Parameters
    ----------
    store
        Folder of the store, or the open store.
    output
        File to write, ``.html`` or ``.htm``; an existing one is replaced, a missing folder is made.
    exposure
        Exposures of the deep dives. Default: all, as far as there is room; the page says what is left out.
    estimator
        Estimator of forests, densities and ranks. Default: ivw where the store has it, else the first one.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SelectionError
        If the store lacks an exposure or the estimator.
    StoreError
        If there is no store, or it has no estimates yet.
    OutputError
        If the file cannot be written, or is not named as HTML.
    """
    path = Path(output).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{path}: the report is an HTML file; name it {path.with_suffix('.html').name}")
    if isinstance(store, xr.DataTree):
        page = render(store, exposure=exposure, estimator=estimator)
    else:
        with open_results(store) as results:
            page = render(results, exposure=exposure, estimator=estimator)
    partial_file = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file.write_text(page, encoding="utf-8")
        os.replace(partial_file, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def render(results: xr.DataTree, *, exposure: Sequence[str] | None = None, estimator: str | None = None) -> str:
    """Return the report of an open store as HTML.

    Parameters
    ----------
    results
        An open store.
    exposure, estimator
        As in `write_report`.

    Raises
    ------
    SelectionError
        If the store lacks an exposure or the estimator.
    StoreError
        If the store has no estimates yet.
    """
    selection = select(results, exposure, estimator)
    results = _estimates_in_memory(results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kipoi_deepmr.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    folder = files("kipoi_deepmr.report")
    return environment.get_template("page.html.j2").render(
        title=str(results.attrs["title"]),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        estimand=words.estimand(results, selection.estimator),
        summary=words.summary(results),
        details=words.details(results),
        configuration=words.configuration(results),
        cautions=cautions(results),
        estimator=label_of(selection.estimator),
        effects=global_rows(results),
        overview=overview(results, selection),
        permuted=permuted_rows(results),
        shuffled=shuffled_rows(results),
        reverse=reverse_rows(results),
        dives=[_dive(results, dive, selection, number) for number, dive in enumerate(selection.dives)],
        left_out=selection.left_out,
        written=f"{datetime.datetime.now(datetime.UTC).isoformat(sep=' ', timespec='minutes')[:16]} UTC",
        version=__version__,
    )


def _estimates_in_memory(results: xr.DataTree) -> xr.DataTree:
    """Read the estimates once, unless there are very many."""
    loaded = results.copy()
    for name in (LOCAL_GROUP, GLOBAL_GROUP):
        dataset = results[name].to_dataset()
        if dataset.nbytes <= _IN_MEMORY:
            loaded[name] = xr.DataTree(dataset.load())
    return loaded


def _dive(results: xr.DataTree, dive: Dive, selection: Extent, number: int) -> DiveView:
    pair = dive.exposure, dive.outcome
    return DiveView(
        anchor=f"dive-{number}",
        exposure=dive.exposure,
        outcome=dive.outcome,
        estimates=global_rows(results, *pair),
        ranked=ranked_rows(results, *pair, selection.estimator),
        forests=forests(results, dive, selection.forest_estimators, f"d{number}"),
        sequences=tuple(
            SequenceView(name, why, of_sequence(results, dive, name, f"d{number}s{index}"))
            for index, (name, why) in enumerate(dive.sequences)
        ),
    )


def _code(text: str) -> Markup:
    """Set what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
