"""Elimination: the order in which variables are summed out of a product, and what meets on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from networkx.algorithms.approximation.treewidth import min_fill_in_heuristic

Scope = frozenset[str]


@dataclass(frozen=True, eq=False)
class Tree:
    """The cliques in which variables are summed out, one for each, joined to a forest.

    ``cliques[v]`` is v with all that it meets when it is summed out, and ``parents[v]`` the first of these to
    be summed out next, or None. ``ranks`` has the order. Lauritzen and Spiegelhalter (1988, "Local
    computations with probabilities on graphical structures").
    """

    cliques: Mapping[str, Scope]
    parents: Mapping[str, str | None]
    ranks: Mapping[str, int]

    def home(self, scope: Iterable[str]) -> str | None:
        """Return the clique in which several variables meet first, or None where they do not.

        >>> tree = eliminated([frozenset("ab"), frozenset("bc")])
        >>> sorted(tree.cliques[tree.home("bc")]), tree.home("ac")
        (['b', 'c'], None)
        """
        several = frozenset(scope)
        if not several <= self.ranks.keys():
            return None
        first = min(several, key=self.ranks.__getitem__)
        return first if several <= self.cliques[first] else None

    @cached_property
    def neighbours(self) -> dict[str, list[str]]:
        """The cliques that are joined to each."""
        found: dict[str, list[str]] = {name: [] for name in self.cliques}
        for name, parent in self.parents.items():
            if parent is not None:
                found[name].append(parent)
                found[parent].append(name)
        return found


def eliminated(scopes: Iterable[Scope]) -> Tree:
    """Return the tree of variables that have to meet as ``scopes`` say, few at a time.

    A variable whose neighbours all meet already is summed out first, then the one that makes the fewest
    pairs meet that did not (min-fill).
    """
    graph: dict[str, set[str]] = {}
    for scope in scopes:
        for name in sorted(scope):
            graph.setdefault(name, set()).update(scope - {name})
    cliques, waiting = dict[str, Scope](), dict.fromkeys(graph)
    while graph:
        name = _simplicial(graph, waiting) or min_fill_in_heuristic(graph) or min(graph)
        met = graph.pop(name)
        cliques[name] = frozenset(met) | {name}
        for one, other in combinations(met, 2):
            graph[one].add(other)
            graph[other].add(one)
        for one in sorted(met):
            graph[one].discard(name)
            waiting[one] = None
    ranks = {name: rank for rank, name in enumerate(cliques)}
    parents = {
        name: min(clique - {name}, key=ranks.__getitem__, default=None) for name, clique in cliques.items()
    }
    return Tree(cliques, parents, ranks)


def _simplicial(graph: Mapping[str, set[str]], waiting: dict[str, None]) -> str | None:
    """Return a variable all of whose neighbours meet, of those that ``waiting`` has, or None."""
    while waiting:
        name = next(iter(waiting))
        del waiting[name]
        if name in graph and all(graph[one] >= graph[name] - {one} for one in graph[name]):
            return name
    return None


def above(scopes: Mapping[str, Scope], start: Iterable[str]) -> Scope:
    """Return some variables and all on which their masses depend: ``scopes[v]`` has v and what it reads."""
    found, waiting = set[str](), list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += scopes[name]
    return frozenset(found)


@dataclass(frozen=True)
class Conditional:
    """What the probability of some variables is made of, given others.

    It is the product of the masses that are ``counted``, which depend on ``seen`` of what is given, summed
    over all else; over the same summed over all but ``seen``, unless it ``is_whole``: then that is 1.
    """

    counted: Scope
    seen: Scope
    is_whole: bool


def conditional(scopes: Mapping[str, Scope], axes: Scope, given: Scope) -> Conditional:
    """Return how variables depend on what is ``given``: only what is not separated from them counts.

    >>> chain = {"a": frozenset("a"), "b": frozenset("ab"), "c": frozenset("bc")}
    >>> after, before = (conditional(chain, frozenset(axis), frozenset("b")) for axis in "ca")
    >>> sorted(after.counted), after.is_whole, sorted(before.counted), before.is_whole
    (['c'], True, ['a', 'b'], False)
    """
    known = {name: scopes[name] for name in above(scopes, axes | given)}
    joined: dict[str, list[Scope]] = {}
    for scope in known.values():
        for name in scope:
            joined.setdefault(name, []).append(scope)
    inner, waiting = set[str](), list(axes)
    while waiting:
        name = waiting.pop()
        if name not in inner:
            inner.add(name)
            waiting += [other for scope in joined[name] for other in scope - given]
    counted = frozenset(name for name, scope in known.items() if scope & inner)
    seen = frozenset[str]().union(*(known[name] for name in counted)) & given
    return Conditional(counted, seen, counted <= inner)
