"""Credit: the downstream costs that each stochastic node is charged with, summed once and shared."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.plan import Labels, Plan
from scg.surrogate.lowering.weighing import charged
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import discounted, possible, to_go, undiscounted

LOOK_BACK = 8


@dataclass(frozen=True, eq=False)
class Sum:
    """A credit already written: the costs in it, those that dropped each plate, and its value."""

    reached: int
    dropped: dict[str, int]
    value: fx.Node


class Credit:
    """Writes Q_w over lambda_w for stochastic nodes, visited from the costs upwards.

    Q_w sums lambda_c c[e] over the costs c that w reaches and the elements e that agree with an
    element of w on the plates that every path w -> c keeps; on a kept ordered plate over e no earlier.
    Schulman et al. (2015, arXiv:1506.05254), theorem 1, with plates. A sum that contains an earlier
    one is written as that one and the rest, so that a chain costs one addition a node.
    """

    def __init__(
        self, plan: Plan, branching: Branching, *, attached: bool = False, is_weighed: bool = True
    ) -> None:
        """Start with nothing written; credit is detached from the costs unless ``attached``.

        If it ``is_weighed``, costs count their importance weights.
        """
        self.plan = plan
        self.branching = branching
        self.attached = attached
        self.is_weighed = is_weighed
        self._sums: dict[Labels, list[Sum]] = {}
        self._terms: dict[tuple[str, tuple[str, ...], Labels], fx.Node] = {}

    def of(self, world: World, name: str, costs: Sequence[str] | None = None) -> fx.Node:
        """Return the credit of a node from all the costs it reaches or some, aligned to its lead."""
        influence, lead = self.plan.facts.influence, world.lead(name)
        reached, dropped = influence.reached[name], dict(influence.dropped[name])
        if costs is not None:
            reached = influence.bits_of(costs)
            dropped = {plate: bits & reached for plate, bits in dropped.items()}
        sums = self._sums.setdefault(lead, [])
        base = max(
            (s for s in sums[-LOOK_BACK:] if _contains(reached, dropped, s)),
            key=lambda s: s.reached.bit_count(),
            default=None,
        )
        if base is not None and base.reached == reached:
            return base.value
        rest = reached if base is None else reached & ~base.reached
        terms = [] if base is None else [base.value]
        terms += [self.term(world, cost, name, lead) for cost in influence.costs_of(rest)]
        total = _total(world, terms, f"{name}_credit")
        sums.append(Sum(reached, dropped, total))
        return total

    def term(self, world: World, cost: str, name: str, lead: Labels) -> fx.Node:
        """Return the share of one cost in the credit of a node, as [*lead] with size-1 dimensions."""
        kept = self.plan.facts.influence.kept(self.plan.ir, name, cost)
        key = (cost, kept, lead)
        if key not in self._terms:
            self._terms[key] = self._write(world, cost, kept, lead)
        return self._terms[key]

    def _write(self, world: World, cost: str, kept: tuple[str, ...], lead: Labels) -> fx.Node:
        emitter, plates = world.emitter, self.plan.ir.plates
        value = charged(world, cost) if self.is_weighed else world.value(cost)
        labels = world.lead(cost)
        if not self.attached:
            value = emitter.method("detach", value, name=f"{cost}_credit")
        value, labels = self.branching.expected(world, value, labels, lead)
        for plate in [label for label in labels if label in plates]:
            spec, dim = plates[plate], labels.index(plate)
            if plate in kept:
                if spec.ordered:
                    value = emitter.call(emitter.shown("to_go", None, to_go), value, dim, spec.discount)
                continue
            if spec.discount != 1.0:
                value = emitter.call(emitter.shown("discounted", None, discounted), value, dim, spec.discount)
            shared = spec.reduce == "mean" and plate not in lead
            value = emitter.method("mean" if shared else "sum", value, dim)
            labels = tuple(label for label in labels if label != plate)
        value = world.aligned(value, labels, lead)
        weight = self.branching.weight(world, lead, attached=False)
        if weight is not None:
            shown = emitter.shown("possible", None, possible)
            value = emitter.call(shown, value, self.branching.fitted(world, weight, lead))
        return self._scaled(world, value, world.lead(cost), labels, lead)

    def _scaled(self, world: World, value: fx.Node, had: Labels, labels: Labels, lead: Labels) -> fx.Node:
        """Divide by the node's own weight along its plates that the cost lost, or never had."""
        emitter, plates = world.emitter, self.plan.ir.plates
        for dim, plate in enumerate(lead):
            if plate not in plates or plate in labels:
                continue
            spec = plates[plate]
            if spec.reduce == "mean" and plate not in had:
                value = emitter.call(operator.mul, value, world.size(plate))
            if spec.discount != 1.0:
                op = emitter.shown("undiscounted", None, undiscounted)
                value = emitter.call(op, value, dim, world.size(plate), spec.discount)
        return value


def _contains(reached: int, dropped: dict[str, int], earlier: Sum) -> bool:
    """Say whether an earlier sum is a part of the sum over ``reached``, plate by plate."""
    if earlier.reached & ~reached:
        return False
    plates = dropped.keys() | earlier.dropped.keys()
    return all(dropped.get(p, 0) & earlier.reached == earlier.dropped.get(p, 0) for p in plates)


def _total(world: World, terms: list[fx.Node], name: str) -> fx.Node:
    """Add detached terms, which need not have the same size-1 dimensions."""
    total = terms[0]
    for term in terms[1:]:
        total = world.emitter.call(operator.add, total, term, name=name)
    return total
