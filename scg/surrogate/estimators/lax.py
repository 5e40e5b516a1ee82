"""LAX: a learned control variate for continuous nodes above what has no derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy, names_of
from scg.surrogate.estimators.site import Site
from scg.surrogate.estimators.variates import Controls, centred, check_baseline, network


@dataclass(frozen=True, eq=False)
class LAX(Estimator):
    """(f(x) - c(x)) dlog p(x) + dc(x) with a learned c(x, context); in the last term x depends on its noise.

    ``net`` is called ``net(x, *context)`` and gives one number for each plate element; without one, a
    network is made for the node, which reads the node's parents as well. Grathwohl et al. (2018,
    arXiv:1711.00123).
    """

    name: ClassVar[str] = "lax"
    preference: ClassVar[int] = 4

    net: Callable[..., Tensor] | None = None
    context: Any = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse a baseline that there is not."""
        check_baseline(self.baseline)

    @classmethod
    def passed_over(cls, facts: NodeFacts) -> str | None:
        """Leave what has to be trained first to those who ask for it."""
        return "its network has to be trained first"

    @property
    def action(self) -> Action:
        """The value passes on detached."""
        return Action.CUT

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse laws whose draw cannot be differentiated twice, and supports that move."""
        law = facts.law
        if law.pathwise is None:
            return f"a {law.family} has no differentiable map from noise to value"
        if not law.twice:
            return (
                f"torch has no second derivative of a draw from a {law.family}, through which its network "
                "would be trained"
            )
        if facts.moving is not None:
            return Remedy(
                f"the support of its {law.family} moves with parameter '{facts.moving}', which the "
                f'score does not see. Use "reparam", or a distribution with a fixed support'
            )
        if self.baseline is not None and (facts.samples or 1) < 2:
            return Remedy("leave-one-out compares replicates: compile with samples=2 or more")
        return None

    def controls(self, facts: NodeFacts) -> nn.Module:
        """Return the network."""
        return Controls(net=self.net or network(facts, facts.event, self.reads_context or ()))

    @property
    def reads_points(self) -> bool:
        """The network reads the value."""
        return True

    @property
    def reads_context(self) -> tuple[str, ...] | None:
        """The default network reads the node's parents; one that is given reads what ``context`` says."""
        return None if self.net is not None and self.context is None else names_of(self.context)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in the network."""

        def variate(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            predicted = site.predict(site.law.draw(parameters, site.noise)[None])
            return site.total(predicted)[0], predicted[0]

        path, predicted = site.derivative(variate)
        return site.score(site.value, centred(site.credit - predicted, self.baseline), path)
