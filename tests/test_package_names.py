"""One name means one thing in the whole package."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import kipoi_deepmr
from kipoi_deepmr import terms

PACKAGE = Path(kipoi_deepmr.__file__).parent
MODULES = [found.name for found in pkgutil.walk_packages(kipoi_deepmr.__path__, "kipoi_deepmr.")]


def test_no_function_shadows_its_module():
    loaded = {name: importlib.import_module(name) for name in MODULES}
    homes = [(*name.rpartition(".")[::2], name) for name in MODULES]
    shadowed = [
        name
        for room, short, name in homes
        if not isinstance(getattr(loaded.get(room, kipoi_deepmr), short), ModuleType)
    ]
    assert not shadowed


def test_no_module_takes_the_name_of_a_public_function():
    assert not {name.removeprefix("kipoi_deepmr.") for name in MODULES} & set(kipoi_deepmr._HOME_OF)


def test_the_bases_stand_in_one_place():
    order = "".join(terms.ALLELES)
    written = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if not re.search("ACGT|TGCA|['\"]A['\"]", path.read_text(), re.IGNORECASE):
            continue
        tree = ast.parse(path.read_text())
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            texts = [node.value] if isinstance(node, ast.Constant) and node not in docs else []
            if isinstance(node, ast.Tuple | ast.List):
                texts = ["".join(str(one.value) for one in node.elts if isinstance(one, ast.Constant))]
            if any(isinstance(text, str) and text.upper() in (order, order[::-1]) for text in texts):
                written.setdefault(path.relative_to(PACKAGE).as_posix(), []).append(node.lineno)
    assert set(written) == {"terms.py"}, written
