"""Control variates: the emitted arithmetic of REBAR at a coin, against its scheme."""

from __future__ import annotations

import sympy as sp

from scg.algebra.arrays import Array, each, flat, symbols
from scg.algebra.elementwise import sigmoid
from scg.algebra.measure import Case
from scg.algebra.model import Model, weighted
from scg.algebra.paths import Path
from scg.algebra.zero import is_zero
from scg.estimators.rebar import REBAR
from scg.nodes.records import Det
from scg.program.program import Program
from scg.proving.arithmetic import Way
from scg.proving.composition import kept_plates
from scg.proving.emitted import Reading


def is_controlled(program: Program, model: Model) -> bool:
    """Whether a program has one random variable, of coins, under REBAR, whose scheme is written here."""
    if len(model.variables) != 1 or model.variables[0].family != "Bernoulli":
        return False
    estimator = program.policy[model.variables[0].name]
    has_own = any(isinstance(record, Det) and record.relaxed is not None for record in model.ir.records())
    return isinstance(estimator, REBAR) and estimator.baseline == REBAR().baseline and not has_own


def follows_scheme(model: Model, reading: Reading, several: list[Way], case: Case) -> bool:
    """Whether a program of coins leaves, on every way, REBAR's estimate with c = eta cost(sigmoid(z / T)).

    The scheme is written anew from the graph: (f(b) - c(z~)) dlog p(b) + dc(z) - dc(z~), and the derivative
    of f itself. Tucker et al. (2017, arXiv:1703.07370).
    """
    (variable,) = model.variables
    scheme = Scheme(model, variable.name, variable.shape, reading, case)
    for way in several:
        if not scheme.cuts_right(way):
            return False
        wanted = scheme.gradient(way)
        if not all(is_zero(found - entry) for found, entry in zip(way.gradient, wanted, strict=True)):
            return False
    return True


def _tied(logit: sp.Expr, v: sp.Expr, b: sp.Expr) -> sp.Expr:
    """Return z~ given a value of a coin."""
    sign = 2 * b - 1
    return sign * (sp.log(1 + v * sp.exp(sign * logit)) - sp.log(1 - v))


class Scheme:
    """The estimate of REBAR at one node of coins, as an expression for every way through a program."""

    def __init__(self, model: Model, name: str, shape: tuple[int, ...], reading: Reading, case: Case) -> None:
        """Read what is needed of the graph: logits, and costs at values that are symbols."""
        self.model, self.name, self.shape, self.reading, self.case = model, name, shape, reading, case
        self.values = symbols(f"{name}__", shape, real=True)
        self.costs, parameters = model.at({name: self.values}, Path(case=case))
        given = parameters[name]
        self.logits = (
            given["logits"]
            if "logits" in given
            else each(lambda p: sp.log(p) - sp.log(1 - p), given["probs"])
        )
        self.moved = symbols(f"{name}_l", shape, real=True)
        state = {k: v for k, v in reading.state.items() if k.startswith(f"controls.{name}.")}
        self.temperature, self.eta = (
            sp.exp(state[f"controls.{name}.{part}.log"].item()) for part in ("temperature", "eta")
        )
        self.u, self.v = (reading.noise[key].reshape(*shape) for key in (name, f"{name}.1"))

    def credit(self, values: Array, place: tuple[int, ...]) -> sp.Expr:
        """Return the costs with which an element is charged, at some values."""
        ir, total = self.model.ir, sp.Integer(0)
        plates = ir.layout[self.name]
        at = dict(zip(flat(self.values), flat(values), strict=True))
        for cost, weights in self.model.weights.items():
            kept = kept_plates(ir, self.name, cost)
            layout = ir.layout[cost]
            found = weighted(self.costs[cost], weights)
            for index in found.indices:
                pairs = ((p, index[layout.index(p)], place[plates.index(p)]) for p in kept)
                if all(e == own or (ir.plates[p].ordered and e > own) for p, e, own in pairs):
                    total += found[index]
        return total.xreplace(at)

    def cuts_right(self, way: Way) -> bool:
        """Whether every coin falls by its noise as its logit says, and no other noise is cut."""
        if {*way.path.lower, *way.path.upper} != set(flat(self.u)) or way.path.choices:
            return False
        for u, logit in zip(flat(self.u), flat(self.logits), strict=True):
            cuts = [*way.path.lower.get(u, []), *way.path.upper.get(u, [])]
            if len(cuts) != 1 or not is_zero(cuts[0].at - sigmoid(-logit)):
                return False
        return True

    def gradient(self, way: Way) -> list[sp.Expr]:
        """Return the estimate in every entry of every parameter, on a way through the program."""
        bits = each(lambda u: sp.Integer(int(u in way.path.lower)), self.u)
        z = each(lambda logit, u: logit + sp.log(u) - sp.log(1 - u), self.moved, self.u)
        tied = each(_tied, self.moved, self.v, bits)
        estimates = {place: self._estimate(place, bits, z, tied) for place in bits.indices}
        back = dict(zip(flat(self.moved), flat(self.logits), strict=True))
        at = dict(zip(flat(self.values), flat(bits), strict=True))
        direct = sp.Add(*(e for c, w in self.model.weights.items() for e in flat(weighted(self.costs[c], w))))
        found = []
        for symbol in (s for entry in self.model.parameters.values() for s in flat(entry)):
            through = sp.Add(
                *(e.xreplace(back) * sp.diff(self.logits[place], symbol) for place, e in estimates.items())
            )
            found.append(through + sp.diff(direct, symbol).xreplace(at))
        return found

    def _estimate(self, place: tuple[int, ...], bits: Array, z: Array, tied: Array) -> sp.Expr:
        """Return the estimate of the derivative in one logit."""
        logit = self.moved[place]
        soft, softer = (each(lambda e: sigmoid(e / self.temperature), points) for points in (z, tied))
        at_z, at_tied = (self.eta * self.credit(values, place) for values in (soft, softer))
        score = bits[place] - sigmoid(logit)
        return (self.credit(bits, place) - at_tied) * score + sp.diff(at_z - at_tied, logit)
