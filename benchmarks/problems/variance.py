"""Work-normalised variance: the variance of a gradient times the time of a step, for every estimator.

Parameters stay fixed; control variates are trained first. ``off`` is the squared distance of the mean
gradient from the exact one over what the variance allows: about 1 where a gradient is unbiased.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.by_hand import toy as toy_by_hand
from benchmarks.by_hand import vae as vae_by_hand
from benchmarks.contest import Contest, Job, Settings
from benchmarks.problems import toy, vae

INPUTS, TRAINING, DRAWS, RATE = 100, 300, 300, 0.01
ROUNDING = 1e-8
CONTROLS = ("log_temperature", "log_eta", "net")


def contests(settings: Settings) -> Iterator[Contest]:
    """The toy and the VAE with few latents, under every estimator of them."""
    plain = replace(settings, compiled=False)
    for row in toy.ROWS:
        found = toy.contest(row, 1 if "leave" not in row.name else 2, plain)
        measure = partial(facts, toy_by_hand.exact_step, ("theta",), settings.quick)
        yield replace(found, problem="variance, toy", measure=measure)
    for layers in (1,) if settings.quick else (1, 2):
        for row in vae.ROWS:
            few = replace(row, bits=vae.BITS)
            found = vae.contest(few, layers, plain, inputs=INPUTS)
            _, x = vae.model_of(few, layers, settings.device, INPUTS)
            exact = None if row.normal else partial(exact_vae, x)
            measure = partial(facts, exact, ("encoders",), settings.quick)
            yield replace(found, problem=f"variance, {found.problem}", measure=measure)


def exact_vae(x: Tensor, model: vae_by_hand.Model) -> Tensor:
    """The expected cost."""
    return vae_by_hand.enumerated_step(model, x)


def facts(
    exact: Callable[[Any], Tensor] | None,
    watched: tuple[str, ...],
    quick: bool,
    name: str,
    job: Job,
    seconds: float,
) -> dict[str, float]:
    """Train what the estimator learns, then measure the gradient of the watched parameters."""
    assert job.model is not None
    seen = [p for key, p in job.model.named_parameters() if key.startswith(watched)]
    train(job, TRAINING // (10 if quick else 1))
    count = DRAWS // (10 if quick else 1)
    found = torch.stack([gradient(job.step, job, seen) for _ in range(count)]).double()
    rounding = ROUNDING * float(found[0].square().sum())
    variance = float(found.var(0).sum())
    if variance < rounding:
        variance = 0.0
    told = {"variance": variance, "variance x ms": 1e3 * variance * seconds}
    if exact is None:
        return told
    truth = gradient(lambda: exact(job.model).backward(), job, seen).double()
    return {**told, "off": float((found.mean(0) - truth).square().sum()) / max(variance / count, rounding)}


def train(job: Job, steps: int) -> None:
    """Take steps of Adam in the parameters of control variates alone."""
    assert job.model is not None
    fixed = {p for key, p in job.model.named_parameters() if not key.startswith(CONTROLS)}
    job.clear()
    job.step()
    controls = [p for p in job.parameters if p not in fixed and p.grad is not None]
    if not controls:
        return
    optimizer = torch.optim.Adam(controls, lr=RATE)
    for _ in range(steps):
        job.clear()
        job.step()
        for parameter in controls:
            if parameter.grad is not None:
                parameter.grad = parameter.grad.detach()
        optimizer.step()


def gradient(step: Callable[[], object], job: Job, parameters: list[nn.Parameter]) -> Tensor:
    """The gradient that a step leaves in some parameters, as one row."""
    job.clear()
    step()
    return torch.cat([p.grad.detach().flatten() for p in parameters if p.grad is not None])
