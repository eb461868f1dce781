"""A Kipoi model behind one protocol: where its sequence sits, its outputs by unique names, its torch network."""

from kipoi_deepmr.model.function import PredictFunction
from kipoi_deepmr.model.kipoi_model import KipoiModel
from kipoi_deepmr.model.layout import Layout, find_layout
from kipoi_deepmr.model.loading import load_model
from kipoi_deepmr.model.network import (
    Disagreement,
    InputBatch,
    SequenceNetwork,
    check_agreement,
    float_dtype,
    lent,
    other_inputs,
    sequence_dtype,
    to_batch,
    weights_digest,
)
from kipoi_deepmr.model.outputs import Outputs, Reduction
from kipoi_deepmr.model.targets import Selection, Target, Targets, select

__all__ = [
    "Disagreement",
    "InputBatch",
    "KipoiModel",
    "Layout",
    "Outputs",
    "PredictFunction",
    "Reduction",
    "Selection",
    "SequenceNetwork",
    "Target",
    "Targets",
    "check_agreement",
    "find_layout",
    "float_dtype",
    "lent",
    "load_model",
    "other_inputs",
    "select",
    "sequence_dtype",
    "to_batch",
    "weights_digest",
]
