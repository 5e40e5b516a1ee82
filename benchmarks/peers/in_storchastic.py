"""Steps in Storchastic: methods draw the latents, and costs are added to its list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import storch
import torch
from storch.method import LAX, REBAR, RELAX, Expect, Reparameterization, ScoreFunction
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.by_hand import chain as by_hand
from benchmarks.by_hand import normal_vae, vae
from benchmarks.by_hand import toy as toy_by_hand
from benchmarks.contest import Job


def method(name: str, plate: str, latents: int, *, baseline: str | None = None, samples: int = 1) -> Any:
    """The library's estimator of that name."""
    if name == "score":
        return ScoreFunction(plate, n_samples=samples, baseline_factory=baseline)
    if name == "enumerate":
        return Expect(plate)
    if name == "reparam":
        return Reparameterization(plate, n_samples=samples)
    if name == "rebar":
        return REBAR(plate, n_samples=samples)
    return {"relax": RELAX, "lax": LAX}[name](plate, n_samples=samples, in_dim=[latents])


def job(costs: Callable[[], None], owner: nn.Module, methods: list[Any]) -> Job:
    """The step that adds the costs and goes back through them."""

    def step() -> None:
        storch.reset()
        costs()
        storch.backward()

    device = next(owner.parameters()).device
    for each in methods:
        each.to(device)
    parameters = [*owner.parameters(), *(p for each in methods for p in each.parameters())]
    return Job(step, tuple(parameters))


def discrete_vae(model: vae.Model, x: Tensor, *, estimator: str, **options: Any) -> Job:
    """The VAE with Bernoulli latents; the library trains control variates on gradients of ``probs``."""
    relaxes = estimator in ("rebar", "relax")
    methods = [method(estimator, f"b{layer}", len(model.prior), **options) for layer in range(model.layers)]

    def costs() -> None:
        below = storch.denote_independent(x, 0, "batch")
        for layer, (encoder, decoder) in enumerate(zip(model.encoders, model.decoders, strict=True)):
            logits = encoder(below)
            law = Bernoulli(probs=torch.sigmoid(logits)) if relaxes else Bernoulli(logits=logits)
            b = methods[layer](law)
            cost = law.log_prob(b).sum(-1) + cross_entropy(decoder(b), below)
            if layer == model.layers - 1:
                cost = cost + cross_entropy(model.prior, b)
            storch.add_cost(cost, f"nelbo{layer}")
            below = b

    return job(costs, model, methods)


def continuous_vae(model: normal_vae.Model, x: Tensor, *, estimator: str) -> Job:
    """The VAE with Normal latents."""
    layers = len(model.encoders)
    methods = [method(estimator, f"z{layer}", model.latents) for layer in range(layers)]
    prior = Normal(torch.zeros(model.latents, device=x.device), torch.ones((), device=x.device))

    def costs() -> None:
        below = storch.denote_independent(x, 0, "batch")
        for layer, (encoder, decoder) in enumerate(zip(model.encoders, model.decoders, strict=True)):
            law = Normal(*encoder(below))
            z = methods[layer](law)
            cost = law.log_prob(z).sum(-1)
            if layer:
                cost = cost - Normal(*decoder(z)).log_prob(below).sum(-1)
            else:
                cost = cost + cross_entropy(decoder(z), below)
            if layer == layers - 1:
                cost = cost - prior.log_prob(z).sum(-1)
            storch.add_cost(cost, f"nelbo{layer}")
            below = z

    return job(costs, model, methods)


def toy(model: toy_by_hand.Model, replicates: int, *, estimator: str, baseline: str | None = None) -> Job:
    """The coin of the toy problem, an event of one element: RELAX needs an event dimension."""
    own = method(estimator, "b", 1, baseline=baseline, samples=replicates)
    relaxes = estimator in ("rebar", "relax")

    def costs() -> None:
        theta = model.theta.unsqueeze(0)
        b = own(Bernoulli(probs=torch.sigmoid(theta)) if relaxes else Bernoulli(logits=theta))
        storch.add_cost(((b - toy_by_hand.T) ** 2).sum(-1), "loss")

    return job(costs, model, [own])


def chain(model: by_hand.Model, count: int, *, estimator: str) -> Job:
    """The chain of Normal nodes, each with a method of its own."""
    methods = [method(estimator, f"x{index}", 1) for index in range(count)]

    def costs() -> None:
        x: Any = model.theta
        for each in methods:
            x = each(Normal(by_hand.step(x, model.theta), by_hand.SCALE))
        storch.add_cost(x**2, "cost")

    return job(costs, model, methods)


def siblings(model: by_hand.Model, count: int, *, estimator: str) -> Job:
    """Normal nodes side by side, each with a method of its own."""
    methods = [method(estimator, f"x{index}", 1) for index in range(count)]

    def costs() -> None:
        xs = [each(Normal(model.theta * (1 / (i + 1)), by_hand.SCALE)) for i, each in enumerate(methods)]
        storch.add_cost(mean_squared(*xs), "cost")

    return job(costs, model, methods)


@storch.deterministic
def mean_squared(*xs: Tensor) -> Tensor:
    """The square of the mean."""
    return torch.stack(xs).mean() ** 2


@storch.deterministic
def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """``-log p(targets)``, summed over the last dimension."""
    logits, targets = torch.broadcast_tensors(logits, targets)
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
