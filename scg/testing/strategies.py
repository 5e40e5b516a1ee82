"""Strategies: graphs, policies and inputs for Hypothesis, drawn choice by choice so that failures shrink."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from scg.analysis.facts import gather
from scg.choosing.describe import node_facts
from scg.errors import GraphError
from scg.estimators.protocol.border import refusal
from scg.estimators.protocol.kinds import Estimator
from scg.graph import Graph
from scg.nodes.plates import Plate, Reduce
from scg.nodes.trees import tree_map
from scg.testing.options import Make, makers
from scg.testing.pencil import STEPS, Pencil
from scg.testing.sketch import Sketch, build
from scg.testing.words import NODES, Kind, laws

EIGHTHS = 16
"""The eighths that a drawn input is made of at most."""
REDUCE: tuple[Reduce, ...] = ("sum", "mean")


@st.composite
def graphs(
    draw: DrawFn,
    kind: Kind = "mixed",
    *,
    depth: int = 4,
    width: int = 2,
    plates: int = 2,
    cases: int = 64,
    spread: float = 0.3,
) -> Graph:
    """Draw a graph whose exact gradient is within reach of ``scg.exact_gradient``.

    Its random variables are "finite", "continuous" (Normals), or "mixed". Nodes lie in ``depth`` layers of
    at most ``width``, each of which reads layers above; there are at most so many ``plates``, and ``cases``
    joint outcomes, for which an element of a Normal counts as 4. Normals have a standard deviation of at
    most ``spread``.

    >>> import hypothesis, scg
    >>> g = hypothesis.find(graphs(), lambda g: True)
    >>> list(g)
    ['w0', 'z0', 'cost0']
    """
    if cases < NODES:
        raise ValueError(f"graphs(cases={cases}): an element of a Normal counts as {NODES}, so give as many")
    pencil = Pencil(draw, laws(kind, spread), _plates(draw, plates), cases)
    for plate in pencil.plates:
        pencil.leaf("input", (plate.name,))
        pencil.leaf("param", (plate.name,))
    pencil.leaf("param", ())
    leaves = [name for name in pencil.readable if name in pencil.learned]
    pencil.sample([name for name in leaves if pencil.fitting(pencil.lines[name].plates)])
    for _ in range(depth):
        above = tuple(pencil.readable)
        for _ in range(width):
            pencil.pick(STEPS)(pencil, above)
    pencil.cost([name for name in pencil.readable if name in pencil.learned])
    for _ in range(pencil.pick((0, 1, 2))):
        pencil.cost(pencil.readable)
    return build(Sketch(pencil.plates, tuple(pencil.lines.values()), pencil.laws).pruned())


def _plates(draw: DrawFn, most: int) -> tuple[Plate, ...]:
    """Draw plates, the first of one size, the second of another."""
    found = []
    for index in range(draw(st.integers(0, most))):
        is_ordered = draw(st.booleans())
        found.append(
            Plate(
                f"p{index}",
                draw(st.sampled_from((2, 3, 1, 2))),
                draw(st.sampled_from(REDUCE)),
                is_ordered,
                draw(st.sampled_from((1.0, 0.8))) if is_ordered else 1.0,
            )
        )
    return tuple(found)


def policies(
    graph: Graph,
    estimators: Collection[str | Estimator] | None = None,
    *,
    samples: int | None = None,
    biased: bool = False,
) -> SearchStrategy[dict[str, Estimator]]:
    """Draw an estimator for every random variable of a ``graph``, of all that are not refused there.

    They are those of ``estimators``, instances or names, or every registered one with its options; biased
    ones only if ``biased``. ``samples`` is that of ``scg.compile``. An estimator given as an instance is
    the same at every node.
    """
    ir = graph.freeze()
    facts = gather(ir, ir.store.examples)
    known = {name: node_facts(facts, name, samples) for name in ir.samples}

    def may_have(name: str, make: Make) -> bool:
        return (biased or make().unbiased) and refusal(make(), known[name]) is None

    for name, told in known.items():
        if estimators is not None and not any(may_have(name, make) for make in makers(told, estimators)):
            raise GraphError(f"every estimator that was given refuses '{name}': give \"score\" besides")

    @st.composite
    def drawn(draw: DrawFn) -> dict[str, Estimator]:
        return {
            name: draw(_one_of(makers(told, estimators), partial(may_have, name)))
            for name, told in known.items()
        }

    return drawn()


@st.composite
def _one_of(draw: DrawFn, makes: Iterable[Make], is_able: Callable[[Make], bool]) -> Estimator:
    """Draw an estimator by its name, and then one of its options."""
    several: dict[str, list[Make]] = {}
    for make in makes:
        several.setdefault(make().name, []).append(make)
    named = st.sampled_from(list(several.values())).filter(lambda options: any(map(is_able, options)))
    return draw(st.sampled_from(draw(named)).filter(is_able))()


def inputs(graph: Graph) -> SearchStrategy[dict[str, Any]]:
    """Draw values of the inputs of a ``graph``, in the shapes and types of its examples.

    Real numbers are eighths between -2 and 2, and whole ones between the least and the largest that the
    example has.
    """
    ir = graph.freeze()
    if missing := [name for name in ir.inputs if name not in ir.store.examples]:
        raise GraphError(
            f"input '{missing[0]}' has no example, so its shape is not known: give g.input(..., example=...)"
        )

    @st.composite
    def drawn(draw: DrawFn) -> dict[str, Any]:
        return {name: tree_map(lambda leaf: _like(draw, leaf), ir.store.examples[name]) for name in ir.inputs}

    return drawn()


def _like(draw: DrawFn, example: Any) -> Any:
    """Draw what an example could have been."""
    if not isinstance(example, Tensor) or not example.numel():
        return example
    if example.is_floating_point():
        numbers = draw(_several(st.integers(-EIGHTHS, EIGHTHS), example.numel()))
        return (torch.tensor(numbers) / 8).reshape(example.shape).to(example)
    least, most = int(example.min()), int(example.max())
    numbers = draw(_several(st.integers(least, most), example.numel()))
    return torch.tensor(numbers).reshape(example.shape).to(example)


def _several(one: SearchStrategy[int], count: int) -> SearchStrategy[list[int]]:
    return st.lists(one, min_size=count, max_size=count)
