"""The figures of a store: what they show is what the store holds."""

import subprocess
import sys
from dataclasses import replace

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from kipoi_deepmr import mr, open_results, plots
from kipoi_deepmr.coordinates import GenomeVariants
from kipoi_deepmr.errors import OutputError, SelectionError, StoreError
from kipoi_deepmr.plots.canvas import BASES, decimals, fixed, spaced, span, three_digits
from kipoi_deepmr.plots.choice import mutations, sequence_of
from kipoi_deepmr.plots.density_plot import _smoothed
from kipoi_deepmr.plots.file import KINDS, STYLE, save
from kipoi_deepmr.plots.labels import apart
from kipoi_deepmr.plots.sequence_logo import strongest_region
from kipoi_deepmr.report.figures import inline_svg
from tests.report_store import write_store
from tests.test_tables import make_results

OF_ONE_SEQUENCE = ("scatter", "funnel", "loo", "logo", "profile")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = write_store(tmp_path_factory.mktemp("store") / "out.zarr", outcomes=("DNase", "H3K27ac"))
    with open_results(path) as tree:
        yield tree


def draw(function, *args, **kwargs):
    """Draw on an empty figure and lay it out."""
    figure = Figure()
    ax = function(*args, **kwargs, ax=figure)
    figure.draw_without_rendering()
    return ax


def texts(ax):
    found = [text.get_text() for text in [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()]]
    return [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel(), *found]


def drawn(ax, marker):
    """Return the coordinates of the points with a marker."""
    lines = [line for line in ax.lines if line.get_marker() == marker and line.get_clip_on()]
    return np.concatenate([line.get_xydata() for line in lines])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_figure_is_drawn_on_what_it_is_given(results, kind, monkeypatch):
    args = ("CTCF",) if kind in OF_ONE_SEQUENCE else ()
    before = dict(matplotlib.rcParams)
    ax = Figure().add_subplot()
    assert KINDS[kind](results, *args, ax=ax) is ax
    figure = Figure()
    assert KINDS[kind](results, *args, ax=figure).figure is figure
    assert dict(matplotlib.rcParams) == before


def test_without_axes_a_pyplot_figure_is_made(results):
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"backend": "agg"}):
        ax = plots.forest(results)
        assert isinstance(ax, Axes)
        assert ax.figure.number in plt.get_fignums()
        plt.close(ax.figure)


def test_the_global_forest_shows_the_global_effects_from_the_highest(results):
    ax = draw(plots.forest, results, outcome="H3K27ac", estimator="egger")
    table = results["global"].to_dataset().sel({"outcome": "H3K27ac", "estimator": "egger"}).sortby("estimate")[{}]
    expected = table["estimate"].values[::-1]
    assert drawn(ax, "s")[:, 0] == pytest.approx(expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == table["exposure"].values[::-1].tolist()
    low, high = table["ci_low"].values[::-1], table["ci_high"].values[::-1]
    bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 1.6]
    assert np.array(bars) == pytest.approx(np.stack([low, high], 1))
    outer = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 5.5]
    predicted = np.stack([table["prediction_low"].values[::-1], table["prediction_high"].values[::-1]], 1)
    assert np.array(outer) == pytest.approx(predicted)
    digits = decimals((high - low) / 2)
    tau = float(np.sqrt(table["tau2"].values[-1]))
    assert fixed(tau, digits) in texts(ax)
    assert f"{fixed(expected[0], digits)} [{fixed(low[0], digits)}, {fixed(high[0], digits)}]" in texts(ax)
    assert "outcome per exposure, identity scale" in ax.get_xlabel()
    assert "H3K27ac" in ax.get_xlabel()


def test_the_local_forest_shows_every_sequence_of_an_exposure(results):
    ax = draw(plots.forest, results, "CTCF")
    where = {"exposure": "CTCF", "outcome": "DNase", "estimator": "ivw"}
    estimates = results["local"]["estimate"].sel(where).values
    expected = np.sort(estimates[np.isfinite(estimates)])[::-1]
    assert len(expected) == 6
    assert drawn(ax, "s")[:, 0] == pytest.approx(expected)
    assert ax.get_yticklabels()[-1].get_text() == "global effect"
    middle = float(results["global"]["estimate"].sel(where))
    assert any(line.get_xdata() == pytest.approx([middle, middle]) for line in ax.lines)


