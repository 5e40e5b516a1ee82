"""Cases: every joint assignment of values to the stochastic ancestors of one cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from scg.errors import GraphError
from scg.evaluation.densities import Density
from scg.evaluation.sizes import plate_sizes
from scg.evaluation.trace import Trace, evaluate
from scg.nodes.ir import IR
from scg.nodes.plates import positions
from scg.nodes.records import Det, Record
from scg.oracle.ancestry import certain, kept_plates, upstream
from scg.oracle.outcomes import outcome, outcome_count

TOGETHER = 1024


@dataclass(frozen=True)
class Choice:
    """One stochastic ancestor: ``outcomes`` for each element of an index of the given ``shape``.

    The shape is that of the node's plates and event, with 1 for the plates in ``kept``: along those,
    an element of the cost sees only its own element of the node, so all are set together.
    """

    kept: tuple[str, ...]
    outcomes: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements are set apart."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Cases:
    """One cost with its ancestors alone, the choices among them, and what no choice changes.

    ``first`` is the evaluation in which every element takes its first outcome.
    """

    ir: IR
    cost: str
    inputs: Mapping[str, Tensor]
    choices: Mapping[str, Choice]
    fixed: Mapping[str, Any]
    weight: Tensor
    points: int
    first: Trace

    @property
    def count(self) -> int:
        """How many cases there are."""
        return math.prod(choice.outcomes**choice.elements for choice in self.choices.values())

    def indices(self, numbers: Tensor) -> dict[str, Tensor]:
        """Return the outcome of every element in each numbered case, ``[n, *shape]``."""
        found, stride = {}, 1
        for name, choice in self.choices.items():
            strides = [stride * choice.outcomes**k for k in range(choice.elements)]
            digits = numbers.unsqueeze(-1) // torch.tensor(strides) % choice.outcomes
            found[name] = digits.reshape(len(numbers), *choice.shape)
            stride *= choice.outcomes**choice.elements
        return found

    def term(self, indices: Mapping[str, Tensor]) -> Tensor:
        """Return what one case adds to the objective: ``sum_e lambda[e] P(values that e sees) c[e]``."""
        probability: list[Tensor] = []

        def draw(record: Record, density: Density, batch: Size) -> Tensor:
            self.same(record, density)
            value, chances = outcome(density, indices[record.name], batch, self.points)
            probability.append(self.joint(record.name, chances))
            return value

        cost: Tensor = evaluate(self.ir, self.inputs, draw, self.fixed).values[self.cost]
        weight = self.weight.to(cost)
        for chances in probability:
            weight = weight * chances
        # What cannot happen counts for nothing, also where the cost is not finite there.
        return (weight * torch.where((weight == 0) & ~cost.isfinite(), 0.0, cost)).sum()

    def same(self, record: Record, density: Density) -> None:
        """Refuse a node that has another number of outcomes in one case than in others."""
        found, planned = outcome_count(record, density, self.points), self.choices[record.name].outcomes
        if found != planned:
            raise GraphError(
                f"sample '{record.name}' ({record.where}) has {planned} outcomes in one case and {found} in "
                f"another: its support must not depend on the values of its parents"
            )

    def joint(self, name: str, chances: Tensor) -> Tensor:
        """Multiply the probabilities of elements set apart; lay the rest out along the cost's plates."""
        plates, kept = self.ir.layout[name], self.choices[name].kept
        if chances.dim() > len(plates):
            chances = chances.flatten(len(plates)).prod(-1)
        for index in reversed(range(len(plates))):
            chances = chances if plates[index] in kept else chances.prod(index)
        return chances[positions(kept, self.ir.layout[self.cost])]


def cases_of(ir: IR, cost: str, inputs: Mapping[str, Tensor], *, points: int) -> Cases:
    """Return the cases of one cost, or raise where they cannot be listed."""
    sizes = plate_sizes(ir, inputs)
    weight = _weight(ir, sizes, cost)
    ir = upstream(ir, sizes, cost)
    trace = _first(ir, inputs, points)
    _check(ir, trace, cost)
    kept = kept_plates(ir)
    choices = {name: _choice(ir, trace, name, kept[name], points) for name in ir.samples}
    fixed = {name: trace.values[name] for name in certain(ir)}
    return Cases(ir, cost, inputs, choices, fixed, weight, points, trace)


