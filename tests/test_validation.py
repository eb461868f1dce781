"""The simulation study: its data are what it says, its measures are right, and a small run of it finds what it must."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kipoi_deepmr import mr
from tests.validation import design, performance, simulation_study
from tests.validation.design import Cell, Errors, Replications
from tests.validation.estimators import BOOT, ESTIMATORS
from tests.validation.performance import Performance
from tests.validation.simulation_study import FULL, QUICK, Plan, run_cells, study

CELL = Cell(Errors(0.4, 8), 5, "balanced", 0.2)


def replications(errors: Errors = CELL.errors, count: int = 40) -> Replications:
    return Replications.draw(np.random.default_rng(1), errors, count, 60)


@pytest.mark.parametrize("correlation", design.CORRELATIONS)
@pytest.mark.parametrize("factors", design.FACTORS)
def test_errors_have_the_wanted_variance_correlation_and_rank(correlation: float, factors: int) -> None:
    noise = replications(Errors(correlation, factors)).noise
    np.testing.assert_allclose([noise.u.var(), noise.v.var()], 1, atol=0.05)
    np.testing.assert_allclose((noise.u * noise.v).mean(), correlation, atol=0.05)
    assert np.linalg.matrix_rank(np.concatenate([noise.u[0], noise.v[0]], axis=1)) == min(factors, design.DRAWS)


@pytest.mark.parametrize("factors", design.FACTORS)
def test_oriented_errors_cohere(factors: int) -> None:
    made = replications(Errors(0.4, factors), 200)
    oriented = made.noise.u * np.sign(made.effect)[:, None]
    between = (oriented.sum(-1) ** 2 - (oriented**2).sum(-1)).mean() / (60 * 59)
    within = 2 / 59 * design.WITHIN_POSITION
    assert abs(between - design.COHERENCE - within) < 0.02


def test_moments_are_those_of_the_draws() -> None:
    sample = replications().sample(CELL).first(7)
    for standard_errors, divisor in ((sample.monte_carlo, design.DRAWS), (sample.posterior, 1)):
        wanted = (
            sample.x.mean(axis=1),
            sample.x.std(axis=1) / np.sqrt(divisor),
            sample.y.mean(axis=1),
            sample.y.std(axis=1) / np.sqrt(divisor),
        )
        for found, array in zip(standard_errors, wanted, strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-9, atol=1e-12)
    for row, variant in ((0, 0), (6, 59)):
        psi = np.corrcoef(sample.x[row, :, variant], sample.y[row, :, variant])[0, 1]
        np.testing.assert_allclose(sample.psi[row, variant], psi, rtol=1e-9)


@pytest.mark.parametrize("f_statistic", design.F_STATISTICS)
def test_strength_is_the_mean_f_statistic(f_statistic: float) -> None:
    bx, bxse, _, _ = replications(count=100).sample(replace(CELL, f_statistic=f_statistic)).monte_carlo
    # The SD over N draws is a random denominator: F has the mean (N - 1) / (N - 3) x N / (N - 1) times as large.
    mean = mr.diagnostics.mean_f_statistic(bx, bxse).mean() * (design.DRAWS - 3) / design.DRAWS
    np.testing.assert_allclose(mean, f_statistic, rtol=0.1)


def test_pleiotropy_is_what_it_is_called() -> None:
    made = replications(count=400)
    direct = {
        kind: made.sample(replace(CELL, pleiotropy=kind, slope=0.0)).outcome / np.sqrt(4 / design.DRAWS)
        for kind in design.PLEIOTROPY
    }
    assert not direct["none"].any()
    assert abs((direct["none"] != direct["balanced"]).mean() - design.INVALID) < 0.02
    slope = {kind: (alpha * made.effect).mean() for kind, alpha in direct.items()}
    oriented = {kind: (alpha * np.sign(made.effect)).mean() for kind, alpha in direct.items()}
    size = design.INVALID * design.PLEIOTROPIC
    np.testing.assert_allclose([slope["balanced"], oriented["balanced"]], 0, atol=0.01)
    np.testing.assert_allclose([slope["correlated"], oriented["directional"]], size, atol=0.01)


def test_mutagenesis_has_few_strong_variants_and_errors_that_grow() -> None:
    sample = design.draw_mutagenesis(np.random.default_rng(2), 20, 600, 30, 0.8)
    bx, bxse, by, byse = sample.monte_carlo
    assert (bx[:, :30] / bxse[:, :30]).std() > 5 > 1.3 > (bx[:, 30:] / bxse[:, 30:]).std()
    for effect, se, growth, level in ((bx, bxse, 0.05, 0.01), (by, byse, 0.06, 0.012)):
        large = np.abs(effect) > 0.4
        np.testing.assert_allclose(np.median(se[large] / np.abs(effect[large])), growth, rtol=0.3)
        np.testing.assert_allclose(np.median(se[:, 30:]), level, rtol=0.1)


def test_measures_equal_their_definitions() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(0.7, 0.1, (4, 25, 6))
    made = [mr.ivw(np.ones(6), np.zeros(6), block, np.full(6, 0.1), model="fixed") for block in draws]
    made[0].estimate[3] = np.nan
    found = performance.measure(made, 0.6)
    estimate = np.concatenate([result.estimate for result in made])
    kept = np.isfinite(estimate)
    low, high = (np.concatenate([getattr(r, name) for r in made])[kept] for name in ("ci_low", "ci_high"))
    assert (found["replications"], found["answered"]) == (100, 0.99)
    np.testing.assert_allclose(found["bias"], estimate[kept].mean() - 0.6)
    np.testing.assert_allclose(found["bias_mc"], estimate[kept].std(ddof=1) / np.sqrt(99))
    np.testing.assert_allclose(found["coverage"], ((low < 0.6) & (0.6 < high)).mean())
    np.testing.assert_allclose(found["coverage_mc"], np.sqrt(found["coverage"] * (1 - found["coverage"]) / 99))
    assert found["rejection"] == 1
    nothing = performance.measure([mr.ivw(np.zeros((5, 2)), np.ones(2), np.ones(2), np.ones(2))], 0.0)
    assert nothing["answered"] == 0 and np.isnan(nothing["bias"])


def test_the_study_finds_what_it_must() -> None:
    names = ("ivw", "overlap_debiased_ivw", "cross_fitted_ivw", "cross_fitted_egger")
    cells = [Cell(Errors(0.8, 64), 5, "none", slope) for slope in design.SLOPES]
    rows = run_cells(Plan(100, names, ()), "factorial", cells)
    found = {(row.estimator, row.slope): row for row in rows}
    assert len(rows) == len(found) == 8
    usual = found["ivw", 0.0]
    assert usual.bias > 10 * usual.bias_mc > 0 and usual.rejection > 0.5
    for name in names[1:]:
        row = found[name, 0.0]
        assert row.answered > 0.95 and abs(row.bias) < 4 * row.bias_mc
        assert found[name, 0.2].replications == (100 if name == "overlap_debiased_ivw" else 25)
    assert found["cross_fitted_ivw", 0.0].rejection < 0.15 < found["overlap_debiased_ivw", 0.0].rejection


def test_results_do_not_depend_on_the_other_estimators() -> None:
    errors, cells = Errors(0.4, 2), ("factorial",)
    together = study(Plan(8, ("ivw", "egger"), (errors,), cells))
    alone = study(Plan(8, ("egger",), (errors,), cells))
    assert [row for row in together if row.estimator == "egger"] == alone


def test_a_resumed_study_takes_the_parts_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(4, ("ivw", "egger"), (Errors(0.0, 2), Errors(0.4, 2)), ("factorial", "coherence"))
    whole = study(plan, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"coherence-{value}.csv.gz" for value in ("0", "0.03", "0.2")),
        *(f"factorial-{value}-2.csv.gz" for value in ("0", "0.4")),
    }
    (tmp_path / "factorial-0.4-2.csv.gz").unlink()
    computed: list[Errors] = []
    monkeypatch.setattr(
        simulation_study,
        "run_cells",
        lambda plan, design, cells: computed.append(cells[0].errors) or run_cells(plan, design, cells),
    )
    again = study(plan, tmp_path, resume=True)
    assert computed == [Errors(0.4, 2)]
    assert [row.estimator for row in again] == [row.estimator for row in whole]
    np.testing.assert_allclose([row.bias for row in again], [row.bias for row in whole], atol=1e-4)
    for other in (replace(plan, replications=6), replace(plan, estimators=("ivw",))):
        computed.clear()
        study(other, tmp_path, resume=True)
        assert len(computed) == 5


def test_tables_are_read_back_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = study(Plan(4, ("ivw", "weighted_median"), (simulation_study.MIDDLE_ERRORS,), ("factorial", "coherence")))
    performance.write(tmp_path / "table.csv.gz", rows)
    again = performance.read(tmp_path / "table.csv.gz")
    assert [row.estimator for row in again] == [row.estimator for row in rows]
    np.testing.assert_allclose([row.bias for row in again], [row.bias for row in rows], atol=1e-4)
    monkeypatch.setattr(performance, "ENOUGH", 2)
    text = performance.digest(again)
    for part in ("pleiotropy: correlated", "## coherence", "| weighted_median |", "type I, F=2"):
        assert part in text


def test_every_estimator_runs_and_the_committed_table_covers_them() -> None:
    sample = replications(count=3).sample(CELL)
    for name, estimator in ESTIMATORS.items():
        assert estimator.run(sample).estimate.shape == (3,), name
    assert set(FULL.estimators) == set(QUICK.estimators) == set(ESTIMATORS)
    rows: list[Performance] = performance.read(Path(simulation_study.__file__).parent / "results.csv.gz")
    assert {row.estimator for row in rows} == set(ESTIMATORS)
    factorial = [row for row in rows if row.design == "factorial"]
    assert len(factorial) == 144 * len(design.SLOPES) * len(ESTIMATORS)
    assert all(row.replications >= 50 for row in factorial)
    assert all(row.replications >= 1000 for row in rows if row.slope == 0)


def test_the_readme_tells_the_design() -> None:
    study_of = simulation_study
    text = " ".join((Path(study_of.__file__).parent / "README.md").read_text().split())

    def listed(values: Iterable[float], last: str = ", ") -> str:
        *first, end = (f"{value:g}" for value in values)
        return ", ".join(first) + last + end

    conditions = [design.F_STATISTICS, design.CORRELATIONS, design.FACTORS, design.PLEIOTROPY]
    repeated = {
        effort: round(FULL.replications * share) for effort, (null, share) in study_of.SHARES.items() if null == 1
    }
    assert set(repeated) == set(study_of.SHARES) and design.ALLELES == 3
    for sentence in (
        f"for {study_of.VARIANTS} variants, three to a position; N = {design.DRAWS} draws.",
        f"({math.prod(map(len, conditions))} conditions): mean F of the instruments (Monte-Carlo error of the mean) "
        f"{listed(design.F_STATISTICS)}; correlation of the errors of exposure and outcome in a draw {listed(design.CORRELATIONS)};",
        f"from {listed(design.FACTORS, ' or ')} shared factors; pleiotropy of {design.INVALID:.0%} of the variants: none, "
        f"balanced (SD {design.PLEIOTROPIC} in units of the exposure effects), directional (mean {design.PLEIOTROPIC} after",
        f"correlated ({design.PLEIOTROPIC} x exposure effect",
        f"Slope {design.SLOPES[0]:g} (type I error) and {design.SLOPES[1]:g}.",
        f"have the mean correlation {design.COHERENCE} between instruments",
        f"The design *coherence* varies it: {listed(study_of.COHERENCES)}.",
        f"{study_of.MUTAGENESIS_VARIANTS} variants, {study_of.MUTAGENESIS_STRONG} of them strong",
        f"Slopes {listed(study_of.MUTAGENESIS_SLOPES, ' and ')}.",
        f"Replications at slope 0: {FULL.replications}. At slope 0.2: {repeated['closed']} for closed forms, "
        f"{repeated['draws']} for draws and maximum likelihood, {repeated['slow']} for medians",
        f"{repeated['slowest']} for cML; in mutagenesis (slope 0.8) a fifth of that.",
        f"come from {BOOT} bootstrap draws.",
        f"conditions with fewer than {performance.ENOUGH} answers are left out.",
    ):
        assert sentence in text, sentence
    assert repeated["iterative"] == repeated["draws"]
    assert study_of.MUTAGENESIS_SHARE == 1 / 5
