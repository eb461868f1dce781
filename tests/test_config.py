"""The YAML file: what it may say, and what an error tells about it."""

import inspect
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipoi_deepmr import meta, mr
from kipoi_deepmr.config import Config, load_config, parse_config
from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.sequences import sample_sequences

MINIMAL = """\
model: {name: m, source: dir}
exposures:
  A: {task: a, peaks: a.bed}
outcomes:
  D: {task: d}
"""
FULL = """\
model:
  name: DeepSEA/predict        # a Kipoi model
  source: kipoi
dataloader:
  args: {fasta_file: hg19.fa}
exposures:
  FOXA1: {task: HepG2_FOXA1_None, occurrence: 1, peaks: peaks/FOXA1.narrowPeak.gz}
outcomes:
  DNase: {task: HepG2_DNase_None}
sequences: {per_exposure: 25, chromosomes: [chr8, chr9], seed: 1}
uncertainty: {method: mc_dropout, draws: 50, seed: 1}
effects: {scale: identity, standard_error: posterior}
mutagenesis: {positions: all, engine: auto}
mr: {methods: [egger, ivw], min_f: 0}
meta: {method: REML}
"""


def load(folder: Path, text: str) -> Config:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return load_config(path)


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value)


def swapped(old: str, new: str) -> str:
    assert old in MINIMAL
    return MINIMAL.replace(old, new)


def test_the_yaml_of_the_design_is_read_in_full(tmp_path):
    config = load(tmp_path, FULL)
    assert config.model.name == "DeepSEA/predict"
    assert config.dataloader.args == {"fasta_file": "hg19.fa"}
    assert config.exposures["FOXA1"].occurrence == 1
    assert config.sequences.chromosomes == ["chr8", "chr9"]
    assert config.mutagenesis.positions == "all"
    assert [method.name for method in config.mr.methods] == ["egger", "ivw"]


