"""Quadrature: the mean gradient of a program at some parameters, by running it at points of its noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import flat
from scg.algebra.paths import Choice, Cut, Path, every
from scg.errors import UnreadableError
from scg.oracle.outcomes import gauss_hermite
from scg.proving.emitted import POISSON, Emitted, Reading

BUDGET = 60_000
"""The most runs for one way through a program, at one order."""
MOST = 40
"""The highest order of a rule."""
CHUNK = 8192
TORCH = {name: getattr(torch, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "erf")}
"""What expressions of tensors are evaluated by."""
ADDITIVE = 1e-9
"""How much of the gradient two noises may move jointly and still count as moving it apart."""


@dataclass(frozen=True, eq=False)
class Region:
    """Where noise goes one way through a program: what maps the unit cube, and normal noise, onto it."""

    path: Path
    order: tuple[sp.Symbol, ...]
    kinds: Mapping[sp.Symbol, str]
    point: Mapping[sp.Symbol, float]

    def noise(self, unit: dict[sp.Symbol, Tensor]) -> tuple[dict[sp.Symbol, Tensor], Tensor]:
        """Return noise, and the density of it, at coordinates [n] of every noise."""
        found: dict[sp.Symbol, Tensor] = {}
        density = torch.ones(len(next(iter(unit.values()))), dtype=torch.float64)
        for made in self.path.choices:
            density = density * self._chosen(made, unit, found)
        for symbol in self.order:
            if symbol in found:
                continue
            if self.coordinate(symbol) == "normal":
                found[symbol] = unit[symbol]
                continue
            is_normal = self.kinds[symbol] == "normal"
            low, high = (
                self._bound(bounds.get(symbol, []), found, end, join, len(density), is_normal)
                for bounds, end, join in (
                    (self.path.lower, 0.0, torch.maximum),
                    (self.path.upper, 1.0, torch.minimum),
                )
            )
            width = (high - low).clamp(min=0.0)
            share = (low + width * unit[symbol]).clamp(1e-300, 1 - 2**-53)
            found[symbol] = torch.special.ndtri(share) if is_normal else share
            density = density * width
        return found, density

    def coordinate(self, symbol: sp.Symbol) -> str:
        """Return the kind of the coordinate that noise has: normal noise that is cut has a uniform one."""
        is_cut = symbol in self.path.lower or symbol in self.path.upper
        return "uniform" if is_cut else self.kinds[symbol]

    def _bound(
        self,
        cuts: list[Cut],
        found: Mapping[sp.Symbol, Tensor],
        start: float,
        join: Callable[[Tensor, Tensor], Tensor],
        count: int,
        is_normal: bool,
    ) -> Tensor:
        bound = torch.full((count,), start, dtype=torch.float64)
        for cut in cuts:
            at = self._value(cut.at, found, count)
            bound = join(bound, torch.special.ndtr(at) if is_normal else at)
        return bound

    def _value(self, expr: sp.Expr, found: Mapping[sp.Symbol, Tensor], count: int) -> Tensor:
        """Evaluate what noise is compared with, which may depend on other noise."""
        expr = sp.N(expr.xreplace(dict(self.point)), 17)
        names = sorted(expr.free_symbols, key=str)
        if missing := [name for name in names if name not in found]:
            raise UnreadableError(f"where noise is cut depends on {missing[0]}, which comes after it")
        value = sp.lambdify(names, expr, [TORCH, "math"])(*(found[name] for name in names))
        return torch.as_tensor(value, dtype=torch.float64).expand(count)

    def _chosen(
        self, made: Choice, unit: Mapping[sp.Symbol, Tensor], found: dict[sp.Symbol, Tensor]
    ) -> Tensor:
        """Map the unit cube onto the noise of one choice: the least waiting time, and what others add."""
        first = unit[made.noise[made.index]]
        shares = torch.softmax(torch.stack([self._value(e, found, len(first)) for e in made.logits]), 0)
        for place, symbol in enumerate(made.noise):
            own = first ** shares[place]
            found[symbol] = (own if place == made.index else own * unit[symbol]).clamp(1e-300, 1 - 2**-53)
        return shares[made.index]


def regions(reading: Reading, live: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[Region]:
    """Return every way that a program goes at some parameters."""
    point = {
        symbol: value
        for arrays, tensors in ((reading.live, live), (reading.state, state))
        for name, array in arrays.items()
        for symbol, value in zip(flat(array), tensors[name].double().reshape(-1).tolist(), strict=True)
    }
    order = tuple(symbol for array in reading.noise.values() for symbol in flat(array))
    start = Path(frozenset(order), point={s: sp.Float(v, 17) for s, v in point.items()})
    found = []
    for path, _ in every(reading.on, start):
        depends = {s: _dependence(path, s) for s in order}
        found.append(Region(path, _sorted(order, depends), reading.kinds, start.point or {}))
    return found


def _dependence(path: Path, symbol: sp.Symbol) -> set[sp.Symbol]:
    cuts = [*path.lower.get(symbol, []), *path.upper.get(symbol, [])]
    return set().union(*(path.noisy(cut.at) for cut in cuts))


def _sorted(
    order: tuple[sp.Symbol, ...], depends: Mapping[sp.Symbol, set[sp.Symbol]]
) -> tuple[sp.Symbol, ...]:
    done: list[sp.Symbol] = []
    while len(done) < len(order):
        ready = [s for s in order if s not in done and depends[s] <= set(done)]
        if not ready:
            raise UnreadableError("noises are compared with each other in a circle")
        done += ready
    return tuple(done)


@dataclass(frozen=True, eq=False)
class Integrand:
    """The gradient of a program, times the density of its noise, on one region."""

    what: Emitted
    reading: Reading
    region: Region
    live: Mapping[str, Tensor]
    state: Mapping[str, Tensor]

    def __call__(self, unit: dict[sp.Symbol, Tensor]) -> Tensor:
        """Return it [n, entries] at coordinates of the noise."""
        count = len(next(iter(unit.values())))
        parts = []
        for start in range(0, count, CHUNK):
            noise, density = self.region.noise({s: v[start : start + CHUNK] for s, v in unit.items()})
            size = len(density)
            given = {
                name: torch.stack([noise[s] for s in flat(array)], -1)
                .reshape(size, *array.shape[1:])
                .to(self.what.noise[name].dtype)
                for name, array in self.reading.noise.items()
            }
            gradient = self.what.gradient(self.live, self.state, given)
            rows = torch.cat([gradient[name].reshape(size, -1) for name in self.live], 1).double()
            parts.append(torch.where(density[:, None] > 0, density[:, None] * rows, 0.0))
        return torch.cat(parts)

    def groups(self, generator: torch.Generator) -> list[list[sp.Symbol]]:
        """Return the noises in groups, each of which adds to the gradient by itself."""
        order = list(self.region.order)
        pairs = list(itertools.combinations(order, 2))
        close = ADDITIVE if all(v.dtype == torch.float64 for v in self.live.values()) else 1e-4
        edges = {s: {s} for s in order}
        one, other = (self._random(generator) for _ in range(2))
        size = float(self(one).abs().max()) + 1e-30
        for a, b in pairs:
            mixed = [{**one, **{s: other[s] for s in moved}} for moved in ((), (a,), (b,), (a, b))]
            f = [self(at) for at in mixed]
            if float((f[0] - f[1] - f[2] + f[3]).abs().max()) > close * size:
                edges[a].add(b)
                edges[b].add(a)
        return _components(edges)

    def _random(self, generator: torch.Generator) -> dict[sp.Symbol, Tensor]:
        return {
            s: torch.randn(6, generator=generator, dtype=torch.float64)
            if self.region.coordinate(s) == "normal"
            else torch.rand(6, generator=generator, dtype=torch.float64)
            for s in self.region.order
        }

    def integral(self, groups: list[list[sp.Symbol]], coarse: bool) -> Tensor:
        """Return the integral over the region, group by group about one anchor."""
        kinds = {s: self.region.coordinate(s) for s in self.region.order}
        anchor = {s: 0.3 if kind == "normal" else 0.4 for s, kind in kinds.items()}
        at = self({s: torch.tensor([v], dtype=torch.float64) for s, v in anchor.items()})[0]
        total = -(len(groups) - 1) * at
        for group in groups:
            unit, weights = _grid(group, kinds, coarse)
            rest = {s: torch.full_like(weights, v) for s, v in anchor.items()}
            total = total + (weights[:, None] * self({**rest, **unit})).sum(0)
        return total


def _components(edges: Mapping[sp.Symbol, set[sp.Symbol]]) -> list[list[sp.Symbol]]:
    found: list[list[sp.Symbol]] = []
    left = list(edges)
    while left:
        group, waiting = [], [left[0]]
        while waiting:
            one = waiting.pop()
            if one in left:
                left.remove(one)
                group.append(one)
                waiting += edges[one]
        found.append(group)
    return found


def _grid(
    group: list[sp.Symbol], kinds: Mapping[sp.Symbol, str], coarse: bool
) -> tuple[dict[sp.Symbol, Tensor], Tensor]:
    """Return the points of a product rule for some noises, and their weights."""
    order = min(MOST, int(BUDGET ** (1 / len(group))))
    if order < 6:
        raise UnreadableError(f"{len(group)} noises act together, too many to integrate over")
    order = order * 3 // 4 if coarse else order
    rules = [_rule(kinds[s], order) for s in group]
    grids = [torch.meshgrid(*(rule[part] for rule in rules), indexing="ij") for part in (0, 1)]
    unit = {s: points.reshape(-1) for s, points in zip(group, grids[0], strict=True)}
    return unit, torch.stack([weights.reshape(-1) for weights in grids[1]]).prod(0)


def _rule(kind: str, order: int) -> tuple[Tensor, Tensor]:
    """Gauss and Hermite's rule, or that of Gauss and Legendre on (0, 1), with points drawn to the ends."""
    if kind == "normal":
        return gauss_hermite(order)
    t, weights = gauss_legendre(order)
    return t * t * (3 - 2 * t), weights * 6 * t * (1 - t)