def test_of_many_rows_some_are_drawn_and_a_note_says_so(results):
    ax = draw(plots.forest, results, "FOXA1", rows=4)
    where = {"exposure": "FOXA1", "outcome": "DNase", "estimator": "ivw"}
    ranked = np.sort(results["local"]["estimate"].sel(where).values)[::-1]
    assert drawn(ax, "s")[:, 0] == pytest.approx(ranked[[0, 2, 4, 6]])
    assert any("4 of 7 sequences, evenly spaced by rank" in text for text in texts(ax))
    for function in (plots.forest, plots.density):
        assert any("1 of 2 exposures" in text for text in texts(draw(function, results, rows=1)))


def test_the_density_has_a_tick_for_each_local_effect(results):
    ax = draw(plots.density, results)
    ticks = drawn(ax, "|")
    estimates = results["local"]["estimate"].sel({"outcome": "DNase", "estimator": "ivw"}).values
    for row, name in enumerate(label.get_text().split("  ")[0] for label in ax.get_yticklabels()):
        at = np.sort(ticks[np.abs(ticks[:, 1] - row) < 0.2, 0])
        values = (
            estimates
            if name == "all"
            else results["local"]["estimate"].sel({"outcome": "DNase", "estimator": "ivw", "exposure": name}).values
        )
        assert at == pytest.approx(np.sort(values[np.isfinite(values)]))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["FOXA1  (n = 7)", "CTCF  (n = 6)", "all  (n = 13)"] or labels[-1] == "all  (n = 13)"


def test_the_density_is_that_of_scipy_with_silvermans_bandwidth():
    random = np.random.default_rng(0)
    grid = np.linspace(-3, 3, 9)
    for sample in (random.normal(size=40), np.append(random.normal(size=30), [50.0])):
        quartiles = np.percentile(sample, (25, 75))
        # Silverman (1986), equation 3.31.
        width = 0.9 * min(sample.std(ddof=1), (quartiles[1] - quartiles[0]) / 1.34) * len(sample) ** (-1 / 5)
        expected = stats.gaussian_kde(sample, width / sample.std(ddof=1))(grid)
        assert _smoothed(sample, grid) == pytest.approx(expected)
    assert _smoothed(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), grid).any()
    assert not _smoothed(np.array([0.0, 1.0, 2.0, 3.0]), grid).any()


def test_the_heatmap_has_a_number_in_each_cell(results):
    ax = draw(plots.heatmap, results)
    table = results["global"]["estimate"].sel({"estimator": "ivw"})
    cells = {text.get_position(): text.get_text() for text in ax.texts if text.get_text()[:1].isdigit()}
    for row in range(2):
        for column in range(2):
            shown = cells[column + 0.5, row + 0.5]
            assert float(shown.split()[0]) == pytest.approx(float(table[row, column]), abs=0.006)
            assert shown.endswith("•")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["FOXA1", "CTCF"]


def test_a_dot_marks_an_interval_on_either_side_of_zero(results):
    def one_below_one_across(overall):
        for name, values in (("estimate", (-1.0, 0.5)), ("ci_low", (-1.2, -0.1)), ("ci_high", (-0.8, 1.1))):
            overall[name][{"exposure": 1}] = np.array(values)[:, None]

    ax = draw(plots.heatmap, altered(results, "global", one_below_one_across))
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells[0.5, 1.5].endswith("•")
    assert not cells[1.5, 1.5].endswith("•")


@pytest.mark.parametrize("outcomes", [8, 9])
def test_up_to_eight_outcomes_have_numbers_and_the_largest_effects_are_drawn(outcomes):
    exposures = [f"TF{i}" for i in range(5)]
    tree = make_results(exposures, [f"open{i}" for i in range(outcomes)])
    ax = draw(plots.heatmap, tree)
    assert any("0." in text.get_text() for text in ax.texts) == (outcomes == 8)
    sizes = np.abs(tree["global"]["estimate"].sel(estimator="ivw").values)
    ax = draw(plots.heatmap, tree, rows=3)
    kept = np.sort(np.argsort(-sizes.mean(axis=1))[:3])
    assert [label.get_text() for label in ax.get_yticklabels()] == [exposures[i] for i in kept]
    assert any("3 of 5 exposures, those with the largest effects" in text for text in texts(ax))


