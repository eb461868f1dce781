"""The scale on which effects are measured."""

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["identity", "logit", "log"]

_LIMIT = float(torch.finfo(torch.float32).eps)


def transform(prediction: Tensor, scale: Scale) -> Tensor:
    """Put predictions on the scale of the effects.

    Parameters
    ----------
    prediction : torch.Tensor
        Outputs of the model.
    scale
        ``identity``; ``logit``: log(p / (1 - p)), with p kept within 1.2e-7 (the resolution of float32) of 0 and 1, so
        that a saturated probability stays finite; ``log``: natural logarithm.

    Returns
    -------
    torch.Tensor
        Same shape, in the precision of `prediction`. NaN where a value is outside the domain of the scale: below 0
        or above 1 for logit, 0 or below for log.
    """
    if scale == "identity":
        return prediction
    if scale == "log":
        return torch.where(prediction > 0, prediction, torch.nan).log()
    inside = (prediction >= 0) & (prediction <= 1)
    return torch.where(inside, prediction, torch.nan).clamp(_LIMIT, 1 - _LIMIT).logit()


DOMAINS = {"identity": "finite numbers", "logit": "probabilities from 0 to 1", "log": "numbers above 0"}
