"""Chances: the probability of success of a Bernoulli, or of the trials of a count, and its slope."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scg.estimators.protocol.site import Parameters


class Chance(NamedTuple):
    """The probabilities of ``success`` and ``failure``, and the ``slope`` of the first in what is given."""

    success: Tensor
    failure: Tensor
    slope: Tensor


def chance(parameters: Parameters) -> Chance:
    """Return the chance that probs or logits give, without cancellation.

    >>> chance({"logits": torch.tensor(0.0)}).slope
    tensor(0.2500)
    """
    if "probs" in parameters:
        probs = parameters["probs"]
        return Chance(probs, 1 - probs, torch.ones_like(probs))
    logits = parameters["logits"]
    success, failure = torch.sigmoid(logits), torch.sigmoid(-logits)
    return Chance(success, failure, success * failure)
