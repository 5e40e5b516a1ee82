"""Training on the toy problem: all seeds in one program, with loss and variance measured on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import scg
from scg.experiments.toy.problem import estimator, expected_loss, toy_graph
from scg.noise import substream, uniform

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


def toy_program(setting: Setting) -> scg.Program:
    """Compile the toy problem; a program is trained once, as it holds the control parameters."""
    own = estimator(setting.policy, setting.seeds, setting.seed)
    return scg.compile(toy_graph(setting.t, setting.seeds), policy={"b": own})


class Training:
    """All seeds of one curve under Adam, model and control variate alike, a step at a time.

    For control variates Adam keeps its largest second moments (Reddi et al., 2018): as these are learned,
    their gradients shrink by orders of magnitude, and steps of the usual size would throw them off again.
    """

    def __init__(self, setting: Setting) -> None:
        """Compile the program, which refuses what does not fit."""
        self.setting, self.program = setting, toy_program(setting)
        self.logits = nn.Parameter(torch.zeros(setting.seeds))
        groups: list[dict[str, Any]] = [
            {"params": [self.logits]},
            {"params": [*self.program.control_parameters()], "amsgrad": True},
        ]
        self.optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=RATE)
        self._names = noise_names(self.program, self.logits)

    def step(self, number: int) -> None:
        """Take a step, all noise of which is a function of its number."""
        seed = substream(self.setting.seed, f"step {number}")
        noise = seed_noise(self._names, seed, 1, self.setting.seeds)
        self.optimizer.zero_grad()
        self.program(logits=self.logits.unsqueeze(0), noise=noise).loss.backward()
        self.optimizer.step()

    def measured(self, done: int) -> dict[str, Tensor]:
        """Return the expected loss and the log-variance of every seed after some steps."""
        seed, logits = substream(self.setting.seed, f"measure {done}"), self.logits.detach()
        variance = gradient_variance(self.program, logits, seed=seed)
        return {"loss": expected_loss(logits.double(), self.setting.t), "log_variance": variance.log()}

    def is_measured(self, done: int) -> bool:
        """Say whether there is a point of the curve after so many steps."""
        return done % max(1, self.setting.steps // POINTS) == 0 or done == self.setting.steps

    def curve(self, points: Mapping[int, Mapping[str, Tensor]]) -> Curve:
        """Return what was measured, by how many steps were done."""
        loss, variance = (
            torch.stack([p[name] for p in points.values()]) for name in ("loss", "log_variance")
        )
        variate = control_variate(self.program, self.setting)
        return Curve(self.setting, torch.tensor([*points]), loss, variance, variate)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "program": self.program.state_dict(),
            "logits": self.logits.detach(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.program.load_state_dict(state["program"])
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.logits.copy_(state["logits"])


def train(setting: Setting) -> Curve:
    """Train every seed and return what was measured."""
    training = Training(setting)
    points = {0: training.measured(0)}
    for step in range(setting.steps):
        training.step(step)
        if training.is_measured(step + 1):
            points[step + 1] = training.measured(step + 1)
    return training.curve(points)


def noise_names(program: scg.Program, logits: Tensor) -> list[str]:
    """Return the names of all noise of a run of logits [seeds]."""
    return list(program.draw_noise(0, logits=logits.unsqueeze(0)))


def seed_noise(names: Sequence[str], seed: int, draws: int, seeds: int) -> dict[str, Tensor]:
    """Draw noise [draws, seeds] of which no seed's depends on the number of others; all of it is uniform."""
    flat = uniform(seed, seeds * len(names) * draws).float().clamp_(max=BELOW_ONE)
    return dict(zip(names, flat.view(seeds, len(names), draws).permute(1, 2, 0), strict=True))


def gradient_variance(program: scg.Program, logits: Tensor, *, seed: int, draws: int = DRAWS) -> Tensor:
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


def control_variate(program: scg.Program, setting: Setting) -> Tensor | None:
    """Return the control variate c(z) of every seed at the relaxed values, [grid, seeds]."""
    controls: Any = dict(program.controls.items()).get("b")
    if not all(hasattr(controls, name) for name in ("net", "eta", "temperature")):
        return None
    with torch.no_grad():
        z = relaxed_values().logit().mul(0.5).unsqueeze(1).expand(-1, setting.seeds)
        found = torch.zeros_like(z) if controls.net is None else controls.net(z)
        if controls.eta is not None and controls.temperature is not None:
            relaxed = torch.sigmoid(z / controls.temperature.value)
            found = found + controls.eta.value * (relaxed - setting.t) ** 2
    return found
