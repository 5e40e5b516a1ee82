"""Families of distributions as they are defined: nothing here is taken from ``scg.laws``, which it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sympy as sp
import torch
from torch import Tensor

from scg.algebra.arrays import Array, constant, flat
from scg.algebra.elementwise import sigmoid


def _bernoulli(parameters: Mapping[str, Array], place: tuple[int, ...], outcome: int) -> sp.Expr:
    if "probs" in parameters:
        probability = parameters["probs"][place]
        return probability if outcome else 1 - probability
    return sigmoid(parameters["logits"][place] * (1 if outcome else -1))


def _categorical(parameters: Mapping[str, Array], place: tuple[int, ...], outcome: int) -> sp.Expr:
    if "probs" in parameters:
        row: Sequence[sp.Expr] = _row(parameters["probs"], place)
    else:
        row = [sp.exp(logit) for logit in _row(parameters["logits"], place)]
    return row[outcome] / sp.Add(*row)


def _row(parameter: Array, place: tuple[int, ...]) -> list[sp.Expr]:
    return [parameter[(*place, k)] for k in range(parameter.shape[-1])]


MASSES: dict[str, Callable[[Mapping[str, Array], tuple[int, ...], int], sp.Expr]] = {
    "Bernoulli": _bernoulli,
    "Categorical": _categorical,
    "OneHotCategorical": _categorical,
}
"""The probability of an outcome of an element, by its parameters."""

MAPS: dict[str, tuple[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
    "Normal": ("normal", lambda p, base: p["loc"] + p["scale"] * base),
    "LogNormal": ("normal", lambda p, base: torch.exp(p["loc"] + p["scale"] * base)),
    "Uniform": ("uniform", lambda p, base: p["low"] + (p["high"] - p["low"]) * base),
    "Exponential": ("exponential", lambda p, base: base / p["rate"]),
    "Poisson": ("poisson", lambda p, base: base),
}
"""What a value is of a random variable that knows no parameters, and of which kind that is."""


LOGS: dict[str, Callable[[Mapping[str, sp.Expr], sp.Expr], sp.Expr]] = {
    "Normal": lambda p, z: -(((z - p["loc"]) / p["scale"]) ** 2) / 2 - sp.log(p["scale"]),
    "LogNormal": lambda p, z: (
        -(((sp.log(z) - p["loc"]) / p["scale"]) ** 2) / 2 - sp.log(p["scale"]) - sp.log(z)
    ),
    "Uniform": lambda p, z: -sp.log(p["high"] - p["low"]),
    "Exponential": lambda p, z: sp.log(p["rate"]) - p["rate"] * z,
}
"""The logarithm of a density within its support, but for a constant."""


def outcomes(support: Tensor) -> list[tuple[sp.Expr, ...]]:
    """Return the outcomes of one element, each as the entries of it."""
    return [tuple(flat(constant(one))) for one in support.detach()]
