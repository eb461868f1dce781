"""Compare the effects that deepmr estimated with the true effects of the simulation: a figure and a table."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
OUTCOME = "accessibility"
ESTIMATOR_NAMES = {"ivw": "IVW", "egger": "MR-Egger"}
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
TABLE_START, TABLE_END = "<!-- effects: written by make_figure.py -->", "<!-- end of effects -->"


def load_estimates(store: Path, estimator: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Load the local and the global effects on accessibility by one estimator."""
    tree = xr.open_datatree(store, engine="zarr")
    local, overall = tree["local"].to_dataset(), tree["global"].to_dataset()
    there = list(local["estimator"].values)
    if estimator not in there:
        raise SystemExit(f"{store} has no estimator {estimator!r}; it has {', '.join(map(str, there))}.")
    chosen = {"estimator": estimator, "outcome": OUTCOME}
    return local.sel(chosen).load(), overall.sel(chosen).load()


def local_estimates(local: xr.Dataset, exposure: str) -> np.ndarray:
    """Local effects of one exposure, without the sequences that do not count for it."""
    estimates = local["estimate"].sel(exposure=exposure).values.ravel()
    return estimates[np.isfinite(estimates)]


def summarise(truth: pd.DataFrame, local: xr.Dataset, overall: xr.Dataset) -> pd.DataFrame:
    """Put true and estimated effects side by side, one row per factor."""
    rows = []
    for record in truth.itertuples():
        estimates = local_estimates(local, record.exposure)
        summary = overall.sel(exposure=record.exposure)
        rows.append(
            {
                "factor": record.exposure,
                "role": record.role,
                "true effect": number(record.true_effect),
                "median local effect": number(np.median(estimates)),
                "global effect (95% CI)": f"{number(summary['estimate'])} "
                f"({number(summary['ci_low'])} to {number(summary['ci_high'])})",
                "sequences": str(len(estimates)),
                "association across windows": number(record.association),
            }
        )
    return pd.DataFrame(rows)


def number(value: float) -> str:
    """Format with three digits, without the sign of a rounded zero."""
    return f"{round(float(value), 3) + 0.0:.3f}"


def markdown(table: pd.DataFrame) -> str:
    """Format a table for the README."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def update_readme(readme: Path, table: str) -> None:
    """Replace the table between the two markers of the README."""
    text = readme.read_text()
    if TABLE_START not in text or TABLE_END not in text:
        raise SystemExit(f"{readme} lacks the lines {TABLE_START!r} and {TABLE_END!r} between which the table belongs.")
    before, after = text.split(TABLE_START)[0], text.split(TABLE_END)[1]
    readme.write_text(f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}")


def draw_factor(axes: Axes, row: int, record: pd.Series, local: np.ndarray, summary: xr.Dataset) -> None:
    """Draw one factor as a row: true effect, local effects, global effect, association."""
    first = row == 0
    spread = np.random.default_rng(row).uniform(-0.16, 0.16, len(local))
    axes.plot(
        [record.true_effect] * 2,
        [row - 0.3, row + 0.36],
        color=INK,
        lw=2.2,
        zorder=2,
        label="true effect" if first else None,
    )
    axes.scatter(
        local,
        row + 0.12 + spread,
        s=26,
        color=BLUE,
        alpha=0.55,
        lw=0,
        zorder=3,
        label="local effect (one sequence)" if first else None,
    )
    estimate, low, high = (float(summary[name]) for name in ("estimate", "ci_low", "ci_high"))
    axes.errorbar(
        estimate,
        row - 0.18,
        xerr=[[estimate - low], [high - estimate]],
        fmt="D",
        ms=6.5,
        color=ORANGE,
        mec="white",
        mew=0.7,
        lw=2,
        capsize=3.5,
        zorder=4,
        label="global effect, 95% CI" if first else None,
    )
    axes.scatter(
        record.association,
        row - 0.4,
        marker="x",
        s=42,
        color=GREY,
        lw=1.8,
        zorder=3,
        label="association across windows" if first else None,
    )


def draw(truth: pd.DataFrame, local: xr.Dataset, overall: xr.Dataset, estimator: str, path: Path) -> None:
    """Draw estimated against true effects and write the figure."""
    plt.rcParams.update({"font.size": 11, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(8.2, 4.4), layout="constrained")
    ordered = truth.sort_values("true_effect", kind="stable", ignore_index=True)
    for row, record in ordered.iterrows():
        draw_factor(axes, row, record, local_estimates(local, record.exposure), overall.sel(exposure=record.exposure))
    axes.axvline(0, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.set_yticks(range(len(ordered)), [f"{record.exposure}\n{wrap(record.role)}" for record in ordered.itertuples()])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlabel("effect of log binding on log accessibility")
    axes.set_title(
        f"Effects the network has learned ({ESTIMATOR_NAMES.get(estimator, estimator)}), and those it was taught",
        loc="left",
        fontsize=12,
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E6E6", lw=0.8, zorder=0)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, handletextpad=0.5, columnspacing=1.4)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def wrap(role: str) -> str:
    """Break a role after its comma."""
    return role.replace(", ", ",\n")


def main() -> None:
    """Read the command line, draw, and update the README's table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="OUT.zarr is what `kipoi deepmr run config.yaml -o OUT.zarr` wrote. Writes effects.png, and the table "
        "between the two markers of README.md.",
    )
    parser.add_argument("store", type=Path, metavar="OUT.zarr", help="results of the run")
    parser.add_argument("--estimator", default="ivw", help="which estimator to show (default: %(default)s)")
    parser.add_argument("--truth", type=Path, default=HERE / "truth.tsv", help="true effects, by simulate.py")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "effects.png", help="figure to write")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", help="README whose table to replace")
    arguments = parser.parse_args()
    truth = pd.read_csv(arguments.truth, sep="\t")
    local, overall = load_estimates(arguments.store, arguments.estimator)
    draw(truth, local, overall, arguments.estimator, arguments.output)
    table = markdown(summarise(truth, local, overall))
    update_readme(arguments.readme, table)
    print(table)


if __name__ == "__main__":
    main()
