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


def step(z: Tensor, gate: Tensor) -> Tensor:
    return (z + gate * (z > 0)).sum()


class Zero(nn.Module):
    """Something wrong behind a weight that starts at 0."""

    def __init__(self, wrong: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.wrong = nn.Parameter(torch.zeros(())), wrong

    def forward(self, z: Tensor) -> Tensor:
        return (z + self.weight * self.wrong(z)).sum()


def gated(kind: str, fn: Callable[[Tensor, Tensor], Tensor]) -> scg.Graph:
    g = normal()
    if kind == "input":
        gate = g.input("x", example=torch.zeros(()))
    elif kind == "mask":
        gate = g.input("x", example=torch.zeros(3, dtype=torch.bool))
    elif kind == "parameter":
        gate = g.param("a", torch.zeros(()))
    elif kind == "sample":
        gate = g.sample("b", Bernoulli, probs=torch.tensor(1e-6))
    elif kind == "several samples":
        draws = [g.sample(f"b{i}", Bernoulli, probs=torch.tensor(1e-6)) for i in range(3)]
        g.cost("c", g.det("h", lambda z, a, b, c: fn(z, a * b * c), g["z"], *draws))
        return g
    elif kind == "low-rank layer":
        layer = nn.Linear(3, 1)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        gate = g.det("gate", layer, g.input("x", example=torch.zeros(3)))
    else:
        captured = nn.Parameter(torch.zeros(()))
        g.cost("c", g.det("h", lambda z: fn(z, captured), g["z"]))
        return g
    g.cost("c", g.det("h", fn, g["z"], gate))
    return g


GATES = ["input", "mask", "parameter", "sample", "several samples", "low-rank layer", "captured"]
SLEEPING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "step": step,
    "round": lambda z, gate: (z + gate * z.round()).sum(),
    "detach": lambda z, gate: (z + gate * z.detach()).sum(),
    "Python branch": lambda z, gate: z.sum() + gate.sum() * (1.0 if bool(z.sum() > 0) else 0.0),
    "Python number": lambda z, gate: z.sum() + gate.sum() * (1.0 if z.sum().item() > 0 else 0.0),
    "index": lambda z, gate: z.sum() + gate.sum() * z.argmax(),
    "cut by atan2": lambda z, gate: z.sum() + (gate * torch.atan2(z, z.flip(0))).sum(),
}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("wrong", SLEEPING)
def test_a_gate_of_0_hides_no_break(kind: str, wrong: str) -> None:
    assert obstacle(gated(kind, SLEEPING[wrong])) is not None


@pytest.mark.parametrize("kind", GATES)
def test_what_is_smooth_stays_so_behind_a_gate_of_0(kind: str) -> None:
    for fn in (lambda z, gate: (z + gate * z.relu()).sum(), lambda z, gate: (gate * z.where(z > 0, 0)).sum()):
        assert obstacle(gated(kind, fn)) is None


