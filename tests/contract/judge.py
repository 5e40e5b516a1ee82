"""The verdict on a program: is the expectation of what its backward leaves the gradient of the objective?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import scipy.stats
import torch
from torch import Tensor

import scg
from tests.contract.instances import stirred
from tests.support.integrate import integrated_gradient
from tests.support.points import Grid, expected_gradient

FAMILY = 1000
"""More verdicts by simulation than the contract has."""
ERROR = 1e-3
"""The chance that any of them condemns a right program."""
RESOLVED = 0.02
"""The relative bias that none of them overlooks."""

Gradient = Mapping[str, Tensor]


def warmed(program: scg.Program, examples: Gradient = MappingProxyType({})) -> scg.Program:
    """Give estimators that remember something to remember, and then hold it fixed."""
    for seed in range(3):
        program(noise=seed, **examples)
    return program.eval()


def gap(found: Gradient, expected: Gradient) -> float:
    """Return the largest difference of any entry."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def is_exact(
    graph: scg.Graph,
    program: scg.Program,
    expected: Gradient,
    *,
    samples: int | None = None,
    points: int = 6,
    shared: Sequence[str] = (),
    tolerance: float = 1e-9,
    mirrored: bool = False,
) -> None:
    """Assert the gradient, integrated over all base noise."""
    found = integrated_gradient(
        graph,
        warmed(program),
        samples=samples,
        points=points,
        exchangeable=True,
        shared=shared,
        mirrored=mirrored,
    )
    size = max(float(part.abs().max()) for part in expected.values())
    assert size > 1e-3, "a gradient this small would hide a wrong one"
    assert gap(found, expected) < tolerance * max(size, 1.0), (found, expected)


def is_integrated(
    graph: scg.Graph,
    program: scg.Program,
    expected: Gradient,
    grid: Grid,
    *,
    samples: int | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Assert the gradient of a graph of many copies, integrated over all base noise at points within cells.

    ``tolerance`` is relative to the largest entry.
    """
    warmed(stirred(program), graph.freeze().store.examples)
    found = expected_gradient(graph, program, grid, samples=samples)
    size = max(float(part.abs().max()) for part in expected.values())
    assert size > 1e-3, "a gradient this small would hide a wrong one"
    assert gap(found, expected) < tolerance * size, (found, expected)


def is_simulated(graph: scg.Graph, program: scg.Program, expected: Gradient, *, runs: int = 800) -> None:
    """Assert the gradient by simulation, each run a mean over many replicates, until 2% would be seen.

    The bound on the deviation, in standard errors, holds for all verdicts and entries together. Entries
    are judged on the scale of the whole gradient.
    """
    stirred(program)
    names = list(expected)
    truth = torch.cat([expected[name].detach().double().flatten() for name in names])
    size, drawn = float(truth.norm()), list[Tensor]()
    for seed in range(runs):
        for parameter in graph.parameters():
            parameter.grad = None
        program(noise=seed).loss.backward()
        live = dict(graph.named_parameters())
        parts = [live[name].grad for name in names]
        drawn.append(torch.cat([part.flatten() for part in parts if part is not None]))
        if seed >= 15:
            draws = torch.stack(drawn)
            count = len(draws)
            bound = float(scipy.stats.t.ppf(1 - ERROR / (2 * FAMILY * len(truth)), count - 1))
            error = draws.std(0) / math.sqrt(count)
            if float(error.max()) * (bound + 3) <= RESOLVED * size:
                break
    else:
        raise AssertionError(f"{runs} runs do not resolve a bias of {RESOLVED}: {error / size}")
    deviation = (draws.mean(0) - truth).abs()
    assert bool((deviation <= bound * error + 1e-9 * size).all()), (draws.mean(0), truth, error)
