"""A graph as code: the text builds the same graph, or the node that cannot be written is named."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from scg.estimators.registry import registry
from scg.testing import as_code, graphs
from scg.testing.options import VARIANTS

SCALE = 1.5
WEIGHTS = torch.tensor([0.25, -1.0], dtype=torch.float64)
LEARNED = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
LOG: list[float] = []


def rebuilt(g: scg.Graph) -> scg.Graph:
    """Paste the text of a graph."""
    space: dict[str, Any] = {}
    exec(as_code(g), space)
    found = space["g"]
    assert isinstance(found, scg.Graph)
    return found


def assert_the_same(g: scg.Graph) -> str:
    again = rebuilt(g)
    one, other = scg.exact_gradient(g, points=4), scg.exact_gradient(again, points=4)
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    given = g.freeze().store.examples
    ran, also = (scg.compile(graph)(seed=0, **given) for graph in (g, again))
    assert all(torch.equal(ran.costs[name], also.costs[name]) for name in ran.costs)
    return as_code(g)


@given(graphs())
def test_drawn_graphs_are_built_again(g: scg.Graph) -> None:
    again = rebuilt(g)
    assert as_code(again.__class__()) == "import scg\n\ng = scg.Graph()"
    one, other = scg.exact_gradient(g, points=4), scg.exact_gradient(again, points=4)
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def scaled(x: Tensor, *, by: float = 2.0) -> Tensor:
    """A function of a file that reads a constant of it."""
    return SCALE * by * x


def twice(x: Tensor) -> Tensor:
    return 2 * scaled(x, by=0.25)


def power(x: Tensor, n: int) -> Tensor:
    return x if n == 1 else x * power(x, n - 1)


def with_a_number(k: float) -> Callable[[Tensor], Tensor]:
    def inner(x: Tensor) -> Tensor:
        return torch.tanh(x) ** k

    return inner


def noted(x: Tensor) -> Tensor:
    global SCALE
    SCALE = 2.0
    return x


def bit() -> tuple[scg.Graph, Any]:
    g = scg.Graph()
    return g, g.sample("b", Bernoulli, logits=g.param("w", torch.tensor(0.4, dtype=torch.float64)))


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "of torch": (torch.sigmoid, "torch.sigmoid, b"),
    "of torch.nn.functional": (F.softplus, "torch.nn.functional.softplus, b"),
    "method": (Tensor.exp, "torch.Tensor.exp, b"),
    "lambda": (lambda x: x * 2 - 1, "lambda x: x * 2 - 1, b"),
    "two lambdas in a line": ((lambda x: x + 1, lambda x: x + 2)[1], "lambda x: x + 2, b"),
    "lambda of a condition": (lambda x: x if SCALE > 1 else -x, "lambda x: x if 1.5 > 1 else -x, b"),
    "lambda in a lambda": ((lambda k: lambda x: x * k)(3), "lambda x: x * 3, b"),
    "default": ((lambda k: lambda x, k=k: x * k)(3), "lambda x, k=3: x * k, b"),
    "module under another name": (lambda x: F.relu(x), "lambda x: F.relu(x), b"),
    "function": (scaled, "scaled, b"),
    "function of functions": (twice, "twice, b"),
    "closure": (with_a_number(3.0), "inner, b"),
    "partial": (functools.partial(power, n=3), "partial(power, n=3), b"),
    "tensor": (lambda x: (x * WEIGHTS).sum(), "lambda x: (x * WEIGHTS).sum(), b"),
    "parameter": (lambda x: x * LEARNED, "lambda x: x * LEARNED, b"),
    "comprehension": (lambda x: sum(x * k for k in range(3)), "lambda x: sum((x * k for k in range(3))), b"),
    "number of a library": (lambda x: x * math.pi, "lambda x: x * math.pi, b"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_written_by_their_source(name: str) -> None:
    fn, text = FUNCTIONS[name]
    g, b = bit()
    g.cost("c", fn, b)
    assert f'g.cost("c", {text})' in assert_the_same(g)


def test_a_tensor_that_functions_share_is_written_once() -> None:
    g, b = bit()
    g.det("h", lambda x: x * LEARNED, b)
    g.cost("c", lambda h: h + LEARNED, g["h"])
    assert assert_the_same(g).count("torch.nn.Parameter") == 1


def test_names_that_nodes_have_are_left_to_them() -> None:
    g = scg.Graph("names")
    w = g.param("F", torch.tensor(0.4, dtype=torch.float64))
    total = g.det("sum", lambda x: F.relu(x) * SCALE, w)
    b = g.sample("Bernoulli", Bernoulli, logits=total)
    g.cost("g", lambda x, y: sum((x, y)), b, total)
    text = assert_the_same(g)
    assert "from torch.distributions import Bernoulli as Bernoulli_2" in text
    assert "import torch.nn.functional as F_2" in text
    assert 'Bernoulli = g.sample("Bernoulli", Bernoulli_2, logits=g["sum"])' in text


def test_what_is_written_with_nodes_is_written_so() -> None:
    g = scg.Graph()
    x = g.input("x", torch.tensor([[0.5, 1.0], [0.0, 2.0]], dtype=torch.float64), plates="batch")
    w = g.param("w", torch.tensor([0.5, -1.0], dtype=torch.float64))
    h = (x * w).sum(-1) + x[..., 0].exp() - 1
    b = g.sample("b", Bernoulli, logits=torch.tanh(h))
    g.cost("c", (b - h.clamp(min=0.25)) ** 2)
    g.cost("d", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=0.5 * torch.ones(2, dtype=torch.float64)))
    text = assert_the_same(g)
    for line in (
        "mul_1 = x * w",
        "sum_1 = mul_1.sum(-1)",
        "getitem_1 = x[..., 0]",
        "tanh_1 = torch.tanh(sub_1)",
    ):
        assert line in text, text


def test_options_are_kept() -> None:
    g = scg.Graph()
    g.plate("batch", size=2, reduce="sum")
    g.plate("time", size=3, ordered=True, discount=0.5)
    w = g.param("w", nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False), plates="batch")
    v = g.param("v", torch.zeros(2, dtype=torch.float64), plates="batch")
    mean, spread = g.det(("mean", "spread"), lambda w, v: (w + v, torch.exp(v)), w, v)
    z = g.sample("z", Normal, mean, scale=spread)
    k = g.sample("k", Categorical, logits=torch.zeros(3, dtype=torch.float64), plates=("batch", "time"))
    m = g.det("m", lambda z: z - z.mean(), z, mixes="batch", differentiable=True)
    r = g.det("r", lambda k: k.double(), k, relaxed=lambda k: k[..., 1])
    g.cost("c", lambda m, r: m * r, m, r)
    g.cost("d", lambda parts: parts["z"] + parts["k"][0], {"z": z, "k": [r, 2.0]})
    again = rebuilt(g).freeze()
    for name, record in zip(g, g.freeze().records(), strict=True):
        other = again[name]
        assert vars(record).keys() == vars(other).keys()
        for key in ("plates", "mixes", "differentiable", "value", "of"):
            assert getattr(record, key, None) == getattr(other, key, None)
    assert again["r"].relaxed is not None  # type: ignore[attr-defined]
    assert dict(again.plates) == dict(g.freeze().plates)
    assert 'mean, spread = g.det(("mean", "spread"), lambda w, v: (w + v, torch.exp(v)), w, v)' in as_code(g)


class Called:
    def __call__(self, x: Tensor) -> Tensor:
        return x


typed = eval("lambda x: x * 2")
REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "module": (nn.Identity(), "a Identity, a module, which has no source"),
    "typed in": (typed, "'<lambda>', of which <string> has no source"),
    "object": (Called(), "a Called, which has no source"),
    "method": (Called().__call__, "'Called.__call__', which has no source"),
    "state": (noted, "'noted', which changes 'SCALE' outside of itself"),
    "captured object": (
        (lambda held: lambda x: held(x))(Called()),
        "which reads 'held': a Called, which has no source",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_source_is_refused_by_name(name: str) -> None:
    fn, told = REFUSED[name]
    g, b = bit()
    g.cost("c", fn, b)
    with pytest.raises(scg.GraphError, match=rf"as_code cannot write node 'c' \(.*{re.escape(told)}"):
        as_code(g)


def test_a_file_that_changed_is_no_source(tmp_path: Any) -> None:
    file = tmp_path / "changing.py"
    file.write_text("double = lambda x: x * 2\n")
    space: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), space)
    file.write_text("double = lambda x: x * 3\n")
    g, b = bit()
    g.cost("c", space["double"], b)
    with pytest.raises(scg.GraphError, match=r"which is not what .*changing\.py:1 says now"):
        as_code(g)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(0.1),
        torch.tensor([[1e-30, -0.0, math.inf]]),
        torch.tensor([1 / 3], dtype=torch.float64),
        torch.tensor([0.1, math.nan], dtype=torch.bfloat16),
        torch.tensor([[1], [2]]),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.empty(0, 3),
    ],
    ids=str,
)
def test_numbers_are_kept_to_the_last_bit(value: Tensor) -> None:
    g = scg.Graph()
    g.cost("c", lambda x: x.abs().sum().float(), g.input("x", value))
    found = rebuilt(g).freeze().store.examples["x"]
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert str(found.tolist()) == str(value.tolist())


@pytest.mark.parametrize("name", sorted(registry()))
def test_policies_follow_as_calls(name: str) -> None:
    g, b = bit()
    g.cost("c", lambda x: x**2, b)
    several: list[scg.Estimator] = [make() for make in VARIANTS.get(name, ())]
    for estimator in [registry()[name](), *several]:
        space: dict[str, Any] = {}
        exec(as_code(g, policy={"b": estimator}), space)
        assert repr(space["policy"]) == repr({"b": estimator})


def test_an_estimator_at_several_nodes_is_one() -> None:
    g, b = bit()
    g.cost("c", lambda x: x**2, g.sample("d", Bernoulli, logits=b))
    both = scg.RELAX()
    space: dict[str, Any] = {}
    exec(as_code(g, policy={"b": both, "d": both}), space)
    assert space["policy"]["b"] is space["policy"]["d"]
    exec(as_code(g, policy={"b": "score", "d": both}), space)
    assert space["policy"]["b"] == "score"
    exec(as_code(g, policy="rebar", inputs={}), space)
    assert (space["policy"], space["inputs"]) == ("rebar", {})
    with pytest.raises(scg.GraphError, match="as_code cannot write the policy of 'b': parts have no text"):
        as_code(g, policy={"b": scg.Parts({"c": "score"})})