def test_the_scatter_shows_the_instruments_turned_to_positive_exposure_effects(results):
    sequence, _ = sequence_of(results, "CTCF", "DNase", "ivw", None)
    found = mutations(results, "CTCF", "DNase", sequence)
    ax = draw(plots.scatter, results, "CTCF")
    sign = np.sign(found.bx[found.used])
    expected = np.stack([np.abs(found.bx[found.used]), sign * found.by[found.used]], 1)
    assert drawn(ax, "o") == pytest.approx(expected)
    assert (sign < 0).any()
    lines = {
        text.get_text().rsplit(" ", 1)[0]: line
        for text, line in zip(
            ax.get_legend().get_texts(), [line for line in ax.lines if hasattr(line, "get_slope")], strict=True
        )
    }
    for name, method in (("IVW", "ivw"), ("MR-Egger", "egger")):
        fit = getattr(mr, method)(*(array.ravel() for array in (found.bx, found.bxse, found.by, found.byse)))
        assert lines[name].get_slope() == pytest.approx(float(fit.estimate))
        assert lines[name].get_xy1() == pytest.approx((0, float(getattr(fit, "intercept", 0))))
    assert "size of effect on CTCF" in ax.get_xlabel()
    assert "DNase" in ax.get_ylabel()


def test_of_an_even_number_of_sequences_the_upper_middle_one_is_the_median(results):
    where = {"exposure": "CTCF", "outcome": "DNase", "estimator": "ivw"}
    local = results["local"].to_dataset().sel(where)
    ranked = local["sequence"].values[np.argsort(-local["estimate"].values)]
    assert sequence_of(results, "CTCF", "DNase", "ivw", None) == (ranked[2], "local effect 3 of 6, highest first")


