"""What all tests share.

How tests import each other's helpers: ``from tests.toy_models import ...``. The configuration of pytest puts the root
of the repository first on ``sys.path`` and ``tests`` is a package, so the name means this folder in a checkout, in an
editable install and in CI, although pyranges installs a top-level package of the same name beside Kipoi. A folder below
``tests`` whose modules are imported like that needs an ``__init__.py``.
"""

import logging

import pytest
import torch

# Tiny networks: threads would only get into each other's way.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def messages_reach_caplog() -> None:
    """Undo what a command, or a fixture that ran one, did to the package's logger."""
    logger = logging.getLogger("kipoi_deepmr")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
