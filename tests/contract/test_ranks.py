"""Ranks are declared: what each estimator makes of each law does not change where sizes happen to agree.

Elements of plates and replicates that share no cost are problems of their own: under the same noise, the
gradient of a program with both is the mean over replicates of the gradients of a program with neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td
from torch.nn.functional import softplus

import scg
from scg.analysis.facts import gather
from scg.choosing.describe import node_facts
from scg.laws import LAWS
from tests.contract.instances import INSTANCES, Instance, stirred
from tests.selection import by_turns

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """How many replicates and plate elements there are, how wide an event is and how many classes it has."""

    samples: int
    plates: int
    event: int
    classes: int

    def __str__(self) -> str:
        return f"{self.samples}{self.plates}{self.event}{self.classes}"


@dataclass(frozen=True)
class Kind:
    """A distribution whose parameters are functions of one pressure for each plate element."""

    name: str
    dist: Callable[..., td.Distribution]
    parameters: Mapping[str, Map]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def spread(*shape: int) -> Map:
    """One number for each element of an event, none of them alike."""
    steps = torch.linspace(-0.6, 0.9, torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    return lambda h: h[(..., *(None,) * len(shape))] * (0.3 + steps) + steps.flip(0) if shape else h


def chained(inner: Map, outer: Map) -> Map:
    return lambda h: outer(inner(h))


def positive(x: Tensor) -> Tensor:
    return 1.3 + softplus(x)


def simplex(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


def root(x: Tensor) -> Tensor:
    return x.tril(-1) + torch.diag_embed(positive(x.diagonal(dim1=-2, dim2=-1)))


def kinds(sizes: Sizes) -> list[Kind]:
    """Every class with a law of its own, with an event of every rank that it can have."""
    n, c = sizes.event, sizes.classes
    found = []
    for shape in ((), (n,)):
        rank = len(shape)
        real, rows = spread(*shape), spread(*shape, c)
        above, chance, some = chained(real, positive), chained(real, torch.sigmoid), chained(rows, simplex)
        several = chained(rows, positive)

        def add(dist: Any, constants: Any = None, rank: int = rank, **parameters: Map) -> None:
            name = "-".join((dist.__name__, *parameters, str(rank)))
            found.append(Kind(name, dist, parameters, constants or {}))

        for dist in (td.Bernoulli, td.Geometric, td.ContinuousBernoulli):
            add(dist, logits=real)
            add(dist, probs=chance)
        for dist in (td.Categorical, td.OneHotCategorical, td.OneHotCategoricalStraightThrough):
            add(dist, logits=rows)
            add(dist, probs=some)
        for dist in (td.RelaxedBernoulli, td.relaxed_bernoulli.LogitRelaxedBernoulli):
            add(dist, logits=real, temperature=above)
        for dist in (td.Normal, td.LogNormal, td.Laplace, td.Cauchy, td.Gumbel):
            add(dist, loc=real, scale=above)
        for dist in (td.Gamma, td.InverseGamma):
            add(dist, concentration=above, rate=above)
        for dist in (td.Beta, td.Kumaraswamy):
            add(dist, concentration1=above, concentration0=above)
        for dist in (td.HalfNormal, td.HalfCauchy):
            add(dist, scale=above)
        add(td.Binomial, {"total_count": 2}, logits=real)
        add(td.Binomial, {"total_count": 2}, probs=chance)
        add(td.Poisson, rate=above)
        add(td.NegativeBinomial, total_count=above, logits=real)
        add(td.Multinomial, {"total_count": 2}, logits=rows)
        add(td.Multinomial, {"total_count": 2}, probs=some)
        add(td.LogisticNormal, loc=rows, scale=several)
        add(td.MultivariateNormal, loc=rows, scale_tril=chained(spread(*shape, c, c), root))
        add(td.LowRankMultivariateNormal, loc=rows, cov_factor=spread(*shape, c, 2), cov_diag=several)
        add(td.Uniform, low=real, high=lambda h, above=above: 3.0 + above(h))
        add(td.Exponential, rate=above)
        add(td.Weibull, scale=above, concentration=above)
        add(td.Pareto, scale=above, alpha=above)
        add(td.GeneralizedPareto, loc=real, scale=above, concentration=chance)
        add(td.RelaxedOneHotCategorical, {"temperature": 0.7}, logits=rows)
        add(td.Chi2, df=above)
        add(td.Dirichlet, concentration=several)
        add(td.StudentT, df=above, loc=real, scale=above)
        add(td.FisherSnedecor, df1=above, df2=lambda h, above=above: 3.0 + above(h))
        add(td.VonMises, loc=real, concentration=above)
        add(
            td.Wishart, df=lambda h, above=above: c + above(h), scale_tril=chained(spread(*shape, c, c), root)
        )
        add(td.LKJCholesky, {"dim": c}, concentration=above)
    return found


def graph_of(kind: Kind, sizes: Sizes, *, many: bool) -> scg.Graph:
    """theta -> v -> cost, for each element of a plate if there are many."""
    g = scg.Graph()
    plates = ("p",) if many else ()
    if many:
        g.plate("p", reduce="sum")
    start = torch.linspace(-0.4, 0.6, sizes.plates, dtype=torch.float64)
    theta = g.input("theta", plates=plates, example=start if many else start[0])
    arguments = {key: g.det(f"v_{key}", fn, theta) for key, fn in kind.parameters.items()}
    v = g.sample("v", kind.dist, **arguments, **kind.constants)

    def cost(theta: Tensor, v: Tensor) -> Tensor:
        lead = theta.dim()
        flat = v.to(theta.dtype).reshape(*v.shape[:lead], -1)
        weights = torch.linspace(0.5, 1.1, flat.shape[-1], dtype=theta.dtype)
        return (1 + 0.2 * theta) * torch.tanh((flat * weights).sum(-1) / 2 - 0.3)

    g.cost("cost", cost, theta, v)
    return g


def gradient_of(program: scg.Program, theta: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    live = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(program(theta=live, noise=noise).loss, live)
    return gradient


def of_each(
    instance: Instance, kind: Kind, sizes: Sizes, many: scg.Program, noise: Any, theta: Tensor
) -> Tensor:
    """The gradients [replicates, elements] of a program for one element, under the noise of each."""
    one = stirred(scg.compile(graph_of(kind, sizes, many=False), instance.make("theta"))).eval()
    one.controls.load_state_dict(many.controls.state_dict())
    rows = [
        [gradient_of(one, h, {key: z[s, b] for key, z in noise.items()}) for b, h in enumerate(theta)]
        for s in range(sizes.samples)
    ]
    return torch.tensor(rows, dtype=theta.dtype)


SMOOTH: tuple[str, ...] = ("score", "reparam", "lax")
FINITE = ("score", "score+module", "enumerate", "local")
PROBED = ("rebar", "relax", "relax+row")
"""Estimators, and options of theirs that read ranks; it takes time to compile the last."""


ALIKE = (Sizes(2, 2, 2, 2), Sizes(3, 3, 3, 3))
APART = Sizes(2, 3, 4, 5)


def is_finite(kind: Kind) -> bool:
    return any(part in kind.name for part in ("Categorical", "Bernoulli", "Binomial"))


def has_classes(kind: Kind) -> bool:
    """Whether values may have other dimensions than parameters, which coincidences then hide."""
    return "Categorical" in kind.name or kind.dist is td.Multinomial


CLASSED = [place for place, kind in enumerate(kinds(APART)) if has_classes(kind)]
CASES = [
    *((kind, ALIKE[1]) for kind in kinds(ALIKE[1]) if has_classes(kind) or kind.name.endswith("1")),
    *((kinds(sizes)[place], sizes) for place, sizes in by_turns(CLASSED, (ALIKE[0], APART))),
]


@pytest.mark.parametrize(("kind", "sizes"), CASES, ids=[f"{kind}-{sizes}" for kind, sizes in CASES])
def test_elements_are_problems_of_their_own(kind: Kind, sizes: Sizes) -> None:
    graph = graph_of(kind, sizes, many=True)
    inputs = dict(graph.freeze().store.examples)
    facts = node_facts(gather(graph.freeze(), inputs), "v", None)
    names = FINITE if is_finite(kind) else SMOOTH
    if kind.dist not in (td.Normal, td.MultivariateNormal, td.Laplace):
        names = tuple(name for name in names if name != "lax")
    if is_finite(kind) and sizes is ALIKE[1] and "probs" not in kind.name:
        names += PROBED
    claiming = [INSTANCES[name] for name in names if INSTANCES[name].claims(facts)]
    assert claiming
    for instance in claiming:
        torch.manual_seed(0)
        program = stirred(scg.compile(graph, instance.make("theta"), samples=sizes.samples)).eval()
        noise = program.draw_noise(3, **inputs)
        found = gradient_of(program, inputs["theta"], noise)
        each = of_each(instance, kind, sizes, program, noise, inputs["theta"])
        assert float(each.abs().max()) > 1e-4
        torch.testing.assert_close(found, each.mean(0), rtol=1e-7, atol=1e-9, msg=str(instance))


@pytest.mark.parametrize("event", [3, 4])
def test_a_density_of_a_wider_event_than_its_parameters(event: int) -> None:
    """The parameters of each element are those of its whole event, also where there are as many of both."""
    g = scg.Graph()
    loc, value = torch.tensor([0.0, 1.0, 2.0]), torch.arange(3.0 * event).reshape(3, event)
    mu = g.input("mu", plates="p", example=loc)
    g.cost("c", g.log_prob(td.Normal, g.input("x", plates="p", example=value), loc=mu, scale=1.0))
    found = scg.compile(g)(mu=loc, x=value).costs["c"]
    torch.testing.assert_close(found, td.Normal(loc[:, None], 1.0).log_prob(value).sum(-1))


def test_every_law_is_here() -> None:
    assert {kind.dist for kind in kinds(APART)} == set(LAWS)


def test_an_estimate_that_would_broadcast_is_refused() -> None:
    class Summed(scg.Local):
        def gradient(self, site: Any) -> dict[str, Tensor]:
            return {name: part.sum() for name, part in super().gradient(site).items()}

    g = scg.Graph()
    b = g.sample("b", td.Bernoulli, logits=g.param("t", torch.zeros(3)))
    g.cost("c", lambda b: b.sum(), b)
    with pytest.raises(scg.EstimatorError, match=r"'logits' an estimate of shape \(\): return .*\(3,\)"):
        scg.compile(g, Summed())(seed=0)