def test_the_points_with_the_largest_effects_have_error_bars(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    found = mutations(results, "FOXA1", "DNase", sequence)
    sizes = np.sort(np.abs(found.bx[found.used]))[::-1]
    assert len(sizes) > 60
    for options, count in (({}, 60), ({"error_bars": 7}, 7)):
        ax = draw(plots.scatter, results, "FOXA1", **options)
        bars = np.array([segment.mean(axis=0)[0] for segment in ax.containers[0].lines[2][1].get_segments()])
        assert np.sort(bars)[::-1] == pytest.approx(sizes[:count])
        assert any(f"± SE (posterior) of the {count} largest x" in text for text in texts(ax))


def test_the_funnel_shows_ratio_against_precision(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    found = mutations(results, "FOXA1", "DNase", sequence)
    ax = draw(plots.funnel, results, "FOXA1")
    bx, by, byse = (array[found.used] for array in (found.bx, found.by, found.byse))
    assert drawn(ax, "o") == pytest.approx(np.stack([by / bx, np.abs(bx) / byse], 1))
    assert ax.get_ylim()[0] == 0


def test_leave_one_out_is_the_estimate_without_each_position(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    found = mutations(results, "FOXA1", "DNase", sequence)
    for method in ("ivw", "egger"):
        ax = draw(plots.leave_one_out, results, "FOXA1", estimator=method)
        step = next(line for line in ax.lines if line.get_drawstyle() == "steps-mid")
        for index in (0, 17, 39):
            rest = [np.delete(array, index, 0).ravel() for array in (found.bx, found.bxse, found.by, found.byse)]
            assert step.get_ydata()[index] == pytest.approx(float(getattr(mr, method)(*rest).estimate))
        assert step.get_xdata().tolist() == found.coordinate.tolist()
    with pytest.raises(SelectionError, match="ivw and egger"):
        plots.leave_one_out(results, "FOXA1", estimator="weighted_median", ax=Figure())


def test_leave_one_out_names_three_positions_and_shows_the_intervals_of_the_store(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    found = mutations(results, "FOXA1", "DNase", sequence)
    data = [array.ravel() for array in (found.bx, found.bxse, found.by, found.byse)]
    groups = np.repeat(found.coordinate, 4)
    fit = mr.diagnostics.leave_one_out(*data, groups=groups, estimator="ivw", alpha=0.05)
    change = np.abs(fit.estimate - float(mr.ivw(*data).estimate))
    ax = draw(plots.leave_one_out, results, "FOXA1")
    assert drawn(ax, "o")[:, 0].tolist() == fit.left_out[np.argsort(-change)[:3]].tolist()
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert [band.min(), band.max()] == pytest.approx([fit.ci_low.min(), fit.ci_high.max()])


def test_the_profile_has_the_sign_of_the_logo(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    found = mutations(results, "FOXA1", "DNase", sequence)
    for of, effect in (("exposure", found.exposure_effect), ("outcome", found.outcome_effect)):
        (steps,) = draw(plots.profile, results, "FOXA1", of=of).patches[:1]
        assert steps.get_data().values == pytest.approx(-np.nanmean(effect, axis=1))
        assert steps.get_data().edges[:2].tolist() == [found.coordinate[0] - 0.5, found.coordinate[0] + 0.5]


@pytest.mark.parametrize("index", [2, 3], ids=["plus", "minus"])
@pytest.mark.parametrize("of", ["exposure", "outcome"])
def test_the_logo_stands_on_the_plus_strand(results, index, of):
    effects = results["effects"].to_dataset()
    sequence = str(effects["sequence"].values[index])
    one = effects.isel(sequence=index)
    first, last = int(one["start"]) + 6, int(one["start"]) + 15
    ax = draw(plots.logo, results, "FOXA1", sequence=sequence, of=of, region=(first, last))
    if of == "exposure":
        effect = one["exposure_effect"].sel(exposure="FOXA1").values
    else:
        effect = one["outcome_effect"].sel(outcome="DNase").values
    fall = -np.nanmean(effect, axis=-1)
    position = np.arange(first - 1, last) - int(one["start"])  # 0-based in the window, plus strand
    read = position if str(one["strand"].item()) == "+" else effect.shape[0] - 1 - position
    heights = {}
    for patch in ax.patches:
        box = patch.get_path().get_extents()
        heights[round((box.x0 + box.x1) / 2)] = box.y1 if box.y1 > -box.y0 else box.y0
    assert sorted(heights) == list(range(first, last + 1))
    assert [heights[at] for at in range(first, last + 1)] == pytest.approx(fall[read])
    assert "position on chr8" in ax.get_xlabel()
    assert ("− strand" in ax.get_xlabel()) == (index == 3)  # noqa: RUF001


@pytest.mark.parametrize("index", [2, 3], ids=["plus", "minus"])
def test_the_letters_are_those_of_the_plus_strand(results, index, monkeypatch):
    import logomaker

    letters = {}
    original = logomaker.Glyph

    def glyph(position, letter, **kwargs):
        letters[position] = letter
        assert kwargs["color"] == BASES[letter]
        return original(position, letter, **kwargs)

    monkeypatch.setattr(logomaker, "Glyph", glyph)
    effects = results["effects"].to_dataset()
    draw(plots.logo, results, "FOXA1", sequence=str(effects["sequence"].values[index]))
    where = GenomeVariants.read(effects, np.array([index]))
    assert letters == dict(zip((where.coordinate[0] + 1).tolist(), where.reference[0].tolist(), strict=True))


def test_the_strongest_region_holds_the_strongest_effects(results):
    sequence = str(results["effects"]["sequence"].values[1])
    found = mutations(results, "FOXA1", "DNase", sequence)
    first, last = strongest_region(found, 7)
    assert last - first == 6
    strength = np.nanmean(np.abs(found.exposure_effect), axis=-1)
    sums = np.array([strength[i : i + 7].sum() for i in range(len(strength) - 6)])
    assert sums[first - found.coordinate[0]] >= 0.98 * sums.max()
    assert strongest_region(found, 1000) == (found.coordinate[0], found.coordinate[-1])
    long = replace(found, exposure_effect=np.tile(found.exposure_effect, (3, 1)), coordinate=np.arange(120))
    assert np.diff(strongest_region(long)).tolist() == [49]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: plots.forest(r, "FOXA2"), r"no exposure 'FOXA2'\. Did you mean 'FOXA1'\? It has FOXA1, CTCF"),
        (lambda r: plots.density(r, outcome="dnase"), r"no outcome 'dnase'\. Did you mean 'DNase'"),
        (lambda r: plots.heatmap(r, estimator="mode"), "no estimator 'mode'"),
        (lambda r: plots.scatter(r, "CTCF", sequence="chr8:1003000-1003040(+)"), "CTCF has no sequence"),
        (lambda r: plots.logo(r, "CTCF", region=(5, 9)), "positions 5 to 9 lie outside of chr8:"),
        (lambda r: plots.profile(r, "CTCF", of="both"), "not on 'both'"),
        (lambda r: plots.logo(r, "CTCF", width=0), "width is 0: a logo has at least 1 position"),
        (lambda r: plots.density(r, []), "the list of exposures is empty"),
        (lambda r: plots.forest(r, []), "the list of exposures is empty"),
    ],
)
def test_what_the_store_does_not_have_is_named(results, call, message):
    with pytest.raises(SelectionError, match=message):
        call(results)


def test_a_store_without_estimates_says_what_to_do(results):
    bare = type(results).from_dict({"effects": results["effects"].to_dataset()})
    with pytest.raises(StoreError, match="run --resume"):
        plots.forest(bare)


def test_missing_estimates_are_drawn_as_missing(results):
    tree = results.copy()
    for group in ("global", "local"):
        dataset = tree[group].to_dataset().load()
        for name in ("estimate", "ci_low", "ci_high", "prediction_low", "prediction_high", "tau2"):
            if name in dataset:
                dataset[name][{"exposure": 1}] = np.nan
        tree[group] = type(tree)(dataset)
    ax = draw(plots.forest, tree)
    assert "no estimate" in texts(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["FOXA1", "CTCF"]
    assert "CTCF  (n = 0)" in texts(draw(plots.density, tree))
    assert "×" in texts(draw(plots.heatmap, tree))  # noqa: RUF001
    assert any("6 more without an estimate" in text for text in texts(draw(plots.forest, tree, "CTCF")))
    with pytest.raises(SelectionError, match="no sequence with an estimate"):
        plots.scatter(tree, "CTCF", ax=Figure())


def check_texts(function, *args, **kwargs):
    """Draw as the commands do, and check that no text lies on another or is cut."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure()
        ax = function(*args, **kwargs, ax=figure)
        figure.draw_without_rendering()
        legend = ax.get_legend().get_texts() if ax.get_legend() else []
        ticks = [
            tick.label1
            for axis in (ax.xaxis, ax.yaxis)
            for tick in axis.get_major_ticks()
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        shown = [*ax.texts, *ticks, *legend, ax.xaxis.label, ax.yaxis.label, ax._left_title]
        # The boxes of slanted labels overlap where the labels do not.
        shown = [text for text in shown if text.get_text() and text.get_visible() and text.get_rotation() in (0, 90)]
        boxes = [text.get_window_extent() for text in shown]
    page = figure.bbox
    for index, (text, box) in enumerate(zip(shown, boxes, strict=True)):
        assert box.x0 >= page.x0 - 1, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert box.y0 >= page.y0 - 1, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
        for other, second in zip(shown[:index], boxes[:index], strict=True):
            assert not box.padded(-1).overlaps(second.padded(-1)), (text.get_text(), other.get_text())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_text_lies_on_another(results, kind):
    check_texts(KINDS[kind], results, *(("FOXA1",) if kind in OF_ONE_SEQUENCE else ()))


def test_dots_of_no_size_are_refused(results, tmp_path):
    with pytest.raises(OutputError, match="at least 1 dot per inch"):
        save(results, "forest", tmp_path / "forest.png", dpi=0)


def test_letters_that_the_font_lacks_are_told_once(tmp_path):
    name = "因子一"
    with open_results(write_store(tmp_path / "out.zarr", exposures=(name,), sequences=5, length=8)) as tree:
        with pytest.warns(UserWarning, match="the font of the figures lacks 一 因 子") as caught:
            save(tree, "forest", tmp_path / "forest.png")
        assert len(caught) == 1
        svg = inline_svg(lambda ax: plots.forest(tree, ax=ax), "forest", "f")
    assert name in svg


def altered(results, group, change):
    tree = results.copy()
    dataset = tree[group].to_dataset().load()
    change(dataset)
    tree[group] = type(tree)(dataset)
    return tree


def test_the_density_of_all_holds_exposures_with_few_sequences(results):
    def few(local):
        local["estimate"][{"exposure": 1, "sequence": slice(3, None)}] = np.nan

    ax = draw(plots.density, altered(results, "local", few))
    curve = ax.collections[-1].get_paths()[0].vertices
    (at,) = drawn(ax, "|")[:, 0][drawn(ax, "|")[:, 1] > 2].reshape(1, -1)
    assert len(at) == 10
    assert curve[:, 0].min() < at.min()
    assert curve[:, 0].max() > at.max()
    for fill in ax.collections:
        low, high = ax.get_xlim()
        tail = fill.get_paths()[0].vertices
        tail = tail[(tail[:, 0] <= low + 1e-9) | (tail[:, 0] >= high - 1e-9)]
        assert not len(tail) or np.ptp(tail[:, 1]) < 0.02


def test_a_missing_estimate_is_seen_in_the_heatmap(results):
    def missing(overall):
        overall["estimate"][{"exposure": 1, "outcome": 0}] = np.nan

    ax = draw(plots.heatmap, altered(results, "global", missing))
    (cross,) = (text for text in ax.texts if text.get_text().startswith("×"))  # noqa: RUF001
    behind = matplotlib.colors.to_rgb(ax.collections[0].to_rgba(np.ma.masked_invalid([np.nan]))[0][:3])
    assert np.mean(behind) - np.mean(matplotlib.colors.to_rgb(cross.get_color())) > 0.5
    assert np.mean(behind) < 0.95


def test_leave_one_out_names_no_rounding_and_what_cannot_be_left_out(results):
    sequence, _ = sequence_of(results, "FOXA1", "DNase", "ivw", None)
    index = results["effects"]["sequence"].values.tolist().index(sequence)

    def only(positions):
        def change(effects):
            rest = [at for at in range(effects.sizes["position"]) if at not in positions]
            for name in ("exposure_effect", "exposure_se", "outcome_effect", "outcome_se"):
                effects[name][{"sequence": index, "position": rest}] = np.nan
            effects["outcome_effect"][{"sequence": index}] = (
                1.7 * effects["exposure_effect"][{"sequence": index, "exposure": 0}]
            )

        return altered(results, "effects", change)

    told = " ".join(texts(draw(plots.leave_one_out, only([3, 7, 9]), "FOXA1", sequence=sequence)))
    assert "largest changes" not in told
    told = " ".join(" ".join(texts(draw(plots.leave_one_out, only([3]), "FOXA1", sequence=sequence))).split())
    assert "no estimate without 1,00" in told


def test_titles_break_between_words_alone(results):
    ax = draw(plots.forest, results, "FOXA1", estimator="egger")
    assert "MR-\n" not in ax.get_title(loc="left")


def test_an_estimate_far_out_does_not_press_the_funnel_together(results):
    near = draw(plots.funnel, results, "FOXA1")
    tree = results.copy()
    local = tree["local"].to_dataset().load()
    local["estimate"].loc[{"estimator": "egger"}] = -300.0
    tree["local"] = type(tree)(local)
    far = draw(plots.funnel, tree, "FOXA1")
    assert far.get_xlim() == pytest.approx(near.get_xlim(), rel=0.3)
    assert any("beyond the axis: MR-Egger −300" in " ".join(text.split()) for text in texts(far))  # noqa: RUF001
    assert [text.get_text() for text in far.get_legend().get_texts()] == ["IVW"]


def test_estimators_without_a_line_in_the_plane_get_none(tmp_path):
    methods = ["egger", "radial_egger", "multivariable_ivw"]
    with open_results(write_store(tmp_path / "out.zarr", mr={"methods": methods})) as tree:
        for function, expected in ((plots.scatter, 1), (plots.funnel, 2)):
            ax = draw(function, tree, "CTCF")
            assert len(ax.get_legend().get_texts()) == expected
            assert any(f"{expected} of 3 estimators" in text for text in texts(ax))
            ax = draw(function, tree, "CTCF", estimator="multivariable_ivw")
            assert ax.get_legend() is None
            assert any("the estimator has no line here" in " ".join(text.split()) for text in texts(ax))
        ax = draw(plots.scatter, tree, "CTCF", estimator="radial_egger")
        assert not [line for line in ax.lines if hasattr(line, "get_slope")]


ALIKE = tuple(f"MCF10A-Er-Src_{factor}_EtOH_0.01pct" for factor in ("STAT3", "c-Fos", "c-Myc", "Pol2"))


def test_names_that_are_cut_stay_apart(tmp_path):
    assert apart(ALIKE, 22)[:2] == ["MCF10A..STAT3..0.01pct", "MCF10A..c-Fos..0.01pct"]
    assert apart(["CTCF", "HepG2_a_factor_with_a_long_name"], 22) == ["CTCF", "HepG2_a_fa.._long_name"]
    hard = [f"{'x' * a}{'y' * b}" for a in (30, 31) for b in (30, 31)] + ["xx..yy", "a" * 40, "a" * 41]
    for width in (6, 22):
        assert len(set(apart(hard, width))) == len(hard)
    with open_results(write_store(tmp_path / "out.zarr", exposures=ALIKE, outcomes=ALIKE[::-1])) as tree:
        for function in (plots.forest, plots.density, plots.heatmap):
            labels = [label.get_text() for label in draw(function, tree).get_yticklabels()]
            assert len({label.split("  ")[0] for label in labels}) == len(labels) >= 4
        ax = draw(plots.scatter, tree, ALIKE[0], outcome=ALIKE[1])
        assert "STAT3" in ax.get_xlabel()
        assert "c-Fos" in ax.get_ylabel()


@pytest.mark.parametrize("name", ["a$b$", r"$\foo$", "a_$b$_{"])
def test_names_are_no_formulas(tmp_path, name):
    with open_results(write_store(tmp_path / "out.zarr", exposures=(name, "CTCF"), sequences=5, length=8)) as tree:
        for kind, function in KINDS.items():
            ax = draw(function, tree, *((name,) if kind in OF_ONE_SEQUENCE else ()))
            assert kind in ("funnel", "loo") or any(name in text for text in texts(ax))
            save(tree, kind, tmp_path / "figure.svg", **({"exposure": name} if kind in OF_ONE_SEQUENCE else {}))


LONG = tuple(f"HepG2_a factor with quite a long name_None#{number}" for number in range(1, 4))


def test_long_names_fit(tmp_path):
    path = write_store(tmp_path / "out.zarr", exposures=LONG, outcomes=LONG[:2], sequences=6)
    with open_results(path) as tree:
        for kind, function in KINDS.items():
            check_texts(function, tree, *((LONG[1],) if kind in OF_ONE_SEQUENCE else ()))


def test_of_many_estimators_six_are_drawn(tmp_path):
    methods = ["ivw_fixed", "ivw_delta", "egger_delta", "ivw", "egger", "ivw_penalized", "egger_penalized"]
    with open_results(write_store(tmp_path / "out.zarr", mr={"methods": methods})) as tree:
        for function in (plots.scatter, plots.funnel):
            ax = draw(function, tree, "CTCF")
            names = [text.get_text() for text in ax.get_legend().get_texts()]
            check_texts(function, tree, "CTCF")
            assert len(names) == 6
            assert sum(name.startswith("IVW") for name in names) == 4
            assert not any("MR-Egger penalized" in name for name in names)
            assert any("6 of 7 estimators" in text for text in texts(ax))
            one = draw(function, tree, "CTCF", estimator="egger_penalized")
            assert one.get_legend().get_texts()[0].get_text().startswith("MR-Egger penalized")
        with pytest.raises(SelectionError, match="no estimator 'mode'"):
            plots.funnel(tree, "CTCF", estimator="mode")


def test_numbers_and_limits():
    assert spaced(3, 5).tolist() == [0, 1, 2]
    assert spaced(100, 3).tolist() == [0, 50, 99]
    assert span([1, 2, 3, 4, 1000.0, np.nan], 0.0)[1] < 10
    assert span([1, 2, 3, 4, 1000.0], 1000.0)[1] > 1000
    assert span([]) == (-1, 1)
    assert span([5.0, 5.0])[0] < 5 < span([5.0, 5.0])[1]
    assert decimals([0.0123, 0.02, np.nan]) == 3
    assert fixed(-0.0001, 2) == "0.00"
    assert fixed(np.nan, 2) == "-"
    assert [three_digits(v) for v in (1.0, 0.95, 123.4, 0.0, 1e-9, 1e9, np.nan)] == [
        *("1.00", "0.950", "123", "0.00", "1.00e-09", "1.00e+09", "-")
    ]
    assert three_digits(-0.5) == "−0.500"  # noqa: RUF001


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_figure_is_written_without_a_display(results, tmp_path, suffix, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = save(results, "logo", tmp_path / f"logo.{suffix}", exposure="CTCF")
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(head)


def test_importing_the_figures_changes_no_setting():
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); import kipoi_deepmr.plots;"
        "assert dict(matplotlib.rcParams) == before;"
        "assert not {'torch', 'kipoi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