def test_everything_has_a_default_but_model_tasks_and_sequences(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert (config.sequences.per_exposure, config.uncertainty.draws, config.effects.scale) == (25, 50, "identity")
    assert (config.mr.min_f, config.meta.method, config.mutagenesis.memory_bytes) == (0, "REML", None)
    said = fault(tmp_path, "mr: {min_f: 0}\n")
    assert all(f"{key}: this key is required" in said for key in ("model", "exposures", "outcomes"))


def test_a_default_of_the_file_is_that_of_the_function_that_takes_it(tmp_path):
    config = load(tmp_path, MINIMAL)
    functions = {
        sample_sequences: (config.sequences, ("seed", "max_n_fraction", "merge_distance", "min_prediction")),
        mr.ivw: (config.mr, ("alpha",)),
        meta.random_effects: (config.meta, ("method", "test", "prediction")),
    }
    for function, (section, names) in functions.items():
        known = inspect.signature(function).parameters
        for name in names:
            assert getattr(section, name) == known[name].default


def test_nothing_that_costs_more_or_says_something_else_is_on_by_default(tmp_path):
    config = load(tmp_path, MINIMAL)
    assert config.effects.standard_error == "posterior"
    assert (config.uncertainty.method, config.uncertainty.seed, config.uncertainty.shared_draws) == (
        "mc_dropout",
        1,
        False,
    )
    assert (config.effects.keep_draws, config.mr.bidirectional) == (False, False)
    assert (config.controls.permuted_exposure, config.controls.shuffled_sequence, config.controls.seed) == (0, 0, 1)
    assert (config.mutagenesis.engine, config.mutagenesis.precision) == ("auto", "float32")


@pytest.mark.parametrize(("draws", "more"), [(9, []), (10, ["cross_fitted_egger", "cross_fitted_ivw"])])
def test_methods_of_every_draw_are_added_from_ten_draws_on(tmp_path, draws, more):
    config = load(tmp_path, MINIMAL + f"uncertainty: {{draws: {draws}}}\n")
    assert [method.name for method in config.mr.methods] == ["egger", "ivw", *more]


def test_a_section_whose_lines_are_all_comments_takes_its_defaults(tmp_path):
    commented = load(tmp_path, MINIMAL + "sequences:\n  # per_exposure: 3\nmeta:\n")
    assert commented.canonical() == load(tmp_path, MINIMAL).canonical()
    assert "line 2: exposures" in fault(tmp_path, swapped("\n  A: {task: a, peaks: a.bed}", ""))


def test_a_task_may_be_written_short(tmp_path):
    assert load(tmp_path, swapped("{task: d}", "d")).outcomes["D"].task == "d"
    assert load(tmp_path, swapped("{task: d}", "7")).outcomes["D"].task == 7


def test_a_number_is_an_index_and_a_number_in_quotes_a_label(tmp_path):
    assert load(tmp_path, swapped("task: a,", "task: 3,")).exposures["A"].task == 3
    assert load(tmp_path, swapped("task: a,", "task: '3',")).exposures["A"].task == "3"


@pytest.mark.parametrize("name", ["NO", "no", "on", "3", "null", "2020-01-01", "a/b", "β-actin", "A.b"])
def test_names_are_text_whatever_yaml_takes_them_for(tmp_path, name):
    assert list(load(tmp_path, swapped("  A: ", f"  {name}: ")).exposures) == [name]


@pytest.mark.parametrize("name", ["''", "' '", '"\\u200b"', '"a\\x07b"', '"a\\nb"', '"a\\tb"'])
def test_names_that_cannot_be_shown_are_refused_with_their_line(tmp_path, name):
    said = fault(tmp_path, swapped("  A: ", f"  {name}: "))
    assert "line 3: exposures: " in said and "cannot be a name" in said
    assert "\x07" not in said and len(said.splitlines()) == 2


def test_anchors_and_merge_keys_work_and_own_keys_win(tmp_path):
    text = swapped("  A: {task: a, peaks: a.bed}", "  A: &x {task: a, peaks: a.bed}\n  B: {<<: *x, task: b}")
    exposures = load(tmp_path, text).exposures
    assert (exposures["B"].task, exposures["B"].peaks) == ("b", "a.bed")
    assert "line 4: exposures.B.task" in fault(tmp_path, text.replace("task: b}", "task: }"))


def test_a_merge_of_a_mapping_that_merges_itself_is_no_duplicate(tmp_path):
    text = swapped(
        "  A: {task: a, peaks: a.bed}",
        "  A: &x {task: a, peaks: a.bed}\n  B: &y {<<: *x, task: b}\n  C: {<<: *y, task: c}",
    )
    assert [exposure.task for exposure in load(tmp_path, text).exposures.values()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("more", "key", "first", "second"),
    [
        ("model: {name: x}\n", "model", 1, 6),
        ("mr:\n  alpha: 0.1\n  alpha: 0.2\n", "alpha", 7, 8),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path, more, key, first, second):
    assert f"line {second}: key '{key}' stands already on line {first}" in fault(tmp_path, MINIMAL + more)


def test_an_exposure_called_3_and_one_called_3_in_quotes_are_the_same_twice(tmp_path):
    assert "key '3' stands already" in fault(tmp_path, swapped("  A: {", "  '3': {task: b, peaks: b}\n  3: {"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uncertanty: {draws: 5}", "line 6: uncertanty: unknown key 'uncertanty'. Did you mean 'uncertainty'?"),
        ("uncertainty: {drows: 5}", "line 6: uncertainty.drows: unknown key 'drows'. Did you mean 'draws'?"),
        ("uncertainty: {draws: 1}", "uncertainty.draws: 1 draw cannot give a standard error; use at least 2"),
        ("uncertainty: {draws: 0}", "0 draws cannot give a standard error"),
        ("uncertainty: {draws: 5.0}", "uncertainty.draws: expected a whole number, found 5.0"),
        ("uncertainty: {draws: '5'}", "expected a whole number, found the text '5'"),
        ("uncertainty: {draws: }", "expected a whole number, found nothing"),
        ("uncertainty: {draws: yes}", "expected a whole number, found true"),
        ("uncertainty: {shared_draws: 'yes'}", "expected true or false, found the text 'yes'"),
        ("uncertainty: {shared_draws: 1}", "expected true or false, found 1"),
        ("uncertainty: {seed: -1}", "uncertainty.seed: has to be greater than or equal to 0, found -1"),
        ("uncertainty: {method: mc_dropuot}", "Did you mean 'mc_dropout'? Allowed: mc_dropout, ensemble"),
        ("mutagenesis: {positions: [20, 10]}", "write all, or [start, end) as [20, 40]"),
        ("mutagenesis: {positions: [20, 20]}", "0 <= start < end; found [20, 20]"),
        ("mutagenesis: {positions: [20]}", "found [20]"),
        ("mutagenesis: {positions: [1.5, 3]}", "found [1.5, 3]"),
        ("mutagenesis: {positions: [no, yes]}", "found [False, True]"),
        ("mutagenesis: {positions: al}", "found 'al'"),
        ("mutagenesis: {memory: 2000}", "write a size such as 2GiB or 512MiB, or auto; found 2000"),
        ("mutagenesis: {memory: 0B}", "write a size such as 2GiB"),
        ("mr: {min_f: .nan}", "line 6: mr.min_f: expected a finite number, found nan"),
        ("mr: {min_f: .inf}", "expected a finite number, found inf"),
        ("mr: {min_f: yes}", "expected a number, found true"),
        ("mr: {min_f: '3'}", "expected a number, found the text '3'"),
        ("mr: {min_f: -1}", "has to be greater than or equal to 0, found -1"),
        ("mr: {alpha: .nan}", "expected a finite number"),
        ("mr: {alpha: 1}", "mr.alpha: has to be less than 1, found 1"),
        (
            "mr: {methods: [{name: x, estimator: cross_fitted_ivw, folds: 2}]}",
            "Allowed: a whole number from 3 to 10000",
        ),
        (
            "mr: {methods: [{name: x, estimator: weighted_mode, n_boot: 1}]}",
            "Allowed: a whole number from 2 to 1000000",
        ),
        ("mr: {methods: [{name: x, estimator: raps, psi: 1.1}]}", "a number from -1 to 1"),
        ("mr: {methods: [{name: x, estimator: cml, sample_size: 1}]}", "Allowed: a finite number above 1"),
        ("mr: {methods: egger}", "expected a list such as [a, b], found the text 'egger'"),
        ("mr: {methods: [eger]}", "line 6: mr.methods.0: the text 'eger' is not allowed. Did you mean 'egger'?"),
        ("mr: {methods: [egger, egger]}", "each method may be named once"),
        ("mr: {methods: []}", "mr.methods: expected at least one entry"),
        ("mr: {methods: [3]}", "expected the name of an estimator, or keys such as {name: ivw_t"),
        ("mr: {methods: [{name: x, estimator: iwv, model: fixed}]}", "Did you mean 'ivw'?"),
        ("mr: {methods: [{estimator: ivw, model: fixed}]}", "name: expected letters, digits and _"),
        ("mr: {methods: [{name: a b, estimator: ivw, model: fixed}]}", "found the text 'a b'"),
        (
            "mr: {methods: [{name: egger, estimator: ivw, model: fixed}]}",
            "'egger' is an estimator with its own options",
        ),
        ("mr: {methods: [{name: x, estimator: ivw}]}", "no option is given: write ivw alone"),
        ("mr: {methods: [{name: x, estimator: ivw, modle: fixed}]}", "unknown key 'modle'. Did you mean 'model'?"),
        (
            "mr: {methods: [{name: x, estimator: ivw, model: f}]}",
            "model: the text 'f' is not allowed. Allowed: default",
        ),
        ("mr: {methods: [{name: x, estimator: egger, psi: 0.2}]}", "psi: only weights: delta make use of it"),
        ("mr: {methods: [{name: x, estimator: ivw, psi: 2}]}", "psi: 2 is not allowed. Allowed: stored"),
        ("mr: {methods: [{name: x, estimator: ivw, robust: 1}]}", "robust: 1 is not allowed. Allowed: true, false"),
        (
            "mr: {methods: [ivw, {name: x, estimator: ivw, model: fixed}, {name: x, estimator: ivw, model: random}]}",
            "each method may be named once",
        ),
        ("controls: {permuted_exposure: -1}", "controls.permuted_exposure"),
        ("effects: {scale: logti}", "Did you mean 'logit'? Allowed: identity, logit, log"),
        ("effects: {scale: }", "nothing is not allowed. Allowed: identity, logit, log"),
        ("meta: {method: reml}", "Did you mean 'REML'?"),
        ("sequences: foo", "sequences: expected the keys per_exposure"),
        ("sequences: {chromosomes: [8, X]}", "chromosomes.0: expected text, found 8; write it in quotes: '8'"),
        ("sequences: {chromosomes: chr8}", "expected a list such as [a, b], found the text 'chr8'"),
        ("sequences: {chromosomes: []}", "expected at least one entry"),
        ("sequences: {chromosomes: ['']}", "'' cannot be a name: it is empty"),
        ("sequences: {min_prediction: .nan}", "sequences.min_prediction: expected a finite number"),
        ("sequences: {max_n_fraction: 1.5}", "less than or equal to 1, found 1.5"),
        ("dataloader: {fasta_file: x}", "unknown key 'fasta_file'. Did you mean 'fasta_arg'?"),
        ("dataloader: {args: {x: .nan}}", "dataloader.args: x: only text, finite numbers"),
        ("dataloader: {args: {x: 2020-01-01}}", "dataloader.args: x: only text, finite numbers"),
        ("dataloader: {args: &a {x: *a}}", "line 6: an alias stands inside of what it stands for"),
    ],
)
def test_an_error_names_the_key_and_what_is_allowed(tmp_path, text, expected):
    assert expected in fault(tmp_path, MINIMAL + text + "\n")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("peaks:", "peeks:", "line 3: exposures.A.peeks: unknown key 'peeks'. Did you mean 'peaks'?"),
        ("peaks: a.bed", "peaks: ''", "exposures.A.peaks: the text is empty"),
        ("peaks: a.bed", "peaks: [a.bed]", "exposures.A.peaks: expected text, found a list"),
        ("task: a,", "task: -1,", "exposures.A.task: expected a label or glob"),
        ("task: a,", "task: yes,", "found true"),
        ("task: a,", "task: '',", "found an empty text"),
        ("task: a,", "task: ,", "found nothing"),
        ("task: a,", "task: 3, occurrence: 1,", "line 3: exposures.A: task 3 is an index, which is unique"),
        ("task: a,", "task: a, occurrence: 0,", "occurrence: has to be greater than or equal to 1"),
        (
            "{task: d}",
            "yes",
            "line 5: outcomes.D: expected a label, an index or the keys task, occurrence, reduce, window; found true",
        ),
        ("{task: d}", "", "line 5: outcomes.D: expected a label, an index"),
        ("{task: d}", "{task: d, peaks: d.bed}", "line 5: outcomes.D.peaks: unknown key 'peaks'"),
        ("{name: m, source: dir}", "m", "line 1: model: expected the keys name, source; found the text 'm'"),
        ("{name: m, source: dir}", "{name: ''}", "line 1: model.name: the text is empty"),
        ("source: dir", "source: ''", "line 1: model.source: the text is empty"),
        (", peaks: a.bed", "", "line 3: exposures.A: no sequences for A: give each exposure `peaks`"),
        ("\n  A: {task: a, peaks: a.bed}", " {}", "line 2: exposures: expected at least one entry"),
    ],
)
def test_an_error_in_model_or_tasks_names_the_line(tmp_path, old, new, expected):
    assert expected in fault(tmp_path, swapped(old, new))


