"""Quadratic: the path derivative at a normal value, with that of a learned quadratic as a control variate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site, derivative

WORDS = ("diagonal", "full")


@dataclass(frozen=True)
class Quadratic(Cut):
    """dF(z)/dz dz/d(eta) + d/d(eta) (E h(z) - h(z(eta))), h(z) = b (z - m) + (z - m) B (z - m) / 2.

    z = m + scale noise is Normal, and h is taken at m as it is. b and B start at 0 and descend the variance;
    they are of the entries of one value, in which the ``matrix`` B is "diagonal" or "full". What is below is
    evaluated once more, with its derivative. Geffner and Domke (2020, "Approximation based variance reduction
    for reparameterization gradients", arXiv:2007.14634).
    """

    name: ClassVar[str] = "quadratic"

    matrix: Literal["diagonal", "full"] = "diagonal"

    def __post_init__(self) -> None:
        """Refuse other matrices."""
        if self.matrix not in WORDS:
            raise EstimatorError(f"matrix is one of {WORDS}, not {self.matrix!r}")

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse other laws, and what reparam refuses; costs that cannot be evaluated again at the value."""
        if facts.law.family != "Normal":
            return Refusal(f"a {facts.law.family} is no Normal, of which it knows the mean")
        obstacle = facts.obstacle()
        if obstacle is not None:
            return Refusal(obstacle)
        found = facts.slice()
        if found.relaxed:
            told = f"'{found.relaxed[0]}' below it is discrete, past which there is no path derivative"
            return Refusal(told)
        return next((Refusal(told) for told in found.obstacles.values()), None)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for the costs as a function of the value."""
        return Asks(relaxed=1 * facts.reaches_cost)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the quadratic."""
        return Surface(math.prod(facts.event), facts.dtype, is_full=self.matrix == "full")

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in the quadratic.

        Of E h the derivatives are b and B_ii scale_i, and of h they are those of h in z times dz.
        """

        def total(leaves: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
            return site.relaxation(leaves["points"]).total.sum(), ()

        surface, (loc, scale) = site.controls, (site.parameters[name] for name in ("loc", "scale"))
        assert isinstance(surface, Surface)
        slopes, _ = derivative(total, {"points": site.value[None]}, attached=False)
        slope = site.shared({"points": slopes["points"][0]})["points"]
        bent, own = surface(site.value - loc, site.lead)
        noise = site.noise.expand(scale.shape)
        return {
            "loc": slope - bent,
            "scale": (slope - bent - surface.linear(site.lead, loc)) * noise + own * scale,
        }


class Surface(nn.Module):
    """A quadratic: its slope ``first`` at the middle, and its ``second`` derivatives, one or all for each."""

    def __init__(self, width: int, dtype: torch.dtype, *, is_full: bool) -> None:
        """Start at 0."""
        super().__init__()
        self.first = nn.Parameter(torch.zeros(width, dtype=dtype))
        self.second = nn.Parameter(torch.zeros((width, width) if is_full else width, dtype=dtype))

    def forward(self, away: Tensor, lead: int) -> tuple[Tensor, Tensor]:
        """Return how the slope differs from that of the middle, and the second derivatives of each entry."""
        event = away.shape[lead:]
        if self.second.dim() == 1:
            own = self.second.view(event)
            return own * away, own
        both = (self.second + self.second.mT) / 2
        rows = away.flatten(lead) if event else away.unsqueeze(-1)
        return (rows @ both).view(away.shape), both.diagonal().view(event)

    def linear(self, lead: int, like: Tensor) -> Tensor:
        """Return the slope at the middle, in the shape of one value."""
        return self.first.view(like.shape[lead:])
