"""Double control variates: slopes of the cost at the other replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
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
from scg.estimators.parts.variates import first_rough
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import REPLICATES, NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site, left_out

WORDS = ("cost", "learned")


@dataclass(frozen=True)
class DoubleCV(Cut):
    """(Q_k - a G_k (b_k - m) - mean over j != k of (Q_j - a F'(b_j) (b_j - m))) dlog p(b_k) + a G_k dm.

    G_k is the mean of F'(b_j) over the other replicates, F the cost at relaxed values, and m the mean of b.
    The ``coefficient`` a starts as given and descends the variance unless ``tune=False``. The ``slope`` is
    that of the "cost", or "learned", one vector in place of a G and a F' for all replicates, by which a
    value loses what Stein's operator of a linear function is; None is the former where a cost is smooth.
    Titsias and Shi (2022, "Double control variates for gradient estimation in discrete latent variable
    models", arXiv:2111.05300); Shi et al. (2022, arXiv:2202.09497).
    """

    name: ClassVar[str] = "double-cv"

    slope: Literal["cost", "learned"] | None = None
    coefficient: float = 1.0
    tune: bool = True

    def __post_init__(self) -> None:
        """Refuse slopes that are not known."""
        if self.slope is not None and self.slope not in WORDS:
            raise EstimatorError(f"slope is one of {WORDS}, or None, not {self.slope!r}")
        check_coefficient(self.coefficient)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse what has no mean among its relaxed values, and slopes of costs that have none."""
        if (refusal := unlinear(facts)) is not None:
            return refusal
        if self.slope == "cost" and facts.reaches_cost and not facts.slice().smooth:
            return Refusal(f"it needs the slope of a cost, and {first_rough(facts)}", 'give slope="learned"')
        return None

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for replicates, and for the relaxed cost at the value."""
        return Asks(relaxed=int(self._is_of_the_cost(facts)), independent=REPLICATES)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the coefficient, or the slope."""
        if self._is_of_the_cost(facts):
            start = torch.tensor(self.coefficient, dtype=facts.dtype)
            return Linear(coefficient=start, is_learned=self.tune)
        return Linear(slope=torch.zeros(soft_event(facts), dtype=facts.dtype), is_learned=self.tune)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in what is learned."""
        controls, dim = site.controls, site.dim(REPLICATES)
        assert isinstance(controls, Linear)
        value = softened(site)
        away = value - mean(site)
        if controls.slope is not None:
            own = others = controls.slope.expand(away.shape)
        else:
            assert controls.coefficient is not None
            own = controls.coefficient * slopes(site, value)[0]
            others = left_out(own, dim)
        rest = _existing(site, site.credit - along(site, own, away))
        left = site.credit - along(site, others, away) - left_out(rest, dim)
        return site.score(site.value, left, through_mean(site, others))

    def _is_of_the_cost(self, facts: NodeFacts) -> bool:
        return self.slope != "learned" and facts.reaches_cost and bool(facts.slice().smooth)


def _existing(site: Site, value: Tensor) -> Tensor:
    """Count 0 for what does not exist."""
    return value if site.exists is None else torch.where(site.exists, value, torch.zeros_like(value))
