"""Training of some runs of a task under one policy: an update at a time, and what it gave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scg.experiments.rl.moments import Moments
from scg.experiments.rl.problem import Setting, program_of
from scg.runs import seed_of

ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class History:
    """What every update of some runs gave, [update, run], and ``seconds`` [update] of the processor so far.

    ``reward`` is that of an episode, the mean where an update has several; ``episodes`` and ``steps`` are
    counts of one update.
    """

    reward: Tensor
    log_variance: Tensor
    episodes: Tensor
    steps: Tensor
    seconds: Tensor


class Training:
    """Runs that are trained in one program.

    All that is drawn in an update is a function of the seed and of its number, so that policies that are
    equal play equal episodes, and what goes on from a checkpoint goes on as it would have done.
    """

    def __init__(self, setting: Setting, policy: str, runs: Sequence[int]) -> None:
        """Compile the program, which refuses what does not fit."""
        self.setting, self.policy, self.runs = setting, policy, tuple(runs)
        self.program = program_of(setting, policy, self.runs)
        self.model = [*self.program.model_parameters()]
        self.controls = [*self.program.control_parameters()]
        # A group without parameters is none, and an optimizer needs one.
        self.optimizers = [
            torch.optim.Adam(parameters, lr=rate)
            for parameters, rate in ((self.model, setting.rate), (self.controls, setting.control_rate))
            if parameters
        ]
        self.moments = Moments()
        self.unsolved = torch.ones(len(self.runs), dtype=torch.bool)
        self.rows: list[tuple[Tensor, ...]] = []
        self.seconds = 0.0

    def update(self) -> None:
        """Play, and take a step of Adam.

        All control steps on a record are taken after the gradient of the model, which would be biased by
        controls that know the record, and under the policy that played it.
        """
        start = time.process_time()
        noise = self.program.draw_noise(seed_of(self.setting.seed, self.runs[0], "update", len(self.rows)))
        self.program.zero_grad()
        self.program(noise=noise).loss.backward()
        for optimizer in self.optimizers[1:]:
            optimizer.step()
            for _ in range(self.setting.value_steps - 1):
                optimizer.zero_grad()
                self._teach(noise)
                optimizer.step()
        gradients = torch.cat(
            [p.grad.reshape(len(self.runs), -1) for p in self.model if p.grad is not None], 1
        )
        self.optimizers[0].step()
        self.moments.add(gradients)
        self.seconds += time.process_time() - start
        self._keep(noise["ep"])

    def _teach(self, noise: dict[str, Any]) -> None:
        """Give the controls their gradients, and the model none."""
        loss = self.program(noise=noise).loss
        found = torch.autograd.grad(loss, self.controls, materialize_grads=True)
        for parameter, gradient in zip(self.controls, found, strict=True):
            parameter.grad = gradient

    def _keep(self, record: Any) -> None:
        """Add what an update gave to the history: of episodes by run, or of all episodes of the only run."""
        total, count = record["reward"].double().sum(1), record["mask"].double().sum(1)
        if not self.setting.of.vectorised:
            total, count = total.mean(0, keepdim=True), count.sum(0, keepdim=True)
        episodes = torch.full_like(total, len(record["mask"]) / len(total))
        log_variance = self.moments.log_variance().double()
        seconds = torch.tensor(self.seconds, dtype=torch.float64)
        self.rows.append((total, log_variance, episodes, count, seconds))
        task = self.setting.of
        if task.solved is not None and len(self.rows) >= task.window:
            self.unsolved &= self.recent() < task.solved - ROUNDING

    @property
    def history(self) -> History:
        """What was measured so far."""
        return History(*(torch.stack(column) for column in zip(*self.rows, strict=True)))

    def recent(self) -> Tensor:
        """Return the mean reward of every run in the window that counts."""
        return torch.stack([row[0] for row in self.rows[-self.setting.of.window :]]).mean(0)

    @property
    def is_solved(self) -> bool:
        """Whether every run is."""
        return not bool(self.unsolved.any())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "program": self.program.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "moments": self.moments.state(),
            "rows": self.rows,
            "seconds": self.seconds,
            "unsolved": self.unsolved,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.program.load_state_dict(state["program"])
        for optimizer, found in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(found)
        self.moments.restore(state["moments"])
        self.rows, self.seconds, self.unsolved = [*state["rows"]], state["seconds"], state["unsolved"]


def when_solved(reward: Tensor, window: int, threshold: float) -> Tensor:
    """Return the updates [run] until the mean of the last ``window`` reached a threshold, NaN where never.

    >>> when_solved(torch.tensor([[0.0], [2.0], [2.0]]), 2, 2.0)
    tensor([3.], dtype=torch.float64)
    """
    never = torch.full(reward.shape[1:], torch.nan, dtype=torch.float64)
    if len(reward) < window:
        return never
    total = torch.cat((reward.new_zeros(1, *reward.shape[1:]), reward.cumsum(0))).double()
    reached = (total[window:] - total[:-window]) / window >= threshold - ROUNDING
    first = reached.to(torch.uint8).argmax(0) + window
    return torch.where(reached.any(0), first.double(), never)
