"""The categorical laws, whose values are indices or one-hot vectors, from probs or from logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Size, Tensor
from torch import distributions as td
from torch.nn.functional import one_hot, threshold

from scg.laws.law import Parameters, broadcast, violation
from scg.laws.numbers import FAR, INFINITY, gumbel, is_transformed, log1p_exp, wide
from scg.laws.relaxable import Relaxable


def log_simplex(probs: Tensor, impossible: float = -INFINITY) -> Tensor:
    """``log(p / sum p)``: without a gradient where an outcome is impossible or certain."""
    total = probs.sum(-1, keepdim=True)
    zero, one = probs == 0, probs == total
    inner = torch.where(zero, 1.0, probs).log() - total.log()
    return torch.where(zero, impossible, torch.where(one, 0.0, inner))


@dataclass(frozen=True)
class Categorical(Relaxable):
    """``argmax(log p + G)`` with Gumbel noise; ``given`` names the parameter, ``[batch..., n]``."""

    one_hot: bool = False

    @property
    def family(self) -> str:
        """Readable name."""
        return "OneHotCategorical" if self.one_hot else "Categorical"

    @property
    def value_rank(self) -> int:
        """One where values are one-hot."""
        return int(self.one_hot)

    def event_rank(self, name: str) -> int:
        """One: the outcomes."""
        return 1

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """``batch + (n,)``."""
        return batch + parameters[self.given].shape[-1:]

    def log_probabilities(self, parameters: Parameters) -> Tensor:
        """Normalised log-probability of each outcome, ``[batch..., n]``."""
        given = wide(parameters[self.given])
        return log_simplex(given) if self.given == "probs" else torch.log_softmax(given, -1)

    def probabilities(self, parameters: Parameters) -> Tensor:
        """Probability of each outcome, ``[batch..., n]``."""
        given = wide(parameters[self.given])
        return given / given.sum(-1, keepdim=True) if self.given == "probs" else torch.softmax(given, -1)

    def standard(self, noise: Tensor) -> Tensor:
        """The Gumbel variables ``G = -log(-log u)``, ``[batch..., n]``."""
        return gumbel(noise)

    def location(self, parameters: Parameters) -> Tensor:
        """``log p``, kept finite."""
        given = wide(parameters[self.given])
        if self.given == "probs":
            return log_simplex(given, -FAR)
        return torch.log_softmax(given, -1).clamp(min=-FAR)

    def conditional(self, parameters: Parameters, value: Tensor, noise: Tensor) -> Tensor:
        """``z_b = G_b``, the greatest, and below it ``z_i = G_b - log(1 + exp(G_b - G_i - log p_i))``."""
        index = self._index(value)
        batch = broadcast(noise.shape[:-1], index.shape[:-1])
        index, free = index.expand(*batch, 1), gumbel(noise).expand(*batch, -1)
        top = free.gather(-1, index)
        # Minus infinity makes the drop of the top itself 0, in value and in derivatives.
        gap = (top - free).scatter(-1, index, -INFINITY)
        return top - log1p_exp(gap - self.location(parameters))

    def settled(self, location: Tensor, value: Tensor, standard: Tensor) -> Tensor:
        """The others stay below the outcome by what rounds away."""
        z = location + standard
        index = self._index(value).expand(*z.shape[:-1], 1)
        top, eps = z.gather(-1, index), torch.finfo(z.dtype).eps
        most = top - 2 * eps * (top.abs() + location.abs()) - location
        chosen = torch.arange(z.shape[-1], device=z.device) == index
        return torch.where(chosen, standard, torch.minimum(standard, most))

    def _index(self, value: Tensor) -> Tensor:
        return value.argmax(-1, keepdim=True) if self.one_hot else value.long().unsqueeze(-1)

    def relax(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """``softmax(z / temperature)``, a point of the simplex."""
        if isinstance(temperature, Tensor) and temperature.dim():
            temperature = temperature.unsqueeze(-1)
        return torch.softmax(z * (1 / temperature), -1)

    @property
    def soft(self) -> Categorical:
        """Its one-hot law."""
        return self if self.one_hot else replace(self, one_hot=True)

    def hardened(self, z: Tensor, parameters: Parameters) -> Tensor:
        """The argmax, as an index or as a one-hot vector in the dtype of the parameter."""
        return self._value(z, parameters[self.given])

    def _value(self, scores: Tensor, given: Tensor) -> Tensor:
        index = scores.argmax(-1)
        return _one_hot(index, given.shape[-1]).to(given.dtype) if self.one_hot else index

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """``log p_b``, or ``sum b log p`` which is linear in a one-hot ``b``."""
        log_p = self.log_probabilities(parameters)
        if self.one_hot:
            lowest = torch.finfo(log_p.dtype).min
            return threshold((wide(value) * log_p.clamp(min=lowest)).sum(-1), lowest, -INFINITY)
        index = value.long().unsqueeze(-1)
        batch = broadcast(index.shape[:-1], log_p.shape[:-1])
        return log_p.expand(*batch, -1).gather(-1, index.expand(*batch, 1)).squeeze(-1)

    def score(self, parameters: Parameters, value: Tensor) -> dict[str, Tensor] | None:
        """One-hot ``b`` minus ``p``, for logits."""
        if self.given == "probs":
            return None
        probs = torch.softmax(parameters["logits"], -1)
        if not self.one_hot:
            value = _compared(value.long(), probs.shape[-1])
        return {"logits": value.to(probs.dtype) - probs}

    @property
    def has_fixed_support(self) -> bool:
        """True."""
        return True

    def support(self, parameters: Parameters) -> Tensor:
        """``0 ... n - 1``, or the identity matrix."""
        given = parameters[self.given]
        count = given.shape[-1]
        if self.one_hot:
            return torch.eye(count, dtype=given.dtype, device=given.device)
        return torch.arange(count, device=given.device)

    def mass(self, parameters: Parameters) -> Tensor:
        """The probabilities, with the outcomes in front."""
        return self.probabilities(parameters).movedim(-1, 0)

    def mode(self, parameters: Parameters) -> Tensor:
        """The likeliest outcome."""
        given = parameters[self.given].detach()
        return self._value(given, given)

    def violations(self, parameters: Parameters) -> str | None:
        """Probs off the simplex once divided by their sum, or a logit that is NaN."""
        given = parameters[self.given]
        checked = given / given.sum(-1, keepdim=True) if self.given == "probs" else given
        return violation(self.given, td.Categorical.arg_constraints[self.given], checked)

    def distribution(self, parameters: Parameters) -> td.Distribution:
        """The torch class of the same name."""
        cls = td.OneHotCategorical if self.one_hot else td.Categorical
        return cls(**{self.given: parameters[self.given]}, validate_args=False)


def _one_hot(index: Tensor, count: int) -> Tensor:
    """Return ``torch.nn.functional.one_hot``, which looks at values where that is not allowed."""
    return _compared(index, count) if is_transformed() else one_hot(index, count)


def _compared(index: Tensor, count: int) -> Tensor:
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)
