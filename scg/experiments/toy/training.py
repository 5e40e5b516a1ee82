"""Training on the toy problem: all seeds in one program, with loss and variance measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scg.estimators.parts.variates import Controls
from scg.experiments.toy.problem import estimator, expected_loss, toy_graph
from scg.noise import substream, uniform
from scg.program.program import Program
from scg.program.program import compile as compiled

RATE, POINTS, DRAWS = 0.01, 100, 1000
GRID = 201
BELOW_ONE = 1 - torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True)
class Setting:
    """One curve: a policy at one t."""

    policy: str
    t: float
    seeds: int
    steps: int
    seed: int


@dataclass(frozen=True, eq=False)
class Curve:
    """What was measured while training.

    ``steps`` [points], ``loss`` and ``log_variance`` [points, seeds]; ``variate`` [grid, seeds] is what was
    learned as a control variate, if there is one, at the relaxed values of ``relaxed_values()``.
    """

    setting: Setting
    steps: Tensor
    loss: Tensor
    log_variance: Tensor
    variate: Tensor | None


@dataclass(frozen=True, eq=False)
class Point:
    """The expected loss and log-variance of every seed after some steps, and the steps a second so far."""

    step: int
    loss: Tensor
    log_variance: Tensor
    speed: float


def toy_program(setting: Setting) -> Program:
    """Compile the toy problem; a program is trained once, as it holds the control parameters."""
    own = estimator(setting.policy, setting.seeds, setting.seed)
    return compiled(toy_graph(setting.t, setting.seeds), policy={"b": own})


def train(program: Program, setting: Setting, tell: Callable[[Point], object] = lambda point: None) -> Curve:
    """Train every seed with Adam, model and control variate alike, and return what was measured.

    For control variates Adam keeps its largest second moments (Reddi et al., 2018): as these are learned,
    their gradients shrink by orders of magnitude, and steps of the usual size would throw them off again.
    """
    points = []
    for point in _points(program, setting):
        tell(point)
        points.append(point)
    return Curve(
        setting,
        torch.tensor([point.step for point in points]),
        torch.stack([point.loss for point in points]),
        torch.stack([point.log_variance for point in points]),
        control_variate(program, setting),
    )


def _points(program: Program, setting: Setting) -> Iterator[Point]:
    logits = nn.Parameter(torch.zeros(setting.seeds))
    groups: list[dict[str, Any]] = [
        {"params": [logits]},
        {"params": [*program.control_parameters()], "amsgrad": True},
    ]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=RATE)
    names = noise_names(program, logits)
    every, start = max(1, setting.steps // POINTS), time.perf_counter()
    for step in range(setting.steps + 1):
        if step % every == 0 or step == setting.steps:
            seed = substream(setting.seed, f"measure {step}")
            variance = gradient_variance(program, logits.detach(), seed=seed)
            loss = expected_loss(logits.detach().double(), setting.t)
            yield Point(step, loss, variance.log(), step / (time.perf_counter() - start))
        if step < setting.steps:
            noise = seed_noise(names, substream(setting.seed, f"step {step}"), 1, setting.seeds)
            optimizer.zero_grad()
            program(logits=logits.unsqueeze(0), noise=noise).loss.backward()
            optimizer.step()


def noise_names(program: Program, logits: Tensor) -> list[str]:
    """Return the names of all noise of a run of logits [seeds]."""
    return list(program.draw_noise(0, logits=logits.unsqueeze(0)))


def seed_noise(names: Sequence[str], seed: int, draws: int, seeds: int) -> dict[str, Tensor]:
    """Draw noise [draws, seeds] of which no seed's depends on the number of others; all of it is uniform."""
    flat = uniform(seed, seeds * len(names) * draws).float().clamp_(max=BELOW_ONE)
    return dict(zip(names, flat.view(seeds, len(names), draws).permute(1, 2, 0), strict=True))


def gradient_variance(program: Program, logits: Tensor, *, seed: int, draws: int = DRAWS) -> Tensor:
    """Return the variance of every seed's single-sample gradient, [seeds].

    Half of the draws have b = 0 and half b = 1, each weighed by its probability: where p is small, as many
    draws from b itself would often miss the rare value, to which the variance is due. What is within the
    rounding of costs up to 1 is no variance.
    """
    half, (seeds,) = draws // 2, logits.shape
    leaf = logits.expand(2 * half, -1).clone().requires_grad_()
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    noise = seed_noise(noise_names(program, logits), seed, 2 * half, seeds)
    low, high = noise["b"].chunk(2)
    noise["b"] = torch.cat((low * q, q + high * p)).clamp_(max=BELOW_ONE)
    was_training = program.training
    loss = program.eval()(logits=leaf, noise=noise).loss
    program.train(was_training)
    (gradient,) = torch.autograd.grad(loss, leaf)
    weight = torch.cat((q.expand(half, -1), p.expand(half, -1))).double() / half
    centred = gradient.double() - gradient[0]
    mean = (weight * centred).sum(0)
    variance = (weight * (centred - mean).square()).sum(0)
    rounding = torch.finfo(logits.dtype).eps * (p * q).double()
    return variance.where(variance > rounding**2, 0.0)


def relaxed_values() -> Tensor:
    """Return the relaxed values sigmoid(z / 0.5) at which control variates are compared, [grid]."""
    return torch.linspace(0, 1, GRID + 2)[1:-1]


def control_variate(program: Program, setting: Setting) -> Tensor | None:
    """Return the control variate c(z) of every seed at the relaxed values, [grid, seeds]."""
    controls = dict(program.controls.items()).get("b")
    if not isinstance(controls, Controls):
        return None
    with torch.no_grad():
        z = relaxed_values().logit().mul(0.5).unsqueeze(1).expand(-1, setting.seeds)
        found = torch.zeros_like(z) if controls.net is None else controls.net(z)
        if controls.eta is not None and controls.temperature is not None:
            relaxed = torch.sigmoid(z / controls.temperature.value)
            found = found + controls.eta.value * (relaxed - setting.t) ** 2
    return found
