"""The score-function estimator and its baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.estimators.parts.baselines import Baseline, Word, baseline_of
from scg.estimators.parts.memory import Memory
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Scored
from scg.estimators.protocol.site import Site


@dataclass(frozen=True, eq=False)
class Score(Scored):
    """The score-function estimator (Q - b) dlog p(x), b a baseline that x does not influence.

    Williams (1992, "Simple statistical gradient-following algorithms"). ``baseline`` is a word
    ("moving-average", "leave-one-out", "self-critical"), a module that reads ``context`` (the node's parents
    if None), or a ``scg.Baseline``; baselines add. ``normalise=True`` divides by the past standard deviation
    of the credit where that exceeds 1.
    """

    name: ClassVar[str] = "score"
    tried: ClassVar[int | None] = 3

    # what is kept is a Baseline, which is called as the method of the kind is
    baseline: Word | nn.Module | Baseline | None = None  # type: ignore[assignment]
    context: Any = None
    normalise: bool = False

    def __post_init__(self) -> None:
        """Take a word or a module for the baseline that it stands for."""
        object.__setattr__(self, "baseline", baseline_of(self.baseline, self.context))
        object.__setattr__(self, "context", None)

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Score:
        """Prefer the other replicates as a baseline where there are any, else the past."""
        return cls(baseline="leave-one-out" if (facts.samples or 1) > 1 else "moving-average")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse a support that moves with a parameter, and what the baseline refuses."""
        if facts.moving is not None:
            return moves(facts)
        return self.kept.refuses(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for what the baseline asks for."""
        asks = self.kept.asks()
        return replace(asks, site=asks.site or self.normalise)

    def learns(self, facts: NodeFacts) -> nn.Module | None:
        """Return the memory of past credit, with the baseline's network if there is one."""
        if self.kept.net is None and not self.is_of_the_past:
            return None
        return Memory(self.kept.net, deviates=self.normalise)

    def factor(self, site: Site) -> Tensor:
        """Return Q - b, over the past standard deviation where that is asked for."""
        factor = site.credit - self.kept(site)
        if not self.normalise:
            return factor
        assert isinstance(site.controls, Memory)
        return factor / site.controls.deviation()

    def remember(self, site: Site) -> None:
        """Add the credit to what the moving average and the deviation are of."""
        if site.training and self.is_of_the_past:
            assert isinstance(site.controls, Memory)
            site.controls.update(site.credit, site.weight, site.unit)

    @property
    def kept(self) -> Baseline:
        """The baseline."""
        assert isinstance(self.baseline, Baseline)
        return self.baseline

    @property
    def is_of_the_past(self) -> bool:
        """Whether past credit is remembered."""
        return self.normalise or self.kept.remembers


def moves(facts: NodeFacts) -> Refusal:
    """Refuse a support that moves with a parameter."""
    return Refusal(
        f"the support of its {facts.law.family} moves with parameter '{facts.moving}', which the score does "
        "not see",
        'use "reparam", or a distribution with a fixed support',
    )
