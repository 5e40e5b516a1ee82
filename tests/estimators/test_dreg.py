"""DReG, and the path of the value alone: exact by quadrature, quiet at the posterior, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.verification.draws import drawer

STL = scg.Reparam(path="stl")


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def one(size: int | None, *, scale: float = 1.0, count: float = 1.0, log: float = -1.0) -> scg.Graph:
    """A normal latent: of ``size`` particles under a bound, or of one under a sum."""
    g = scg.Graph()
    plates: Any = g.plate("k", size=size) if size else ()
    m, s, t = g.param("m", 0.4), g.param("s", log), g.param("t", 0.8)
    z = g.sample("z", Normal, m, s.exp(), plates=plates)
    prior, likelihood = g.log_prob(Normal, z, 0.0, 1.0), g.log_prob(Normal, 0.7, z * t, 0.9)
    own = g.log_prob(z)
    cost = scale * ((own if count == 1 else count * own) - prior - likelihood)
    if size:
        g.bound("bound", cost, over="k")
    else:
        g.cost("loss", cost)
    return g


def chain(size: int | None) -> scg.Graph:
    """A latent below another, which its law reads."""
    g = scg.Graph()
    plates: Any = g.plate("k", size=size) if size else ()
    m, w = g.param("m", 0.4), g.param("w", 0.6)
    y = g.sample("y", Normal, m, 0.8, plates=plates)
    z = g.sample("z", Normal, w * y, 0.7, plates=plates)
    own = g.log_prob(y) + g.log_prob(z)
    cost = (
        own
        - g.log_prob(Normal, y, 0.0, 1.0)
        - g.log_prob(Normal, z, y, 1.0)
        - g.log_prob(Normal, 0.7, z, 0.9)
    )
    if size:
        g.bound("bound", cost, over="k")
    else:
        g.cost("loss", cost)
    return g


def mean(g: scg.Graph, program: scg.Program, points: int) -> Tensor:
    """Return the mean gradient over all normal noise, by quadrature, in one call."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(points))
    shapes = {name: value.shape for name, value in program.draw_noise(0).items()}
    count = sum(shape.numel() for shape in shapes.values())
    grid = torch.cartesian_prod(*[nodes] * count).view(-1, count)
    mass = torch.cartesian_prod(*[weights / weights.sum()] * count).view(-1, count).prod(1)
    parts = grid.split([shape.numel() for shape in shapes.values()], 1)
    noise = {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    found = drawer(program, {}, [name for name, _ in g.named_parameters()], noise)
    assert found.is_batched
    return mass @ found(noise)


def close(g: scg.Graph, policy: Any, points: int, tolerance: float) -> None:
    """Hold a policy against the path derivative in full."""
    wanted, found = (mean(g, scg.compile(g, one), points) for one in ("reparam", policy))
    assert torch.allclose(found, wanted, rtol=0, atol=tolerance)


def test_dreg_is_exact_under_two_particles() -> None:
    close(one(2), "dreg", 60, 1e-10)


def test_dreg_is_exact_under_three_particles() -> None:
    close(one(3), "dreg", 26, 1e-6)


def test_one_particle_is_enough() -> None:
    close(one(1), "dreg", 40, 1e-10)


def test_the_path_of_the_value_alone_is_exact_under_a_sum() -> None:
    for scale in (1.0, 0.4):
        close(one(None, scale=scale), STL, 40, 1e-10)
    close(chain(None), STL, 12, 1e-10)


@pytest.mark.parametrize("policy", ["dreg", {"y": "dreg", "z": "reparam"}, {"y": "reparam", "z": "dreg"}])
def test_particles_in_layers_are_exact(policy: Any) -> None:
    close(chain(2), policy, 18, 1e-5)


def test_what_leaves_the_derivative_of_log_q_out_is_biased_under_a_bound() -> None:
    """What the tests above are able to see."""
    g = one(2)
    wanted = mean(g, scg.compile(g, "reparam"), 40)
    program = scg.compile(g, "reparam")
    prepared = program._latest()
    choice = prepared.choices["z"]
    prepared.choices["z"] = replace(choice, asks=replace(choice.asks, detached=True))  # type: ignore[index]
    prepared.emitted.clear()
    found = mean(g, program, 40)
    assert float((found - wanted).abs().max()) > 0.005


def test_at_the_posterior_nothing_is_left_of_the_variance() -> None:
    """With q = p(z | x), weights are equal: both estimates of the parameters of q are 0 in every run."""
    for size, policy in ((None, STL), (4, "dreg")):
        g = scg.Graph()
        plates: Any = g.plate("k", size=size) if size else ()
        m, v = g.param("m", 0.35), g.param("v", 0.5**0.5)
        z = g.sample("z", Normal, m, v, plates=plates)
        cost = g.log_prob(z) - g.log_prob(Normal, z, 0.0, 1.0) - g.log_prob(Normal, 0.7, z, 1.0)
        if size:
            g.bound("loss", cost, over="k")
        else:
            g.cost("loss", cost)
        for name, quiet in ((policy, True), ("reparam", False)):
            program = scg.compile(g, name)
            found = torch.autograd.grad(program(seed=1).loss, [g["m"].value, g["v"].value])
            assert (max(float(part.abs()) for part in found) < 1e-12) == quiet


def spread(g: scg.Graph, policy: Any) -> float:
    program = scg.compile(g, policy)
    rows = [torch.autograd.grad(program(seed=seed).loss, g["m"].value)[0] for seed in range(300)]
    return float(torch.stack(rows).var())


def test_variance_is_below_that_of_the_full_path() -> None:
    g = one(16, log=-0.3)
    assert spread(g, "dreg") < spread(g, "reparam") / 2


@pytest.mark.parametrize("policy", ["dreg", {"*": "dreg"}])
def test_replicates_batches_and_torch_compile(policy: Any) -> None:
    g = scg.Graph()
    g.plate("k", size=3)
    x = g.input("x", torch.tensor([0.3, -0.8]), plates="batch")
    z = g.sample(
        "z",
        Normal,
        g.det("h", lambda x, w: x[..., None] * w, x, g.param("w", torch.ones(2))),
        0.6,
        plates=("k", "batch"),
    )
    prior = g.log_prob(Normal, z, torch.zeros(2), torch.ones(2))
    g.bound("bound", g.log_prob(z) - prior - g.log_prob(Normal, x, z.sum(-1), 0.9), over="k")
    program = scg.compile(g, policy, samples=64)
    assert scg.verify(program, resolution=0.1).verdict == "unbiased"

    def left() -> Tensor:
        return torch.autograd.grad(program(x=torch.tensor([0.3, -0.8]), seed=1).loss, g["w"].value)[0]

    before = left()
    program.compile(backend="eager")
    left()
    assert torch.allclose(left(), before)


def through_a_function() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=2)
    z = g.sample("z", Normal, g.param("m", 0.4), 1.0, plates="k")
    g.bound("bound", g.det("t", lambda q, z: q + z**2, g.log_prob(z), z), over="k")
    return g


