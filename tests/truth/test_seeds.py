"""One seed, one set of draws: eager, under torch.compile on every back-end, and over processes."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal
from torch.multiprocessing.spawn import spawn

import scg
from tests.support.running import grads
from tests.truth.building import double

SEEDS = (0, 7, 2**31, 2**62 + 3, 2**63 - 1, -5)


def drawn() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.ones(4).double())
    b = g.sample("b", Bernoulli, logits=x * g.param("l", double(0.3)))
    g.cost("c", (g.sample("z", Normal, loc=b, scale=1.0) - 0.4) ** 2)
    return g


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_seed_draws_the_same_on_every_back_end(backend: str) -> None:
    x = torch.linspace(-1.0, 1.0, 32).double()
    program = scg.compile(drawn(), policy={"b": "score"})
    whole = torch.compile(program, fullgraph=True, backend=backend)
    for seed in SEEDS:
        expected = program(x=x, seed=seed)
        found = whole(x=x, seed=seed)
        assert torch.equal(found.samples["b"], expected.samples["b"]), seed
        assert torch.allclose(found.samples["z"], expected.samples["z"], rtol=1e-12, atol=1e-12), seed
        assert torch.allclose(found.loss, expected.loss), seed


# ---- moving averages of several processes

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


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_moving_averages_of_processes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    context = spawn(run_other, (str(tmp_path),), join=False)
    found = run_rank(0, str(tmp_path))
    while not context.join():
        pass
    program = averaging()
    for step in range(STEPS):
        noise = program.draw_noise(step, x=batch(step))
        program.zero_grad()
        program(x=batch(step), noise=noise).loss.backward()
        assert torch.allclose(found[step]["l"], grads(program)["l"], atol=1e-9), step
