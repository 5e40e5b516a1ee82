"""The oracle agrees with the brute-force twin, which sets every element apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from scg.graph import Graph
from scg.oracle import exact_gradient, exact_objective
from tests.selection import EVERYTHING

from .graphs import SIZES, SMALL, drawn
from .twin import twin

SEEDS = range(40 if EVERYTHING else 20)


def assert_agrees(graph: Graph) -> None:
    objective, gradient = twin(graph, SIZES)
    torch.testing.assert_close(exact_objective(graph).detach(), objective, rtol=1e-10, atol=1e-12)
    found = exact_gradient(graph)
    assert list(found) == [name for name, _ in graph.named_parameters()]
    for name, expected in gradient.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", SMALL, ids=lambda build: build.__name__)
def test_small_graphs(build: Callable[[], Graph]) -> None:
    assert_agrees(build())


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs(seed: int) -> None:
    assert_agrees(drawn(seed))


def test_random_graphs_have_a_gradient() -> None:
    """Guards the generator: most of its graphs must depend on their parameters through samples."""
    live = [any(part.abs().max() > 1e-3 for part in exact_gradient(drawn(seed)).values()) for seed in SEEDS]
    stochastic = [bool(drawn(seed).freeze().samples) for seed in SEEDS]
    assert min(sum(live), sum(stochastic)) > 0.87 * len(SEEDS)
