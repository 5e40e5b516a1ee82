"""Measure-valued gradients: every split of a law, integrated over the value and the noise that it reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

import scg
from scg.estimators.parts.splits import SPLITS, Draw
from scg.laws import law_for
from tests.estimators.building import facts, of, site
from tests.support.points import both_ends, joined

CONTINUOUS: dict[str, tuple[type[Distribution], dict[str, float], Any]] = {
    "Normal": (td.Normal, {"loc": 0.4, "scale": 0.7}, scipy.stats.norm(0.4, 0.7)),
    "LogNormal": (td.LogNormal, {"loc": 0.2, "scale": 0.5}, scipy.stats.lognorm(0.5, scale=math.exp(0.2))),
    "HalfNormal": (td.HalfNormal, {"scale": 0.7}, scipy.stats.halfnorm(scale=0.7)),
    "Exponential": (td.Exponential, {"rate": 1.3}, scipy.stats.expon(scale=1 / 1.3)),
    "Gamma": (td.Gamma, {"concentration": 2.3, "rate": 1.3}, scipy.stats.gamma(2.3, scale=1 / 1.3)),
    "Weibull": (td.Weibull, {"scale": 0.8, "concentration": 1.7}, scipy.stats.weibull_min(1.7, scale=0.8)),
    "Laplace": (td.Laplace, {"loc": 0.4, "scale": 0.7}, scipy.stats.laplace(0.4, 0.7)),
    "Gumbel": (td.Gumbel, {"loc": 0.4, "scale": 0.7}, scipy.stats.gumbel_r(0.4, 0.7)),
    "Uniform": (td.Uniform, {"low": -0.3, "high": 1.1}, scipy.stats.uniform(-0.3, 1.4)),
}
DISCRETE: dict[str, tuple[type[Distribution], dict[str, Any]]] = {
    "bernoulli-probs": (td.Bernoulli, {"probs": 0.3}),
    "bernoulli-logits": (td.Bernoulli, {"logits": -0.8}),
    "binomial-probs": (td.Binomial, {"total_count": 4, "probs": 0.3}),
    "binomial-logits": (td.Binomial, {"total_count": 4, "logits": 0.7}),
    "counted-binomial": (td.Binomial, {"total_count": 3.0, "logits": 0.7}),
    "poisson": (td.Poisson, {"rate": 1.7}),
    "geometric-probs": (td.Geometric, {"probs": 0.4}),
    "geometric-logits": (td.Geometric, {"logits": 0.5}),
    "negative-binomial-probs": (td.NegativeBinomial, {"total_count": 2.5, "probs": 0.3}),
    "negative-binomial-logits": (td.NegativeBinomial, {"total_count": 2.5, "logits": -0.6}),
}
MOST = 60


def cost(x: Tensor) -> Tensor:
    return torch.cos(1.3 * x) + 0.4 * torch.tanh(x)


def tensors(given: dict[str, Any]) -> dict[str, Any]:
    return {key: of(item)[0] if isinstance(item, float) else item for key, item in given.items()}


@pytest.mark.parametrize("family", CONTINUOUS)
def test_a_split_of_a_density_is_its_derivative(family: str) -> None:
    dist, given, truth = CONTINUOUS[family]
    law, parameters = law_for(dist, tensors(given))
    weights, points = both_ends()
    weights, u = joined([(weights / 2, points / 2), (weights / 2, 1 - points / 2)])  # some jump at the median
    noise = u.clamp(1e-15, 1 - 1e-15)
    value = torch.from_numpy(truth.ppf(noise.numpy()))
    shape = (len(u), len(u))
    full = {name: leaf.expand(shape) for name, leaf in parameters.items()}
    draw = Draw(law, full, value[:, None].expand(shape), noise[None].expand(shape))
    assert law.family == family and SPLITS[family]
    for name, split in SPLITS[family].items():
        leaf = parameters[name].clone().requires_grad_()
        made = law_for(dist, {**parameters, name: leaf})[1]
        if dist is td.Uniform:
            objective = area(made["low"], made["high"])
        else:
            objective = weights @ (cost(value) * law.log_prob(made, value))
        (expected,) = torch.autograd.grad(objective, leaf)
        plus, minus = (draw.value if made is None else made(draw) for made in (split.plus, split.minus))
        found = weights @ (split.constant(draw) * (cost(plus) - cost(minus))) @ weights
        assert float(found) == pytest.approx(float(expected), abs=1e-7), name


def area(low: Tensor, high: Tensor) -> Tensor:
    """The mean cost of what is uniform between two numbers."""
    bounds = [torch.sin(1.3 * x) / 1.3 + 0.4 * torch.cosh(x).log() for x in (low, high)]
    return (bounds[1] - bounds[0]) / (high - low)


def picks(name: str, value: Tensor, given: dict[str, Any]) -> Iterator[tuple[float, Tensor | None]]:
    """Yield noise that does all that noise can do at a value, and how probable each is."""
    if "binomial" in name and "negative" not in name:
        chance = float(value) / float(given["total_count"])
        edges = [0.0, chance, 1.0]
    elif "geometric" in name or "negative" in name:
        dist = td.Geometric if "geometric" in name else td.NegativeBinomial
        chances = {key: item for key, item in tensors(given).items() if key != "total_count"}
        success = td.Bernoulli(**chances).probs
        edges = [float((1 - success if dist is td.Geometric else success) ** k) for k in range(MOST)][::-1]
    else:
        yield 1.0, None
        return
    for low, high in itertools.pairwise(edges):
        if high > low:
            yield high - low, of((low + high) / 2)[0]


@pytest.mark.parametrize("name", DISCRETE)
def test_a_split_of_probabilities_is_their_derivative(name: str) -> None:
    dist, given = DISCRETE[name]
    law, parameters = law_for(dist, tensors(given))
    most = {td.Bernoulli: 1, td.Binomial: int(given.get("total_count", 0))}.get(dist, MOST)
    values = torch.arange(most + 1, dtype=torch.double)
    learned = next(key for key in ("probs", "logits", "rate") if key in parameters)
    leaf = parameters[learned].clone().requires_grad_()
    mass = law.log_prob({**parameters, learned: leaf}, values).exp()
    (expected,) = torch.autograd.grad(mass @ cost(values), leaf)
    total, split = 0.0, SPLITS[law.family][learned]
    for value, probability in zip(values, mass.detach(), strict=True):
        for chance, u in picks(name, value, given):
            draw = Draw(law, dict(parameters), value, u)
            plus, minus = (value if made is None else made(draw) for made in (split.plus, split.minus))
            total += probability * chance * split.constant(draw) * (cost(plus) - cost(minus))
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("dist", [td.Categorical, td.OneHotCategorical])
def test_choices_are_weighed_by_how_probable_they_are(dist: type[Distribution], given: str) -> None:
    start = of(0.2, 0.5, 0.9).requires_grad_()
    law, parameters = law_for(dist, {given: start})
    numbers = of(0.9, -0.7, 0.2)

    def charged(value: Tensor) -> Tensor:
        return (value * numbers).sum(-1) if law.value_rank else numbers[value.long()]

    (expected,) = torch.autograd.grad(law.mass(parameters) @ numbers, start)
    total = torch.zeros(3, dtype=torch.double)
    for value, probability in zip(law.support(parameters), law.mass(parameters).detach(), strict=True):
        one = site(
            dist, {given: start.detach()}, of(0.5, 0.5, 0.5), charged, value=value, credit=charged(value)
        )
        total += probability * scg.MeasureValued().gradient(one)[given]
    assert torch.allclose(total, expected, rtol=1e-12)


def test_elements_are_set_one_by_one() -> None:
    """At coins it is the difference of both values, as local enumeration has it."""
    logits, noise = of(0.4, -0.7, 1.2), of(0.3, 0.6, 0.2)

    def joint(z: Tensor) -> Tensor:
        return (z * of(1.0, 2.0, -0.6)).sum(-1) ** 2

    found = scg.MeasureValued().gradient(
        site(td.Bernoulli, {"logits": logits}, noise, joint, wanted=frozenset({"logits"}))
    )
    local = scg.Local().gradient(site(td.Bernoulli, {"logits": logits}, noise, joint))
    assert torch.allclose(found["logits"], local["logits"], rtol=1e-12)


@pytest.mark.parametrize(
    ("wanted", "points"), [({"loc", "scale"}, 9), ({"loc"}, 6), ({"scale"}, 3), (set(), 0)]
)
def test_what_needs_no_gradient_costs_nothing(wanted: set[str], points: int) -> None:
    met = []

    def joint(z: Tensor) -> Tensor:
        met.append(len(z))
        return z.sum(-1) ** 2

    parameters = {"loc": of(0.4, 0.1, 0.2), "scale": of(0.3, 0.5, 0.7)}
    fresh = {"fresh": (of(0.3, 0.5, 0.8),)}
    one = site(td.Normal, parameters, of(0.3, -0.6, 0.2), joint, provided=fresh, wanted=frozenset(wanted))
    met.clear()
    assert scg.MeasureValued().gradient(one).keys() == wanted
    assert sum(met) == points
    known = facts(td.Normal, parameters, event=(3,), elements=3, learned=lambda: frozenset(wanted))
    assert not wanted or scg.MeasureValued().asks(known) == scg.Asks(downstream=points, fresh=("uniform",))


@pytest.mark.parametrize(
    ("dist", "parameters", "refused"),
    [
        (td.Gamma, ("concentration", "rate"), "concentration"),
        (td.Weibull, ("scale", "concentration"), "concentration"),
        (td.Gumbel, ("loc", "scale"), "scale"),
        (td.NegativeBinomial, ("total_count", "probs"), "total_count"),
    ],
)
def test_a_parameter_without_a_split_is_refused_where_it_may_be_learned(
    dist: type[Distribution], parameters: tuple[str, str], refused: str
) -> None:
    given = {name: of(0.5) for name in parameters}
    estimator = scg.MeasureValued()
    assert f"in {refused} is no difference" in str(estimator.refuses(facts(dist, given)))
    other = frozenset({*parameters} - {refused})
    assert estimator.refuses(facts(dist, given, learned=lambda: other)) is None
    assert estimator.refuses(facts(dist, given, learned=lambda: frozenset(parameters))) is not None


def test_a_law_without_splits_is_refused() -> None:
    found = scg.MeasureValued().refuses(
        facts(td.Beta, {"concentration1": of(2.0), "concentration0": of(1.0)})
    )
    assert "a Beta" in str(found)


def ends(cost: Any) -> scg.Graph:
    g = scg.Graph()
    low, high = (
        g.param(name, torch.tensor(v, dtype=torch.double)) for name, v in (("low", -0.3), ("high", 1.1))
    )
    g.cost("c", cost, g.sample("z", td.Uniform, low, high), high, differentiable=False)
    return g


def test_the_ends_of_a_uniform_may_move() -> None:
    """Also where the cost jumps at the end itself: E z 1[z < high] is (low + high) / 2."""
    program = scg.compile(ends(lambda z, high: z * (z < high)), "measure-valued", samples=20_000)
    program(seed=0).loss.backward()
    for parameter in program.model_parameters():
        assert float(parameter.grad) == pytest.approx(0.5, abs=0.01)


def test_costs_may_jump() -> None:
    g = scg.Graph()
    m, s = (g.param(name, torch.tensor(v, dtype=torch.double)) for name, v in (("m", 0.2), ("s", 0.8)))
    g.cost("c", lambda z: (z > 0.5).to(z), g.sample("z", td.Normal, m, s))
    program = scg.compile(g, "measure-valued", samples=40_000)
    program(seed=0).loss.backward()
    density = math.exp(-((0.3 / 0.8) ** 2) / 2) / math.sqrt(2 * math.pi) / 0.8
    found = {name: float(p.grad) for name, p in program.named_parameters()}
    assert found["m"] == pytest.approx(density, abs=0.01)
    assert found["s"] == pytest.approx(density * 0.3 / 0.8, abs=0.01)
