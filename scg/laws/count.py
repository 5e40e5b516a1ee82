"""The laws of counts: binomial, geometric, Poisson, negative binomial, multinomial."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch import distributions as td
from torch.distributions import constraints

from scg.laws.categorical import log_simplex
from scg.laws.elementary import Formulas
from scg.laws.finite import Finite
from scg.laws.law import Parameters, violation
from scg.laws.numbers import INFINITY, log_both, log_both_of_logits, weighted, wide


def _logs(p: Parameters) -> tuple[Tensor, Tensor]:
    return log_both_of_logits(p["logits"]) if "logits" in p else log_both(p["probs"])


def _log_choose(total: Tensor, value: Tensor) -> Tensor:
    return torch.lgamma(total + 1) - torch.lgamma(value + 1) - torch.lgamma(total - value + 1)


def _total(p: Parameters, like: Tensor) -> Tensor:
    """The number of trials, which is a whole number and has no derivative."""
    return p["total_count"].detach().to(like.dtype)


def _binomial_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log_p, log_q = _logs(p)
    total = _total(p, log_p)
    rest = (total - value).clamp(min=0)
    log = _log_choose(torch.maximum(total, value), value) + weighted(value, log_p) + weighted(rest, log_q)
    return torch.where(value <= total, log, -INFINITY)


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


def _counted_multinomial_log_prob(p: Parameters, value: Tensor) -> Tensor:
    log = _multinomial_log_prob(p, value)
    return torch.where(value.sum(-1) == _total(p, log), log, -INFINITY)


def _counted_multinomial_sample(p: Parameters) -> Tensor:
    """One class after the other: each takes a binomial share of what those before it have left."""
    probs = torch.softmax(p["logits"], -1) if "logits" in p else p["probs"]
    rest = probs.flip(-1).cumsum(-1).flip(-1)
    shares = torch.where(rest > 0, probs / rest, 0.0).clamp(0, 1)
    left, found = _total(p, probs), []
    for share in shares[..., :-1].unbind(-1):
        found.append(torch.binomial(left, share))
        left = left - found[-1]
    return torch.stack([*found, left], -1)


def _classes(p: Parameters) -> Size:
    return p["logits" if "logits" in p else "probs"].shape[-1:]


@dataclass(frozen=True)
class Binomial(Finite):
    """Inverse CDF over ``0 ... total_count``; ``given`` names the parameter.

    Where it ``is_live``, the number of trials is a parameter as well, at most ``total_count``: values
    beyond it have no mass.
    """

    total_count: int
    is_live: bool = False

    @property
    def family(self) -> str:
        """Readable name."""
        return "Binomial"

    @property
    def parameters(self) -> tuple[str, ...]:
        """``total_count`` where that is live, and the one that is given."""
        return ("total_count", self.given) if self.is_live else (self.given,)

    def _full(self, parameters: Parameters) -> dict[str, Tensor]:
        given = wide(parameters[self.given])
        total = _total(parameters, given) if self.is_live else given.new_tensor(float(self.total_count))
        return {self.given: given, "total_count": total}

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The number of values whose cumulative probability is below the noise, at most the trials."""
        given = parameters[self.given].detach()
        detached = {**parameters, self.given: given}
        below = self.mass(detached).movedim(0, -1).cumsum(-1)[..., :-1] < noise.unsqueeze(-1)
        value = below.sum(-1).to(given.dtype)
        # Rounded sums of all the mass there is may stay below the noise.
        return torch.minimum(value, _total(parameters, value)) if self.is_live else value

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
        value = self.support(full).reshape((-1,) + (1,) * max(given.dim(), total.dim()))
        if self.given == "logits":
            return self.log_prob(full, value).exp()
        rest = (total - value).clamp(min=0)
        mass = _log_choose(torch.maximum(total, value), value).exp() * given**value * (1 - given) ** rest
        return torch.where(value <= total, mass, 0.0)

    def mode(self, parameters: Parameters) -> Tensor:
        """``floor((n + 1) p)``, at most n."""
        full = self._full(parameters)
        given, total = full[self.given].detach(), full["total_count"]
        probs = torch.sigmoid(given) if self.given == "logits" else given
        return torch.minimum(((total + 1) * probs).floor(), total).to(parameters[self.given].dtype)

    def violations(self, parameters: Parameters) -> str | None:
        """Trials beyond the bound, probs outside the unit interval, or a logit that is NaN."""
        counts = constraints.integer_interval(0, self.total_count)
        wrong = violation("total_count", counts, parameters["total_count"]) if self.is_live else None
        if wrong is not None:
            return wrong
        return violation(self.given, td.Binomial.arg_constraints[self.given], parameters[self.given])

    def distribution(self, parameters: Parameters) -> td.Binomial:
        """``torch.distributions.Binomial``."""
        total = parameters["total_count"] if self.is_live else self.total_count
        return td.Binomial(total, **{self.given: parameters[self.given]}, validate_args=False)


COUNTED_BINOMIAL = Formulas(td.Binomial, _binomial_log_prob, discrete=True)
GEOMETRIC = Formulas(td.Geometric, _geometric_log_prob, _geometric_draw, "uniform", discrete=True)
POISSON = Formulas(td.Poisson, _poisson_log_prob, discrete=True)
NEGATIVE_BINOMIAL = Formulas(td.NegativeBinomial, _negative_binomial_log_prob, discrete=True)
COUNTED_MULTINOMIAL = Formulas(
    td.Multinomial,
    _counted_multinomial_log_prob,
    ranks=(("probs", 1), ("logits", 1)),
    value_rank=1,
    discrete=True,
    noise_event=_classes,
    sample=_counted_multinomial_sample,
)
MULTINOMIAL = Formulas(
    td.Multinomial,
    _multinomial_log_prob,
    ranks=(("probs", 1), ("logits", 1)),
    value_rank=1,
    discrete=True,
)
