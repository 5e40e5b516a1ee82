"""The problem: a task as a graph of one rollout, and the estimators that its policies name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import scg
from scg.experiments.rl.networks import Choosing, OfAction, OfState, Steering
from scg.experiments.rl.tasks import TASKS, Task
from scg.experiments.stacked import network
from scg.runs import named_nearest, seed_of

DISCOUNT = 0.99


@dataclass(frozen=True)
class Setting:
    """What the training of a task depends on, but for the policy and for how long it lasts."""

    task: str
    seeds: int
    seed: int
    rate: float
    control_rate: float
    steps: int | None
    value_steps: int

    @property
    def of(self) -> Task:
        """The task."""
        return TASKS[self.task]


def policy_of(setting: Setting, runs: Sequence[int]) -> Choosing | Steering:
    """Return the policies of some runs before training, which no estimator has a part in."""
    task = setting.of
    widths = (task.observations, *task.hidden, task.actions)
    net = network(widths, task.activation, _seeds(setting, "policy", runs))
    return Choosing(net) if task.discrete else Steering(net, task.actions)


def _of_state(setting: Setting, runs: Sequence[int]) -> OfState:
    task = setting.of
    widths = (task.observations, *task.hidden, 1)
    return OfState(network(widths, task.activation, _seeds(setting, "control", runs)), task.scale)


def _of_action(setting: Setting, runs: Sequence[int]) -> OfAction:
    task = setting.of
    widths = (task.actions + task.observations, *task.hidden, 1)
    net = network(widths, task.activation, _seeds(setting, "control", runs))
    return OfAction(net, task.scale, discrete=task.discrete)


def _seeds(setting: Setting, what: str, runs: Sequence[int]) -> list[int]:
    return [seed_of(setting.seed, run, what) for run in runs]


def _score(setting: Setting, runs: Sequence[int], state: Any) -> scg.Estimator:
    return scg.Score()


def _value(setting: Setting, runs: Sequence[int], state: Any) -> scg.Estimator:
    return scg.Score(baseline=_of_state(setting, runs))


def _critic(setting: Setting, runs: Sequence[int], state: Any) -> scg.Estimator:
    return scg.Score(baseline=_of_state(setting, runs), fit="credit")


def _relax(setting: Setting, runs: Sequence[int], state: Any) -> scg.Estimator:
    return scg.RELAX(net=_of_action(setting, runs), context=state)


def _lax(setting: Setting, runs: Sequence[int], state: Any) -> scg.Estimator:
    return scg.LAX(net=_of_action(setting, runs), context=state)


POLICIES: dict[str, Callable[[Setting, Sequence[int], Any], scg.Estimator]] = {
    "relax": _relax,
    "lax": _lax,
    "score+value": _value,
    "a2c": _critic,
    "score": _score,
}
"""The estimators by the names that commands have for them; controls start alike wherever they are alike."""


def check_policy(name: str) -> None:
    """Refuse a policy that there is not."""
    if name not in POLICIES:
        raise scg.PolicyError(named_nearest("policy", name, POLICIES))


def program_of(setting: Setting, policy: str, runs: Sequence[int]) -> scg.Program:
    """Compile a task for some runs, all of them in one program, and for one policy.

    Runs are a plate of sums, so that each has its own gradient; without it there are the episodes of one run,
    of which the mean counts.
    """
    check_policy(policy)
    task = setting.of
    actor = policy_of(setting, runs)
    first = "run" if task.vectorised else "episode"
    g = scg.Graph(task.name.replace("-", "_"))
    g.plate(first, reduce="sum" if task.vectorised else "mean")
    g.plate("time", ordered=True, discount=DISCOUNT, reduce="sum")
    simulate = task.simulator(len(runs), setting.steps)
    example = simulate(actor, seed=seed_of(setting.seed, runs[0], "example"))
    ep = g.rollout("ep", simulate, actor, plates=(first, "time"), example=example)
    g.cost("negative_reward", -ep["reward"])
    return scg.compile(g, {"ep": POLICIES[policy](setting, runs, ep.parents)})