def test_peaks_and_one_bed_for_all_exclude_each_other(tmp_path):
    said = fault(tmp_path, MINIMAL + "sequences: {intervals: x.bed}\n")
    assert "line 6: sequences.intervals: both" in said and "(A)" in said


def test_all_faults_are_listed_at_once(tmp_path):
    said = fault(tmp_path, MINIMAL + "mr: {alpha: 3, mthods: 3}\nmeta: {method: X}\n")
    assert [line.strip().split(":")[0] for line in said.splitlines()[1:]] == ["line 6", "line 6", "line 7"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n\tname: m\n", "line 2, column 1: a tab stands where YAML wants spaces; indent with spaces"),
        ("model: {name: m\nmr: 3\n", "line 2, column 3: not valid YAML"),
        ("model: {name: m\nmr: 3\n", "that begins on line 1"),
        ("model: name: m\n", "line 1, column 12: not valid YAML"),
        (MINIMAL.replace("task: a", "task: *_None"), "line 3, column 13: not valid YAML: a text that begins with *"),
        (MINIMAL.replace("task: a", "task: **"), "a text that begins with * has to stand in quotes"),
        (MINIMAL + "mr: {alpha: \x07}\n", "line 6: the character '\\x07' is not allowed"),
        (MINIMAL + "---\nmr: {}\n", "line 6, column 1: not valid YAML"),
        (MINIMAL + "mr: !!python/object/apply:os.system ['true']\n", "line 6, column 5: not valid YAML"),
        (MINIMAL + "? [a, b]\n: 3\n", "unhashable key"),
        ("- a\n", "expected keys such as model, exposures and outcomes, found a list"),
        ("", "found nothing"),
        ("hello", "found the text 'hello'"),
    ],
)
def test_what_is_no_yaml_is_explained_with_its_place(tmp_path, text, expected):
    said = fault(tmp_path, text)
    assert expected in said and str(tmp_path / "study.yaml") in said


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(ConfigError, match=r"binary\.yaml: is not a text file in UTF-8"):
        load_config(tmp_path / "binary.yaml")


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t], ids=["crlf", "bom"])
def test_line_ends_and_byte_order_marks_of_other_systems_are_fine(tmp_path, change):
    assert load(tmp_path, change(MINIMAL)).canonical() == load(tmp_path, MINIMAL).canonical()


