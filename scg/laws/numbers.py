"""Logarithms that stay right at the ends of the unit interval, and noise transforms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest

import torch
from torch import Size, Tensor
from torch.nn.functional import softplus, threshold

INFINITY = float("inf")
# A log-odds or minus a log-probability beyond which nothing changes, yet small enough to compute with.
FAR = 1e3
_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)
HALVES = (torch.bfloat16, torch.float16)


def is_transformed() -> bool:
    """Whether torch.compile traces this, or a functorch transform runs it: no place for ``autograd.grad``."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


@contextmanager
def exporting() -> Iterator[None]:
    """Have calls written down: what a look at one value decides would then hold for all."""
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)


def is_exporting() -> bool:
    """Whether calls are written down, which nothing that torch.compile traces is."""
    return not torch.compiler.is_compiling() and _EXPORTING.get()


def can_look(tensor: Tensor) -> bool:
    """Whether reading a value costs no synchronisation, and is allowed: eager, on the CPU, not exported."""
    return tensor.device.type == "cpu" and not is_transformed() and not is_exporting()


def is_seen_within(tensor: Tensor, limit: float) -> bool:
    """Whether a look tells that every number is between ``-limit`` and ``limit``."""
    if not can_look(tensor) or not tensor.numel():
        return False
    low, high = torch.aminmax(tensor.detach())
    return -limit <= float(low) and float(high) <= limit


def within(tensor: Tensor, limit: float) -> Tensor:
    """``tensor.clamp(-limit, limit)``, whose derivative is dear: skipped where a look says it can be."""
    if tensor.requires_grad and is_seen_within(tensor, limit):
        return tensor
    return tensor.clamp(-limit, limit)


def is_seen_finite(tensor: Tensor) -> bool:
    """Whether a look tells that every number is finite, as their sum is."""
    return can_look(tensor) and math.isfinite(float(tensor.detach().sum()))


def divisor(weights: Tensor) -> Tensor:
    """Weights to divide by: where one has vanished and has no reciprocal, infinity, so that 0 is left."""
    return torch.where(weights >= torch.finfo(weights.dtype).tiny, weights, INFINITY)


def wide(tensor: Tensor) -> Tensor:
    """Half precision widened to float32; anything else as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def opened(unit: Tensor) -> Tensor:
    """Numbers of the unit interval moved off its ends, to where base noise is.

    >>> opened(torch.tensor([0.0, 0.5, 1.0])).logit().isfinite().all()
    tensor(True)
    """
    bounds = torch.finfo(unit.dtype)
    return unit.clamp(bounds.tiny, 1 - bounds.eps / 2)


def log_both(probs: Tensor) -> tuple[Tensor, Tensor]:
    """``(log p, log(1 - p))``, with zero gradients where p is exactly 0 or 1."""
    zero, one = probs == 0, probs == 1
    inner = torch.where(zero | one, 0.5, probs)
    log_p = torch.where(zero, -INFINITY, torch.where(one, 0.0, inner.log()))
    log_q = torch.where(one, -INFINITY, torch.where(zero, 0.0, torch.log1p(-inner)))
    return log_p, log_q


def log_odds(probs: Tensor) -> Tensor:
    """``log p - log(1 - p)``, finite and without a gradient where p is exactly 0 or 1."""
    bounds = torch.finfo(probs.dtype)
    inner = probs.clamp(bounds.tiny, 1 - bounds.eps / 2)
    # Without the constant, noise as small as 2^-53 would draw a 0 where p is 1.
    return torch.where(probs == 1, FAR, inner.log() - torch.log1p(-inner))


def log_both_of_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``(log p, log(1 - p))`` where ``p = sigmoid(logits)``."""
    return -softplus(-logits), -softplus(logits)


def weighted(weight: Tensor, log: Tensor) -> Tensor:
    """``weight * log`` with ``0 * -inf = 0`` in value and in both gradients."""
    lowest = torch.finfo(log.dtype).min
    return threshold(weight * log.clamp(min=lowest), lowest, -INFINITY)


def log1p_exp(tensor: Tensor) -> Tensor:
    """``log(1 + exp x)``, exact also in float64, where torch's own threshold of 20 costs ``2e-9``."""
    return softplus(tensor, threshold=40.0)


def crosses(one: Size, other: Size) -> bool:
    """Whether, broadcast, each of two shapes is repeated along a dim of the other.

    >>> crosses(torch.Size([2, 1, 5]), torch.Size([3, 5])), crosses(torch.Size([2, 5]), torch.Size([5]))
    (True, False)
    """
    sizes = list(zip_longest(reversed(one), reversed(other), fillvalue=1))
    return any(a < b for a, b in sizes) and any(a > b for a, b in sizes)


def inner(one: Tensor, other: Tensor, rank: int) -> Tensor:
    """Sum the products over the last dims, as a matrix product where shapes cross.

    >>> inner(torch.ones(2, 1, 5), torch.ones(3, 5), 1).shape
    torch.Size([2, 3])
    """
    one, other = one.flatten(-rank), other.flatten(-rank)
    if crosses(one.shape, other.shape):
        return torch.einsum("...i,...i->...", one, other)
    return (one * other).sum(-1)


def logistic(noise: Tensor) -> Tensor:
    """Standard logistic noise ``log u - log(1 - u)`` from uniform noise."""
    return noise.log() - torch.log1p(-noise)


def gumbel(noise: Tensor) -> Tensor:
    """Standard Gumbel noise ``-log(-log u)`` from uniform noise."""
    return -torch.log(-torch.log(noise))
