"""Captured modules and parameters: found by whatever way a function reaches them, and held by the program."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg.analysis.captured import captures
from scg.analysis.reach import reach

NET = nn.Linear(2, 2)
SCALE = nn.Parameter(torch.tensor(0.7))


class Plain:
    """Not a module, but holds some."""

    critic: nn.Module

    def __init__(self, net: nn.Module) -> None:
        self.decoder = net
        self.critic = nn.Linear(9, 9)
        self.layers = {"first": [net]}

    def method(self, x: Tensor) -> Tensor:
        return self.helper(x)

    def helper(self, x: Tensor) -> Tensor:
        result: Tensor = self.decoder(x)
        return result

    @property
    def network(self) -> nn.Module:
        return self.decoder


class Calling(Plain):
    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers["first"][0](x)
        return result


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net


class Model(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.inner = net

    def encode(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


def by_global(x: Tensor) -> Tensor:
    result: Tensor = NET(x)
    return result


def given_object(holder: Slotted, x: Tensor) -> Tensor:
    result: Tensor = holder.net(x)
    return result


def closing(net: nn.Module) -> Callable[[Tensor], Tensor]:
    nets = {"a": [net]}

    def inner(x: Tensor) -> Tensor:
        return torch.stack([apply(row) for row in [x]])[0]

    def apply(x: Tensor) -> Tensor:
        result: Tensor = nets["a"][0](x)
        return result

    return inner


def slotted(net: nn.Module) -> Callable[[Tensor], Tensor]:
    holder = Slotted(net)
    return lambda x: given_object(holder, x)


def by_property(net: nn.Module) -> Callable[[Tensor], Tensor]:
    plain = Plain(net)
    return lambda x: plain.network(x)  # type: ignore[no-any-return]


def by_name(net: nn.Module) -> Callable[[Tensor], Tensor]:
    plain = Plain(net)
    return lambda x: getattr(plain, "deco" + "der")(x)  # type: ignore[no-any-return]


WAYS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "closure": lambda net: lambda x: net(x),  # type: ignore[no-any-return]
    "default": lambda net: lambda x, net=net: net(x),  # type: ignore[misc, no-any-return]
    "partial": lambda net: functools.partial(lambda net, x: net(x), net),
    "keyword of a partial": lambda net: functools.partial(lambda x, net: net(x), net=net),
    "bound method of a module": lambda net: Model(net).encode,
    "bound method of a plain object": lambda net: Plain(net).method,
    "callable object": Calling,
    "nested functions and containers": closing,
    "object with slots, handed on": slotted,
    "property": by_property,
    "vmap": lambda net: torch.vmap(net),
    "vmap of a lambda": lambda net: torch.vmap(lambda row: net(row)),
    "global": lambda net: by_global,
}


def graph(fn: Callable[[Tensor], Tensor]) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", torch.randn(3, 2), plates="batch")
    h = g.det("h", fn, x)
    b = g.sample("b", Bernoulli, logits=h)
    g.cost("loss", lambda b: ((b - 0.3) ** 2).sum(-1), b)
    return g


@pytest.mark.parametrize("way", WAYS)
def test_captured_modules_belong_to_the_program(way: str) -> None:
    """They are in its parameters, its state and its keys, once, and nothing beside them is."""
    net = NET if way == "global" else nn.Linear(2, 2)
    g = graph(WAYS[way](net))
    program = scg.compile(g)
    assert {id(p) for p in program.parameters()} == {id(p) for p in net.parameters()}
    assert {id(p) for p in program.model_parameters()} == {id(p) for p in net.parameters()}
    keys = [name for name, _ in program.named_parameters()]
    assert all(key.startswith("captured.h.") for key in keys)
    assert keys == [name for name, _ in g.named_parameters()]
    assert set(keys) <= program.state_dict().keys()
    program.double()
    assert net.weight.dtype is torch.float64
    program.float()
    program.eval()
    assert not net.training
    program.train()
    assert net.training


@pytest.mark.parametrize("way", WAYS)
def test_captured_modules_get_the_exact_gradient(way: str) -> None:
    net = NET if way == "global" else nn.Linear(2, 2)
    g = graph(WAYS[way](net))
    x = torch.randn(4, 2)
    exact = scg.exact_gradient(g, x=x)
    program = scg.compile(g, policy="enumerate")
    program.zero_grad()
    program(x=x, seed=0).loss.backward()
    assert exact and all(key.startswith("captured.h.") for key in exact)
    for name, parameter in program.named_parameters():
        assert torch.allclose(parameter.grad, exact[name], atol=1e-6)
        assert exact[name].abs().sum() > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_a_captured_module_is_no_control_network(way: str, part: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 2)) if way != "global" else NET
    control = net[0] if part and isinstance(net, nn.Sequential) else net
    g = graph(WAYS[way](net))
    baseline = nn.Sequential(control, nn.Linear(2, 1))
    with pytest.raises(scg.PolicyError, match="is a parameter of the graph as well.*'captured.h"):
        scg.compile(g, policy={"b": scg.Score(baseline=baseline, context="x")})


def test_all_that_an_object_has_counts_where_attributes_are_read_by_computed_names() -> None:
    assert {"decoder", "critic"} <= set(captures(by_name(nn.Linear(2, 2))))
    assert "critic" not in captures(by_property(nn.Linear(2, 2)))


def test_what_is_declared_is_not_captured_and_parts_are_held_with_the_whole() -> None:
    whole, declared = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)
    g = scg.Graph()
    x = g.input("x", torch.randn(3, 2), plates="batch")
    theta = nn.Parameter(torch.ones(2))
    g.param("theta", theta)
    one = g.det("one", lambda x: whole[0](x) * theta + whole[1].bias, x)
    two = g.det("two", lambda x: whole(x) + declared.bias, one)
    three = g.det("three", declared, two)
    g.cost("loss", lambda z: z.sum(-1), g.sample("z", Normal, loc=three, scale=1.0))
    program = scg.compile(g)
    assert [name for name, _ in program.named_parameters()] == [
        "theta",
        *(f"three.{key}" for key in ("weight", "bias")),
        *(f"captured.one.whole.{i}.{key}" for i in (0, 1) for key in ("weight", "bias")),
    ]
    assert list(program.state_dict()) == [name for name, _ in g.named_parameters()]
    assert set(g.freeze().store.reached["two"]) == {"captured.one.whole", "three"}


def test_bare_parameters_are_held_and_cannot_be_swapped_unseen() -> None:
    scale = nn.Parameter(torch.tensor([0.5, 1.0]))
    g = graph(lambda x: x * scale)
    program = scg.compile(g)
    assert dict(program.named_parameters()) == {"captured.h.scale": scale}
    other = {"captured.h.scale": torch.zeros(2, requires_grad=True)}
    with pytest.raises(scg.GraphError, match="'captured.h.scale' was replaced"):
        torch.func.functional_call(program, other, (), {"x": torch.randn(3, 2), "seed": 0})


def test_captured_modules_can_be_swapped_as_any_other() -> None:
    net = nn.Linear(2, 2)
    g = graph(lambda x: net(x))
    program = scg.compile(g, policy="enumerate")
    x = torch.randn(3, 2)
    other = {name: torch.randn_like(p).requires_grad_() for name, p in program.named_parameters()}
    loss = torch.func.functional_call(program, other, (), {"x": x, "seed": 0}).loss
    found = torch.autograd.grad(loss, list(other.values()))
    program.load_state_dict(other)
    for gradient, exact in zip(found, scg.exact_gradient(g, x=x).values(), strict=True):
        assert torch.allclose(gradient, exact, atol=1e-6)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(2, requires_grad=True) * 2, "has a gradient history"),
        (torch.ones(2, requires_grad=True), r"is no nn\.Parameter"),
    ],
)
def test_what_cannot_be_held_is_warned_of_once(tensor: Tensor, words: str) -> None:
    g = graph(lambda x: x * tensor)
    with pytest.warns(
        UserWarning, match=f"node 'h' .*test_captured.*captures the tensor 'tensor'.*{words}"
    ) as told:
        program = scg.compile(g)
    assert len(told) == 1 and told[0].filename == __file__
    assert "captures the tensor 'tensor'" in program.explain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(x=torch.randn(3, 2), seed=0)


def test_tensors_without_a_gradient_are_no_business_of_the_program() -> None:
    table = torch.randn(2)
    program = scg.compile(graph(lambda x: x * table))
    assert not list(program.state_dict())


def test_what_tools_write_into_functions_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An assertion names the parts of pytest that report it, which hold tensors of whatever test runs."""

    def fn(x: Tensor) -> Tensor:
        assert x.mean().isfinite()
        return x

    monkeypatch.setattr(fn.__globals__["@pytest_ar"], "mean", nn.Linear(1, 1), raising=False)
    assert not list(reach(fn))


