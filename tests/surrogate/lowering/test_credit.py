"""Credit and weights: small graphs in plates, whose gradient is integrated over all noise and is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


LOGITS = torch.tensor([0.3, -0.8, 0.5])


def bits(g: scg.Graph, plate: str, **options: Any) -> scg.Node:
    """A bit for each of three elements, with a parameter of its own."""
    g.plate(plate, size=3, **options)
    return g.sample("b", Bernoulli, logits=g.param("w", LOGITS.double(), plates=plate))


def steps_to_go(reduce: str) -> scg.Graph:
    """Every step costs what the bits so far add up to."""
    g = scg.Graph()
    b = bits(g, "time", ordered=True, discount=0.5, reduce=reduce)
    g.cost("c", g.det("s", lambda b: (b.cumsum(0) - 1.3) ** 2, b))
    return g


def end(reduce: str) -> scg.Graph:
    """What all steps lead to costs once, and is not discounted."""
    g = scg.Graph()
    b = bits(g, "time", ordered=True, discount=0.5, reduce=reduce)
    g.cost("c", g.det("s", lambda b: ((b * torch.tensor([1.0, 2.0, -1.0])).sum(0) - 0.4) ** 2, b, plates=()))
    return g


def both(reduce: str) -> scg.Graph:
    """Elements have a cost each, and one together."""
    g = scg.Graph()
    b = bits(g, "batch", reduce=reduce)
    g.cost("each", (b - 0.3) ** 2)
    g.cost("all", g.det("sum", lambda b: (b.sum(0) - 1.2) ** 2, b, plates=()))
    return g


def mixed(reduce: str) -> scg.Graph:
    """Every element costs what all elements are."""
    g = scg.Graph()
    b = bits(g, "batch", reduce=reduce)
    g.cost("c", g.det("m", lambda b: (b - b.flip(0) + b.sum(0) - 0.7) ** 2, b, mixes=("batch",)))
    return g


def two_paths(reduce: str) -> scg.Graph:
    """A cost that is reached along one path that mixes elements, and along one that does not."""
    g = scg.Graph()
    b = bits(g, "batch", reduce=reduce)
    far = g.det("far", lambda b: b.sum(0, keepdim=True).expand(3) - b, b, mixes=("batch",))
    near = g.det("near", lambda b: 2 * b, b)
    g.cost("c", lambda near, far: (near * far - 0.4) ** 2, near, far)
    return g


def chain(reduce: str) -> scg.Graph:
    """A node whose costs are those of the node below it, and one more."""
    g = scg.Graph()
    g.plate("batch", size=2, reduce=reduce)
    b = g.sample("b", Bernoulli, logits=g.param("w", LOGITS[:2].double(), plates="batch"))
    d = g.sample("d", Bernoulli, logits=g.param("v", -0.4) + b)
    g.cost("first", (b - 0.2) ** 2)
    g.cost("second", (d - 0.4) ** 2)
    return g


def grid(reduce: str) -> scg.Graph:
    """Steps of steps, both of which are discounted."""
    g = scg.Graph()
    for plate, rate in (("day", 0.5), ("hour", 0.7)):
        g.plate(plate, size=2, ordered=True, discount=rate, reduce=reduce)
    logits = torch.tensor([[0.3, -0.8], [0.5, 0.1]]).double()
    b = g.sample("b", Bernoulli, logits=g.param("w", logits, plates=("day", "hour")))
    g.cost("c", (b - 0.3) ** 2)
    return g


def alike(reduce: str) -> scg.Graph:
    """Two nodes in one plate with the same costs, of which the second alone keeps its elements apart."""
    g = scg.Graph()
    g.plate("batch", size=2, reduce=reduce)
    b, d = (
        g.sample(name, Bernoulli, logits=g.param(f"w{name}", LOGITS[k : k + 2].double(), plates="batch"))
        for k, name in enumerate("bd")
    )
    m = g.det("m", lambda b: b.sum(0, keepdim=True).expand(2) - 0.3 * b, b, mixes=("batch",))
    g.cost("c", lambda d, m: (d * m - 0.4 * d + m) ** 2, d, m)
    return g


def above(reduce: str) -> scg.Graph:
    """A node outside of the steps that it is charged with."""
    g = scg.Graph()
    g.plate("time", size=3, ordered=True, discount=0.5, reduce=reduce)
    z = g.sample("z", Bernoulli, logits=g.param("t", 0.4))
    x = g.input("x", plates="time", example=LOGITS.double())
    g.cost("c", (z - x) ** 2)
    return g


def mixed_twice(reduce: str) -> scg.Graph:
    """Two costs, to each of which a path leads that mixes elements."""
    g = scg.Graph()
    b = bits(g, "batch", reduce=reduce)
    for name, shift in (("one", 0.7), ("two", -0.2)):
        m = g.det(f"m_{name}", lambda b, shift: (b.sum(0) - 0.4 * b - shift) ** 2, b, shift, mixes=("batch",))
        g.cost(name, m)
    return g


GRAPHS = [steps_to_go, end, both, mixed, two_paths, chain, grid, alike, above, mixed_twice]


@pytest.mark.parametrize("policy", ["score", "local", "enumerate"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("make", GRAPHS)
def test_the_integrated_gradient_is_exact(make: Callable[[str], scg.Graph], reduce: str, policy: str) -> None:
    graph = make(reduce)
    found = integrated_gradient(graph, scg.compile(graph, policy))
    for name, value in scg.exact_gradient(graph).items():
        assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("last", ["score", "local"])
def test_outcomes_of_nodes_that_a_cost_does_not_read_are_summed_out(last: str) -> None:
    """A score above two enumerated nodes, of which what lies below reads the lower alone."""
    g = scg.Graph()
    scale = g.param("s", 0.7)
    z = g.sample("z", Bernoulli, logits=g.param("t", 0.2))
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.4) * z - 0.3)
    d = g.sample("d", Bernoulli, logits=1.1 * b - 0.5)
    y = g.sample("y", Bernoulli, logits=g.param("v", -0.4) * d + 0.2)
    g.cost("c", ((d - 0.3) ** 2 + d + 0.7 * y) * scale)
    program = scg.compile(g, {"z": "score", "b": "enumerate", "d": "enumerate", "y": last})
    found, wanted = integrated_gradient(g, program), scg.exact_gradient(g)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9) for name in wanted)


def test_replicates_are_averaged() -> None:
    graph = both("mean")
    found = integrated_gradient(graph, scg.compile(graph, "score", samples=2), samples=2, exchangeable=True)
    assert torch.allclose(found["w"], scg.exact_gradient(graph)["w"], rtol=1e-9)


def test_scores_that_share_their_factor_all_count() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.4))
    d = g.sample("d", Bernoulli, logits=g.param("v", -0.2))
    g.cost("c", (b + 2 * d - 0.3) ** 2)
    found, wanted = integrated_gradient(g, scg.compile(g, "score")), scg.exact_gradient(g)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9) for name in wanted)


def test_below_a_path_a_score_is_needed() -> None:
    """The parameters of a bit depend on what is learned through a normal number alone."""
    g = scg.Graph()
    z = g.sample("z", torch.distributions.Normal, g.param("m", 0.3), 1.0)
    g.cost("c", 2 * g.sample("b", Bernoulli, logits=z))
    program = scg.compile(g, {"z": "reparam", "b": "score"})
    program(noise={"z": torch.tensor(0.4), "b": torch.tensor(0.8)}).loss.backward()
    probability = torch.sigmoid(torch.tensor(0.7))
    assert torch.allclose(program.m.grad, 2 * (1 - probability))


def test_a_branch_that_cannot_happen_charges_nothing() -> None:
    """Its cost is not finite, and what is drawn in it is credited with that in all of its branches."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, probs=torch.tensor(1.0))
    y = g.sample("y", Bernoulli, logits=g.param("v", 0.4) * b)
    g.cost("c", (y + 0.3) / b)
    found = integrated_gradient(g, scg.compile(g, {"b": "enumerate", "y": "score"}))
    assert torch.allclose(found["v"], scg.exact_gradient(g)["v"], rtol=1e-9)


