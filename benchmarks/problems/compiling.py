"""``scg.compile`` itself: its time and memory over chains, siblings and random graphs to 10,000 nodes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Normal

import scg
from benchmarks.by_hand import chain as by_hand
from benchmarks.contest import SCG, Contest, Job, Settings
from benchmarks.memory import peak_of_process
from benchmarks.problems import chain, siblings

SIZES, FEW = (10, 30, 100, 300, 1000, 3000, 10_000), (10, 100)
COSTS_EVERY, PARENTS = 100, 3


def random_graph(nodes: int) -> scg.Graph:
    """A random DAG: a third of the nodes draw, the others compute; every node has one to three parents."""
    choose = random.Random(nodes)
    g = scg.Graph("random")
    made = [g.param("theta", 0.1)]
    for index in range(nodes - 2):
        parents = choose.sample(made, min(len(made), choose.randint(1, PARENTS)))
        if choose.random() < 1 / 3:
            made.append(g.sample(f"x{index}", Normal, parents[0], 1.0))
        else:
            made.append(g.det(f"y{index}", mixed, *parents))
        if index % COSTS_EVERY == COSTS_EVERY - 1:
            g.cost(f"cost{index}", made[-1] ** 2)
    g.cost("cost", made[-1] ** 2)
    return g


def mixed(*values: Tensor) -> Tensor:
    """A function of any number of parents."""
    return torch.tanh(torch.stack(values).sum(0))


GRAPHS: dict[str, tuple[Callable[[int], scg.Graph], str]] = {
    "chain, score": (lambda nodes: chain.graph(by_hand.Model(), nodes), "score"),
    "chain, reparam": (lambda nodes: chain.graph(by_hand.Model(), nodes), "reparam"),
    "siblings, score": (lambda nodes: siblings.graph(by_hand.Model(), nodes), "score"),
    "siblings, reparam": (lambda nodes: siblings.graph(by_hand.Model(), nodes), "reparam"),
    "random, score": (random_graph, "score"),
    "random, reparam": (random_graph, "reparam"),
}


def contests(settings: Settings) -> Iterator[Contest]:
    """Compiling graphs of every kind and size, and of one size against ten times fewer nodes."""
    for case in list(GRAPHS)[:: 2 if settings.quick else 1]:
        for nodes in FEW if settings.quick else SIZES:
            contenders, measure = {SCG: partial(job, case, nodes)}, partial(memory, case, nodes)
            yield Contest("compile", case, contenders, size=nodes, measure=measure)
        if not settings.quick:
            yield growth(case, 300)


def growth(case: str, nodes: int) -> Contest:
    """Ten times the nodes against those: a ratio of 10 is growth in proportion."""
    fewer, more = f"{nodes:,} nodes", f"{10 * nodes:,} nodes"
    contenders = {fewer: partial(job, case, nodes), more: partial(job, case, 10 * nodes)}
    return Contest("compile growth", case, contenders, against=fewer)


def job(case: str, nodes: int) -> Job:
    """Compile a graph."""
    declare, policy = GRAPHS[case]
    graph = declare(nodes)
    return Job(lambda: scg.compile(graph, policy=policy))


def memory(case: str, nodes: int, name: str, timed: Job, seconds: float) -> dict[str, float]:
    """The memory that compiling takes in a process of its own."""
    return {"peak MB": peak_of_process(fresh, case, nodes)}


def fresh(case: str, nodes: int) -> Callable[[], object]:
    """The step of ``job``, after a small one has loaded what is loaded once."""
    job(case, 10).step()
    return job(case, nodes).step
