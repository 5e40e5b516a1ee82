"""Warnings that find mistakes: recorded costs, foresight, and actions that another policy drew."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from tests.elsewhere import problems
from tests.elsewhere.problems import Actions
from tests.elsewhere.test_exact import graph_of


class TestRecordedCosts:
    """Rewards as inputs, and the action as a sample: the gradient would be 0 without a word."""

    def graph(self, cost: Callable[..., Tensor], dist: type = Categorical) -> scg.Graph:
        g = scg.Graph()
        state = g.input("state", torch.randn(3, 4, 2), plates=("episode", "time"))
        reward = g.input("reward", torch.randn(3, 4), plates=("episode", "time"))
        if dist is Normal:
            action = g.sample("action", Normal, loc=g.det("loc", nn.Linear(2, 1), state)[..., 0], scale=1.0)
        else:
            action = g.sample("action", Categorical, logits=g.det("logits", nn.Linear(2, 3), state))
        g.cost("loss", cost, action, reward)
        return g

    @pytest.mark.parametrize("dist", [Categorical, Normal])
    @pytest.mark.parametrize(
        "cost",
        [lambda a, r: -r, lambda a, r: -r + 0 * a, lambda a, r: torch.from_numpy(-r.numpy())],
        ids=["ignored", "times zero", "outside of torch"],
    )
    def test_are_told(self, cost: Callable[..., Tensor], dist: type) -> None:
        with pytest.warns(scg.GradientWarning, match="'loss'.*reads 'action'.*does not change.*g.rollout"):
            scg.compile(self.graph(cost, dist), "score")

    def test_on_every_way(self) -> None:
        g = self.graph(lambda a, r: -r)
        g.cost("seen", g["action"].float() * 0.1)
        with pytest.warns(scg.GradientWarning, match="'loss'"):
            scg.compile(g, "score")

    @pytest.mark.parametrize(
        "cost",
        [lambda a, r: -r * (a == 2), lambda a, r: torch.zeros(a.shape) + torch.where(a > 0, r, -r)],
        ids=["one outcome of three", "both ways"],
    )
    def test_others_are_not(self, cost: Callable[..., Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scg.compile(self.graph(cost), "score")

    def test_nor_are_gates_that_are_seldom_open(self) -> None:
        g = scg.Graph()
        b = g.sample("b", Bernoulli, logits=g.param("theta", torch.zeros(3)))
        gate = g.sample("gate", Bernoulli, probs=torch.tensor(1e-4))
        g.cost("loss", lambda b, gate: b.sum() * gate, b, gate)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scg.compile(g)


class Looking(Actions):
    """A policy whose logits read other steps, or other episodes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.recurrent = nn.GRU(2, 2, batch_first=True)

    def forward(self, state: Tensor) -> Categorical:
        if self.how == "ahead":
            state = state + state.flip(1)
        elif self.how == "back":
            state = self.recurrent(state)[0]
        elif self.how == "aside":
            state = state - state.mean(0, keepdim=True)
        return super().forward(state)


class TestForesight:
    @pytest.mark.parametrize(
        ("how", "told"), [("ahead", "later elements of plate 'time'"), ("aside", "other elements of plate")]
    )
    def test_is_told(self, how: str, told: str) -> None:
        g, _ = graph_of(Looking(how), lambda policy: problems.play(Actions(), 4))
        with pytest.warns(scg.GradientWarning, match=f"law of 'ep'.*reads {told}"):
            scg.compile(g, "score")

    @pytest.mark.parametrize("how", ["here", "back"])
    def test_memory_is_not(self, how: str) -> None:
        g, _ = graph_of(Looking(how), lambda policy: problems.play(Actions(), 4))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scg.compile(g, "score")