def times_the_value() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", 0.4), 1.0)
    g.cost("loss", g.log_prob(z) * z)
    return g


def without() -> scg.Graph:
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", 0.4), 1.0)
    g.cost("loss", z**2)
    return g


def besides() -> scg.Graph:
    g = one(2)
    g.cost("other", g["z"] ** 2)
    return g


def stepped() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=2)
    z = g.sample("z", Normal, g.param("m", 0.4), 1.0, plates="k")
    g.bound("bound", g.log_prob(z) + (z > 0).double(), over="k")
    return g


def discrete() -> scg.Graph:
    g = scg.Graph()
    g.plate("k", size=2)
    z = g.sample("z", Normal, g.param("m", 0.4), 1.0, plates="k")
    b = g.sample("b", Bernoulli, logits=z, plates="k")
    g.bound("bound", g.log_prob(z) + b, over="k")
    return g


WRONG: list[tuple[Callable[[], scg.Graph], Any, str]] = [
    (lambda: one(2), STL, "biased under the bound 'bound': use \"dreg\""),
    (times_the_value, STL, "'mul_1' does not add its log-probability"),
    (without, STL, r"no cost adds g.log_prob\(z\)"),
    (without, "dreg", "reaches 0: declare g.bound"),
    (through_a_function, "dreg", "'t' does not add its log-probability"),
    (lambda: one(2, count=2.0), "dreg", "do not count its log-probability once"),
    (lambda: one(2, scale=0.5), "dreg", "do not count its log-probability once"),
    (besides, "dreg", "reaches 'other' too"),
    (stepped, "dreg", "not differentiable"),
    (discrete, "dreg", "'b' below it is discrete, without a path"),
]


@pytest.mark.parametrize(("made", "policy", "told"), WRONG)
def test_what_they_are_not_for_is_refused(made: Callable[[], scg.Graph], policy: Any, told: str) -> None:
    with pytest.raises(scg.EstimatorError, match=told):
        scg.compile(made(), {"z": policy})


def test_a_part_of_the_costs_has_no_path_of_its_own() -> None:
    g = one(None)
    g.cost("other", g["z"] ** 2)
    with pytest.raises(scg.EstimatorError, match="give it to the whole node"):
        scg.compile(g, scg.Parts({"loss": STL, "other": "score"}))


def test_other_paths_are_refused() -> None:
    with pytest.raises(scg.EstimatorError, match='"dreg" is an estimator'):
        scg.Reparam(path="dreg")  # type: ignore[arg-type]
