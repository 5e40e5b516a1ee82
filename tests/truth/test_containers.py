"""Containers as parents, values and inputs, lookups by discrete values, and experts in any width and type."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal
from torch.func import functional_call

import scg
from tests.selection import by_turns, some
from tests.support.running import gradients, label
from tests.truth.building import double
from tests.truth.right_programs import Called, Mapped, Output, copied_experts, experts

SAMPLES = [None, 3]


def start(size: int = 4) -> tuple[scg.Graph, scg.Node, scg.Node]:
    """Return a graph with an input [batch, 3] and a Normal around it."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=double([[0.2, -0.4, 1.0]] * size))
    return g, x, g.sample("z", Normal, loc=x * g.param("w", double([0.5, 1.0, -0.3])), scale=0.4)


def squared(h: Tensor) -> Tensor:
    return (h.flatten(1) - 0.3).square().mean(-1)


def is_right(g: scg.Graph, samples: int | None, by_hand: Callable[[Tensor], Tensor]) -> None:
    """Hold the gradient of a program to that of torch alone: ``by_hand(z)`` is its cost [batch]."""
    program = scg.compile(g, samples=samples)
    for size in (4, 1, 6):
        x = torch.sin(torch.arange(3.0 * size)).double().view(size, 3)
        program.zero_grad()
        estimate = program(x=x, seed=1)
        estimate.loss.backward()
        parameters = dict(g.named_parameters())
        found = {name: p.grad for name, p in parameters.items()}
        location = x * parameters["w"]
        noise = (estimate.samples["z"] - location).detach().reshape(-1, size, 3)
        loss = torch.stack([by_hand(location + world).mean() for world in noise]).mean()
        expected = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        assert torch.allclose(estimate.loss, loss)
        for name, part in zip(parameters, expected, strict=True):
            if part is None:  # of a network whose weights are nodes
                assert found[name] is None, name
            else:
                assert found[name] is not None and torch.allclose(found[name], part), name


@dataclass
class Pair:
    """Two values under names."""

    first: Any
    second: Any


class Named(NamedTuple):
    """Two values under names, and in an order."""

    first: Any
    second: Any


PACKED: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Tensor]]] = {
    "dict": (lambda a, b: {"first": a, "second.part": b}, lambda both: both["first"] * both["second.part"]),
    "dataclass": (Pair, lambda both: both.first * both.second),
    "named tuple": (Named, lambda both: both.first * both.second),
    "nested": (lambda a, b: {"in": [a, {"deep": b}]}, lambda both: both["in"][0] * both["in"][1]["deep"]),
}


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("kind", PACKED)
def test_a_container_of_nodes_is_a_parent(kind: str, samples: int | None) -> None:
    pack, fn = PACKED[kind]
    g, x, z = start()
    g.cost("c", squared, g.det("h", fn, pack(z, g.param("v", double(0.7)))))
    is_right(g, samples, lambda z: squared(z * g["v"].value))


RETURNED: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": lambda z: Output(logits=2 * z, hidden=z),
    "ordered dict": lambda z: Mapped(logits=2 * z, hidden=z),
}


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("kind", RETURNED)
def test_an_attribute_of_a_node_is_that_of_its_value(kind: str, samples: int | None) -> None:
    g, x, z = start()
    out = g.det("out", RETURNED[kind], z)
    g.cost("c", squared, out.logits)
    is_right(g, samples, lambda z: squared(2 * z))


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("kind", RETURNED)
def test_a_function_reads_what_another_returns(kind: str, samples: int | None) -> None:
    g, x, z = start()
    g.cost("c", lambda out: squared(out.logits), g.det("out", RETURNED[kind], z))
    is_right(g, samples, lambda z: squared(2 * z))


@pytest.mark.parametrize("samples", SAMPLES)
def test_weights_of_a_network_are_nodes(samples: int | None) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    g, x, z = start()
    nodes = {name: "net_" + name.replace(".", "_") for name, _ in net.named_parameters()}
    weights = {name: g.param(nodes[name], p.detach().clone()) for name, p in net.named_parameters()}
    g.cost("c", squared, g.det("h", functional_call, net, weights, (z,)))

    def by_hand(z: Tensor) -> Tensor:
        live = {name: g[nodes[name]].value for name in weights}
        return squared(functional_call(net, live, (z,)))

    is_right(g, samples, by_hand)


@pytest.mark.parametrize("samples", SAMPLES)
def test_an_input_is_a_dict(samples: int | None) -> None:
    def example(size: int) -> dict[str, Tensor]:
        ids = torch.arange(size * 5).view(size, 5) % 7
        return {"ids": ids, "mask": (ids % 3 > 0).double()}

    g = scg.Graph()
    torch.manual_seed(0)
    tokens = g.input("tokens", plates="batch", example=example(4))
    table = nn.Embedding(7, 3).double()

    def encode(table: nn.Module, tokens: dict[str, Tensor]) -> Tensor:
        return (table(tokens["ids"]) * tokens["mask"][..., None]).sum(1)

    h = g.det("h", Called(encode, table), tokens)
    z = g.sample("z", Normal, loc=h * g.param("w", double(0.5)), scale=0.3)
    g.cost("c", squared, z)
    program = scg.compile(g, samples=samples)
    for size in (4, 1, 6):
        assert gradients(program, tokens=example(size), seed=0)["w"].isfinite().all()


@pytest.mark.parametrize("samples", SAMPLES)
def test_a_class_is_looked_up(samples: int | None) -> None:
    """An Embedding of an integer Categorical, with its relaxation, and a cross-entropy at its value."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.ones(4, 3).double())
    table = nn.Embedding(3, 2).double()
    k = g.sample("k", Categorical, logits=x * g.param("w", double([0.5, -0.3, 0.1])))
    h = g.det("h", table, k)
    g.cost("c", squared, h)
    g.cost("d", lambda k, x: F.cross_entropy(x, k.long(), reduction="none"), k, x)
    program = scg.compile(g, samples=samples)
    for size in (4, 1, 6):
        assert gradients(program, x=torch.ones(size, 3).double(), seed=0)["w"].isfinite().all()


WIDTHS, SIZES, TYPES = (8, 24, 33, 64, 128), (3, 16), (torch.float32, torch.float64)
SHAPES = list(itertools.product(WIDTHS, SIZES, TYPES))


@pytest.mark.filterwarnings("ignore::scg.GradientWarning")  # of the choice of experts
@pytest.mark.parametrize(
    "shape, fn", by_turns(some(SHAPES[1:] + SHAPES[:1], 5), [experts, copied_experts]), ids=label
)
def test_sparse_experts_do_not_cross_the_plate(
    shape: tuple[int, int, torch.dtype], fn: Callable[..., Tensor]
) -> None:
    """Products of other numbers of rows round differently, which is not crossing."""
    width, size, dtype = shape
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.randn(size, 1, width, dtype=dtype))
    b = g.sample("b", Bernoulli, logits=x)
    parts = [nn.Linear(width, count).to(dtype) for count in (2, width, width)]
    g.cost("c", lambda h: h.square().mean(-1), g.det("h", Called(fn, *parts), b))
    g.check()
    program = scg.compile(g, policy="score")
    found = gradients(program, x=torch.randn(size + 2, 1, width, dtype=dtype), seed=0)
    assert any(name.startswith("h.") for name in found)