class TestBypasses:
    """What reads a record itself: it is charged to nothing that was drawn."""

    def graph(self) -> tuple[scg.Graph, scg.Node, scg.Node]:
        g = scg.Graph()
        played = g.input("played", torch.tensor([0.0, 1.0]), plates="row")
        a = g.sample("a", Bernoulli, logits=g.param("theta", 0.1), value=played, plates="row")
        return g, a, played

    def test_costs_of_values_are_told(self) -> None:
        g, a, played = self.graph()
        g.cost("seen", a * 0.1)
        g.cost("loss", g.det("square", lambda a: a**2, played))
        with pytest.warns(
            scg.GradientWarning, match="'square'.*reads 'played'.*not charged to 'a'. Read 'a'"
        ):
            scg.compile(g, "score")

    def test_laws_of_values_are_told(self) -> None:
        g, a, played = self.graph()
        g.cost("loss", a * g.sample("b", Bernoulli, logits=played))
        with pytest.warns(scg.GradientWarning, match="'b'.*reads 'played'.*not charged to 'a'"):
            scg.compile(g, "score")

    @pytest.mark.parametrize("key", ["reward", "log_prob"])
    def test_costs_of_raw_outcomes_are_told(self, key: str) -> None:
        g, _ = graph_of(Actions(), partial(problems.play, count=4))
        g.cost("raw", g[f"ep_raw_{key}"] * 1.0)
        with pytest.warns(scg.GradientWarning, match=f"'ep_raw_{key}'.*Read the outcome of 'ep'"):
            scg.compile(g, "score")

    def test_costs_of_what_the_policy_read_are_told(self) -> None:
        """The entropy of later steps depends on earlier actions, and there is none after the last."""
        policy = Actions()
        g, ep = graph_of(policy, partial(problems.play, count=4))
        g.cost("entropy", lambda state: -policy(state).entropy(), ep.parents[0])
        with pytest.warns(scg.GradientWarning, match="'entropy'.*charged to no action.*outcome \"state\""):
            scg.compile(g, "score")

    def test_others_are_not(self) -> None:
        policy = Actions()
        g, ep = graph_of(policy, partial(problems.play, count=4))
        g.cost("entropy", lambda state: -policy(state).entropy(), ep["state"])
        g.cost("kl", g.log_prob(ep) - g.log_prob(Actions().requires_grad_(False), ep, ep.parents[0]))
        g.cost("both", lambda reward, action: reward * action, g["ep_raw_reward"], ep)
        critic = scg.Score(baseline=nn.Linear(2, 1), context=ep.parents)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scg.compile(g, critic)

    def test_nor_are_simulators_of_several_parts(self) -> None:
        """What reads a value to draw another, which goes on through its own node."""
        g, a, played = self.graph()
        after = g.det("after", lambda a: 1 - a, played, differentiable=False)
        b = g.sample("b", Bernoulli, logits=a, value=after)
        g.cost("loss", a * b)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scg.compile(g, "score")


class Dropped(Actions):
    def forward(self, state: Tensor) -> Categorical:
        return super().forward(nn.functional.dropout(state, 0.5, self.training))


class TestOtherPolicies:
    def run(self, policy: Actions, drawn_by: Actions, **options: str) -> None:
        g, _ = graph_of(policy, lambda policy: problems.play(drawn_by, 400), **options)
        program = scg.compile(g, "score")
        torch.manual_seed(0)
        for _ in range(4):
            program()

    def stale(self, policy: Actions) -> Actions:
        older = copy.deepcopy(policy)
        with torch.no_grad():
            older.layer.bias += torch.tensor([0.4, 0.0])
        return older

    def test_dropout(self) -> None:
        policy = Dropped()
        with pytest.warns(scg.GradientWarning, match="'ep'.*log-ratios have mean"):
            self.run(policy, policy)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.run(policy.eval(), policy)

    def test_an_older_policy(self) -> None:
        policy = Actions()
        with pytest.warns(scg.GradientWarning, match="not those that its policy gives them now"):
            self.run(policy, self.stale(policy))

    def test_what_is_declared_is_not_told(self) -> None:
        policy = Actions()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.run(policy, policy)
            self.run(policy, self.stale(policy), behaviour="log_prob")

    def test_looking_leaves_nothing_behind(self) -> None:
        """Neither buffers of the policy nor the generator know that it was asked once more."""
        policy, after = Dropped(), []
        policy.register_buffer("calls", torch.zeros(()))

        def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            module.calls += 1

        policy.register_forward_pre_hook(count)
        for keys in (("log_prob",), ()):
            record = problems.play(Actions(), 40)
            kept = {key: value for key, value in record.items() if key != "log_prob" or keys}
            program = scg.compile(graph_of(policy, lambda policy, kept=kept: kept)[0], "score")
            before = policy.calls.clone()
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", scg.GradientWarning)
                for _ in range(4):
                    program()
            after.append((float(policy.calls - before), float(torch.rand(()))))
        assert after[0] == after[1] == (4.0, after[0][1])

    def test_once(self) -> None:
        policy = Dropped()
        program = scg.compile(graph_of(policy, partial(problems.play, count=400))[0], "score")
        with pytest.warns(scg.GradientWarning, match="'ep'"):
            program()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(9):
                program()
