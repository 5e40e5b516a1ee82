"""The exact expectation of estimates that depend on base noise within its cells, in one batched call.

An estimate that relaxes discrete nodes is an analytic function of the noise of each of them between one
threshold and the next. The graph has an outermost plate of independent copies, and each copy takes one
point of a product rule: Gauss-Legendre points within every cell of uniform noise, Gauss-Hermite points for
normal noise, Gauss-Legendre points on (0, 1) for the noise that estimators draw for themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

import scg
from scg.evaluation.densities import Density
from scg.evaluation.trace import evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Record
from tests.support.integrate import masses

CHUNK = 30_000
Rule = tuple[Tensor, Tensor]
"""Weights, and the noise at each."""


@dataclass(frozen=True)
class Grid:
    """How finely to integrate.

    A cell of length h has 1 + ceil(legendre h) points. Elements take the same noise along the plates in
    ``shared``, and so do replicates unless they are ``coupled``: then estimates have to be sums of what each
    adds, and what is credited from one to another shows in the expectation. Nodes in ``flat`` have one point
    a cell: all that matters of their noise is the value it gives. Cells are ``mirrored`` for what reads noise
    u and 1 - u.
    """

    legendre: int = 8
    hermite: int = 4
    shared: tuple[str, ...] = ()
    coupled: bool = False
    flat: Collection[str] = ()
    mirrored: bool = False


@dataclass
class Element:
    """The noise of one element of a node, or of several that share it: how it is integrated."""

    outcomes: int
    thresholds: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))


@dataclass
class Place:
    """A stochastic node: which element's noise each of its positions takes, and where those are in a row."""

    groups: Tensor
    elements: list[Element]
    columns: slice
    is_normal: bool


def legendre(count: int, low: float = 0.0, high: float = 1.0) -> Rule:
    """Gauss-Legendre points on an interval."""
    points, weights = _legendre(count)
    return (high - low) / 2 * weights, low + (high - low) / 2 * (points + 1)


