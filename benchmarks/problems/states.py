"""Chains of hidden states, which are summed out exactly: a step against the forward recursion."""

from __future__ import annotations

from collections.abc import Iterator

from torch.distributions import Categorical

import scg
from benchmarks.by_hand import states
from benchmarks.contest import PYRO, Contest, Settings, entrants
from benchmarks.peers import peer

SIZES, FEW = (10, 50, 200, 1000), (10, 50)
PYRO_UP_TO = 200


def graph(model: states.Model) -> scg.Graph:
    """A state for each row of the table of costs."""
    g = scg.Graph("states")
    start, step, table = (g.param(name, p) for name, p in model.named_parameters())
    state: scg.Node | None = None
    for t in range(len(model.table)):
        state = g.sample(f"z{t}", Categorical, logits=start if state is None else step[state])
        g.cost(f"c{t}", table[t][state])
    return g


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for every length."""
    for steps in FEW if settings.quick else SIZES:
        model = states.Model(steps).to(settings.device)
        peers = {PYRO: peer("in_pyro", "states")} if steps <= PYRO_UP_TO else {}
        contenders = entrants(
            model,
            lambda model: scg.compile(graph(model), policy="enumerate"),
            lambda model: lambda: states.expected(model),
            peers,
            compiled=False,
        )
        yield Contest("states", "enumerate", contenders, size=steps)
