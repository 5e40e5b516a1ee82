"""The exact expectation of a program's estimate, through the program's own noise input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

import scg
from scg.analysis.trace import Density, evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Record

TINY, NEAR_ONE = 1e-300, 1.0 - 1e-16


def forcing_noise(density: Density, batch: torch.Size, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return noise [*batch, ...] that draws the outcomes ``codes`` [*batch], and their probability."""
    law, parameters = density.law, dict(density.parameters)
    mass = law.mass(parameters)
    mass = mass[(slice(None), *(None,) * (len(batch) - mass.dim() + 1))].expand(len(mass), *batch)
    weight = mass.gather(0, codes[None])[0].prod()
    if law.family == "Bernoulli":
        return torch.where(codes == 1, NEAR_ONE, TINY), weight
    if law.family in ("Categorical", "OneHotCategorical"):
        chosen = torch.nn.functional.one_hot(codes, len(mass)).bool()
        return torch.where(chosen, NEAR_ONE, TINY), weight
    upper = mass.cumsum(0).gather(0, codes[None])[0]
    return upper - mass.gather(0, codes[None])[0] / 2, weight


def worlds(
    ir: IR, inputs: Mapping[str, Tensor], points: int
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Yield every joint outcome of a finite graph with Normal nodes: its weight and the noise that draws it."""
    sizes: dict[str, tuple[torch.Size, int]] = {}
    z, w = (torch.as_tensor(v) for v in np.polynomial.hermite_e.hermegauss(points))
    w = w / math.sqrt(2 * math.pi)

    def measure(record: Record, density: Density, batch: torch.Size) -> Tensor:
        sizes[record.name] = batch, points if density.law.family == "Normal" else len(density.law.support(density.parameters))
        if density.law.family == "Normal":
            return density.law.draw(density.parameters, torch.zeros(batch))
        return density.law.support(density.parameters)[torch.zeros(batch, dtype=torch.long)]

    with torch.no_grad():
        evaluate(ir, inputs, measure)
        ranges = [itertools.product(range(n), repeat=batch.numel()) for batch, n in sizes.values()]
        for assignment in itertools.product(*ranges):
            picked = dict(zip(sizes, assignment, strict=True))
            weight, noise = 1.0, dict[str, Tensor]()

            def draw(record: Record, density: Density, batch: torch.Size) -> Tensor:
                nonlocal weight
                codes = torch.tensor(picked[record.name], dtype=torch.long).reshape(batch)  # noqa: B023
                if density.law.family == "Normal":
                    noise[record.name] = z[codes]  # noqa: B023
                    weight *= float(w[codes].prod())
                else:
                    noise[record.name], probability = forcing_noise(density, batch, codes)  # noqa: B023
                    weight *= float(probability)
                return density.law.draw(density.parameters, noise[record.name])  # noqa: B023

            evaluate(ir, inputs, draw)
            if weight:
                yield weight, noise


def integrated_gradient(
    graph: scg.Graph,
    program: scg.Program,
    inputs: Mapping[str, Tensor] | None = None,
    *,
    samples: int | None = None,
    points: int = 6,
) -> dict[str, Tensor]:
    """Return the expectation, over all base noise, of the gradients that one backward leaves."""
    ir = graph.freeze()
    inputs = {**ir.store.examples, **(inputs or {})}
    every = list(worlds(ir, inputs, points))
    total = {name: torch.zeros_like(p) for name, p in graph.named_parameters()}
    for combination in itertools.product(every, repeat=samples or 1):
        weight = math.prod(world[0] for world in combination)
        noise = combination[0][1]
        if samples is not None:
            noise = {name: torch.stack([world[1][name] for world in combination]) for name in noise}
        for parameter in graph.parameters():
            parameter.grad = None
        loss = program(**inputs, noise=noise).loss
        if loss.requires_grad:
            loss.backward()
        for name, parameter in graph.named_parameters():
            if parameter.grad is not None:
                total[name] += weight * parameter.grad
    return total
