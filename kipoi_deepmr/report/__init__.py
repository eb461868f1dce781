"""One self-contained HTML page of a store, to read, print and send."""

from kipoi_deepmr.errors import DependencyError

try:
    import jinja2  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError("reports need jinja2: pip install 'kipoi_deepmr[plots]'") from error

from kipoi_deepmr.report.page import render, write_report

__all__ = ["render", "write_report"]
