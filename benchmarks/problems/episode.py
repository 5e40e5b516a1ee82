"""An update after one episode: 100 recorded steps of CartPole, and one that is played first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import scg
from benchmarks.by_hand import episode
from benchmarks.contest import TORCHRL, Contest, Settings, entrants
from benchmarks.peers import peer

STEPS = 100
ROWS: dict[str, tuple[Callable[[episode.Model, Any], Any], Callable[..., Tensor]]] = {
    "score": (lambda model, ep: scg.Score(), episode.score),
    "score and value": (
        lambda model, ep: scg.Score(baseline=model.value, context=ep.parents),
        episode.score_with_value,
    ),
}


def contests(settings: Settings) -> Iterator[Contest]:
    """One contest for each estimator on what was recorded, and one with playing."""
    for name in ROWS:
        yield contest(name, settings, plays=False)
        yield contest(name, settings, plays=True)


def contest(name: str, settings: Settings, *, plays: bool) -> Contest:
    """The contenders with one estimator."""
    torch.manual_seed(0)
    estimator, loss = ROWS[name]
    seen = episode.record(STEPS)
    simulate = played if plays else partial(recorded, seen)
    other = partial(peer("in_torchrl", "reinforce"), seen=seen, has_value=name != "score")
    contenders = entrants(
        episode.Model(),
        lambda model: program_of(model, estimator, simulate, seen),
        lambda model: lambda: loss(model, simulate(model.policy)),
        {} if plays else {TORCHRL: other},
        compiled=False,
    )
    return Contest("episode", name + (", played" if plays else ""), contenders)


def program_of(
    model: episode.Model,
    estimator: Callable[[episode.Model, Any], Any],
    simulate: Any,
    example: episode.Record,
) -> scg.Program:
    """The program that simulates, or takes what was recorded, and trains ``model``."""
    g = scg.Graph("episode")
    g.plate("time", ordered=True, discount=episode.DISCOUNT, reduce="sum")
    ep = g.rollout("ep", simulate, model.policy, plates=("episode", "time"), example=example)
    g.cost("loss", -ep["reward"])
    return scg.compile(g, {"ep": estimator(model, ep)})


def recorded(seen: episode.Record, policy: episode.Policy) -> episode.Record:
    """Play nothing."""
    return seen


def played(policy: episode.Policy) -> episode.Record:
    """Take steps in what costs next to nothing: the policy is asked for every one."""
    states, actions = [], []
    with torch.no_grad():
        state = torch.zeros(1, episode.STATE)
        for _ in range(STEPS):
            action = policy(state).sample()
            states.append(state)
            actions.append(action)
            state = 0.9 * state + 0.1 * (2 * action - 1).unsqueeze(-1)
    ones = torch.ones(1, STEPS)
    return {
        "state": torch.stack(states, 1),
        "action": torch.stack(actions, 1),
        "reward": ones,
        "mask": ones.bool(),
    }
