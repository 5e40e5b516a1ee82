"""Differentiable paths: what stops the gradient between a value and a cost, written out with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Gamma, Normal, Uniform

import scg
from scg.analysis.facts import gather


def normal() -> scg.Graph:
    g = scg.Graph()
    g.sample("z", Normal, g.param("t", torch.zeros(3)), 1.0)
    return g


def obstacle(g: scg.Graph, name: str = "z") -> str | None:
    ir = g.freeze()
    return gather(ir, ir.store.examples).obstacle(name)


SMOOTH: dict[str, Callable[[], Callable[..., Any]]] = {
    "square": lambda: lambda z: (z**2).sum(),
    "relu": lambda: lambda z: z.relu().sum(),
    "sorted": lambda: lambda z: z.sort().values[0],
    "mlp": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
}
BROKEN: dict[str, Callable[..., Any]] = {
    "step": lambda z: (z > 0).float().sum(),
    "round": lambda z: z.round().sum(),
    "detach": lambda z: z.detach().square().sum(),
    "numpy": lambda z: torch.as_tensor(np.sin(z.detach().numpy()).sum()),
    "argmax": lambda z: z.argmax().float() + z.sum(),
    "straight through": lambda z: (z.sign() - z.detach() + z).sum(),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_paths_have_no_obstacle(name: str) -> None:
    g = normal()
    g.cost("c", g.det("h", SMOOTH[name](), g["z"]).sum())
    assert obstacle(g) is None


@pytest.mark.parametrize("name", BROKEN)
def test_a_break_is_shown_with_its_path_and_reason(name: str) -> None:
    g = normal()
    g.cost("c", g.det("h", BROKEN[name], g["z"]) * 2.0)
    found = obstacle(g)
    assert found is not None
    assert found.startswith("the path z -> h -> mul_1 -> c is not differentiable (h: "), found


def test_a_declaration_is_believed() -> None:
    g = normal()
    g.cost("c", g.det("h", lambda z: (z > 0).float().sum(), g["z"], differentiable=True))
    assert obstacle(g) is None
    g = normal()
    g.cost("c", g.det("h", lambda z: (z**2).sum(), g["z"], differentiable=False))
    assert "(h: declared differentiable=False)" in str(obstacle(g))


def test_what_is_not_known_says_how_to_declare_it() -> None:
    g = normal()
    g.cost("c", g.det("h", lambda z: z.sum() if bool(z.sum() > 1e6) else z.square().sum(), g["z"]))
    found = obstacle(g)
    assert found is not None
    assert "is not known to be differentiable (h: " in found
    assert "declare 'h' with differentiable=True if you know that it is" in found


def test_an_edge_that_leads_to_no_cost_does_not_matter() -> None:
    g = normal()
    g.det("h", lambda z: z > 0, g["z"])
    g.cost("c", g["z"].sum())
    assert obstacle(g) is None


def test_a_path_ends_at_the_next_sample() -> None:
    """z -> y -> step: the step stops y, and z only if its own derivative has to pass it."""
    g = normal()
    g.sample("y", Normal, g["z"], 1.0)
    g.cost("c", g.det("h", lambda y: (y > 0).float().sum(), g["y"]))
    assert "the path y -> h -> c" in str(obstacle(g, "y"))
    assert obstacle(g, "z") is None


def test_a_second_path_is_looked_at_as_well() -> None:
    g = normal()
    g.cost("c", g["z"].sum())
    g.cost("d", torch.sign(g["z"]).sum())
    assert "the path z -> sign_1 -> sum_2 -> d is not differentiable (sign_1: " in str(obstacle(g))


def test_the_parameters_of_a_discrete_sample_are_smooth() -> None:
    g = normal()
    g.sample("b", Bernoulli, logits=g["z"])
    g.cost("c", g["b"].sum())
    assert obstacle(g) is None
    g = normal()
    g.sample("b", Bernoulli, logits=torch.sign(g["z"]))
    g.cost("c", g["b"].sum())
    assert "sign_1 -> b is not differentiable" in str(obstacle(g))


def test_the_log_probability_of_a_discrete_law_is_not_smooth_in_its_value() -> None:
    g = normal()
    g.cost("c", g.log_prob(Bernoulli, torch.sigmoid(g["z"]), logits=torch.zeros(3)))
    found = obstacle(g)
    assert found is not None and "the log-probability of a Bernoulli at a continuous value" in found


@pytest.mark.parametrize("given", ["value", "parameter"])
def test_normal_log_probabilities_are_smooth_in_everything(given: str) -> None:
    g = normal()
    if given == "value":
        g.cost("c", g.log_prob(Normal, g["z"], loc=torch.zeros(3), scale=2.0))
    else:
        g.cost("c", g.log_prob(Normal, torch.zeros(3), loc=g["z"], scale=2.0))
    g.cost("d", g.log_prob(g["z"]))
    assert obstacle(g) is None


def test_a_density_that_ends_inside_the_support_of_its_value_is_not_known() -> None:
    g = normal()
    g.cost("c", g.log_prob(Uniform, g["z"], -5.0, 5.0))
    assert "the density of a Uniform ends where its support does" in str(obstacle(g))


@pytest.mark.parametrize(
    ("law", "parameters"), [(Gamma, (2.0, 1.0)), (Beta, (2.0, 3.0))], ids=["Gamma", "Beta"]
)
def test_a_density_on_the_support_of_its_own_law_is_smooth(law: Any, parameters: tuple[float, ...]) -> None:
    g = scg.Graph()
    g.sample("z", law, g.param("a", 2.0), parameters[1])
    g.cost("c", g.log_prob(law, g["z"], *parameters))
    assert obstacle(g) is None


def test_several_results_are_judged_together() -> None:
    g = normal()
    left, _ = g.det(("left", "right"), lambda z: (z**2, z.sign()), g["z"])
    g.cost("c", left.sum())
    assert "left_right" in str(obstacle(g))


def test_long_paths_are_shortened() -> None:
    g = normal()
    node = g["z"]
    for index in range(20):
        node = g.det(f"h{index}", torch.tanh, node)
    g.cost("c", torch.sign(node).sum())
    assert "the path z -> h0 -> h1 -> h2 -> ... -> h19 -> sign_1 -> sum_1 -> c is" in str(obstacle(g))


def test_only_parents_that_carry_the_value_matter() -> None:
    """A step in an input next to the value is no obstacle."""

    def gated(z: Tensor, x: Tensor) -> Tensor:
        return (z * (x > 0)).sum()

    g = normal()
    g.cost("c", g.det("h", gated, g["z"], g.input("x", example=torch.tensor([-1.0, 0.5, 2.0]))))
    assert obstacle(g) is None
