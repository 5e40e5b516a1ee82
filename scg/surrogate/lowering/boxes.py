"""Boxes: costs whose derivatives, of every order, are those of their expectation."""

from __future__ import annotations

import operator
from functools import partial, reduce

from torch import fx

from scg.analysis.influence import below
from scg.estimators.protocol.kinds import Scored
from scg.surrogate.lowering.branching import Branching
from scg.surrogate.lowering.draws import density_axes, own_log_prob
from scg.surrogate.lowering.marginals import merged
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.terms import Terms
from scg.surrogate.lowering.totals import branched_total
from scg.surrogate.lowering.weighing import charged
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import along, box, left_by

Logs = list[tuple[fx.Node, Labels]]


class Boxes:
    """Writes sum_c c box(<c) + sum_w box(<w) (1 - box(w)) b_w, with box(S) = exp(sum_S log p - sg log p).

    The first sum has the derivatives of the expected costs, as a product of importance weights p / sg p has,
    and stays attached to all that it is made of. The second is 0 in expectation, and so are its derivatives:
    the baseline b_w, a number, and what is above w do not depend on w. Foerster et al. (2018, "DiCE: The
    infinitely differentiable Monte Carlo estimator", arXiv:1802.05098); Mao et al. (2019, arXiv:1906.06187).
    """

    def __init__(self, inside: World, branching: Branching) -> None:
        """Start with nothing written; ``inside`` is the world with all branches of enumerated nodes."""
        self.inside = inside
        self.plan = inside.plan
        self.branching = branching
        self.terms = Terms(inside, branching)

    def total(self) -> fx.Node:
        """Append the sum over costs, and over baselines."""
        baselines = [found for name in reversed(self._scored) if (found := self._baseline(name)) is not None]
        costs = [self._cost(name) for name in self.plan.ir.costs]
        return self.inside.emitter.add([*costs, *baselines], "surrogate")

    @property
    def _scored(self) -> list[str]:
        """The nodes whose value passes on detached, and whose law may need a gradient."""
        plan = self.plan
        several = (name for name in plan.ir.samples if isinstance(plan.choices[name].estimator, Scored))
        return [name for name in several if name in plan.learnable and plan.facts.influence.reached[name]]

    def _cost(self, name: str) -> fx.Node:
        """Append the total of a cost times the box of every node above it, in the branches of all of them."""
        world, influence, ir = self.inside, self.plan.facts.influence, self.plan.ir
        have, value = world.lead(name), charged(world, name)
        reaching = [w for w in self._scored if name in influence.costs_of(influence.reached[w])]
        logs = [self._along(w, influence.kept(ir, w, name)) for w in reaching]
        labels = reduce(partial(merged, world), (labels for _, labels in logs), have)
        if logs:
            weight = world.emitter.call(world.emitter.shown("box", None, box), self._sum(logs, labels, name))
            value = world.aligned(value, have, labels)
            value = world.emitter.call(operator.mul, value, weight, name=f"{name}_boxed")
        return branched_total(world, self.branching, value, labels, f"{name}_expected", attached=True)

    def _baseline(self, name: str) -> fx.Node | None:
        """Append the total of what a baseline takes away, or nothing where there is none."""
        found = self.terms.baseline(name)
        if found is None:
            return None
        (value, lead), world, ir = found, self.inside, self.plan.ir
        own = world.aligned(own_log_prob(world, name), self._lead(name), lead)
        plates = ir.layout[name]
        above = [
            self._along(other, tuple(plate for plate in ir.layout[other] if plate in plates))
            for other in self._scored
            if name in below(ir, other)
        ]
        if any(ir.plates[plate].ordered for plate in plates):
            above.append(self._before(name))
        logs = [log for log in above if set(log[1]) <= {*lead}]
        earlier = self._sum(logs, lead, f"{name}_above") if logs else None
        shown = world.emitter.shown("left_by", None, left_by)
        line = world.emitter.call(shown, value, own, earlier, name=f"{name}_taken")
        return branched_total(world, self.branching, line, lead, f"{name}_taken", attached=True)

    def _lead(self, name: str) -> Labels:
        return density_axes(self.inside, name) + self.plan.ir.layout[name]

    def _along(self, name: str, kept: Labels) -> tuple[fx.Node, Labels]:
        """Append log p over the plates that are kept, a step of an ordered one with those before it."""
        world, labels, ir = self.inside, self._lead(name), self.plan.ir
        log = own_log_prob(world, name)
        for dim, label in enumerate(labels):
            if label in kept and ir.plates[label].ordered:
                log = world.emitter.call(world.emitter.shown("along", None, along), log, dim)
        gone = [dim for dim, label in enumerate(labels) if label in ir.plates and label not in kept]
        if gone:
            log = world.emitter.method("sum", log, gone)
        return log, tuple(label for dim, label in enumerate(labels) if dim not in gone)

    def _before(self, name: str) -> tuple[fx.Node, Labels]:
        """Append log p of the steps before each, along ordered plates."""
        so_far, labels = self._along(name, self.plan.ir.layout[name])
        own = own_log_prob(self.inside, name)
        return self.inside.emitter.call(operator.sub, so_far, own, name=f"{name}_before"), labels

    def _sum(self, logs: Logs, lead: Labels, name: str) -> fx.Node:
        """Append the sum of log-probabilities, each aligned to leading dimensions."""
        aligned = [self.inside.aligned(log, labels, lead) for log, labels in logs]
        return self.inside.emitter.add(aligned, f"{name}_log_prob")
