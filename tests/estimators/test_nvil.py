"""NVIL: the past alone centres and scales, and a network reads what stands above."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

import scg
from scg.errors import EstimatorError
from scg.estimators.parts.memory import Memory
from tests.contract.judge import gap
from tests.estimators.building import of
from tests.support.integrate import integrated_gradient
from tests.support.running import awake, gradients

X = torch.linspace(-2.0, 2.0, 8).double()


def rows() -> scg.Graph:
    """A bit for each of some numbers, with a cost that is mostly of the number."""
    g = scg.Graph()
    x = g.input("x", plates="batch", example=X)
    b = g.sample("b", Bernoulli, logits=x * g.param("w", of(0.3)[0]))
    g.cost("c", lambda b, x: 5 * x + b, b, x)
    return g


def test_centre_and_scale_are_of_the_past() -> None:
    """By hand: the first estimate is the score, the second has what was found in the first run."""
    g = rows()
    program, plain = scg.compile(g, "nvil"), scg.compile(g, "score")
    assert gap({"w": gradients(program, x=X, seed=1)["w"]}, gradients(plain, x=X, seed=1)) < 1e-12
    memory = program.controls["b"]
    assert isinstance(memory, Memory)
    credit = program.eval()(x=X, seed=1).costs["c"].detach()
    assert float(memory.mean()) == pytest.approx(float(credit.mean()), abs=1e-6)
    assert float(memory.deviation()) == pytest.approx(float(credit.std(correction=0)), rel=1e-5)
    estimate = program(x=X, seed=2)
    drawn, now = estimate.samples["b"], estimate.costs["c"].detach()
    score = X * (drawn - (0.3 * X).sigmoid())
    expected = ((now - memory.mean()) / memory.deviation() * score).mean()
    assert float(gradients(program, x=X, seed=2)["w"]) == pytest.approx(float(expected), abs=1e-9)


def test_the_scale_can_be_left_out() -> None:
    g = rows()
    program = awake(scg.compile(g, scg.NVIL(normalise=False)))
    for seed in range(3):
        program(x=X, seed=seed)
    found = integrated_gradient(g, program.eval(), shared=("batch",))
    assert gap(found, scg.exact_gradient(g)) < 1e-9


def test_its_network_learns_what_depends_on_parents() -> None:
    program = scg.compile(rows(), scg.NVIL(context="x"))
    optimizer = torch.optim.Adam(program.control_parameters(), lr=0.02)
    for seed in range(400):
        gradients(program, x=X, seed=seed)
        optimizer.step()
    draws = torch.stack([gradients(program, x=X, seed=seed)["w"] for seed in range(400, 600)])
    plain = scg.compile(rows(), scg.Score(baseline="moving-average", normalise=True))
    for seed in range(100):
        gradients(plain, x=X, seed=seed)
    before = torch.stack([gradients(plain, x=X, seed=seed)["w"] for seed in range(400, 600)])
    assert float(draws.var()) < 0.2 * float(before.var())


class Constant(nn.Module):
    """A network that nothing is given to."""

    def forward(self, *context: Tensor) -> Tensor:
        return torch.zeros(())


def test_a_network_without_anything_to_read_is_refused() -> None:
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=0.3)
    g.cost("c", lambda b: b * 2.0, g.sample("d", Bernoulli, logits=b))
    with pytest.raises(EstimatorError, match="nothing that its network could read: give context="):
        scg.compile(g, {"b": scg.NVIL(net=Constant())})
    program = scg.compile(g, {"b": "nvil"})
    assert program(seed=0).loss.isfinite()


class TestEach:
    """Every element of a plate has a past of its own."""

    RUNS = torch.tensor([[1.0], [100.0], [-30.0]]).double() + X

    def program(self, policy: scg.Estimator, count: int = 3, samples: int | None = None) -> scg.Program:
        g = scg.Graph()
        g.plate("run", reduce="sum")
        x = g.input("x", plates=("run", "batch"), example=self.RUNS[:count])
        w = g.param("w", torch.full((count,), 0.3).double(), plates=("run",))
        b = g.sample("b", Bernoulli, logits=0.01 * x * w)
        g.cost("c", lambda b, x: x + b, b, x)
        return scg.compile(g, policy, samples=samples)

    @pytest.mark.parametrize(
        "policy",
        [
            scg.NVIL(each="run", context="x"),
            scg.NVIL(each="run", normalise=False),
            scg.Score(scg.MovingAverage(each="run")),
            scg.Score(scg.MovingAverage(each="run"), normalise=True),
            scg.Score(scg.LeaveOneOut() + scg.MovingAverage(each="run"), normalise=True),
        ],
    )
    def test_runs_are_as_each_alone(self, policy: scg.Estimator) -> None:
        """Networks are still common to all, and do not move here."""
        samples = 2 if "LeaveOneOut" in repr(policy) else None
        several = self.program(policy, samples=samples)
        alone = [self.program(policy, 1, samples) for _ in range(3)]
        for seed in range(4):
            noise = several.draw_noise(seed, x=self.RUNS)
            found = gradients(several, x=self.RUNS, noise=noise)["w"]
            for run, one in enumerate(alone):
                own = {name: value.narrow(int(samples is not None), run, 1) for name, value in noise.items()}
                wanted = gradients(one, x=self.RUNS[run : run + 1], noise=own)["w"]
                torch.testing.assert_close(found[run : run + 1], wanted, rtol=1e-4, atol=1e-7)

    def test_means_differ_and_are_saved(self) -> None:
        program = self.program(scg.NVIL(each="run"))
        program(x=self.RUNS, seed=1)
        memory = program.controls["b"]
        assert isinstance(memory, Memory)
        torch.testing.assert_close(memory.mean().double(), self.RUNS.mean(1), atol=1.0, rtol=0)
        other = self.program(scg.NVIL(each="run"))
        other.load_state_dict(program.state_dict())
        assert torch.equal(other.controls["b"].mean(), memory.mean())

    @pytest.mark.parametrize("policy", [scg.NVIL(each="rum"), scg.Score(scg.MovingAverage("rum"))])
    def test_a_plate_that_is_not_there(self, policy: scg.Estimator) -> None:
        with pytest.raises(EstimatorError, match=r"it has no plate 'rum'.*each=: run, batch"):
            self.program(policy)

    def test_another_number_of_elements(self) -> None:
        program = self.program(scg.NVIL(each="batch"))
        with pytest.raises(EstimatorError, match="a past of its own, and there were 8 of them, not 4"):
            program(x=self.RUNS[:, :4], seed=1)
