"""The simulator: whole episodes of an environment, asked for by number or by steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scg.errors import GraphError
from scg.rl.plan import Plan


def episodes(
    env: Any, count: int = 1, *, limit: int | None = None, steps: int | None = None, seed: int | None = None
) -> Callable[..., dict[str, Any]]:
    """Return a simulator that plays whole episodes of a gymnasium environment under a policy.

    ``env`` is an ``Env``, a ``VectorEnv``, or a function that makes one, called once, at first use. A call
    of the simulator plays ``count`` episodes. The N environments of a vector environment contribute equally
    many, and each that is through idles until all are, since the first to end would be the short ones:
    ``count`` is a multiple of N, and 1 means one each. Instead of ``count``, ``steps`` asks for rounds of N
    whole episodes until there are that many steps in all; how many episodes there are then depends on how
    long they are, and the mean over them is a ratio that is slightly biased. ``limit`` cuts episodes off
    after that many steps, as a truncation; an environment that need not end needs it. ``seed`` is that of
    the first reset; later resets go on from there.

    ``simulate(policy, *parents, seed=None)`` gives ``policy`` the states of all environments, [N, ...] in
    torch's default dtype (int64 where spaces are discrete), and takes a torch distribution. With a seed,
    the environment and torch draw by that alone. The parents are not looked at. What comes back is a dict
    of tensors [episode, time, ...], zero after the end of an episode: ``state`` (nested as its space is),
    ``action``, ``log_prob``, ``reward``, ``mask`` (where there is a step), ``terminated`` and
    ``truncated``. Rows are the first episodes of all environments, then the second ones, and so on.

    >>> import gymnasium
    >>> import torch
    >>> simulate = episodes(gymnasium.make("CartPole-v1"), count=2, limit=5)
    >>> record = simulate(lambda state: torch.distributions.Bernoulli(logits=state[..., 2]), seed=0)
    >>> record["state"].shape, record["action"].shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    >>> record["truncated"].sum(-1)
    tensor([1, 1])

    Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
    """
    plan = Plan.of(count, limit, steps, seed)
    try:
        from scg.rl.player import Player
    except ImportError as missing:
        raise GraphError('episodes need gymnasium: pip install "scg[rl]"') from missing
    return Player(env, plan)
