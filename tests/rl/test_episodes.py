"""Episodes are whole, told rightly whatever the environment does at their ends, and drawn by a seed alone."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from scg.errors import GraphError
from scg.rl import episodes
from tests.rl.worlds import MODES, Nested, Scripted, Walk, vector

modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


def certain(state: Tensor) -> Distribution:
    """Go a little towards where it is less, almost surely: draws are the same up to rounding."""
    return Independent(Normal(torch.tanh(state[..., :2]).round(decimals=3), 1e-20), 1)


def coin(state: Tensor) -> Distribution:
    return Bernoulli(logits=torch.zeros(state.shape[:-1]))


def lengths(record: dict[str, Any]) -> list[int]:
    return [int(length) for length in record["mask"].sum(-1)]


def by_hand(env: gymnasium.Env[Any, Any], seed: int, count: int, limit: int = 10**6) -> list[dict[str, Any]]:
    """Return episodes of one environment as a loop over it has them."""
    played = []
    for number in range(count):
        shown, _ = env.reset(seed=seed) if number == 0 else env.reset()
        state, told = torch.tensor(shown, dtype=torch.float32), dict[str, list[Any]]()
        over = False
        while not over:
            action = certain(state[None]).sample()[0]
            shown, reward, terminated, truncated, _ = env.step(action.clone().numpy())
            truncated = truncated or (not terminated and len(told.get("reward", [])) + 1 == limit)
            row = {
                "state": state,
                "action": action,
                "reward": torch.tensor(reward, dtype=torch.float32),
                "terminated": torch.tensor(terminated),
                "truncated": torch.tensor(truncated),
            }
            for key, value in row.items():
                told.setdefault(key, []).append(value)
            state, over = torch.tensor(shown, dtype=torch.float32), terminated or truncated
        played.append({key: torch.stack(values) for key, values in told.items()})
    return played


def assert_same(record: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert lengths(record) == [len(episode["reward"]) for episode in expected]
    assert record["mask"].shape == (len(expected), max(lengths(record)))
    for number, episode in enumerate(expected):
        length = len(episode["reward"])
        assert record["mask"][number, :length].all()
        for key, values in episode.items():
            assert torch.equal(record[key][number, :length], values), (number, key)
            assert not record[key][number, length:].any(), (number, key)


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_single_environment_is_played_as_a_loop_plays_it(truncates: bool, limit: int | None) -> None:
    record = episodes(Walk(truncates=truncates), 7, limit=limit, seed=3)(certain)
    assert_same(record, by_hand(Walk(truncates=truncates), 3, 7, limit or 10**6))


@modes
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("rounds", [1, 5])
def test_a_vector_is_played_as_its_environments_are(mode: AutoresetMode, copy: bool, rounds: int) -> None:
    makers = [Walk, lambda: Walk(truncates=True), lambda: Walk(4, 9), lambda: Walk(1, 1)]
    record = episodes(vector(*makers, mode=mode, copy=copy), 4 * rounds, seed=5)(certain)
    alone = [by_hand(make(), 5 + place, rounds) for place, make in enumerate(makers)]
    assert_same(record, [alone[place][number] for number in range(rounds) for place in range(4)])


@modes
def test_a_limit_cuts_a_vector_as_its_environments(mode: AutoresetMode) -> None:
    makers = [Walk, lambda: Walk(3, 3), lambda: Walk(4, 9)]
    record = episodes(vector(*makers, mode=mode), 3, limit=3, seed=5)(certain)
    assert_same(record, [by_hand(make(), 5 + place, 1, 3)[0] for place, make in enumerate(makers)])
    assert not record["truncated"][1].any()
    assert record["terminated"][1].tolist() == [False, False, True]


def test_a_limit_cuts_every_round_where_environments_are_reset_one_by_one() -> None:
    makers = [Walk, lambda: Walk(3, 3), lambda: Walk(4, 9)]
    record = episodes(vector(*makers, mode=AutoresetMode.DISABLED), 12, limit=3, seed=5)(certain)
    alone = [by_hand(make(), 5 + place, 4, 3) for place, make in enumerate(makers)]
    assert_same(record, [alone[place][number] for number in range(4) for place in range(3)])


@modes
def test_rounds_after_a_cut_are_whole(mode: AutoresetMode) -> None:
    world = vector(lambda: Scripted([9]), lambda: Scripted([2, 3, 4, 5, 6, 7]), mode=mode)
    record = episodes(world, 6, limit=4)(coin)
    assert (record["state"][..., 1] == torch.arange(4) * record["mask"]).all()
    assert (record["state"][..., 0] == record["state"][:, :1, 0] * record["mask"]).all()
    ended = (record["terminated"] | record["truncated"]).sum(-1)
    assert ended.tolist() == [1] * 6
    assert lengths(record)[::2] == [4, 4, 4]


@modes
def test_as_many_episodes_of_each_however_short(mode: AutoresetMode) -> None:
    world = vector(lambda: Scripted([1]), lambda: Scripted([20, 30]), mode=mode)
    assert lengths(episodes(world, 4)(coin)) == [1, 20, 1, 30]
    assert lengths(episodes(world)(coin))[0] == 1


def test_one_is_one_each() -> None:
    assert lengths(episodes(vector(*[lambda: Scripted([2])] * 3))(coin)) == [2, 2, 2]


def test_steps_are_whole_episodes_until_there_are_as_many() -> None:
    simulate = episodes(Scripted([3, 4, 5]), steps=8)
    assert lengths(simulate(coin)) == [3, 4, 5]
    assert lengths(simulate(coin)) == [3, 4, 5]
    assert lengths(episodes(Scripted([3, 4, 5]), steps=7)(coin)) == [3, 4]
    assert lengths(episodes(Scripted([3, 4, 5]), steps=8, limit=2)(coin)) == [2, 2, 2, 2]


@modes
def test_steps_of_a_vector_are_whole_rounds(mode: AutoresetMode) -> None:
    world = vector(lambda: Scripted([1]), lambda: Scripted([5]), mode=mode)
    assert lengths(episodes(world, steps=13)(coin)) == [1, 5, 1, 5, 1, 5]


def test_cartpole_as_a_vector_of_its_own_resets_itself() -> None:
    world = gymnasium.make_vec("CartPole-v1", num_envs=5, vectorization_mode="vector_entry_point")
    record = episodes(world, 20, seed=1)(lambda state: Bernoulli(logits=state[..., 2]))
    first = record["state"][:, 0]
    assert first.shape == (20, 4)
    assert (first.abs() <= 0.05).all()
    assert first.unique(dim=0).shape == first.shape
    assert torch.equal(record["terminated"].sum(-1), torch.ones(20, dtype=torch.int64))
    steps = (record["state"][:, 1:] - record["state"][:, :-1]).abs()[record["mask"][:, 1:]]
    assert (steps[:, 2] < 0.2).all()


def test_cartpole_is_played_alike_alone_and_in_vectors() -> None:
    def right(state: Tensor) -> Distribution:
        return Categorical(logits=torch.stack([-state[..., 2], state[..., 2]], -1) * 1e9)

    record = episodes(gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync"), 6, seed=2)(
        right
    )
    for place in range(3):
        alone = episodes(gymnasium.make("CartPole-v1"), 2, seed=2 + place)(right)
        longest = alone["mask"].shape[1]
        for key, values in alone.items():
            assert torch.equal(record[key][place::3][:, :longest], values)
            assert not record[key][place::3][:, longest:].any()


@pytest.mark.parametrize(
    "make",
    [Nested, lambda: vector(Nested, Nested)],
    ids=["single", "vector"],
)
def test_states_are_nested_as_their_space(make: Callable[[], Any]) -> None:
    seen = []

    def policy(state: Any) -> Distribution:
        seen.append(state)
        logits = torch.zeros(*state["bits"].shape[:-1], 2, 3)
        logits[..., 0, 2] = -torch.inf
        return Independent(Categorical(logits=logits), 1)

    record = episodes(make(), 2)(policy)
    number, picture = record["state"]["pair"]
    assert number.tolist() == [[1, 2], [1, 2]]
    assert number.dtype == record["state"]["bits"].dtype == torch.int64
    assert (picture.dtype, picture.shape) == (torch.float32, (2, 2, 2, 2))
    assert picture[:, 1].eq(1).all()
    assert record["action"].shape == (2, 2, 2)
    assert torch.allclose(record["log_prob"], -torch.tensor(6.0).log().expand(2, 2))
    assert all(state["pair"][1].dtype == torch.float32 and state["bits"].dim() == 2 for state in seen)


def test_log_probabilities_are_one_number_a_step_of_the_law_that_drew() -> None:
    shift = iter(range(100))

    def policy(state: Tensor) -> Distribution:
        return Normal(state[..., :2] * 0 + next(shift), 2.0)

    record = episodes(Walk(3, 5), 1, seed=0)(policy)
    length = lengths(record)[0]
    mean = torch.arange(length).float()[:, None].expand(length, 2)
    assert torch.allclose(record["log_prob"][0], Normal(mean, 2.0).log_prob(record["action"][0]).sum(-1))


def test_records_are_in_the_default_dtype_and_without_gradients() -> None:
    weight = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    torch.set_default_dtype(torch.float64)
    try:
        record = episodes(Walk(), 2)(lambda state: Normal(state @ weight, 1.0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {record[key].dtype for key in ("state", "action", "reward", "log_prob")} == {torch.float64}
    assert not any(values.requires_grad for values in record.values())


def drawn(state: Tensor) -> Distribution:
    return Normal(state[..., :2] * 0, 1.0)


@pytest.mark.parametrize(
    "make", [Walk, lambda: vector(Walk, Walk), lambda: vector(Walk, Walk, mode=MODES[1])]
)
def test_a_seed_of_a_run_is_all_there_is(make: Callable[[], Any]) -> None:
    simulate, other = episodes(make(), 4, seed=9), episodes(make(), 4)
    simulate(drawn)
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = simulate(drawn, object(), seed=4)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    again = other(drawn, seed=4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["state"][:, 0], simulate(drawn, seed=5)["state"][:, 0])


def test_neighbouring_seeds_of_runs_share_no_episode() -> None:
    simulate = episodes(vector(*[Walk] * 10))
    starts = torch.cat([simulate(drawn, seed=seed)["state"][:, 0] for seed in range(5)])
    assert len(starts.unique(dim=0)) == 50


def test_the_seed_is_that_of_the_first_reset_alone() -> None:
    simulate, expected = episodes(Walk(), 2, seed=8), by_hand(Walk(), 8, 4)
    first, second = simulate(certain), simulate(certain)
    assert_same(first, expected[:2])
    assert_same(second, expected[2:])


def test_an_environment_is_made_once_at_first_use() -> None:
    made = []
    simulate = episodes(lambda: made.append(1) or Walk(), 2)
    assert made == []
    simulate(certain)
    simulate(certain)
    assert made == [1]


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
        episodes(lambda: vector(Walk, Walk, Walk), 2)(certain)


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


def test_gymnasium_is_imported_at_the_call_and_named_where_it_is_missing() -> None:
    lines = [
        "import sys, scg",
        "assert 'gymnasium' not in sys.modules",
        "sys.modules['gymnasium'] = None",
        "try: scg.rl.episodes(None)",
        "except scg.GraphError as error: assert 'scg[rl]' in str(error)",
        "else: raise AssertionError",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
