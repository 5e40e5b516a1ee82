"""Control variates in surroundings that ask much of the compiler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Independent, Normal, OneHotCategorical

import scg
from tests.support.running import awake, gradients, is_mean


def total(values: Tensor) -> Tensor:
    return values.sum(-1)


def averages(graph: scg.Graph, policy: dict[str, str], samples: int | None) -> None:
    """Hold the mean of many replicates against the exact gradient; a single run has to give all of it."""
    expected = scg.exact_gradient(graph)
    program = scg.compile(graph, policy, samples=2000 if samples is not None else None)
    if samples is None:
        assert gradients(program, seed=0).keys() >= expected.keys()
        return
    runs = [gradients(program, seed=seed) for seed in range(40)]
    draws = [torch.cat([run[name].flatten() for name in expected]) for run in runs]
    assert is_mean(torch.stack(draws), torch.cat([part.flatten() for part in expected.values()]))


@pytest.mark.parametrize("policy", ["rebar", "relax"])
def test_steps_whose_discount_vanishes_add_nothing(policy: str) -> None:
    noise = torch.rand(2, 1200, generator=torch.Generator().manual_seed(0))

    def found(steps: int) -> dict[str, Tensor]:
        g = scg.Graph()
        g.plate("t", ordered=True, reduce="sum", discount=0.5, size=steps)
        b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(())), plates="t")
        g.cost("c", (b - 0.3) ** 2)
        torch.manual_seed(0)
        program = awake(scg.compile(g, policy))
        return gradients(program, noise={"b": noise[0, :steps], "b.1": noise[1, :steps]})

    few, many = found(60), found(1200)
    assert all(torch.allclose(many[name], value, rtol=1e-10) for name, value in few.items())


def test_numbers_of_one_name_stay_apart_in_another_type() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.zeros(4))
    a = g.sample("a", Normal, loc=x, scale=0.1)
    b = g.sample("b", Normal, loc=g.param("t", torch.tensor(0.3)), scale=0.1, plates="batch")
    c = g.sample("c", Normal, loc=g.param("s", torch.zeros(())), scale=2.0, plates="batch")
    g.cost("k", torch.exp(b) + a + c)
    program = scg.compile(g, {"b": "lax", "a": "reparam", "c": "reparam"})
    for kind in (torch.float32, torch.float64, torch.float32):
        samples = program(x=torch.zeros(5000, dtype=kind), seed=0).samples
        for name, scale in (("a", 0.1), ("b", 0.1), ("c", 2.0)):
            assert float(samples[name].std()) == pytest.approx(scale, rel=0.1)


def test_a_relaxed_function_that_crosses_a_plate_is_refused() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.tensor([0.3, -0.4, 0.8]), plates="t"))
    mixed = g.det("h", lambda b: (b - 0.3) ** 2, b, relaxed=lambda q: (q - 0.3) ** 2 * 3 * q.mean(-1))
    g.cost("c", mixed)
    with pytest.raises(scg.EstimatorError, match="function of relaxed values crosses plate 't'"):
        scg.compile(g, scg.REBAR())


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class Squaring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * total(Square.apply(torch.tanh(z)))


@pytest.mark.parametrize("place", ["function", "network"])
def test_a_function_with_a_derivative_of_its_own_is_not_compiled(place: str) -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.full((3,), 0.3)))
    square = Square.apply if place == "function" else torch.square
    g.cost("c", g.det("h", lambda b: total(square(b - 0.2)), b))
    program = scg.compile(g, "relax" if place == "function" else scg.RELAX(Squaring())).compile(
        backend="eager"
    )
    assert gradients(program, seed=0)
    with pytest.raises(scg.CompileError, match=r"calls an autograd\.Function"):
        program(seed=0)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.weight = nn.BatchNorm1d(1), nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.norm(z.reshape(-1, 1)).reshape(z.shape))


def test_a_network_is_judged_in_the_mode_that_it_is_in() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.tensor([0.3, -0.8]), plates="t"))
    g.cost("c", (b - 0.3) ** 2)
    program = scg.compile(g, scg.RELAX(Normed().eval(), relaxed_cost=False))
    program(seed=0)
    with pytest.raises(scg.EstimatorError, match="lets plate elements influence each other"):
        program.train()(seed=0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.second.weight = self.first.weight

    def forward(self, z: Tensor) -> Tensor:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(z)))))


def test_tied_weights_of_a_network_are_taught_in_both_places() -> None:
    torch.manual_seed(0)
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("theta", torch.full((3,), 0.3)))
    g.cost("c", total((b - 0.2) ** 2 + b))
    program = scg.compile(g, scg.RELAX(Tied()), samples=5)
    expected = gradients(program, seed=0)
    found = gradients(program.compile(backend="eager"), seed=0)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-6) for name, value in expected.items())


def test_a_function_as_a_network_that_captures_parameters_is_warned_of() -> None:
    layer = nn.Linear(1, 1)
    g = scg.Graph()
    g.cost("c", (g.sample("b", Bernoulli, logits=g.param("t", 0.3)) - 0.3) ** 2)
    program = scg.compile(g, scg.RELAX(lambda z: layer(z[..., None])[..., 0]))
    assert (
        "warning: its network captures ['layer'], which is not trained: give an nn.Module"
        in program.explain()
    )


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("policy", ["rebar", "relax"])
@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("dist", [Categorical, OneHotCategorical])
def test_a_row_of_outcomes_below_an_enumerated_node(
    dist: Any, given: str, policy: str, samples: int | None
) -> None:
    table = torch.tensor([0.2, -0.9, 1.1])
    g = scg.Graph()
    e = g.sample("e", Bernoulli, logits=g.param("t", torch.tensor(0.2)))
    v = g.param("v", torch.tensor([0.2, 0.5, -0.3]))
    row = g.det("row", lambda e, v: torch.softmax(e[..., None] * v, -1), e, v)
    b = g.sample("b", dist, **{given: row})
    hard = (lambda b: table[b]) if dist is Categorical else (lambda b: b @ table)
    f = g.det("f", hard, b, relaxed=lambda b: b @ table)
    g.cost("c", f * (e + 1))
    averages(g, {"e": "enumerate", "b": policy}, samples)


@pytest.mark.parametrize("samples", [None, 2])
def test_the_density_of_a_factory_is_charged_to_its_own_node(samples: int | None) -> None:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.tensor(0.0)), 1.0)
    logits = g.det("logits", lambda z, t: z[..., None] * t, z, g.param("t", torch.tensor([0.3, 0.1])))
    b = g.sample("b", lambda logits: Independent(Bernoulli(logits=logits), 1), logits)
    g.cost("kl", g.log_prob(b) * 0.3)
    g.cost("c", g.det("f", lambda b: total(b) ** 2, b))
    averages(g, {"b": "rebar", "z": "reparam"}, samples)


def test_context_may_be_what_nothing_else_reads() -> None:
    g = scg.Graph()
    x = g.input("x", example=torch.tensor(0.5))
    g.det("h", lambda x: torch.sin(x), x)
    g.cost("c", (g.sample("b", Bernoulli, logits=g.param("t", 0.3)) - 0.3) ** 2)
    program = awake(scg.compile(g, scg.RELAX(context="h")))
    first, second = (gradients(program, x=torch.tensor(x), seed=0) for x in (0.1, 0.9))
    weight = "controls.b.net.inputs.1.weight"
    assert float(first[weight].abs().max()) > 0 and not torch.allclose(first[weight], second[weight])


def attention(b: Tensor) -> Tensor:
    rows = b.view(1, 1, 5, 4)
    return nn.functional.scaled_dot_product_attention(rows, rows, rows).square().sum()


def test_what_torch_cannot_differentiate_twice_is_not_relaxed() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.full((20,), 0.3)))
    g.cost("c", g.det("h", attention, b))
    assert scg.compile(g).policy["b"].name == "score"
    with pytest.raises(scg.EstimatorError, match="cannot be differentiated twice"):
        scg.compile(g, "rebar")


def test_a_temperature_for_each_element_does_not_reach_other_draws() -> None:
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("t", torch.zeros(3), plates="p"))
    b = g.sample("b", Bernoulli, logits=g.det("l", lambda a: torch.stack((a, 1 - a), -1), a))
    g.cost("c", total((b - 0.3) ** 2))
    with pytest.raises(scg.EstimatorError, match="one temperature for each plate element does not reach 'b'"):
        scg.compile(g, {"a": scg.REBAR(temperature=torch.ones(3)), "b": "score"})


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_program_is_copied_as_it_is_now(duplicate: Callable[[scg.Program], scg.Program]) -> None:
    x = torch.zeros(4, 3, dtype=torch.float32)
    g = scg.Graph()
    b = g.sample(
        "b", Bernoulli, logits=g.det("l", nn.Linear(3, 2).float(), g.input("x", plates="batch", example=x))
    )
    g.cost("c", total((b - 0.3) ** 2))
    program = scg.compile(g, "rebar")
    program.double()(x=x.double(), seed=0)
    program.float()(x=x, seed=0)
    other = duplicate(program)
    assert other(x=x, seed=0).loss.equal(program(x=x, seed=0).loss)


def test_controls_learn_for_what_needs_a_gradient() -> None:
    """The variance of an estimate for the scale, which is a constant, is not lowered."""
    g = scg.Graph()
    g.cost("c", (g.sample("z", Normal, g.param("theta", torch.tensor(0.4)), 0.5) - 0.3) ** 3)
    linear = nn.Linear(1, 1)
    nn.init.constant_(linear.weight, 0.7)
    program = scg.compile(g, scg.LAX(nn.Sequential(Column(), linear)))
    noise = dict(program.draw_noise(3))
    taught = float(gradients(program, noise=noise)["controls.z.net.1.weight"])
    ends = []
    for step in (1e-5, -1e-5):
        nn.init.constant_(linear.weight, 0.7 + step)
        ends.append(float(gradients(program, noise=noise)["theta"]) ** 2)
    assert taught == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


class Column(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z[..., None]
