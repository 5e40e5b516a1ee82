"""Draws: gradients of many runs are found in one call, whatever a law makes of its noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Gamma, OneHotCategorical

import scg
from scg.verification.draws import drawer
from scg.verification.trial import trial

LAWS: dict[str, Callable[[Tensor], Distribution]] = {
    "one-hot": lambda h: OneHotCategorical(logits=torch.stack([h, -h, 0 * h], -1)),
    "categorical": lambda h: Categorical(logits=torch.stack([h, -h, 0 * h], -1)),
    "bernoulli": lambda h: Bernoulli(logits=h),
}


@pytest.mark.parametrize("name", LAWS)
def test_runs_are_batched(name: str) -> None:
    g = scg.Graph()
    a = g.sample("a", Bernoulli, probs=0.5)
    z = g.sample("z", LAWS[name], g.param("w", torch.tensor(0.4, dtype=torch.float64)) * (a - 0.3))
    g.cost("c", lambda z: (z.double().cumsum(-1) - 0.3).square().sum(), z)
    program = scg.compile(g, "score")
    several = [program.draw_noise(seed) for seed in range(4)]
    noise = {name: torch.stack([one[name] for one in several]) for name in several[0]}
    draw = drawer(program, {}, ["w"], noise)
    assert draw.is_batched
    for seed, found in enumerate(draw(noise)):
        program.zero_grad()
        program(noise=several[seed]).loss.backward()
        torch.testing.assert_close(found[0], program.w.grad)


def test_values_are_drawn_for_the_plates_of_the_inputs() -> None:
    """What is known of a graph comes from larger plates, where an example has one element."""
    g = scg.Graph()
    x = g.input("x", torch.tensor([0.3], dtype=torch.float64), plates="batch")
    rate = g.det("rate", lambda x, w: torch.exp(x * w), x, g.param("w", torch.tensor(0.4).double()))
    g.cost("c", (g.sample("z", Gamma, 2.0, rate) - 0.3) ** 2)
    program = scg.compile(g, "reparam")
    for size in (1, 3):
        given = {"x": torch.linspace(0.1, 0.5, size, dtype=torch.float64)}
        case = trial(program, given, ["w"], 0)
        assert case.draw(5).noise["z"].shape == (5, size)
