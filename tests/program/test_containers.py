"""Containers: graphs whose values and parents are nested give what they give with tensors alone."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg

Pair = namedtuple("Pair", "mean logits")


@dataclass
class Plain:
    mean: Any
    logits: Any
    note: str = "kept as it is"
    loss: Any = None


@dataclass(frozen=True)
class Frozen:
    mean: Any
    logits: Any
    doubled: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", self.mean * 2)

    @cached_property
    def total(self) -> Any:
        return self.mean + self.doubled


@dataclass(frozen=True, slots=True)
class Slotted:
    mean: Any
    logits: Any


class Output(OrderedDict[str, Any]):
    """Like the outputs of models: a dict whose keys are attributes as well."""

    def __init__(self, mean: Any, logits: Any) -> None:
        super().__init__(mean=mean, logits=logits)

    def __reduce__(self) -> Any:
        return Output, (self["mean"], self["logits"])

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


KINDS: dict[str, Callable[..., Any]] = {
    "dataclass": Plain,
    "frozen dataclass": Frozen,
    "dataclass with slots": Slotted,
    "named tuple": Pair,
    "output of a model": Output,
}
POLICIES = ["score", "enumerate", "rebar", "relax", scg.Score(baseline="self-critical"), "auto"]


def tensors_alone(g: scg.Graph, x: Any, w: Any) -> None:
    mean = g.det("mean", torch.tanh, x * w)
    b = g.sample("b", Bernoulli, logits=(x * w).sum(-1))
    h = g.det("h", lambda mean, b: mean * b[..., None], mean, b)
    g.cost("loss", ((h - 0.3) ** 2).sum(-1) + b * w[0])


def nested(kind: Callable[..., Any]) -> Callable[[scg.Graph, Any, Any], None]:
    def build(g: scg.Graph, x: Any, w: Any) -> None:
        out = g.det("out", lambda x, w: kind(torch.tanh(x * w), (x * w).sum(-1)), x, w)
        b = g.sample("b", Bernoulli, logits=out.logits)
        state = g.det("state", lambda s: kind(s.mean * s.logits[..., None], s.logits), kind(out.mean, b))
        both = {"0.h": [state], "b": (b, w[0])}
        g.cost("loss", lambda d: ((d["0.h"][0].mean - 0.3) ** 2).sum(-1) + d["b"][0] * d["b"][1], both)

    return build


def gradient(build: Callable[..., None], policy: Any, samples: int | None, kept: tuple[str, ...] = ()) -> Any:
    g = scg.Graph()
    x = g.input("x", torch.ones(3, 2), plates="batch")
    w = g.param("w", torch.tensor([0.4, -0.9]))
    build(g, x, w)
    torch.manual_seed(0)  # for the networks of estimators
    program = scg.compile(g, policy=policy, samples=samples, keep=kept)
    estimate = program(x=torch.linspace(-1, 1, 8).view(4, 2), seed=3)
    estimate.loss.backward()
    return estimate, [p.grad for p in program.parameters()], program


CASES = [
    *((kind, policy, 3) for kind in KINDS for policy in ("relax", "enumerate")),
    *(("frozen dataclass", policy, samples) for policy in POLICIES for samples in (None, 3)),
]


@pytest.mark.parametrize(("kind", "policy", "samples"), CASES)
def test_values_and_parents_in_containers_are_as_good_as_tensors(
    kind: str, policy: Any, samples: int | None
) -> None:
    estimate, found, program = gradient(nested(KINDS[kind]), policy, samples, ("out", "state"))
    wanted, expected, _ = gradient(tensors_alone, policy, samples)
    assert torch.allclose(estimate.loss, wanted.loss, atol=1e-6)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    out = estimate.kept["out"]
    assert type(out) is KINDS[kind]
    lead = () if samples is None else (samples,)
    assert out.mean.shape == (*lead, 4, 2) and not out.mean.requires_grad
    assert "scg_loss({'0.h': [state], 'b': (b, getitem_1)})" in program.code


@pytest.mark.parametrize("kind", KINDS)
def test_copies_run_alike(kind: str) -> None:
    estimate, _, program = gradient(nested(KINDS[kind]), "score", 2)
    twin = copy.deepcopy(program)
    assert torch.equal(twin(x=torch.linspace(-1, 1, 8).view(4, 2), seed=3).loss, estimate.loss)


def test_what_a_frozen_value_derived_follows_its_fields() -> None:
    """A cached property of one world is not that of another."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", 0.3))

    def made(b: Tensor) -> Frozen:
        value = Frozen(b, b)
        assert value.total.shape == value.mean.shape
        return value

    out = g.det("out", made, b)
    g.cost("loss", lambda out: out.total + out.doubled, out)
    program = scg.compile(g, samples=4)
    estimate = program(seed=0)
    assert torch.equal(estimate.costs["loss"], 5 * estimate.samples["b"])
    estimate.loss.backward()
    assert torch.allclose(program.w.grad, scg.exact_gradient(g)["w"])


