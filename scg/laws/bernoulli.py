"""The Bernoulli law, from probs or from logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, threshold

from scg.laws.law import Parameters, sum_event, violation
from scg.laws.numbers import (
    FAR,
    HALVES,
    INFINITY,
    crosses,
    inner,
    is_exporting,
    is_seen_finite,
    is_seen_within,
    log1p_exp,
    log_both,
    log_odds,
    logistic,
    weighted,
    wide,
    within,
)
from scg.laws.relaxable import Relaxable

MODERATE = 100.0
"""Logits up to which sums over an event may be taken apart, and lose few digits to each other."""


@dataclass(frozen=True)
class Bernoulli(Relaxable):
    """``b = 1[z > 0]`` with ``z = logits + log u - log(1 - u)``; ``given`` names the parameter."""

    @property
    def family(self) -> str:
        """Readable name."""
        return "Bernoulli"

    def location(self, parameters: Parameters) -> Tensor:
        """``log p - log(1 - p)``, kept finite: its derivative is 0 where a value is certain."""
        parameter = wide(parameters[self.given])
        return log_odds(parameter) if self.given == "probs" else within(parameter, FAR)

    def probs(self, parameters: Parameters) -> Tensor:
        """Probability of a one."""
        parameter = wide(parameters[self.given])
        return parameter if self.given == "probs" else torch.sigmoid(parameter)

    def standard(self, noise: Tensor) -> Tensor:
        """``log u - log(1 - u)``."""
        return logistic(noise)

    def hardened(self, z: Tensor, parameters: Parameters) -> Tensor:
        """``1[z > 0]`` in the dtype of the parameter."""
        return (z > 0).to(parameters[self.given].dtype)

    def conditional(self, parameters: Parameters, value: Tensor, noise: Tensor) -> Tensor:
        """``s (log(1 + w exp(s logits)) - log(1 - w))`` with ``s = 2b - 1``."""
        sign = 2 * wide(value) - 1
        tilted = torch.addcmul(noise.log(), sign, self.location(parameters))
        return sign * (log1p_exp(tilted) - torch.log1p(-noise))

    def settled(self, location: Tensor, value: Tensor, standard: Tensor) -> Tensor:
        """A one keeps ``z`` above 0."""
        least = location.abs() * torch.finfo(standard.dtype).eps - location
        return torch.where(value > 0, torch.maximum(standard, least), standard)

    def points(
        self, parameters: Parameters, standard: Tensor, value: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        """``z`` and ``z~``, whose derivatives in the logits are 1 and sigmoid(s logits + log w)."""
        if self.given == "probs":
            return super().points(parameters, standard, value, fresh)
        location = wide(parameters["logits"]).detach().clamp(-FAR, FAR)
        sign = 2 * wide(value) - 1
        tilted = torch.addcmul(fresh.log(), sign, location)
        tied = sign * (log1p_exp(tilted) - torch.log1p(-fresh))

        def back(slopes: Tensor) -> dict[str, Tensor]:
            return {"logits": torch.addcmul(slopes[0], slopes[1], torch.sigmoid(tilted))}

        return torch.stack((location + standard, tied)), back

    def relax(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """``sigmoid(z / temperature)``."""
        return torch.sigmoid(z * (1 / temperature))

    @property
    def soft(self) -> Bernoulli:
        """Itself: ``log_prob`` is linear in the value."""
        return self

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """``b log p + (1 - b) log(1 - p)``, linear in ``b``."""
        parameter, value = wide(parameters[self.given]), wide(value)
        if self.given == "probs":
            log_p, log_q = log_both(parameter)
            return weighted(value, log_p) + weighted(1 - value, log_q)
        bounds = torch.finfo(parameter.dtype)
        logits, value = torch.broadcast_tensors(parameter.clamp(bounds.min, bounds.max), value)
        log = -binary_cross_entropy_with_logits(logits, value, reduction="none")
        return threshold(log, bounds.min, -INFINITY)

    def log_prob_over(self, parameters: Parameters, value: Tensor, lead: int) -> Tensor:
        """The sum of ``b l - log(1 + exp l)`` in few operations, right where it is seen to be finite."""
        logits = parameters[self.given]
        if self.given == "logits" and logits.dtype == value.dtype and logits.dtype not in HALVES:
            if is_exporting():
                return _written(logits, value, lead)
            rank = _shared_rank(logits, value, lead)
            if rank and crosses(logits.shape, value.shape) and not is_seen_within(logits, MODERATE):
                return _mixed(logits, value, rank)
            log = _cross_entropy(logits, value, lead, rank)
            return log if is_seen_finite(log) else _guarded(logits, value, lead, rank)
        return super().log_prob_over(parameters, value, lead)

    def score(self, parameters: Parameters, value: Tensor) -> dict[str, Tensor] | None:
        """``b - p`` for logits."""
        if self.given == "probs":
            return None
        return {"logits": value - torch.sigmoid(parameters["logits"])}

    @property
    def has_fixed_support(self) -> bool:
        """True."""
        return True

    def support(self, parameters: Parameters) -> Tensor:
        """``[0, 1]``."""
        given = parameters[self.given]
        return torch.arange(2, dtype=given.dtype, device=given.device)

    def mass(self, parameters: Parameters) -> Tensor:
        """``[1 - p, p]``."""
        given = wide(parameters[self.given])
        if self.given == "probs":
            return torch.stack((1 - given, given))
        return torch.stack((torch.sigmoid(-given), torch.sigmoid(given)))

    def mode(self, parameters: Parameters) -> Tensor:
        """``1[p > 1/2]``."""
        given = parameters[self.given].detach()
        return (given > (0.5 if self.given == "probs" else 0.0)).to(given.dtype)

    def violations(self, parameters: Parameters) -> str | None:
        """Probs outside the unit interval, or a logit that is NaN."""
        return violation(self.given, TorchBernoulli.arg_constraints[self.given], parameters[self.given])

    def distribution(self, parameters: Parameters) -> TorchBernoulli:
        """``torch.distributions.Bernoulli``."""
        return TorchBernoulli(**{self.given: parameters[self.given]}, validate_args=False)


def _cross_entropy(logits: Tensor, value: Tensor, lead: int, rank: int) -> Tensor:
    """``b l - log(1 + exp l)`` summed over all but the leading dims; not a number at some infinite logits."""
    if _is_full(logits, value):
        full = value.expand_as(logits)
        return -sum_event(torch.binary_cross_entropy_with_logits(logits, full), lead)
    if rank:
        # What does not depend on the value is summed by itself.
        return inner(value, logits, rank) - log1p_exp(logits).flatten(-rank).sum(-1)
    return sum_event(value * logits - log1p_exp(logits), lead)


def _guarded(logits: Tensor, value: Tensor, lead: int, rank: int) -> Tensor:
    """The same sum, right for every logit."""
    if rank and not _is_full(logits, value):
        return _mixed(logits, value, rank)
    bounds = torch.finfo(logits.dtype)
    log = _cross_entropy(logits.clamp(bounds.min, bounds.max), value, lead, 0)
    return threshold(log, -(bounds.max**0.5), -INFINITY)


def _written(logits: Tensor, value: Tensor, lead: int) -> Tensor:
    """The same sum for all shapes and logits, as a person would write it."""
    finite = logits.nan_to_num(nan=math.nan)
    log = sum_event(value * logsigmoid(finite) + (1 - value) * logsigmoid(-finite), lead)
    return threshold(log, -1e-6 * torch.finfo(logits.dtype).max, -INFINITY)


def _mixed(logits: Tensor, value: Tensor, rank: int) -> Tensor:
    """``b log p + (1 - b) log(1 - p)`` summed over the last dims, in products that do not cancel."""
    most = torch.finfo(logits.dtype).max ** 0.5  # of which many can be added
    logits = logits.clamp(-most, most)
    log_p = logsigmoid(logits)
    log = inner(value, log_p, rank) + inner(1 - value, log_p - logits, rank)
    return threshold(log, -1e-6 * most, -INFINITY)


def _is_full(logits: Tensor, value: Tensor) -> bool:
    """Whether logits have all dims of a value."""
    return logits.shape[max(logits.dim() - value.dim(), 0) :] == value.shape


def _shared_rank(logits: Tensor, value: Tensor, lead: int) -> int:
    """Return how many dims an event has, 0 where logits and values do not have them alike."""
    rank = max(logits.dim(), value.dim()) - lead
    return rank if rank > 0 and logits.shape[-rank:] == value.shape[-rank:] else 0
