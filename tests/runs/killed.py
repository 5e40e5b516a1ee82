"""A short run that is killed at random moments and gone on with: prints what it came to each time, as JSON.

Run as a process of its own, which imports torch once and forks what it kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch.distributions import Bernoulli

import scg
import scg.runs

STEPS, TRIALS = 12, 20
SETTINGS = {"rate": 0.05, "seed": 3}


def declared() -> scg.Graph:
    g = scg.Graph("killed")
    x = g.input("x", plates="batch", example=torch.zeros(2, 3))
    b = g.sample("b", Bernoulli, logits=g.det("first", torch.nn.Linear(3, 2), x))
    c = g.sample("c", Bernoulli, logits=g.det("second", torch.nn.Linear(2, 2), 2 * b - 1))
    g.cost("loss", (b.sum(-1) - 0.7) ** 2 + (c.sum(-1) - 1.3) ** 2)
    return g


def train(folder: Path, program: scg.Program) -> None:
    """Train under a control variate that is learned and a baseline that remembers, saved after every step."""
    groups = [{"params": [*program.model_parameters()]}, {"params": [*program.control_parameters()]}]
    adam = torch.optim.Adam(groups, lr=SETTINGS["rate"])
    resume = (folder / "run.json").exists()
    with scg.runs.open(folder, SETTINGS, resume=resume, every=0, progress=False, tensorboard=False) as run:
        run.at_saves(lambda: None)
        run.keep(program=program, adam=adam)
        for step in run.steps(STEPS):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            adam.zero_grad()
            estimate = program(x=x, seed=scg.runs.seed_of(SETTINGS["seed"], step))
            estimate.loss.backward()
            adam.step()
            run.log(loss=estimate.loss)


def forked(folder: Path, program: scg.Program) -> int:
    child = os.fork()
    if not child:
        try:
            train(folder, program)
        finally:
            # 0 unless an error is on its way, which nothing here catches.
            os._exit(sys.exc_info()[0] is not None)
    return child


def reached(folder: Path) -> dict[str, object]:
    state = torch.load(folder / "run.pt", weights_only=True)["parts"][""]
    flat = [value for thing in (state["things"]["program"],) for value in thing.values()]
    table = [line.split(",") for line in (folder / "run.csv").read_text().splitlines()]
    return {
        "step": state["step"],
        "bits": [value.double().flatten().tolist() for value in flat],
        "losses": [(row["step"], row["loss"]) for row in state["rows"]],
        "table": [[row[1], row[3]] for row in table],
    }


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    program = scg.compile(declared(), {"b": "relax", "c": "nvil"})
    program(x=torch.zeros(4, 3), seed=0)
    start = time.perf_counter()
    assert os.waitpid(forked(out / "whole", program), 0)[1] == 0
    took, moments = time.perf_counter() - start, random.Random(1)
    found, early = [reached(out / "whole")], 0
    for trial in range(TRIALS):
        folder = out / f"killed{trial}"
        child = forked(folder, program)
        time.sleep(took * moments.random())
        os.kill(child, signal.SIGKILL)
        early += os.waitpid(child, 0)[1] == signal.SIGKILL
        assert os.waitpid(forked(folder, program), 0)[1] == 0
        found.append(reached(folder))
    sys.stdout.write(json.dumps({"found": found, "early": early}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