def functional(g: scg.Graph, samples: int | None, policy: str) -> scg.Program:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    nodes = {name: g.param(f"w{i}", value) for i, (name, value) in enumerate(weights.items())}
    x = g.input("x", torch.randn(5, 2), plates="batch")
    y = g.det("y", lambda w, x: torch.func.functional_call(net, w, (x,)), nodes, x)
    b = g.sample("b", Bernoulli, logits=y[..., 0])
    g.cost("loss", (b - 0.3) ** 2)
    return scg.compile(g, policy=policy, samples=samples)


@pytest.mark.parametrize("samples", [None, 2])
def test_a_dict_of_nodes_is_a_parent(samples: int | None) -> None:
    g = scg.Graph()
    program, x = functional(g, samples, "enumerate"), torch.randn(3, 2)
    program(x=x, seed=0).loss.backward()
    exact = scg.exact_gradient(g, x=x)
    for name in ("w0", "w1", "w2", "w3"):
        assert exact[name].abs().sum() > 0
        assert torch.allclose(program.get_parameter(name).grad, exact[name], atol=1e-6)


def test_tensors_in_a_dict_are_named_by_their_place() -> None:
    g = scg.Graph()
    weights = {"0.weight": nn.Parameter(torch.ones(1, 1)), "0.bias": torch.zeros(1), "class": torch.zeros(1)}
    g.det("y", lambda w: w["0.weight"], weights)
    assert list(g) == ["y_0_0_weight", "y_0_0_bias", "y_0_class", "y"]


def test_containers_that_hide_nodes_are_refused() -> None:
    g = scg.Graph()
    x = g.input("x", torch.zeros(()))
    with pytest.raises(scg.GraphError, match="'y_0' is a set that holds nodes"):
        g.det("y", len, {x})


def test_a_function_may_change_its_own_arguments_and_no_value_of_a_parent() -> None:
    g = scg.Graph()
    x = g.input("x", torch.ones(()))
    g.cost("loss", lambda d: d.pop("x") + len(d), {"x": x})
    program = scg.compile(g)
    assert [float(program(x=torch.ones(())).loss) for _ in range(3)] == [1.0, 1.0, 1.0]
    h = scg.Graph()
    d = h.det("d", lambda x: {"x": x}, h.input("x", torch.ones(())))
    h.cost("loss", lambda d: d.pop("x"), d)
    with pytest.raises(scg.GraphError, match="node 'loss' .*writes into the value of 'd'"):
        scg.compile(h)


# ---- attributes


def test_an_attribute_declares_a_node_when_it_is_used() -> None:
    g = scg.Graph()
    out = g.det("out", lambda x: torch.max(x, -1), g.input("x", torch.randn(3, 2)))
    assert hasattr(out, "values") and len(g) == 2
    g.cost("loss", (out.values * 2).sum() + out.indices.sum())
    x = torch.randn(3, 2)
    found = scg.compile(g)(x=x).loss
    assert torch.allclose(found, (x.max(-1).values * 2).sum() + x.max(-1).indices.sum())


