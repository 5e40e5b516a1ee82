"""Redraws: all that is drawn below a value, drawn anew; noise of sample and redraws enumerated together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Gamma, Normal, Poisson

import scg
from scg.errors import EstimatorError
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.support.integrate import worlds
from tests.support.running import gradients


def chain() -> scg.Graph:
    g = scg.Graph()
    x = g.sample("x", Bernoulli, logits=g.param("a", of(0.3)[0]))
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x, w: w * x - 0.4, x, g.param("w", of(1.2)[0])))
    z = g.sample("z", Bernoulli, logits=g.det("m", lambda x, y: 0.5 - 2 * y + x, x, y))
    g.cost("c", lambda x, y, z: (x - 2 * y + 3 * z - 0.5) ** 2, x, y, z)
    return g


def fork() -> scg.Graph:
    """A cost on either side, and a node on one of them that is not below the other."""
    g = scg.Graph()
    x = g.sample("x", Bernoulli, probs=g.param("a", of(0.3)[0]))
    left = g.sample("y", Bernoulli, logits=g.det("l", lambda x: 1.5 * x - 0.2, x))
    right = g.sample("z", Bernoulli, logits=g.param("b", of(-0.7)[0]))
    g.cost("c", lambda x, y: (x - y) ** 2 + y, x, left)
    g.cost("d", lambda y, z: (1.5 * y - z) ** 2, left, right)
    return g


def plated(**plate: Any) -> scg.Graph:
    """Two elements with a child each, and a cost of every element or of all."""
    g = scg.Graph()
    joined = plate.pop("joined", False)
    n = g.plate("n", size=2, **plate)
    a = g.param("a", of(0.3, -0.6), plates=n)
    x = g.sample("x", Bernoulli, logits=a)
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x: 1.5 * x - 0.2, x))
    g.cost("c", lambda x, y: (x + y - 0.4) ** 2, x, y)
    if joined:
        g.cost("d", lambda y: (y.sum(-1) - 1.2) ** 2, y, plates=())
    return g


GRAPHS = {
    "chain": chain,
    "fork": fork,
    "mean": lambda: plated(reduce="mean"),
    "sum": lambda: plated(reduce="sum"),
    "joined": lambda: plated(reduce="mean", joined=True),
    "ordered": lambda: plated(ordered=True, reduce="sum", discount=0.5),
}


def mean_gradient(
    g: scg.Graph, program: scg.Program, redraws: int, samples: int | None = None, **given: Any
) -> dict[str, Tensor]:
    """Return the mean over the noise of the sample and of each redraw, which several nodes may share."""
    every = list(worlds(g.freeze(), {}, 4, **given))
    total = {name: torch.zeros_like(p) for name, p in g.named_parameters()}
    keys = [key for key in program.draw_noise(0) if ".below." in key]
    assert keys
    count = samples or 1
    for picked in itertools.product(every, repeat=count * (1 + redraws)):
        each = [picked[i * count : (i + 1) * count] for i in range(1 + redraws)]
        several = [_stacked([world[1] for world in one], samples) for one in each]
        noise = {
            **several[0],
            **{k: torch.stack([s[k.rpartition(".")[2]] for s in several[1:]]) for k in keys},
        }
        weight = math.prod(world[0] for world in picked)
        for name, found in gradients(program, noise=noise).items():
            total[name] += weight * found
    return total


def _stacked(several: list[Mapping[str, Tensor]], samples: int | None) -> dict[str, Tensor]:
    if samples is None:
        return dict(several[0])
    return {name: torch.stack([one[name] for one in several]) for name in several[0]}


@pytest.mark.parametrize("baseline", [None, "self-critical"])
@pytest.mark.parametrize("name", GRAPHS)
def test_its_mean_is_the_gradient(name: str, baseline: Any) -> None:
    g = GRAPHS[name]()
    program = scg.compile(g, scg.Score(baseline=baseline, redraws=1))
    shared = {} if name in ("chain", "fork", "joined", "ordered") else {"shared": ("n",)}
    assert gap(mean_gradient(g, program, 1, **shared), scg.exact_gradient(g)) < 1e-12


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        (chain, {"y": "enumerate"}),
        (chain, {"x": "enumerate"}),
        (fork, {"y": "local"}),
        (fork, {"y": "disarm"}),
    ],
)
def test_it_composes(make: Any, policy: dict[str, Any]) -> None:
    g = make()
    program = scg.compile(g, {**dict.fromkeys("xyz", scg.Score(redraws=1)), **policy})
    found = mean_gradient(g, program, 1, mirrored="disarm" in policy.values())
    assert gap(found, scg.exact_gradient(g)) < 1e-12


def test_replicates_are_compared() -> None:
    g = scg.Graph()
    x = g.sample("x", Bernoulli, logits=g.param("a", of(0.3)[0]))
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x: 1.5 * x - 0.2, x))
    g.cost("c", lambda x, y: (x - 2 * y) ** 2, x, y)
    program = scg.compile(g, scg.Score(baseline="leave-one-out", redraws=1), samples=2)
    assert gap(mean_gradient(g, program, 1, samples=2), scg.exact_gradient(g)) < 1e-12


def test_the_credit_is_the_mean_of_the_sample_and_of_every_redraw() -> None:
    g = chain()
    program = scg.compile(g, {"x": scg.Score(redraws=3), "*": "score"})
    noise = program.draw_noise(5)
    value = program(noise=noise).samples["x"]
    costs = [
        program(noise={**noise, "y": noise["x.below.y"][k], "z": noise["x.below.z"][k]}).loss
        for k in range(3)
    ]
    mean = (program(noise=noise).loss + sum(costs)) / 4
    expected = mean.detach() * (value - torch.sigmoid(of(0.3)[0]))
    assert torch.allclose(gradients(program, noise=noise)["a"], expected, atol=1e-12)


def test_second_derivatives_are_right() -> None:
    g = scg.Graph()
    a = g.param("a", of(0.3)[0])
    x = g.sample("x", Bernoulli, logits=a)
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x, a: (1.5 * x - 0.2) * a, x, a))
    g.cost("c", lambda x, y: (x - 2 * y) ** 2, x, y)
    program, total = scg.compile(g, scg.Score(redraws=1), order=2), torch.zeros((), dtype=torch.double)
    every = list(worlds(g.freeze(), {}, 4))
    for (weight, noise), (other, again) in itertools.product(every, repeat=2):
        loss = program(noise={**noise, "x.below.y": again["y"][None]}).loss
        (first,) = torch.autograd.grad(loss, program.a, create_graph=True)
        total += weight * other * torch.autograd.grad(first, program.a)[0]
    start = of(0.3)[0].requires_grad_()
    p, q = torch.sigmoid(start), torch.sigmoid(torch.stack([-0.2 * start, 1.3 * start]))
    mean = (1 - p) * 4 * q[0] + p * (q[1] + (1 - q[1]))
    (first,) = torch.autograd.grad(mean, start, create_graph=True)
    assert torch.allclose(total, torch.autograd.grad(first, start)[0], atol=1e-12)


@pytest.mark.parametrize("law", [Gamma, Poisson])
def test_laws_without_base_noise_are_drawn_anew(law: Any) -> None:
    """Of many redraws the mean is that of the law: rates 1 and 2, and shapes so."""
    g = scg.Graph()
    x = g.sample("x", Bernoulli, logits=g.param("a", of(0.3)[0]))
    rate = g.det("r", lambda x: 1 + x, x)
    y = g.sample("y", law, rate, of(1.0)[0]) if law is Gamma else g.sample("y", law, rate)
    g.cost("c", lambda y: 2 * y, y)
    program, p = scg.compile(g, scg.Score(redraws=1000)), torch.sigmoid(of(0.3)[0])
    for seed in range(3):
        value = program(seed=seed).samples["x"]
        mean = 2 * (1 + value)
        found = gradients(program, seed=seed)["a"] / (value - p)
        assert torch.allclose(found, mean, rtol=0.15)


def spread(program: scg.Program, name: str) -> float:
    return float(torch.stack([gradients(program, seed=seed)[name] for seed in range(400)]).var(0).sum())


def test_the_variance_falls_along_a_chain() -> None:
    g = scg.Graph()
    x = g.sample("x", Bernoulli, logits=g.param("a", of(0.3)[0]))
    for step in range(3):
        x = g.sample(f"y{step}", Normal, loc=g.det(f"l{step}", lambda x: 0.9 * x, x), scale=of(1.0)[0])
    g.cost("c", lambda x: (x - 0.4) ** 2, x)
    policy = {"y*": "reparam"}
    plain = spread(scg.compile(g, {**policy, "x": "score"}), "a")
    assert spread(scg.compile(g, {**policy, "x": scg.Score(redraws=7)}), "a") < 0.5 * plain


def test_a_node_with_nothing_drawn_below_pays_nothing() -> None:
    program = scg.compile(chain(), scg.Score(redraws=4))
    assert [line.strip() for line in program.explain().splitlines() if "charged" in line] == [
        "charged with c; 5 evaluations below",
        "charged with c; 5 evaluations below",
        "charged with c; 1 evaluation below",
    ]


def test_it_is_compiled_by_torch() -> None:
    program = scg.compile(chain(), scg.Score(redraws=2))
    expected = gradients(program, seed=3)
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    program.zero_grad()
    compiled(seed=3).loss.backward()
    assert gap(expected, {name: p.grad for name, p in program.named_parameters()}) < 1e-12


def test_what_was_drawn_elsewhere_is_refused() -> None:
    g = scg.Graph()
    x = g.sample("x", Bernoulli, logits=g.param("a", of(0.3)[0]))
    taken = g.det("taken", lambda x, u: 1.0 * (u < 0.3 + 0.2 * x), x, g.input("u", of(0.4)[0]))
    y = g.sample("y", Bernoulli, logits=g.det("l", lambda x: x - 0.2, x), value=taken)
    g.cost("c", lambda x, y: (x - y) ** 2, x, y)
    with pytest.raises(
        EstimatorError, match="what is below it was drawn elsewhere, once: leave redraws= out"
    ):
        scg.compile(g, {"x": scg.Score(redraws=2), "y": "score"})


@pytest.mark.parametrize("redraws", [-1, True, 1.5])
def test_what_is_no_number_is_refused(redraws: Any) -> None:
    with pytest.raises(EstimatorError, match="redraws is a number of draws"):
        scg.Score(redraws=redraws)


def test_parts_draw_anew_each_on_its_own() -> None:
    """The mean is exact for each of two costs, whose parts take the same worlds."""
    g = fork()
    parts = scg.Parts({"c": scg.Score(redraws=1), "d": "score"})
    program = scg.compile(g, {"x": parts, "y": scg.Parts({"c": "score", "d": "score"}), "z": "score"})
    assert [key for key in program.draw_noise(0) if ".below." in key] == ["x.c.below.y"]
    assert gap(mean_gradient(g, program, 1), scg.exact_gradient(g)) < 1e-12
