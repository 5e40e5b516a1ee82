"""Log-probabilities as they are written down are those that programs compute, for every logit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scg.laws import exporting
from scg.laws.bernoulli import Bernoulli

LOGITS = (-math.inf, -1e200, -800.0, -40.0, -0.3, 0.0, 1.2, 40.0, 800.0, 1e200, math.inf, math.nan)
VALUES = (0.0, 0.25, 1.0)


def both(logits: Tensor, value: Tensor, lead: int) -> list[tuple[Tensor, Tensor]]:
    """Return log p and its gradients in logits and value, as they are computed and as they are written."""
    found = []
    for is_written in (False, True):
        leaves = [logits.clone().requires_grad_(), value.clone().requires_grad_()]
        law = Bernoulli("logits")
        if is_written:
            with exporting():
                log = law.log_prob_over({"logits": leaves[0]}, leaves[1], lead)
        else:
            log = law.log_prob_over({"logits": leaves[0]}, leaves[1], lead)
        found.append([log.detach(), *torch.autograd.grad(log.sum(), leaves)])
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("logit", LOGITS)
def test_one_logit(logit: float) -> None:
    logits = torch.full((3,), logit, dtype=torch.float64)
    (one, other), (slope, written), _ = both(logits, torch.tensor(VALUES, dtype=torch.float64), 1)
    assert torch.allclose(one, other, rtol=1e-12, atol=1e-14, equal_nan=True)
    if not math.isnan(logit):
        assert torch.allclose(slope, written, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "shapes", [((5, 4), (5, 4)), ((4,), (5, 4)), ((5, 1, 4), (5, 3, 4)), ((2, 4), (6, 2, 4))]
)
def test_events_and_leading_dimensions(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(shapes[0], dtype=torch.float64)
    for value in (torch.rand(shapes[1], dtype=torch.float64), torch.rand(shapes[1]).round().double()):
        for one, other in both(logits, value, len(shapes[1]) - 1):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-13) and one.shape == other.shape
