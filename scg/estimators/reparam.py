"""Reparameterisation: the value is a differentiable function of the parameters and base noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from scg.errors import EstimatorError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Through


@dataclass(frozen=True)
class Reparam(Through):
    """The pathwise estimator d f(g(noise, eta)) / d eta, implicit where g has no closed form.

    Kingma and Welling (2014, arXiv:1312.6114); implicit: Figurnov et al. (2018, arXiv:1805.08498). With
    ``path="stl"`` costs that add the variable's own log-probability do so at detached parameters: what is
    left out has the mean 0 (Roeder, Wu and Duvenaud, 2017, "Sticking the landing", arXiv:1703.09194).
    """

    name: ClassVar[str] = "reparam"
    tried: ClassVar[int | None] = 1

    path: Literal["stl"] | None = None

    def __post_init__(self) -> None:
        """Refuse other paths."""
        if self.path not in (None, "stl"):
            raise EstimatorError(f'path is "stl" or None, not {self.path!r}; "dreg" is an estimator')

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws without a right pathwise derivative, and paths that are not smooth."""
        if facts.law.pathwise is None:
            return Refusal(f"a {facts.law.family} has no differentiable map from noise to value")
        obstacle = facts.obstacle()
        if obstacle is not None:
            return Refusal(obstacle)
        return None if self.path is None else _not_added(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the log-probability at detached parameters, if that is the path."""
        return Asks(detached=self.path == "stl")

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Refuse implicit derivatives, which torch differentiates once."""
        if facts.law.twice:
            return None
        return Refusal(f"torch has no second derivative of a draw from a {facts.law.family}", 'use "score"')


def _not_added(facts: NodeFacts) -> Refusal | None:
    """Refuse to leave out a derivative of log q that has another mean than 0, or that is not there."""
    counts = facts.added()
    if isinstance(counts, str):
        return Refusal(f'path="stl": {counts}', "write the cost as a sum of nodes, or leave path= out")
    if not counts:
        return Refusal(f'path="stl": no cost adds g.log_prob({facts.name})', "leave path= out")
    joint = [bound.cost for bound in facts.bounds if bound.cost in counts]
    if joint:
        return Refusal(f"path=\"stl\" is biased under the bound '{joint[0]}'", 'use "dreg"')
    if facts.is_weighed:
        return Refusal('path="stl": ratios weigh the costs', "leave path= out")
    return None
