"""Control variates at one node: the estimate integrated over all base noise is the exact gradient, to 1e-9.

Noise is chosen by what it leads to. An outcome is forced, and the variable before the hard step takes the
points of a rule within that outcome: z, and independently z~. Given the outcome an estimate is a sum of a
function of each, so that one is integrated while the other stands still.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from scipy.special import roots_genlaguerre
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal, OneHotCategorical

import scg
from scg.oracle import exact_gradient
from tests.contract.instances import stirred
from tests.contract.judge import gap
from tests.support.points import Rule, both_ends, joined, legendre

TOLERANCE = 1e-9
EPSILON = torch.finfo(torch.float64).eps
FREE, TIED = 0.21, 0.64
"""Where the noise of z, and that of z~, stands still: a coordinate between 0 and 1."""


@dataclass(frozen=True)
class Coordinates:
    """The noise of one outcome: ``free`` leads to z and ``tied`` to z~, at points of ``weights``."""

    chance: Tensor
    weights: Tensor
    free: Tensor
    tied: Tensor


def panels(edges: list[float], count: int = 16) -> Rule:
    return joined([legendre(count, a, b) for a, b in itertools.pairwise(edges)])


def of_bernoulli(logit: Tensor) -> Iterator[Coordinates]:
    """Points of |z|, and what noise gives them: u = sigma(z - l), v = (e^|z| - 1) / (e^|z| + e^(s l))."""
    edges = [0.25 * k for k in range(8)] + [2.0 + k for k in range(34)]
    weights, size = panels(edges)
    for sign in (-1.0, 1.0):
        chance = torch.sigmoid(sign * logit)
        free = torch.sigmoid(sign * size - logit)
        tied = -torch.expm1(-size) / (1 + (sign * logit - size).exp())
        yield Coordinates(chance, weights * free * (1 - free) / chance, free, tied)


def of_categorical(probs: Tensor, rule: Rule, radial: int) -> Iterator[Coordinates]:
    """Points of rho_i = exp(z_i - z_b) on the unit square, in triangles from the corner, and of a radius.

    With E = -log v and D = p_b + sum_i p_i / rho_i: E_b = R / D, R of Gamma(3), and
    E_i = p_i E_b (1 / rho_i - 1); the noise of z itself is -log u_b = p_b E_b, -log u_i = p_i E_b + E_i.
    """
    points, weights = (torch.from_numpy(part) for part in roots_genlaguerre(radial, 2.0))
    radius = (weights / 2, points)
    grids = [torch.meshgrid(*parts, indexing="ij") for parts in zip(rule, rule, radius, strict=True)]
    weight = math.prod(part.flatten() for part in grids[0])  # type: ignore[type-var]
    far, side, size = (part.flatten() for part in grids[1])
    for b in range(3):
        i, k = (other for other in range(3) if other != b)
        for ratios in ((far, far * side), (far * side, far)):
            rho = dict(zip((i, k), ratios, strict=True))
            down = probs[b] * rho[i] * rho[k] + probs[i] * rho[k] + probs[k] * rho[i]
            density = 2 * probs[i] * probs[k] * rho[i] * rho[k] / down**3
            top = size * rho[i] * rho[k] / down
            tied = torch.empty(len(top), 3, dtype=torch.float64)
            tied[:, b] = top
            for other in (i, k):
                tied[:, other] = probs[other] * top * (1 / rho[other] - 1)
            free = probs * top[:, None] + tied
            free[:, b] = probs[b] * top
            noise = ((-part).exp().clamp(max=1 - EPSILON / 2) for part in (free, tied))
            yield Coordinates(probs[b], weight * density * far, *noise)


def star(every: list[Coordinates], samples: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights [n], noise [samples, n, ...] and fresh noise, one of them moving at a time."""
    weights, free, tied = list[Tensor](), list[Tensor](), list[Tensor]()
    for chosen in itertools.product(every, repeat=samples):
        mass = math.prod(float(c.weights.sum() * c.chance) for c in chosen)
        still = [_still(c) for c in chosen]
        for position, moving in itertools.product(range(samples), (0, 1)):
            own = chosen[position]
            share = own.weights / own.weights.sum() * mass
            rows = [[part.expand(len(share), *part.shape) for part in one] for one in still]
            rows[position][moving] = (own.free, own.tied)[moving]
            weights.append(share)
            free.append(torch.stack([row[0] for row in rows]))
            tied.append(torch.stack([row[1] for row in rows]))
        weights.append(torch.full((1,), mass * (1 - 2 * samples), dtype=torch.float64))
        free.append(torch.stack([one[0][None] for one in still]))
        tied.append(torch.stack([one[1][None] for one in still]))
    return torch.cat(weights), torch.cat(free, 1), torch.cat(tied, 1)


