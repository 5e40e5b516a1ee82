"""Critics: what remains of the credit, by the formulas of steps; what networks are fit on; bias."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import scg
from scg.estimators.parts.critics import carried, decayed, later
from scg.estimators.protocol.border import refusal
from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.site import Site
from tests.elsewhere import episodes, problems
from tests.elsewhere.episodes import DISCOUNT, Value
from tests.estimators.building import facts, of, site

RATE, SIZE = 0.8, 6
TIME = Axis("time", SIZE, is_mean=False, discount=RATE, joined=True, ordered=True)
COSTS = of(0.3, -1.2, 0.7, 2.0, -0.4, 0.9)
VALUES = of(0.5, 0.1, -0.6, 1.1, 0.2, -0.3)
NET = torch.nn.Linear(1, 1)


def discounted_to_go(costs: Tensor) -> Tensor:
    return torch.stack([sum(RATE ** (s - t) * costs[s] for s in range(t, SIZE)) for t in range(SIZE)])


def steps(length: int = SIZE, exists: Tensor | None = None) -> Site:
    """A node of several steps, of which the first ``length`` exist, with what a network predicts."""
    exists = torch.arange(SIZE) < length if exists is None else exists
    costs = torch.where(exists, COSTS, 0.0)
    credit = torch.where(exists, discounted_to_go(costs), 0.0)
    return site(
        Bernoulli,
        {"logits": torch.zeros(SIZE, dtype=torch.double)},
        torch.full((SIZE,), 0.4, dtype=torch.double),
        lambda b: credit.expand(b.shape),
        axes=(TIME,),
        provided={"predict": lambda: torch.where(exists, VALUES, torch.nan)},
        exists=None if bool(exists.all()) else exists,
    )


def n_step(n: int, costs: Tensor, values: Tensor) -> Tensor:
    """sum over k < n of rate^k c_(t + k) + rate^n V_(t + n) - V_t."""
    found = []
    for t in range(SIZE):
        after = RATE**n * values[t + n] if t + n < SIZE else 0.0
        found.append(sum(RATE**k * costs[t + k] for k in range(min(n, SIZE - t))) + after - values[t])
    return torch.stack(found)


def gae(decay: float, costs: Tensor, values: Tensor) -> Tensor:
    """sum over k of (rate decay)^k (c_(t + k) + rate V_(t + k + 1) - V_(t + k))."""
    after = torch.cat((values[1:], of(0.0)))
    delta = costs + RATE * after - values
    return torch.stack(
        [sum((RATE * decay) ** k * delta[t + k] for k in range(SIZE - t)) for t in range(SIZE)]
    )


FORMULAS: dict[str, tuple[scg.Baseline, Callable[[Tensor, Tensor], Tensor]]] = {
    **{f"{n} steps": (scg.NStep(NET, n), lambda c, v, n=n: n_step(n, c, v)) for n in (1, 2, 5, 6, 9)},
    **{f"decay {d}": (scg.GAE(NET, d), lambda c, v, d=d: gae(d, c, v)) for d in (0.0, 0.5, 0.95, 1.0)},
}


@pytest.mark.parametrize("length", [1, 2, 4, 6])
@pytest.mark.parametrize("name", FORMULAS)
def test_what_remains_is_the_formula(name: str, length: int) -> None:
    baseline, formula = FORMULAS[name]
    made, exists = steps(length), torch.arange(SIZE) < length
    wanted = formula(torch.where(exists, COSTS, 0.0), torch.where(exists, VALUES, 0.0))
    assert torch.allclose((made.credit - baseline(made))[exists], wanted[exists], atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_network_is_fit_on_the_return(name: str) -> None:
    baseline, formula = FORMULAS[name]
    made, exists = steps(4), torch.arange(SIZE) < 4
    values = torch.where(exists, VALUES, 0.0).requires_grad_()
    predicting = steps(4)
    object.__setattr__(predicting.provided, "predict", lambda: values)
    error = baseline.error(predicting, made.credit)
    assert error is not None
    (slope,) = torch.autograd.grad(error[exists].sum(), values)
    wanted = -2 * formula(torch.where(exists, COSTS, 0.0), values.detach())
    assert torch.allclose(slope[exists], wanted[exists], atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_costs_are_counted_once_where_some_steps_do_not_exist(name: str) -> None:
    """With a prediction of 0 everywhere, and no decay, what remains is a sum of costs at later steps."""
    exists = torch.tensor([True, False, True, False, False, True])
    baseline, _ = FORMULAS[name]
    made = steps(exists=exists)
    error = carried(made.credit, exists, 0, RATE)
    kept = torch.where(exists, COSTS, 0.0)
    assert torch.allclose(error, discounted_to_go(kept), atol=1e-12)
    object.__setattr__(made.provided, "predict", lambda: torch.zeros_like(VALUES))
    remains = made.credit - baseline(made)
    if isinstance(baseline, scg.NStep):
        wanted = n_step(baseline.n, kept, 0 * VALUES)
    else:
        wanted = gae(baseline.decay, kept, 0 * VALUES)
    assert torch.allclose(remains[exists], wanted[exists], atol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.7, 1.0])
def test_a_decayed_sum_is_the_sum(rate: float) -> None:
    values = torch.arange(21.0, dtype=torch.double).sin().view(3, 7)
    wanted = torch.stack([sum(rate ** (s - t) * values[:, s] for s in range(t, 7)) for t in range(7)], 1)
    assert torch.allclose(decayed(values, 1, rate), wanted, atol=1e-12)
    assert torch.equal(later(values, 0, 1)[:2], values[1:]) and not later(values, 0, 5).any()


def test_a_rate_that_vanishes_is_no_trouble() -> None:
    values = torch.ones(300)
    assert torch.allclose(decayed(values, 0, 0.5)[:200], torch.full((200,), 2.0))


# ---- refusals


@pytest.mark.parametrize("baseline", [scg.NStep(NET, 2), scg.GAE(NET)], ids=["n-step", "gae"])
def test_steps_lie_along_one_ordered_plate(baseline: scg.Baseline) -> None:
    bit = {"logits": of(0.3)}
    several = (TIME, TIME._replace(name="turn"))
    estimator = scg.Score(baseline=baseline)
    assert refusal(estimator, facts(Bernoulli, bit, axes=(TIME,))) is None
    told = str(refusal(estimator, facts(Bernoulli, bit, axes=(TIME._replace(ordered=False),))))
    assert "no plate here is ordered" in told and "ordered=True" in told
    assert "are time, turn" in str(refusal(estimator, facts(Bernoulli, bit, axes=several)))
    given = facts(Bernoulli, bit, axes=(TIME,), is_given=True, has_behaviour=True, is_weighed=True)
    assert 'give ratios="step"' in str(refusal(estimator, given))
    assert refusal(scg.Score(baseline=baseline, ratios="step"), given) is None


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: scg.NStep(NET, 0), "n is a number of steps, 1 or more, not 0"),
        (lambda: scg.NStep(NET, 1.5), "not 1.5"),  # type: ignore[arg-type]
        (lambda: scg.GAE(NET, 1.5), "decay is a number from 0 to 1, not 1.5"),
        (lambda: scg.GAE(NET) + scg.LeaveOneOut(), "GAE takes the credit apart"),
        (lambda: scg.MovingAverage() + scg.NStep(NET, 1), "NStep takes the credit apart"),
    ],
)
def test_options_that_mean_nothing_are_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(scg.EstimatorError, match=told):
        make()


# ---- in programs


class Linear(torch.nn.Module):
    """A prediction that is linear in the state: as many numbers as there are states."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1).double()

    def forward(self, state: Tensor) -> Tensor:
        return self.layer(state.to(torch.float64)).squeeze(-1)


