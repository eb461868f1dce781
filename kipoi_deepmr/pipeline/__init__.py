"""All stages together: prepare, run, resume, re-estimate, check."""

from kipoi_deepmr.pipeline.bench import bench
from kipoi_deepmr.pipeline.check import check
from kipoi_deepmr.pipeline.estimate import estimate_store
from kipoi_deepmr.pipeline.prepare import Job, prepare
from kipoi_deepmr.pipeline.run import re_estimate, run

__all__ = ["Job", "bench", "check", "estimate_store", "prepare", "re_estimate", "run"]
