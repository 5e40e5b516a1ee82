"""One training step of a VAE, forward and backward, without the optimizer's: latents in one or two layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import scg
from benchmarks.by_hand import normal_vae, vae
from benchmarks.contest import PYRO, STORCHASTIC, Contest, Job, Loss, Settings, entrants
from benchmarks.peers import peer

BATCH, INPUTS, LATENTS, BITS, REPLICATES, SHARE = 24, 784, 200, 8, 4, 0.25


@dataclass(frozen=True)
class Row:
    """An estimator of the VAE: what scg is told, the step by hand, and how peers are told.

    ``policy(model)`` is what ``scg.compile`` takes; ``step(model, x)`` returns the loss by hand, and
    ``peers[name](model, x)`` the step in another library. ``bits`` is the number of latents over all
    layers, where that is small; ``samples`` the replicates.
    """

    name: str
    policy: Callable[[Any], Any]
    step: Callable[[Any, Tensor], Loss]
    peers: dict[str, Callable[..., Job]] = field(default_factory=dict)
    normal: bool = False
    samples: int | None = None
    bits: int | None = None


def discrete_vae(model: vae.Model, x: Tensor) -> scg.Graph:
    """The graph of a VAE with Bernoulli latents, whose parameters ``model`` holds."""
    g = scg.Graph("vae")
    below = g.input("x", plates="batch", example=x)
    for layer, (encoder, decoder) in enumerate(zip(model.encoders, model.decoders, strict=True)):
        logits = g.det(f"logits{layer}", encoder, below)
        b = g.sample(f"b{layer}", Bernoulli, logits=logits)
        cost = g.log_prob(b) - g.log_prob(Bernoulli, below, logits=g.det(f"output{layer}", decoder, b))
        if layer == model.layers - 1:
            cost = cost - g.log_prob(Bernoulli, b, logits=g.param("prior", model.prior))
        g.cost(f"nelbo{layer}", cost)
        below = b
    return g


def continuous_vae(model: normal_vae.Model, x: Tensor) -> scg.Graph:
    """The graph of a VAE with Normal latents, whose parameters ``model`` holds."""
    g = scg.Graph("vae")
    below = g.input("x", plates="batch", example=x)
    for layer, (encoder, decoder) in enumerate(zip(model.encoders, model.decoders, strict=True)):
        mean, scale = g.det((f"mean{layer}", f"scale{layer}"), encoder, below)
        z = g.sample(f"z{layer}", Normal, loc=mean, scale=scale)
        if layer:
            at, spread = g.det((f"at{layer}", f"spread{layer}"), decoder, z)
            likelihood = g.log_prob(Normal, below, loc=at, scale=spread)
        else:
            likelihood = g.log_prob(Bernoulli, below, logits=g.det("output", decoder, z))
        cost = g.log_prob(z) - likelihood
        if layer == len(model.encoders) - 1:
            cost = cost - g.log_prob(Normal, z, loc=torch.zeros(model.latents, device=x.device), scale=1.0)
        g.cost(f"nelbo{layer}", cost)
        below = z
    return g


def relax(model: vae.Model, train_on: float = 1.0) -> dict[str, scg.RELAX]:
    """RELAX with the model's networks, which read the logits as well."""
    return {
        f"b{layer}": scg.RELAX(net, context=f"logits{layer}", train_on=train_on)
        for layer, net in enumerate(model.nets)
    }


def lax(model: normal_vae.Model) -> dict[str, scg.LAX]:
    """LAX with the model's networks, which read means and scales as well."""
    return {
        f"z{layer}": scg.LAX(net, context=(f"mean{layer}", f"scale{layer}"))
        for layer, net in enumerate(model.nets)
    }


def with_baseline(name: str) -> Callable[[vae.Model], dict[str, scg.Score]]:
    """The score function with a baseline by name, one for each layer."""
    return lambda model: {f"b{layer}": scg.Score(baseline=name) for layer in range(model.layers)}


def score_by_hand(model: vae.Model, x: Tensor) -> Loss:
    """The score function."""
    return lambda: vae.score_step(model, x, vae.draw(model, len(x), model.layers))


def moving_average_by_hand(model: vae.Model, x: Tensor) -> Loss:
    """The score function with a running mean of credit for each layer."""
    baselines = [vae.MovingAverage() for _ in range(model.layers)]
    return lambda: vae.score_step(model, x, vae.draw(model, len(x), model.layers), baselines)


def leave_one_out_by_hand(model: vae.Model, x: Tensor) -> Loss:
    """The score function of several replicates, each with the mean of the others as its baseline."""
    baselines = [vae.leave_one_out] * model.layers

    def loss() -> Tensor:
        noise = vae.draw(model, REPLICATES * len(x), model.layers)
        return vae.score_step(model, x, [u.view(REPLICATES, len(x), -1) for u in noise], baselines)

    return loss


