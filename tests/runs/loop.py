"""A loop that tests run: one number goes down under Adam, with noise of its step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import scg.runs

SETTINGS = {"rate": 0.1, "seed": 1}


class Loop:
    """A parameter and its optimizer."""

    def __init__(self) -> None:
        self.net = nn.Linear(1, 1)
        nn.init.ones_(self.net.weight)
        nn.init.zeros_(self.net.bias)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=0.1)

    def step(self, number: int) -> Tensor:
        noise = torch.randn(8, 1, generator=torch.Generator().manual_seed(number))
        self.adam.zero_grad()
        loss = (self.net(noise) - 3).square().mean()
        loss.backward()
        self.adam.step()
        return loss.detach()

    @property
    def kept(self) -> dict[str, Any]:
        return {"net": self.net, "adam": self.adam}

    @property
    def bits(self) -> list[float]:
        return [float(self.net.weight.detach()), float(self.net.bias.detach())]


def opened(folder: Path, settings: Any = SETTINGS, **options: Any) -> scg.runs.Run:
    return scg.runs.open(folder, settings, **{"progress": False, "tensorboard": False, **options})


def trained(
    folder: Path, count: int, during: Callable[[int], object] = lambda step: None, **options: Any
) -> Loop:
    loop = options.pop("loop", None) or Loop()
    with opened(folder, **options) as run:
        run.at_saves(lambda: None)
        run.keep(**loop.kept)
        for step in run.steps(count):
            run.log(loss=loop.step(step))
            during(step)
    return loop
