"""Measure-valued gradients: the derivative of a law is the difference of two, and costs are taken at both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scg.estimators.parts.elements import elements_of, where_possible
from scg.estimators.parts.splits import SPLITS, Draw
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site
from scg.laws import Categorical


@dataclass(frozen=True)
class MeasureValued(Cut):
    """c (f(plus) - f(minus)) for each parameter, dp = c (p_plus - p_minus); p_i (f(i) - f(b)) for logits.

    One of both is often the law itself, so that the sample serves. An element of an event is set at a time,
    the others at their sample. Costs may jump, and the support may move: d/d(high) of a Uniform is
    (f(high) - f(x)) / (high - low). Mohamed, Rosca, Figurnov and Mnih (2020, "Monte Carlo gradient
    estimation in machine learning", arXiv:1906.10652).
    """

    name: ClassVar[str] = "measure-valued"

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws that have no split here, and parameters that have none where they may be learned."""
        law = facts.law
        if isinstance(law, Categorical):
            return None
        known = SPLITS.get(law.family)
        if known is None:
            return Refusal(
                f"it knows no two laws of which the derivative of a {law.family} is the difference"
            )
        missing = (name for name in law.parameters if name not in known)
        learned = next((name for name in missing if facts.may_learn(name)), None)
        if learned is None:
            return None
        return Refusal(
            f"the derivative of a {law.family} in {learned} is no difference of laws that it can draw from"
        )

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at what is no sample, for each parameter that may be learned, at each element."""
        if isinstance(facts.law, Categorical):
            return Asks(downstream=(facts.outcomes or 0) * facts.elements)
        known = SPLITS[facts.law.family]
        several = [name for name in known if name in facts.law.parameters]
        learned = [name for name in several if facts.may_learn(name)] or several
        noisy = any(known[name].noisy for name in several)
        points = sum(len(known[name].points) for name in learned)
        return Asks(fresh=("uniform",) if noisy else (), downstream=points * facts.elements)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimates of what needs one."""
        if isinstance(site.law, Categorical):
            return _categorical(site, site.law)
        known = SPLITS[site.law.family]
        splits = {name: known[name] for name in site.parameters if name in known and name in site.wanted}
        several = [made for split in splits.values() for made in split.points]
        noise = site.fresh_noise() if any(split.noisy for split in known.values()) else None
        draw = Draw(site.law, site.parameters, site.value, noise)
        points = [made(draw).expand(site.value.shape) for made in several]
        costs = iter(_charged(site, torch.stack(points)) if points else ())
        credit = site.spread(site.credit, site.value)
        found = {}
        for name, split in splits.items():
            plus = credit if split.plus is None else next(costs)
            minus = credit if split.minus is None else next(costs)
            found[name] = split.constant(draw) * (plus - minus)
        return found


def _charged(site: Site, others: Tensor) -> Tensor:
    """Return what each element is charged with at others [m, *batch, ...]."""
    return where_possible(site, others, elements_of(site).evaluated(site, others))


def _categorical(site: Site, law: Categorical) -> dict[str, Tensor]:
    """Return p_i (f(i) - f(b)) for logits, and (f(i) - f(b)) / sum p for probs."""
    outcomes = law.support(site.parameters)
    batch = site.value.shape[: site.value.dim() - law.value_rank]
    costs = _charged(site, outcomes[(slice(None), *(None,) * len(batch))])
    difference = (costs - site.spread(site.credit, costs[0])).movedim(0, -1)
    if law.given == "logits":
        return {"logits": law.probabilities(site.parameters) * difference}
    return {"probs": difference / site.parameters["probs"].sum(-1, keepdim=True)}
