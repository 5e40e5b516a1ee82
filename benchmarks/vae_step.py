"""One training step of a discrete VAE against the same step by hand, interleaved in one process.

Run ``python benchmarks/vae_step.py``; medians of forward and backward, and their ratio, are printed.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli
from vae_by_hand import ByHand, draw, rebar_step, relax_step, score_step

import scg

POLICIES = ("score", "rebar", "relax")


def vae(model: ByHand, x: Tensor) -> scg.Graph:
    """The graph of the model whose parameters ``model`` holds."""
    g = scg.Graph("vae")
    images = g.input("x", plates="batch", example=x)
    logits = g.det("logits", model.encoder, images)
    b = g.sample("b", Bernoulli, logits=logits)
    recon = g.log_prob(Bernoulli, images, logits=g.det("output", model.decoder, b))
    g.cost("nelbo", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=g.param("prior", model.prior)) - recon)
    return g


def steps(policy: str, model: ByHand, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same step twice, as functions that return the loss, each with parameters of its own."""
    mine, theirs = copy.deepcopy(model), copy.deepcopy(model)
    estimator = scg.RELAX(mine.net, context="logits") if policy == "relax" else policy
    program = scg.compile(vae(mine, x), policy=estimator)

    def by_hand() -> Tensor:
        if policy == "score":
            return score_step(theirs, x, *draw(theirs, len(x), 1))
        step = rebar_step if policy == "rebar" else relax_step
        return step(theirs, x, *draw(theirs, len(x)))

    return {"program": lambda: program(x=x).loss, "by hand": by_hand}


def main() -> None:
    """Print, for each estimator, the median step of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, x = ByHand(), (torch.rand(arguments.batch, 784) < 0.3).float()
    every = [(p, kind, step) for p in POLICIES for kind, step in steps(p, model, x).items()]
    times: dict[tuple[str, str], list[float]] = {(policy, kind): [] for policy, kind, _ in every}
    for _ in range(arguments.rounds):
        random.shuffle(every)
        for policy, kind, step in every:
            start = time.perf_counter()
            step().backward()
            times[policy, kind].append(time.perf_counter() - start)
    for policy in POLICIES:
        mine, theirs = (1e3 * statistics.median(times[policy, kind]) for kind in ("program", "by hand"))
        print(f"{policy:>6}: program {mine:.2f} ms, by hand {theirs:.2f} ms, ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
