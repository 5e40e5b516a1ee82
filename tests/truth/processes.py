"""One of two processes that train a program with a moving average together, where spawning finds it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from tests.support.running import grads
from tests.truth.building import double

STEPS, SIZE = 3, 4


def averaging() -> scg.Program:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.ones(SIZE).double())
    b = g.sample("b", Bernoulli, logits=x * g.param("l", double(0.3)))
    g.cost("c", lambda b, x: (b - 0.4) ** 2 + 3 * x, b, x)
    return scg.compile(g, policy=scg.Score(baseline="moving-average"))


def batch(step: int) -> Tensor:
    return torch.linspace(-1.0, 2.0, SIZE).double() * (step + 1)


def run_rank(rank: int, path: str) -> list[dict[str, Tensor]]:
    """Run some steps on half of each batch, with that half of its noise, and return every step's gradient."""
    meeting = (Path(path) / "meeting").as_uri()
    limit = timedelta(minutes=2)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    half = slice(SIZE // 2 * rank, SIZE // 2 * (rank + 1))
    seen = []
    try:
        program = averaging()
        parallel: Any = nn.parallel.DistributedDataParallel(program)
        for step in range(STEPS):
            noise = {name: part[half] for name, part in program.draw_noise(step, x=batch(step)).items()}
            program.zero_grad()
            parallel(x=batch(step)[half], noise=noise).loss.backward()
            seen.append(grads(program))
        del parallel  # before the group that its threads belong to
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    return seen


def run_other(_: int, path: str) -> None:
    """Be the second of two processes, which ends without waiting for threads that torch leaves behind."""
    torch.set_num_threads(1)
    run_rank(1, path)
    os._exit(0)