def check_count(cases: Cases, limit: int, largest: int | None = None) -> None:
    """Refuse more assignments than a ``limit``: of all nodes, or of the ``largest`` number that meets."""
    count = cases.count if largest is None else largest
    if count > limit:
        parts = " * ".join(f"{c.outcomes}**{c.elements} for '{name}'" for name, c in cases.choices.items())
        needed = str(count) if count < 10**15 else f"about 10**{math.log10(count):.0f}"
        raise GraphError(
            f"the exact objective of cost '{cases.cost}' needs {needed} assignments ({parts}), more than "
            f"limit={limit}: make its plates or its nodes smaller, or pass a larger limit"
        )


def terms(cases: Cases) -> Iterator[Tensor]:
    """Yield the objective of one cost in parts, many cases at once where its functions allow it."""
    batched = cases.count > 1 and not any(
        isinstance(record, Det) and record.differentiable is False for record in cases.ir.records()
    )
    for start in range(0, cases.count, TOGETHER):
        indices = cases.indices(torch.arange(start, min(start + TOGETHER, cases.count)))
        if batched:
            try:
                part = torch.vmap(cases.term)(indices).sum()
            except Exception:  # noqa: BLE001 - a function may refuse vmap in any way; one by one, its own errors come up
                batched = False
        if not batched:
            part = _one_by_one(cases, indices, min(TOGETHER, cases.count - start))
        yield part


def _one_by_one(cases: Cases, indices: Mapping[str, Tensor], count: int) -> Tensor:
    each = ({name: index[k] for name, index in indices.items()} for k in range(count))
    return torch.stack([cases.term(one) for one in each]).sum()


def _first(ir: IR, inputs: Mapping[str, Tensor], points: int) -> Trace:
    """Evaluate the case in which every element takes its first outcome, to learn laws and shapes."""

    def draw(record: Record, density: Density, batch: Size) -> Tensor:
        outcome_count(record, density, points)
        violated = density.law.violations(density.parameters)
        if violated is not None:
            raise GraphError(
                f"sample '{record.name}' ({record.where}): {density.law.family} parameter {violated}"
            )
        return outcome(density, torch.zeros((), dtype=torch.long), batch, points)[0]

    return evaluate(ir, inputs, draw)


def _check(ir: IR, trace: Trace, cost: str) -> None:
    value, plates = trace.values[cost], ir.layout[cost]
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != len(plates):
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise GraphError(
            f"cost '{cost}' ({ir[cost].where}) is {found}, but one floating point value for each element of "
            f"its plates {plates} is wanted: sum over the other dimensions, or declare them as plates"
        )


def _choice(ir: IR, trace: Trace, name: str, kept: frozenset[str], points: int) -> Choice:
    density, plates = trace.densities[name], ir.layout[name]
    shape = trace.values[name].shape
    inner = shape[len(plates) : len(shape) - density.law.value_rank]
    apart = (1 if plate in kept else trace.sizes[plate] for plate in plates)
    together = tuple(plate for plate in plates if plate in kept)
    return Choice(together, outcome_count(ir[name], density, points), (*apart, *inner))


def _weight(ir: IR, sizes: Mapping[str, int], cost: str) -> Tensor:
    """``lambda[e]``: 1/|p| for every mean plate, times discount**t along an ordered one."""
    weight = torch.ones((), dtype=torch.float64)
    for name in ir.layout[cost]:
        plate, steps = ir.plates[name], torch.arange(sizes[name], dtype=torch.float64)
        share = 1.0 / sizes[name] if plate.reduce == "mean" else 1.0
        weight = weight.unsqueeze(-1) * (share * plate.discount**steps)
    return weight
