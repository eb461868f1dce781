"""The table of estimators: held against the functions, and a new row that is found everywhere."""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kipoi_deepmr import cli, mr, terms
from kipoi_deepmr.config import MRSection, parse_config
from kipoi_deepmr.config.estimation import ENOUGH_DRAWS, Method, default_methods
from kipoi_deepmr.cube import open_results
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.estimate.again import re_estimate
from kipoi_deepmr.estimators import DEFAULT, ESTIMATORS, RESULTS, STORED, Estimator, Option, label_of, whole
from kipoi_deepmr.report import write_report
from kipoi_deepmr.tables import local_results, terminal_table
from tests.readme import README, table_of_estimators
from tests.report_store import write_store

NEEDING_VALUES = {"psi": 0.0, "draws": 12, "sample_size": 100.0}


def call(row, instruments, seed=0):
    """Call an estimator on strong, valid instruments at positions of their own."""
    random = np.random.default_rng(seed)
    bx = random.normal(1, 0.3, instruments)
    by, se = 0.5 * bx + random.normal(0, 0.05, instruments), np.full(instruments, 0.05)
    function = getattr(mr, row.function or row.name)
    if row.draws:
        return function(*(effect + random.normal(0, 0.05, (12, instruments)) for effect in (bx, by)))
    options = {name: NEEDING_VALUES[name] if value == STORED else value for name, value in row.fixed.items()}
    if "groups" in options:
        options["groups"] = np.arange(instruments)
    if row.joint:
        bx = np.stack([bx, random.normal(1, 0.3, instruments)])
    return function(bx, np.full(bx.shape, 0.05), by, se, **options)


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=list(ESTIMATORS))
def test_a_row_says_what_its_function_takes_and_gives(row):
    parameters = inspect.signature(getattr(mr, row.function or row.name)).parameters
    assert {*row.fixed, *row.options} <= set(parameters)
    result = call(row, 9)
    known = {name for name, term in terms.LOCAL.items() if terms.ESTIMATOR in term.dims}
    assert {*RESULTS, *row.variables} <= known
    given = {name for name in known if np.isfinite(np.asarray(getattr(result, name, np.nan), dtype=float)).any()}
    # Balanced pleiotropy is an option, and with penalized weights there is no Q.
    optional = {"tau2", *(("q", "q_pvalue") if "penalized" in row.fixed else ())}
    assert {*RESULTS, *row.variables} - optional <= given <= {*RESULTS, *row.variables}


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=list(ESTIMATORS))
def test_a_row_knows_the_fewest_instruments(row):
    def statuses(instruments):
        return [int(np.max(call(row, instruments, seed).status)) for seed in range(5)]

    assert mr.Status.OK in statuses(row.fewest)
    if row.fewest > 1:
        assert set(statuses(row.fewest - 1)) == {mr.Status.TOO_FEW_INSTRUMENTS}


def test_the_rows_are_whole():
    assert all(name == row.name and row.title and row.advice for name, row in ESTIMATORS.items())
    assert all(row.of_the_mean for row in ESTIMATORS.values() if row.draws)
    names = [row.twosamplemr for row in ESTIMATORS.values() if row.twosamplemr]
    assert len(set(names)) == len(names)
    assert set(DEFAULT) <= set(ESTIMATORS)


def test_labels_spell_the_words_of_a_name():
    assert label_of("ivw") == "IVW"
    assert label_of("cross_fitted_egger") == "cross fitted MR-Egger"
    assert label_of("raps_over_dispersion_huber") == "MR-RAPS over dispersion huber"
    assert label_of("weighted_median") == "weighted median"
    assert (label_of("ivw_t"), label_of("half")) == ("IVW t", "half")


def test_the_defaults_are_the_published_ones_and_those_to_trust():
    assert [str(method) for method in default_methods(draws=False)] == ["egger", "ivw"]
    assert [str(method) for method in default_methods(draws=True)] == ["cross_fitted_egger", "cross_fitted_ivw"]
    assert ENOUGH_DRAWS == 10


@pytest.mark.parametrize("estimator", ["debiased_ivw", "multivariable_egger", "radial_ivw", "cross_fitted_egger"])
def test_options_are_those_of_the_row_and_not_of_a_name_that_begins_alike(estimator):
    with pytest.raises(ConfigError) as caught:
        settings(methods=[{"name": "mine", "estimator": estimator, "loss": "l2"}])
    allowed = ", ".join(ESTIMATORS[estimator].options)
    assert f"unknown key 'loss'. Allowed: name, estimator, {allowed}" in str(caught.value)


def test_the_correlation_of_errors_asks_for_delta_weights():
    own = {"name": "mine", "psi": 0.1}
    assert Method.model_validate({**own, "estimator": "egger_delta"}).options == {"psi": 0.1}
    assert (
        Method.model_validate({**own, "estimator": "ivw_clustered", "weights": "delta"}).row.function == "clustered_ivw"
    )
    with pytest.raises(ValueError, match="psi: only weights: delta make use of it"):
        Method.model_validate({**own, "estimator": "ivw_clustered"})