def test_statistics_of_captured_modules_move_in_runs_alone() -> None:
    """Probes, branches and slices leave them as they are; a run moves them once."""
    norm = nn.BatchNorm1d(2)
    g = scg.Graph()
    x = g.input("x", torch.randn(8, 2), plates="batch") * g.param("w", 1.0)
    b = g.sample("b", Bernoulli, logits=x)
    h = g.det("h", lambda b: norm(b), b, mixes="batch")
    g.cost("loss", lambda h: (h**2 + h).sum(-1), h)
    for policy in ("score", scg.Score(baseline="self-critical"), "relax"):
        norm.reset_running_stats()
        program = scg.compile(g, policy=policy)
        assert int(norm.num_batches_tracked) == 0
        program(x=torch.randn(8, 2), seed=0).loss.backward()
        assert int(norm.num_batches_tracked) == 1


def test_modes_of_captured_modules_are_seen() -> None:
    """A program compiled for training is prepared anew where a captured module is switched."""
    drop = nn.Dropout(0.5)
    g = scg.Graph()
    x = g.input("x", torch.ones(4), plates="batch")
    g.cost("loss", lambda z: drop(z), g.sample("z", Normal, loc=x, scale=1.0))
    program = scg.compile(g)
    assert program.training and drop.training
    program.eval()
    with torch.no_grad():
        estimate = program(x=torch.ones(4), seed=0)
    assert torch.equal(estimate.costs["loss"], estimate.samples["z"])
    assert len(program._prepared) == 2


