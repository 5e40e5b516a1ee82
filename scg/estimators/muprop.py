"""MuProp: the cost at the mean, and its slope there, as a control variate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.baselines import besides
from scg.estimators.parts.linear import (
    Linear,
    along,
    check_coefficient,
    mean,
    slopes,
    soft_event,
    softened,
    through_mean,
    unlinear,
)
from scg.estimators.parts.variates import Remainder, centred, first_rough
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site

WORDS = ("mean-field", "learned")


@dataclass(frozen=True, eq=False)
class MuProp(Remainder, Cut):
    """(Q - c F(m) - a F'(m) (b - m)) dlog p(b) + a F'(m) dm.

    F is the cost at relaxed values, and m the mean of b. The coefficients a and c start at ``coefficient``,
    and descend the variance unless ``tune=False``: at 1 the estimate may well be worse than with neither.
    With ``slope="learned"`` instead of "mean-field", a vector that descends the variance is in the place of
    a F'(m), and nothing is evaluated. ``baseline``, which learns nothing of its own, is taken from the credit
    besides. Gu et al. (2016, "MuProp: Unbiased backpropagation for stochastic neural networks",
    arXiv:1511.05176).
    """

    name: ClassVar[str] = "muprop"

    slope: Literal["mean-field", "learned"] = "mean-field"
    coefficient: float = 1.0
    tune: bool = True
    baseline: Any = None  # what is kept is a Baseline

    def __post_init__(self) -> None:
        """Refuse slopes that are not known, and baselines that would learn."""
        object.__setattr__(self, "baseline", besides(self.baseline))
        if self.slope not in WORDS:
            raise EstimatorError(f"slope is one of {WORDS}, not {self.slope!r}")
        check_coefficient(self.coefficient)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse what has no mean among its relaxed values, and slopes of costs that have none."""
        if (refusal := unlinear(facts)) is not None:
            return refusal
        if self.slope == "mean-field" and facts.reaches_cost and not facts.slice().smooth:
            told = f"it needs the slope of a cost at the mean, and {first_rough(facts)}"
            return Refusal(told, 'give slope="learned"')
        return self.kept.refuses(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the relaxed cost at the mean."""
        return replace(self.kept.asks(), site=True, relaxed=int(self._is_of_the_cost(facts)))

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the coefficients, or the slope."""
        if self._is_of_the_cost(facts):
            both = (torch.tensor(self.coefficient, dtype=facts.dtype) for _ in range(2))
            return Linear(coefficient=next(both), level=next(both), is_learned=self.tune)
        return Linear(slope=torch.zeros(soft_event(facts), dtype=facts.dtype), is_learned=self.tune)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in what is learned."""
        controls, middle = site.controls, mean(site)
        assert isinstance(controls, Linear)
        away, credit = softened(site) - middle, site.credit
        if controls.slope is not None:
            slope = controls.slope.expand(away.shape)
        else:
            assert controls.coefficient is not None and controls.level is not None
            found, level = slopes(site, middle)
            slope, credit = controls.coefficient * found, credit - controls.level * level
        left = centred(site, credit - along(site, slope, away), self.kept)
        return site.score(site.value, left, through_mean(site, slope))

    def _is_of_the_cost(self, facts: NodeFacts) -> bool:
        return self.slope != "learned" and facts.reaches_cost
