"""Right programs of kinds that users bring: all compile under the automatic policy, and run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from tests.selection import by_turns
from tests.truth.building import Fn, double
from tests.truth.right_programs import RAGGED, RIGHT, STEPS, WIDTH

KINDS = RIGHT | RAGGED
EXAMPLE = 5
SAMPLES = (None, 3)
RANDOM = {"Dropout"}
"""What draws for itself, so that it cannot be run again."""
UNSURE = {"sparse experts", "copied experts", "logdet"}
"""What jumps, or has a branch that no probe switches, and need not be reparameterised."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let libraries warn of what they like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inputs(size: int) -> dict[str, Tensor]:
    steps = torch.arange(size * STEPS * WIDTH).double().view(size, STEPS, WIDTH)
    return {"x": torch.sin(1.7 * steps), "count": torch.arange(size) % STEPS + 1}


def cost(h: Tensor) -> Tensor:
    return (h.flatten(1) - 0.3).square().mean(-1) if h.dim() > 1 else (h - 0.3).square()


def built(kind: str, law: str) -> tuple[scg.Graph, Fn]:
    """Return a graph and the function that it has been made around."""
    torch.manual_seed(0)
    fn = KINDS[kind]()
    g = scg.Graph()
    given = inputs(EXAMPLE)
    x = g.input("x", plates="batch", example=given["x"])
    location = x * g.param("w", double([0.8, -0.5, 0.4, 1.0, 0.6, -0.7]))
    if law == "bernoulli":
        z = g.sample("z", Bernoulli, logits=location)
    else:
        z = g.sample("z", Normal, loc=location, scale=0.5)
    more = [g.input("count", plates="batch", example=given["count"])] if kind in RAGGED else []
    g.cost("c", cost, g.det("h", fn, z, *more))
    return g, fn


def run(program: scg.Program, kind: str, size: int) -> scg.Estimate:
    """Run a program once and leave its gradients, all of them finite."""
    program.zero_grad()
    read = ("x", "count") if kind in RAGGED else ("x",)
    estimate = program(seed=size, **{name: inputs(size)[name] for name in read})
    estimate.loss.backward()
    found = [p.grad for p in program.parameters() if p.grad is not None]
    assert found
    assert all(bool(part.isfinite().all()) for part in found)
    return estimate


def by_hand(g: scg.Graph, fn: Fn, kind: str, estimate: scg.Estimate, size: int) -> dict[str, Tensor]:
    """Return the gradient of the same run by torch alone, through the noise that the run had."""
    given, parameters = inputs(size), dict(g.named_parameters())
    more = [given["count"]] if kind in RAGGED else []
    location = given["x"] * parameters["w"]
    noise = estimate.samples["z"] - location.detach()
    worlds = noise if noise.dim() == 4 else noise[None]
    loss = torch.stack([cost(fn(location + world, *more)).mean() for world in worlds]).mean()
    assert torch.allclose(loss, estimate.loss)
    parts = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: part for name, part in zip(parameters, parts, strict=True) if part is not None}


@pytest.mark.parametrize("kind, samples", by_turns(list(KINDS), SAMPLES))
def test_a_right_program_of_normals_runs_and_is_right(kind: str, samples: int | None) -> None:
    g, fn = built(kind, "normal")
    program = scg.compile(g, samples=samples)
    is_pathwise = program.policy["z"].name == "reparam"
    assert is_pathwise or kind in UNSURE
    for size in (EXAMPLE, 1, 8):
        estimate = run(program, kind, size)
        if is_pathwise and kind not in RANDOM:
            found = {name: p.grad for name, p in g.named_parameters() if p.grad is not None}
            expected = by_hand(g, fn, kind, estimate, size)
            assert found.keys() == expected.keys()
            assert all(
                torch.allclose(found[name], part, rtol=1e-6, atol=1e-9) for name, part in expected.items()
            )


@pytest.mark.parametrize("kind, samples", by_turns(list(KINDS), SAMPLES[::-1]))
def test_a_right_program_of_bits_runs(kind: str, samples: int | None) -> None:
    g, _ = built(kind, "bernoulli")
    program = scg.compile(g, samples=samples)
    for size in (EXAMPLE, 1, 8):
        run(program, kind, size)
