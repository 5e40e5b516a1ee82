"""Enumeration: every joint outcome of a finite support, weighted by its probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.local import Local, infinite
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Branched, Branches
from scg.estimators.protocol.site import Site
from scg.laws import Law


@dataclass(frozen=True)
class Enumerate(Branched):
    """The exact sum over outcomes, sum_k dp_k f_k; joint over elements, or ``local`` one at a time.

    Joint enumeration adds a weighted plate to everything below, up to ``limit`` branches. With
    ``local=True`` it makes the estimator ``Local``, which sets one element at a time.
    """

    name: ClassVar[str] = "enumerate"
    tried: ClassVar[int | None] = 0

    local: bool = False
    limit: int = 4096

    def __new__(cls, local: bool = False, limit: int = 4096) -> Any:
        """Make the estimator of the other kind where it is local."""
        return Local() if local else super().__new__(cls)

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse supports that are not finite, and joint supports beyond the limit."""
        if (refusal := infinite(facts)) is not None:
            return refusal
        if (facts.branches or 0) > self.limit:
            return Refusal(
                f"it has {facts.outcomes}**{facts.elements} joint outcomes, over the limit of {self.limit}",
                "write scg.Enumerate(local=True), which sets one element at a time, or raise limit=",
            )
        return None

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for all branches."""
        return Asks(branches=facts.branches or 0)

    def branches(self, site: Site) -> Branches:
        """Return every joint outcome; plates that no cost joins are set at once."""
        assert site.apart is not None
        apart, inner = [*site.apart.plates, *site.apart.event], len(site.apart.event)
        return Branches(
            _outcomes(site.law, site.parameters, apart, self.limit),
            _masses(site.law, site.parameters, apart, len(site.axes), inner),
        )


def _outcomes(law: Law, parameters: Mapping[str, Tensor], apart: Sequence[int], limit: int) -> Tensor:
    """Return every joint outcome [n, *apart, *value_event], of which there are at most ``limit``.

    ``apart`` has one entry for each plate and event dimension: its size where its elements are set one by
    one, 1 where they are set at once.
    """
    support = law.support(parameters)
    count = math.prod(apart)
    if len(support) ** count > limit:
        raise EstimatorError(
            f"{len(support)}**{count} joint outcomes are over the limit of {limit}: "
            "use scg.Enumerate(local=True), which sets one element at a time, or raise limit="
        )
    if count == 1:
        return support.view(-1, *apart, *support.shape[1:])
    return support[digits_of(len(support), apart, support.device)]


def digits_of(base: int, places: Sequence[int], device: torch.device) -> Tensor:
    """Return every way to fill a block of shape ``places`` with digits of a base, [n, *places]."""
    count = math.prod(places)
    codes = torch.arange(base**count, device=device)
    return ((codes[:, None] // base ** torch.arange(count, device=device)) % base).view(-1, *places)


def _masses(
    law: Law, parameters: Mapping[str, Tensor], apart: Sequence[int], axes: int, inner: int
) -> Tensor:
    """Return the probability [*axes, n, *plates] of every joint outcome, 1 long in plates set apart.

    It is attached to the parameters, and exact where they are 0 or 1.
    """
    mass = law.mass(parameters)
    rank = axes + len(apart)
    if rank > mass.dim() - 1:
        mass = mass[(slice(None), *(None,) * (rank - (mass.dim() - 1)))]
    mass = mass if math.prod(apart) == 1 else _picked(mass, apart, axes)
    mass = mass.flatten(rank - inner + 1).prod(-1) if inner else mass
    return mass.movedim(0, axes) if axes else mass


def _picked(mass: Tensor, apart: Sequence[int], axes: int) -> Tensor:
    """Return [n, *axes, *apart] from the probability of each value, multiplied over plates set apart."""
    size = len(mass)
    full = [width if width > 1 else mass.shape[1 + axes + i] for i, width in enumerate(apart)]
    mass = mass.expand(size, *mass.shape[1 : 1 + axes], *full)
    digits = digits_of(size, apart, mass.device)
    digits = digits.view(len(digits), *(1,) * axes, *apart)
    picked = torch.gather(mass, 0, digits.expand(len(digits), *mass.shape[1:]))
    for index, width in enumerate(apart):
        if width > 1:
            picked = picked.prod(1 + axes + index, keepdim=True)
    return picked
