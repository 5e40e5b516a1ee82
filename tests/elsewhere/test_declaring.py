"""Values drawn elsewhere: what is declared, refused and told of a record."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

import scg
from scg.estimators.registry import registry
from tests.elsewhere import problems
from tests.elsewhere.problems import Actions
from tests.elsewhere.test_exact import graph_of

POLICY = Actions()
RECORD = problems.play(POLICY, 4)


def mdp(**options: Any) -> tuple[scg.Graph, Any]:
    return graph_of(POLICY, partial(problems.play, count=4), **options)


class TestRefusals:
    FIT = {"score", "relax", "nvil", "critic"}
    FUTURE = {"enumerate", "local", "rebar"}

    @pytest.mark.parametrize("name", sorted(registry()))
    def test_only_what_reads_value_credit_and_network_fits(self, name: str) -> None:
        g, _ = mdp()
        if name in self.FIT:
            scg.compile(g, name)
            return
        with pytest.raises(scg.EstimatorError) as caught:
            scg.compile(g, name)
        assert "'ep'" in str(caught.value)
        advice = str(caught.value).partition(". Use ")[2]
        assert f'"{name}"' not in advice
        if name in self.FUTURE:
            assert "cannot be evaluated at other actions" in str(caught.value)

    def test_replicates_are_not_asked_for_where_there_can_be_none(self) -> None:
        g, _ = mdp()
        with pytest.raises(scg.EstimatorError, match="what is drawn elsewhere has none: draw several there"):
            scg.compile(g, scg.Score(baseline="leave-one-out"))

    def test_self_critical(self) -> None:
        g, _ = mdp()
        with pytest.raises(scg.EstimatorError, match="at other actions: take another baseline"):
            scg.compile(g, scg.Score(baseline="self-critical"))

    def test_real_actions_take_lax_and_not_reparam(self) -> None:
        policy = problems.Shifts()
        g, _ = graph_of(policy, partial(problems.shift, count=4))
        scg.compile(g, "lax")
        with pytest.raises(scg.EstimatorError, match="drawn elsewhere"):
            scg.compile(g, "reparam")

    @pytest.mark.parametrize("name", ["enumerate", "local", "rebar", "disarm", "self-critical"])
    def test_nor_can_what_is_above_see_other_futures(self, name: str) -> None:
        g = scg.Graph()
        goal = g.sample("goal", Bernoulli, logits=g.param("theta", torch.zeros(2)))
        played = g.det("played", lambda goal: (goal.sum() > 0).float(), goal, differentiable=False)
        action = g.sample("action", Bernoulli, logits=goal.sum(), value=played)
        g.cost("loss", g.det("outcome", lambda a: -a, action, differentiable=False))
        estimator = scg.Score(baseline=name) if name == "self-critical" else name
        reason = "not smooth at relaxed" if name == "rebar" else "at other actions"
        with pytest.raises(scg.EstimatorError, match=reason):
            scg.compile(g, {"goal": estimator})
        scg.compile(g, {"goal": "score"})

    def test_samples(self) -> None:
        g, _ = mdp()
        with pytest.raises(scg.GraphError, match="declare a plate"):
            scg.compile(g, samples=3)

    @pytest.mark.parametrize(
        "key", ["ep_raw_action", "ep", "ep_state", "ep_raw_reward", "ep_raw_log_prob", "spread"]
    )
    def test_a_baseline_that_reads_the_action(self, key: str) -> None:
        g, _ = mdp()
        g.det("spread", lambda reward: reward - 1.0, g["ep_raw_reward"])
        with pytest.raises(scg.PolicyError, match="influences"):
            scg.compile(g, scg.Score(baseline=nn.Linear(2, 1), context=key))

    @pytest.mark.parametrize("key", ["one", "other", "likelihood"])
    def test_a_baseline_that_reads_what_follows_an_action(self, key: str) -> None:
        """Another action that was drawn after it, or its probability where it was drawn."""
        g = scg.Graph()
        one, other = (g.input(name, torch.zeros(3), plates="row") for name in ("one", "other"))
        likelihood = g.input("likelihood", torch.zeros(3), plates="row")
        first = g.sample("first", Bernoulli, logits=g.param("theta", 0.0), value=one, plates="row")
        second = g.sample("second", Bernoulli, logits=first, value=other, behaviour=likelihood)
        g.cost("loss", first * second)
        estimator = scg.Score(baseline=nn.Identity(), context=key)
        with pytest.raises(scg.PolicyError, match="'first' influences"):
            scg.compile(g, {"first": estimator, "second": "score"})

    def test_what_no_expectation_is_taken_of(self) -> None:
        g, _ = mdp()
        with pytest.raises(scg.GraphError, match="drawn elsewhere"):
            scg.exact_gradient(g)
        with pytest.raises(scg.GraphError, match="drawn elsewhere"):
            scg.verify(scg.compile(g, "score"))
        with pytest.raises(scg.GraphError, match="drawn elsewhere"):
            scg.symbolic.variance(scg.compile(g, "score"))


class TestRecords:
    def broken(self, **changes: Any) -> Any:
        return {key: value for key, value in {**RECORD, **changes}.items() if value is not None}

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"action": None}, "'ep' lacks 'action'"),
            ({"state": None}, "'ep' lacks 'state'"),
            (
                {"reward": RECORD["reward"][:, :1]},
                r"'reward' has shape \(4, 1\), and 'action' begins with \(4, 2\)",
            ),
            ({"mask": torch.full((4, 2), 0.5)}, "'mask' is 0 or 1 for every element, found 0.5"),
            ({"mask": torch.ones(4, 2, 1)}, "'mask' has shape"),
            ({"action": torch.full((4, 2), 2)}, "whole number from 0 to 1"),
            ({"action": torch.zeros(4, 2, 3)}, r"'ep_raw_action' has shape \(4, 2, 3\)"),
            ({"reward": "much"}, "'reward' holds a str"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes: dict[str, Any], told: str) -> None:
        with pytest.raises(scg.GraphError, match=told):
            scg.compile(mdp(example=self.broken(**changes))[0], "score")
        program = scg.compile(mdp(example=RECORD)[0], "score")
        with pytest.raises(scg.GraphError, match=told):
            program(noise=self.broken(**changes))

    @pytest.mark.parametrize("behaviour", [None, "log_prob"])
    @pytest.mark.parametrize("rows", [1, 4])
    def test_a_log_probability_with_a_dimension_too_many(self, rows: int, behaviour: str | None) -> None:
        """One number for each step: with another dimension, ratios would spread over all pairs of steps."""
        record = {key: value[:rows] for key, value in RECORD.items()}
        wide = {**record, "log_prob": record["log_prob"].unsqueeze(-1)}
        g = mdp(example=wide, behaviour=behaviour)[0]
        if behaviour is None:
            told, plain = (scg.compile(made, "score") for made in (g, mdp(example=record)[0]))
            assert torch.equal(told(noise=wide).loss, plain(noise=record).loss)
            return
        with pytest.raises(scg.GraphError, match="its behaviour .* and one number for each element"):
            scg.compile(g, "score")

    def test_a_mask_with_a_dimension_too_many(self) -> None:
        g = scg.Graph()
        logits, mask = g.input("logits", torch.zeros(3), plates="row"), torch.ones(3, 1)
        b = g.sample("b", Bernoulli, logits=logits, where=g.input("mask", mask, plates="row"))
        g.cost("loss", b)
        with pytest.raises(scg.GraphError, match="its where 'mask' has shape .*, and one number for each"):
            scg.compile(g)

    def test_a_record_by_the_names_of_its_inputs(self) -> None:
        program = scg.compile(mdp(example=RECORD)[0], "score")
        raw = {f"ep_raw_{key}": value for key, value in RECORD.items()}
        raw["ep_raw_mask"] = raw["ep_raw_mask"].float()
        assert torch.equal(program(**raw).loss, program(noise=RECORD).loss)

    def test_a_log_probability_in_parts_is_not_compared(self) -> None:
        record = {**RECORD, "log_prob": {"move": RECORD["log_prob"]}}
        program = scg.compile(mdp(example=record)[0], "score")
        assert torch.equal(program(noise=record).loss, program(noise=RECORD | record).loss)

    def test_a_key_that_is_missing_later(self) -> None:
        program = scg.compile(mdp(example=RECORD)[0], "score")
        with pytest.raises(scg.GraphError, match="lacks 'reward', which the example has"):
            program(noise=self.broken(reward=None))

    def test_a_part_of_a_record_among_the_inputs(self) -> None:
        """It would be simulated anew otherwise, and what was given lost."""
        program = scg.compile(mdp(example=RECORD)[0], "score")
        flat = {f"ep_raw_{key}": value for key, value in RECORD.items()}
        assert torch.equal(program(**flat).loss, program(noise=RECORD).loss)
        del flat["ep_raw_reward"]
        with pytest.raises(scg.GraphError, match="'ep_raw_reward' is not among the inputs"):
            program(**flat)

    def test_a_declaration_that_is_refused_leaves_nothing(self) -> None:
        g = scg.Graph()
        g.plate("time", ordered=True, reduce="sum")
        with pytest.raises(scg.GraphError, match="'q'; it has state, action"):
            g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"), behaviour="q")
        assert len(g) == 0
        g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"))
        with pytest.raises(scg.GraphError, match="already has a node 'ep' "):
            g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"))

    def test_no_record_at_all(self) -> None:
        with pytest.raises(scg.GraphError, match="rollout 'ep' is a list"):
            graph_of(POLICY, lambda policy: [1, 2])

    def test_a_simulator_that_raises(self) -> None:
        def simulate(policy: Actions) -> Any:
            raise ZeroDivisionError("of the environment")

        with pytest.raises(scg.GraphError, match="'ep': its simulator raised ZeroDivisionError: of the env"):
            graph_of(POLICY, simulate)

    def test_a_policy_that_gives_no_distribution(self) -> None:
        def policy(state: Tensor) -> Tensor:
            return state

        g, _ = graph_of(policy, lambda policy: RECORD)  # type: ignore[arg-type]
        with pytest.raises(scg.GraphError, match="'ep'.*Distribution"):
            scg.compile(g, "score")

    def test_a_key_that_was_not_recorded(self) -> None:
        _, ep = mdp()
        with pytest.raises(scg.GraphError, match="has no 'rewards'; it has action, state, reward"):
            ep["rewards"]

    def test_a_simulator_of_what_the_program_draws(self) -> None:
        g = scg.Graph()
        goal = g.sample("goal", Normal, loc=g.param("mu", 0.0), scale=1.0)
        with pytest.raises(scg.GraphError, match="simulates from 'goal'"):
            g.rollout("ep", lambda policy, goal: RECORD, POLICY, goal, plates=("episode", "time"))

    def test_steps_that_are_not_told(self) -> None:
        g = scg.Graph()
        with pytest.raises(scg.GraphError, match="is 'time' one step after another"):
            g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"))
        g.plate("time")
        g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"))

    def test_steps_that_are_averaged_with_their_padding(self) -> None:
        g = scg.Graph()
        g.plate("time", ordered=True)
        ep = g.rollout("ep", lambda policy: RECORD, POLICY, plates=("episode", "time"))
        g.cost("loss", -ep["reward"])
        with pytest.raises(scg.PlateError, match="'time' is averaged.*divide by the padding"):
            scg.compile(g, "score")

    def test_values_without_plates(self) -> None:
        g = scg.Graph()
        logits = g.input("logits", torch.zeros(3), plates="batch")
        g.sample("a", Bernoulli, logits=logits, value=g.input("played", torch.zeros(())), plates="batch")
        with pytest.raises(scg.PlateError, match="its value 'played' lacks"):
            scg.compile(g)

    def test_a_law_that_reads_what_is_drawn_in_the_run(self) -> None:
        def graph(**options: Any) -> scg.Graph:
            g = scg.Graph()
            z = g.sample("z", Normal, loc=g.param("mu", torch.zeros(3)), scale=1.0)
            played = g.input("played", torch.zeros(3))
            likelihood = {"behaviour": g.input("q", torch.zeros(()))} if options else {}
            a = g.sample("a", Bernoulli, logits=z, value=played, **likelihood)
            g.cost("loss", a.sum())
            return g

        with pytest.raises(scg.GraphError, match="law of 'a'.*reads 'z', which is drawn in the run"):
            scg.compile(graph())
        scg.compile(graph(behaviour=True))

    def test_tensordicts(self) -> None:
        class TensorDict:
            def to_dict(self) -> dict[str, Tensor]:
                return RECORD

        program = scg.compile(mdp(example=TensorDict())[0], "score")
        assert torch.equal(program(noise=RECORD).loss, program(noise=TensorDict()).loss)


class TestReplays:
    def test_a_seed_is_a_record(self) -> None:
        program = scg.compile(mdp()[0], scg.Score(baseline=nn.Linear(2, 1)))
        noise = program.draw_noise(7)
        assert torch.equal(noise["ep"]["action"], program(seed=7).samples["ep"])
        assert torch.equal(program(noise=noise).loss, program(seed=7).loss)
        assert not torch.equal(program(seed=8).samples["ep"], program(seed=9).samples["ep"])

    def test_seeds_reach_simulators_that_take_one(self) -> None:
        seen = []

        def simulate(policy: Actions, seed: int | None = None) -> dict[str, Tensor]:
            seen.append(seed)
            return problems.play(policy, 4)

        program = scg.compile(graph_of(POLICY, simulate)[0], "score")
        program(seed=11)
        program()
        assert seen[-2:] == [11, None]

    def test_the_simulator_is_given_the_policy_that_is_trained(self) -> None:
        seen = []

        def simulate(policy: Actions) -> dict[str, Tensor]:
            seen.append((policy, torch.is_grad_enabled()))
            return problems.play(policy, 4)

        policy = Actions()
        program = scg.compile(graph_of(policy, simulate)[0], "score")
        program()
        copied = copy.deepcopy(program)
        copied()
        assert seen[-2] == (policy, False)
        assert seen[-1][0] is copied.ep and seen[-1][0] is not policy

    def test_parents(self) -> None:
        g = scg.Graph()
        g.plate("time", ordered=True, reduce="sum")
        prompt = g.input("prompt", torch.zeros(3, 2), plates="row")
        seen = []

        def simulate(policy: nn.Module, prompt: Tensor) -> dict[str, Tensor]:
            seen.append(prompt)
            state = prompt.unsqueeze(1).expand(-1, 4, -1)
            return {"state": state, "action": policy(state).sample(), "reward": state.sum(-1)}

        ep = g.rollout("ep", simulate, POLICY, prompt + 1.0, plates=("row", "time"))
        g.cost("loss", ep["reward"] * ep)
        program = scg.compile(g, "score")
        program(prompt=torch.ones(5, 2)).loss.backward()
        assert torch.equal(seen[-1], torch.full((5, 2), 2.0))

    def test_pickled(self) -> None:
        program = pickle.loads(pickle.dumps(scg.compile(mdp(example=RECORD)[0], "score")))
        assert program(noise=RECORD).samples["ep"].shape == (4, 2)

    @pytest.mark.parametrize("estimator", ["score", "relax", scg.Score(baseline=nn.Linear(2, 1))])
    def test_compiled(self, estimator: Any) -> None:
        program = scg.compile(mdp(example=RECORD)[0], estimator)
        noise = program.draw_noise(3)
        program.zero_grad()
        program(noise=noise).loss.backward()
        plain = [parameter.grad.clone() for parameter in program.parameters()]
        program.zero_grad()
        program.compile(backend="aot_eager")(noise=noise)
        program(noise=noise).loss.backward()
        compiled = [parameter.grad for parameter in program.parameters()]
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(plain, compiled, strict=True))

    def test_nested_states(self) -> None:
        class Reading(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 2)

            def forward(self, state: dict[str, Any]) -> Categorical:
                return Categorical(logits=self.layer(torch.cat([state["x"], *state["rest"]], -1)))

        def simulate(policy: Reading) -> dict[str, Any]:
            state = {"x": torch.randn(3, 4, 1), "rest": (torch.randn(3, 4, 1), torch.randn(3, 4, 1))}
            action = policy(state).sample()
            return {"state": state, "action": action, "reward": action.float(), "mask": torch.ones(3, 4)}

        policy = Reading()
        g, ep = graph_of(policy, simulate)
        assert [node.name for node in ep.parents] == [
            "ep_raw_state_x",
            "ep_raw_state_rest_0",
            "ep_raw_state_rest_1",
        ]
        for estimator in ("score", "relax", scg.Score(baseline=nn.Bilinear(1, 1, 1), context=ep.parents[:2])):
            scg.compile(g, estimator)().loss.backward()
        assert ep["state"]["x"] is not None


class TestExistence:
    """Elements that do not exist, of values that are drawn here."""

    MASK = torch.tensor([1.0, 0.0, 1.0])

    def graph(self, logits: Tensor, mask: Tensor | None) -> scg.Graph:
        g = scg.Graph()
        g.plate("row", reduce="sum")
        theta = g.param("theta", torch.tensor([0.3, -0.2]))
        offset = g.input("offset", logits, plates="row")
        where = None if mask is None else g.input("mask", mask, plates="row")
        b = g.sample("b", Bernoulli, logits=offset + theta.sum(), where=where)
        c = g.sample("c", Normal, loc=b * theta[0] + offset, scale=1.0, where=where)
        g.cost("loss", (b - 0.4) ** 2 + (c - b) ** 2 * theta[1])
        g.cost("kl", g.log_prob(b) * 0.1)
        g.cost("whole", g.det("total", lambda log: log.sum(), g.log_prob(c), plates=()) ** 2 * 0.1)
        other = g.log_prob(Bernoulli, b, logits=theta[1] - offset)
        g.cost("other", lambda log: 0.1 * log.sum(), other, plates=())
        return g

    @pytest.mark.parametrize("policy", ["enumerate", "rebar", "relax", "local", "score", "disarm"])
    @pytest.mark.parametrize("nowhere", [0.5, 1e30, torch.nan])
    def test_they_count_for_nothing(self, policy: str, nowhere: float) -> None:
        offset = torch.tensor([0.1, nowhere, -0.4])
        policies = {"b": policy, "c": "score"}
        g = self.graph(offset, self.MASK)
        program = scg.compile(g, policies)
        noise = program.draw_noise(5, offset=offset, mask=self.MASK)
        program(offset=offset, mask=self.MASK, noise=noise).loss.backward()
        found = g["theta"].value.grad

        kept = self.MASK.bool()
        small = self.graph(offset[kept], None)
        other = scg.compile(small, policies)
        draws = {name: value[kept] for name, value in noise.items()}
        other(offset=offset[kept], noise=draws).loss.backward()
        assert torch.allclose(found, small["theta"].value.grad, atol=1e-5)

    def test_the_exact_gradient(self) -> None:
        offset = torch.tensor([0.1, 7.0, -0.4])
        kept = self.MASK.bool()
        found = scg.exact_gradient(self.graph(offset, self.MASK))
        wanted = scg.exact_gradient(self.graph(offset[kept], None))
        assert torch.allclose(found["theta"], wanted["theta"], atol=1e-6)

    @pytest.mark.parametrize("nowhere", [torch.nan, torch.inf])
    def test_what_costs_read_of_what_does_not_exist(self, nowhere: float) -> None:
        """A gradient of 0 times what is not finite would be NaN."""
        g = scg.Graph()
        played, paid = (g.input(name, self.MASK, plates="row") for name in ("played", "paid"))
        where, theta = g.input("mask", self.MASK, plates="row"), g.param("theta", 0.3)
        a = g.sample("a", Bernoulli, logits=theta, value=played, where=where, plates="row")
        g.cost("loss", lambda a, paid, theta: a * paid * theta, a, paid, theta)
        program = scg.compile(g, "score")
        found = []
        for value in (0.0, nowhere):
            theta.value.grad = None
            program(played=self.MASK, mask=self.MASK, paid=torch.tensor([2.0, value, 1.0])).loss.backward()
            found.append(theta.value.grad)
        assert torch.equal(*found)

    def test_an_element_exists_by_one_of_several_masks(self) -> None:
        """What is not finite is seen where another node reads it, whichever was declared last."""
        masks = {"one": self.MASK, "other": torch.ones(3)}
        for order in (("one", "other"), ("other", "one")):
            g = scg.Graph()
            logits = g.input("logits", torch.zeros(3), plates="row")
            for key in order:
                where = g.input(key, torch.ones(3), plates="row")
                g.cost(f"loss_{key}", g.sample(f"b_{key}", Bernoulli, logits=logits, where=where) * 1.0)
            program = scg.compile(g, "score")
            with pytest.raises(scg.GraphError, match="b_other"):
                program(logits=torch.tensor([0.0, torch.nan, 0.0]), **masks)

    @pytest.mark.parametrize("nowhere", [1.0, -1e30])
    def test_other_laws_of_what_does_not_exist(self, nowhere: float) -> None:
        """Log-densities are 0 there, also where a function adds them up."""
        g = scg.Graph()
        offset = torch.tensor([0.1, nowhere, -0.4])
        shift = g.input("offset", offset, plates="row")
        where = g.input("mask", self.MASK, plates="row")
        a = g.sample(
            "a", Bernoulli, logits=shift, value=g.input("played", self.MASK, plates="row"), where=where
        )
        theta = g.param("theta", 0.3)
        other = g.log_prob(Bernoulli, a, logits=shift * theta)
        g.cost("whole", lambda log: log.sum() ** 2, other, plates=())
        found = scg.compile(g, "score")(offset=offset, played=self.MASK, mask=self.MASK)
        found.loss.backward()
        given, held = offset[self.MASK.bool()], g["theta"].value.detach().requires_grad_()
        wanted = Bernoulli(logits=given * held).log_prob(torch.ones(2)).sum() ** 2
        wanted.backward()
        assert torch.allclose(found.loss, wanted)
        assert torch.allclose(g["theta"].value.grad, held.grad)

    @pytest.mark.parametrize("estimator", ["score", "relax"])
    def test_a_record_in_which_nothing_exists(self, estimator: str) -> None:
        program = scg.compile(mdp(example=RECORD)[0], estimator)
        for mask in (RECORD["mask"], torch.zeros(4, 2)):
            action = RECORD["action"].masked_fill(mask == 0, -100)
            program.zero_grad()
            program(noise={**RECORD, "mask": mask, "action": action}).loss.backward()
            grads = [parameter.grad for parameter in program.model_parameters()]
            assert any(bool(grad.any()) for grad in grads) == bool(mask.any())

    def test_a_batch_in_which_nothing_exists(self) -> None:
        g = self.graph(torch.zeros(3), self.MASK)
        program = scg.compile(g, "score")
        program(offset=torch.full((3,), torch.nan), mask=torch.zeros(3)).loss.backward()
        assert torch.equal(g["theta"].value.grad, torch.zeros(2))
