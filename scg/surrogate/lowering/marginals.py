"""Marginals: probabilities of the branches along some axes, all others summed out one after another."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from scg.analysis.elimination import Scope, Tree, above, conditional, eliminated
from scg.surrogate.lowering.plan import Labels
from scg.surrogate.lowering.worlds import World
from scg.surrogate.runtime.ops import passed_on


@dataclass(frozen=True)
class Factor:
    """A factor of a product: its value with its leading dimensions, and the axis whose mass it is.

    What sums have made is no mass any more, and has none.
    """

    value: fx.Node
    labels: Labels
    axis: str | None = None


class Marginals:
    """Sums of products of masses, by variable elimination; what several have in common is written once.

    ``masses[axis]`` is the probability of the outcomes along an axis, given those along others that it has
    as dimensions. Sums are written as messages between cliques, of which each is one and the same whatever
    it is wanted for (Shenoy and Shafer, 1990, "Axioms for probability and belief-function propagation").
    """

    def __init__(self, world: World, masses: Mapping[str, Factor]) -> None:
        """Write into the world with all branches; ``masses`` may grow until something is asked for."""
        self.world = world
        self.masses = masses
        self._products: dict[tuple[Scope, Scope], Factor | None] = {}
        self._messages: dict[Scope, _Messages] = {}

    @cached_property
    def scopes(self) -> dict[str, Scope]:
        """The axes of every mass, its own among them."""
        return {
            axis: frozenset(factor.labels).intersection(self.masses) for axis, factor in self.masses.items()
        }

    @cached_property
    def plates(self) -> dict[str, Scope]:
        """The plates of elements apart along which a mass or one above it differs: costs below have them."""
        found, facts = dict[str, Scope](), self.world.plan.facts
        for axis, scope in self.scopes.items():
            own = frozenset(facts.together(axis.removeprefix("#")))
            found[axis] = own.union(*(found[other] for other in scope - {axis}))
        return found

    @cached_property
    def tree(self) -> Tree:
        """The cliques in which the axes of every mass and of every cost meet."""
        world = self.world
        met = [frozenset(world.axes_of(cost)).intersection(self.masses) for cost in world.plan.ir.costs]
        return eliminated([*self.scopes.values(), *met])

    def _within(self, plates: Scope) -> _Messages:
        """Return the messages of the masses that have no elements apart along other plates.

        All others are below what they are asked for, and sum to 1, but have a value for each element.
        """
        if plates not in self._messages:
            counted = frozenset(axis for axis, own in self.plates.items() if own <= plates)
            self._messages[plates] = _Messages(self, self.tree, counted)
        return self._messages[plates]

    def of(self, axes: Iterable[str]) -> Factor | None:
        """Return the probability of the branches along several axes, or None along none of them."""
        several = frozenset(axes).intersection(self.masses)
        if not several:
            return None
        if self.tree.home(several) is not None:
            plates = frozenset[str]().union(*(self.plates[axis] for axis in several))
            return self._product(self._within(plates), several)
        return self._contracted(above(self.scopes, several), several)

    def given(self, axes: Scope, lead: Scope) -> tuple[Factor, Factor | None]:
        """Return the probability of the branches along ``axes``, given those along others of a ``lead``.

        It is a quotient, whose second part is None where that is 1. Only masses count that are not
        separated from ``axes`` by the lead.
        """
        known = conditional(self.scopes, axes, lead.intersection(self.masses))
        joint = self._contracted(known.counted, axes | known.seen)
        assert joint is not None
        return joint, None if known.is_whole else self._contracted(known.counted, known.seen)

    def _contracted(self, counted: Scope, axes: Scope) -> Factor | None:
        """Return the sum of the product of some masses over all but ``axes``, which had no clique so far."""
        if (counted, axes) not in self._products:
            tree = eliminated([*(self.scopes[axis] for axis in sorted(counted)), axes])
            self._products[counted, axes] = self._product(_Messages(self, tree, counted), axes)
        return self._products[counted, axes]

    def _product(self, messages: _Messages, axes: Scope) -> Factor | None:
        key = (messages.counted, axes)
        if key not in self._products:
            factors = messages.at(axes)
            self._products[key] = self.times(factors, "joint") if factors else None
        return self._products[key]

    def summed(self, factors: Iterable[Factor], axis: str) -> list[Factor]:
        """Return factors of which those that have an axis became one that does not, or none if that is 1."""
        met, others = list[Factor](), list[Factor]()
        for factor in factors:
            (met if axis in factor.labels else others).append(factor)
        if not met or [factor.axis for factor in met] == [axis]:
            return others
        name, emitter = axis.removeprefix("#"), self.world.emitter
        mass, step = min(met, key=_rank), max(met, key=_rank)
        if len(met) == 2 and mass.labels == (axis,) and step.labels[0] == axis and _rank(step) == 2:
            shown = emitter.shown("passed_on", None, passed_on)
            line = emitter.call(shown, mass.value, step.value, name=f"over_{name}")
            return [*others, Factor(line, step.labels[1:])]
        product = self.times(met, f"{name}_joint")
        value = self.world.emitter.method(
            "sum", product.value, product.labels.index(axis), name=f"over_{name}"
        )
        return [*others, Factor(value, tuple(label for label in product.labels if label != axis))]

    def times(self, factors: list[Factor], name: str) -> Factor:
        """Return the product of factors, in the order of their first dimensions."""
        product, *rest = factors
        for factor in rest:
            labels = merged(self.world, product.labels, factor.labels)
            one = self.world.aligned(product.value, product.labels, labels)
            other = self.world.aligned(factor.value, factor.labels, labels)
            product = Factor(self.world.emitter.call(operator.mul, one, other, name=name), labels)
        return product


class _Messages:
    """What cliques of a tree tell their neighbours: products of the masses beyond, as factors."""

    def __init__(self, marginals: Marginals, tree: Tree, counted: Scope) -> None:
        """Put each of the masses that are ``counted`` into the clique in which all that it has meet first."""
        self.marginals = marginals
        self.tree = tree
        self.counted = counted
        self._own: dict[str, list[Factor]] = {}
        for axis in marginals.world.plan.ordered(counted):
            home = tree.home(marginals.scopes[axis])
            assert home is not None
            self._own.setdefault(home, []).append(marginals.masses[axis])
        self._told: dict[tuple[str, str], list[Factor]] = {}

    def at(self, axes: Scope) -> list[Factor]:
        """Return the factors whose product is the sum over all but ``axes``, which meet in a clique."""
        home = self.tree.home(axes)
        assert home is not None
        self._tell(home)
        return self._left(home, None, axes)

    def _tell(self, home: str) -> None:
        """Make every message on the way to a clique, those from farthest away first."""
        waiting: list[tuple[str, str]] = [(other, home) for other in self.tree.neighbours[home]]
        order = list[tuple[str, str]]()
        while waiting:
            edge = waiting.pop()
            if edge not in self._told:
                order.append(edge)
                waiting += [(other, edge[0]) for other in self.tree.neighbours[edge[0]] if other != edge[1]]
        for source, target in reversed(order):
            common = self.tree.cliques[source] & self.tree.cliques[target]
            self._told[source, target] = self._left(source, target, common)

    def _left(self, clique: str, target: str | None, axes: Scope) -> list[Factor]:
        """Return what is left in a clique of what it has, and was told by all but one, with only ``axes``."""
        factors = list(self._own.get(clique, ()))
        for other in self.tree.neighbours[clique]:
            if other != target:
                factors += self._told[other, clique]
        hidden = self.tree.cliques[clique] - axes
        while True:
            barren = next((a for a in hidden if [f.axis for f in factors if a in f.labels] == [a]), None)
            if barren is None:
                break
            factors, hidden = self.marginals.summed(factors, barren), hidden - {barren}
        for axis in sorted(hidden, key=self.tree.ranks.__getitem__):
            factors = self.marginals.summed(factors, axis)
        return factors


def _rank(factor: Factor) -> int:
    return len(factor.labels)


def merged(world: World, one: Labels, other: Labels) -> Labels:
    """Return the union of two sets of leading dimensions, in order."""
    if one == other:
        return one
    both = {*one, *other}
    return world.plan.ordered(both) + tuple(plate for plate in world.plan.ir.plates if plate in both)
