"""``python -m benchmarks.decoder``: variance times evaluations of many estimators at bits under a decoder.

Twenty bits are decoded by a network to the logits of fifty others, whose negative log-likelihood is the cost.
Each number is relative to the score with the other of two samples as a baseline; control variates are trained
first. An evaluation is one of the cost: its slope at a sample, which one backward gives, counts none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg

BITS, HIDDEN, SEEN = 20, 40, 50
COPIES, TRAINING, RATE = 20_000, 300, 0.02
WIDTHS: Mapping[str, float] = {"near init": 0.1, "sharp": 2.5}
"""The standard deviation of logits."""


class Row(NamedTuple):
    """An estimator, its replicates, and the evaluations of a gradient."""

    name: str
    estimator: scg.Estimator | str
    samples: int | None
    evaluations: int


ROWS = (
    Row("leave-one-out 2", scg.Score(baseline="leave-one-out"), 2, 2),
    Row("leave-one-out 4", scg.Score(baseline="leave-one-out"), 4, 4),
    Row("disarm", "disarm", None, 2),
    Row("arm", "arm", None, 2),
    Row("arms 3", scg.Coupled(evaluations=3), None, 3),
    Row("arms 4", "arms", None, 4),
    Row("double-cv 2", "double-cv", 2, 2),
    Row("double-cv 4", "double-cv", 4, 4),
    Row("rebar", "rebar", None, 3),
    Row("muprop", "muprop", None, 2),
    Row("muprop at 1", scg.MuProp(tune=False), None, 2),
    Row("nvil", scg.NVIL(normalise=False), None, 1),
    Row("score", "score", None, 1),
)


def decoder(seed: int = 0) -> nn.Module:
    """Return a network from bits to logits."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(BITS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, SEEN))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.normal_(std=2.0 / layer.in_features**0.5)
    return net.requires_grad_(False)


def graph(net: nn.Module, width: float, copies: int, seed: int = 1) -> scg.Graph:
    """Return a graph of many copies of the bits, whose logits are an input of each."""
    generator = torch.Generator().manual_seed(seed)
    logits = width * torch.randn(BITS, generator=generator)
    truth = (torch.rand(BITS, generator=generator) < 0.5).float()
    x = (torch.rand(SEEN, generator=generator) < net(2 * truth - 1).sigmoid()).float()
    g = scg.Graph("decoder")
    g.plate("copy", reduce="sum")
    b = g.sample("b", Bernoulli, logits=g.input("l", plates="copy", example=logits.expand(copies, BITS)))
    seen = g.det("seen", lambda b: net(2 * b - 1), b)
    g.cost("cost", lambda h: nn.functional.softplus(h).sum(-1) - h @ x, seen)
    return g


def variance(row: Row, net: nn.Module, width: float, copies: int = COPIES) -> tuple[float, Tensor]:
    """Return the variance of a gradient, summed over bits, and its mean, where controls are trained."""
    g = graph(net, width, copies)
    logits = g.freeze().store.examples["l"]
    program = scg.compile(g, row.estimator, samples=row.samples)
    controls = list(program.control_parameters())
    if controls:
        optimizer = torch.optim.Adam(controls, lr=RATE)
        for seed in range(TRAINING):
            optimizer.zero_grad()
            program(l=logits[:100].clone().requires_grad_(), seed=seed).loss.backward()
            optimizer.step()
    live = logits.clone().requires_grad_()
    program.eval()(l=live, seed=TRAINING).loss.backward()
    assert live.grad is not None
    return float(live.grad.var(0).sum()), live.grad.mean(0)


def table(copies: int = COPIES) -> dict[str, dict[str, float]]:
    """Return variance times evaluations, relative to that of the first row, by row and width."""
    net = decoder()
    found = {
        row.name: {
            width: row.evaluations * variance(row, net, size, copies)[0] for width, size in WIDTHS.items()
        }
        for row in ROWS
    }
    first = found[ROWS[0].name]
    return {name: {width: own[width] / first[width] for width in own} for name, own in found.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'':16} {'  '.join(f'{width:>9}' for width in WIDTHS)}")
    for name, own in table().items():
        print(f"{name:16} {'  '.join(f'{own[width]:9.2f}' for width in WIDTHS)}")
