"""What to look at beside an estimate: strength, heterogeneity, influence, outliers and direction of the instruments."""

from kipoi_deepmr.mr.core.strength import f_statistics, i2_gx, mean_f_statistic
from kipoi_deepmr.mr.diagnostics.direction import Steiger, SteigerFilter, steiger, steiger_filter
from kipoi_deepmr.mr.diagnostics.heterogeneity import CochranQ, cochran_q
from kipoi_deepmr.mr.diagnostics.influence import LeaveOneOut, leave_one_out
from kipoi_deepmr.mr.diagnostics.outliers import Presso, presso
from kipoi_deepmr.mr.diagnostics.rucker_framework import RUCKER_MODELS, RuckerModel, RuckerQ, rucker, rucker_q

__all__ = [
    "RUCKER_MODELS",
    "CochranQ",
    "LeaveOneOut",
    "Presso",
    "RuckerModel",
    "RuckerQ",
    "Steiger",
    "SteigerFilter",
    "cochran_q",
    "f_statistics",
    "i2_gx",
    "leave_one_out",
    "mean_f_statistic",
    "presso",
    "rucker",
    "rucker_q",
    "steiger",
    "steiger_filter",
]
