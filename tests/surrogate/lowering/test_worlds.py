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


def test_a_function_sees_in_full_what_repeats_beside_what_does_not() -> None:
    """An outcome that is the same for all elements, joined to numbers of their own."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.tensor([0.3, -0.8, 0.5]))
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.3), plates="batch")
    joined = g.det("joined", lambda b, y: torch.stack([b, y], -1), b, b + x)
    g.cost("c", (joined.sum(-1) - 0.4) ** 2)
    program = scg.compile(g, "enumerate")
    program(x=torch.tensor([0.3, -0.8, 0.5]), seed=0).loss.backward()
    assert torch.allclose(program.w.grad, scg.exact_gradient(g)["w"])
