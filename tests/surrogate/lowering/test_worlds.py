"""Worlds: what evaluates the graph once more leaves what functions remember as it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg


class Calls(nn.Module):
    """Counts how often it is called, in a buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, value: Tensor) -> Tensor:
        self.count += 1
        return value


def test_branches_leave_what_captured_modules_remember() -> None:
    calls, g = Calls(), scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.3))
    g.cost("c", lambda b: (calls(b) - 0.3) ** 2, b)
    program = scg.compile(g, "enumerate")
    before = float(calls.count)
    program(seed=0).loss.backward()
    assert float(calls.count) == before + 1
