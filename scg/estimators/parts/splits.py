"""Splits: the derivative of a law in a parameter as a constant times the difference of two laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.estimators.parts.chances import chance
from scg.estimators.protocol.site import Parameters
from scg.laws import Law, trials


@dataclass(frozen=True, eq=False)
class Draw:
    """A ``value`` of a law with parameters ``p``, and uniform noise ``u`` that it does not depend on."""

    law: Law
    p: Parameters
    value: Tensor
    u: Tensor | None = None

    @property
    def wait(self) -> Tensor:
        """A standard exponential variable."""
        assert self.u is not None
        return -self.u.log()

    @property
    def standard(self) -> Tensor:
        """The value, less its location and over its scale."""
        return (self.value - self.p["loc"]) / self.p["scale"]


Of = Callable[[Draw], Tensor]


@dataclass(frozen=True)
class Split:
    """d E f / d(parameter) = E constant (f(plus) - f(minus)); None stands for the value itself.

    ``noisy`` tells whether noise is read.
    """

    constant: Of
    plus: Of | None = None
    minus: Of | None = None
    noisy: bool = False

    @property
    def points(self) -> tuple[Of, ...]:
        """The values besides that of the node."""
        return tuple(made for made in (self.plus, self.minus) if made is not None)


def _rayleigh(draw: Draw) -> Tensor:
    return (2 * draw.wait).sqrt()


def _maxwell(z: Tensor, draw: Draw) -> Tensor:
    """Make a standard normal the size of a Maxwell variable, with the sign that it has."""
    return torch.where(z < 0, -1.0, 1.0) * (z.square() + 2 * draw.wait).sqrt()


def _away(draw: Draw) -> Tensor:
    return torch.where(draw.standard < 0, -1.0, 1.0)


def _log_standard(draw: Draw) -> Tensor:
    return (draw.value.log() - draw.p["loc"]) / draw.p["scale"]


def _weibull(draw: Draw) -> Tensor:
    power = draw.p["concentration"]
    return draw.p["scale"] * ((draw.value / draw.p["scale"]) ** power + draw.wait) ** (1 / power)


def _gumbel(draw: Draw) -> Tensor:
    return draw.p["loc"] - draw.p["scale"] * torch.logaddexp(-draw.standard, draw.wait.log())


def _later(draw: Draw) -> Tensor:
    return draw.value + draw.wait / draw.p["rate"]


def _step(draw: Draw) -> Tensor:
    """One less where a trial that is taken out of all succeeded, and one more where it failed."""
    assert draw.u is not None
    total = trials(draw.law, draw.p)
    return torch.where(draw.u * total < draw.value, -1.0, 1.0) * (total > 0)


def _more(draw: Draw) -> Tensor:
    """As many successes as one more failure comes after."""
    logs = torch.nn.functional.logsigmoid(draw.p["logits"]) if "logits" in draw.p else draw.p["probs"].log()
    return draw.value + torch.floor(-draw.wait / logs)


def _again(draw: Draw) -> Tensor:
    assert draw.u is not None
    return draw.value + draw.law.draw(draw.p, draw.u) + 1


def _odds(draw: Draw) -> Tensor:
    success, failure, slope = chance(draw.p)
    return draw.p["total_count"] * (success / failure if "logits" in draw.p else slope / failure**2)


NONE = Split(lambda d: torch.zeros_like(d.value))
BERNOULLI = Split(lambda d: chance(d.p).slope * (1 - 2 * d.value), plus=lambda d: 1 - d.value)
BINOMIAL = Split(
    lambda d: trials(d.law, d.p) * chance(d.p).slope * _step(d), plus=lambda d: d.value + _step(d), noisy=True
)
GEOMETRIC = Split(
    lambda d: 1 / d.p["probs"] if "probs" in d.p else chance(d.p).failure, minus=_again, noisy=True
)
NEGATIVE_BINOMIAL = Split(_odds, lambda d: _more(d) + 1, _more, noisy=True)

SPLITS: Mapping[str, Mapping[str, Split]] = {
    "Bernoulli": {"probs": BERNOULLI, "logits": BERNOULLI},
    "Binomial": {"probs": BINOMIAL, "logits": BINOMIAL, "total_count": NONE},
    "Geometric": {"probs": GEOMETRIC, "logits": GEOMETRIC},
    "NegativeBinomial": {"probs": NEGATIVE_BINOMIAL, "logits": NEGATIVE_BINOMIAL},
    "Poisson": {"rate": Split(lambda d: torch.ones_like(d.value), plus=lambda d: d.value + 1)},
    "Normal": {
        "loc": Split(
            lambda d: 1 / (d.p["scale"] * math.sqrt(2 * math.pi)),
            lambda d: d.p["loc"] + d.p["scale"] * _rayleigh(d),
            lambda d: d.p["loc"] - d.p["scale"] * _rayleigh(d),
            noisy=True,
        ),
        "scale": Split(
            lambda d: 1 / d.p["scale"],
            plus=lambda d: d.p["loc"] + d.p["scale"] * _maxwell(d.standard, d),
            noisy=True,
        ),
    },
    "LogNormal": {
        "loc": Split(
            lambda d: 1 / (d.p["scale"] * math.sqrt(2 * math.pi)),
            lambda d: (d.p["loc"] + d.p["scale"] * _rayleigh(d)).exp(),
            lambda d: (d.p["loc"] - d.p["scale"] * _rayleigh(d)).exp(),
            noisy=True,
        ),
        "scale": Split(
            lambda d: 1 / d.p["scale"],
            plus=lambda d: (d.p["loc"] + d.p["scale"] * _maxwell(_log_standard(d), d)).exp(),
            noisy=True,
        ),
    },
    "HalfNormal": {
        "scale": Split(
            lambda d: 1 / d.p["scale"],
            plus=lambda d: d.p["scale"] * _maxwell(d.value / d.p["scale"], d),
            noisy=True,
        )
    },
    "Exponential": {"rate": Split(lambda d: 1 / d.p["rate"], minus=_later, noisy=True)},
    "Gamma": {"rate": Split(lambda d: d.p["concentration"] / d.p["rate"], minus=_later, noisy=True)},
    "Weibull": {"scale": Split(lambda d: d.p["concentration"] / d.p["scale"], plus=_weibull, noisy=True)},
    "Laplace": {
        "loc": Split(lambda d: _away(d) / (2 * d.p["scale"]), minus=lambda d: 2 * d.p["loc"] - d.value),
        "scale": Split(
            lambda d: 1 / d.p["scale"], plus=lambda d: d.value + _away(d) * d.p["scale"] * d.wait, noisy=True
        ),
    },
    "Gumbel": {"loc": Split(lambda d: 1 / d.p["scale"], minus=_gumbel, noisy=True)},
    "Uniform": {
        "low": Split(
            lambda d: 1 / (d.p["high"] - d.p["low"]), minus=lambda d: torch.nextafter(d.p["low"], d.p["high"])
        ),
        "high": Split(
            lambda d: 1 / (d.p["high"] - d.p["low"]), plus=lambda d: torch.nextafter(d.p["high"], d.p["low"])
        ),
    },
}
"""The split of every law in every parameter that has one."""