def hermite(count: int) -> Rule:
    """Gauss-Hermite points for a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(weights / math.sqrt(2 * math.pi)), torch.from_numpy(points)


def both_ends(step: float = 0.075) -> Rule:
    """On (0, 1), whatever power the integrand has at the ends: the double exponential rule."""
    t = torch.arange(-3.2, 3.2 + step / 2, step, dtype=torch.float64)
    inner = math.pi / 2 * t.sinh()
    points = torch.sigmoid(2 * inner)
    weights = step * math.pi * t.cosh() * torch.sigmoid(2 * inner) * torch.sigmoid(-2 * inner)
    inside = (points > 0) & (points < 1)
    return weights[inside], points[inside]


def joined(rules: Sequence[Rule]) -> Rule:
    """Points of several rules side by side."""
    return torch.cat([w for w, _ in rules]), torch.cat([z for _, z in rules])


def product(rules: Sequence[Rule]) -> tuple[Tensor, list[Tensor]]:
    """Return the weights of a product rule, and the coordinates of its points."""
    weights = torch.ones(1, dtype=torch.float64)
    for weight, _ in rules:
        weights = (weights[:, None] * weight).flatten()
    digits = torch.arange(len(weights))
    coordinates = []
    for weight, points in reversed(rules):
        coordinates.append(points[digits % len(weight)])
        digits = digits // len(weight)
    return weights, coordinates[::-1]


@cache
def _legendre(count: int) -> Rule:
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(points), torch.from_numpy(weights)


def _copies(inputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: value[:1].expand(count, *value.shape[1:]) for name, value in inputs.items()}


def _survey(ir: IR, inputs: Mapping[str, Tensor], grid: Grid) -> dict[str, Place]:
    """Visit every joint outcome once, and note the thresholds that each element meets."""
    places: dict[str, Place] = {}
    _, normal = hermite(grid.hermite)

    def first(record: Record, density: Density, batch: torch.Size) -> Tensor:
        plates = ir.layout[record.name][1:]
        apart = [
            1 if k < len(plates) and plates[k] in grid.shared else size for k, size in enumerate(batch[1:])
        ]
        groups = torch.arange(math.prod(apart)).reshape(apart).expand(batch[1:])
        is_normal = density.law.family == "Normal"
        count = grid.hermite if is_normal else len(density.law.support(density.parameters))
        elements = [Element(count) for _ in range(math.prod(apart))]
        start = sum(len(place.elements) for place in places.values())
        places[record.name] = Place(groups, elements, slice(start, start + len(elements)), is_normal)
        return pick(density, groups, torch.zeros(1, len(elements), dtype=torch.long))

    def pick(density: Density, groups: Tensor, codes: Tensor) -> Tensor:
        chosen = codes[:, groups]
        if density.law.family == "Normal":
            return density.law.draw(density.parameters, normal[chosen])
        return density.law.support(density.parameters)[chosen]

    evaluate(ir, _copies(inputs, 1), first)
    counts = [element.outcomes for place in places.values() for element in place.elements]
    codes = torch.cartesian_prod(*(torch.arange(count) for count in counts)).reshape(-1, len(counts))

    def draw(record: Record, density: Density, batch: torch.Size) -> Tensor:
        place = places[record.name]
        if not place.is_normal:
            cuts = masses(density, batch).cumsum(0)[:-1]
            for index, element in enumerate(place.elements):
                found = cuts[:, :, place.groups == index]
                element.thresholds = (torch.cat([found, 1 - found]) if grid.mirrored else found).unique()
        return pick(density, place.groups, codes[:, place.columns])

    evaluate(ir, _copies(inputs, len(codes)), draw)
    return places


def _cells(element: Element, points: Callable[[float], int]) -> Rule:
    edges = [0.0, *element.thresholds.tolist(), 1.0]
    cells = [(a, b) for a, b in itertools.pairwise(edges) if b - a > 1e-13]
    return joined([legendre(points(b - a), a, b) for a, b in cells])


def expected_gradient(
    graph: scg.Graph, program: scg.Program, grid: Grid, *, samples: int | None = None
) -> dict[str, Tensor]:
    """Return the expectation, over all base noise, of what one backward leaves in the graph's inputs.

    Noise that estimators draw for themselves is the same in all nodes and replicates, since no estimate
    depends on that of two; elements of one node, which a cost may join, have their own.
    """
    ir = graph.freeze()
    inputs = dict(ir.store.examples)
    with torch.no_grad():
        places = _survey(ir, inputs, grid)
    fresh = [name for name in program.draw_noise(0, **inputs) if "." in name]
    within = lambda h: 1 + math.ceil(grid.legendre * h)  # noqa: E731
    own: list[Rule] = []
    for name, place in places.items():
        points = (lambda h: 1) if name in grid.flat else within
        own += [hermite(grid.hermite) if place.is_normal else _cells(e, points) for e in place.elements]
    separate = (samples or 1) if grid.coupled else 1
    widest = max((len(places[name.partition(".")[0]].elements) for name in fresh), default=0)
    weights, columns = product([*own * separate, *[legendre(within(1.0))] * widest])
    total = {name: torch.zeros_like(value[0]) for name, value in inputs.items()}
    for begin in range(0, len(weights), CHUNK):
        part = slice(begin, begin + CHUNK)
        noise = _noise(places, fresh, [column[part] for column in columns], samples, separate)
        live = {n: v.clone().requires_grad_() for n, v in _copies(inputs, len(weights[part])).items()}
        loss = program(**live, noise=noise).loss
        found = torch.autograd.grad(loss, list(live.values()), materialize_grads=True)
        for name, gradient in zip(live, found, strict=True):
            total[name] += torch.einsum("n,n...->...", weights[part], gradient)
    return total


def _noise(
    places: Mapping[str, Place],
    fresh: Sequence[str],
    columns: Sequence[Tensor],
    samples: int | None,
    separate: int,
) -> dict[str, Tensor]:
    """Lay out the coordinates of points as the noise of each node."""
    count = sum(len(place.elements) for place in places.values())
    noise: dict[str, Tensor] = {}

    def laid(several: list[Sequence[Tensor]], groups: Tensor) -> Tensor:
        replicates = torch.stack([torch.stack(list(one), -1)[:, groups] for one in several])
        return replicates[0] if samples is None else replicates.expand(samples, *replicates.shape[1:])

    for name, place in places.items():
        rows = [columns[count * k : count * (k + 1)][place.columns] for k in range(separate)]
        noise[name] = laid(rows, place.groups)
    for name in fresh:
        place = places[name.partition(".")[0]]
        noise[name] = laid([columns[count * separate :][: len(place.elements)]], place.groups)
    return noise
