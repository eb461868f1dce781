"""What all tests share.

How tests import each other's helpers: ``from tests.toy_models import ...``. The configuration of pytest puts the root
of the repository first on ``sys.path`` and ``tests`` is a package, so the name means this folder in a checkout, in an
editable install and in CI, although pyranges installs a top-level package of the same name beside Kipoi. A folder below
``tests`` whose modules are imported like that needs an ``__init__.py``.
"""

import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.readme import ROOT, marked_block

# Tiny networks: threads would only get into each other's way.
torch.set_num_threads(1)


SLOW = Path(__file__).with_name("slow.txt").read_text().split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what slow.txt names, a file or a test, and what installs, runs an example or measures."""
    for item in items:
        name = item.nodeid.removeprefix("tests/").partition("[")[0]
        marked = any(item.get_closest_marker(kind) for kind in ("install", "example", "benchmark"))
        if marked or name in SLOW or name.partition("::")[0] in SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def messages_reach_caplog() -> None:
    """Undo what a command, or a fixture that ran one, did to the package's logger."""
    logger = logging.getLogger("kipoi_deepmr")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the README's main command prints, and the store that it writes."""
    install, command = marked_block("ci: example").rsplit(" && ", 1)
    assert install == 'python3 -m venv .venv && .venv/bin/pip install "torch==2.13.0" .'
    words = shlex.split(command)
    assert words[:3] == [".venv/bin/kipoi", "deepmr", "run"]
    words[0] = str(Path(sys.executable).with_name("kipoi"))
    output = tmp_path_factory.mktemp("example") / words[-1]
    words[-1] = str(output)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout, output