def _still(one: Coordinates) -> tuple[Tensor, Tensor]:
    count = len(one.weights)
    return one.free[int(FREE * count)], one.tied[int(TIED * count)]


def integrate(
    graph: scg.Graph, program: scg.Program, points: tuple[Tensor, Tensor, Tensor], samples: int | None
) -> dict[str, Tensor]:
    """Return the weighted sum of the gradients that one backward leaves in each copy."""
    weights, free, tied = points
    examples = graph.freeze().store.examples
    live = {n: v[:1].expand(len(weights), *v.shape[1:]).clone().requires_grad_() for n, v in examples.items()}
    noise = {"b": free if samples else free[0], "b.1": tied if samples else tied[0]}
    loss = stirred(program)(**live, noise=noise).loss
    gradients = torch.autograd.grad(loss, list(live.values()))
    return {n: torch.einsum("n,n...->...", weights, g) for n, g in zip(live, gradients, strict=True)}


class Declared:
    """theta -> b -> cost and theta -> cost: once, or in many copies whose theta is an input."""

    def __init__(self, start: list[float] | float, many: bool) -> None:
        self.g, value = scg.Graph(), torch.tensor(start, dtype=torch.float64)
        if not many:
            self.theta = self.g.param("theta", value)
            return
        self.g.plate("copy", reduce="sum")
        self.theta = self.g.input("theta", plates="copy", example=value.expand(3, *value.shape))


LOGIT, CHANCE = 0.4, 0.3


def bernoulli(given: str, many: bool = True) -> scg.Graph:
    made = Declared(LOGIT if given == "logits" else CHANCE, many)
    b = made.g.sample("b", Bernoulli, **{given: made.theta})
    made.g.cost("cost", bernoulli_cost, b, made.theta)
    return made.g


def bernoulli_cost(b: Tensor, t: Tensor | float) -> Tensor:
    return (1 + 0.2 * t) * torch.tanh(2 * b - 0.7) + 0.3 * b * b


def bernoulli_points(given: str) -> list[Coordinates]:
    start = torch.tensor(LOGIT if given == "logits" else CHANCE, dtype=torch.float64)
    return list(of_bernoulli(start if given == "logits" else torch.logit(start)))


