"""The world: a gymnasium environment, single or vector, as a batch that is reset and stepped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import Autoreset

from scg.errors import GraphError
from scg.rl.spaces import Actions, check_observations, read


class Moved(NamedTuple):
    """What a step gives for each environment: where it is now, and whether its episode is over."""

    state: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class World:
    """``size`` environments; a single one is a batch of one that never resets itself."""

    env: Any
    size: int
    lead: tuple[int, ...]
    mode: AutoresetMode
    observations: Any
    actions: Actions

    def reset(self, seed: int | None) -> Any:
        """Start an episode in every environment, and return where they are."""
        return self._shown(self.env.reset() if seed is None else self.env.reset(seed=seed))

    def restart(self, over: np.ndarray) -> Any:
        """Start an episode where one is over, in environments that do not do so themselves."""
        if not self.lead:
            return self.reset(None)
        return self._shown(self.env.reset(options={"reset_mask": over}))

    def step(self, actions: np.ndarray) -> Moved:
        """Take one step everywhere."""
        found = self.env.step(actions if self.lead else actions[0])
        if not isinstance(found, tuple) or len(found) != 5:
            raise GraphError(
                f"step returned {_told(found)}, as old gym did with 4: return observation, reward, "
                "terminated, truncated, info"
            )
        shown, reward, terminated, truncated, _ = found
        # Vector environments may write into the same arrays at the next step.
        return Moved(
            read(self.observations, shown, self.lead),
            np.array(reward, dtype=np.float64).reshape(self.size),
            np.array(terminated, dtype=bool).reshape(self.size),
            np.array(truncated, dtype=bool).reshape(self.size),
        )

    def _shown(self, found: Any) -> Any:
        if not isinstance(found, tuple) or len(found) != 2:
            raise GraphError(f"reset returned {_told(found)}: return observation, info")
        return read(self.observations, found[0], self.lead)


def world_of(env: Any) -> World:
    """Return an environment as a world, or refuse what is none."""
    if not isinstance(env, (Env, VectorEnv)):
        raise GraphError(
            f"episodes: env is a {type(env).__name__}: write a gymnasium Env, a VectorEnv, or a function "
            "that makes one"
        )
    if any(isinstance(layer, Autoreset) for layer in _layers(env)):
        raise GraphError(
            "episodes: env is wrapped in gymnasium.wrappers.Autoreset, whose resets would count as steps: "
            "give it without, episodes are reset here"
        )
    if isinstance(env, VectorEnv):
        shown, taken = env.single_observation_space, env.single_action_space
        world = World(env, env.num_envs, (env.num_envs,), _mode(env), shown, Actions.of(taken))
    else:
        shown, taken = env.observation_space, env.action_space
        world = World(env, 1, (), AutoresetMode.DISABLED, shown, Actions.of(taken))
    check_observations(shown)
    return world


def _mode(env: Any) -> AutoresetMode:
    found = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(found)
    except ValueError as unknown:
        raise GraphError(
            f"episodes: metadata['autoreset_mode'] of {type(env).__name__} is {found!r}, so that where "
            "episodes begin is unknown: set it to a gymnasium.vector.AutoresetMode"
        ) from unknown


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment and all that it wraps."""
    yield env
    for inner in (getattr(env, "env", None), *(getattr(env, "envs", None) or ())):
        if isinstance(inner, (Env, VectorEnv)):
            yield from _layers(inner)


def _told(found: object) -> str:
    return f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
