"""What contributors are told is there."""

import re

import pytest

from tests.conftest import SLOW
from tests.readme import ROOT

GUIDE = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
TO_COME = {"distributed.py"}
PATHS = sorted(set(re.findall(r"`([\w./*]+(?:/|\.(?:py|txt|md|j2|toml)))`", GUIDE)) - TO_COME)


@pytest.mark.parametrize("path", PATHS)
def test_every_file_that_is_named_is_there(path):
    path = path.replace("NAME", "*").replace("COMMAND", "*")
    assert any(
        True for folder in (ROOT, ROOT / "kipoi_deepmr", ROOT / "kipoi_deepmr/mutagenesis") for _ in folder.glob(path)
    )


def test_every_room_is_named():
    house = [path for path in (ROOT / "kipoi_deepmr").iterdir() if path.suffix == ".py" or any(path.glob("**/*.py"))]
    rooms = {path.name for path in house if not path.name.startswith("_")}
    shown = {room for room in rooms if re.search(rf"`(?:\w+/)*{re.escape(room)}\b", GUIDE)}
    assert rooms - shown <= {"errors.py", "instruments.py", "reading.py", "registration", "seeds.py"}


def test_what_is_called_slow_is_there():
    for name in SLOW:
        file, _, function = name.partition("::")
        assert not function or f"def {function}(" in (ROOT / "tests" / file).read_text(), name
        assert (ROOT / "tests" / file).is_file(), name
