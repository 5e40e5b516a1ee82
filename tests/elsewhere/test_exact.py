"""Values drawn elsewhere: the mean of estimates is exact, where episodes end early and are padded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scg
from tests.elsewhere import problems
from tests.elsewhere.problems import Actions, Shifts, flat
from tests.selection import EVERYTHING

EPISODES, RUNS = (400_000 if EVERYTHING else 100_000), 100


class Wrong(nn.Module):
    """A network that nothing trained, three times too large."""

    def __init__(self, width: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, *values: Tensor) -> Tensor:
        rank = max(value.dim() for value in values)
        wide = [value.unsqueeze(-1) if value.dim() < rank else value for value in values]
        lead = torch.broadcast_shapes(*(value.shape[:-1] for value in wide))
        joined = torch.cat([value.expand(*lead, value.shape[-1]) for value in wide], -1)
        return 3 * self.layers(joined).squeeze(-1)


class WrongOfAction(Wrong):
    """One that reads real actions, which have no dimension of their own."""

    def forward(self, *values: Tensor) -> Tensor:
        action, state = values
        return super().forward(action.unsqueeze(-1), state)


def graph_of(policy: nn.Module, simulate: Callable[..., Any], **options: Any) -> tuple[scg.Graph, scg.Node]:
    g = scg.Graph("mdp")
    g.plate("episode")
    g.plate("time", ordered=True, discount=problems.DISCOUNT, reduce="sum")
    ep = g.rollout("ep", simulate, policy, plates=("episode", "time"), **options)
    g.cost("loss", -ep["reward"])
    return g, ep


def deviation(program: scg.Program, policy: nn.Module, exact: Tensor, runs: int = RUNS) -> float:
    """Return how many standard errors the worst entry of the mean gradient is off."""
    found = []
    for _ in range(runs):
        policy.zero_grad()
        program().loss.backward()
        found.append(flat([parameter.grad for parameter in policy.parameters()]).clone())
    means = torch.stack(found)
    return float(((means.mean(0) - exact).abs() / (means.std(0) / len(found) ** 0.5)).max())


def without_mask(record: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in record.items() if key != "mask"}


def other_policy() -> Actions:
    """A policy that is not the one whose gradient is asked for."""
    other = Actions()
    with torch.no_grad():
        for parameter, step in zip(other.parameters(), (0.4, -0.3), strict=True):
            parameter += step * torch.tensor([1.0, -0.5]).view(-1, *(1,) * (parameter.dim() - 1))
    return other


ESTIMATORS = {
    "score": lambda ep: scg.Score(),
    "value": lambda ep: scg.Score(baseline=Wrong(2)),
    "moving average": lambda ep: scg.Score(baseline="moving-average"),
    "leave-one-out": lambda ep: scg.Score(baseline=scg.LeaveOneOut("episode")),
    "relax": lambda ep: scg.RELAX(net=Wrong(4), context=ep.parents),
    "relax, default network": lambda ep: "relax",
    "auto": lambda ep: "auto",
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_over_episodes_is_the_gradient(name: str) -> None:
    torch.manual_seed(1)
    policy = Actions()
    g, ep = graph_of(policy, partial(problems.play, count=EPISODES // RUNS))
    program = scg.compile(g, {"ep": ESTIMATORS[name](ep)})
    assert deviation(program, policy, problems.exact_of_actions(policy)) < 4.5


@pytest.mark.parametrize("name", ["score", "value", "leave-one-out", "relax"])
def test_episodes_of_another_policy_are_weighed(name: str) -> None:
    torch.manual_seed(1)
    policy, other = Actions(), other_policy()

    def simulate(policy: Actions) -> dict[str, Tensor]:
        return problems.play(other, EPISODES // RUNS)

    g, ep = graph_of(policy, simulate, behaviour="log_prob")
    program = scg.compile(g, {"ep": ESTIMATORS[name](ep)})
    assert deviation(program, policy, problems.exact_of_actions(policy)) < 4.5


@pytest.mark.parametrize("name", ["score", "lax", "lax, default network"])
def test_real_actions(name: str) -> None:
    torch.manual_seed(1)
    policy = Shifts()
    g, ep = graph_of(policy, partial(problems.shift, count=EPISODES // RUNS))
    several = {"score": "score", "lax, default network": "lax"}
    estimator = several.get(name) or scg.LAX(net=WrongOfAction(3), context=ep.parents)
    program = scg.compile(g, {"ep": estimator})
    assert deviation(program, policy, problems.exact_of_shifts(policy)) < 4.5


@pytest.mark.parametrize("name", ["value", "leave-one-out", "relax"])
def test_padding_that_counts_is_seen(name: str) -> None:
    torch.manual_seed(1)
    policy = Actions()
    g, ep = graph_of(policy, lambda policy: without_mask(problems.play(policy, EPISODES // RUNS)))
    program = scg.compile(g, {"ep": ESTIMATORS[name](ep)})
    off = deviation(program, policy, problems.exact_of_actions(policy))
    assert off > 30


def test_every_episode_by_its_probability() -> None:
    """Without sampling: the estimate of every episode, times its probability under another policy."""
    policy, other = Actions().double(), other_policy().double()
    firsts, seconds = torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1])
    record = problems.actions_of(other, firsts, seconds)
    likelihood = (record["log_prob"] * record["mask"]).sum(1).exp()
    g, ep = graph_of(policy, lambda policy: record, behaviour="log_prob")
    program = scg.compile(g, {"ep": "score"})
    total = torch.zeros(6, dtype=torch.float64)
    for index, probability in enumerate(likelihood):
        policy.zero_grad()
        program(noise={key: value[index : index + 1] for key, value in record.items()}).loss.backward()
        total += probability * flat([parameter.grad for parameter in policy.parameters()])
    assert torch.allclose(total, problems.exact_of_actions(policy), atol=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_was_padded_does_not_matter(name: str) -> None:
    policy, found = Actions(), []
    for nowhere in (problems.NOWHERE, -1e30, torch.nan, torch.inf):
        torch.manual_seed(1)
        record = problems.play(policy, 8, nowhere)
        record["reward"] = torch.where(record["mask"], record["reward"], nowhere)
        g, ep = graph_of(policy, lambda policy, record=record: record)
        program = scg.compile(g, {"ep": ESTIMATORS[name](ep)})
        policy.zero_grad()
        estimate = program(seed=3)
        estimate.loss.backward()
        controls = [p.grad for p in program.control_parameters()]
        assert all(grad is None or bool(grad.isfinite().all()) for grad in controls)
        found.append((estimate.loss.detach(), *[p.grad.clone() for p in policy.parameters()]))
    if "default" in name or name == "relax":  # their networks start at random or read every state
        assert all(bool(part.isfinite().all()) for parts in found for part in parts)
    for parts in found[1:]:
        assert torch.equal(parts[0], found[0][0])
        if "default" not in name:
            assert all(
                torch.allclose(one, other, atol=1e-6) for one, other in zip(parts, found[0], strict=True)
            )


@pytest.mark.parametrize("name", ["score", "value", "relax"])
def test_costs_of_whole_episodes(name: str) -> None:
    """The square of what an episode brings, which every step of it is charged with."""
    torch.manual_seed(1)
    policy = Actions()
    g = scg.Graph("mdp")
    g.plate("time", ordered=True, reduce="sum")
    ep = g.rollout("ep", partial(problems.play, count=4000), policy, plates=("episode", "time"))
    g.cost("square", lambda reward: reward.sum(-1) ** 2, ep["reward"], plates="episode")
    program = scg.compile(g, {"ep": ESTIMATORS[name](ep)})
    first, second = policy(problems.FIRST).probs, policy(problems.SECOND).probs
    value = first[1] * 0.7**2 + first[0] * (second[0] * (0.2 - 0.5) ** 2 + second[1] * (0.2 + 1.5) ** 2)
    exact = flat(torch.autograd.grad(value, list(policy.parameters())))
    assert deviation(program, policy, exact) < 4.5


def test_estimators_share_a_record() -> None:
    policy = Actions()
    losses, costs = [], []
    record = problems.play(policy, 16)
    for estimator in ESTIMATORS.values():
        g, ep = graph_of(policy, partial(problems.play, count=16))
        estimate = scg.compile(g, {"ep": estimator(ep)})(noise=record)
        losses.append(estimate.loss.detach())
        costs.append(estimate.costs["loss"])
    assert all(torch.equal(loss, losses[0]) for loss in losses)
    assert all(torch.equal(cost, costs[0]) for cost in costs)


def test_credit_is_the_formula() -> None:
    """sum over existing t of sum over t' >= t of discount**t' c_t' dlog p(a_t)."""
    policy = Actions()
    record = problems.play(policy, 64)
    g, ep = graph_of(policy, lambda policy: record)
    scg.compile(g, {"ep": "score"})().loss.backward()
    found = flat([parameter.grad.clone() for parameter in policy.parameters()])
    weighed = -record["reward"] * problems.DISCOUNT ** torch.arange(2)
    to_go = weighed.flip(1).cumsum(1).flip(1)
    log_prob = policy(record["state"]).log_prob(record["action"])
    surrogate = torch.where(record["mask"], to_go * log_prob, 0).sum(1).mean()
    wanted = flat(torch.autograd.grad(surrogate, list(policy.parameters())))
    assert torch.allclose(found, wanted, atol=1e-6)
