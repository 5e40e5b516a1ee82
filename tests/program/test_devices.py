"""Other devices: under the same noise a program gives on a GPU what it gives on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from scg.estimators.registry import registry
from tests.contract.nodes import MAKERS
from tests.support.running import awake, gradients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

MOVING = ("pareto", "generalized-pareto", "uniform-moving")
"""Laws whose support moves, which score is not for."""
X = torch.tensor([0.3, -0.8, 0.5], dtype=torch.double)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bits() -> scg.Graph:
    """Bits, a choice of three and a bit below them, for each of three elements, from a module."""
    torch.manual_seed(0)
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    h = g.det("h", nn.Linear(1, 2), x[..., None])
    b = g.sample("b", Bernoulli, logits=h)
    k = g.sample("k", Categorical, logits=g.param("w", torch.tensor([0.2, -0.4, 0.1])), plates="batch")
    v = g.det("v", table, k, relaxed=soft_table)
    y = g.sample("y", Bernoulli, logits=g.det("m", lambda b, v: b.sum(-1) - v, b, v))
    g.cost("c", lambda b, y, v: (b.sum(-1) - 0.3) ** 2 + y * b[..., 0] + v**2, b, y, v)
    g.cost("kl", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=g.param("prior", torch.zeros(2))))
    return g


def table(k: Tensor) -> Tensor:
    return torch.take(torch.tensor([0.9, -0.7, 0.2], dtype=torch.double, device=k.device), k)


def soft_table(k: Tensor) -> Tensor:
    return (k * torch.tensor([0.9, -0.7, 0.2], dtype=torch.double, device=k.device)).sum(-1)


def line() -> scg.Graph:
    """Two normals, one below the other, for each of three elements."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    w = g.param("w", torch.tensor(0.4))
    z = g.sample("z", Normal, x * w, g.det("s", torch.exp, w))
    u = g.sample("u", Normal, z * w, 0.5)
    g.cost("c", lambda z, u: (z - 0.3) ** 2 + torch.sin(u) * z, z, u)
    return g


def moved(inputs: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) for name, value in inputs.items()}


def agree(make: Callable[[], scg.Graph], policy: Any, samples: int | None, **compile_options: Any) -> None:
    """Hold loss and gradients, those of controls included, on both devices against each other."""
    here = awake(scg.compile(make(), policy, samples=samples))
    noise = here.draw_noise(3, x=X)
    there = copy.deepcopy(here).to("cuda")
    if compile_options:
        there.compile(**compile_options)
    for _ in range(2):  # the first is checked line by line, the second runs as later ones do
        wanted = gradients(here, x=X, noise=noise)
        found = gradients(there, x=X.to("cuda"), noise=moved(noise, "cuda"))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert found[name].is_cuda
        assert torch.allclose(found[name].cpu(), value, rtol=1e-8, atol=1e-10), name


def estimators() -> list[Any]:
    several: list[Any] = [
        kind for kind in sorted(registry()) if registry()[kind].__module__.startswith("scg.")
    ]
    baselines = ("moving-average", "leave-one-out", "self-critical")
    parts = scg.Parts({"c": "rebar", "kl": "score"})
    return [*several, *(scg.Score(baseline=word) for word in baselines), parts]


@pytest.mark.parametrize("estimator", estimators(), ids=str)
@pytest.mark.parametrize(("make", "node"), [(bits, "b"), (bits, "k"), (line, "z")])
def test_estimates_are_those_of_a_cpu(make: Callable[[], scg.Graph], node: str, estimator: Any) -> None:
    try:
        scg.compile(make(), {node: estimator}, samples=4)
    except scg.ScgError:
        pytest.skip("refused")
    agree(
        make,
        {node: estimator, "*": "score"} if node != "k" else {"k": estimator, "b": "rebar", "y": "score"},
        4,
    )


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "uniform-fixed"])
def test_laws_are_those_of_a_cpu(name: str) -> None:
    maker = MAKERS[name]

    def make() -> scg.Graph:
        g = scg.Graph()
        x = g.input("x", plates="batch", example=X)
        node = maker.declare(g, "z", x + g.param("w", torch.tensor(0.4)))
        g.cost("c", lambda value: maker.summary(value) ** 2, node)
        if name not in MOVING:
            g.cost("log", g.log_prob(node))
        return g

    agree(make, "reparam" if name in MOVING else "score", None)


def test_a_program_is_made_and_seeded_on_a_gpu() -> None:
    with torch.device("cuda"):
        g = scg.Graph()
        x = g.input("x", plates="batch", example=X.to("cuda"))
        b = g.sample("b", Bernoulli, logits=x + g.param("w", torch.tensor(0.4)))
        g.cost("c", (b - 0.3) ** 2)
    for policy in ("score", "rebar", "relax", "enumerate", "disarm"):
        program = scg.compile(g, policy, samples=20_000)
        one, two = (gradients(program, x=X.to("cuda"), seed=7)["w"] for _ in range(2))
        assert torch.equal(one, two)
        assert torch.allclose(one, scg.exact_gradient(g)["w"], atol=0.01)


@pytest.mark.filterwarnings(r"ignore:\s*Online softmax is disabled")
@pytest.mark.parametrize("policy", ["score", "rebar", "relax"])
def test_compiled_estimates_are_those_of_a_cpu(policy: str) -> None:
    agree(bits, policy, 4, fallback=False)


def test_an_exported_module_runs_on_a_gpu(tmp_path: Path) -> None:
    program = scg.compile(bits(), "rebar")
    noise = moved(program.draw_noise(3, x=X), "cuda")
    program.to("cuda")
    program(x=X.to("cuda"), seed=0)
    given = program.export(tmp_path / "module.py")
    space: dict[str, Any] = {"__name__": "exported"}
    exec((tmp_path / "module.py").read_text(), space)
    wanted = gradients(program, x=X.to("cuda"), noise=noise)
    program.zero_grad()
    space["loss"](noise, x=X.to("cuda"), **given).backward()
    for name, value in wanted.items():
        assert torch.allclose(program.get_parameter(name).grad, value), name
