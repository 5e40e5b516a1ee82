"""Small environments whose episodes have known lengths, and vectors of them in every autoreset mode."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

MODES = list(AutoresetMode)


class Walk(gymnasium.Env[Any, Any]):
    """A walk whose length a reset draws; it writes states into one array, and changes its actions."""

    action_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, shortest: int = 1, longest: int = 6, truncates: bool = False) -> None:
        self.shortest, self.longest, self.truncates = shortest, longest, truncates
        self.place = np.zeros(3, np.float32)
        self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(self.shortest, self.longest + 1))
        self.place[:] = self.np_random.normal(size=3)
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.left > 0, "a step after the end"
        self.place[:2] += action
        self.place[2] += self.np_random.normal()
        action[:] = np.nan
        self.left -= 1
        over = self.left == 0
        return (
            self.place,
            float(self.place.sum()),
            over and not self.truncates,
            over and self.truncates,
            {},
        )


class Scripted(gymnasium.Env[Any, Any]):
    """Episodes of the lengths in a list, over and over; it shows the numbers of episode and step."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.MultiDiscrete([1000, 1000])

    def __init__(self, lengths: list[int]) -> None:
        self.lengths, self.episode, self.clock = lengths, -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.clock = self.episode + 1, 0
        return np.array([self.episode, 0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.clock += 1
        over = self.clock == self.lengths[self.episode % len(self.lengths)]
        return np.array([self.episode, self.clock]), 1.0, over, False, {}


class Nested(gymnasium.Env[Any, Any]):
    """Two steps of what is nested, for a choice of two numbers."""

    action_space = spaces.MultiDiscrete([2, 3])
    observation_space = spaces.Dict(
        {
            "pair": spaces.Tuple([spaces.Discrete(9, start=1), spaces.Box(0, 255, (2, 2), np.uint8)]),
            "bits": spaces.MultiBinary(3),
        }
    )

    def _shown(self) -> dict[str, Any]:
        picture = np.full((2, 2), self.clock, np.uint8)
        return {"pair": (np.int64(1 + self.clock), picture), "bits": np.ones(3, np.int8)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.clock = 0
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.clock += 1
        return self._shown(), 0.5, self.clock == 2, False, {}


class Shared(VectorEnv[Any, Any, Any]):
    """Two environments, of episodes of two and three steps, that write into the same arrays all the time."""

    single_action_space = action_space = spaces.Discrete(2)
    single_observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (2, 1), np.float32)

    def __init__(self) -> None:
        self.num_envs, self.metadata = 2, {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.clock = np.zeros((2, 1), np.float32)
        self.reward, self.over, self.cut = np.zeros(2), np.zeros(2, bool), np.zeros(2, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.clock[:] = 0
        return self.clock, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        self.clock += 1
        self.reward[:] = self.clock[:, 0]
        self.over[:], self.cut[:] = [self.clock[0, 0] == 2, False], [False, self.clock[1, 0] == 3]
        self.clock[self.over | self.cut] = 0
        return self.clock, self.reward, self.over, self.cut, {}


def vector(
    *makers: Any, mode: AutoresetMode = AutoresetMode.NEXT_STEP, copy: bool = True
) -> VectorEnv[Any, Any, Any]:
    """Return environments as a vector that resets them as ``mode`` says."""
    return SyncVectorEnv(list(makers), autoreset_mode=mode, copy=copy)
