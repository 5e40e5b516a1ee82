"""Coupled evaluations, integrated over all of their noise: bits by cells of it, choices by their outcomes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical

import scg
from scg.errors import EstimatorError, PolicyError
from scg.estimators.registry import by_name, names, registry
from tests.estimators.building import of, site

TINY, NEAR_ONE = 1e-300, 1 - 1e-16
Weighed = tuple[float, Tensor]


def cost(b: Tensor) -> Tensor:
    return (b - 0.3) ** 3


def given_as(given: str, p: float | Tensor) -> Tensor:
    p = torch.as_tensor(p, dtype=torch.double)
    return p if given == "probs" else torch.logit(p)


def cells(edges: set[float]) -> list[Weighed]:
    """The middles of the cells between edges, and their lengths."""
    inside = sorted({0.0, *(round(edge, 12) for edge in edges), 1.0})
    return [(high - low, of((low + high) / 2)[0]) for low, high in itertools.pairwise(inside) if high > low]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_two_evaluations_are_disarm(given: str, p: float) -> None:
    """(f(b) - f(b')) / 2 (-1)^b' 1[b != b'] sigmoid(|logits|), b of noise u and b' of 1 - u."""
    start, total = given_as(given, p), torch.zeros((), dtype=torch.double)
    for length, u in cells({p, 1 - p}):
        found = scg.Coupled().gradient(site(Bernoulli, {given: start}, u, cost))[given]
        b, other = (float(u > 1 - p), float(1 - u > 1 - p))
        sign = 0.0 if b == other else (-1.0) ** other
        by_hand = (cost(of(b)) - cost(of(other))) / 2 * sign * max(p, 1 - p)
        rate = 1.0 if given == "logits" else p * (1 - p)
        assert torch.allclose(found * rate, by_hand, rtol=1e-12)
        total += length * found
    zero, one = cost(of(0.0, 1.0))
    slope = 1.0 if given == "probs" else p * (1 - p)
    assert torch.allclose(total, slope * (one - zero), rtol=1e-12)


def joint(bits: Tensor) -> Tensor:
    """A cost of two bits that is no sum of costs of each."""
    return (bits[..., 0] - 0.3) ** 2 * (1 + 2 * bits[..., 1]) - bits[..., 1]


def orders(count: int) -> list[Weighed]:
    """Fresh noise for every order of so many, and the chance of it."""
    every = list(itertools.permutations(range(count)))
    return [(1 / len(every), (torch.tensor(order) + 0.5).double() / count) for order in every]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_bits_are_exact(given: str, count: int) -> None:
    p = of(0.13, 0.62)
    start, estimator = given_as(given, p), scg.Coupled(evaluations=count)
    turned = [
        {(edge + k / count) % 1 for edge in (0, float(q), float(1 - q)) for k in range(count)} for q in p
    ]
    apart = [list(itertools.product(cells(edges), orders(count - 1))) for edges in turned]
    every = list(itertools.product(*apart))
    weights = of(*(math.prod(cell[0] * order[0] for cell, order in pair) for pair in every))
    noise = torch.stack([torch.stack([cell[1] for cell, _ in pair]) for pair in every])
    fresh = torch.stack([torch.stack([order[1] for _, order in pair], -1) for pair in every], 1)
    made = site(
        Bernoulli,
        {given: start.expand(noise.shape)},
        noise,
        joint,
        axes=(scg.Axis("points", len(noise)),),
        provided={"fresh": fresh.unbind() if count > 2 else ()},
    )
    total = weights @ estimator.gradient(made)[given]
    leaf = start.clone().requires_grad_()
    q = leaf if given == "probs" else leaf.sigmoid()
    several = [of(*bits) for bits in itertools.product((0.0, 1.0), repeat=2)]
    mean = sum((joint(b) * (b * q + (1 - b) * (1 - q)).prod() for b in several), torch.zeros(()))
    assert torch.allclose(total, torch.autograd.grad(mean, leaf)[0], rtol=1e-10)


def metropolised(p: Tensor) -> Tensor:
    """The law [K, K] of a value and one step of Liu's sampler from it."""
    pairs = p[:, None] * p / torch.maximum(1 - p[:, None], 1 - p)
    pairs.fill_diagonal_(0)
    return pairs + torch.diag(p - pairs.sum(-1))


def by_halves(p: Tensor) -> Tensor:
    """The law of what u and u + 1/2 modulo 1 give: arcs, and arcs turned by a half."""
    high, low = p.cumsum(0), p.cumsum(0) - p
    shared = [
        (torch.minimum(high[:, None], high + turn) - torch.maximum(low[:, None], low + turn)).clamp(min=0)
        for turn in (-0.5, 0.5)
    ]
    return shared[0] + shared[1]


def by_sticks(p: Tensor) -> Tensor:
    """The law of the first 1 in two rows of bits, one of noise u and the other of 1 - u."""
    pairs, active = torch.zeros(len(p), len(p), dtype=torch.double), 1.0
    for k in range(len(p)):
        q = float(p[k] / p[k:].sum())
        pairs[k, k] = active * max(0.0, 2 * q - 1)
        if k + 1 < len(p):
            pairs[k, k + 1 :] = pairs[k + 1 :, k] = active * min(q, 1 - q) * p[k + 1 :] / p[k + 1 :].sum()
        active *= max(0.0, 1 - 2 * q)
    return pairs


@dataclass(frozen=True)
class Pairs(scg.Cut):
    """1/2 (f(z) - f(z')) (s(z) - s(z')) p(z) p(z') / P(z, z') for a law P of pairs."""

    name: ClassVar[str] = "pairs"

    law: Callable[[Tensor], Tensor]

    def refuses(self, facts: scg.NodeFacts) -> scg.Refusal | None:
        return None

    def asks(self, facts: scg.NodeFacts) -> scg.Asks:
        return scg.Asks(downstream=1, fresh=("uniform",))

    def gradient(self, site: scg.Site) -> dict[str, Tensor]:
        p, z = site.parameters["logits"].softmax(-1), site.value
        pairs = self.law(p)
        other = (site.fresh_noise() > (pairs[z] / pairs[z].sum()).cumsum(0)).sum().clamp(max=len(p) - 1)
        weight = p[z] * p[other] / pairs[z, other]
        signs = torch.eye(len(p), dtype=p.dtype)[z] - torch.eye(len(p), dtype=p.dtype)[other]
        return {"logits": (site.credit - site.downstream(other[None])[0]) / 2 * weight * signs}


def chosen(count: int, mass: Tensor) -> list[Weighed]:
    """Base noise that gives each outcome, and its probability."""
    places = torch.arange(count)
    return [(float(mass[k]), torch.where(places == k, NEAR_ONE, TINY).double()) for k in range(count)]


def fresh_of(count: int, p: Tensor, rows: Tensor, one_hot: bool) -> Iterator[tuple[float, list[Tensor]]]:
    """Fresh noise: by turns a number cut where any row of a chain is, and what gives each outcome."""
    edges = {float(edge) for edge in rows.cumsum(-1).flatten() if edge < 1 - 1e-12}
    numbers = [(w, u.expand(len(p)) if one_hot else u) for w, u in cells(edges)]
    kinds = [chosen(len(p), p) if index % 2 else numbers for index in range(count - 1)]
    for several in itertools.product(*kinds):
        yield math.prod(w for w, _ in several), [noise for _, noise in several]


def mean_of_choices(
    estimator: scg.Cut,
    law: Callable[[Tensor], Tensor],
    p: Tensor,
    *,
    given: str = "logits",
    dist: type[Distribution] = Categorical,
    count: int = 2,
) -> tuple[Tensor, Tensor]:
    """Return the mean of an estimate, and the gradient."""
    rows, start = law(p) / law(p).sum(-1, keepdim=True), given_as(given, p)
    start = p.log() if given == "logits" else p
    table, one_hot = of(0.4, -1.3, 2.2, 0.1)[: len(p)], dist is OneHotCategorical
    total = torch.zeros_like(p)

    def priced(z: Tensor) -> Tensor:
        return (z * table).sum(-1) if one_hot else table[z]

    for weight, noise in chosen(len(p), p):
        for share, fresh in fresh_of(count, p, rows, one_hot):
            made = site(dist, {given: start}, noise, priced, provided={"fresh": tuple(fresh)})
            total += weight * share * estimator.gradient(made)[given]
    leaf = start.clone().requires_grad_()
    q = leaf / leaf.sum() if given == "probs" else leaf.softmax(-1)
    # Sums to one are what probs are of: what all of them have in common is no matter.
    exact = torch.autograd.grad((q * table).sum(), leaf)[0]
    return total, exact


CHANCES = of(0.55, 0.05, 0.3, 0.1)
THREE = of(0.2, 0.3, 0.5)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("dist", [Categorical, OneHotCategorical])
def test_choices_are_exact(dist: type[Distribution], given: str, count: int) -> None:
    p = CHANCES if count < 4 else THREE
    found, expected = mean_of_choices(
        scg.Coupled(evaluations=count), metropolised, p, given=given, dist=dist, count=count
    )
    assert torch.allclose(found, expected, atol=1e-12)


def test_the_law_of_a_step_covers_every_pair() -> None:
    pairs = metropolised(CHANCES)
    assert torch.allclose(pairs, pairs.T) and torch.allclose(pairs.sum(-1), CHANCES)
    assert bool((pairs - torch.diag(pairs.diagonal()) + torch.eye(4) > 0).all())


RIGHT = [(metropolised, CHANCES), (by_sticks, CHANCES.sort().values), (by_halves, of(0.4, 0.3, 0.3))]
WRONG = [(by_sticks, CHANCES), (by_halves, THREE)]


@pytest.mark.parametrize(("law", "p"), RIGHT, ids=lambda item: getattr(item, "__name__", ""))
def test_couplings_that_cover_every_pair_are_exact(law: Callable[[Tensor], Tensor], p: Tensor) -> None:
    found, expected = mean_of_choices(Pairs(law), law, p)
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("law", "p"), WRONG, ids=lambda item: getattr(item, "__name__", ""))
def test_couplings_that_leave_pairs_out_are_seen_to_be_wrong(
    law: Callable[[Tensor], Tensor], p: Tensor
) -> None:
    """Sticks that are broken in any order, and halves of the unit interval without independent pairs."""
    found, expected = mean_of_choices(Pairs(law), law, p)
    assert float((found - expected).abs().max()) > 0.03


def test_two_outcomes_are_a_bit() -> None:
    """The variance is that of DisARM: whichever pair differs, the estimate has one size."""
    p = of(0.3, 0.7)
    value, number = chosen(2, p)[0][1], of(0.01)[0]
    made = site(Categorical, {"logits": p.log()}, value, lambda z: z.double(), provided={"fresh": (number,)})
    found = scg.Coupled().gradient(made)["logits"]
    assert torch.allclose(found.abs(), of(0.35, 0.35))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("logit", [0.0, 40.0, -40.0, 200.0])
def test_extremes_are_finite(count: int, logit: float) -> None:
    g = scg.Graph()
    theta = g.param("theta", torch.full((3,), logit))
    b = g.sample("b", Bernoulli, logits=theta)
    k = g.sample("k", Categorical, logits=theta * torch.tensor([1.0, 0.0, -1.0]))
    g.cost("c", lambda b, k: b.sum(-1) ** 2 + k.double().float(), b, k)
    program = scg.compile(g, scg.Coupled(evaluations=count))
    for seed in range(5):
        program(seed=seed).loss.backward()
    assert bool(g["theta"].value.grad.isfinite().all())


@pytest.mark.parametrize("policy", ["arms", {"b": "arms", "k": scg.Coupled(evaluations=3)}])
def test_a_chain_of_several_evaluations_is_unbiased(policy: Any) -> None:
    """Everything below is evaluated again at each value, on plates that a cost joins and that none does."""
    g = scg.Graph()
    x = g.input("x", torch.tensor([[0.3, -0.5], [0.8, 0.1], [-0.7, 0.4]]).double(), plates=("p", "q"))
    b = g.sample("b", Bernoulli, logits=x + g.param("w", torch.tensor(0.4).double()))
    rows = g.det("rows", lambda b: b[..., None] * of(0.7, -0.4, 0.2) + of(0.1, 0.0, -0.3), b)
    k = g.sample("k", Categorical, logits=rows + g.param("v", of(0.3, -0.2, 0.1)))
    total = g.det("total", lambda b: b.sum(-1), b, plates="p")
    g.cost("c", lambda k, total: (of(0.2, 1.0, -0.6)[k] + 0.5 * total) ** 2, k, total)
    found = scg.verify(scg.compile(g, policy), resolution=0.05)
    assert found.verdict == "unbiased", found


def test_words_are_instances() -> None:
    assert by_name("disarm") == by_name("carms") == by_name("coupled") == scg.Coupled()
    assert by_name("arms") == scg.Coupled(evaluations=4)
    assert {"arms", "coupled", "score"} <= {*names()} and "arms" not in registry()
    with pytest.raises(
        PolicyError, match="there is no estimator 'army': 'arm' is meant. There are .*arms, carms, .*coupled"
    ):
        by_name("army")


@pytest.mark.parametrize("given", [1, 2.0, True])
def test_evaluations_are_a_number_of_them(given: Any) -> None:
    with pytest.raises(EstimatorError, match="evaluations is a number, 2 or more"):
        scg.Coupled(evaluations=given)
