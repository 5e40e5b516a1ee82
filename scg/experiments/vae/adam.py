"""Adam for several runs at once, each with a rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

EPSILON = 1e-8


class RunAdam(Optimizer):
    """Adam (Kingma and Ba, 2015) on parameters [run, ...], where each run has a rate.

    What is ``shared`` is of all runs in common, and has the mean of their rates. With ``amsgrad``, the
    largest second moments are kept (Reddi et al., 2018).
    """

    def __init__(
        self,
        own: Sequence[nn.Parameter],
        rates: Tensor,
        *,
        shared: Sequence[nn.Parameter] = (),
        beta: float = 0.999,
        amsgrad: bool = False,
    ) -> None:
        """Take the parameters of runs with these rates, [run]; beta is of second moments."""
        groups = [{"params": [*several], "own": several is own} for several in (own, shared) if several]
        super().__init__(groups, {"beta": beta, "amsgrad": amsgrad, "own": True})
        self.rates = rates

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step by the gradients that are there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state: dict[str, Any] = self.state[parameter]
        beta = group["beta"]
        if not state:
            names = ("first", "second", "largest") if group["amsgrad"] else ("first", "second")
            state.update({name: torch.zeros_like(parameter) for name in names}, step=torch.zeros(()))
        state["step"] += 1
        count = float(state["step"])
        state["first"].lerp_(gradient, 0.1)
        state["second"].mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
        second = state["second"]
        if group["amsgrad"]:
            second = torch.maximum(state["largest"], second, out=state["largest"])
        spread = (second / (1 - beta**count)).sqrt_().add_(EPSILON)
        rate = self.rates.view(-1, *(1,) * (parameter.dim() - 1)) if group["own"] else self.rates.mean()
        parameter.sub_(rate * state["first"] / (1 - 0.9**count) / spread)
