"""A discrete VAE with one layer of Bernoulli latents: its score, REBAR and RELAX steps by hand in torch.

Run ``python benchmarks/vae_by_hand.py``; the median time of each step, forward and backward, is printed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, softplus

Control = Callable[["ByHand", Tensor, Tensor, Tensor], Tensor]


class Network(nn.Module):
    """``r_phi(z, logits) = scale output(tanh(first(tanh z, logits)))``."""

    def __init__(self, latents: int, hidden: int) -> None:
        """Start at scale 1."""
        super().__init__()
        self.first = nn.Linear(2 * latents, hidden)
        self.output = nn.Linear(hidden, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, z: Tensor, logits: Tensor) -> Tensor:
        """``[..., batch, latents]`` and ``[batch, latents]`` to ``[..., batch]``."""
        # What the first layer makes of the logits is the same at every z.
        of_z, of_logits = self.first.weight.split(logits.shape[-1], 1)
        hidden = torch.tanh(linear(torch.tanh(z), of_z) + linear(logits, of_logits, self.first.bias))
        value: Tensor = self.scale * self.output(hidden).squeeze(-1)
        return value


class ByHand(nn.Module):
    """The parameters: encoder, decoder and prior of the model, then those of the control variates."""

    def __init__(self, inputs: int = 784, latents: int = 200, hidden: int = 200) -> None:
        """Start at temperature .5 and eta 1."""
        super().__init__()
        self.encoder = nn.Linear(inputs, latents)
        self.decoder = nn.Linear(latents, inputs)
        self.prior = nn.Parameter(torch.zeros(latents))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.5)))
        self.log_eta = nn.Parameter(torch.tensor(0.0))
        self.net = Network(latents, hidden)


def draw(model: ByHand, batch: int, count: int = 2) -> tuple[Tensor, ...]:
    """Draw ``count`` tensors ``[batch, latents]``, uniform on the open interval (0, 1)."""
    noise = torch.rand(count, batch, len(model.prior), dtype=model.prior.dtype)
    return noise.clamp_(min=torch.finfo(noise.dtype).tiny).unbind()


def score_step(model: ByHand, x: Tensor, u: Tensor) -> Tensor:
    """Return a loss whose gradient is ``f dlog q + df``, without a baseline."""
    logits = model.encoder(x)
    b = (perturbed(logits.detach(), u) > 0).to(x.dtype)
    f, log_q = cost(model, x, logits, b)
    surrogate = (f.detach() * log_q).mean()
    return f.mean() + (surrogate - surrogate.detach())


def rebar_step(model: ByHand, x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return the loss of REBAR, whose control variate is ``eta f(relax(z))``."""
    return controlled_step(model, x, u, w, relaxed_cost)


def relax_step(model: ByHand, x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return the loss of RELAX, whose control variate is ``eta f(relax(z)) + r_phi(z, logits)``."""
    return controlled_step(model, x, u, w, relaxed_cost_and_network)


def controlled_step(model: ByHand, x: Tensor, u: Tensor, w: Tensor, control: Control) -> Tensor:
    """Return a loss whose ``backward`` leaves the gradients of the model and of the control variate.

    In the logits, for each example, ``ghat = (f(b) - c(zt)) dlog q(b) + dc(z) - dc(zt)``; the parameters of
    ``c`` descend ``sum |ghat|^2 / batch`` (Tucker et al., 2017; Grathwohl et al., 2018).
    """
    logits = model.encoder(x)
    at = logits.detach()
    z = perturbed(at, u)
    b = (z > 0).to(x.dtype)
    sign = 2 * b - 1
    inner = sign * at + w.log()
    z_tilde = sign * (softplus(inner) - torch.log1p(-w))
    f, _ = cost(model, x, logits, b)

    points = torch.stack((z, z_tilde)).requires_grad_()
    c = control(model, x, at, points)
    slope, slope_tilde = torch.autograd.grad(c.sum(), points, create_graph=True)[0].unbind()
    # dz/dlogits is 1 and dzt/dlogits is sigmoid(inner): constants, so that no second backward crosses them.
    path = slope - torch.sigmoid(inner) * slope_tilde
    ghat = (f.detach() - c[1])[:, None] * (b - torch.sigmoid(at)) + path

    # c reads the model and the logits detached: the variance reaches the control parameters and no others.
    variance = ghat.square().sum() / len(x)
    surrogate = (ghat.detach() * logits).sum() / len(x) + variance
    loss: Tensor = f.mean() + (surrogate - surrogate.detach())
    return loss


def perturbed(logits: Tensor, u: Tensor) -> Tensor:
    """The logistic variable ``z`` whose sign is the latent."""
    return logits + (u.log() - torch.log1p(-u))


def cost(model: ByHand, x: Tensor, logits: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``f = log q(b|x) - log p(b) - log p(x|b)`` and ``log q``, ``[batch]`` each."""
    log_q = -binary_cross_entropy_with_logits(logits, b, reduction="none").sum(-1)
    log_p = b @ model.prior - softplus(model.prior).sum()
    return log_q - log_p + distortion(model.decoder(b), x), log_q


def distortion(output: Tensor, x: Tensor) -> Tensor:
    """``-log p(x|b)`` from the logits of the inputs, ``[..., batch, inputs]`` to ``[..., batch]``."""
    return binary_cross_entropy_with_logits(output, x.expand_as(output), reduction="none").sum(-1)


def relaxed_cost(model: ByHand, x: Tensor, logits: Tensor, points: Tensor) -> Tensor:
    """``eta f(sigmoid(z / temperature))`` at both points, ``[2, batch]``."""
    prior, weight, bias = (p.detach() for p in (model.prior, model.decoder.weight, model.decoder.bias))
    relaxed = torch.sigmoid(points * torch.exp(-model.log_temperature))
    rate = (relaxed * (logits - prior)).sum(-1) + (softplus(prior).sum() - softplus(logits).sum(-1))
    return model.log_eta.exp() * (rate + distortion(linear(relaxed, weight, bias), x))


def relaxed_cost_and_network(model: ByHand, x: Tensor, logits: Tensor, points: Tensor) -> Tensor:
    """``eta f(sigmoid(z / temperature)) + r_phi(z, logits)`` at both points, ``[2, batch]``."""
    value: Tensor = relaxed_cost(model, x, logits, points) + model.net(points, logits)
    return value


def main() -> None:
    """Print the median time of each step, taken in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, x = ByHand(), (torch.rand(arguments.batch, 784) < 0.3).float()

    steps: dict[str, Callable[..., Tensor]] = {"score": score_step, "rebar": rebar_step, "relax": relax_step}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            model.zero_grad()
            start = time.perf_counter()
            step(model, x, *draw(model, len(x), 1 if name == "score" else 2)).backward()
            times[name].append(time.perf_counter() - start)
    for name, several in times.items():
        print(f"{name:>6}: {1e3 * statistics.median(several):.2f} ms")


if __name__ == "__main__":
    main()
