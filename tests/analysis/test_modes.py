"""Run modes: a function written for one world runs in many, and gives in each what it gives there alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from scg.analysis.facts import gather
from scg.nodes.ir import IR

Function = Callable[..., Any]
WORLDS = 3


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gru(x[..., None])[0]
        return out[:, -1]


def convolution() -> nn.Module:
    return nn.Sequential(nn.Unflatten(-1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten())


def by_branch(b: Tensor) -> Tensor:
    return b if bool(b.sum() > 11) else 2 * b


PLATED: dict[str, tuple[Callable[[], Function], dict[str, Any], set[str]]] = {
    "linear": (lambda: nn.Linear(4, 2), {}, {"broadcast"}),
    "layer norm": (lambda: nn.LayerNorm(4), {}, {"broadcast"}),
    "last dimension": (lambda: lambda b: b.softmax(-1), {}, {"broadcast"}),
    "counted dimension": (lambda: lambda b: b.flip(1), {}, {"fold"}),
    "conv": (convolution, {}, {"fold"}),
    "gru": (Recurrent, {}, {"fold"}),
    "batch norm": (lambda: nn.BatchNorm1d(4), {"mixes": "batch"}, {"vmap", "loop"}),
    "batch norm in eval": (lambda: nn.BatchNorm1d(4).eval(), {}, {"fold"}),
    "mixing": (lambda: lambda b: b - b.mean(0), {"mixes": "batch"}, {"vmap"}),
    "branch": (lambda: by_branch, {"mixes": "batch"}, {"loop"}),
    "numpy": (lambda: lambda b: np.asarray(b) * 2.0, {"differentiable": False}, {"loop"}),
    "aggregate": (lambda: lambda b: b.sum(0), {"plates": ()}, {"vmap"}),
    "several results": (lambda: lambda b: (b.sum(-1), b * 2), {}, {"broadcast"}),
}


def bits(fn: Function, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.linspace(-1, 1, 20, dtype=dtype).view(5, 4))
    t = g.param("t", torch.tensor(0.7, dtype=dtype))
    b = g.sample("b", Bernoulli, logits=g.det("logits", lambda x, t: x * t, x, t))
    g.det("h", fn, b, **options)
    return g


def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def elements(value: Any) -> Tensor:
    """Return one number for each element of the leftmost plate."""
    tensor: Tensor = first(value)
    return tensor.reshape(len(tensor), -1).sum(-1)


def modes(g: scg.Graph) -> dict[str, str]:
    ir: IR = g.freeze()
    facts = gather(ir, ir.store.examples)
    return facts.modes(["h"], facts.influence.stochastic)


@pytest.mark.parametrize("name", PLATED)
def test_the_mode_is_the_first_that_fits(name: str) -> None:
    torch.manual_seed(0)
    build, options, expected = PLATED[name]
    assert modes(bits(build(), options))["h"] in expected


@pytest.mark.parametrize("name", PLATED)
def test_worlds_together_give_what_each_gives_alone(name: str) -> None:
    torch.manual_seed(0)
    build, options, _ = PLATED[name]
    fn = build()
    g = bits(fn, options)
    inputs = g.freeze().store.examples
    alone, together = (scg.compile(g, keep=["h", "b"], samples=k) for k in (None, WORLDS))
    noise = together.draw_noise(3, **inputs)
    kept = together(noise=noise, **inputs).kept
    for world in range(WORLDS):
        single = alone(noise={"b": noise["b"][world]}, **inputs).kept
        assert torch.equal(kept["b"][world], single["b"])
        assert torch.allclose(first(kept["h"])[world], first(single["h"]), atol=1e-6)


@pytest.mark.parametrize("name", PLATED)
def test_gradients_of_worlds_together_are_the_mean_of_each_alone(name: str) -> None:
    torch.manual_seed(0)
    build, options, _ = PLATED[name]
    g = bits(build(), options)
    has_plates = bool(g.freeze().layout["h"])
    summed = g.det("summed", elements if has_plates else torch.sum, g["h"])
    g.cost("c", summed**2)
    inputs = g.freeze().store.examples
    alone, together = (scg.compile(g, policy="score", samples=k) for k in (None, WORLDS))
    noise = together.draw_noise(3, **inputs)

    def gradients(program: scg.Program, noise: dict[str, Tensor]) -> list[Tensor]:
        program.zero_grad()
        program(noise=noise, **inputs).loss.backward()
        return [p.grad.clone() for p in g.parameters() if p.grad is not None]

    found = gradients(together, noise)
    each = [gradients(alone, {"b": noise["b"][world]}) for world in range(WORLDS)]
    assert len(found) == len(each[0]) > 0
    for index, gradient in enumerate(found):
        mean = torch.stack([one[index] for one in each]).mean(0)
        assert torch.allclose(gradient, mean, rtol=1e-4, atol=1e-5)


PLAIN: dict[str, tuple[Function, str]] = {
    "sum of everything": (lambda b: b.sum(), "vmap"),
    "last dimension": (lambda b: b.cumsum(-1), "broadcast"),
    "python number": (lambda b: torch.tensor(float(b.sum())), "loop"),
    "linear layer": (F.normalize, "vmap"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_values_without_plates_cannot_be_folded(name: str) -> None:
    fn, expected = PLAIN[name]
    g = scg.Graph()
    g.det("h", fn, g.sample("b", Bernoulli, logits=g.param("t", torch.zeros(2, 4))))
    assert modes(g)["h"] == expected


@pytest.mark.parametrize("lacks", ["a", "b", "nothing"])
def test_parents_that_lack_a_plate_are_folded_as_well(lacks: str) -> None:
    """The function counts its dimensions from the left, and one parent lacks a plate of the other."""
    g = scg.Graph()
    x = g.input("x", plates=("a", "b"), example=torch.zeros(2, 3, 4))
    own = tuple(plate for plate in "ab" if plate != lacks)
    y = g.input("y", plates=own, example=torch.zeros(*(2 + "ab".index(plate) for plate in own), 4))
    s, t = g.sample("s", Bernoulli, logits=x), g.sample("t", Normal, y, 1.0)
    g.det("h", lambda s, t: (s * t).flip(2), s, t)
    assert modes(g)["h"] == "fold"
    inputs = g.freeze().store.examples
    alone, together = (scg.compile(g, keep=["h"], samples=k) for k in (None, WORLDS))
    noise = together.draw_noise(3, **inputs)
    found = together(noise=noise, **inputs).kept["h"]
    for world in range(WORLDS):
        single = {name: value[world] for name, value in noise.items()}
        assert torch.allclose(found[world], alone(noise=single, **inputs).kept["h"])


def test_known_operations_need_no_probe() -> None:
    g = scg.Graph()
    g.det("h", torch.sigmoid, g.sample("b", Normal, g.param("t", torch.zeros(2, 4)), 1.0))
    assert modes(g)["h"] == "elementwise"


def test_random_functions_draw_anew_in_every_world() -> None:
    g = scg.Graph()
    g.det("h", lambda b: b + torch.rand(4), g.sample("b", Bernoulli, logits=g.param("t", torch.zeros(4))))
    assert modes(g)["h"] in ("vmap", "loop")
    kept = scg.compile(g, keep=["h", "b"], samples=2)(seed=0).kept
    noise = kept["h"] - kept["b"]
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("samples", [None, 2])
def test_probing_leaves_the_buffers_of_modules_as_they_were(samples: int | None) -> None:
    norm = nn.BatchNorm1d(4)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    g = bits(norm, {"mixes": "batch"})
    g.cost("c", g["h"].sum(-1))
    program = scg.compile(g, policy={"b": scg.Score("self-critical")}, samples=samples)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    program(seed=0, **g.freeze().store.examples)
    assert int(norm.num_batches_tracked) >= 1


class Rows(nn.Module):
    """Remembers how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.rows: list[int] = []

    def forward(self, b: Tensor) -> Tensor:
        self.rows.append(b[..., 0].numel())
        out: Tensor = self.linear(b)
        return out


