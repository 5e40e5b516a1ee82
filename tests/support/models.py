"""Models that several tests compile: a discrete autoencoder of one layer, and a belief net of two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from scg.program.program import Program


def batch(size: int = 6) -> Tensor:
    """Return rows of bits, the same in every test."""
    torch.manual_seed(1)
    return (torch.rand(size, 8) < 0.5).double()


def vae(policy: Any, **options: Any) -> Program:
    """Compile an autoencoder of three bits."""
    torch.manual_seed(0)
    g = scg.Graph("vae")
    x = g.input("x", plates="batch", example=batch())
    b = g.sample("b", Bernoulli, logits=g.det("logits", nn.Linear(8, 3), x))
    recon = g.log_prob(Bernoulli, x, logits=g.det("xhat", nn.Linear(3, 8), b))
    prior = g.param("prior", torch.zeros(3))
    g.cost("nelbo", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=prior) - recon)
    return scg.compile(g, policy=policy, **options)


def belief_net(policy: Any, **options: Any) -> Program:
    """Compile a belief net of two layers of three bits."""
    torch.manual_seed(0)
    g = scg.Graph("belief_net")
    x = g.input("x", plates="batch", example=batch())
    h1 = g.sample("h1", Bernoulli, logits=g.det("l1", nn.Linear(8, 3), x))
    h2 = g.sample("h2", Bernoulli, logits=g.det("l2", nn.Linear(3, 3), h1))
    seen = g.log_prob(Bernoulli, x, logits=g.det("xhat", nn.Linear(3, 8), h1))
    middle = g.log_prob(Bernoulli, h1, logits=g.det("up", nn.Linear(3, 3), h2))
    top = g.log_prob(Bernoulli, h2, logits=g.param("prior", torch.zeros(3)))
    g.cost("nelbo", g.log_prob(h1) + g.log_prob(h2) - seen - middle - top)
    return scg.compile(g, policy=policy, **options)
