"""A default is what the docstring says: every option of the statistics names its own, or the function that does."""

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kipoi_deepmr import effects, instruments, meta, mr
from kipoi_deepmr.mr import diagnostics

ROOMS = {"mr": mr, "diagnostics": diagnostics, "meta": meta}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{room}.{name}": getattr(module, name)
    for room, module in ROOMS.items()
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
# Said in words: all instruments.
WORDS = {"by default all": True, "by default all that are not NaN": True}


def parameters(function: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """Return for every documented parameter its type, and the text below it."""
    section = re.search(r"Parameters\n-+\n(.*?)\n\n[A-Z][a-z]+\n-+\n", inspect.getdoc(function) or "", re.S)
    assert section, f"{function.__name__} documents no parameters"
    entries = re.findall(r"^(\w[\w, ]*?)(?: : (.*))?\n((?:    .*\n?)+)", section[1] + "\n", re.M)
    return {name: (kind, " ".join(text.split())) for names, kind, text in entries for name in names.split(", ")}


def documented_default(function: Callable[..., Any], name: str) -> Any:
    kind, text = parameters(function)[name]
    if match := re.search(r", default (.+)$", kind):
        return ast.literal_eval(match[1])
    if match := re.search(r"As in `(\w+)`", text):
        rooms = [module for module in ROOMS.values() if hasattr(module, match[1])]
        return documented_default(getattr(rooms[0], match[1]), name)
    assert kind.endswith(", optional"), f"{function.__name__}: {name} has a default that the docstring does not tell"
    said = [value for words, value in WORDS.items() if text.rstrip(".").endswith(words)]
    return said[0] if said else None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_has_the_default_that_it_tells(name: str) -> None:
    function = FUNCTIONS[name]
    options = {
        option.name: option.default
        for option in inspect.signature(function).parameters.values()
        if option.default is not inspect.Parameter.empty
    }
    assert {option: documented_default(function, option) for option in options} == options
    # A number must not turn into another type that compares equal.
    for option, default in options.items():
        assert isinstance(documented_default(function, option), bool) == isinstance(default, bool), option


def test_there_are_as_many_as_it_seems() -> None:
    assert len(FUNCTIONS) > 35
    assert documented_default(mr.simple_mode, "n_boot") == documented_default(mr.simple_median, "n_boot") == 1000
    assert documented_default(mr.weighted_median, "alpha") == 0.05


def test_defaults_of_instruments_and_effects() -> None:
    # "Default 0: all mutations."
    assert instruments.select([0.0, 1e-9], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]).n_weak == 0
    # The published method: the SD over draws.
    draws = np.array([1.0, 2.0, 3.0, 6.0])
    found = effects.Moments(1)
    for value in draws:
        found.add(np.array([[value, -value]]))
    made = effects.from_moments(found.mean, found.squares, found.cross, found.draws)
    np.testing.assert_allclose([made.exposure_se[0, 0], made.outcome_se[0, 0]], draws.std(), rtol=1e-12)
