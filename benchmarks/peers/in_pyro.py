"""Steps in Pyro: the guide draws what the graph draws, and the model is charged with the costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Categorical, Normal
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor, nn

from benchmarks.by_hand import chain as by_hand
from benchmarks.by_hand import normal_vae, vae
from benchmarks.by_hand import states as hidden
from benchmarks.by_hand import toy as toy_by_hand
from benchmarks.contest import Job

ELBOS = {"score": TraceGraph_ELBO, "reparam": Trace_ELBO, "enumerate": TraceEnum_ELBO}
LAWS: dict[str, Any] = {"score": NonreparameterizedNormal, "reparam": Normal}


def inference(estimator: str, model: Callable[[], None], guide: Callable[[], None], owner: nn.Module) -> Job:
    """The step of a negative evidence bound, with the parameters of ``owner``."""
    pyro.enable_validation(False)
    pyro.clear_param_store()
    options = {"max_plate_nesting": 1} if estimator == "enumerate" else {}
    bound = ELBOS[estimator](**options)

    def registered() -> None:
        pyro.module("owner", owner)
        model()

    return Job(lambda: bound.loss_and_grads(registered, guide), tuple(owner.parameters()))


def discrete_vae(model: vae.Model, x: Tensor, *, estimator: str = "score", baseline: bool = False) -> Job:
    """The VAE with Bernoulli latents; with a decaying average as the baseline if that is asked for."""
    infer = {"baseline": {"use_decaying_avg_baseline": True}} if baseline else {}

    def guide() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            below = x
            for layer, encoder in enumerate(model.encoders):
                law = Bernoulli(logits=encoder(below)).to_event(1)
                below = pyro.sample(f"b{layer}", law, infer=infer)

    def generate() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            logits = model.prior.expand(len(x), -1)
            for layer in reversed(range(model.layers)):
                b = pyro.sample(f"b{layer}", Bernoulli(logits=logits).to_event(1))
                logits = model.decoders[layer](b)
            pyro.sample("x", Bernoulli(logits=logits).to_event(1), obs=x)

    return inference(estimator, generate, guide, model)


def enumerated_vae(model: vae.Model, x: Tensor) -> Job:
    """The VAE with few bits: every bit is a site of its own, enumerated in parallel."""

    def bits(name: str, logits: Tensor, infer: dict[str, str]) -> Tensor:
        sites = [
            pyro.sample(f"{name}_{index}", Bernoulli(logits=each), infer=infer)
            for index, each in enumerate(logits.unbind(-1))
        ]
        return torch.stack(torch.broadcast_tensors(*sites), -1)

    def guide() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            below = x
            for layer, encoder in enumerate(model.encoders):
                below = bits(f"b{layer}", encoder(below), {"enumerate": "parallel"})

    def generate() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            logits = model.prior.expand(len(x), -1)
            for layer in reversed(range(model.layers)):
                logits = model.decoders[layer](bits(f"b{layer}", logits, {}))
            pyro.sample("x", Bernoulli(logits=logits).to_event(1), obs=x)

    return inference("enumerate", generate, guide, model)


def continuous_vae(model: normal_vae.Model, x: Tensor, *, estimator: str) -> Job:
    """The VAE with Normal latents; the score function is told by laws that cannot be reparameterised."""
    law = LAWS[estimator]

    def guide() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            below = x
            for layer, encoder in enumerate(model.encoders):
                below = pyro.sample(f"z{layer}", law(*encoder(below)).to_event(1))

    def generate() -> None:
        with poutine.scale(scale=1 / len(x)), pyro.plate("batch", len(x)):
            at, spread = x.new_zeros(len(x), model.latents), x.new_ones(())
            for layer in reversed(range(1, len(model.encoders))):
                at, spread = model.decoders[layer](pyro.sample(f"z{layer}", law(at, spread).to_event(1)))
            z = pyro.sample("z0", law(at, spread).to_event(1))
            pyro.sample("x", Bernoulli(logits=model.decoders[0](z)).to_event(1), obs=x)

    return inference(estimator, generate, guide, model)


def toy(model: toy_by_hand.Model, replicates: int, *, estimator: str) -> Job:
    """The coin of the toy problem."""
    infer = {"enumerate": "parallel"} if estimator == "enumerate" else {}

    def drawn(theta: Tensor, *, charged: bool) -> None:
        with poutine.scale(scale=1 / replicates), pyro.plate("replicates", replicates):
            b = pyro.sample("b", Bernoulli(logits=theta), infer={} if charged else infer)
            if charged:
                pyro.factor("cost", -((b - toy_by_hand.T) ** 2))

    return at_cost(drawn, estimator, model)


def chain(model: by_hand.Model, count: int, *, estimator: str) -> Job:
    """The chain of Normal nodes."""
    law = LAWS[estimator]

    def drawn(theta: Tensor, *, charged: bool) -> None:
        x = theta
        for index in range(count):
            x = pyro.sample(f"x{index}", law(by_hand.step(x, theta), by_hand.SCALE))
        if charged:
            pyro.factor("cost", -(x**2))

    return at_cost(drawn, estimator, model)


def siblings(model: by_hand.Model, count: int, *, estimator: str) -> Job:
    """Normal nodes side by side."""
    law = LAWS[estimator]

    def drawn(theta: Tensor, *, charged: bool) -> None:
        means = (theta * (1 / (index + 1)) for index in range(count))
        xs = [pyro.sample(f"x{index}", law(mean, by_hand.SCALE)) for index, mean in enumerate(means)]
        if charged:
            pyro.factor("cost", -(torch.stack(xs).mean() ** 2))

    return at_cost(drawn, estimator, model)


def at_cost(drawn: Callable[..., None], estimator: str, owner: Any) -> Job:
    """A cost that is no bound: the guide draws, and the model draws alike, so that their densities cancel.

    Under the score function Pyro leaves out the gradient of the guide's density, which has the mean 0; the
    model's has to be left out as well.
    """

    def model() -> None:
        drawn(owner.theta.detach() if estimator == "score" else owner.theta, charged=True)

    return inference(estimator, model, lambda: drawn(owner.theta, charged=False), owner)


def states(model: hidden.Model) -> Job:
    """The chain of hidden states, enumerated in parallel; model and guide have the same law."""

    def chain(*, is_charged: bool) -> None:
        state: Any = None
        for t in pyro.markov(range(len(model.table))):
            logits = model.start if state is None else model.step[state]
            state = pyro.sample(f"z{t}", Categorical(logits=logits), infer={"enumerate": "parallel"})
            if is_charged:
                pyro.factor(f"c{t}", -model.table[t][state])

    return inference("enumerate", partial(chain, is_charged=True), partial(chain, is_charged=False), model)
