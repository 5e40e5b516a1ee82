"""Estimators sketched on the protocol, one of each kind, held against the exact gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from tests.truth.judge import Case, right_or_refused

X = torch.tensor([0.3, -0.8], dtype=torch.double)


@dataclass(frozen=True)
class MeasureValued(scg.Cut):
    """d/d(mean) E f = E[f(m + s w) - f(m - s w)] / (s sqrt(2 pi)), w of the Weibull law with shape 2."""

    name: ClassVar[str] = "measure-valued"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None if facts.law.family == "Normal" else scg.Refusal("it is sketched for a Normal")

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(fresh=("uniform", "normal", "normal"), downstream=4)

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        mean, scale = site.parameters["loc"], site.parameters["scale"]
        weibull = (-2 * torch.log(site.fresh_noise(0))).sqrt()
        maxwell = (weibull**2 + site.fresh_noise(1) ** 2).sqrt() * site.value.sub(mean).sign()
        points = [mean + scale * weibull, mean - scale * weibull, mean + scale * maxwell]
        high, low, far, near = site.downstream(torch.stack([*points, mean + scale * site.fresh_noise(2)]))
        shift = (high - low) / math.sqrt(2 * math.pi)
        spread = far - near
        return {"loc": site.spread(shift, mean) / scale, "scale": site.spread(spread, mean) / scale}


@dataclass(frozen=True)
class MuProp(scg.Cut):
    """(f(b) - f(m) - f'(m)(b - m)) dlog p(b) + f'(m) dm, m the mean of b."""

    name: ClassVar[str] = "muprop"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None if facts.law.family == "Bernoulli" else scg.Refusal("it is sketched for a Bernoulli")

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(relaxed=1)

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        def cost(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            mean = parameters["logits"].sigmoid()
            found = site.relaxation(mean[None])
            return found.total[0], (mean, found.credit[0])

        path, (mean, at_mean) = site.derivative(cost)
        slope = path["logits"] / (mean * (1 - mean))
        linear = (
            (slope * (site.value - mean)).flatten(site.lead).sum(-1)
            if site.value.dim() > site.lead
            else (slope * (site.value - mean))
        )
        return site.score(site.value, (site.credit - at_mean - linear).detach(), path)


@dataclass(frozen=True)
class StraightThrough(scg.Through):
    """The hard value, with the derivative of its mean: biased but where what is below is linear."""

    name: ClassVar[str] = "straight-through"
    unbiased: ClassVar[bool] = False

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def value(self, site: scg.Site) -> Tensor:
        mean = site.parameters["logits"].sigmoid()
        return site.law.draw(site.parameters, site.noise).detach() + mean - mean.detach()


@dataclass(frozen=True)
class Vimco(scg.Scored):
    """A baseline of the others along replicates, for a cost that is a mean over them: their mean."""

    name: ClassVar[str] = "vimco"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(independent="replicates")

    def baseline(self, site: scg.Site) -> Tensor:
        dim = site.dim("replicates")
        return (site.credit.sum(dim, keepdim=True) - site.credit) / (site.credit.shape[dim] - 1)


@dataclass(frozen=True)
class TopAndRest(scg.Branched):
    """The likelier outcome, and the other one, each with its probability (sum and sample, of two)."""

    name: ClassVar[str] = "top-and-rest"

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None if facts.law.family == "Bernoulli" and facts.elements == 1 else scg.Refusal("one bit")

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(branches=2)

    def branches(self, site: scg.Site) -> scg.Branches:
        assert site.apart is not None
        p = site.parameters["logits"].sigmoid()
        outcomes = torch.tensor([1.0, 0.0], dtype=p.dtype).view(2, *site.apart.plates)
        return scg.Branches(outcomes, torch.stack([p, 1 - p], len(site.axes)))


def bits(power: float) -> scg.Graph:
    """Three bits for each of two elements, of which a cost takes a polynomial, over a bit above."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    w = g.param("w", torch.tensor([0.4, -0.2, 0.9], dtype=torch.double))
    b = g.sample("b", Bernoulli, logits=g.det("h", lambda x, w: x[..., None] * w + 0.3, x, w))
    g.cost("c", lambda b: (b * torch.tensor([1.0, 2.0, -0.7]).to(b)).sum(-1) ** power, b)
    return g


def line(power: float) -> scg.Graph:
    """A normal for each of two elements."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    m, s = (
        g.param(name, torch.tensor(value, dtype=torch.double)) for name, value in (("m", 0.7), ("s", 0.6))
    )
    z = g.sample("z", Normal, x + m, s)
    g.cost("c", (z - 0.2) ** power)
    return g


def one(power: float) -> scg.Graph:
    """One bit for each of two elements."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    b = g.sample("b", Bernoulli, logits=x * g.param("w", torch.tensor(0.6, dtype=torch.double)) + 0.2)
    g.cost("c", (b - 0.3) ** power)
    return g


CASES = [
    (MeasureValued(), line, 3.0, 512),
    (MuProp(), bits, 2.0, 512),
    (MuProp(), one, 3.0, 512),
    (Vimco(), bits, 2.0, 512),
    (TopAndRest(), one, 3.0, None),
    (scg.Coupled(), bits, 2.0, 512),
    (scg.Coupled(), one, 3.0, 512),
    (scg.Score(baseline=scg.MovingAverage() + scg.LeaveOneOut()), bits, 2.0, 512),
    (scg.Score(baseline=scg.LeaveOneOut("batch")), bits, 2.0, 512),
    (scg.REBAR(baseline=scg.LeaveOneOut("batch")), bits, 2.0, 512),
    (scg.RELAX(baseline="self-critical"), bits, 2.0, 512),
]


@pytest.mark.parametrize(("estimator", "make", "power", "samples"), CASES)
def test_a_sketch_gives_the_exact_gradient(
    estimator: scg.Estimator, make: object, power: float, samples: int | None
) -> None:
    case = Case(
        lambda: make(power),  # type: ignore[operator]
        scg.exact_objective,
        lambda g: {"x": X},
        policy=estimator,
        samples=samples,
        must_work=True,
        effort=1 if samples else 64,
    )
    right_or_refused(case)


def test_straight_through_is_right_where_it_can_be() -> None:
    g = bits(1.0)
    program = scg.compile(g, StraightThrough(), samples=4, allow_biased=True)
    estimate = program(x=X, seed=0)
    estimate.loss.backward()
    assert set(estimate.samples["b"].round(decimals=9).unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(program.w.grad, scg.exact_gradient(g)["w"])
    with pytest.raises(scg.BiasedEstimatorError, match="'straight-through' at 'b' is biased"):
        scg.compile(g, StraightThrough())


def test_a_plate_that_costs_join_is_not_compared() -> None:
    g = bits(2.0)
    g.cost("all", lambda b: b.sum((-1, -2)), g["b"], plates=())
    with pytest.raises(scg.EstimatorError, match="plate 'batch', which costs below join"):
        scg.compile(g, scg.Score(baseline=scg.LeaveOneOut("batch")))


def test_a_last_batch_of_one_has_no_others() -> None:
    """Each batch of one gives the plain score, which is right."""
    program = scg.compile(bits(2.0), scg.Score(baseline=scg.LeaveOneOut("batch")))
    plain = scg.compile(bits(2.0), "score")
    for one in (program, plain):
        one(x=X[:1], seed=3).loss.backward()
    assert torch.equal(program.w.grad, plain.w.grad)


def test_an_ordered_plate_is_not_compared() -> None:
    g = scg.Graph()
    g.plate("time", ordered=True, reduce="sum")
    x = g.input("x", plates="time", example=torch.zeros(3))
    g.cost("c", g.sample("b", Bernoulli, logits=x + g.param("t", 0.1)) ** 2)
    with pytest.raises(scg.EstimatorError, match="plate 'time', which costs below join"):
        scg.compile(g, scg.Score(baseline=scg.LeaveOneOut("time")))


@pytest.mark.parametrize("other", ["replicates", "batch"])
def test_elements_are_compared_once(other: str) -> None:
    with pytest.raises(scg.EstimatorError, match="one comparison of elements at most"):
        scg.LeaveOneOut() + scg.LeaveOneOut(other)


def test_networks_do_not_add() -> None:
    net = torch.nn.Linear(1, 1)
    with pytest.raises(scg.EstimatorError, match="one network at most"):
        scg.Net(net) + scg.Net(net)
    with pytest.raises(scg.EstimatorError, match=r"baselines add to baselines, as scg\.Net"):
        scg.Net(net) + net  # type: ignore[operator]


def test_control_variates_take_no_baseline_that_learns() -> None:
    with pytest.raises(scg.EstimatorError, match="learns already"):
        scg.REBAR(baseline=scg.MovingAverage())
    with pytest.raises(scg.EstimatorError, match="learns already"):
        scg.LAX(baseline=scg.Net(torch.nn.Linear(1, 1)))
