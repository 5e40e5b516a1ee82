"""The player: the loop of policy and environment, from a plan to the record of whole episodes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import Env
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor
from torch.distributions import Distribution

from scg.errors import GraphError
from scg.rl.plan import Plan
from scg.rl.record import Row, record_of
from scg.rl.turn import Turn, afresh, after, first
from scg.rl.world import World, world_of

T = TypeVar("T")
Given = TypeVar("Given")
Policy = Callable[[Any], Any]


class Player:
    """A simulator of episodes: an environment, made at first use if need be, and a plan."""

    def __init__(self, env: Any, plan: Plan) -> None:
        """Take an environment, or a function that makes one."""
        makes = callable(env) and not isinstance(env, (Env, VectorEnv))
        self._env = env
        self._world = None if makes else self._opened(env, plan)
        self._plan = plan
        self._seed = plan.seed

    def __call__(self, policy: Policy, *parents: Any, seed: int | None = None) -> dict[str, Any]:
        """Return a record of episodes; with a ``seed``, environment and torch draw by that alone."""
        if self._world is None:
            self._world = self._opened(self._env(), self._plan)
        first_seed, self._seed = self._seed, None
        with torch.no_grad():
            if seed is None:
                return _play(self._world, policy, self._plan, first_seed)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return _play(self._world, policy, self._plan, _spread(seed))

    @staticmethod
    def _opened(env: Any, plan: Plan) -> World:
        world = world_of(env)
        plan.rounds(world.size)
        return world


def _play(world: World, policy: Policy, plan: Plan, seed: int | None) -> dict[str, Any]:
    """Play rounds of episodes, one in each environment, until there are as many as planned."""
    turn, rounds, total, rows = first(world.size), plan.rounds(world.size), 0, list[Row]()
    limit = plan.limit or sys.maxsize
    state = _tried(turn, "reset", world.reset, seed)
    while True:
        action, log_prob, taken = _act(world, policy, state, turn)
        moved = _tried(turn, "step", world.step, taken)
        ended = moved.terminated | moved.truncated
        playing = turn.playing
        cut = playing & ~ended & (turn.clock + 1 >= limit)
        rows.append(Row(turn, state, action, log_prob, moved.reward, moved.terminated, moved.truncated | cut))
        total += int(np.count_nonzero(playing))
        turn, state = after(turn, ended, cut, rounds, world.mode), moved.state
        if turn.idle.all():
            if (turn.episode >= rounds).all():
                if total >= (plan.steps or 0):
                    return record_of(rows)
                rounds += 1
            turn = afresh(turn, rounds)
            state = _tried(turn, "reset", world.reset, None)
        elif world.mode is AutoresetMode.DISABLED and (over := ended | cut).any():
            state = _tried(turn, "reset", world.restart, over)


def _act(world: World, policy: Policy, state: Any, turn: Turn) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return actions that a policy draws, the logarithm of how probable they were, and what is taken."""
    law = policy(state)
    if not isinstance(law, Distribution):
        raise GraphError(
            f"the policy returned a {type(law).__name__}: return a torch.distributions.Distribution"
        )
    action = law.sample()
    if action.shape != (world.size, *world.actions.shape):
        raise GraphError(
            f"the policy drew actions of shape {tuple(action.shape)} for {world.size} states, and those of "
            f"{world.actions.space} have shape {(world.size, *world.actions.shape)}: "
            "keep the leading dimensions of the state, and add those of the action space"
        )
    taken = world.actions.array(action)
    if taken is None:
        raise GraphError(
            f"the policy drew {action.tolist()} in {turn.told()}, which is not in {world.actions.space}: "
            "use a law with that support, or wrap the environment, as gymnasium.wrappers.ClipAction does"
        )
    log_prob: Tensor = law.log_prob(action)
    return action, log_prob.flatten(1).sum(1) if log_prob.dim() > 1 else log_prob, taken


def _tried(turn: Turn, name: str, act: Callable[[Given], T], given: Given) -> T:
    try:
        return act(given)
    except Exception as raised:
        raise GraphError(
            f"{name} of the environment failed in {turn.told()}: {type(raised).__name__}: {raised}"
        ) from raised


def _spread(seed: int) -> int:
    """Return a seed for environments, of which a vector environment counts up: neighbours would overlap."""
    return int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0])
