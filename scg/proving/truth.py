"""The gradient of the objective, by nothing that the compiler knows: in closed form, or by the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import flat
from scg.algebra.measure import Case
from scg.algebra.model import Model
from scg.algebra.paths import in_cases
from scg.errors import ScgError, UnreadableError
from scg.oracle.exact import gradient_of
from scg.program.program import Program

POINTS = (28, 40)
"""Two orders of quadrature of the oracle, which have to agree."""
LIMIT = 2**16


@contextmanager
def placed(program: Program, at: Mapping[str, Tensor]) -> Iterator[None]:
    """Have parameters other values for a while."""
    several = {name: p for name, p in program.named_parameters() if name in at}
    before = {name: p.detach().clone() for name, p in several.items()}
    with torch.no_grad():
        for name, parameter in several.items():
            parameter.copy_(at[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in several.items():
                parameter.copy_(before[name])


@dataclass(frozen=True, eq=False)
class Truth:
    """The gradient of an objective at any parameters: from its closed form in ``cases``, or by the oracle."""

    program: Program
    inputs: Mapping[str, Any]
    model: Model | None
    cases: list[tuple[Case, sp.Expr]]

    def at(self, live: Mapping[str, Tensor]) -> Tensor:
        """Return it [entries] at some parameters, or refuse where there is none."""
        found = self._closed(live)
        return self._summed(live) if found is None else found

    def _closed(self, live: Mapping[str, Tensor]) -> Tensor | None:
        if self.model is None:
            return None
        point = {
            symbol: sp.Float(value, 30)
            for name, array in self.model.parameters.items()
            for symbol, value in zip(flat(array), live[name].double().reshape(-1).tolist(), strict=True)
        }
        for case, objective in self.cases:
            if all(bool(sp.N(expr.xreplace(point)) > 0) == truth for expr, truth in case.items()):
                slopes = [complex(sp.N(sp.diff(objective, s).xreplace(point))) for s in point]
                return torch.tensor([slope.real for slope in slopes], dtype=torch.float64)
        return None

    def _summed(self, live: Mapping[str, Tensor]) -> Tensor:
        with placed(self.program, live):
            try:
                coarse, fine = (
                    gradient_of(self.program._ir, self.inputs, points=p, limit=LIMIT) for p in POINTS
                )
            except ScgError as error:
                raise UnreadableError(
                    f"the objective cannot be summed or integrated exactly: {error}"
                ) from None
        one, other = (torch.cat([f[name].reshape(-1) for name in live]).double() for f in (coarse, fine))
        if not torch.allclose(one, other, rtol=1e-7, atol=1e-7 * float(other.abs().max()) + 1e-12):
            raise UnreadableError(
                "the objective cannot be integrated exactly: quadrature of two orders differs"
            )
        return other


def truth(program: Program, model: Model | None, inputs: Mapping[str, Any]) -> Truth:
    """Return what tells the gradient of the objective of a program."""
    cases: list[tuple[Case, sp.Expr]] = []
    if model is not None:
        try:
            cases = list(in_cases(model.objective))
        except UnreadableError:
            cases = []
    return Truth(program, inputs, model, cases)
