"""Running moments of gradients, and the variance that they tell of."""

from __future__ import annotations

import torch
from torch import Tensor

DECAY = 0.99


class Moments:
    """The running mean of gradients [run, parameter] and of their squares.

    With weights w of the past that sum to 1, sum w g^2 - (sum w g)^2 is the variance times 1 - sum w^2, if
    gradients are independent and alike.
    """

    def __init__(self) -> None:
        """Start without any gradient."""
        self.first, self.second = torch.zeros(()), torch.zeros(())
        self.mass, self.squares = 0.0, 0.0

    def add(self, gradients: Tensor) -> None:
        """Take the gradients of an update into account."""
        rate = 1 - DECAY
        self.first = DECAY * self.first + rate * gradients
        self.second = DECAY * self.second + rate * gradients.square()
        self.mass = DECAY * self.mass + rate
        self.squares = DECAY**2 * self.squares + rate**2

    def log_variance(self) -> Tensor:
        """Return the logarithm of the variance of each run, the mean over its parameters; NaN at first."""
        biased = (self.second / self.mass - (self.first / self.mass).square()).clamp(min=0).mean(1)
        share = 1 - self.squares / self.mass**2
        return (biased / share).log() if share > 1e-9 else torch.full_like(biased, torch.nan)

    def state(self) -> dict[str, Tensor | float]:
        """Return what a checkpoint keeps."""
        return dict(vars(self))

    def restore(self, state: dict[str, Tensor | float]) -> None:
        """Go on from a checkpoint."""
        vars(self).update(state)
