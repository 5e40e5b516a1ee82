"""Coupled evaluations: the cost at several values, each drawn from the law and unlike the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.parts.couplings import coupled_bits, coupled_choices
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site
from scg.laws import Relaxable

BITS = "Bernoulli"
CHOICES = ("Categorical", "OneHotCategorical")


@dataclass(frozen=True)
class Coupled(Cut):
    """Mean over pairs of evaluations of 1/2 (f(x) - f(y)) (dlog p(x) - dlog p(y)) p(x) p(y) / P(x, y).

    The last factor is of each element alone, P being the law of its pair. ``evaluations`` n counts the
    sample; the other values are computed from its noise and from fresh noise, for every element by itself.
    A bit has u and 1 - u at n = 2, where this is DisARM (Dong, Mnih and Tucker, 2020, arXiv:2006.10680; U2G,
    Yin et al., 2020), and u + i / n modulo 1 in random order beyond, as an instance of ARMS (Dimitriev and
    Zhou, 2021, arXiv:2105.14141). Of a categorical variable (CARMS, the same, 2021, arXiv:2110.14002) every
    second value is a step of Liu's sampler from the one before it (1996, "Peskun's theorem and a modified
    discrete-state Gibbs sampler"), so that p(x) p(y) / P(x, y) = max(1 - p(x), 1 - p(y)).
    """

    name: ClassVar[str] = "coupled"
    words: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {"disarm": {}, "arms": {"evaluations": 4}, "carms": {}}
    )

    evaluations: int = 2

    def __post_init__(self) -> None:
        """Refuse what is no number of evaluations that can be compared."""
        given = self.evaluations
        if isinstance(given, bool) or not isinstance(given, int) or given < 2:
            raise EstimatorError(f"evaluations is a number, 2 or more, not {given!r}")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse all but bits and categorical variables."""
        family = facts.law.family
        if family == BITS or family in CHOICES:
            return None
        return Refusal(f"it couples draws of a Bernoulli or a categorical variable, not of a {family}")

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs at the other values, and for the noise that they are drawn from."""
        others = self.evaluations - 1
        fresh: tuple[str, ...] = ("uniform",) * others if others > 1 else ()
        if facts.law.family in CHOICES:
            fresh = tuple("base" if index % 2 else "uniform" for index in range(others))
        return Asks(downstream=others, fresh=fresh)

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, zero where all values are the same."""
        assert isinstance(site.law, Relaxable)
        fresh = [site.fresh_noise(index) for index in range(len(site.provided.fresh))]
        coupling = (coupled_bits if site.law.family == BITS else coupled_choices)(site, fresh)
        inner = (None,) * (site.value.dim() - site.law.value_rank - site.lead)
        costs = site.downstream(coupling.others)
        return {site.law.given: coupling.estimate(site.credit[(..., *inner)], costs[(..., *inner)])}
