"""The laws of counts: binomial, geometric, Poisson, negative binomial, multinomial."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributions as td

from scg.laws.categorical import log_simplex
from scg.laws.elementary import Formulas
from scg.laws.finite import Finite
from scg.laws.law import Parameters, violation
from scg.laws.numbers import log_both, log_both_of_logits, weighted, wide


def _logs(p: Parameters) -> tuple[Tensor, Tensor]:
    return log_both_of_logits(p["logits"]) if "logits" in p else log_both(p["probs"])


def _log_choose(total: Tensor, value: Tensor) -> Tensor:
    return torch.lgamma(total + 1) - torch.lgamma(value + 1) - torch.lgamma(total - value + 1)


def _binomial_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log_p, log_q = _logs(p)
    total = p["total_count"]
    return _log_choose(total, value) + weighted(value, log_p) + weighted(total - value, log_q)


def _geometric_draw(p: Parameters, u: Tensor) -> Tensor:
    """``floor(log u / log(1 - p))``: P(k >= m) = P(u <= (1 - p)^m)."""
    return torch.floor(u.log() / _logs(p)[1])


def _geometric_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log_p, log_q = _logs(p)
    return weighted(value, log_q) + log_p


def _poisson_log_prob(p: Parameters, value: Tensor) -> Tensor:
    rate = p["rate"]
    zero = rate == 0
    log = torch.where(zero, -torch.inf, torch.where(zero, 1.0, rate).log())
    return weighted(value, log) - rate - torch.lgamma(value + 1)


def _negative_binomial_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log_p, log_q = _logs(p)
    total = p["total_count"]
    ways = torch.lgamma(total + value) - torch.lgamma(value + 1) - torch.lgamma(total)
    ways = torch.where(total + value == 0, 0.0, ways)
    return ways + weighted(value, log_p) + weighted(total, log_q)


def _multinomial_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log_p = torch.log_softmax(p["logits"], -1) if "logits" in p else log_simplex(p["probs"])
    ways = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
    return ways + weighted(value, log_p).sum(-1)


@dataclass(frozen=True)
class Binomial(Finite):
    """Inverse CDF over ``0 ... total_count``; ``given`` names the parameter."""

    total_count: int

    @property
    def family(self) -> str:
        """Readable name."""
        return "Binomial"

    def _full(self, parameters: Parameters) -> dict[str, Tensor]:
        given = wide(parameters[self.given])
        return {self.given: given, "total_count": given.new_tensor(float(self.total_count))}

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The number of values whose cumulative probability is below the noise."""
        given = parameters[self.given].detach()
        below = self.mass({self.given: given}).movedim(0, -1).cumsum(-1)[..., :-1] < noise.unsqueeze(-1)
        return below.sum(-1).to(given.dtype)

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """``log C(n, k) + k log p + (n - k) log(1 - p)``."""
        return _binomial_log_prob(self._full(parameters), wide(value))

    def support(self, parameters: Parameters) -> Tensor:
        """``0 ... total_count``."""
        given = parameters[self.given]
        return torch.arange(self.total_count + 1, dtype=given.dtype, device=given.device)

    def mass(self, parameters: Parameters) -> Tensor:
        """``C(n, k) p^k (1 - p)^(n - k)``, exact in value and derivative also at p = 0 and 1."""
        full = self._full(parameters)
        given, total = full[self.given], full["total_count"]
        value = self.support(full).reshape((-1,) + (1,) * given.dim())
        if self.given == "logits":
            return self.log_prob(full, value).exp()
        return _log_choose(total, value).exp() * given**value * (1 - given) ** (total - value)

    def mode(self, parameters: Parameters) -> Tensor:
        """``floor((n + 1) p)``, at most n."""
        given = parameters[self.given].detach()
        probs = torch.sigmoid(given) if self.given == "logits" else given
        return ((self.total_count + 1) * probs).floor().clamp(max=self.total_count)

    def violations(self, parameters: Parameters) -> str | None:
        """Probs outside the unit interval, or a logit that is NaN."""
        return violation(self.given, td.Binomial.arg_constraints[self.given], parameters[self.given])

    def distribution(self, parameters: Parameters) -> td.Binomial:
        """``torch.distributions.Binomial``."""
        return td.Binomial(self.total_count, **{self.given: parameters[self.given]}, validate_args=False)


COUNTED_BINOMIAL = Formulas(td.Binomial, _binomial_log_prob, discrete=True)
GEOMETRIC = Formulas(td.Geometric, _geometric_log_prob, _geometric_draw, "uniform", discrete=True)
POISSON = Formulas(td.Poisson, _poisson_log_prob, discrete=True)
NEGATIVE_BINOMIAL = Formulas(td.NegativeBinomial, _negative_binomial_log_prob, discrete=True)
MULTINOMIAL = Formulas(
    td.Multinomial,
    _multinomial_log_prob,
    ranks=(("probs", 1), ("logits", 1)),
    value_rank=1,
    discrete=True,
)