def remains(record: dict[str, Tensor], net: Value, name: str) -> Tensor:
    """What remains of the credit of two steps, written out."""
    cost = torch.where(record["mask"], -record["reward"].nan_to_num(), 0)
    value = torch.where(record["mask"], net(record["state"].nan_to_num()), 0)
    delta = torch.stack((cost[:, 0] + DISCOUNT * value[:, 1] - value[:, 0], cost[:, 1] - value[:, 1]), 1)
    decay = {"1": 0.0, "gae": 0.7, "2": 1.0}[name]
    return torch.stack((delta[:, 0] + DISCOUNT * decay * delta[:, 1], delta[:, 1]), 1)


CRITICS: dict[str, Callable[[Value], scg.Baseline]] = {
    "1": lambda net: scg.NStep(net, 1),
    "gae": lambda net: scg.GAE(net, decay=0.7),
    "2": lambda net: scg.NStep(net, 2),
}


@pytest.mark.parametrize("nowhere", [problems.NOWHERE, torch.nan])
@pytest.mark.parametrize("name", CRITICS)
def test_a_run_is_the_formula_whatever_is_padded(name: str, nowhere: float) -> None:
    torch.manual_seed(0)
    policy, net = episodes.policy_of(), Value()
    record = problems.play(policy, 40, nowhere)
    record["reward"] = torch.where(record["mask"], record["reward"].double(), nowhere)
    record["log_prob"] = record["log_prob"].nan_to_num()
    g = episodes.graph(policy, record, "episode")
    program = scg.compile(g, {"ep": scg.Score(baseline=CRITICS[name](net))}, allow_biased=True)
    found = episodes.gradient(program, policy, record)
    left = remains(record, net, name)
    assert torch.allclose(found, episodes.by_hand(policy, record, left), atol=1e-9)
    weights = DISCOUNT ** torch.arange(2) * record["mask"] / 40
    predicted = net(record["state"].nan_to_num())
    (wanted,) = torch.autograd.grad((-2 * weights * left.detach() * predicted).sum(), net.weight)
    assert torch.allclose(net.weight.grad, wanted, atol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("name, biased", [("1", True), ("gae", True), ("2", False)])
def test_what_stands_for_costs_is_biased(name: str, biased: bool) -> None:
    """Two steps of two are all costs there are; where a prediction stands for some, the mean is off."""
    exact = problems.exact_of_actions(episodes.policy_of())
    found = episodes.mean(scg.Score(baseline=CRITICS[name](Value())))
    assert (float((found - exact).abs().max()) > 1e-2) == biased
    assert torch.allclose(found, exact, atol=1e-12) != biased


def test_a_decay_of_1_is_a_baseline_like_any_other() -> None:
    estimator = scg.Score(baseline=scg.GAE(Value(), decay=1.0))
    assert estimator.unbiased
    exact = problems.exact_of_actions(episodes.policy_of())
    assert torch.allclose(episodes.mean(estimator), exact, atol=1e-12)


def test_a_critic_has_to_be_allowed() -> None:
    policy = episodes.policy_of()
    record = problems.play(policy, 4)
    with pytest.raises(scg.BiasedEstimatorError, match="'score' with baseline=GAE at 'ep' is biased"):
        scg.compile(episodes.graph(policy, record, "episode"), {"ep": scg.Score(baseline=scg.GAE(Value()))})


def test_a_critic_learns_the_values_of_states() -> None:
    """On the policy's own episodes, descending the error finds the expected cost from each state."""
    torch.manual_seed(0)
    policy, net = episodes.policy_of(), Linear()
    record = problems.play(policy, 20_000)
    g = episodes.graph(policy, record, "episode")
    estimator = scg.Score(baseline=scg.GAE(net, decay=0.5))
    program = scg.compile(g, {"ep": estimator}, allow_biased=True)
    assert [id(p) for p in program.control_parameters()] == [id(p) for p in net.parameters()]
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        program(noise=record).loss.backward()
        optimizer.step()
    net.requires_grad_(False)
    first, second = (policy(state).probs.detach() for state in (problems.FIRST, problems.SECOND))
    later_cost = second[0] * 0.5 - second[1] * 1.5
    cost = -first[1] * 0.7 + first[0] * (-0.2 + DISCOUNT * later_cost)
    assert abs(float(net(problems.FIRST.double()) - cost)) < 0.03
    assert abs(float(net(problems.SECOND.double()) - later_cost)) < 0.03
