"""The README as tests read it; `python -m tests.readme` writes its table of estimators anew."""

import re
from pathlib import Path

from kipoi_deepmr.estimators import ESTIMATORS, Estimator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def marked_block(name: str) -> str:
    """Return the fenced block after a comment such as ``<!-- ci: example -->``."""
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no block after <!-- {name} -->"
    return found[1].strip()


def table_of_estimators() -> str:
    """Return the lines of the README's table from `kipoi_deepmr.estimators`."""
    head = ["| name | estimator | needs | when |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *(f"| `{e.name}` | {e.title} | {_needs(e)} | {e.advice} |" for e in ESTIMATORS.values())])


def _needs(estimator: Estimator) -> str:
    needs = {
        f"{estimator.fewest} instrument{'s' if estimator.fewest > 1 else ''}": True,
        "every draw": estimator.draws,
        "all exposures": estimator.joint,
        "errors of the mean": estimator.of_the_mean and not estimator.draws,
        "`min_f`": estimator.outvoted,
    }
    return ", ".join(need for need, asked in needs.items() if asked)


if __name__ == "__main__":
    old = re.compile(r"^\| name \| estimator \|.*?(?=\n\n)", re.MULTILINE | re.DOTALL)
    (ROOT / "README.md").write_text(old.sub(lambda _: table_of_estimators(), README), encoding="utf-8")
