"""Sums over finite nodes, one after another: exact at any length, above and below other estimators."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from tests.support.integrate import integrated_gradient


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pick(table: Tensor, *index: Tensor) -> Tensor:
    return table[index]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(program: scg.Program, **inputs: Tensor) -> dict[str, Tensor]:
    program(seed=0, **inputs).loss.backward()
    return {name: p.grad for name, p in program.named_parameters() if p.grad is not None}


def states(g: scg.Graph, length: int, size: int) -> tuple[list[scg.Node], list[scg.Node]]:
    """A chain of hidden states, and what each costs."""
    start, step = g.param("start", numbers(0, size)), g.param("step", numbers(1, size, size))
    table = g.param("table", numbers(2, length, size))
    nodes: list[scg.Node] = []
    costs: list[scg.Node] = []
    for t in range(length):
        logits = g.det(f"logits{t}", pick, step, nodes[-1]) if nodes else start
        nodes.append(g.sample(f"z{t}", Categorical, logits=logits))
        costs.append(g.cost(f"c{t}", pick, table[t], nodes[-1]))
    return nodes, costs


def forward(program: scg.Program, length: int) -> dict[str, Tensor]:
    """The gradient by the forward recursion, written out."""
    held = {name: p.detach().clone().requires_grad_() for name, p in program.named_parameters()}
    mass, step = held["start"].softmax(-1), held["step"].softmax(-1)
    total = mass @ held["table"][0]
    for t in range(1, length):
        mass = mass @ step
        total = total + mass @ held["table"][t]
    total.backward()
    return {name: p.grad for name, p in held.items() if p.grad is not None}


@pytest.mark.parametrize("length", [1, 2, 60])
def test_a_chain_of_states_is_the_forward_recursion(length: int) -> None:
    g = scg.Graph()
    states(g, length, 7)
    program = scg.compile(g)
    assert {estimator.name for estimator in program.policy.values()} == {"enumerate"}
    found, expected = gradients(program), forward(program, length)
    assert {name: (found[name] - expected[name]).abs().max() < 1e-10 for name in expected} == dict.fromkeys(
        expected, True
    )


def test_lines_of_a_chain_are_as_many_as_its_nodes() -> None:
    lines = []
    for length in (20, 30, 40):
        g = scg.Graph()
        states(g, length, 3)
        lines.append(len(scg.compile(g, policy="enumerate").fx.graph.nodes))
    assert lines[1] - lines[0] == lines[2] - lines[1]


def test_a_tree_is_summed_from_its_leaves_or_from_its_root() -> None:
    """Values of parents are added up below, so that the mean of a leaf is that of its line of descent."""
    several = random.Random(0)
    g = scg.Graph()
    w = g.param("w", 0.7)
    nodes = [g.sample("b0", Bernoulli, logits=w)]
    mean = [torch.sigmoid(torch.tensor(0.7, requires_grad=True))]
    leaf = torch.tensor(0.7, requires_grad=True)
    mean, total = [torch.sigmoid(leaf)], torch.sigmoid(leaf)
    g.cost("c0", nodes[0])
    for k in range(1, 120):
        parent = several.randrange(k)
        nodes.append(g.sample(f"b{k}", Bernoulli, logits=w * nodes[parent] - 0.3))
        p = mean[parent]
        mean.append(p * torch.sigmoid(leaf - 0.3) + (1 - p) * torch.sigmoid(torch.tensor(-0.3)))
        total = total + mean[-1]
        g.cost(f"c{k}", nodes[-1])
    total.backward()
    found = gradients(scg.compile(g, policy="enumerate"))
    assert abs(found["w"] - leaf.grad) < 1e-10


def grid(rows: int, columns: int) -> scg.Graph:
    """Bits of which each reads those above and to the left of it."""
    g = scg.Graph()
    w = g.param("w", torch.tensor([0.4, -0.6, 0.9]))
    bits: dict[tuple[int, int], scg.Node] = {}
    for place in itertools.product(range(rows), range(columns)):
        i, j = place
        near = [bits[other] for other in ((i - 1, j), (i, j - 1)) if other in bits]
        bits[place] = g.sample(f"b{i}_{j}", Bernoulli, logits=g.det(f"l{i}_{j}", _ising, w, *near))
        if near:
            g.cost(f"c{i}_{j}", lambda b, *near: (b - sum(near)) ** 2, bits[place], *near)
    return g


def _ising(w: Tensor, *near: Tensor) -> Tensor:
    return w[0] + sum(w[k + 1] * b for k, b in enumerate(near)) if near else w[0] * 1.0


def test_a_small_grid_is_the_sum_over_all_of_its_bits() -> None:
    g = grid(3, 3)
    found, expected = gradients(scg.compile(g, policy="enumerate")), scg.exact_gradient(g)
    assert torch.allclose(found["w"], expected["w"], rtol=0, atol=1e-10)


def test_a_long_grid_is_what_its_columns_pass_on() -> None:
    """The same, by a recursion over columns of three bits."""
    columns = 8
    found = gradients(scg.compile(grid(3, columns), policy="enumerate"))["w"]
    w = torch.tensor([0.4, -0.6, 0.9], requires_grad=True)
    every = [torch.tensor(bits, dtype=torch.float64) for bits in itertools.product((0, 1), repeat=3)]
    total, mass = torch.zeros(()), torch.ones(1)
    before = [None]
    for _ in range(columns):
        step, cost = [], []
        for left in before:
            for now in every:
                chance, paid = torch.ones(()), torch.zeros(())
                for i in range(3):
                    near = ([now[i - 1]] if i else []) + ([left[i]] if left is not None else [])
                    p = torch.sigmoid(_ising(w, *near))
                    chance = chance * (p if now[i] else 1 - p)
                    paid = paid + ((now[i] - sum(near)) ** 2 if near else 0)
                step.append(chance)
                cost.append(paid)
        joint = mass[:, None] * torch.stack(step).view(len(before), 8)
        total = total + (joint * torch.stack(cost).view(len(before), 8)).sum()
        mass, before = joint.sum(0), every
    total.backward()
    assert torch.allclose(found, w.grad, rtol=0, atol=1e-10)


def test_a_factorial_chain_is_summed_factor_by_factor() -> None:
    """Three chains of bits that meet in every cost: their pairs of steps would be 64 joint outcomes."""
    g = scg.Graph()
    w = g.param("w", torch.tensor([0.5, -0.8, 0.2]))
    last: list[scg.Node | None] = [None] * 3
    for t in range(30):
        now = []
        for k in range(3):
            logits = w[k] if last[k] is None else w[k] * (2 * last[k] - 1) + 0.1
            now.append(g.sample(f"b{t}_{k}", Bernoulli, logits=logits))
        g.cost(f"c{t}", lambda *bits: (sum(bits) - 1.2) ** 2, *now)
        last = list(now)
    found = gradients(scg.compile(g, policy="enumerate"))["w"]
    v = torch.tensor([0.5, -0.8, 0.2], requires_grad=True)
    p, total = torch.sigmoid(v), torch.zeros(())
    for t in range(30):
        if t:
            p = p * torch.sigmoid(v + 0.1) + (1 - p) * torch.sigmoid(-v + 0.1)
        total = total + (p.sum() - 1.2) ** 2 + (p * (1 - p)).sum()
    total.backward()
    assert torch.allclose(found, v.grad, rtol=0, atol=1e-10)


def test_what_cannot_be_summed_is_refused_with_what_meets_and_what_would_help() -> None:
    g = grid(16, 16)
    with pytest.raises(scg.EstimatorError) as refused:
        scg.compile(g, policy="enumerate")
    told = str(refused.value)
    assert "joint outcomes are over the limit of 4096" in told and "and 20 more" in told, told
    assert "Give the first" in told and "raise limit=" in told, told


# Small graphs in which estimators meet.


def between(g: scg.Graph) -> None:
    """A drawn node between states, and costs of what lies on both sides."""
    w = g.param("w", torch.tensor([0.3, -0.7, 0.8]))
    a = g.sample("a", Bernoulli, logits=w[0])
    s = g.sample("s", Bernoulli, logits=w[1] + a)
    b = g.sample("b", Bernoulli, logits=w[2] * s - 0.4)
    g.cost("c", (a + 2 * s - b) ** 2)
    g.cost("d", (b - 0.3) ** 2)


def late(g: scg.Graph) -> None:
    """A node below a chain of states, whose cost reads the first of them: it depends on what s gives."""
    w = g.param("w", torch.tensor([0.3, -0.7, 0.8]))
    a = g.sample("a", Bernoulli, logits=w[0])
    b = g.sample("b", Bernoulli, logits=w[1] + 1.5 * a)
    s = g.sample("s", Bernoulli, logits=w[2] * b - 0.4)
    g.cost("c", (a + 2 * s - 0.6) ** 2)


def fork(g: scg.Graph) -> None:
    """Two states of one, a node below one of them, and a cost of the other."""
    w = g.param("w", torch.tensor([0.3, -0.7, 0.8]))
    a = g.sample("a", Bernoulli, logits=w[0])
    b = g.sample("b", Bernoulli, logits=w[1] + 1.5 * a)
    e = g.sample("e", Bernoulli, logits=w[1] - 0.9 * a)
    s = g.sample("s", Bernoulli, logits=w[2] * b - 0.4)
    g.cost("c", (e - 2 * s + 0.6) ** 2)
    g.cost("d", e * b)


def over(g: scg.Graph) -> None:
    """A node above two states, in two plates: one is joined, one is not."""
    x = g.input("x", plates="batch", example=torch.tensor([0.4, -0.5]))
    w = g.param("w", torch.tensor([0.3, -0.7]))
    s = g.sample("s", Bernoulli, logits=w[0] * x)
    g.plate("part", size=2)
    a = g.sample("a", Bernoulli, logits=w[1] + s, plates=("batch", "part"))
    b = g.sample("b", Bernoulli, logits=g.det("m", lambda a: a.sum(-1) - 0.8, a, plates=("batch",)))
    e = g.sample("e", Bernoulli, logits=b + w[0])
    g.cost("c", (e + s - 0.4) ** 2)
    g.cost("d", (a - 0.3) ** 2)


def outside(g: scg.Graph) -> None:
    """A state without plates above states of each element, whose cost reads both ends."""
    g.plate("batch", size=2)
    w = g.param("w", torch.tensor([0.3, -0.7]))
    a = g.sample("a", Bernoulli, logits=w[0])
    b = g.sample("b", Bernoulli, logits=w[1] + a, plates="batch")
    s = g.sample("s", Bernoulli, logits=w[0] - 0.5 * b)
    e = g.sample("e", Bernoulli, logits=s - 0.3 * b + w[1])
    g.cost("c", (e + a - 0.4) ** 2 + s)


def apart(g: scg.Graph) -> None:
    """Two states without plates, one above the other, above a state of each element; each has a cost."""
    g.plate("batch", size=3, reduce="sum")
    w = g.param("w", torch.tensor([0.3, -0.7]))
    a = g.sample("a", Bernoulli, logits=w[0])
    b = g.sample("b", Bernoulli, logits=w[1] + a)
    v = g.param("v", torch.tensor([-0.5, 0.2, 0.9]), plates="batch")
    e = g.sample("e", Bernoulli, logits=v * b - a)
    g.cost("c", 0.7 * e)
    g.cost("d", 0.6 * b)
    s = g.sample("s", Bernoulli, logits=w[0] * e - 0.4)
    g.cost("f", (s - 0.4) ** 2)


def mean(g: scg.Graph) -> None:
    """A state below the mean of elements, and above states of each of them."""
    g.plate("batch", size=2)
    w = g.param("w", torch.tensor([0.3, -0.7, 0.8]))
    s = g.sample("s", Bernoulli, logits=w[0], plates="batch")
    a = g.sample("a", Bernoulli, logits=w[1] * s)
    m = g.det("m", lambda s: s.mean(-1), s, plates=())
    b = g.sample("b", Bernoulli, logits=w[2] * m - 0.4)
    e = g.sample("e", Bernoulli, logits=b - a)
    g.cost("c", (e - 0.4 * a) ** 2)
    g.cost("d", (b - m) ** 2)


GRAPHS = [between, late, fork, over, outside, apart, mean]
PLATED = (over, outside, apart, mean)
POLICIES = ["enumerate", "score", "local", "rebar"]


@pytest.mark.parametrize("estimator", POLICIES)
@pytest.mark.parametrize("make", GRAPHS)
def test_sums_meet_other_estimators(make: Callable[[scg.Graph], None], estimator: str) -> None:
    g = scg.Graph()
    make(g)
    program = scg.compile(g, policy={"*": "enumerate", "s": estimator})
    if estimator == "rebar" or make in PLATED:
        assert scg.verify(program, resolution=0.05, noise=1).verdict == "unbiased"
        return
    found, expected = integrated_gradient(g, program), scg.exact_gradient(g)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-10), (name, found, expected)


@pytest.mark.parametrize("make", GRAPHS)
def test_all_that_is_summed_is_exact(make: Callable[[scg.Graph], None]) -> None:
    g = scg.Graph()
    make(g)
    inputs = {"x": torch.tensor([0.4, -0.5])} if "x" in g else {}
    found, expected = gradients(scg.compile(g, policy="enumerate"), **inputs), scg.exact_gradient(g, **inputs)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-10), (name, found, expected)


@pytest.mark.parametrize("make", GRAPHS)
def test_replicates_have_branches_of_their_own(make: Callable[[scg.Graph], None]) -> None:
    g = scg.Graph()
    make(g)
    score = scg.Score(baseline="leave-one-out")
    program = scg.compile(g, policy={"*": "enumerate", "s": score}, samples=2)
    assert scg.verify(program, resolution=0.05, noise=1).verdict == "unbiased"


def test_a_value_passes_on_with_its_gradient_between_states() -> None:
    g = scg.Graph()
    w = g.param("w", torch.tensor([0.3, -0.7]))
    a = g.sample("a", Bernoulli, logits=w[0])
    x = g.sample("x", Normal, w[1] + a, 0.7)
    b = g.sample("b", Bernoulli, logits=x * w[0])
    e = g.sample("e", Bernoulli, logits=b - w[1])
    g.cost("c", (e + a - 0.4) ** 2 * (1 + x**2))
    program = scg.compile(g)
    assert [program.policy[name].name for name in "axbe"] == [
        "enumerate",
        "reparam",
        "enumerate",
        "enumerate",
    ]
    found, expected = integrated_gradient(g, program), scg.exact_gradient(g)
    assert torch.allclose(found["w"], expected["w"], rtol=0, atol=1e-8)


def test_steps_of_a_chain_that_are_alike_are_written_once() -> None:
    g = scg.Graph()
    step, table = g.param("step", torch.randn(3, 3)), g.param("table", torch.randn(3))
    state = g.sample("z0", Categorical, logits=g.param("start", torch.randn(3)))
    for t in range(1, 6):
        state = g.sample(f"z{t}", Categorical, logits=step[state])
        g.cost(f"c{t}", table[state])
    text = scg.compile(g, "enumerate").code
    assert len(re.findall(r"scg_z\d_enumerate\(\{", text)) == 2
    assert text.count("scg_rows(step, ") == 1


def test_supports_of_different_sizes_are_apart() -> None:
    g = scg.Graph()
    torch.manual_seed(0)
    one = g.sample("one", Categorical, logits=g.param("a", torch.randn(3, dtype=torch.float64)))
    step = g.param("step", torch.randn(3, 4, dtype=torch.float64))
    other = g.sample("other", Categorical, logits=step[one])
    g.cost("c", g.param("table", torch.randn(4, dtype=torch.float64))[other])
    program = scg.compile(g, "enumerate")
    program().loss.backward()
    for name, expected in scg.exact_gradient(g).items():
        torch.testing.assert_close(g[name].value.grad, expected)
