"""What cannot be played is refused, and what fails is told with its place in the record."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from scg.errors import GraphError
from scg.rl import episodes
from tests.rl.worlds import Scripted, Walk, vector


def coin(state: Tensor) -> Distribution:
    return Bernoulli(logits=torch.zeros(state.shape[:-1]))


def lengths(record: dict[str, Any]) -> list[int]:
    return [int(length) for length in record["mask"].sum(-1)]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"count": 0}, "count is 0: write a positive int"),
        ({"count": True}, "count is True: write a positive int"),
        ({"count": None}, "count is None"),
        ({"limit": 2.5}, "limit is 2.5: write a positive int"),
        ({"steps": -1}, "steps is -1"),
        ({"seed": -1}, "seed is -1: write an int that is not negative"),
        ({"count": 2, "steps": 10}, "give one of them"),
        ({"limit": 0, "steps": 0}, "limit is 0: write a positive int; steps is 0"),
    ],
)
def test_what_is_no_plan_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        episodes(Walk(), **options)


def test_episodes_are_shared_out_evenly() -> None:
    with pytest.raises(GraphError, match="count=5 is no multiple of the 2 environments .*: write 4 or 6"):
        episodes(vector(Walk, Walk), 5)
    with pytest.raises(GraphError, match="count=2 is no multiple of the 3 environments .*: write 3"):
        episodes(lambda: vector(Walk, Walk, Walk), 2)(coin)


class Odd(Scripted):
    """An environment of which one thing is not as it should be."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__([3])
        self.__dict__.update(wrong)


@pytest.mark.parametrize(
    "env, said",
    [
        ("CartPole-v1", "env is a str: write a gymnasium Env"),
        (gymnasium.wrappers.Autoreset(Walk()), "gymnasium.wrappers.Autoreset, .*: give it without"),
        (vector(lambda: gymnasium.wrappers.Autoreset(Walk())), "wrapped in gymnasium.wrappers.Autoreset"),
        (Odd(action_space=spaces.Tuple([spaces.Discrete(2)])), "actions are in Tuple"),
        (Odd(observation_space=spaces.Text(3)), "observations are in Text"),
        (
            Odd(observation_space=spaces.Dict(a=spaces.Sequence(spaces.Discrete(2)))),
            "observations are in Seq",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(env: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        episodes(env)
    if not isinstance(env, str):
        with pytest.raises(GraphError, match=said):
            episodes(lambda: env)(coin)


def test_a_vector_that_does_not_say_how_it_resets_is_refused() -> None:
    world = vector(Walk)
    del world.metadata["autoreset_mode"]
    with pytest.raises(GraphError, match=r"metadata\['autoreset_mode'\] of SyncVectorEnv is None"):
        episodes(world)


@pytest.mark.parametrize(
    "policy, said",
    [
        (lambda state: state, "the policy returned a Tensor: return a torch.distributions.Distribution"),
        (
            lambda state: Bernoulli(0.5),
            r"drew actions of shape \(\) for 1 states, and those of Discrete\(2\)",
        ),
        (lambda state: Bernoulli(torch.ones(1, 1)), r"shape \(1, 1\) for 1 states, .* have shape \(1,\)"),
        (
            lambda state: Categorical(logits=torch.tensor([[-1e9, -1e9, 0.0]])),
            r"drew \[2\] in episode 0, step 0",
        ),
        (lambda state: Normal(torch.zeros(1), 0.1), r"which is not in Discrete\(2\): use a law"),
    ],
)
def test_what_is_no_policy_is_refused(policy: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        episodes(Scripted([2]))(policy)


@pytest.mark.parametrize("value", [11.0, -10.5, float("nan")])
def test_actions_outside_a_box_are_refused(value: float) -> None:
    class Fixed(Normal):
        def sample(self, sample_shape: Any = ()) -> Tensor:
            return torch.full(self.batch_shape, value)

    with pytest.raises(
        GraphError, match=r"in episode 0, step 0, which is not in Box\(-10.0, 10.0.*ClipAction"
    ):
        episodes(Walk())(lambda state: Fixed(state[..., :2], 1.0))


def test_actions_that_are_clipped_may_be_anything() -> None:
    record = episodes(gymnasium.wrappers.ClipAction(Walk()), 2)(lambda state: Normal(state[..., :2], 100.0))
    assert record["action"].abs().max() > 10


def failing(where: str, raised: BaseException | None, result: Any = None) -> Any:
    """Return an environment that raises, or gives something else, at the third step or reset."""

    class Failing(Scripted):
        calls = 0

        def _fails(self, name: str) -> bool:
            self.calls += name == where
            if self.calls == 3 and name == where and raised is not None:
                raise raised
            return self.calls == 3 and name == where

        def reset(self, **options: Any) -> Any:
            found = super().reset(**options)
            return result if self._fails("reset") else found

        def step(self, action: Any) -> Any:
            found = super().step(action)
            return result if self._fails("step") else found

    return Failing([2])


FOUR = (np.zeros(2, np.int64), 1.0, False, {})


@pytest.mark.parametrize(
    "where, raised, result, said",
    [
        (
            "step",
            ValueError("no"),
            None,
            "step of the environment failed in episode 1, step 0: ValueError: no",
        ),
        ("reset", ValueError("no"), None, "reset of the environment failed in episode 2, step 0: ValueError"),
        ("step", None, FOUR, "episode 1, step 0: GraphError: step returned 4 values, as old gym did"),
        ("step", None, None, "step returned a NoneType"),
        ("reset", None, np.zeros(2, np.int64), "reset returned a ndarray: return observation, info"),
        ("step", None, (np.zeros(3), 1.0, False, False, {}), r"an observation has shape \(3,\)"),
        ("step", None, (FOUR[0], [1.0, 2.0], False, False, {}), "episode 1, step 0: ValueError"),
    ],
)
def test_failures_are_told_with_their_place(where: str, raised: Any, result: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said) as told:
        episodes(failing(where, raised, result), 4)(coin)
    assert isinstance(told.value.__cause__, type(raised) if raised else Exception)


def test_failures_in_a_vector_are_told_with_every_place() -> None:
    world = vector(lambda: Scripted([1, 5]), lambda: failing("step", ValueError("no")))
    with pytest.raises(GraphError, match="in one of episode 2, step 1; episode 3, step 0: ValueError"):
        episodes(world, 4)(coin)


@pytest.mark.parametrize("where", ["step", "reset"])
def test_an_interrupt_passes_and_the_next_call_starts_afresh(where: str) -> None:
    simulate = episodes(failing(where, KeyboardInterrupt()), 4)
    with pytest.raises(KeyboardInterrupt):
        simulate(coin)
    assert lengths(simulate(coin)) == [2] * 4
