"""What laws have to satisfy, shown for the code of each: draws, densities, and z~ given a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import Array, array, constant, each, flat, symbols
from scg.algebra.families import LOGS, MAPS, MASSES, outcomes
from scg.algebra.measure import extents_of, mass_of
from scg.algebra.paths import Path, UndecidedError, every
from scg.algebra.reading import read
from scg.algebra.tracing import traced
from scg.algebra.zero import differs, is_zero
from scg.errors import UnreadableError
from scg.laws import Law
from scg.laws.relaxable import Relaxable
from scg.proving.proof import STRENGTH, Standing, Step

MOST = 4
"""Outcomes up to which the joint law of a categorical variable is shown."""


@dataclass(frozen=True, eq=False)
class Lone:
    """One element of a law: its parameters as tensors and as symbols, and symbols of its noise."""

    law: Law
    parameters: dict[str, Tensor]
    symbols: dict[str, Array]
    noise: Array
    fresh: Array

    def read(self, fn: object, *arguments: tuple[Tensor, Array], path: Path | None = None) -> list[Array]:
        """Trace a function of the parameters and arguments, and read it on a path."""
        tensors, arrays = [a for a, _ in arguments], [b for _, b in arguments]
        graph = traced(fn, self.parameters, *tensors, what=f"the law {self.law.family}")  # type: ignore[arg-type]
        return read(graph, [*self.symbols.values(), *arrays], path or Path(case=self.case))

    @property
    def case(self) -> dict[sp.Expr, bool]:
        """What holds of valid parameters."""
        return {1 - p: True for p in flat(self.symbols.get("probs", array((0,), [])))}


def lone(law: Law, parameters: Mapping[str, Tensor], count: int | None = None) -> Lone:
    """Return one element of a law, with ``count`` outcomes where it is categorical."""
    own, signs = {}, {}
    for name, value in parameters.items():
        rank = law.event_rank(name)
        one = value.detach().double().reshape(-1, *value.shape[value.dim() - rank :])[0]
        own[name] = one if not count or not rank else torch.linspace(0.2, 0.5, count, dtype=torch.float64)
        signs[name] = symbols(name, tuple(own[name].shape), **_sign(name))
    shape = tuple(law.noise_shape(own, torch.Size()))
    kind = {"real": True} if MAPS.get(law.family, ("",))[0] == "normal" else {"positive": True}
    return Lone(law, own, signs, symbols("u", shape, **kind), symbols("v", shape, positive=True))


def _sign(name: str) -> dict[str, bool]:
    return {"positive": True} if name in ("scale", "rate", "probs") else {"real": True}


def drawn(one: Lone) -> list[Step]:
    """Show that a finite law draws every outcome with its probability, and that its density is that."""
    law = one.law
    example = torch.full(one.noise.shape, 0.3, dtype=torch.float64)
    graph = traced(law.draw, one.parameters, example, what=f"the law {law.family}")
    values = outcomes(law.support(one.parameters))
    totals, noise = [sp.Integer(0)] * len(values), frozenset(flat(one.noise))
    for path, (value,) in every(
        lambda p: read(graph, [*one.symbols.values(), one.noise], p), Path(noise, one.case)
    ):
        place = values.index(tuple(flat(value)))
        kinds = dict.fromkeys(noise, "uniform")
        extents = extents_of(path, kinds, one.case)
        totals[place] += 0 if extents is None else mass_of(path, extents, kinds)
    masses = [MASSES[law.family](one.symbols, (), k) for k in range(len(values))]
    gaps = [total - mass for total, mass in zip(totals, masses, strict=True)]
    logs = []
    for support in law.support(one.parameters):
        given = support.double() if law.value_rank else support
        logs += [log.item() for log in one.read(lambda p, v: law.log_prob(p, v), (given, constant(given)))]
    several = [s for array in one.symbols.values() for s in flat(array)]
    slopes = [
        sp.diff(form - sp.log(mass), s)
        for log, mass in zip(logs, masses, strict=True)
        for form in _forms(log)
        for s in several
    ]
    return [
        Step(
            "every outcome is drawn with its probability",
            _standing(*gaps),
            "where noise is cut, and the extent of it",
        ),
        Step("log p has the derivative of its logarithm", _standing(*slopes), "algebra"),
    ]


def _forms(log: sp.Expr) -> list[sp.Expr]:
    """Return an expression with every greater of two as either."""
    return [log.replace(sp.Max, lambda *several, end=end: several[end]) for end in (0, -1)]


def transported(one: Lone) -> list[Step]:
    """Show that a continuous law draws what its definition says, by a differentiable map."""
    law, (kind, fn) = one.law, MAPS[one.law.family]
    example = torch.full(one.noise.shape, 0.3, dtype=torch.float64)
    (own,) = one.read(lambda p, u: law.draw(p, u), (example, one.noise))
    base = one.noise if kind in ("normal", "uniform") else each(lambda u: -sp.log(u), one.noise)
    (defined,) = one.read(lambda p, e: fn(p, e), (example, base))
    turned = {u: -u if kind == "normal" else 1 - u for u in flat(one.noise)}
    mirrored = each(lambda e: e.subs(turned, simultaneous=True), defined)
    forms = [
        _standing(*(a - b for a, b in zip(flat(own), flat(form), strict=True)))
        for form in (defined, mirrored)
    ]
    claim = "a draw is the transport of its noise that defines the law"
    steps = [Step(claim, max(forms, key=STRENGTH.index), "algebra")]
    z = symbols("z", own.shape, **({"real": True} if law.family == "Normal" else {"positive": True}))
    named = {name: array.item() for name, array in one.symbols.items()}
    inside = {z.item() - named["low"]: True, named["high"] - z.item(): True} if "low" in named else {}
    (log,) = one.read(lambda p, v: law.log_prob(p, v), (example, z), path=Path(case=inside))
    gap = log.item() - LOGS[law.family](named, z.item())
    slopes = [sp.diff(gap, s) for s in (*named.values(), z.item())]
    return [
        *steps,
        Step("log p has the derivative of the logarithm of its density", _standing(*slopes), "algebra"),
    ]


def conditioned(one: Lone) -> list[Step]:
    """Show what REBAR and RELAX need, for every differentiable control variate c, at a relaxable law."""
    law = one.law
    values = law.support(one.parameters)
    given = next(iter(one.symbols))
    conclusion = f"E of the estimate is dJ/d({given}) for every differentiable c, bounded with its derivative"
    if law.family == "Bernoulli":
        no, yes = (_bernoulli(one, float(b)) for b in values)
        ends = [sp.limit(end, no.fresh, 1) for end in (no.left, yes.left)]
        start = sp.limit(no.left, no.fresh, 0) + sp.limit(yes.left, yes.fresh, 0)
        return [
            Step(
                "z~ has, given b, the law of z",
                _standing(no.law, yes.law),
                "change of variables, for both values",
            ),
            Step(
                "both points move with the logits as is claimed",
                _standing(no.moves, yes.moves),
                "derivatives",
            ),
            Step(
                conclusion,
                _standing(no.coefficient, yes.coefficient, *ends, start),
                "the coefficient of c vanishes, and so does what is left of it at 0 and far out",
            ),
        ]
    if len(values) > MOST:
        smaller = conditioned(lone(law, one.parameters, 3))
        return [
            *smaller,
            Step(f"the same with {len(values)} outcomes", "assumed", "it was worked out with 3"),
        ]
    standing = _weakest([_categorical(one, k) for k in range(len(values))])
    return [
        Step(
            f"(b, z~) have the law of (H(z), z), with {len(values)} outcomes",
            standing,
            "the determinant of the map",
        ),
        Step(conclusion, standing, "the mean of c(z) is that of c(z~), so that their derivatives cancel"),
    ]


def _logit(one: Lone) -> sp.Expr:
    (name, array), *_ = one.symbols.items()
    value = array.item()
    return value if name == "logits" else sp.log(value) - sp.log(1 - value)


@dataclass(frozen=True)
class Tied:
    """What has to be 0 for z~ given b, and what is ``left`` of c, by parts, at the ends of ``fresh``."""

    law: sp.Expr
    moves: sp.Expr
    coefficient: sp.Expr
    left: sp.Expr
    fresh: sp.Symbol


def _bernoulli(one: Lone, b: float) -> Tied:
    """Return what has to be 0 for one value of a coin."""
    law, v, logit = one.law, one.fresh.item(), _logit(one)
    assert isinstance(law, Relaxable)
    value, example = (torch.tensor(number, dtype=torch.float64) for number in (b, 0.4))
    (tied,) = one.read(lambda p, v: law.conditional(p, value, v), (example, one.fresh))
    z, (own,) = tied.item(), flat(one.symbols[law.given])
    sign = 1 if b else -1
    probability, odds = 1 / (1 + sp.exp(-sign * logit)), sp.exp(logit)
    density = odds / (odds + sp.exp(z)) ** 2  # of exp(z)

    def slopes(p: dict[str, Tensor], u: Tensor, w: Tensor, s: Tensor) -> Tensor:
        return law.points(p, law.standard(u), value, w)[1](s)[law.given]

    pair = symbols("s", (2,), real=True)
    fine, weights = (torch.tensor(n, dtype=torch.float64) for n in (0.6 if b else 0.2, [0.3, -0.7]))
    (back,) = one.read(
        lambda p, u, w, s: torch.func.vmap(slopes, in_dims=(None, None, None, 0))(p, u, w, s[None])[0],
        (fine, one.noise), (example, one.fresh), (weights, pair),
    )  # fmt: skip
    slope = sp.diff(z, own) / sp.diff(logit, own)
    left = probability * (1 - slope) / sp.diff(z, v)
    return Tied(
        law=density * sp.diff(sp.exp(z), v) - sign * probability,
        moves=back.item() - pair[(0,)] * sp.diff(logit, own) - pair[(1,)] * sp.diff(z, own),
        coefficient=sp.diff(left, v) + probability * sign * (1 - probability),
        left=_odds(left, logit),
        fresh=v,
    )


def _odds(expr: sp.Expr, logit: sp.Expr) -> sp.Expr:
    """Write an expression by odds, a positive number, so that limits are those of a rational function."""
    odds = sp.Symbol("E", positive=True)
    if logit.is_Symbol:
        expr = expr.subs(logit, sp.log(odds))
    return sp.cancel(sp.together(sp.powsimp(sp.expand_log(expr, force=True).rewrite(sp.exp))))


def _categorical(one: Lone, k: int) -> Standing:
    """Say whether z~ given outcome k has the density of z over p(k), and its largest entry at k."""
    law = one.law
    assert isinstance(law, Relaxable)
    value = law.support(one.parameters)[k]
    example = torch.linspace(0.3, 0.6, len(flat(one.fresh)), dtype=torch.float64)
    (tied,) = one.read(
        lambda p, v: torch.func.vmap(lambda w: law.conditional(p, value, w))(v[None])[0], (example, one.fresh)
    )
    waits = {v: sp.Symbol(f"w{j}", positive=True) for j, v in enumerate(flat(one.fresh))}  # v = exp(-w)
    z = [entry.subs({v: sp.exp(-w) for v, w in waits.items()}, simultaneous=True) for entry in flat(tied)]
    masses = [MASSES[law.family](one.symbols, (), j) for j in range(len(z))]
    turned = sp.Matrix([[sp.diff(entry, w) for w in waits.values()] for entry in z]).det()
    factor = (
        sp.Mul(*(mass * sp.exp(-entry) for mass, entry in zip(masses, z, strict=True))) * turned / masses[k]
    )
    exponent = sp.Add(*waits.values()) - sp.Add(
        *(mass * sp.exp(-entry) for mass, entry in zip(masses, z, strict=True))
    )
    gaps = [sp.exp(-z[j]) - sp.exp(-z[k]) for j in range(len(z)) if j != k]
    if not all(_is_positive(gap) for gap in gaps):
        return "assumed"
    return _standing(factor**2 - 1, exponent)


def _is_positive(expr: sp.Expr) -> bool:
    simplified = sp.simplify(sp.expand_log(sp.together(expr), force=True))
    return bool(simplified.is_positive)


def _standing(*differences: sp.Expr) -> Standing:
    """Return "proved" where all are 0, "failed" where one is seen not to be, and else "assumed"."""
    if all(is_zero(difference) for difference in differences):
        return "proved"
    return "failed" if any(differs(difference) for difference in differences) else "assumed"


def _weakest(standings: Sequence[Standing]) -> Standing:
    return min(standings, key=STRENGTH.index)


def shown(law: Law, parameters: Mapping[str, Tensor], relaxed: bool) -> list[Step]:
    """Return what can be shown of a law, and what could not, as steps."""
    try:
        one = lone(law, parameters)
        steps = drawn(one) if law.family in MASSES else transported(one) if law.family in LOGS else None
        if steps is None:
            return [
                Step(
                    f"the law {law.family} draws what its density says",
                    "assumed",
                    "its definition is not known here",
                )
            ]
        return [*steps, *(conditioned(one) if relaxed else [])]
    except (UnreadableError, UndecidedError) as error:
        return [
            Step(
                f"the law {law.family} draws what its density says", "assumed", f"it cannot be read: {error}"
            )
        ]
