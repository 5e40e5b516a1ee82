"""A graph as mathematics: every assignment of what is finite, its probability and its costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from scg.algebra.arrays import Array, array, each, flat, symbols
from scg.algebra.believing import POINTS, agree
from scg.algebra.expectation import Base, mean
from scg.algebra.families import MAPS, MASSES
from scg.algebra.measure import Case, Extents, extents_of, mass_of
from scg.algebra.paths import LIMIT, Path, every
from scg.algebra.reading import read
from scg.algebra.tracing import Traced
from scg.errors import UnreadableError
from scg.nodes.ir import IR


@dataclass(frozen=True, eq=False)
class Variable:
    """One random variable: its family, the shape of its elements, and the outcomes of one, if finite.

    ``event`` is the shape of one outcome.
    """

    name: str
    family: str
    shape: tuple[int, ...]
    outcomes: tuple[tuple[sp.Expr, ...], ...]
    event: tuple[int, ...]
    example: Tensor

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where its elements are."""
        return list(itertools.product(*map(range, self.shape)))


@dataclass(frozen=True, eq=False)
class Situation:
    """One assignment of what is finite: its probability, and the sum of all costs, each with its weight."""

    mass: sp.Expr
    cost: sp.Expr
    bases: tuple[Base, ...]
    """What is random then."""
    valid: tuple[sp.Expr, ...]
    """What has to be positive for the parameters of distributions to be valid."""

    def mean(self) -> sp.Expr:
        """Return the mean of the cost, times the probability."""
        if self.mass.free_symbols & {base.symbol for base in self.bases}:
            return mean(self.mass * self.cost, self.bases)
        return self.mass * mean(self.cost, self.bases)


