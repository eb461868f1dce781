"""One spelling for each thing in all commands, and a word for who spells it otherwise."""

import argparse
import inspect
import itertools

import pytest

import kipoi_deepmr
from kipoi_deepmr import cli

PARSER = cli._parser("kipoi deepmr")
COMMANDS = next(action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)).choices
ACTIONS = [(name, action) for name, parser in COMMANDS.items() for action in parser._actions]
# A figure shows one of each; init writes to the terminal without --output and may take a network instead of a MODEL.
ONE = {("plot", dest) for dest in ("exposure", "outcome", "sequence")}
OPTIONAL = {("init", "output"), ("init", "model")}


def test_the_same_thing_is_spelled_and_shown_alike_in_every_command():
    for (command, first), (another, second) in itertools.combinations(ACTIONS, 2):
        if first.dest != second.dest:
            continue
        where = f"{first.dest} of {command} and {another}"
        assert first.option_strings == second.option_strings, where
        assert (first.type, first.choices) == (second.type, second.choices), where
        # What is written tells the kind of file.
        assert first.metavar == second.metavar or first.dest == "output", where
        if not {(command, first.dest), (another, second.dest)} & (ONE | OPTIONAL):
            told = [(action.nargs, action.default, action.required) for action in (first, second)]
            assert told[0] == told[1], where


def test_words_are_joined_by_either_sign():
    for command, action in ACTIONS:
        for option in action.option_strings:
            if option.startswith("--") and not option.startswith("--no-"):
                spellings = {f"--{option[2:].replace(one, other)}" for one, other in ("-_", "_-")}
                assert spellings <= set(action.option_strings), (command, option)


def test_names_of_python_are_those_of_the_command_line():
    for function, command in ((kipoi_deepmr.write_report, "report"), (kipoi_deepmr.export, "export")):
        known = {action.dest for action in COMMANDS[command]._actions}
        keywords = [p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
        assert set(keywords) - known <= {"compress", "progress"}, keywords


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["report", "s", "-o", "h", "--exposures", "FOXA1"], "--exposure"),
        (["report", "s", "-o", "h", "--method", "ivw"], "--estimator"),
        (["plot", "s", "-o", "f", "--kind", "forest", "--method=ivw"], "--estimator"),
        (["init", "M", "--outcomes=DNase"], "--outcome"),
        (["mr", "s", "--minf", "10"], "--min_f"),
        (["export", "s", "-o", "d", "--fromat", "vcf"], "--format"),
    ],
)
def test_an_old_or_wrong_option_is_told_the_right_one(capsys, argv, meant):
    assert cli.main(argv, prog="kipoi deepmr") == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"usage: kipoi deepmr {argv[0]}")
    assert f"Did you mean '{meant}'?" in shown.splitlines()[-1]


@pytest.mark.parametrize("argv", [["mr", "s", "--xyz"], ["report", "s"]])
def test_nothing_is_guessed_where_nothing_is_near(capsys, argv):
    assert cli.main(argv) == 2
    assert "Did you mean" not in capsys.readouterr().err
