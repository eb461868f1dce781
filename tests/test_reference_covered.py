"""Every call that the reference holds is listed under the test that compares it: a new one must not go unnoticed."""

import re
from pathlib import Path

import pytest

from tests.reference_numbers import load, names, sources

LIST = Path(__file__).parent / "reference_calls.txt"
NOT_COMPARED = "not compared: "


def listed() -> dict[str, str]:
    """Return the heading that every call, "package: key", stands under."""
    found, heading = {}, ""
    for line in LIST.read_text().splitlines():
        if match := re.fullmatch(r"\[(.*)\]", line):
            heading = match[1]
        elif line and not line.startswith("#"):
            assert line not in found, f"{line} is listed twice"
            found[line] = heading
    return found


CALLS = listed()


@pytest.mark.parametrize(("source", "name"), sources(""))
def test_every_call_is_listed(source: str, name: str) -> None:
    unknown = [
        call for record in load(source, name).records if (call := f"{record.package}: {record.key}") not in CALLS
    ]
    assert not unknown, f"neither compared nor listed in {LIST.name}"


@pytest.mark.parametrize("heading", sorted(set(CALLS.values())))
def test_a_heading_is_a_reason_or_the_test_that_names_the_functions(heading: str) -> None:
    if heading.startswith(NOT_COMPARED):
        return
    text = (Path(__file__).parent / heading).read_text()
    for call in (call for call, under in CALLS.items() if under == heading):
        package, key = call.split(": ", 1)
        function = re.sub(r"\(.*", "", key).removeprefix("correl:")
        assert function in text or package in text, call


def test_no_data_set_has_another_kind_of_name() -> None:
    kinds = ("mr_", "mv_", "meta_")
    for source in ("committed", "full"):
        assert all(name.startswith(kinds) for name in names(source, ""))