@dataclass(frozen=True, eq=False)
class Model:
    """A graph on fixed inputs, as mathematics in its ``parameters``, which are arrays of symbols."""

    ir: IR
    parameters: Mapping[str, Array]
    variables: tuple[Variable, ...]
    graph: Traced
    spec: pytree.TreeSpec
    weights: Mapping[str, Array]
    values: Mapping[str, Tensor]
    evaluated: Callable[..., Any]
    """What gives costs, and parameters of distributions, for values of parameters and of what is random."""

    def at(
        self, given: Mapping[str, Array], path: Path
    ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Return costs, and the parameters of distributions, where every random variable is given."""
        arrays = [*self.parameters.values(), *(given[variable.name] for variable in self.variables)]
        costs, parameters = pytree.tree_unflatten(read(self.graph, arrays, path), self.spec)
        return costs, parameters

    def situations(self, case: Case) -> Iterator[Situation]:
        """Yield every assignment of what is finite, where the parameters are in a case."""
        elements = self._elements()
        count = math.prod(len(variable.outcomes) for variable, _ in elements)
        if count > LIMIT:
            raise UnreadableError(
                f"the graph has {count} joint outcomes, more than {LIMIT}: make plates or nodes smaller"
            )
        for chosen in itertools.product(*(range(len(variable.outcomes)) for variable, _ in elements)):
            yield from self._situations(list(zip(elements, chosen, strict=True)), case)

    def _elements(self) -> list[tuple[Variable, tuple[int, ...]]]:
        return [
            (variable, place) for variable in self.variables if variable.outcomes for place in variable.places
        ]

    def _situations(self, chosen: list[tuple[Any, int]], case: Case) -> Iterator[Situation]:
        """Yield every way that costs can go where what is finite is assigned."""
        given, random = self._given(chosen)
        kinds = {symbol: MAPS[variable.family][0] for symbol, (variable, _) in random.items()}
        for path, (costs, parameters) in every(lambda p: self.at(given, p), Path(frozenset(random), case)):
            extents = extents_of(path, kinds, case)
            if extents is None:
                continue
            if any(path.noisy(bound) for bound in path.domain):
                raise UnreadableError("a guard against overflow acts on what is random")
            several = [parameters[variable.name] for variable in self.variables]
            mass = sp.Mul(*(self._mass(v, parameters[v.name], place, k) for (v, place), k in chosen))
            weights = self.weights.items()
            cost = sp.Add(*(e for name, own in weights for e in flat(weighted(costs[name], own))))
            bases = tuple(self._bases(random, parameters))
            share = self._share(path, extents, bases, (mass, cost))
            yield Situation(share * mass, cost, bases, tuple(_valid(several)))

    def _share(
        self, path: Path, extents: Extents, bases: tuple[Base, ...], rest: Sequence[sp.Expr]
    ) -> sp.Expr:
        """Return how probable it is that costs go a way, where nothing that decides it is in the rest."""
        kinds = {base.symbol: base.kind for base in bases}
        ends = [end for pair in extents.values() for end in pair]
        for symbol in extents:
            if kinds[symbol] not in ("normal", "uniform") or any(e.has(symbol) for e in (*rest, *ends)):
                raise UnreadableError(f"a cost compares {symbol}, which is {kinds[symbol]}, with something")
        if path.choices:
            raise UnreadableError("a cost chooses by what is random")
        return mass_of(path, extents, kinds)

    def _given(
        self, chosen: list[tuple[Any, int]]
    ) -> tuple[dict[str, Array], dict[sp.Symbol, tuple[Variable, Any]]]:
        """Return what every variable is given, and the symbols among it."""
        given: dict[str, Array] = {}
        random: dict[sp.Symbol, tuple[Variable, Any]] = {}
        for variable in self.variables:
            if not variable.outcomes:
                kind = MAPS[variable.family][0]
                signs = {"normal": {"real": True}, "poisson": {"integer": True, "nonnegative": True}}
                own = symbols(f"{variable.name}_", variable.shape, **signs.get(kind, {"positive": True}))
                random.update({own[place]: (variable, place) for place in variable.places})
                given[variable.name] = own
                continue
            entries = [e for (of, _), k in chosen if of is variable for e in variable.outcomes[k]]
            given[variable.name] = array((*variable.shape, *variable.event), entries)
        return given, random

    def _mass(
        self, variable: Variable, parameters: Mapping[str, Array], place: tuple[int, ...], k: int
    ) -> sp.Expr:
        if variable.family in MASSES:
            return MASSES[variable.family](parameters, place, k)
        return parameters["mass"][(k, *place)]

    def _bases(
        self, random: Mapping[sp.Symbol, tuple[Variable, Any]], parameters: Mapping[str, Any]
    ) -> Iterator[Base]:
        for symbol, (variable, place) in random.items():
            kind = MAPS[variable.family][0]
            rate = parameters[variable.name]["rate"][place] if kind == "poisson" else sp.Integer(1)
            yield Base(symbol, kind, rate)

    def believe(self) -> None:
        """Hold costs, and their gradient, against the graph itself, at some other parameters and values."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(POINTS):
            live = {
                name: value + 0.3 * torch.randn(value.shape, generator=generator).to(value)
                for name, value in self.values.items()
            }
            chosen = [
                (element, int(torch.randint(len(element[0].outcomes), (), generator=generator)))
                for element in self._elements()
            ]
            self._compare(live, chosen)

    def _compare(self, live: Mapping[str, Tensor], chosen: list[tuple[Any, int]]) -> None:
        given, random = self._given(chosen)
        at: dict[sp.Symbol, sp.Expr] = {s: sp.Rational(k % 3 + 1, 2) for k, s in enumerate(random)}
        drawn = {
            v.name: torch.tensor([float(e.xreplace(at)) for e in flat(given[v.name])])
            .to(v.example)
            .reshape(v.example.shape)
            for v in self.variables
        }
        for name, own in self.parameters.items():
            numbers = live[name].double().reshape(-1).tolist()
            at.update({s: sp.Float(v, 17) for s, v in zip(flat(own), numbers, strict=True)})
        single = any(value.dtype != torch.float64 for value in live.values())
        read_ = self._named(*self.at(given, Path(point=at)))
        leaves = {name: value.detach().clone().requires_grad_() for name, value in live.items()}
        with torch.enable_grad():
            computed = self._named(*self.evaluated(leaves, drawn))
        inside = [s for own in self.parameters.values() for s in flat(own)]
        for what, own in read_.items():
            total = sp.Add(*(place * entry for place, entry in enumerate(flat(own), 1)))
            several = [expr.xreplace(at) for expr in (total, *(sp.diff(total, s) for s in inside))]
            agree(what, several, _with_slopes(computed[what], list(leaves.values())), single)

    def _named(self, costs: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return costs, and parameters of distributions, by what errors call them."""
        found = {f"cost '{name}' ({self.ir[name].where})": value for name, value in costs.items()}
        for name, own in parameters.items():
            where = self.ir[name].where
            found.update({f"{key} of sample '{name}' ({where})": value for key, value in own.items()})
        return found

    def objective(self, case: Case) -> sp.Expr:
        """Return the mean of the costs in closed form, where the parameters are in a case."""
        return sp.Add(*(one.mean() for one in self.situations(case)))

    def valid(self, case: Case) -> list[sp.Expr]:
        """Return what has to be positive for the parameters of distributions to be valid, and need not be."""
        situations, path = list(self.situations(case)), Path(case=case)
        random = {base.symbol for one in situations for base in one.bases}
        bounds = dict.fromkeys(expr for one in situations for expr in one.valid)
        signs = {expr: path.known(expr) for expr in bounds if not expr.free_symbols & random}
        if wrong := [expr for expr, sign in signs.items() if sign is False]:
            raise UnreadableError(f"a parameter of a distribution is not valid: {wrong[0]} is not positive")
        return [expr for expr, sign in signs.items() if sign is None]


def _with_slopes(value: Tensor, leaves: list[Tensor]) -> list[float]:
    """Return the sum of entries, each times its place, and its derivatives, as torch has them."""
    entries = value.double().reshape(-1)
    total = (entries * torch.arange(1, len(entries) + 1)).sum()
    slopes = []
    if leaves:
        total = total + sum(0 * leaf.sum() for leaf in leaves)
        slopes = list(torch.autograd.grad(total, leaves, retain_graph=True))
    return [v for found in (total, *slopes) for v in found.detach().double().reshape(-1).tolist()]


def _valid(several: Sequence[Mapping[str, Array]]) -> Iterator[sp.Expr]:
    for parameters in several:
        for name, own in parameters.items():
            if name == "probs":
                yield from (bound for p in flat(own) for bound in (p, 1 - p))
            if name in ("scale", "rate"):
                yield from flat(own)
        if {"low", "high"} <= parameters.keys():
            yield from flat(each(lambda low, high: high - low, parameters["low"], parameters["high"]))


def weighted(value: Array, weights: Array) -> Array:
    """Return the elements of a cost, each times its weight."""
    return each(lambda a, b: a * b, value, weights)