class Read(nn.Module):
    """A baseline that is what it reads, times what it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, value: Tensor) -> Tensor:
        return self.scale * value + 0.2


@pytest.mark.parametrize("u", [0.1, 0.9])
def test_a_baseline_reads_an_enumerated_sibling_at_its_sample(u: float) -> None:
    """The credit, in each branch of the node above, is the mean over its outcomes; the baseline reads one."""
    g = scg.Graph()
    a = g.sample("a", Bernoulli, logits=g.param("t", 0.1))
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.4))
    d = g.sample("d", Bernoulli, logits=a + g.param("v", -0.2))
    g.cost("c", (b + 2 * d - 0.3 + a) ** 2)
    score = scg.Score(baseline=Read(), context="b")
    program = scg.compile(g, {"a": "enumerate", "b": "enumerate", "d": score})
    program(noise={"a": torch.tensor(0.5), "b": torch.tensor(u), "d": torch.tensor(0.7)}).loss.backward()

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    expected, of_b = 0.0, sigmoid(0.4)
    for above, mass in ((0.0, 1 - sigmoid(0.1)), (1.0, sigmoid(0.1))):  # d is 1 in both
        credit = of_b * (2.7 + above) ** 2 + (1 - of_b) * (1.7 + above) ** 2
        expected += mass * (credit - (0.7 * (u > 0.5) + 0.2)) * (1 - sigmoid(above - 0.2))
    assert float(program.v.grad) == pytest.approx(expected, rel=1e-7)
