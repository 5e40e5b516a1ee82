"""Each estimator alone at each distribution that it claims: exactly where possible, else by simulation."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import scg
from scg.analysis.facts import gather
from scg.errors import BiasedEstimatorError
from scg.laws import LAWS
from scg.oracle import exact_gradient
from scg.surrogate.estimators.registry import registry
from scg.surrogate.prepare import node_facts
from tests.contract.instances import INSTANCES, VARIANTS, Instance
from tests.contract.judge import Gradient, is_exact, is_simulated
from tests.contract.nodes import MAKERS, Maker

REPLICATES = 8_000
SEVERAL = ("gamma", "poisson", "mixture-normal", "multivariate-normal-scale")
"""Where options of an estimator are simulated as well; what they change does not know the law."""


def bounded(summary: Tensor, theta: Tensor) -> Tensor:
    """A cost that has an expectation under every law, however heavy its tails."""
    return (1 + 0.2 * theta) * torch.tanh((summary - 0.9) / 2)


def alone(maker: Maker) -> scg.Graph:
    """theta -> (v) -> cost and theta -> cost, one theta for each parameter of the distribution."""
    g = scg.Graph(maker.name)
    starts = [start for _, start in maker.parameters.values()] or [0.3]
    names = ["theta", *(f"theta_{index}" for index in range(1, len(starts)))]
    pressures = [
        g.param(name, torch.tensor(start).double()) for name, start in zip(names, starts, strict=True)
    ]
    v = maker.declare(g, "v", *pressures[: len(maker.parameters)])
    g.cost("cost", lambda v, theta: bounded(maker.summary(v), theta), v, pressures[0])
    return g


def truth(maker: Maker, graph: scg.Graph) -> Gradient:
    if maker.is_exact:
        return exact_gradient(graph)
    parameters = dict(graph.named_parameters())
    theta = parameters["theta"]
    pressures = list(parameters.values())[: len(maker.parameters)]
    objective = maker.expect(pressures, lambda summary: bounded(summary, theta))
    return dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))


@cache
def facts(maker: str, samples: int | None) -> scg.NodeFacts:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return node_facts(gather(alone(MAKERS[maker]).freeze(), {}), "v", samples)
    finally:
        torch.set_default_dtype(before)


CLAIMED = [
    (instance, maker)
    for instance in INSTANCES.values()
    for maker in MAKERS.values()
    if instance.claims(facts(maker.name, instance.samples))
]
EXACT = [(instance, maker) for instance, maker in CLAIMED if instance.exact and maker.is_exact]
SIMULATED = [
    (instance, maker)
    for instance, maker in CLAIMED
    if (instance, maker) not in EXACT and (instance.name in registry() or maker.name in SEVERAL)
]


def named(pairs: list[tuple[Instance, Maker]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("instance", "maker"), pairs, ids=[f"{i}-{m.name}" for i, m in pairs])


@named(EXACT)
def test_the_integrated_gradient_is_exact(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    program = scg.compile(graph, instance.make("theta"), samples=instance.samples)
    is_exact(graph, program, truth(maker, graph), samples=instance.samples, points=32, tolerance=1e-6)


@named(SIMULATED)
def test_the_mean_gradient_is_right(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    is_simulated(graph, scg.compile(graph, instance.make("theta"), samples=REPLICATES), truth(maker, graph))


@named(CLAIMED)
def test_what_is_claimed_runs(instance: Instance, maker: Maker) -> None:
    graph = alone(maker)
    program = scg.compile(graph, instance.make("theta"), samples=instance.samples)
    for seed in range(3):
        program(noise=seed).loss.backward()
    for parameter in graph.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_every_law_has_a_node_here() -> None:
    made = {maker.dist for maker in MAKERS.values()}
    assert [cls.__name__ for cls in LAWS if cls not in made] == []


@pytest.mark.parametrize("name", MAKERS)
def test_every_distribution_is_claimed(name: str) -> None:
    assert any(instance.claims(facts(name, instance.samples)) for instance in INSTANCES.values())


def test_options_belong_to_registered_estimators() -> None:
    assert set(VARIANTS) <= set(registry())


@pytest.mark.parametrize("name", [name for name, kind in registry().items() if not kind.unbiased] or ["none"])
def test_what_is_biased_is_refused_unless_asked_for(name: str) -> None:
    if name == "none":
        assert all(kind.unbiased for kind in registry().values())
        return
    with pytest.raises(BiasedEstimatorError):
        scg.compile(alone(MAKERS["bernoulli-logits"]), name)
