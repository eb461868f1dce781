"""What to look at beside an estimate: strength, heterogeneity, influence, outliers and direction of the instruments."""

from kipoi_deepmr.mr._strength import f_statistics, i2_gx, mean_f_statistic
from kipoi_deepmr.mr.diagnostics.heterogeneity import CochranQ, cochran_q
from kipoi_deepmr.mr.diagnostics.leave_one_out import LeaveOneOut, leave_one_out
from kipoi_deepmr.mr.diagnostics.presso import Presso, presso
from kipoi_deepmr.mr.diagnostics.rucker import RUCKER_MODELS, RuckerModel, RuckerQ, rucker, rucker_q
from kipoi_deepmr.mr.diagnostics.steiger import Steiger, SteigerFilter, steiger, steiger_filter

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