@pytest.mark.parametrize(
    ("written", "value"), [("1e-3", 1e-3), ("1E1", 10.0), ("2", 2.0), (".5e0", 0.5), ("0.25", 0.25)]
)
def test_numbers_may_have_an_exponent_without_a_point(tmp_path, written, value):
    assert load(tmp_path, MINIMAL + f"mr: {{min_f: {written}}}\n").mr.min_f == value


@pytest.mark.parametrize(
    ("size", "expected"),
    [("2GiB", 2**31), ("512 MiB", 2**29), ("1.5kib", 1536), ("2GB", 2 * 10**9), ("64B", 64), ("auto", None)],
)
def test_memory_is_given_as_a_size(tmp_path, size, expected):
    assert load(tmp_path, MINIMAL + f"mutagenesis: {{memory: {size}}}\n").mutagenesis.memory_bytes == expected


def test_positions_are_a_half_open_window(tmp_path):
    config = load(tmp_path, MINIMAL + "mutagenesis: {positions: [10, 20]}\n")
    assert config.mutagenesis.positions == (10, 20)
    assert parse_config(json.loads(config.canonical()), tmp_path).mutagenesis.positions == (10, 20)


def test_relative_paths_are_counted_from_the_file(tmp_path, monkeypatch):
    config = load(tmp_path, MINIMAL)
    monkeypatch.setenv("HOME", "/home/nobody")
    assert config.directory == tmp_path.resolve()
    assert config.resolve("peaks/a.bed") == tmp_path.resolve() / "peaks" / "a.bed"
    assert config.resolve("/data/a.bed") == Path("/data/a.bed")
    assert config.resolve("~/a.bed") == Path("/home/nobody/a.bed")


