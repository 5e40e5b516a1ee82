"""The pictures of a task: reward and variance of gradients, against episodes and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scg.experiments.pictures import band
from scg.experiments.rl.results import Curves
from scg.experiments.rl.tasks import Task
from scg.experiments.rl.training import History
from scg.panels import png

COLOURS = {
    "relax": "#b8324a",
    "lax": "#2f6db5",
    "score+value": "#3b8f5a",
    "a2c": "#7c54a5",
    "score": "#d98a00",
}
AXES = ("episodes", "processor seconds of a run")
POINTS, SMOOTHED = 200, 20


def draw_curves(curves: Sequence[Curves], task: Task) -> bytes:
    """Return a PNG with the curves of every policy; needs matplotlib."""

    def draw(grid: Any) -> None:
        for row, places in zip(("reward", "log_variance"), grid, strict=True):
            for column, axes in enumerate(places):
                _panel(axes, curves, task, row, column)

    return png(2, 2, draw)


def _panel(axes: Any, curves: Sequence[Curves], task: Task, row: str, column: int) -> None:
    """Draw the mean over runs within two standard errors; a run that is over keeps its last value."""
    ends = [float(x[-1]) for one in curves for x in _abscissae(one, column)]
    grid = torch.linspace(0, max(ends), POINTS, dtype=torch.float64)
    for one in curves:
        found = torch.stack(
            [_at(grid, x, y) for x, y in zip(_abscissae(one, column), _ordinates(one, row), strict=True)],
            1,
        )
        band(axes, grid, found, one.policy, COLOURS[one.policy])
    if row == "reward" and task.solved is not None:
        axes.axhline(task.solved, color="black", linewidth=0.7, linestyle=":")
    title = "reward of an episode" if row == "reward" else "log-variance of a gradient"
    axes.set(title=f"{task.env}: {title}", xlabel=AXES[column])
    axes.legend(loc="best")


def _abscissae(one: Curves, column: int) -> list[Tensor]:
    """Return, for every run, how far it was after every update."""
    found: list[Tensor] = []
    for history in one.histories:
        runs = history.reward.shape[1]
        seconds = (history.seconds / runs).unsqueeze(1).expand(-1, runs)
        found += (history.episodes.cumsum(0), seconds)[column].unbind(1)
    return found


def _ordinates(one: Curves, row: str) -> list[Tensor]:
    return [
        values
        for history in one.histories
        for values in (smoothed(history) if row == "reward" else history.log_variance).unbind(1)
    ]


def smoothed(history: History) -> Tensor:
    """Return the mean reward over the last updates, [update, run]."""
    total = torch.cat((torch.zeros_like(history.reward[:1]), history.reward.cumsum(0)))
    end = torch.arange(1, len(total))
    start = (end - SMOOTHED).clamp(min=0)
    found: Tensor = (total[end] - total[start]) / (end - start).unsqueeze(1)
    return found


def _at(grid: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the last y that was known at each point of a grid, NaN before there was any."""
    known = y.isfinite()
    if not known.any():
        return torch.full_like(grid, torch.nan)
    place = torch.searchsorted(x[known].contiguous(), grid, right=True) - 1
    return torch.where(place < 0, torch.nan, y[known][place.clamp(min=0)])