def is_exact(
    make: Callable[[bool], scg.Graph],
    estimator: scg.Estimator,
    points: list[Coordinates],
    samples: int | None = None,
) -> None:
    graph = make(True)
    program = scg.compile(graph, estimator, samples=samples)
    found = integrate(graph, program, star(points, samples or 1), samples)
    expected = exact_gradient(make(False))
    assert min(float(part.abs().max()) for part in expected.values()) > 0.01
    assert gap(found, expected) < TOLERANCE, (found, expected)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_the_points_have_the_law_of_the_outcomes(given: str) -> None:
    for one in bernoulli_points(given):
        assert float(one.weights.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("temperature, eta", [(0.1, 1.0), (0.5, 0.3), (0.5, 5.0), (0.8, 1.7), (2.0, 0.6)])
def test_rebar_at_a_bernoulli(given: str, temperature: float, eta: float) -> None:
    estimator = scg.REBAR(temperature=temperature, eta=eta)
    is_exact(lambda many: bernoulli(given, many), estimator, bernoulli_points(given))


class Curve(nn.Module):
    """A network of z itself, of one event dimension or none, which does not vanish far out."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.slopes = nn.Parameter(torch.tensor([0.8, -1.3], dtype=torch.float64))

    def forward(self, z: Tensor, *context: Tensor) -> Tensor:
        low, high = self.slopes
        more = sum((torch.tanh(z + item) for item in context), torch.zeros_like(z))
        found = torch.tanh(low * z) + high * torch.sin(0.5 * z) + more
        return found.sum(-1) if self.rank else found


class Large(nn.Module):
    """A network that is large and has nothing to do with the cost."""

    def __init__(self, frequency: float = 7.0) -> None:
        super().__init__()
        self.frequency = frequency
        self.scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.scale * z**2 + torch.sin(self.frequency * z)


class FiveTimes(nn.Module):
    """Five times the cost at a relaxed value, and noise: a function that has nothing to do with it."""

    def __init__(self, cost: Callable[[Tensor], Tensor], noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cost = cost
        self.noise = noise
        self.scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.scale * self.cost(z) + self.noise(z)


class Radial(nn.Module):
    """A network of three perturbed log-probabilities, a polynomial of low degree in their common scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([[1.5, -0.8, 0.4], [0.3, 0.9, -0.6]], dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        angle = torch.softmax(z, -1) @ self.weights.T
        radius = torch.exp(-torch.logsumexp(z, -1))
        return 3 * torch.sin(angle[..., 0]) + radius * (angle[..., 1] + 0.2 * radius)


BERNOULLI: dict[str, Callable[[], scg.Estimator]] = {
    "default": scg.RELAX,
    "default-alone": lambda: scg.RELAX(relaxed_cost=False),
    "net": lambda: scg.RELAX(Curve(0), relaxed_cost=False),
    "net-and-cost": lambda: scg.RELAX(Curve(0), relaxed_cost=True),
    "net-of-context": lambda: scg.RELAX(Curve(0), context="theta"),
    "wrong": lambda: scg.RELAX(Large(), relaxed_cost=False),
    "wrong-and-cost": lambda: scg.RELAX(Large()),
    "five-times": lambda: scg.RELAX(
        FiveTimes(
            lambda z: bernoulli_cost(torch.sigmoid(z), LOGIT), lambda z: 2 * torch.sin(17 * torch.sigmoid(z))
        ),
        relaxed_cost=False,
    ),
}
CATEGORICAL: dict[str, Callable[[], scg.Estimator]] = {
    "default": scg.RELAX,
    "default-alone": lambda: scg.RELAX(relaxed_cost=False),
    "net": lambda: scg.RELAX(Radial(), relaxed_cost=False),
    "net-and-cost": lambda: scg.RELAX(Radial(), relaxed_cost=True),
    "five-times": lambda: scg.RELAX(
        FiveTimes(
            lambda z: height_cost(mixed_height(torch.softmax(z, -1)), 0.0),
            lambda z: 2 * torch.sin(17 * torch.softmax(z, -1)).sum(-1),
        ),
        relaxed_cost=False,
    ),
}


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("name", BERNOULLI)
def test_relax_at_a_bernoulli(given: str, name: str) -> None:
    is_exact(lambda many: bernoulli(given, many), BERNOULLI[name](), bernoulli_points(given))


@pytest.mark.parametrize(
    "estimator",
    [
        scg.REBAR(baseline="leave-one-out"),
        scg.REBAR(temperature=0.8, eta=1.6, baseline="leave-one-out"),
        scg.RELAX(baseline="leave-one-out"),
        scg.RELAX(Large(), baseline="leave-one-out"),
    ],
    ids=["rebar", "rebar-warm", "relax", "relax-wrong"],
)
def test_leave_one_out_at_a_bernoulli(estimator: scg.Estimator) -> None:
    is_exact(lambda many: bernoulli("logits", many), estimator, bernoulli_points("logits"), samples=2)


START = {"logits": [0.6, -0.3, 0.1], "probs": [0.9, 0.2, 0.5]}
HEIGHTS = (0.9, -0.7, 0.3)


def height(index: Tensor) -> Tensor:
    return torch.tensor(HEIGHTS, dtype=torch.float64)[index]


def mixed_height(simplex: Tensor) -> Tensor:
    return simplex @ torch.tensor(HEIGHTS, dtype=torch.float64)


def height_cost(h: Tensor, first: Tensor | float) -> Tensor:
    return (h - 0.2) ** 2 + torch.sin(1.5 * h) * (1 + 0.3 * first)


def categorical(cls: type, given: str, many: bool) -> scg.Graph:
    made = Declared(START[given], many)
    b = made.g.sample("b", cls, **{given: made.theta})
    if cls is Categorical:
        h = made.g.det("h", height, b, relaxed=mixed_height)
    else:
        h = made.g.det("h", mixed_height, b)
    made.g.cost("cost", lambda h, t: height_cost(h, t[..., 0]), h, made.theta)
    return made.g


def categorical_points(given: str, rule: Rule | None = None, radial: int = 1) -> list[Coordinates]:
    start = torch.tensor(START[given], dtype=torch.float64)
    probs = torch.softmax(start, -1) if given == "logits" else start / start.sum()
    return list(of_categorical(probs, legendre(24) if rule is None else rule, radial))


laws = pytest.mark.parametrize("cls", [Categorical, OneHotCategorical])
parameters = pytest.mark.parametrize("given", ["logits", "probs"])


@parameters
def test_the_points_have_the_law_of_three_outcomes(given: str) -> None:
    """Halves make up each outcome, and fresh noise is independent and uniform."""
    every = categorical_points(given, both_ends(), 8)
    for first, second in zip(every[::2], every[1::2], strict=True):
        assert float(first.weights.sum() + second.weights.sum()) == pytest.approx(1, abs=1e-11)
        moments = sum(one.weights @ one.tied.prod(-1) ** 0.7 for one in (first, second))
        assert float(moments) == pytest.approx(1.7**-3, abs=1e-7)
    whole = sum(one.chance * (one.weights @ one.free.prod(-1) ** 0.7) for one in every)
    assert float(whole) == pytest.approx(1.7**-3, abs=1e-7)


@laws
@parameters
@pytest.mark.parametrize("temperature, eta", [(0.3, 0.7), (0.5, 1.0), (2.0, 1.6)])
def test_rebar_at_three_outcomes(cls: type, given: str, temperature: float, eta: float) -> None:
    estimator = scg.REBAR(temperature=temperature, eta=eta)
    rule = both_ends(0.15)
    is_exact(lambda many: categorical(cls, given, many), estimator, categorical_points(given, rule))


@laws
@parameters
@pytest.mark.parametrize("name", CATEGORICAL)
def test_relax_at_three_outcomes(cls: type, given: str, name: str) -> None:
    is_exact(
        lambda many: categorical(cls, given, many), CATEGORICAL[name](), categorical_points(given, radial=3)
    )


STEP = 0.9
COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smooth": lambda x, m: (x - 0.4) ** 2 + torch.sin(x) * (1 + 0.2 * m),
    "step": lambda x, m: (x > STEP).to(x.dtype) * (1 + 0.2 * m),
}
LAXES: dict[str, Callable[[], scg.Estimator]] = {
    "default": scg.LAX,
    "net": lambda: scg.LAX(Curve(0)),
    "net-of-context": lambda: scg.LAX(Curve(0), context="mean"),
    "wrong": lambda: scg.LAX(Large()),
}
MEAN, DEVIATION = 0.3, 0.7


def normal(cost: Callable[[Tensor, Tensor], Tensor]) -> scg.Graph:
    g = scg.Graph()
    g.plate("copy", reduce="sum")
    mean, deviation = (
        g.input(name, plates="copy", example=torch.full((3,), value))
        for name, value in (("mean", MEAN), ("deviation", DEVIATION))
    )
    g.cost("cost", cost, g.sample("x", Normal, mean, deviation), mean)
    return g


def normal_points() -> Rule:
    """Panels of standard normal noise, none of which has the step inside."""
    weights, noise = panels([*torch.linspace(-9, (STEP - MEAN) / DEVIATION, 25).tolist(), *range(1, 10)])
    return weights * (-noise.square() / 2).exp() / math.sqrt(2 * math.pi), noise


def normal_truth(cost: str) -> tuple[float, float]:
    """The derivatives of the expected cost in mean and deviation, by differentiating the density."""
    mean, deviation = torch.tensor(MEAN, requires_grad=True), torch.tensor(DEVIATION, requires_grad=True)
    if cost == "step":
        chance = torch.special.ndtr((mean - STEP) / deviation)
        value = chance * (1 + 0.2 * mean)
    else:
        waves = torch.sin(mean) * torch.exp(-(deviation**2) / 2)
        value = (mean - 0.4) ** 2 + deviation**2 + waves * (1 + 0.2 * mean)
    one, other = torch.autograd.grad(value, (mean, deviation))
    return float(one), float(other)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", LAXES)
def test_lax_at_a_normal(cost: str, name: str) -> None:
    graph, (weights, noise) = normal(COSTS[cost]), normal_points()
    program = stirred(scg.compile(graph, LAXES[name]()))
    live = [torch.full_like(noise, value).requires_grad_() for value in (MEAN, DEVIATION)]
    loss = program(mean=live[0], deviation=live[1], noise={"x": noise}).loss
    found = [float(weights @ part) for part in torch.autograd.grad(loss, live)]
    assert found == pytest.approx(normal_truth(cost), abs=TOLERANCE)
