"""Temperature: that of a relaxation, which is a number, follows a schedule or is learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.variates import Positive
from scg.estimators.protocol.site import Site
from scg.laws import can_look, is_exporting

Temperature = float | Callable[[Tensor], Any] | Literal["learned"]
START = 0.5
"""The temperature that is learned, before it is."""


class Scheduled(nn.Module):
    """A temperature that a function gives of the number of runs so far, both kept in ``state_dict``."""

    runs: Tensor
    now: Tensor

    def __init__(self, schedule: Callable[[Tensor], Any], dtype: torch.dtype) -> None:
        """Start at no run."""
        super().__init__()
        self.schedule = schedule
        self.register_buffer("runs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("now", self._at(self.runs, torch.empty((), dtype=dtype)))

    @property
    def value(self) -> Tensor:
        """The number."""
        return self.now

    def advance(self) -> None:
        """Count a run, unless it is written down: a module of torch alone takes the temperature as it is.

        Tensors are new, as torch.compile may read the old ones in the backward of the run.
        """
        if is_exporting():
            return
        self.runs = self.runs + 1
        self.now = self._at(self.runs, self.now)

    def _at(self, runs: Tensor, like: Tensor) -> Tensor:
        with torch.no_grad():
            found = torch.as_tensor(self.schedule(runs), dtype=like.dtype, device=like.device)
        if can_look(found) and not (found.numel() == 1 and 0 < float(found) < math.inf):
            raise EstimatorError(
                f"the schedule gave the temperature {found.tolist()} after {int(runs)} runs: return one "
                "number that is positive and finite, as max(0.5, 0.999**n)"
            )
        return found.reshape(())


def check_temperature(given: Any) -> None:
    """Refuse what is no temperature."""
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if is_number and 0 < given < math.inf:
        return
    if is_number or not (callable(given) or given == "learned"):
        raise EstimatorError(
            "temperature is a positive number, a function of the number of runs so far, or 'learned', not "
            f"{given!r}"
        )


def held_temperature(given: Temperature, dtype: torch.dtype) -> nn.Module | None:
    """Return a module that holds the temperature where it does not stay a number."""
    if given == "learned":
        return Positive(START, dtype, is_learned=True)
    return Scheduled(given, dtype) if callable(given) else None


def temperature_at(site: Site, given: Temperature) -> float | Tensor:
    """Return the temperature of a run."""
    if isinstance(site.controls, (Positive, Scheduled)):
        return site.controls.value
    assert isinstance(given, (int, float))
    return float(given)


def count_run(site: Site) -> None:
    """Take a run into account where a schedule does, in training."""
    if site.training and isinstance(site.controls, Scheduled):
        site.controls.advance()
