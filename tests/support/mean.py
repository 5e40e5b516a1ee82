"""The mean gradient of a program over all of its noise, in one batched call: exact, or as good as that.

Where an estimate is smooth in noise within the cells that give a value, as that of control variates, each
cell has Gauss-Legendre points, and so has the noise that estimators draw for themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import scg
from scg.verification.draws import controls_still, drawer
from tests.support.integrate import World, unordered, worlds
from tests.support.points import legendre

MOST = 10_000
"""The most points that are visited."""


@dataclass(frozen=True)
class Rule:
    """How to integrate: Hermite ``points`` for Normals, and ``within`` each cell and of own noise.

    Cells are ``mirrored`` for what reads noise u and 1 - u.
    """

    points: int = 4
    within: int = 1
    mirrored: bool = False


class TooManyError(Exception):
    """There is more noise than is visited."""


def mean_gradient(
    graph: scg.Graph,
    program: scg.Program,
    inputs: Mapping[str, Tensor],
    rule: Rule,
    *,
    samples: int | None = None,
    limit: int = MOST,
) -> dict[str, Tensor]:
    """Return the expectation of the gradients that one backward leaves, over at most ``limit`` points."""
    several = _weighed(graph, program, inputs, rule, samples, limit)
    weights = torch.tensor([weight for weight, _ in several], dtype=torch.float64)
    noise = {name: torch.stack([one[name] for _, one in several]) for name in several[0][1]}
    live = dict(graph.named_parameters())
    with controls_still(program):
        draw = drawer(program, inputs, list(live), noise)
        total = sum(
            weights[part] @ draw({name: value[part] for name, value in noise.items()})
            for part in (slice(begin, begin + draw.chunk) for begin in range(0, len(weights), draw.chunk))
        )
    assert isinstance(total, Tensor)
    parts = total.split([value.numel() for value in live.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(live.items(), parts, strict=True)}


def _weighed(
    graph: scg.Graph,
    program: scg.Program,
    inputs: Mapping[str, Tensor],
    rule: Rule,
    samples: int | None,
    limit: int,
) -> list[World]:
    """Return every point of the noise of all replicates, and its weight."""
    found = worlds(graph.freeze(), inputs, rule.points, mirrored=rule.mirrored, within=rule.within)
    every = list(itertools.islice(found, limit + 1))
    if len(every) > limit:
        raise TooManyError
    if samples is not None:
        if math.comb(len(every) + samples - 1, samples) > limit:
            raise TooManyError
        every = [_together(orders, several) for orders, several in unordered(every, samples)]
    fresh = {name: noise for name, noise in program.draw_noise(0, **inputs).items() if "." in name}
    own = list(_own(fresh, rule)) if fresh else [(1.0, {})]
    if len(every) * len(own) > limit:
        raise TooManyError
    return [(weight * share, {**noise, **added}) for weight, noise in every for share, added in own]


def _together(orders: int, several: Sequence[World]) -> World:
    """Return replicates beside each other."""
    weight = orders * math.prod(weight for weight, _ in several)
    return weight, {name: torch.stack([noise[name] for _, noise in several]) for name in several[0][1]}


def _own(fresh: Mapping[str, Tensor], rule: Rule) -> Iterator[World]:
    """Yield noise that estimators draw for themselves: elements have their own, nodes have the same."""
    widest = max(value.numel() for value in fresh.values())
    weights, points = legendre(rule.within + 3)
    if len(points) ** widest > MOST:
        raise TooManyError
    for picked in itertools.product(range(len(points)), repeat=widest):
        row = points[list(picked)]
        own = {name: row[: value.numel()].reshape(value.shape) for name, value in fresh.items()}
        yield float(weights[list(picked)].prod()), own