def test_a_weight_of_0_hides_no_break_and_keeps_its_version() -> None:
    module = Zero(lambda z: (z > 0).float())
    pending = module(torch.ones(3)) * 2
    storage, version = module.weight.data_ptr(), module.weight._version
    g = normal()
    g.cost("c", g.det("h", module, g["z"]))
    assert "jumps" in str(obstacle(g))
    assert (module.weight.data_ptr(), module.weight._version) == (storage, version)
    assert module.weight.item() == 0
    pending.backward()
    assert module.weight.grad == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "fn",
    [
        lambda z: torch.where(z < 0.1, torch.full_like(z, -0.7), torch.full_like(z, 0.6)),
        lambda z: z * torch.sigmoid(2 * z).detach(),
        lambda z: torch.nan_to_num(torch.log(z), nan=-1.0).clamp(-3, 3),
    ],
)
def test_a_gate_that_opens_far_off_for_few_elements_hides_no_break(
    fn: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for outer in (lambda gate, z: 0.3 * z + gate * fn(z), lambda gate, z: fn(gate * z + 0.05)):
        g = scg.Graph()
        x = g.input("x", plates="batch", example=torch.ones(4, dtype=dtype))
        one = g.input("one", plates="batch", example=torch.ones(4, dtype=dtype))
        z = g.sample("z", Normal, g.param("mu", torch.tensor(0.4, dtype=dtype)) * one, 0.8)
        g.cost("c", lambda z, x, outer=outer: outer(torch.relu(x - 5), z), z, x)
        assert obstacle(g) is not None


def test_the_gradient_behind_a_gate_is_right() -> None:
    """A Bernoulli gate before a step: the automatic policy gives d/dmu = phi(mu) / 2."""
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("mu", torch.tensor(0.3)), 1.0)
    b = g.sample("b", Bernoulli, probs=torch.tensor(0.5))
    g.cost("c", lambda b, z: b * (z > 0).float(), b, z)
    program = scg.compile(g, samples=40_000)
    program(seed=0).loss.backward()
    found = g["mu"].value.grad
    assert found is not None
    expected = 0.5 * Normal(0.0, 1.0).log_prob(torch.tensor(0.3)).exp()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("over", ["anything", "positive"])
def test_atan2_jumps_where_the_other_can_be_negative(over: str) -> None:
    g = normal()
    other = g.param("a", torch.ones(3))
    g.cost("c", torch.atan2(g["z"], torch.exp(other) if over == "positive" else other).sum())
    assert (obstacle(g) is None) is (over == "positive")


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (lambda z: torch.nan_to_num(torch.sqrt(z)), "turns NaN or infinity of 'sqrt_1' into numbers"),
        (lambda z: torch.fmax(torch.sqrt(z), torch.zeros(3)), "turns NaN or infinity of 'sqrt_1' into num"),
        (lambda z: torch.copysign(torch.ones(3), z), "jumps by"),
        (lambda z: torch.exp(torch.log(torch.relu(z))), None),
        (lambda z: torch.nan_to_num(torch.sqrt(torch.relu(z) + 1)), None),
        (lambda z: torch.nan_to_num(1 / (z - z)), "turns NaN or infinity of "),
    ],
    ids=["nan_to_num", "fmax", "copysign", "exp of log", "never NaN", "quotient"],
)
def test_numbers_made_of_nan_are_breaks(fn: Callable[[Any], Any], told: str | None) -> None:
    g = normal()
    g.cost("c", fn(g["z"]).sum())
    found = obstacle(g)
    assert found is None if told is None else told in str(found)


@pytest.mark.parametrize("ends", [False, True])
def test_a_chain_is_evaluated_further_only_where_numbers_may_end(ends: bool) -> None:
    calls = [0]

    def step(z: Tensor) -> Tensor:
        calls[0] += 1
        return 1 / z if ends else torch.exp(torch.tanh(z))

    def count(nodes: int) -> int:
        g = normal()
        z = g["z"]
        for index in range(nodes):
            z = g.det(f"h{index}", step, z, differentiable=True if ends else None)
        g.cost("c", g.det("e", lambda z: torch.tanh(z), z).sum())
        calls[0] = 0
        obstacle(g)
        return calls[0]

    each = (count(12) - count(6)) // 6
    assert each > 4 if ends else each == 1


def test_standings_say_what_a_verdict_rests_on() -> None:
    g = normal()
    g.cost("c", g.det("h", nn.Linear(3, 1), g["z"]).sum())
    g.cost("d", g.det("j", lambda z: torch.where(z > 0, z, 0).sum(), g["z"]))
    g.cost("e", g.det("k", lambda z: z.sum(), g["z"], differentiable=True))
    ir = g.freeze()
    edges = gather(ir, ir.store.examples).paths.edges
    standings = [edges["z", name].standing for name in ("h", "j", "k")]
    assert standings == ["structural", "probed", "declared"]