def test_the_table_of_the_readme_is_made_from_the_rows():
    assert table_of_estimators() in README, "write it anew with `python -m tests.readme`"


def test_the_help_lists_every_row_in_100_columns(capsys, monkeypatch):
    entries, lines = help_of_mr(capsys, monkeypatch)
    assert max(map(len, lines)) <= 100
    assert entries == [f"{row.name} {row.title}: {row.advice}" for row in ESTIMATORS.values()]


def help_of_mr(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["mr", "--help"]) == 0
    shown = capsys.readouterr().out
    entries = re.split(r"\n  (?=\w)", shown.partition("methods:")[2])[1:]
    return [" ".join(entry.split()) for entry in entries], shown.splitlines()


def settings(**mr):
    tasks = {"exposures": {"A": {"task": "a", "peaks": "a.bed"}}, "outcomes": {"D": {"task": "d"}}}
    return parse_config({"model": {"name": "m", "source": "dir"}, **tasks, "mr": mr}, Path())


@dataclass(frozen=True)
class ToyResult:
    """The mean of the ratios and their spread."""

    estimate: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    pvalue: np.ndarray
    status: np.ndarray
    q: np.ndarray


def toy(bx, bxse, by, byse, *, alpha=0.05, power=1):
    weights = np.abs(bx) ** power
    estimate = np.nansum(weights * by / bx, axis=-1) / np.nansum(weights, axis=-1)
    se = np.nanstd(by / bx, axis=-1)
    return ToyResult(estimate, se, estimate - se, estimate + se, 0 * se + 0.5, np.zeros(se.shape, int), 0 * se + 7)


TOY = Estimator(
    "toy_ivw",
    "a mean of the ratios (Nobody 2026)",
    "never",
    1,
    {"power": whole(1, 4)},
    ("q",),
    "mean_of_ratios",
    label="Toy IVW",
    twosamplemr="Mean of the ratios",
    outvoted=True,
)


@pytest.fixture
def with_a_toy(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, TOY.name, TOY)
    monkeypatch.setattr(mr, TOY.function, toy, raising=False)


@pytest.mark.usefixtures("with_a_toy")
def test_a_new_estimator_is_one_function_and_one_row(tmp_path, capsys, monkeypatch, caplog):
    own = {"name": "square", "estimator": "toy_ivw", "power": 2}
    assert [method.row for method in settings(methods=["toy_ivw", own]).mr.methods] == [TOY, TOY]
    with pytest.raises(ConfigError, match=r"power: 9 is not allowed\. Allowed: a whole number from 1 to 4"):
        settings(methods=[{**own, "power": 9}])
    with pytest.raises(ConfigError, match=r"unknown key 'distribution'\. Allowed: name, estimator, power"):
        settings(methods=[{**own, "distribution": "normal"}])

    store = write_store(tmp_path / "out.zarr", ("A",), sequences=3, length=5)
    re_estimate(store, mr={"methods": ["ivw", "toy_ivw", own], "min_f": 0})
    assert "in toy_ivw, square the many mutations" in caplog.text
    with open_results(store) as tree:
        local = tree["local"].to_dataset().load()
        described = local["estimator"].attrs["description"]
        assert f"toy_ivw: {TOY.title}; square: {TOY.title} with power: 2" in described
        assert (local["q"].sel(estimator="toy_ivw").values[local["bound"].values[:, None]] == 7).all()
        assert np.isfinite(tree["global"]["estimate"].sel(estimator=["toy_ivw", "square"])).all()
        assert (local["estimate"].sel(estimator="toy_ivw") != local["estimate"].sel(estimator="square")).any()
        assert "toy_ivw" in terminal_table(tree)
        methods = next(local_results(tree))["method"]
        assert set(methods) == {"Inverse variance weighted", "Mean of the ratios", "square"}
        page = write_report(tree, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Toy IVW" in page
    assert f"toy_ivw {TOY.title}: {TOY.advice}" in help_of_mr(capsys, monkeypatch)[0]
    assert f"| `toy_ivw` | {TOY.title} | 1 instrument, `min_f` | never |" in table_of_estimators()


@pytest.mark.usefixtures("with_a_toy")
def test_an_option_is_tried_with_few_rounds_and_used_with_all(monkeypatch):
    seen = []
    monkeypatch.setattr(mr, TOY.function, lambda *data, power, **options: seen.append(power) or toy(*data, **options))
    slow = Option(lambda value: True, "anything", most_tried=3)
    monkeypatch.setitem(ESTIMATORS, TOY.name, Estimator(**{**vars(TOY), "options": {"power": slow}}))
    from kipoi_deepmr.estimate.methods import check_methods

    check_methods(MRSection(methods=[{"name": f"by_{n}", "estimator": TOY.name, "power": n} for n in (2, 500)]))
    assert seen == [2, 3]