def test_the_digest_depends_on_the_settings_alone(tmp_path):
    reordered = "\n".join(["outcomes:\n  D: d", *MINIMAL.splitlines()[:3], "mr: {min_f: 0}  # the default"])
    args = "dataloader: {args: {%s}}\n"
    assert load(tmp_path, reordered).sha256() == load(tmp_path, MINIMAL).sha256()
    assert (
        load(tmp_path, MINIMAL + args % "a: 1, b: 2").sha256() == load(tmp_path, MINIMAL + args % "b: 2, a: 1").sha256()
    )
    assert load(tmp_path, MINIMAL + "mr: {min_f: 1}\n").sha256() != load(tmp_path, MINIMAL).sha256()


def test_the_digest_depends_on_the_order_of_exposures(tmp_path):
    first, second = "  A: {task: a, peaks: a.bed}\n", "  B: {task: b, peaks: b.bed}\n"
    one, other = (load(tmp_path, swapped(first, text)) for text in (first + second, second + first))
    assert one.sha256() != other.sha256()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 10**5),
    st.floats(0, 1e12),
    st.sampled_from(["identity", "logit", "log"]),
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.none() | st.integers() | st.text() | st.lists(st.booleans()), max_size=4
    ),
)
def test_the_canonical_dump_is_read_back_the_same(draws, min_f, scale, args):
    written = {
        "model": {"name": "m"},
        "dataloader": {"args": args},
        "exposures": {"A": {"task": "a", "peaks": "x"}, "B": {"task": 3, "peaks": "x"}},
        "outcomes": {"D": "d"},
        "uncertainty": {"draws": draws},
        "mr": {"min_f": min_f},
        "effects": {"scale": scale},
    }
    config = parse_config(written, Path.cwd())
    again = parse_config(json.loads(config.canonical()), Path.cwd())
    assert again == config and again.sha256() == config.sha256()
    assert "\n" not in config.canonical()


