"""A chain of hidden states by hand: the forward recursion, which sums them out one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STATES = 10


class Model(nn.Module):
    """Logits of the first state and of every next one, and what each state costs at each step."""

    def __init__(self, steps: int) -> None:
        """Start at random."""
        super().__init__()
        self.start = nn.Parameter(torch.randn(STATES))
        self.step = nn.Parameter(torch.randn(STATES, STATES))
        self.table = nn.Parameter(torch.randn(steps, STATES))


def expected(model: Model) -> Tensor:
    """Return the expected cost of all steps."""
    mass, step = model.start.softmax(-1), model.step.softmax(-1)
    total, *rest = model.table.unbind()
    total = mass @ total
    for cost in rest:
        mass = mass @ step
        total = total + mass @ cost
    return total
