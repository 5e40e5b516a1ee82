"""One seed, one set of draws: eager, under torch.compile on every back-end, and over processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Normal
from torch.multiprocessing.spawn import spawn

import scg
from tests.selection import some
from tests.support.running import grads
from tests.truth.building import double
from tests.truth.processes import STEPS, averaging, batch, run_other, run_rank

SEEDS = (0, 7, 2**31, 2**62 + 3, 2**63 - 1, -5)


def drawn() -> scg.Graph:
    g = scg.Graph()
    x = g.input("x", plates="batch", example=torch.ones(4).double())
    b = g.sample("b", Bernoulli, logits=x * g.param("l", double(0.3)))
    g.cost("c", (g.sample("z", Normal, loc=b, scale=1.0) - 0.4) ** 2)
    return g


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("backend", some(["inductor", "aot_eager"], 2))
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
