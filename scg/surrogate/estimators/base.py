"""The contract between the compiler and an estimator: what it is told when chosen, and what it owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.laws import Law
from scg.surrogate.estimators.site import Site


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


@dataclass(frozen=True)
class Slice:
    """What lies below a node at relaxed values of it.

    ``smooth`` names the costs that are smooth there, and ``obstacles`` says what stops each of the others.
    ``draws`` are the stochastic nodes on the way.
    """

    smooth: tuple[str, ...]
    obstacles: Mapping[str, str]
    draws: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NodeFacts:
    """What is known of a stochastic node at compile time; an estimator decides on nothing else.

    ``event`` is the shape of a value without plates, ``elements`` the number of atomic events that are
    set one by one (those of the event, times those of plates that some cost does not keep),
    ``outcomes`` the size of one atomic support or None, ``samples`` the replicates or None.
    ``moving`` names a parameter on which the support depends. ``obstacle()`` describes the first path
    to a cost that is not known to be smooth, or is None; it is asked only when it matters, like
    ``slice()``, what is smooth at relaxed values, which is asked for relaxable laws only, and
    ``is_short(limit)``, whether at most that many nodes lie below.
    ``has_mode`` tells whether the law knows its most likely value. ``dtype`` is that of the parameters,
    and ``shape(name)`` the shape of another node's value without plates; ``parents`` are those of the node,
    ``plates`` the sizes of its plates in the examples.
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
    slice: Callable[[], Slice] = lambda: Slice((), {})
    is_short: Callable[[int], bool] = lambda limit: True
    parents: tuple[str, ...] = ()
    plates: tuple[int, ...] = ()
    shape: Callable[[str], tuple[int, ...] | None] = lambda name: ()

    @property
    def branches(self) -> int | None:
        """The number of joint outcomes, or None where the support is not finite."""
        return None if self.outcomes is None else self.outcomes**self.elements


def names_of(context: Any) -> tuple[str, ...]:
    """Return the names of the nodes that a context option gives: None, one or several, by name or handle."""
    if context is None:
        return ()
    several = context if isinstance(context, (list, tuple)) else (context,)
    wrong = next((item for item in several if not isinstance(item, str) and not hasattr(item, "name")), None)
    if wrong is not None:
        raise EstimatorError(f"context= takes nodes or their names, not {wrong!r}")
    return tuple(item if isinstance(item, str) else item.name for item in several)


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
    noises: ClassVar[int] = 0
    """How many tensors of fresh base noise ``gradient`` asks the site for."""
    perturbs: ClassVar[bool] = False
    """Whether it goes back to what a relaxable value is the step of: ``site.noise`` is standardised then."""

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Estimator:
        """Return the instance that automatic choice tries at a node."""
        return cls()

    @classmethod
    def passed_over(cls, facts: NodeFacts) -> str | None:
        """Return why automatic choice would not try this estimator at a node, though it may be right."""
        return None

    @property
    @abstractmethod
    def action(self) -> Action:
        """How the node passes its value on."""

    @abstractmethod
    def refuses(self, facts: NodeFacts) -> str | None:
        """Return why the estimator would be wrong at a node, or None; a ``Remedy`` if it says what to do."""

    def controls(self, facts: NodeFacts) -> nn.Module | None:
        """Return a new module of what the estimator learns or remembers at a node, or None.

        Its attribute ``net``, where it has one, is the network that ``site.predict`` calls; the nodes to
        which one instance was given share it.
        """
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

    def relaxes(self, facts: NodeFacts) -> bool:
        """Whether the estimator evaluates the costs below the node at relaxed values."""
        return False

    @property
    def reads_points(self) -> bool:
        """Whether the estimator's network reads values of the node, before the hard step if there is one."""
        return False

    @property
    def reads_context(self) -> tuple[str, ...] | None:
        """What the estimator's network reads besides values of the node.

        None is nothing, () the node's parents, else names of nodes.
        """
        return None

    def value(self, site: Site) -> Tensor:
        """Return the value that a THROUGH estimator passes on, attached to the site's parameters."""
        return site.law.draw(site.parameters, site.noise)

    def factor(self, site: Site) -> Tensor | None:
        """Return the factor [*lead] of the score, attached to the controls, if the estimate is one."""
        return None

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate by distribution parameter, in the shape of ``site.parameters``.

        It stays attached to the controls, which descend sum weight |estimate|^2.
        """
        factor = self.factor(site)
        if factor is None:
            raise NotImplementedError(f"{type(self).__name__} gives neither factor nor gradient: define one")
        return site.score(site.value, factor)

    def remember(self, site: Site) -> None:  # noqa: B027 - most have nothing to remember
        """Take what was seen at a site into account for later runs, once the estimate is made."""

    @property
    def gives_factor(self) -> bool:
        """Whether the estimate is a factor of the score."""
        return type(self).factor is not Estimator.factor