@cache
def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Nodes on (0, 1), and weights, as eigenvalues and first entries of eigenvectors of the recurrence.

    Golub and Welsch (1969, doi:10.1090/S0025-5718-69-99647-1).

    >>> nodes, weights = gauss_legendre(4)
    >>> round(float((weights * nodes**6).sum()), 12)
    0.142857142857
    """
    k = torch.arange(1, order, dtype=torch.float64)
    side = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return (nodes + 1) / 2, vectors[0] ** 2


def integrated(
    what: Emitted, reading: Reading, live: Mapping[str, Tensor], state: Mapping[str, Tensor], seed: int
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient [entries] at some parameters, by a coarse rule and by a fine one."""
    if POISSON in what.kinds.values():
        raise UnreadableError("it takes values of Poisson variables, and knows no rule for them")
    generator = torch.Generator().manual_seed(seed)
    coarse = fine = torch.zeros(sum(v.numel() for v in live.values()), dtype=torch.float64)
    for one in _integrands(what, reading, live, state):
        groups = one.groups(generator)
        coarse = coarse + one.integral(groups, coarse=True)
        fine = fine + one.integral(groups, coarse=False)
    return coarse, fine


def _integrands(
    what: Emitted, reading: Reading, live: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Iterator[Integrand]:
    for region in regions(reading, live, state):
        yield Integrand(what, reading, region, live, state)
