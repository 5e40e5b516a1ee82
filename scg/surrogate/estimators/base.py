"""The contract between the compiler and an estimator: what an estimator is told, and what it owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.laws import Law, sum_event


class Action(Enum):
    """How a stochastic node passes its value on.

    CUT: detached, the gradient is ``gradient(site)``. THROUGH: attached, by ``value(site)``.
    BRANCHES: every value of the support, each with its probability as an attached weight.
    """

    CUT = "cut"
    THROUGH = "through"
    BRANCHES = "branches"


class Remedy(str):
    """A reason to refuse that says itself what to write instead."""


@dataclass(frozen=True, eq=False)
class NodeFacts:
    """What is known of a stochastic node at compile time; an estimator decides on nothing else.

    ``event`` is the shape of a value without plates, ``elements`` the number of atomic events that are
    set one by one (those of the event, times those of plates that some cost does not keep),
    ``outcomes`` the size of one atomic support or None, ``samples`` the replicates or None.
    ``moving`` names a parameter on which the support depends. ``obstacle()`` describes the first path
    to a cost that is not known to be smooth, or is None; it is asked only when it matters.
    ``has_mode`` tells whether the law knows its most likely value.
    """

    name: str
    law: Law
    event: tuple[int, ...]
    elements: int
    outcomes: int | None
    samples: int | None
    moving: str | None
    obstacle: Callable[[], str | None]
    reaches_cost: bool
    has_mode: bool = True
    dtype: torch.dtype = torch.float32

    @property
    def branches(self) -> int | None:
        """The number of joint outcomes, or None where the support is not finite."""
        return None if self.outcomes is None else self.outcomes**self.elements


@dataclass(frozen=True, eq=False)
class Site:
    """What an estimator sees of a node at run time; it never sees the graph.

    ``lead`` counts the leading dimensions of every tensor here: replicates, branches of enumerated
    nodes above, plates. ``credit`` [*lead] is the detached downstream cost that the node is charged
    with, over its own weight. ``weight`` is the probability of the branches it lives in, times the
    weight of its plates, or None where that is 1. ``parameters`` are detached, in the full shape of
    the node. ``together`` marks the leading dimensions whose elements no cost has in common. ``noise``
    is what the value was drawn from. Where a value is about to be drawn, by ``Estimator.value``, the
    parameters are attached, and value and credit are empty.
    """

    law: Law
    parameters: dict[str, Tensor]
    noise: Tensor
    lead: int
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    credit: Tensor = field(default_factory=lambda: torch.empty(0))
    weight: Tensor | None = None
    replicated: bool = False
    together: tuple[bool, ...] = ()
    context: tuple[Tensor, ...] = ()
    controls: nn.Module | None = None
    training: bool = False
    downstream: Callable[[Tensor], Tensor] = field(default=lambda values: _undeclared())

    def distribution(self, parameters: dict[str, Tensor]) -> torch.distributions.Distribution:
        """Return the node's distribution with other parameters in place of its own."""
        return self.law.distribution(parameters)

    def log_prob(self, parameters: dict[str, Tensor], value: Tensor) -> Tensor:
        """Return log p(value) [*lead], summed over the event."""
        return sum_event(self.law.log_prob(parameters, value), self.lead)

    def score(self, value: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return weight * dlog p(value) / d(parameter) for each parameter, element by element."""
        names = [name for name, leaf in self.parameters.items() if leaf.is_floating_point()]
        with torch.enable_grad():
            leaves = {
                name: leaf.detach().requires_grad_()
                for name, leaf in self.parameters.items()
                if name in names
            }
            log_prob = self.log_prob({**self.parameters, **leaves}, value.detach())
            gradients = torch.autograd.grad(log_prob, [leaves[name] for name in names], weight.detach())
        return dict(zip(names, gradients, strict=True))


def names_of(context: Any) -> tuple[str, ...]:
    """Return the names of the nodes that a context option gives: None, one or several, by name or handle."""
    if context is None:
        return ()
    several = context if isinstance(context, (list, tuple)) else (context,)
    return tuple(item if isinstance(item, str) else item.name for item in several)


def _undeclared() -> Tensor:
    raise EstimatorError("the graph below was asked for by an estimator whose needs_downstream is False")


class Estimator(ABC):
    """A gradient estimator for one stochastic node: a frozen dataclass whose fields are its options.

    The law: E[gradient | everything the node does not influence] is the derivative of the expected
    downstream cost in the node's distribution parameters.
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool] = True
    preference: ClassVar[int]
    """Where automatic choice tries this estimator: lower comes first, exact before low in variance."""
    limit: int = 4096
    """The most joint branches that a BRANCHES estimator allows."""

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Estimator:
        """Return the instance that automatic choice tries at a node."""
        return cls()

    @property
    @abstractmethod
    def action(self) -> Action:
        """How the node passes its value on."""

    @abstractmethod
    def refuses(self, facts: NodeFacts) -> str | None:
        """Return why the estimator would be wrong at a node, or None; a ``Remedy`` if it says what to do."""

    def controls(self, facts: NodeFacts) -> nn.Module | None:
        """Return a new module of what the estimator learns or remembers at a node, or None."""
        return None

    def evaluations(self, facts: NodeFacts) -> int:
        """Return how often the part of the graph below the node is evaluated, the sample included."""
        return 1

    @property
    def needs_site(self) -> bool:
        """Whether ``factor`` has to be asked, or the credit alone is the factor of the score."""
        return True

    @property
    def needs_downstream(self) -> bool:
        """Whether the estimator evaluates the graph below the node at values of its own."""
        return False

    @property
    def reads_context(self) -> tuple[str, ...] | None:
        """What the estimator's network reads: None nothing, () the node's parents, or names of nodes."""
        return None

    def value(self, site: Site) -> Tensor:
        """Return the value that a THROUGH estimator passes on, attached to the site's parameters."""
        return site.law.draw(site.parameters, site.noise)

    def factor(self, site: Site) -> Tensor | None:
        """Return the detached factor [*lead] of the score, if the estimate is one, else None."""
        return None

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate by distribution parameter, in the shape of ``site.parameters``."""
        factor = self.factor(site)
        assert factor is not None
        return site.score(site.value, factor)

    def objective(self, site: Site) -> Tensor | None:
        """Return the scalar that the controls descend, differentiable in them alone, or None."""
        return None