def test_a_copy_shares_what_closures_capture_and_says_so() -> None:
    net = nn.Linear(2, 2)
    program = scg.compile(graph(lambda x: net(x)))
    with pytest.warns(UserWarning, match="shares what functions capture.*captured.h.net.weight"):
        twin = copy.deepcopy(program)
    assert twin.get_parameter("captured.h.net.weight") is net.weight


@pytest.mark.parametrize(
    "way", ["bound method of a plain object", "callable object", "bound method of a module"]
)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["copy", "pickle"]
)
def test_what_functions_carry_is_copied_with_them(way: str, copied: Callable[[Any], Any]) -> None:
    """The copy trains what its own function reads."""
    net = nn.Linear(2, 2)
    g = scg.Graph()
    h = g.det("h", WAYS[way](net), g.input("x", torch.randn(3, 2), plates="batch"))
    g.cost("loss", h.sum(-1))
    program = scg.compile(g)
    twin = copied(program)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(x=torch.ones(3, 2)).loss == 0
    assert program(x=torch.ones(3, 2)).loss != 0
    assert net.weight.abs().sum() > 0


def test_state_is_saved_and_read() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    programs = [scg.compile(graph(lambda x, net=net: net(x))) for net in (one, two)]  # type: ignore[misc]
    buffer = io.BytesIO()
    torch.save(programs[0].state_dict(), buffer)
    buffer.seek(0)
    programs[1].load_state_dict(torch.load(buffer))
    assert torch.equal(one.weight, two.weight)


def test_names_that_modules_use_are_changed() -> None:
    forward, train = nn.Linear(2, 2), nn.Parameter(torch.ones(2))
    program = scg.compile(
        graph(functools.partial(lambda net, x, train: net(x) * train, forward, train=train))
    )
    assert {name.split(".")[2] for name, _ in program.named_parameters()} == {"Linear", "train_"}


def test_modules_as_arguments_are_held() -> None:
    net = nn.Linear(2, 2)
    g = scg.Graph()
    x = g.input("x", torch.randn(3, 2), plates="batch")
    weights = {"weight": g.param("w", torch.randn(2, 2)), "bias": g.param("b", torch.randn(2))}
    h = g.det("h", torch.func.functional_call, net, weights, (x,))
    z = g.sample("z", Bernoulli, logits=h)
    g.cost("loss", lambda z: (z - 0.3).sum(-1), z)
    program = scg.compile(g, policy="enumerate")
    assert "captured.h.Linear.weight" in program.state_dict()
    given = torch.randn(3, 2)
    program(x=given, seed=0).loss.backward()
    exact = scg.exact_gradient(g, x=given)
    for name in ("w", "b"):
        assert torch.allclose(program.get_parameter(name).grad, exact[name], atol=1e-6)


def test_one_function_of_many_nodes_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(1, 1)
    looked: list[Any] = []

    def step(x: Tensor) -> Tensor:
        result: Tensor = net(x)
        return result

    def counted(root: Any) -> Any:
        looked.append(root)
        return reach(root)

    monkeypatch.setattr("scg.analysis.captured.reach", counted)
    g = scg.Graph()
    node = g.input("x")
    for _ in range(1000):
        node = g.det(f"n{len(g)}", step, node)
    g.cost("loss", node)
    assert list(dict(g.named_parameters())) == ["captured.n1.net.weight", "captured.n1.net.bias"]
    assert looked.count(step) == 1


def test_functions_of_libraries_capture_nothing() -> None:
    assert (
        captures(torch.sigmoid) == captures(torch.nn.functional.softmax) == captures(torch.Tensor.exp) == []
    )
    assert captures(lambda x: torch.relu(x)) == []
    assert captures(SCALE.mul) == ["Parameter"]
