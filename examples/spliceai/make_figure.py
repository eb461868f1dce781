"""Show the effects of the 5' on the 3' splice site that deepmr estimated: a figure, and a table for the README."""

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
EXPOSURE, OUTCOME = "donor", "acceptor"
ESTIMATOR_NAMES = {"ivw": "IVW", "egger": "MR-Egger"}
ORANGE, GREY, INK = "#D55E00", "#8A8A8A", "#222222"
COLOURS = plt.get_cmap("viridis_r")
MARKERS = ("<!-- effects: written by make_figure.py -->", "<!-- end of effects -->")


def load_exons(path: Path) -> pd.DataFrame:
    """Read the exons: number, length, and the 0-based place of the last base, in the order of the gene."""
    rows = pd.read_csv(path, sep="\t", header=None)
    return pd.DataFrame(
        {
            "number": rows[3].str.extract(r"_exon(\d+)$")[0].astype(int),
            "length": rows[2] - rows[1],
            "last": np.where(rows[5] == "+", rows[2] - 1, rows[1]),
        }
    ).sort_values("number", ignore_index=True)


def load_results(store: Path, exons: pd.DataFrame, estimator: str) -> tuple[pd.DataFrame, xr.Dataset, xr.Dataset]:
    """Load estimates by exon, all effects, and the overall estimate."""
    tree = xr.open_datatree(store, engine="zarr")
    effects = tree["effects"].to_dataset().sel(exposure=EXPOSURE, outcome=OUTCOME).load()
    chosen = {"exposure": EXPOSURE, "outcome": OUTCOME, "estimator": estimator}
    there = list(tree["local"]["estimator"].values)
    if estimator not in there:
        raise SystemExit(f"{store} has no estimator {estimator!r}; it has {', '.join(map(str, there))}.")
    local, overall = (tree[group].to_dataset().sel(chosen).load() for group in ("local", "global"))
    middle = (effects["start"].values + effects["end"].values - 1) // 2
    estimates = pd.DataFrame(
        {
            "last": middle,
            "sequence": np.arange(len(middle)),
            "donor": effects["exposure_reference"].values,
            "acceptor": effects["outcome_reference"].values,
            **{name: local[name].values for name in ("estimate", "ci_low", "ci_high", "n_instruments")},
        }
    )
    merged = exons.merge(estimates, on="last", validate="one_to_one")
    if len(merged) != len(estimates):
        raise SystemExit(
            f"{store} holds {len(estimates)} sequences, of which {len(merged)} are exons of exons.narrowPeak."
        )
    return merged, effects, overall