def test_a_slip_on_a_tensor_is_told_with_node_line_and_what_is_near() -> None:
    g = scg.Graph()
    h = g.det("h", torch.sin, g.input("x", torch.randn(3)))
    g.cost("loss", h.sigmod + 1)
    with pytest.raises(
        scg.GraphError,
        match="node 'sigmod_1' .*test_containers.*attribute of 'h'.*no attribute 'sigmod'; .* 'sigmoid'",
    ):
        g.check()
    with pytest.raises(scg.GraphError, match="'sigmod' was called on node 'h', .*nearest is 'sigmoid'"):
        h.sigmod()


def test_a_method_that_is_not_called_is_told() -> None:
    g = scg.Graph()
    h = g.det("h", torch.sin, g.input("x", torch.randn(3)))
    g.cost("loss", h.mean + 1)
    with pytest.raises(
        scg.GraphError, match=r"'mean' is a method of a Tensor: call it, as in node\.mean\(\)"
    ):
        scg.compile(g)


def test_a_key_read_as_an_attribute_is_told() -> None:
    g = scg.Graph()
    h = g.det("h", lambda x: {"logits": x}, g.input("x", torch.randn(())))
    g.cost("loss", h.logits)
    with pytest.raises(scg.GraphError, match=r"a dict has no attribute 'logits'; write node\['logits'\]"):
        scg.compile(g)


def test_iteration_says_how_to_name_the_parts() -> None:
    node = scg.Graph().input("x")
    with pytest.raises(scg.GraphError, match=r'a, b = g\.det\(\("a", "b"\), fn, \.\.\.\)'):
        a, b = node


def test_a_part_without_the_plates_is_named() -> None:
    g = scg.Graph()
    x = g.input("x", torch.randn(3, 2), plates="batch")
    g.det("out", lambda x: Plain(x.mean(), {"deep": x}), x)
    with pytest.raises(scg.PlateError, match=r"node 'out' .*returned shape \(\) in out\.mean"):
        scg.compile(g)


# ---- dict inputs


def batched(**plates: Any) -> scg.Graph:
    torch.manual_seed(0)
    g = scg.Graph()
    batch = g.input("batch", {"ids": torch.tensor([0, 1]), "mask": torch.ones(2, 3)}, plates="batch")
    h = g.det("h", nn.Embedding(4, 3), batch["ids"])
    b = g.sample("b", Bernoulli, logits=(h * batch["mask"]).sum(-1))
    z = g.sample("z", Normal, loc=b, scale=0.1)
    both = g.det("both", lambda batch, b: {**batch, "b": b}, batch, b)
    g.cost("loss", lambda d, z: (d["b"] - 0.3 * z) ** 2 * d["mask"].sum(-1), both, z)
    return g


BATCH = {"mask": torch.rand(5, 3), "ids": torch.tensor([0, 1, 2, 3, 0])}


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("policy", ["score", "enumerate", "auto"])
def test_a_dict_is_an_input(policy: Any, samples: int | None) -> None:
    """Against the same graph with an input for each key, which has the same noise."""
    g = scg.Graph()
    torch.manual_seed(0)
    ids = g.input("ids", torch.tensor([0, 1]), plates="batch")
    mask = g.input("mask", torch.ones(2, 3), plates="batch")
    h = g.det("h", nn.Embedding(4, 3), ids)
    b = g.sample("b", Bernoulli, logits=(h * mask).sum(-1))
    z = g.sample("z", Normal, loc=b, scale=0.1)
    g.cost("loss", lambda b, z, mask: (b - 0.3 * z) ** 2 * mask.sum(-1), b, z, mask)
    policy = policy if policy == "auto" else {"b": policy}
    apart = scg.compile(g, policy, samples=samples)
    program = scg.compile(batched(), policy, samples=samples, keep="batch")
    wanted, estimate = apart(**BATCH, seed=1), program(batch=BATCH, seed=1)
    wanted.loss.backward()
    estimate.loss.backward()
    assert torch.allclose(estimate.loss, wanted.loss)
    for one, other in zip(program.parameters(), apart.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)
    noise = program.draw_noise(1, batch=BATCH)
    assert torch.equal(program(batch=BATCH, noise=noise).loss, estimate.loss)
    assert estimate.kept["batch"]["mask"].shape == (() if samples is None else (samples,)) + (5, 3)
    again = {"ids": BATCH["ids"], "mask": BATCH["mask"]}
    assert torch.equal(program(batch=again, seed=1).loss, estimate.loss)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ids": torch.tensor([0])}, r"lacks batch\['mask'\]"),
        ({**BATCH, "extra": torch.ones(5)}, r"has batch\['extra'\], which its example lacks"),
        ({**BATCH, "mask": torch.ones(5, 2)}, r"input 'batch\['mask'\]' has shape \(5, 2\), .*\[batch, 3\]"),
        (
            {**BATCH, "mask": torch.ones(4, 3)},
            r"plate 'batch' has size 4 by 'batch\['mask'\]', but 'batch\['ids'\]'",
        ),
        ({**BATCH, "mask": 3}, r"batch\['mask'\] is a int: pass a tensor"),
        (torch.ones(3), "is a tensor, but its example is a dict"),
        ("text", "input 'batch' is a str: pass a tensor"),
    ],
)
def test_a_wrong_dict_is_told_by_key(given: Any, words: str) -> None:
    program = scg.compile(batched())
    with pytest.raises(scg.ScgError, match=words):
        program(batch=given)