class Positions(nn.Module):
    """Adds numbers that are all zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(9))

    def forward(self, b: Tensor) -> Tensor:
        return torch.tanh(b + self.bias[: b.shape[-2], None] - 0.3)


REPEATING: dict[str, tuple[Callable[[], Function], bool]] = {
    "linear": (lambda: nn.Linear(4, 2), True),
    "conv": (convolution, True),
    "normalised": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Softplus(), nn.Linear(4, 3)), True),
    "reshaped": (lambda: lambda b: b.reshape(b.shape[0], 2, 2).flatten(1), True),
    "joined to zeros": (lambda: lambda b: torch.cat((b, torch.zeros(*b.shape[:-1], 1)), -1), True),
    "gru": (Recurrent, False),
    "several results": (lambda: lambda b: (b.sum(-1), b * 2), True),
    "squeezes": (lambda: lambda b: b.squeeze() * 2, False),
    "tells elements apart": (lambda: lambda b: b * torch.arange(b.shape[-2])[:, None], False),
    "counts elements": (lambda: lambda b: b / b.shape[-2], False),
    "holds one number for each": (lambda: lambda b: b + torch.linspace(0, 1, 20).view(5, 4), False),
    "tells late elements apart": (
        lambda: lambda b: b * torch.where(torch.arange(b.shape[-2]) > 2, 2.0, 1.0)[:, None],
        False,
    ),
    "counts up": (lambda: lambda b: b * torch.ones_like(b).cumsum(-2), False),
    "is filled with a count": (
        lambda: lambda b: b * torch.full(b.shape[-1:], float(b.shape[-2])).log() * 0,
        False,
    ),
    "branches on a size": (lambda: lambda b: b * (2.0 if b.shape[-2] == 5 else 1.0), False),
    "holds a number to be learned for each": (Positions, False),
    "dropout": (lambda: nn.Dropout(0.5), False),
}


@pytest.mark.parametrize("name", REPEATING)
def test_a_function_stands_for_many_elements_unless_it_tells_them_apart(name: str) -> None:
    torch.manual_seed(0)
    build, expected = REPEATING[name]
    g = bits(build(), {})
    ir = g.freeze()
    facts = gather(ir, ir.store.examples)
    varying = facts.influence.stochastic
    mode = facts.modes(["h"], varying)["h"]
    assert facts.repeats("h", frozenset({"batch"}), varying, mode) is expected


@pytest.mark.parametrize("name", sorted(set(REPEATING) - {"dropout"}))
def test_enumerated_values_that_repeat_give_the_exact_gradient(name: str) -> None:
    torch.manual_seed(0)
    build, _ = REPEATING[name]
    fn = build()
    g = bits(fn.double() if isinstance(fn, nn.Module) else fn, {}, torch.float64)
    g.cost("c", g.det("summed", elements, g["h"]) ** 2 * g.det("scale", lambda x: x.sum(-1), g["x"]))
    inputs = g.freeze().store.examples
    scg.compile(g, policy="enumerate")(**inputs).loss.backward()
    exact = scg.exact_gradient(g, **inputs)
    assert len(exact) == len(list(g.parameters())) > 0
    for parameter, gradient in g.named_parameters():
        torch.testing.assert_close(gradient.grad, exact[parameter], rtol=1e-9, atol=1e-9)


def test_what_tells_elements_apart_may_come_with_the_inputs() -> None:
    """Alike in the example, and not in the run."""
    g = scg.Graph()
    g.plate("n", size=6)
    weights = g.input("weights", example=torch.ones(6).double())
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor(0.3).double()), plates="n")
    g.cost("c", lambda b, weights: b * weights[: b.shape[-1]], b, weights)
    given = torch.tensor([1.0, 0, 0, 0, 0, 0]).double()
    scg.compile(g, "enumerate")(weights=given).loss.backward()
    torch.testing.assert_close(g["t"].value.grad, scg.exact_gradient(g, weights=given)["t"])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_plate_is_not_taken_for_worlds_of_the_same_number(size: int) -> None:
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]).double()
    g = scg.Graph()
    g.plate("n", size=size)
    b = g.sample("b", Bernoulli, logits=g.param("t", torch.tensor(0.3).double()), plates="n")
    g.cost("c", lambda b: b * weights[: len(b)], b)
    scg.compile(g, "enumerate")().loss.backward()
    torch.testing.assert_close(g["t"].value.grad, scg.exact_gradient(g)["t"])


def test_each_joint_outcome_is_decoded_once_for_the_whole_batch() -> None:
    decoder = Rows()
    g = bits(decoder, {})
    g.cost("c", g.det("summed", lambda h, x: (h - x[..., :2]).square().sum(-1), g["h"], g["x"]))
    program = scg.compile(g, policy="enumerate")
    program(**g.freeze().store.examples)
    decoder.rows.clear()
    program(**g.freeze().store.examples).loss.backward()
    assert decoder.rows == [5, 16]


def test_explain_says_how_replicates_are_run() -> None:
    torch.manual_seed(0)
    g = bits(convolution(), {})
    g.cost("c", g["h"].sum(-1))
    text = scg.compile(g, policy="score", samples=2).explain()
    assert re.search("^added dimensions: .*h by fold", text, re.M)
    assert "added dimensions" not in scg.compile(g, policy="score").explain()


BRANCHES: dict[str, Function] = {
    "broadcast": lambda b, flag: b.softmax(0) if flag > 0 else b.exp(),
    "fold": lambda b, flag: b.flip(1) / (len(b) if flag > 0 else 1),
    "either": lambda b, flag: b.flip(1).sum(1) if flag > 0 else b.sum(1),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_that_the_example_does_not_take_is_run_alike(name: str) -> None:
    g = bits(lambda b: b, {"mixes": "batch"} if name == "broadcast" else {})
    h = g.det("way", BRANCHES[name], g["b"], g.input("flag", example=torch.zeros(())), mixes="batch")
    alone, together = (scg.compile(g, keep=["way", "b"], samples=k) for k in (None, WORLDS))
    x, flag = torch.rand(5, 4), torch.ones(())
    noise = together.draw_noise(3, x=x, flag=flag)
    kept = together(noise=noise, x=x, flag=flag).kept
    for world in range(WORLDS):
        single = alone(noise={"b": noise["b"][world]}, x=x, flag=flag).kept
        assert torch.allclose(kept[h.name][world], single[h.name], atol=1e-6)