def controlled_by_hand(*, network: bool) -> Callable[[vae.Model, Tensor], Loss]:
    """REBAR, or RELAX with a network."""

    def step(model: vae.Model, x: Tensor) -> Loss:
        def loss() -> Tensor:
            noise = vae.draw(model, len(x), 2 * model.layers)
            return vae.controlled_step(
                model, x, noise[: model.layers], noise[model.layers :], network=network
            )

        return loss

    return step


def normal_by_hand(
    step: Callable[[normal_vae.Model, Tensor, vae.Noise], Tensor],
) -> Callable[[normal_vae.Model, Tensor], Loss]:
    """One of the steps of the VAE with Normal latents."""
    return lambda model, x: lambda: step(model, x, normal_vae.draw(model, len(x)))


pyro, pyro_enumerated = partial(peer, "in_pyro", "discrete_vae"), peer("in_pyro", "enumerated_vae")
pyro_normal = partial(peer, "in_pyro", "continuous_vae")
storchastic = partial(peer, "in_storchastic", "discrete_vae")
storchastic_normal = partial(peer, "in_storchastic", "continuous_vae")

ROWS = (
    Row(
        "score",
        lambda m: "score",
        score_by_hand,
        {PYRO: pyro(), STORCHASTIC: storchastic(estimator="score")},
    ),
    Row(
        "score, moving average",
        with_baseline("moving-average"),
        moving_average_by_hand,
        {
            PYRO: pyro(baseline=True),
            STORCHASTIC: storchastic(estimator="score", baseline="moving_average"),
        },
    ),
    Row(
        "score, leave one out, 4 replicates",
        with_baseline("leave-one-out"),
        leave_one_out_by_hand,
        {STORCHASTIC: storchastic(estimator="score", baseline="batch_average", samples=REPLICATES)},
        samples=REPLICATES,
    ),
    Row(
        "rebar",
        lambda m: "rebar",
        controlled_by_hand(network=False),
        {STORCHASTIC: storchastic(estimator="rebar")},
    ),
    Row("relax", relax, controlled_by_hand(network=True), {STORCHASTIC: storchastic(estimator="relax")}),
    # The steps by hand train on the whole batch.
    Row("rebar, train_on 1/4", lambda m: scg.REBAR(train_on=SHARE), controlled_by_hand(network=False)),
    Row("relax, train_on 1/4", partial(relax, train_on=SHARE), controlled_by_hand(network=True)),
    Row(
        "enumerate, 8 bits",
        lambda m: "enumerate",
        lambda m, x: lambda: vae.enumerated_step(m, x),
        {PYRO: pyro_enumerated, STORCHASTIC: storchastic(estimator="enumerate")},
        bits=BITS,
    ),
    Row(
        "normal, reparam",
        lambda m: "reparam",
        normal_by_hand(normal_vae.reparam_step),
        {PYRO: pyro_normal(estimator="reparam"), STORCHASTIC: storchastic_normal(estimator="reparam")},
        normal=True,
    ),
    Row(
        "normal, score",
        lambda m: "score",
        normal_by_hand(normal_vae.score_step),
        {PYRO: pyro_normal(estimator="score"), STORCHASTIC: storchastic_normal(estimator="score")},
        normal=True,
    ),
    Row(
        "normal, lax",
        lax,
        normal_by_hand(normal_vae.lax_step),
        {STORCHASTIC: storchastic_normal(estimator="lax")},
        normal=True,
    ),
)


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every estimator, with one layer and with two."""
    for layers in (1, 2):
        for row in ROWS:
            yield contest(row, layers, settings)


def contest(row: Row, layers: int, settings: Settings, inputs: int = INPUTS) -> Contest:
    """The contenders of a row."""
    model, x = model_of(row, layers, settings.device, inputs)
    contenders = entrants(
        model,
        lambda model: program_of(row, model, x),
        lambda model: row.step(model, x),
        {name: partial(build, x=x) for name, build in row.peers.items()},
        compiled=settings.compiled,
        inputs={"x": x},
    )
    return Contest(f"vae, {layers} layer{'s' * (layers > 1)}", row.name, contenders)


def model_of(row: Row, layers: int, device: str, inputs: int = INPUTS) -> tuple[nn.Module, Tensor]:
    """The parameters of a row, and a batch of inputs."""
    torch.manual_seed(0)
    latents = LATENTS if row.bits is None else row.bits // layers
    kind = normal_vae.Model if row.normal else vae.Model
    model = kind(layers, inputs, latents)
    x = (torch.rand(BATCH, inputs) < 0.3).float()
    return model.to(device), x.to(device)


def program_of(row: Row, model: nn.Module, x: Tensor) -> scg.Program:
    """The program of a row, which trains the parameters of ``model``."""
    graph = continuous_vae(model, x) if row.normal else discrete_vae(model, x)
    return scg.compile(graph, policy=row.policy(model), samples=row.samples)