def test_a_dict_of_one_element_is_probed_with_more() -> None:
    g = scg.Graph()
    batch = g.input("batch", {"x": torch.ones(1)}, plates="batch")
    z = g.sample("z", Normal, loc=batch["x"], scale=1.0)
    g.cost("loss", lambda z: z * z.mean(0, keepdim=True), z)
    with pytest.raises(scg.PlateError, match="crosses plate 'batch'"):
        scg.compile(g)


def test_unused_keys_are_warned_of_once() -> None:
    g = scg.Graph()
    g.cost("loss", g.input("x", torch.zeros(())))
    program = scg.compile(g)
    with pytest.warns(UserWarning, match="'labels', 'idx': no input of the graph.*inputs are x") as told:
        program(x=torch.zeros(()), labels=torch.zeros(()), idx=3)
    assert len(told) == 1 and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert program(x=torch.ones(()), labels=torch.zeros(()), idx=3).loss == 1
        program.draw_noise(0, x=torch.ones(()), labels=torch.zeros(()))


@pytest.mark.parametrize("samples", [2.5, "3", True, torch.tensor(True), 0, -1, [2]])
def test_replicates_are_counted(samples: Any) -> None:
    g = scg.Graph()
    g.cost("loss", g.sample("b", Bernoulli, logits=g.param("t", 0.0)))
    with pytest.raises(scg.GraphError, match="samples=.*an int, at least 1"):
        scg.compile(g, samples=samples)


def test_replicates_may_be_any_integer() -> None:
    numpy = pytest.importorskip("numpy")
    g = scg.Graph()
    g.cost("loss", g.sample("b", Bernoulli, logits=g.param("t", 0.0)))
    assert scg.compile(g, samples=numpy.int64(3))(seed=0).samples["b"].shape == (3,)


def test_costs_take_plates() -> None:
    g = scg.Graph()
    x = g.input("x", torch.randn(4), plates="batch")
    z = g.sample("z", Normal, loc=x * g.param("w", 1.0), scale=1.0)
    g.cost("all", lambda z: z.mean() ** 2, z, plates=())
    g.cost("each", g.param("t", [2.0]) ** 2, plates="batch")
    program = scg.compile(g, policy="score")
    estimate = program(x=torch.randn(5), seed=0)
    assert estimate.costs["all"].shape == () and estimate.costs["each"].shape == (5,)
    estimate.loss.backward()
    assert program.t.grad == 4


def test_examples_by_position_are_no_plates() -> None:
    with pytest.raises(scg.GraphError, match="input 'x' was given 'batch' as its example.*plates="):
        scg.Graph().input("x", "batch")
    g = scg.Graph()
    g.input("x", [0.0, 1.0])
    assert torch.equal(g.freeze().store.examples["x"], torch.tensor([0.0, 1.0]))
