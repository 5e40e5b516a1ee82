"""The command ``scg run simulator``: throws over a wall, learned from what has no derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

import scg
from scg.experiments.learning import Experiment, Learner
from scg.runs import seed_of

STEP, STEPS, DRAG, GRAVITY = 0.08, 50, 0.02, 9.81
WALL, HEIGHT = 5.0, 4.0
NEAR, FAR, WIND = 8.0, 20.0, 4.0
UNIT, LEAST, BATCH, TESTED = 5.0, 0.05, 16, 1000
"""Metres that count 1, the least scale of a throw, fields of a step and fields to be measured on."""


def fly(throw: Any, wind: Any) -> Any:
    """Return the flights of throws [..., (angle, speed)], arrays of NumPy, as places [time, (x, y), ...].

    What hits the wall falls down at it, so that where a throw comes down jumps with its angle.
    """
    import numpy as np

    angle, speed = 0.8 + 0.3 * throw[..., 0], 14 + 4 * throw[..., 1]
    x, y = np.zeros_like(angle), np.zeros_like(angle)
    u, v = speed * np.cos(angle), speed * np.sin(angle)
    places = [np.stack((x, y))]
    for _ in range(STEPS):
        drag = DRAG * np.hypot(u - wind, v)
        u, v = u - STEP * drag * (u - wind), v - STEP * (GRAVITY + drag * v)
        flies = y >= 0
        ahead, y = np.where(flies, x + STEP * u, x), np.where(flies, y + STEP * v, y)
        hits = (x < WALL) & (ahead >= WALL) & (y < HEIGHT)
        x, u = np.where(hits, WALL, ahead), np.where(hits, 0.0, u)
        places.append(np.stack((x, y)))
    return np.stack(places)


def miss(throw: Tensor, field: Tensor) -> Tensor:
    """Return by how much throws miss the target of a field (target, wind), in units."""
    goal, wind = field.unbind(-1)
    landed = torch.from_numpy(fly(throw.double().numpy(), wind.double().numpy())[-1, 0])
    return ((landed - goal).abs() / UNIT).to(throw.dtype)


def fields(count: int, seed: int) -> Tensor:
    """Return how far targets are and how the wind is, [field, 2]."""
    u, w = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    return torch.stack((NEAR + (FAR - NEAR) * u, WIND * (2 * w - 1)), -1)


def of_field(outputs: int) -> nn.Sequential:
    """Return a network of the field, whose numbers it brings near 0 first."""
    near_0 = nn.Linear(2, 2).requires_grad_(False)
    near_0.load_state_dict({"weight": torch.eye(2) / 4, "bias": torch.tensor((-3.5, 0.0))})
    return nn.Sequential(near_0, nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, outputs))


def throws(seed: int) -> scg.Graph:
    """Declare: the field gives mean and scale of a throw, which a simulator judges."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "weights"))
        thrower = of_field(4)
    g = scg.Graph("simulator")
    field = g.input("field", plates="batch", example=fields(4, seed))
    mean, raw = g.det(("mean", "raw"), lambda out: out.chunk(2, -1), g.det("thrower", thrower, field))
    throw = g.sample("throw", Normal, mean, g.det("scale", lambda raw: F.softplus(raw) + LEAST, raw))
    g.cost("miss", g.det("missed", miss, throw, field, differentiable=False))
    return g


POLICIES: dict[str, Callable[[scg.Graph], scg.Estimator | str]] = {
    "lax": lambda g: scg.LAX(context=g["field"]),
    "score+value": lambda g: scg.Score(baseline=scg.Net(of_field(1), context=g["field"])),
    "measure-valued": lambda g: "measure-valued",
}


def learner(policy: str, seed: int) -> Learner:
    """Return what learns under a policy, and is measured on fields that are always the same."""
    graph, tests = throws(seed), fields(TESTED, seed_of("tests"))
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "controls"))
        estimator = POLICIES[policy](graph) if policy in POLICIES else policy
        program = scg.compile(graph, {"throw": estimator})

    def measure() -> float:
        with torch.no_grad():
            return UNIT * float(program(field=tests, seed=seed_of(seed, "throws")).loss)

    return Learner(program, lambda step: {"field": fields(BATCH, seed_of(seed, "batch", step))}, measure)


def picture(axes: Any, learners: Mapping[str, Learner]) -> None:
    """Draw flights of the first learner to targets near and far, against the wind and with it."""
    name, first = next(iter(learners.items()))
    field = torch.tensor([[goal, wind] for goal in (NEAR, 14.0, FAR) for wind in (-WIND, WIND)])
    with torch.no_grad():
        found = first.program(field=field, seed=1).samples["throw"]
    path = fly(found.double().numpy(), field[:, 1].double().numpy())
    for (goal, wind), (x, y) in zip(field.tolist(), path.transpose(2, 1, 0), strict=True):
        axes.plot(x, y, color="#2f6db5" if wind > 0 else "#d98a00", lw=1.2)
        axes.plot(goal, 0, marker="v", color="black", ms=5)
    axes.plot((WALL, WALL), (0, HEIGHT), color="black", lw=3)
    axes.set(title=f"throws of {name}: with the wind blue, against it orange", xlabel="metres")


SUMMARY = "learn to throw over a wall, by a simulator without derivatives"
SIMULATOR = Experiment("simulator", SUMMARY, "metres missed", POLICIES, learner, picture, evaluations=3000)
