"""The exact expectation of a program's estimate, through the program's own noise input.

Bernoulli and Binomial nodes turn one uniform into a value by thresholds. Where a node is redrawn under
shared noise, as in the branches of an enumerated node, all of its thresholds matter: the unit interval
is cut at every one that any outcome upstream gives, and each cell is one point of the integral.
Categorical nodes are forced to each outcome, which is exact where their parameters are not random.
Normal nodes are integrated by Gauss-Hermite quadrature.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import scg
from scg.evaluation.densities import Density
from scg.evaluation.trace import evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Record

TINY, NEAR_ONE = 1e-300, 1.0 - 1e-16
Point = tuple[float, Tensor]
World = tuple[float, dict[str, Tensor]]


@dataclass
class Node:
    """One stochastic node: which noise each of its elements takes, and the thresholds met by each noise."""

    groups: Tensor
    kind: str
    outcomes: int
    thresholds: list[set[float]]


def _normal_points(points: int) -> list[Point]:
    z, w = np.polynomial.hermite_e.hermegauss(points)
    weights = (float(b) / math.sqrt(2 * math.pi) for b in w)
    return list(zip(weights, torch.from_numpy(z).unbind(), strict=True))


def _outcome_points(node: Node) -> list[Point]:
    """Return noise that forces each outcome of a categorical; its weight is found when it is drawn."""
    outcomes = torch.arange(node.outcomes)
    return [(1.0, torch.where(outcomes == k, NEAR_ONE, TINY)) for k in range(node.outcomes)]


def _cell_points(thresholds: set[float], within: int = 1) -> list[Point]:
    """Return Gauss-Legendre points within each cell, more of them in a long one: of one, the middle."""
    edges = [0.0, *sorted(thresholds), 1.0]
    found: list[Point] = []
    for a, b in itertools.pairwise(edges):
        if b - a > 1e-14:
            x, w = np.polynomial.legendre.leggauss(1 + math.ceil((within - 1) * (b - a)))
            places = torch.from_numpy(a + (b - a) * (x + 1) / 2).to(torch.get_default_dtype())
            found += zip((float(one) * (b - a) / 2 for one in w), places.unbind(), strict=True)
    return found


def masses(density: Density, batch: torch.Size) -> Tensor:
    """Return the probability of each outcome of each element, [outcomes, *batch]."""
    mass = density.law.mass(dict(density.parameters))
    return mass[(slice(None), *(None,) * (len(batch) - mass.dim() + 1))].expand(len(mass), *batch)


def _groups(ir: IR, name: str, batch: torch.Size, shared: Sequence[str]) -> Tensor:
    """Number the elements of a node, alike along the plates that share their noise."""
    plates = ir.layout[name]
    apart = [1 if k < len(plates) and plates[k] in shared else size for k, size in enumerate(batch)]
    return torch.arange(math.prod(apart)).reshape(apart).expand(batch)


def _survey(ir: IR, inputs: Mapping[str, Tensor], points: int, shared: Sequence[str]) -> dict[str, Node]:
    """Visit every joint outcome once, and note the thresholds that each element meets."""
    nodes: dict[str, Node] = {}
    normal = [z for _, z in _normal_points(points)]

    def first(record: Record, density: Density, batch: torch.Size) -> Tensor:
        law = density.law
        forced = law.family in ("Categorical", "OneHotCategorical")
        kind = "normal" if law.family == "Normal" else "forced" if forced else "cells"
        count = points if kind == "normal" else len(law.support(density.parameters))
        groups = _groups(ir, record.name, batch, shared)
        number = int(groups.max()) + 1
        nodes[record.name] = Node(groups, kind, count, [set() for _ in range(number)])
        return _pick(density, groups, (0,) * number)

    def _pick(density: Density, groups: Tensor, codes: Sequence[int]) -> Tensor:
        chosen = torch.tensor(codes, dtype=torch.long)[groups]
        if density.law.family == "Normal":
            return density.law.draw(density.parameters, torch.stack(normal)[chosen])
        return density.law.support(density.parameters)[chosen]

    evaluate(ir, inputs, first)
    ranges = [itertools.product(range(node.outcomes), repeat=len(node.thresholds)) for node in nodes.values()]
    for assignment in itertools.product(*ranges):
        picked = dict(zip(nodes, assignment, strict=True))

        def draw(record: Record, density: Density, batch: torch.Size) -> Tensor:
            node = nodes[record.name]
            if node.kind == "cells":
                cuts = masses(density, batch).cumsum(0)[:-1].reshape(node.outcomes - 1, -1).T
                for group, element in zip(node.groups.flatten().tolist(), cuts.tolist(), strict=True):
                    node.thresholds[group].update(round(cut, 13) for cut in element)
            return _pick(density, node.groups, picked[record.name])  # noqa: B023

        evaluate(ir, inputs, draw)
    return nodes


def worlds(
    ir: IR,
    inputs: Mapping[str, Tensor],
    points: int,
    shared: Sequence[str] = (),
    *,
    mirrored: bool = False,
    within: int = 1,
) -> Iterator[World]:
    """Yield noise for every cell of the base space of a graph, with its weight.

    Elements of a node take the same noise along the plates in ``shared``. Cells are ``mirrored`` for what
    reads noise u and 1 - u, and have ``within`` points, if they are as long as the unit interval.
    """
    with torch.no_grad():
        nodes = _survey(ir, inputs, points, shared)
    if mirrored:
        for node in nodes.values():
            node.thresholds = [cuts | {round(1 - cut, 13) for cut in cuts} for cuts in node.thresholds]
    choices: list[list[Point]] = []
    for node in nodes.values():
        for thresholds in node.thresholds:
            if node.kind == "cells":
                choices.append(_cell_points(thresholds, within))
            else:
                choices.append(_normal_points(points) if node.kind == "normal" else _outcome_points(node))
    for combination in itertools.product(*choices):
        weight, noise, start = math.prod(w for w, _ in combination), dict[str, Tensor](), 0
        for name, node in nodes.items():
            several = combination[start : (start := start + len(node.thresholds))]
            noise[name] = torch.stack([point for _, point in several])[node.groups]
        yield weight * _forced_weight(ir, inputs, nodes, noise), noise


def _forced_weight(
    ir: IR, inputs: Mapping[str, Tensor], nodes: Mapping[str, Node], noise: Mapping[str, Tensor]
) -> float:
    """Return the probability of the outcomes that categorical nodes were forced to."""
    if all(node.kind != "forced" for node in nodes.values()):
        return 1.0
    weight = 1.0

    def draw(record: Record, density: Density, batch: torch.Size) -> Tensor:
        nonlocal weight
        value = density.law.draw(density.parameters, noise[record.name])
        if nodes[record.name].kind == "forced":
            codes = value.argmax(-1) if density.law.value_rank else value
            weight *= float(masses(density, batch).gather(0, codes[None]).prod())
        return value

    with torch.no_grad():
        evaluate(ir, inputs, draw)
    return weight


def _ordered(every: Sequence[World], count: int) -> Iterator[tuple[int, tuple[World, ...]]]:
    return ((1, combination) for combination in itertools.product(every, repeat=count))


def unordered(every: Sequence[World], count: int) -> Iterator[tuple[int, tuple[World, ...]]]:
    """Yield each multiset of worlds with the number of orders it has."""
    for picked in itertools.combinations_with_replacement(range(len(every)), count):
        repeats = math.prod(math.factorial(picked.count(index)) for index in set(picked))
        yield math.factorial(count) // repeats, tuple(every[index] for index in picked)


def integrated_gradient(
    graph: scg.Graph,
    program: scg.Program,
    inputs: Mapping[str, Tensor] | None = None,
    *,
    samples: int | None = None,
    points: int = 6,
    exchangeable: bool = False,
    shared: Sequence[str] = (),
    mirrored: bool = False,
) -> dict[str, Tensor]:
    """Return the expectation, over all base noise, of the gradients that one backward leaves.

    ``exchangeable`` trusts that the order of replicates does not matter, and visits one order of each.
    ``shared`` names plates whose elements share no cost, so that the gradient is a sum of what each adds
    and they may take the same noise; what is credited across such a plate then shows in the expectation.
    """
    ir = graph.freeze()
    inputs = {**ir.store.examples, **(inputs or {})}
    every = list(worlds(ir, inputs, points, shared, mirrored=mirrored))
    parameters = dict(graph.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    visit = unordered if exchangeable else _ordered
    for orders, combination in visit(every, samples or 1):
        weight = orders * math.prod(world[0] for world in combination)
        noise = combination[0][1]
        if samples is not None:
            noise = {name: torch.stack([world[1][name] for world in combination]) for name in noise}
        for parameter in parameters.values():
            parameter.grad = None
        loss = program(**inputs, noise=noise).loss
        if loss.requires_grad:
            loss.backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                total[name] += weight * parameter.grad
    return total