def test_a_config_cannot_be_changed(tmp_path):
    config = load(tmp_path, MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.mr.min_f = 3


def test_a_method_with_options_is_named_and_dumped_as_it_was_written(tmp_path):
    text = MINIMAL + "mr: {methods: [ivw, {name: ivw_t, estimator: ivw_delta, distribution: t-dist, psi: 0.5}]}\n"
    config = load(tmp_path, text)
    own = config.mr.methods[1]
    assert (own.name, own.estimator, own.options) == ("ivw_t", "ivw_delta", {"distribution": "t-dist", "psi": 0.5})
    dumped = json.loads(config.canonical())
    assert dumped["mr"]["methods"] == [
        "ivw",
        {"name": "ivw_t", "estimator": "ivw_delta", "distribution": "t-dist", "psi": 0.5},
    ]
    assert parse_config(dumped, tmp_path).canonical() == config.canonical()


def test_deep_nesting_is_explained(tmp_path):
    (tmp_path / "deep.yaml").write_text("model: " + "[" * 5000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_config(tmp_path / "deep.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sequences: {chromosomes: [010]}",
            "line 6: 010 without quotes is the number 8 to YAML: write '010' in quotes",
        ),
        ("exposures: {A: 1:30}", "1:30 without quotes is the number 90"),
        ("outcomes: {D: 007}", "007 without quotes is the number 7"),
        ("outcomes: {D: 0x1F}", "0x1F without quotes is the number 31"),
        ("mr: {min_f: 1:30.5}", "1:30.5 without quotes is the number 90.5"),
        ("sequences: {chromosomes: [on]}", "chromosomes.0: expected text, found true; write it in quotes: 'on'"),
        ("model: {name: 1e3}", "model.name: expected text, found 1000.0; write it in quotes: '1e3'"),
        ("sequences: {seed: 1e3}", "sequences.seed: expected a whole number, found 1000.0"),
    ],
)
def test_what_yaml_takes_for_a_number_is_shown(tmp_path, text, said):
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(text.split(":")[0])]
    if text.startswith(("exposures", "outcomes")):
        lines = [line for line in lines if not line.startswith("  " + text[text.index("{") + 1])]
    assert said in fault(tmp_path, "\n".join([*lines, text, ""]))


@pytest.mark.parametrize("name", ["on", "010", "1:30", "no", "null"])
def test_any_word_may_be_the_name_of_a_task(tmp_path, name):
    assert list(load(tmp_path, swapped("  A: ", f"  {name}: ")).exposures) == [name]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "its aliases stand for more than 100,000 values"),
        ('sequences: {intervals: "\\0"}', "line 6: the character '\\x00' is not allowed in a text"),
        ('sequences: {intervals: "\\ud800"}', "line 6: the character '\\ud800' is not allowed in a text"),
        ("uncertainty: {draws: " + "9" * 400 + "}", "line 6: the number 999999999999... has 400 digits"),
        ("uncertainty: {draws: 1" + "0" * 29 + "}", "uncertainty.draws: has to be less than or equal to 100000"),
        ("controls: {shuffled_sequence: 1000000}", "controls.shuffled_sequence: has to be less than or equal to 10000"),
        (
            "controls: {permuted_exposure: 1000000}",
            "controls.permuted_exposure: has to be less than or equal to 100000",
        ),
        ("sequences: {seed: 9223372036854775808}", "sequences.seed: has to be less than 9223372036854775808"),
        ("mr: {methods: [" + "x" * 10**5 + "]}", "is not allowed"),
    ],
)
def test_attacks_end_in_one_sentence(tmp_path, text, said):
    found = fault(tmp_path, MINIMAL + text + "\n")
    assert said in found and len(found) < 2500


def test_a_home_that_does_not_exist_is_named(tmp_path):
    config = load(tmp_path, swapped("a.bed", "~nosuchuser/a.bed"))
    with pytest.raises(ConfigError, match=r"~nosuchuser/a\.bed' is no path here: there is no such user"):
        config.resolve(config.exposures["A"].peaks)
    for path in ("~nosuchuser/study.yaml", "study\0.yaml"):
        with pytest.raises(ConfigError, match="is no path here"):
            load_config(path)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    path = tmp_path / "study.yaml"
    with path.open("wb") as handle:
        handle.truncate(2**24 + 1)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load_config(path)


@pytest.mark.parametrize("name", [" A ", "A\u200b", "\ufeffA", "A\u2060"])
def test_names_are_compared_without_what_cannot_be_seen(tmp_path, name):
    quoted = json.dumps(name)
    assert list(load(tmp_path, swapped("  A: ", f"  {quoted}: ")).exposures) == ["A"]
    both = swapped("outcomes:", f"  {quoted}: {{task: a, peaks: a.bed}}\noutcomes:")
    assert "are the same name" in fault(tmp_path, both)


def test_accents_are_compared_in_one_form(tmp_path):
    composed, apart = "\u00e9", "e\u0301"
    config = load(tmp_path, swapped("  A: {task: a,", f"  {apart}: {{task: {apart},"))
    assert list(config.exposures) == [composed] and config.exposures[composed].task == composed
