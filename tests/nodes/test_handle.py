"""Handles: operators, torch functions and Tensor methods declare nodes that compute what torch computes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

import scg

A = torch.tensor([[1.5, -2.0], [0.25, 3.0]])
B = torch.tensor([[2.0, 0.5], [-1.5, 1.0]])

ARITHMETIC = [
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.floordiv, operator.mod, operator.pow, operator.matmul),
]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
UNARY = [operator.neg, operator.pos, operator.abs]
LOGICAL = [operator.and_, operator.or_, operator.xor]

TORCH: dict[str, Callable[[Any, Any], Any]] = {
    "sigmoid": lambda a, b: torch.sigmoid(a),
    "where": lambda a, b: torch.where(a > b, a, b),
    "stack": lambda a, b: torch.stack([a, b], -1),
    "cat": lambda a, b: torch.cat((a, b), dim=0),
    "einsum": lambda a, b: torch.einsum("ij,jk->ik", a, b),
    "max by keyword": lambda a, b: torch.amax(a, dim=1, keepdim=True),
    "clamp by keyword": lambda a, b: torch.clamp(a, min=-1.0, max=1.0),
    "softplus": lambda a, b: F.softplus(a, beta=2.0),
    "nested": lambda a, b: torch.logsumexp(torch.stack([a * 2, b]), 0),
    "tensor and node": lambda a, b: torch.maximum(A * 2, b),
    "sum": lambda a, b: a.sum(-1),
    "mean": lambda a, b: a.mean(dim=0, keepdim=True),
    "view": lambda a, b: a.view(4)[1:3],
    "reshape": lambda a, b: a.reshape(-1, 1).squeeze(-1),
    "transpose": lambda a, b: a.T @ b,
    "mT": lambda a, b: a.mT,
    "permute": lambda a, b: a.permute(1, 0),
    "float": lambda a, b: (a > 0).float(),
    "method with node": lambda a, b: a.mul(b).add(1.0),
    "clamp method": lambda a, b: a.clamp(min=0.0),
    "ellipsis": lambda a, b: a[..., 0],
    "index list": lambda a, b: a[[1, 0]],
    "mask": lambda a, b: a[b > 0],
    "none": lambda a, b: a[:, None],
    "slice": lambda a, b: a[:, ::1][0:1],
    "invert": lambda a, b: ~(a > 0),
    "detach": lambda a, b: a.detach(),
    "chain": lambda a, b: ((a - 0.499) ** 2 / (b.abs() + 1)).sum(-1).log1p(),
}


def evaluated(expression: Callable[[Any, Any], Any], a: Any = A, b: Any = B) -> Any:
    """Return what an expression in nodes gives in a graph without costs."""
    g = scg.Graph()
    left = g.input("left", example=a) if isinstance(a, Tensor) else a
    right = g.input("right", example=b) if isinstance(b, Tensor) else b
    node = expression(left, right)
    assert isinstance(node, scg.Node)
    given = {name: value for name, value in (("left", a), ("right", b)) if isinstance(value, Tensor)}
    return scg.compile(g, keep=[node])(**given).kept[node.name]


def same(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and torch.allclose(found, expected, equal_nan=True)


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS, ids=lambda op: op.__name__)
def test_binary_operators(op: Callable[[Any, Any], Any]) -> None:
    assert same(evaluated(op), op(A, B))
    if op is not operator.matmul:
        assert same(evaluated(op, A, 2.0), op(A, 2.0))


@pytest.mark.parametrize("op", ARITHMETIC, ids=lambda op: op.__name__)
def test_reflected_operators(op: Callable[[Any, Any], Any]) -> None:
    if op is operator.matmul:
        assert same(evaluated(lambda a, b: b.__rmatmul__(A)), op(A, B))
        return
    assert same(evaluated(op, 2.0, B), op(2.0, B))


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS, ids=lambda op: op.__name__)
def test_a_tensor_on_the_left_declares_a_node_as_well(op: Callable[[Any, Any], Any]) -> None:
    assert same(evaluated(lambda a, b: op(A, b)), op(A, B))


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.__name__)
def test_unary_operators(op: Callable[[Any], Any]) -> None:
    assert same(evaluated(lambda a, b: op(a)), op(A))


@pytest.mark.parametrize("op", LOGICAL, ids=lambda op: op.__name__)
def test_logical_operators(op: Callable[[Any, Any], Any]) -> None:
    assert same(evaluated(lambda a, b: op(a > 0, b > 0)), op(A > 0, B > 0))
    assert same(evaluated(lambda a, b: op(True, b > 0)), op(True, B > 0))


@pytest.mark.parametrize("name", TORCH)
def test_torch_functions_and_tensor_methods(name: str) -> None:
    assert same(evaluated(TORCH[name]), TORCH[name](A, B))


def test_every_operation_is_a_node_with_a_name_of_its_own() -> None:
    g = scg.Graph()
    a = g.param("a", 1.0)
    names = [(a + 1).name, (a + 1).name, torch.sigmoid(a).name, a.sum().name]
    assert names == ["add_1", "add_2", "sigmoid_1", "sum_1"]
    assert all(name in g for name in names)


def test_a_tuple_of_names_gives_as_many_nodes() -> None:
    g = scg.Graph()
    mu, s = g.det(("mu", "s"), lambda x: (x + 1, x.exp()), g.param("x", 0.0))
    assert (mu.name, s.name) == ("mu", "s")
    kept = scg.compile(g, keep=[mu, s])().kept
    assert float(kept["mu"]) == 1.0 and float(kept["s"]) == 1.0


def test_handles_are_hashable_and_say_their_names() -> None:
    g = scg.Graph()
    a = g.param("a", 1.0)
    assert len({a, g["a"], a}) == 2
    assert repr(a) == "<node 'a'>"


def test_only_parameters_have_a_value() -> None:
    g = scg.Graph()
    held = nn.Parameter(torch.ones(2))
    assert g.param("a", held).value is held
    with pytest.raises(scg.GraphError, match="only parameters have a value; 'x'"):
        _ = g.input("x").value


def iterate(node: scg.Node) -> None:
    for _ in node:
        pass


def write(node: scg.Node) -> None:
    node[0] = 1.0


MISUSES: dict[str, tuple[Callable[[scg.Node], Any], str]] = {
    "condition": (lambda n: 1 if n > 0 else 0, "used as a condition"),
    "float": (lambda n: float(n), "turned into a float"),
    "int": (lambda n: int(n), "turned into an int"),
    "index": (lambda n: [1, 2][n], "used as an index"),
    "len": (lambda n: len(n), "asked for its length"),
    "iteration": (iterate, "iterated over"),
    "unpacking": (lambda n: (lambda a, b: a)(*n), "iterated over"),
    "containment": (lambda n: 1.0 in n, "searched"),
    "writing": (write, "written to"),
    "item": (lambda n: n.item(), r"asked for its \.item"),
    "tolist": (lambda n: n.tolist(), r"asked for its \.tolist"),
    "numpy": (lambda n: n.numpy(), r"asked for its \.numpy"),
    "shape": (lambda n: n.shape, r"asked for its \.shape"),
    "in place": (lambda n: n.add_(1), r"asked for its \.add_"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_what_needs_a_value_says_what_to_write(name: str) -> None:
    act, words = MISUSES[name]
    node = scg.Graph().param("t", torch.zeros(2))
    with pytest.raises(
        scg.GraphError, match=rf"{words}.*no value while the graph is declared: write g\.det\("
    ):
        act(node)


@pytest.mark.parametrize(
    "build",
    [
        lambda n: Bernoulli(logits=n),
        lambda n: Categorical(logits=n),
        lambda n: torch.distributions.Normal(n, 1.0),
        lambda n: torch.distributions.Normal(0.0, n),
        lambda n: torch.distributions.Independent(torch.distributions.Normal(n, 1.0), 1),
    ],
)
def test_a_distribution_of_a_node_says_how_to_declare_it(build: Callable[[Any], Any]) -> None:
    node = scg.Graph().param("t", torch.zeros(3))
    with pytest.raises(scg.GraphError, match=r"distribution was built on node 't'.*g\.sample\("):
        build(node)


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.LayerNorm(3), nn.Conv1d(3, 1, 1)])
def test_a_module_applied_to_a_node_says_how_to_declare_it(module: nn.Module) -> None:
    node = scg.Graph().param("t", torch.zeros(3))
    with pytest.raises(scg.GraphError, match=r'node \'t\': write g\.det\("name", module, node\)'):
        module(node)


def test_private_attributes_are_attribute_errors() -> None:
    node = scg.Graph().param("t", 0.0)
    assert not hasattr(node, "_no_such_thing")
    with pytest.raises(AttributeError, match="node 't' has no attribute '_no_such_thing'"):
        _ = node._no_such_thing
