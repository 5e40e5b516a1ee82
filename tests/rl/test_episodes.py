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
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from scg.rl import episodes
from tests.rl.worlds import MODES, Nested, Scripted, Shared, Walk, vector

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


def test_arrays_that_are_written_over_are_kept() -> None:
    record = episodes(Shared(), 4)(coin)
    assert record["reward"].tolist() == [[1, 2, 0], [1, 2, 3]] * 2
    assert record["state"][..., 0].tolist() == [[0, 1, 0], [0, 1, 2]] * 2
    assert record["terminated"].tolist() == [[False, True, False], [False] * 3] * 2
    assert record["truncated"].tolist() == [[False] * 3, [False, False, True]] * 2


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
