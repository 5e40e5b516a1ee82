"""The tasks: an environment each, with the networks and the training that the papers have for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from torch import nn

from scg.errors import ScgError
from scg.rl import episodes


@dataclass(frozen=True)
class Task:
    """An environment, and how its policies are trained.

    Runs of a ``vectorised`` task are trained in one program, those of others one after another. A run is
    ``solved`` when the mean reward of its last ``window`` updates is that high; where this is None, that mean
    is what was reached. An update is of one episode, or of whole episodes with at least ``steps`` steps.
    """

    name: str
    env: str
    needs: str
    observations: int
    actions: int
    discrete: bool
    hidden: tuple[int, ...]
    activation: Callable[[], nn.Module]
    scale: float
    """What the outputs of control networks are multiplied by."""
    seeds: int
    updates: int
    rate: float
    window: int
    vectorised: bool = False
    limit: int | None = None
    solved: float | None = None
    steps: int | None = None

    def simulator(self, runs: int, steps: int | None) -> Callable[..., dict[str, Any]]:
        """Return what plays an update of all runs at once."""
        if self.vectorised:
            return episodes(lambda: _vector(self.env, runs), limit=self.limit)
        if steps is None:
            return episodes(lambda: _single(self), limit=self.limit)
        return episodes(lambda: _single(self), steps=steps, limit=self.limit)

    def check_installed(self) -> None:
        """Raise what to install before anything long is begun."""
        for module in ("gymnasium", self.needs):
            if find_spec(module) is None:
                raise ScgError(f'{self.name} needs {module}: pip install "scg[rl]"')


def _vector(env: str, runs: int) -> Any:
    import gymnasium

    return gymnasium.make_vec(env, num_envs=runs, vectorization_mode="vector_entry_point")


def _single(task: Task) -> Any:
    import gymnasium

    env = gymnasium.make(task.env)
    return env if task.discrete else gymnasium.wrappers.ClipAction(env)


_PENDULUM: Mapping[str, Any] = MappingProxyType(
    {
        "needs": "mujoco",
        "actions": 1,
        "discrete": False,
        "hidden": (64, 64),
        "activation": nn.Tanh,
        "scale": 10.0,
        "seeds": 3,
        "updates": 60,
        "rate": 3e-3,
        "window": 10,
        "steps": 500,
    }
)

TASKS = {
    task.name: task
    for task in (
        Task(
            "cartpole",
            "CartPole-v1",
            "gymnasium",
            observations=4,
            actions=2,
            discrete=True,
            hidden=(10, 10),
            activation=nn.ReLU,
            scale=1.0,
            seeds=20,
            updates=2000,
            rate=0.01,
            window=100,
            vectorised=True,
            limit=200,
            solved=195.0,
        ),
        Task(
            "lunarlander",
            "LunarLander-v3",
            "Box2D",
            observations=8,
            actions=4,
            discrete=True,
            hidden=(10, 10),
            activation=nn.ReLU,
            scale=1.0,
            seeds=5,
            updates=10_000,
            rate=0.003,
            window=100,
            solved=200.0,
        ),
        Task("inverted-pendulum", "InvertedPendulum-v5", observations=4, **_PENDULUM),
        Task("inverted-double-pendulum", "InvertedDoublePendulum-v5", observations=9, **_PENDULUM),
    )
}
