"""The zarr store: template, writes by region, completion mask, estimates, open."""

from kipoi_deepmr.cube.estimates import open_results, write_estimates
from kipoi_deepmr.cube.failures import explained
from kipoi_deepmr.cube.folders import check_readable, check_replaceable
from kipoi_deepmr.cube.groups import (
    CONTROLS_GROUP,
    DRAWN_GROUP,
    EFFECTS_GROUP,
    GLOBAL_GROUP,
    LOCAL_GROUP,
    REVERSE_GROUP,
)
from kipoi_deepmr.cube.lock import locked
from kipoi_deepmr.cube.template import Drawn, Template
from kipoi_deepmr.cube.writing import Cube

__all__ = [
    "CONTROLS_GROUP",
    "DRAWN_GROUP",
    "EFFECTS_GROUP",
    "GLOBAL_GROUP",
    "LOCAL_GROUP",
    "REVERSE_GROUP",
    "Cube",
    "Drawn",
    "Template",
    "check_readable",
    "check_replaceable",
    "explained",
    "locked",
    "open_results",
    "write_estimates",
]
