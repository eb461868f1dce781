"""Outputs under unique names, and what a configuration may call them."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr.config import Config, Task, parse_config
from kipoi_deepmr.errors import TaskError
from kipoi_deepmr.model import Targets, select
from kipoi_deepmr.model.targets import Profile

DEEPSEA = Path(__file__).parents[2] / "shared" / "data" / "deepsea_predictor_names.txt"
LABELS = ["HepG2_CTCF_None", "HepG2_FOXA1_None", "HepG2_CTCF_None", "HepG2_DNase_None", "K562_DNase_None"]


def configured(exposures: dict, outcomes: dict, intervals: str | None = "all.bed") -> Config:
    return parse_config(
        {
            "model": {"name": "m"},
            "exposures": exposures,
            "outcomes": outcomes,
            "sequences": {"intervals": intervals} if intervals else {},
        },
        Path.cwd(),
    )


@pytest.fixture(scope="module")
def deepsea() -> Targets:
    if not DEEPSEA.exists():
        pytest.skip(f"the labels of DeepSEA are not at {DEEPSEA}")
    return Targets(DEEPSEA.read_text().splitlines())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc_", min_size=1, max_size=3), min_size=1, max_size=30))
def test_every_output_is_found_by_its_unique_name_its_index_and_its_occurrence(labels):
    targets = Targets(labels)
    assert len({target.name for target in targets}) == len(labels)
    for index, target in enumerate(targets):
        assert (target.index, target.label) == (index, labels[index])
        assert labels[:index].count(target.label) + 1 == target.occurrence
        assert targets.find(Task(task=target.name), "k") == target
        assert targets.find(Task(task=index), "k") == target
        assert targets.find(Task(task=target.label, occurrence=target.occurrence), "k") == target


def test_a_label_that_looks_like_a_unique_name_is_found_first():
    targets = Targets(["a", "a#1", "a"])
    assert targets.find(Task(task="a#1"), "k").index == 1
    assert targets.find(Task(task="a", occurrence=1), "k").index == 0


def test_a_number_in_quotes_is_a_label():
    targets = Targets(["2", "1", "0"])
    assert targets.find(Task(task="2"), "k").index == 0
    assert targets.find(Task(task=2), "k").index == 2


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            {"task": "HepG2_FOXA_None"},
            r"exposures.X.task: the model has no output 'HepG2_FOXA_None'. Did you mean 'HepG2_",
        ),
        ({"task": "hepg2_foxa1_none"}, "Did you mean 'HepG2_FOXA1_None'"),
        ({"task": "zzz"}, r"It has 5 outputs \(HepG2_CTCF_None, HepG2_FOXA1_None"),
        ({"task": 5}, "the model has 5 outputs, 0 to 4; there is no 5"),
        ({"task": "HepG2_CTCF_None"}, r"occurs 2 times.*occurrence 1 \(index 0\), occurrence 2 \(index 2\)"),
        ({"task": "HepG2_CTCF_None", "occurrence": 3}, "occurs 2 times; there is no occurrence 3"),
        ({"task": "HepG2_FOXA1_None", "occurrence": 2}, "occurs once; there is no occurrence 2"),
        ({"task": "MCF7_*"}, r"exposures.X.task: no output of the model matches 'MCF7_\*'"),
        ({"task": "HepG2_FOX?_None"}, "Did you mean 'HepG2_FOXA1_None'"),
    ],
)
def test_a_task_that_cannot_be_found_is_explained(task, said):
    with pytest.raises(TaskError, match=said):
        select(Targets(LABELS), configured({"X": task}, {"D": "K562_DNase_None"}))


def test_long_lists_of_labels_are_cut():
    with pytest.raises(TaskError) as caught:
        Targets([f"label{index}" for index in range(919)]).find(Task(task="zzz"), "k")
    assert "label11, ...)" in str(caught.value) and len(str(caught.value)) < 400


def test_a_glob_makes_one_exposure_per_match_and_leaves_the_outcome_out():
    chosen = select(Targets(LABELS), configured({"all": "HepG2_*_None"}, {"DNase": "HepG2_DNase_None"}))
    assert list(chosen.exposures) == ["HepG2_CTCF_None#1", "HepG2_FOXA1_None", "HepG2_CTCF_None#2"]
    assert chosen.indices == [0, 1, 2, 3]
    assert chosen.notes == (
        "HepG2_DNase_None is an outcome and was left out of the exposures that match 'HepG2_*_None'",
    )


def test_a_glob_of_outcomes_leaves_out_an_exposure_that_is_named():
    chosen = select(Targets(LABELS), configured({"CTCF": 0}, {"all": "*"}))
    assert [target.index for target in chosen.outcomes.values()] == [1, 2, 3, 4]
    assert "is an exposure and was left out of the outcomes" in chosen.notes[0]


def test_a_glob_with_an_occurrence_takes_that_one_only():
    chosen = select(Targets(LABELS), configured({"all": {"task": "HepG2_*", "occurrence": 1}}, {"D": 4}))
    assert [target.index for target in chosen.exposures.values()] == [0, 1, 3]


def test_a_label_with_a_wildcard_in_it_is_no_glob():
    targets = Targets(["a[1]", "a1", "b*"])
    chosen = select(targets, configured({"X": "a[1]", "Y": "b*"}, {"D": "a1"}))
    assert chosen.indices == [0, 2, 1]


@pytest.mark.parametrize(
    ("exposures", "outcomes"),
    [({"X": "HepG2_DNase_None"}, {"D": 3}), ({"X": 0}, {"D": "HepG2_CTCF_None#1"})],
)
def test_an_exposure_that_is_an_outcome_is_an_error(exposures, outcomes):
    with pytest.raises(TaskError, match=r"exposures.X and outcomes.D are the same output 'HepG2_\w+(#1)?'"):
        select(Targets(LABELS), configured(exposures, outcomes))


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ([0, 10], [10, 20], False),
        ([10, 20], [0, 10], False),
        ([0, 11], [10, 20], True),
        ([10, 20], [0, 11], True),
        ([0, 20], [5, 6], True),
        ([5, 6], [0, 20], True),
        (None, [0, 1], True),
    ],
)
def test_an_output_is_on_both_sides_where_the_windows_of_its_profile_do_not_overlap(one, other, refused):
    tasks = [{"task": "profile", "reduce": "sum", **({"window": window} if window else {})} for window in (one, other)]
    config = configured({"X": tasks[0]}, {"D": tasks[1]})
    with pytest.raises(TaskError, match="windows of a profile that do not overlap") if refused else nullcontext():
        select(Targets(["profile"], [Profile(20, 1)]), config)


def test_a_glob_that_matches_outcomes_only_is_an_error():
    with pytest.raises(TaskError, match=r"exposures.X.task: all 1 outputs that match 'K562\*' are named on the other"):
        select(Targets(LABELS), configured({"X": "K562*"}, {"D": "K562_DNase_None"}))


@pytest.mark.parametrize(
    "exposures",
    [
        {"g": "HepG2_*", "h": "*_FOXA1_*"},
        {"HepG2_FOXA1_None": "HepG2_CTCF_None#1", "g": "*FOXA1*"},
        {"g": "*FOXA1*", "HepG2_FOXA1_None": "HepG2_CTCF_None#1"},
    ],
)
def test_two_tasks_that_come_to_the_same_name_are_named(exposures):
    with pytest.raises(TaskError) as caught:
        select(Targets(LABELS), configured(exposures, {"D": "K562_DNase_None"}))
    assert all(f"exposures.{key}" in str(caught.value) for key in exposures)
    assert "both come to the name 'HepG2_FOXA1_None': rename one, or narrow a glob" in str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
def test_peaks_belong_to_the_task_that_names_them_whatever_the_order(order):
    tasks = [
        ("CTCF", {"task": "HepG2_CTCF_None#1", "peaks": "mine.bed"}),
        ("all", {"task": "HepG2_*_None", "peaks": "{task}.bed"}),
    ][::order]
    chosen = select(Targets(LABELS), configured(dict(tasks), {"D": "K562_DNase_None"}, intervals=None))
    assert chosen.peaks == {
        "CTCF": "mine.bed",
        "HepG2_CTCF_None#1": "HepG2_CTCF_None.bed",
        "HepG2_FOXA1_None": "HepG2_FOXA1_None.bed",
        "HepG2_CTCF_None#2": "HepG2_CTCF_None.bed",
        "HepG2_DNase_None": "HepG2_DNase_None.bed",
    }


def test_the_same_output_may_be_two_exposures_with_other_peaks():
    exposures = {"one": {"task": 0, "peaks": "1.bed"}, "two": {"task": 0, "peaks": "2.bed"}}
    chosen = select(Targets(LABELS), configured(exposures, {"D": 3}, intervals=None))
    assert chosen.indices == [0, 0, 3]


def test_deepsea_has_919_outputs_under_844_labels(deepsea):
    assert len(deepsea) == 919
    assert len({target.label for target in deepsea}) == 844
    assert len({target.name for target in deepsea}) == 919
    assert len({target.label for target in deepsea if target.repeated}) == 54


def test_an_ambiguous_label_of_deepsea_lists_its_occurrences(deepsea):
    with pytest.raises(TaskError) as caught:
        deepsea.find(Task(task="HepG2_CTCF_None"), "exposures.CTCF.task")
    indices = [target.index for target in deepsea if target.label == "HepG2_CTCF_None"]
    assert len(indices) > 1
    for occurrence, index in enumerate(indices, 1):
        assert f"occurrence {occurrence} (index {index})" in str(caught.value)
        assert deepsea.find(Task(task="HepG2_CTCF_None", occurrence=occurrence), "k").index == index


def test_the_hepg2_experiment_is_one_glob(deepsea):
    chosen = select(deepsea, configured({"TFs": "HepG2_*_None"}, {"DNase": "HepG2_DNase_None"}))
    expected = [t.index for t in deepsea if t.label.startswith("HepG2_") and t.label.endswith("_None")]
    dnase = chosen.outcomes["DNase"].index
    assert [target.index for target in chosen.exposures.values()] == [index for index in expected if index != dnase]
    assert len(chosen.notes) == 1
    assert deepsea.find(Task(task="HepG2_USF-1_None"), "k").label == "HepG2_USF-1_None"
    with pytest.raises(TaskError, match="Did you mean 'HepG2_USF-1_None'"):
        deepsea.find(Task(task="HepG2_USF1_None"), "k")


def test_labels_are_compared_without_what_cannot_be_seen():
    targets = Targets(["\ufeffTF ", "e\u0301", "TF"])
    assert [target.name for target in targets] == ["TF#1", "\u00e9", "TF#2"]
    assert targets.find(Task(task="\u00e9\u200b"), "exposures.A").index == 1
