"""DReG: the path derivative under a bound of several samples, without the part that is noise alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site, derivative


@dataclass(frozen=True)
class DReG(Cut):
    """sum_k v_k^2 dt_k/dz_k dz_k/d(eta) under -log mean exp(-t_k), with v = softmax(-t), t = log q(z) + ...

    The derivative of log q in its own parameters counts v_k in the cost. Its mean is that of the path
    derivative of v_k, which is written instead, and of which most cancels. Tucker, Lawson, Gu and Maddison
    (2019, "Doubly reparameterized gradient estimators for Monte Carlo objectives", arXiv:1810.04152).
    """

    name: ClassVar[str] = "dreg"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse paths that are not smooth, and all but one bound whose terms add log q(z) as it is."""
        if facts.law.pathwise is None:
            return Refusal(f"a {facts.law.family} has no differentiable map from noise to value")
        if facts.is_given or facts.is_weighed:
            return Refusal("values were drawn elsewhere, or ratios weigh the bound", 'use "score"')
        obstacle = facts.obstacle()
        if obstacle is not None:
            return Refusal(obstacle)
        return _unbounded(facts) or _rough(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the terms, the bound as a function of the value, and log q at detached parameters."""
        return Asks(relaxed=1 * facts.reaches_cost, terms=True, detached=True)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate: the weight of each sample times its path derivative."""

        def total(leaves: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            return site.relaxation(leaves["points"]).total.sum(), ()

        slopes, _ = derivative(total, {"points": site.value[None]}, attached=False)
        slope = slopes["points"][0]
        share = torch.softmax(-site.terms.values, site.terms.dim)
        weighed = site.spread(share, slope) * slope

        def drawn(leaves: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            return (site.law.draw(leaves, site.noise) * weighed).sum(), ()

        return site.shared(derivative(drawn, site.parameters, attached=False)[0])


def _unbounded(facts: NodeFacts) -> Refusal | None:
    """Refuse all but one bound, of which an element of the node has one term, and no other cost."""
    if len(facts.bounds) != 1:
        told = f"it is for one bound over a plate of the node, and this one reaches {len(facts.bounds)}"
        return Refusal(told, 'declare g.bound(name, cost, over=plate), or use "reparam"')
    (bound,) = facts.bounds
    if not bound.apart or bound.besides:
        return Refusal(f"an element of it reaches several terms of '{bound.cost}'", 'use "reparam"')
    counts = facts.added()
    if isinstance(counts, str):
        return Refusal(counts, 'write the cost as a sum of nodes, g.log_prob(z) - ..., or use "reparam"')
    if counts != {bound.cost: 1.0}:
        return Refusal(
            f"the terms of '{bound.cost}' do not count its log-probability once, as log q - log p does",
            f'write g.log_prob({facts.name}) - ..., or use "reparam"',
        )
    return None


def _rough(facts: NodeFacts) -> Refusal | None:
    """Refuse other costs, and bounds that cannot be evaluated again."""
    found, (bound,) = facts.slice(), facts.bounds
    if bound.cost in found.obstacles:
        return Refusal(found.obstacles[bound.cost], 'use "reparam"')
    if found.relaxed:
        return Refusal(f"'{found.relaxed[0]}' below it is discrete, without a path", 'use "reparam"')
    others = [cost for cost in (*found.smooth, *found.obstacles) if cost != bound.cost]
    if others:
        return Refusal(f"it reaches '{others[0]}' too, which is no part of the bound", 'use "reparam"')
    return None
