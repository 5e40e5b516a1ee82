"""Training of the autoencoder under one policy: all seeds and rates in one program, a step at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import scg
from scg.experiments.vae.adam import RunAdam
from scg.experiments.vae.controls import Reading
from scg.experiments.vae.data.images import Images, binarised
from scg.experiments.vae.model import Spec, declare
from scg.experiments.vae.policies import compiled, policy_of, written
from scg.runs import seed_of

BETA = 0.99999
"""The decay of second moments of the model, that of the papers."""
MEASURED, CHUNK = 500, 10
"""Images, and values of latents for each, of which the bound is a mean."""
SAMPLES = 100
"""Values of latents in the bound of validation, of which as many are drawn at once."""
GRADIENTS = 50


@dataclass(frozen=True)
class Setting:
    """What training depends on, but for the policy and for how long it lasts."""

    data: str
    layers: int
    latents: str
    hidden: tuple[int, ...]
    seeds: int
    seed: int
    rates: tuple[float, ...]
    control_scale: float
    amsgrad: bool
    batch: int
    dtype: str
    is_compiled: bool = False

    @property
    def run_seeds(self) -> list[int]:
        """The seed of every run: all seeds at the first rate, then at the next."""
        return [self.seed + index for index in range(self.seeds)] * len(self.rates)

    @property
    def run_rates(self) -> list[float]:
        """The rate of every run."""
        return [rate for rate in self.rates for _ in range(self.seeds)]


class Training:
    """Runs that are trained in one program, of which each has its weights, images and rate.

    All that is drawn in a step is a function of the seed and of the number of the step: under every policy,
    runs begin with the same weights and see the same images, and draw with the same noise.
    """

    def __init__(
        self, setting: Setting, spec: Spec, images: Images, policy: str, device: torch.device
    ) -> None:
        """Compile the program, which refuses what does not fit."""
        self.setting, self.spec, self.images, self.policy = setting, spec, images, policy
        self.device, self.dtype = device, scg.runs.dtype(setting.dtype)
        seeds, found = setting.run_seeds, written(policy, spec)
        mean = self._placed(images.mean)
        own = policy_of(found, spec, mean, seeds)
        graph = declare(spec, mean, seeds, 2)
        self.program, self.unbiased = compiled(graph, found, own)
        if setting.is_compiled:
            self.program.compile()
        self.evaluated = scg.compile(graph, "score", samples=CHUNK)
        self.replicates = found.replicates or 1
        rates = torch.tensor(setting.run_rates, device=device, dtype=self.dtype)
        self.optimizers = [RunAdam([*self.program.model_parameters()], rates, beta=BETA)]
        mine, shared = self._controls()
        if mine or shared:
            scaled = rates * setting.control_scale
            self.optimizers.append(RunAdam(mine, scaled, shared=shared, amsgrad=setting.amsgrad))

    def _controls(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the controls that each run has of its own, and those of all runs."""
        networks = [part for part in self.program.controls.modules() if isinstance(part, Reading)]
        own = list(dict.fromkeys(p for net in networks for p in net.parameters()))
        return own, [p for p in self.program.control_parameters() if all(p is not one for one in own)]

    def batch(self, number: int) -> Tensor:
        """Return the images of a step, [run, batch, pixel], coins thrown anew in every step."""
        several = {}
        for seed in dict.fromkeys(self.setting.run_seeds):
            generator = torch.Generator().manual_seed(seed_of(seed, "batch", number))
            chosen = torch.randint(len(self.images.train), (self.setting.batch,), generator=generator)
            several[seed] = binarised(self.images.train[chosen], seed_of(seed, "coins", number))
        return self._placed(torch.stack([several[seed] for seed in self.setting.run_seeds]))

    def step(self, number: int) -> None:
        """Take a step of Adam."""
        self.program.zero_grad(set_to_none=True)
        seed = seed_of(self.setting.seed, "step", number)
        self.program(x=self.batch(number), seed=seed).loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def bound(self) -> Tensor:
        """Return the bound on the log-likelihood of images to train on, [run], by common noise."""
        (cost,) = self._costs(self._fixed(self.images.train), CHUNK)
        return -cost.mean((0, 2))

    def validation(self) -> Tensor:
        """Return the bound with 100 values of the latents on images that were held back, [run]."""
        logs = [-cost for cost in self._costs(self._fixed(self.images.valid), SAMPLES)]
        found = torch.cat(logs).double().logsumexp(0) - math.log(len(logs) * CHUNK)
        return found.mean(1)

    def _costs(self, x: Tensor, draws: int) -> Iterator[Tensor]:
        """Yield costs [draw, run, image] of so many values of the latents."""
        for chunk in range(draws // CHUNK):
            with torch.no_grad():
                yield self.evaluated(x=x, seed=seed_of(self.setting.seed, "measure", chunk)).costs["nelbo"]

    def _fixed(self, images: Tensor) -> Tensor:
        """Return some images, the same for every run and whenever they are asked for."""
        coins = binarised(images[:MEASURED], seed_of(self.setting.seed, "fixed"))
        return self._placed(coins.expand(len(self.setting.run_seeds), *coins.shape))

    def _placed(self, found: Tensor) -> Tensor:
        return found.to(self.device, self.dtype)

    def log_variance(self, at: dict[str, Tensor]) -> Tensor:
        """Return the log-variance of a gradient at given parameters, by layer and run, [layer, run].

        It is the mean over the weights of the layer's encoder, of gradients that differ in noise alone.
        """
        kept = {name: value.clone() for name, value in self.program.state_dict().items()}
        self.program.load_state_dict({**kept, **at})
        groups = [[*getattr(self.program, f"q{layer + 1}").parameters()] for layer in range(self.spec.layers)]
        flat, x, was_training = [p for group in groups for p in group], self.batch(-1), self.program.training
        self.program.eval()
        rows = []
        for draw in range(GRADIENTS):
            seed = seed_of(self.setting.seed, "variance", draw)
            rows.append(torch.autograd.grad(self.program(x=x, seed=seed).loss, flat))
        self.program.train(was_training)
        self.program.load_state_dict(kept)
        columns = [torch.stack(column).flatten(2).var(0) for column in zip(*rows, strict=True)]
        found = iter(columns)
        by_layer = [torch.cat([next(found) for _ in group], 1).mean(1) for group in groups]
        return torch.stack(by_layer).double().log()

    def parameters(self) -> dict[str, Tensor]:
        """Return what the model has learned, by name."""
        controls = {id(p) for p in self.program.control_parameters()}
        named = self.program.named_parameters()
        return {name: p.detach().clone() for name, p in named if id(p) not in controls}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "program": self.program.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.program.load_state_dict(state["program"])
        for optimizer, found in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(found)