def number(value: float) -> str:
    """Format with two digits, without the sign of a rounded zero."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def summarise(exons: pd.DataFrame, overall: xr.Dataset) -> pd.DataFrame:
    """Put the estimates of the exons into a table, the overall effect last."""
    rows = [
        {
            "exon": str(exon.number),
            "length, bp": str(exon.length),
            "donor": number(exon.donor),
            "acceptor": number(exon.acceptor),
            "effect (95% CI)": f"{number(exon.estimate)} ({number(exon.ci_low)} to {number(exon.ci_high)})",
            "mutations": str(int(exon.n_instruments)),
        }
        for exon in exons.itertuples()
    ]
    interval = f"{number(overall['ci_low'])} to {number(overall['ci_high'])}"
    rows.append(
        {
            "exon": f"all {int(overall['n_sequences'])}",
            "length, bp": "",
            "donor": "",
            "acceptor": "",
            "effect (95% CI)": f"{number(overall['estimate'])} ({interval})",
            "mutations": "",
        }
    )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Format a table for the README."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def update_readme(readme: Path, block: str, markers: tuple[str, str]) -> None:
    """Replace what stands between two markers of the README."""
    start, end = markers
    text = readme.read_text(encoding="utf-8")
    if start not in text or end not in text:
        raise SystemExit(f"{readme} lacks the lines {start!r} and {end!r} between which the table belongs.")
    before, after = text.split(start)[0], text.split(end)[1]
    readme.write_text(f"{before}{start}\n{block}\n{end}{after}", encoding="utf-8")


def draw_estimates(axes: Axes, exons: pd.DataFrame, overall: xr.Dataset, colours: np.ndarray) -> None:
    """Draw one row per exon, the overall effect below them."""
    for row, (exon, colour) in enumerate(zip(exons.itertuples(), colours, strict=True)):
        axes.plot([exon.ci_low, exon.ci_high], [row, row], color=colour, lw=2, zorder=2)
        axes.scatter(exon.estimate, row, color=colour, s=34, zorder=3)
    below = len(exons) + 0.4
    estimate, low, high = (float(overall[name]) for name in ("estimate", "ci_low", "ci_high"))
    axes.plot([low, high], [below, below], color=ORANGE, lw=2.4, zorder=2)
    axes.scatter(estimate, below, color=ORANGE, marker="D", s=44, zorder=3)
    axes.axvline(0, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    labels = [f"exon {exon.number} ({exon.length} bp)" for exon in exons.itertuples()]
    axes.set_yticks([*range(len(exons)), below], [*labels, "all exons"])
    axes.invert_yaxis()
    axes.set_xlabel("change of the acceptor per change of the donor")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E6E6", lw=0.8, zorder=0)


def draw_mutations(axes: Axes, exons: pd.DataFrame, effects: xr.Dataset, colours: np.ndarray) -> None:
    """Draw the effects of all mutations, in the colours of their exons."""
    for exon, colour in zip(exons.itertuples(), colours, strict=True):
        one = effects.isel(sequence=exon.sequence)
        axes.scatter(one["exposure_effect"], one["outcome_effect"], color=colour, s=13, alpha=0.75, lw=0, zorder=3)
    axes.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.axhline(0, color=GREY, lw=0.8, zorder=1)
    axes.set_xlabel("effect of a mutation on the donor (5' splice site)")
    axes.set_ylabel("effect on the acceptor (3' splice site)")
    axes.grid(color="#E6E6E6", lw=0.8, zorder=0)


def draw(exons: pd.DataFrame, effects: xr.Dataset, overall: xr.Dataset, estimator: str, path: Path) -> None:
    """Draw estimates and mutations side by side and write the figure."""
    plt.rcParams.update({"font.size": 10.5, "font.family": "DejaVu Sans", "text.color": INK})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.9), layout="constrained")
    scale = plt.Normalize(exons["length"].min(), exons["length"].max())
    colours = COLOURS(scale(exons["length"].to_numpy()))
    draw_estimates(left, exons, overall, colours)
    left.set_title(f"Effects by exon ({ESTIMATOR_NAMES.get(estimator, estimator)}, 95% CI)", loc="left", fontsize=11.5)
    draw_mutations(right, exons, effects, colours)
    right.set_title("Mutations around the 5' splice sites", loc="left", fontsize=11.5)
    figure.colorbar(plt.cm.ScalarMappable(scale, COLOURS), ax=right, label="length of the exon, bp")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    left.spines["left"].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Read the command line, draw, and update the README's table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="OUT.zarr is what `kipoi deepmr run config.yaml -o OUT.zarr` wrote. Writes effects.png, and the table "
        "between the two markers of README.md.",
    )
    parser.add_argument("store", type=Path, metavar="OUT.zarr", help="results of the run")
    parser.add_argument("--estimator", default="ivw", help="which estimator to show (default: %(default)s)")
    parser.add_argument("--exons", type=Path, default=HERE / "exons.narrowPeak", help="exons of the run")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "effects.png", help="figure to write")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", help="README whose table to replace")
    arguments = parser.parse_args()
    exons, effects, overall = load_results(arguments.store, load_exons(arguments.exons), arguments.estimator)
    draw(exons, effects, overall, arguments.estimator, arguments.output)
    table = markdown(summarise(exons, overall))
    picture = f"![Effects of the 5' on the 3' splice site, by exon]({arguments.output.name})"
    update_readme(arguments.readme, f"{picture}\n\n{table}", MARKERS)
    print(table)


if __name__ == "__main__":
    main()
