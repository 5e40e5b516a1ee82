"""The four kinds of estimators, each with one method that makes the estimate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.site import Site

SEVERAL = '"score", "reparam" or "enumerate"'
"""What is right to every order."""


class Estimator(ABC):
    """A gradient estimator for one stochastic node: a frozen dataclass whose fields are its options.

    When compiling it is told the ``facts`` of a node, and in a run it is given the node's ``site``.
    It is of one of four kinds: ``Scored``, ``Cut``, ``Through`` or ``Branched``.
    """

    name: ClassVar[str]
    """The word for it in policies."""
    words: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Other words in policies, each for the instance with these options."""
    unbiased: ClassVar[bool] = True
    """Whether E[estimate | all that the node does not influence] is the gradient; an instance may differ."""
    biased_by: ClassVar[tuple[str, ...]] = ()
    """The options that make an instance biased, as they are written."""
    tried: ClassVar[int | None] = None
    """When automatic choice tries it: lower comes first, exact before low in variance; None is never."""

    @classmethod
    def automatic(cls, facts: NodeFacts) -> Estimator | Refusal:
        """Return the instance that automatic choice tries at a node, or why it leaves it to others."""
        return cls()

    @abstractmethod
    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Return why the estimator would be wrong at a node, or None."""

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Return why derivatives of the loss beyond the first would be wrong at a node, or None."""
        return Refusal("its estimate is a number, right to first order", f"use {SEVERAL}")

    def asks(self, facts: NodeFacts) -> Asks:
        """Return what the estimator will find at its sites."""
        return Asks()

    def learns(self, facts: NodeFacts) -> nn.Module | None:
        """Return a new module of what the estimator learns or remembers at a node, or None.

        Its attribute ``net``, where it has one, is the network that ``site.predict`` calls; the nodes to
        which one instance was given share it.
        """
        return None

    def remember(self, site: Site) -> None:  # noqa: B027 - most have nothing to remember
        """Take what was seen at a site into account for later runs, once the estimate is made."""


class Scored(Estimator):
    """The value passes on detached, and the surrogate is (credit - baseline) log p, at any order."""

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Refuse factors that are not the credit minus a baseline."""
        if type(self).factor is Scored.factor:
            return None
        return Refusal("its factor is more than the credit minus a baseline", f"use {SEVERAL}")

    @abstractmethod
    def baseline(self, site: Site) -> Tensor:
        """Return the baseline [*lead], which the value of an element does not influence."""

    def factor(self, site: Site) -> Tensor:
        """Return the factor [*lead] of the score, attached to what is learned."""
        return site.credit - self.baseline(site)

    def loss(self, site: Site) -> Tensor | None:
        """Return what is descended instead of the variance by what is learned, [*lead], or None."""
        return None


class Cut(Estimator):
    """The value passes on detached, and the estimate is given for every distribution parameter."""

    @abstractmethod
    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate by distribution parameter, in the shape of ``site.parameters``.

        E[estimate | all that the node does not influence] = dJ / d(parameter). It stays attached to what is
        learned, which descends sum weight |estimate|^2.
        """

    def loss(self, site: Site) -> Tensor | None:
        """Return what is descended instead of the variance by what is learned, [*lead], or None."""
        return None


class Through(Estimator):
    """The value passes on attached to the parameters."""

    def value(self, site: Site) -> Tensor:
        """Return the value, attached to ``site.parameters``, which here have their gradient.

        It is the draw of the law, unless the estimator passes on something else. What it learns is attached
        as well. ``remember`` is called with a site that has nothing but ``controls``.
        """
        return site.law.draw(site.parameters, site.noise)


class Branches(NamedTuple):
    """Outcomes [n, ...] of a node, and the attached probability of each, [*axes, n, *plates]."""

    outcomes: Tensor
    masses: Tensor


class Branched(Estimator):
    """Everything below is evaluated at several outcomes, each with its probability as an attached weight."""

    def refuses_order(self, facts: NodeFacts) -> Refusal | None:
        """Probabilities are attached: refuse nothing."""
        return None

    limit: int = 4096
    """The most joint branches, with those of other nodes that it meets."""

    @abstractmethod
    def branches(self, site: Site) -> Branches:
        """Return the outcomes and their probabilities, at attached ``site.parameters``.

        ``site.apart`` has the sizes of what is set one by one: the plates, 1 long where no cost joins their
        elements, then the event; the axes of the site are those that the parameters have besides.
        """


KINDS = {Scored: "baseline", Cut: "gradient", Through: "value", Branched: "branches"}
"""The method of each kind."""


def names_of(context: Any) -> tuple[str, ...]:
    """Return the names of the nodes that a context option gives: None, one or several, by name or handle."""
    if context is None:
        return ()
    several = context if isinstance(context, (list, tuple)) else (context,)
    wrong = next((item for item in several if not isinstance(item, str) and not hasattr(item, "name")), None)
    if wrong is not None:
        raise EstimatorError(f"context= takes nodes or their names, not {wrong!r}")
    return tuple(item if isinstance(item, str) else item.name for item in several)
