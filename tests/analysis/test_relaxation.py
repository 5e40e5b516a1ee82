"""Relaxation: what is smooth below a stochastic node at relaxed values, and what stops the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Distribution,
    Gamma,
    Normal,
    OneHotCategorical,
    Poisson,
)

import scg
from scg.analysis.facts import Facts, gather
from scg.analysis.relaxation import Relaxation
from tests.support.running import label

WEIGHTS = torch.tensor([0.1, 0.5, 2.0])
Fn = Callable[..., Any]


def three(dist: type[Distribution] = Bernoulli) -> scg.Graph:
    """(b): three bits, or one of three outcomes."""
    g = scg.Graph()
    g.sample("b", dist, logits=g.param("t", torch.tensor([0.3, -0.2, 0.1])))
    return g


def facts(g: scg.Graph) -> Facts:
    ir = g.freeze()
    return gather(ir, ir.store.examples)


def relaxation(g: scg.Graph, name: str = "b") -> Relaxation:
    return facts(g).relaxation(name)


def only(fn: Fn, dist: type[Distribution] = Bernoulli, **options: Any) -> Relaxation:
    """(b) -> [h] -> [c]."""
    g = three(dist)
    g.cost("c", g.det("h", fn, g["b"], **options) * 2.0)
    return relaxation(g)


def torch_log_prob(b: Tensor) -> Tensor:
    found: Tensor = Bernoulli(0.3).log_prob(b).sum()
    return found


def embedded(b: Tensor) -> Tensor:
    return WEIGHTS[b]


def mixed(soft: Tensor) -> Tensor:
    return soft @ WEIGHTS


SMOOTH: dict[str, Callable[[], Fn]] = {
    "square": lambda: lambda b: ((b - 0.4) ** 2).sum(-1),
    "relu": lambda: lambda b: (b - 0.5).relu().sum(-1),
    "maximum": lambda: lambda b: b.max(-1).values,
    "mlp": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)),
    "likelihood": lambda: lambda b: F.binary_cross_entropy_with_logits(WEIGHTS, b, reduction="sum"),
}
ROUGH: dict[str, tuple[Fn, str]] = {
    "step": (lambda b: (b > 0.5).float().sum(-1), "jumps by"),
    "round": (lambda b: b.round().sum(-1), "jumps by"),
    "argmax": (lambda b: b.argmax(-1).float() + b.sum(-1), "jumps by"),
    "item": (lambda b: torch.tensor(b.sum().item()), "autograd disagrees"),
    "detach": (lambda b: b.detach().sum(-1), "autograd disagrees"),
    "numpy": (lambda b: torch.as_tensor(np.sin(b.detach().numpy()).sum()), "autograd disagrees"),
    "straight through": (lambda b: (b.round() - b.detach() + b).sum(-1), "jumps by|autograd disagrees"),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_costs_are_smooth_at_relaxed_values(name: str) -> None:
    found = only(SMOOTH[name]())
    assert found.smooth == ("c",) and not found.obstacles


@pytest.mark.parametrize("name", ROUGH)
def test_what_is_not_smooth_is_told_with_its_path(name: str) -> None:
    fn, reason = ROUGH[name]
    found = only(fn)
    assert found.smooth == () and found.records == ()
    told = found.obstacles["c"]
    assert told.startswith("the path b -> h -> mul_1 -> c is not smooth at relaxed values (h: "), told
    assert any(words in told for words in reason.split("|")), told


@pytest.mark.parametrize(
    ("fn", "dist", "remedy"),
    [
        (torch_log_prob, Bernoulli, "raised ValueError .*; write a log-probability as g.log_prob"),
        (
            lambda b: Categorical(logits=WEIGHTS).log_prob(b),
            Categorical,
            "raised ValueError .*; write a log-probability as g.log_prob",
        ),
        (embedded, Categorical, "raised IndexError .*; declare it with relaxed="),
        (lambda b: F.embedding(b, WEIGHTS[:, None])[..., 0], Categorical, "declare it with relaxed="),
        (lambda b: F.one_hot(b, 3).float() @ WEIGHTS, Categorical, "declare it with relaxed="),
        (
            lambda b: b.float() ** 2,
            Categorical,
            r"shape \(3,\) at a relaxed value, not shape \(\); declare it with relaxed=",
        ),
    ],
)
def test_what_takes_hard_values_only_says_what_to_write(
    fn: Fn, dist: type[Distribution], remedy: str
) -> None:
    told = only(fn, dist).obstacles["c"]
    assert re.search(remedy, told), told


def test_a_black_box_is_told_as_it_was_declared() -> None:
    assert (
        "(h: declared differentiable=False)" in only(lambda b: b.sum(-1), differentiable=False).obstacles["c"]
    )


@pytest.mark.parametrize("differentiable", [None, False])
def test_a_relaxed_function_stands_in_for_one_of_hard_values(differentiable: bool | None) -> None:
    found = only(embedded, Categorical, relaxed=mixed, differentiable=differentiable)
    assert found.smooth == ("c",) and not found.obstacles


def test_a_relaxed_function_is_judged_as_well() -> None:
    told = only(embedded, Categorical, relaxed=lambda soft: soft.round() @ WEIGHTS).obstacles["c"]
    assert "(h: jumps by" in told


def test_a_declaration_of_smoothness_is_believed() -> None:
    assert only(lambda b: (b > 0.5).float().sum(-1), differentiable=True).smooth == ("c",)


def test_a_branch_that_no_probe_takes_is_not_known_to_be_smooth() -> None:
    told = only(lambda b: b.sum() if bool(b.sum() > 1e6) else b.square().sum()).obstacles["c"]
    assert "declare it with differentiable=True if you know that it is smooth" in told


def partly() -> scg.Graph:
    """A smooth cost, one behind a step, and one that reads both."""
    g = three()
    b = g["b"]
    warm = g.det("warm", torch.tanh, b)
    hit = g.det("hit", lambda b: (b > 0.5).float(), b)
    g.cost("fine", warm.sum(-1))
    g.cost("rough", hit.sum(-1))
    g.cost("both", (warm * hit).sum(-1))
    g.cost("apart", g.param("u", 1.0) ** 2)
    return g


def test_costs_are_judged_one_by_one() -> None:
    found = relaxation(partly())
    assert found.smooth == ("fine",)
    assert set(found.obstacles) == {"rough", "both"}
    assert found.obstacles["both"].startswith("the path b -> hit -> mul_1 -> sum_3 -> both is not smooth")


def test_only_what_leads_to_a_smooth_cost_is_evaluated_there() -> None:
    names = [record.name for record in relaxation(partly()).records]
    assert names[0] == "warm" and names[-1] == "fine"
    assert {"hit", "rough", "both", "apart"}.isdisjoint(names)


def test_a_cost_that_the_node_does_not_reach_is_not_mentioned() -> None:
    found = relaxation(partly())
    assert "apart" not in found.smooth and "apart" not in found.obstacles


# ---- stochastic nodes below


def below(dist: Any, *args: Any, cost: Fn = torch.sum, **kwargs: Any) -> scg.Graph:
    """(b) -> (below) -> [c]."""
    g = three()
    rate = g.det("rate", lambda b: 1.0 + b, g["b"])
    given = {key: rate if value is None else value for key, value in kwargs.items()}
    lower = g.sample("below", dist, *(rate if value is None else value for value in args), **given)
    g.cost("c", cost, lower)
    return g


def test_discrete_nodes_below_are_relaxed() -> None:
    found = relaxation(below(Bernoulli, logits=None))
    assert found.smooth == ("c",)
    soft = torch.stack([world.values["below"] for world in found.worlds])
    assert bool(((soft > 0) & (soft < 1)).all())


@pytest.mark.parametrize("dist", [Categorical, OneHotCategorical])
def test_categorical_nodes_below_become_points_of_the_simplex(dist: type[Distribution]) -> None:
    found = relaxation(below(dist, logits=None, cost=lambda k: (k * WEIGHTS).sum(-1)))
    soft = found.worlds[0].values["below"]
    assert soft.shape == (3,) and bool((soft > 0).all())
    assert float(soft.sum()) == pytest.approx(1.0)
    if dist is OneHotCategorical:
        assert found.smooth == ("c",)


def test_smooth_draws_below_are_passed_through() -> None:
    assert relaxation(below(Normal, None, 1.0)).smooth == ("c",)


@pytest.mark.parametrize(
    ("dist", "args"), [(Gamma, (None, 1.0)), (Beta, (None, 1.0)), (Poisson, (None,))], ids=label
)
def test_draws_that_cannot_be_differentiated_twice_stop_what_lies_below(
    dist: type[Distribution], args: tuple[Any, ...]
) -> None:
    found = relaxation(below(dist, *args))
    assert found.smooth == ()
    assert f"(below: a {dist.__name__} can neither be relaxed nor differentiated twice)" in str(
        found.obstacles["c"]
    )


def test_counts_below_stop_what_lies_below() -> None:
    found = relaxation(below(Binomial, 3, logits=None))
    assert "a Binomial can neither be relaxed" in found.obstacles["c"]


def test_a_step_on_the_way_to_a_node_below_stops_what_lies_below() -> None:
    g = three()
    g.cost("c", g.sample("z", Normal, g.det("h", torch.round, g["b"]), 1.0).sum(-1))
    assert relaxation(g).obstacles["c"].startswith("the path b -> h -> z -> ")


def test_the_path_of_a_long_chain_is_shortened() -> None:
    g = three()
    x = g.det("h", torch.round, g["b"])
    for index in range(30):
        x = g.det(f"x{index}", torch.tanh, x)
    g.cost("c", x.sum(-1))
    told = relaxation(g).obstacles["c"]
    assert "b -> h -> x0 -> x1 -> ... -> x28 -> x29 -> sum_1 -> c" in told


# ---- log-probabilities


def test_the_log_probability_of_the_node_is_linear_in_its_relaxed_value() -> None:
    for dist in (Bernoulli, Categorical, OneHotCategorical):
        g = three(dist)
        g.cost("c", g.log_prob(g["b"]))
        found = relaxation(g)
        assert found.smooth == ("c",)
        world, t = found.worlds[0], torch.tensor([0.3, -0.2, 0.1])
        soft = world.values["b"]
        if dist is Bernoulli:
            expected = (soft * F.logsigmoid(t) + (1 - soft) * F.logsigmoid(-t)).sum()
        else:
            expected = (soft * t.log_softmax(-1)).sum()
        torch.testing.assert_close(world.values["c"], expected)


def test_another_law_is_evaluated_at_relaxed_values() -> None:
    for dist in (Bernoulli, Categorical, OneHotCategorical):
        g = three(dist)
        g.cost("c", g.log_prob(dist, g["b"], logits=WEIGHTS))
        assert relaxation(g).smooth == ("c",)
    g = three()
    g.cost("c", g.log_prob(Normal, g["b"], 0.3, 1.0))
    assert relaxation(g).smooth == ("c",)


def test_the_log_probability_of_a_node_below_is_smooth_in_both() -> None:
    g = three()
    lower = g.sample("lower", Bernoulli, logits=2.0 * g["b"])
    g.cost("c", g.log_prob(lower))
    found = relaxation(g)
    soft, b = found.worlds[0].values["lower"], found.worlds[0].values["b"]
    expected = (soft * F.logsigmoid(2 * b) + (1 - soft) * F.logsigmoid(-2 * b)).sum()
    torch.testing.assert_close(found.worlds[0].values["c"], expected)


# ---- what is left behind


def test_probing_leaves_generators_and_running_statistics_alone() -> None:
    g = three()
    norm = nn.BatchNorm1d(3)
    g.cost("c", g.det("h", lambda b, norm=norm: norm(torch.stack((b, 0.5 * b)))[0].sum(-1), g["b"]))
    registered = nn.Sequential(nn.Unflatten(-1, (3, 1)), nn.BatchNorm1d(1), nn.Flatten(0))
    g.cost("d", g.det("k", registered, g["b"]).sum(-1))
    known = facts(g)
    assert known.worlds
    before = {key: value.clone() for key, value in registered.state_dict().items()}
    state = torch.random.get_rng_state()
    assert "d" in known.relaxation("b").smooth
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in registered.state_dict().items())


def test_what_is_hard_stays_hard_in_the_worlds_it_came_from() -> None:
    g = partly()
    known = facts(g)
    known.relaxation("b")
    for world in known.worlds:
        assert bool(((world.values["b"] == 0) | (world.values["b"] == 1)).all())


@pytest.mark.parametrize("above", ["b alone", "both"])
def test_relaxed_functions_below_relaxed_samples_are_called(above: str) -> None:
    """b -> k -> h, where h takes indices: that k is relaxed below b is known before h is met."""
    g = three()
    g.sample("k", Categorical, logits=g["b"] * 2.0 + WEIGHTS)
    parents = (g["k"],) if above == "b alone" else (g["k"], g["b"])
    g.det("h", lambda k, b=0.0: WEIGHTS[k], *parents, relaxed=lambda k, b=0.0: mixed(k))
    g.cost("c", g["h"] * 2.0)
    found = relaxation(g)
    assert found.smooth == ("c",), found.obstacles
    assert relaxation(g, "k").smooth == ("c",)


def test_the_gradient_through_relaxed_samples_is_right() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("t", 0.3))
    k = g.sample("k", Categorical, logits=torch.tensor([0.2, -0.4, 0.1]) + b * torch.tensor([1.0, 0.0, -2.0]))
    g.cost("c", g.det("h", lambda k: WEIGHTS[k], k, relaxed=mixed))
    expected = scg.exact_gradient(g)["t"]
    program = scg.compile(g, {"b": scg.REBAR(tune=False), "k": scg.REBAR(tune=False)}, samples=20_000)
    program(seed=0).loss.backward()
    found = g["t"].value.grad
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_a_step_behind_a_gate_is_seen_at_relaxed_values() -> None:
    """The gate is drawn above b, and 0 in the evaluation that comes first, or an input of zeros."""
    g = three()
    x = g.input("x", example=torch.zeros(()))
    g.cost("c", g.det("h", lambda b, x: b.sum() + x * (b > 0.5).float().sum(), g["b"], x))
    assert "jumps" in relaxation(g).obstacles["c"]
