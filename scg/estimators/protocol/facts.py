"""Facts of a node: what an estimator is told when it is chosen, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from scg.laws import Law

REPLICATES = "replicates"
"""The name of the axis of replicates."""
ANTITHETIC = "antithetic"
"""What replicates are that come in pairs, of which one has the noise of the other turned over."""


@dataclass(frozen=True)
class Refusal:
    """The ``reason`` why an estimator would be wrong at a node, and what to write ``instead``, if it knows.

    >>> str(Refusal("it compares replicates", "compile with samples=2 or more"))
    'it compares replicates: compile with samples=2 or more'
    """

    reason: str
    instead: str | None = None

    def __str__(self) -> str:
        """The reason, with the remedy if there is one."""
        return self.reason if self.instead is None else f"{self.reason}: {self.instead}"


class Axis(NamedTuple):
    """A leading dimension of what is said of a node: replicates, branches of a node above, or a plate.

    The objective averages over it if ``is_mean``, else it adds; ``discount`` is the rate of an ``ordered``
    plate. It is ``joined`` if some cost reads several of its elements. The noise of a node is ``coupled``,
    "antithetic" or "sobol", where replicates do not draw it each on its own: of antithetic ones each has its
    partner half of the axis away.
    """

    name: str
    size: int
    is_mean: bool = True
    discount: float = 1.0
    joined: bool = False
    ordered: bool = False
    coupled: str | None = None

    @property
    def others(self) -> int:
        """How many other elements have noise that is independent of that of each.

        >>> Axis("replicates", 6).others, Axis("replicates", 6, coupled="antithetic").others
        (5, 4)
        """
        if self.coupled is None:
            return self.size - 1
        return self.size - 2 if self.coupled == ANTITHETIC else 0


@dataclass(frozen=True)
class Bound:
    """A cost that a node reaches, -log mean exp(-terms) over an axis of the node, its plate ``over``.

    ``apart`` tells that an element of the node along it reaches its own term alone. The bound has no other
    plates ``besides`` those of the node, which has some that it ``lost``, ``over`` among them.
    """

    cost: str
    terms: str
    over: str
    apart: bool
    besides: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """What lies below a node at relaxed values of it.

    ``smooth`` names the costs that are smooth there, and ``obstacles`` says what stops each of the others.
    ``draws`` are the stochastic nodes on the way, of which some are ``relaxed`` as well.
    """

    smooth: tuple[str, ...]
    obstacles: Mapping[str, str]
    draws: tuple[str, ...] = ()
    relaxed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NodeFacts:
    """What is known of a stochastic node at compile time; an estimator decides on nothing else.

    ``event`` is the shape of a value without plates, ``elements`` the number of atomic events that are
    set one by one (those of the event, times those of plates that some cost does not keep),
    ``outcomes`` the size of one atomic support or None. ``axes`` are replicates, if there are any, and the
    node's plates. ``reaches_cost`` tells whether it influences some cost, and ``moving`` names a parameter
    on which the support depends. ``obstacle()`` describes the first path to a cost that is not known to be
    smooth, or is None; it is asked only when it matters, like ``slice()``, what is smooth at relaxed values,
    which is asked for relaxable laws only, and ``is_short(limit)``, whether at most that many nodes lie
    below. ``has_mode`` tells whether the law knows its most likely value, ``is_given`` whether the value
    was drawn elsewhere, and ``is_followed`` whether that of a node below was; ``has_behaviour`` whether it is
    known how likely it was there, and ``is_weighed`` whether ratios of it, or of other nodes, weigh the costs
    that it reaches, and ``bounds`` those over its plates that it reaches; ``added()`` tells how often each
    cost, or the terms of a bound, adds its log-probability, or what does not add it. ``dtype`` is that of
    the parameters, and ``shape(name)`` the shape of another node's value without plates; ``parents`` are
    those that its law reads. ``learned()`` are the parameters that may need a gradient, as far as the graph
    tells, or None where nothing tells it. ``drawn_below()`` names the stochastic nodes through which it
    reaches costs. ``alone(relaxed)`` is a plate of which some elements can be evaluated without the rest, at
    relaxed values below it if asked, or why there is none.
    """

    name: str
    law: Law
    event: tuple[int, ...]
    elements: int
    outcomes: int | None
    axes: tuple[Axis, ...]
    moving: str | None
    obstacle: Callable[[], str | None]
    reaches_cost: bool
    has_mode: bool = True
    dtype: torch.dtype = torch.float32
    slice: Callable[[], Slice] = lambda: Slice((), {})
    is_short: Callable[[int], bool] = lambda limit: True
    parents: tuple[str, ...] = ()
    is_given: bool = False
    is_followed: bool = False
    has_behaviour: bool = False
    is_weighed: bool = False
    bounds: tuple[Bound, ...] = ()
    added: Callable[[], Mapping[str, float] | str] = dict
    shape: Callable[[str], tuple[int, ...] | None] = lambda name: ()
    learned: Callable[[], frozenset[str] | None] = lambda: None
    drawn_below: Callable[[], tuple[str, ...]] = tuple
    alone: Callable[[bool], str | Refusal] = lambda relaxed: Refusal("nothing is known of its plates")

    @property
    def branches(self) -> int | None:
        """The number of joint outcomes, or None where the support is not finite."""
        return None if self.outcomes is None else self.outcomes**self.elements

    def may_learn(self, parameter: str) -> bool:
        """Whether a parameter of the law may need a gradient."""
        known = self.learned()
        return parameter in (self.law.parameters if known is None else known)

    @property
    def samples(self) -> int | None:
        """The number of replicates, or None without them."""
        return next((axis.size for axis in self.axes if axis.name == REPLICATES), None)

    @property
    def others(self) -> int:
        """How many other replicates each can be compared with."""
        return next((axis.others for axis in self.axes if axis.name == REPLICATES), 0)

    @property
    def coupled(self) -> str | None:
        """How the noise of the node is coupled across replicates, or None."""
        return next((axis.coupled for axis in self.axes if axis.name == REPLICATES), None)

    def axis(self, name: str | None) -> Axis | None:
        """Return the plate called ``name``, or None without a name."""
        return next((axis for axis in self.axes if axis.name == name and name != REPLICATES), None)

    def lacks(self, name: str | None) -> Refusal | None:
        """Refuse the ``name`` of a plate that the node does not have."""
        if name is None or self.axis(name) is not None:
            return None
        there = ", ".join(axis.name for axis in self.axes if axis.name != REPLICATES) or "none"
        return Refusal(f"it has no plate '{name}'", f"give one that it has as each=: {there}")

    @property
    def plates(self) -> tuple[int, ...]:
        """The sizes of the node's plates in the examples."""
        return tuple(axis.size for axis in self.axes if axis.name != REPLICATES)
