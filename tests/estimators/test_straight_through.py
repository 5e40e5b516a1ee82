"""Straight-through: exact on linear costs, and of a relaxed value where there is a temperature."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, OneHotCategorical

import scg
from tests.estimators.building import of
from tests.estimators.relaxing import LOGITS, exact, gradient, graph, linear, mean_by_outcome, quadratic

STARTS = [LOGITS, of(3.0, -20.0, 0.0), torch.tensor(0.4).double(), torch.tensor(-4.0).double()]


def slope(z: Tensor) -> Tensor:
    return linear(z) if z.dim() else 1.7 * z


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("start", STARTS, ids=str)
def test_it_is_exact_where_costs_are_linear(given: str, start: Tensor) -> None:
    found = mean_by_outcome(scg.StraightThrough(), slope, given, start)
    assert torch.allclose(found, exact(slope, given, start), rtol=1e-9, atol=1e-15)


def test_it_is_biased_where_they_are_not() -> None:
    found = mean_by_outcome(scg.StraightThrough(), quadratic, "logits", LOGITS)
    assert (found - exact(quadratic, "logits", LOGITS)).norm() > 0.1


def test_a_temperature_takes_the_derivative_of_the_relaxed_value() -> None:
    program = scg.compile(
        graph(quadratic, "logits", LOGITS), scg.StraightThrough(temperature=0.7), allow_biased=True
    )
    noise = of(0.3, 0.6, 0.8)
    leaf = LOGITS.clone().requires_grad_()
    soft = ((leaf.log_softmax(-1) - torch.log(-torch.log(noise))) / 0.7).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), 3).double()
    quadratic(hard + (soft - soft.detach())).backward()
    assert torch.allclose(gradient(program, z=noise), leaf.grad, rtol=1e-12)


@pytest.mark.parametrize("name", ["straight-through", "gumbel-rao", "reinmax", "concrete"])
def test_values_and_loss_are_those_of_any_estimator(name: str) -> None:
    g = graph(quadratic, "logits", LOGITS)
    one, other = (scg.compile(g, e, samples=5, allow_biased=True)(seed=3) for e in (name, "score"))
    assert torch.equal(one.samples["z"], other.samples["z"])
    assert torch.equal(one.loss, other.loss)


@pytest.mark.parametrize("name", ["straight-through", "gumbel-rao", "reinmax"])
def test_the_value_goes_on_attached(name: str) -> None:
    """To the law of a bit below, which is enumerated, and to that of a normal."""
    g = scg.Graph()
    theta = g.param("theta", torch.tensor(0.3).double())
    z = g.sample("z", Bernoulli, logits=theta)
    y = g.sample("y", Bernoulli, logits=2 * z - 0.5)
    x = g.sample("x", Normal, z, 0.5)
    g.cost("c", y * 1.5 + x)
    policy = {"z": name, "y": "enumerate", "x": "reparam"}
    program = scg.compile(g, policy, allow_biased=True, samples=20_000)
    program(seed=0).loss.backward()
    found, p = program.theta.grad, torch.sigmoid(theta.value.detach())
    of_y = torch.sigmoid(of(-0.5, 1.5))
    slopes = 1.5 * 2 * of_y * (1 - of_y) + 1
    wanted = p * (1 - p) * (slopes * torch.stack((1 - p, p))).sum()
    assert torch.allclose(found, wanted, rtol=0.02) if name == "straight-through" else bool(found > 0)


@pytest.mark.parametrize("name", ["straight-through", "gumbel-rao", "reinmax"])
class TestRefusals:
    def test_paths_with_a_step(self, name: str) -> None:
        g = graph(lambda z: (z[..., 0] > 0.5).double(), "logits", LOGITS)
        with pytest.raises(scg.EstimatorError, match=r"the path z -> c is not differentiable"):
            scg.compile(g, name, allow_biased=True)

    def test_indices(self, name: str) -> None:
        g = scg.Graph()
        z = g.sample("z", Categorical, logits=g.param("theta", LOGITS.clone()))
        g.cost("c", lambda k: SLOPES[k], z)
        with pytest.raises(scg.EstimatorError, match="declare a OneHotCategorical"):
            scg.compile(g, name, allow_biased=True)

    def test_laws_without_a_relaxation(self, name: str) -> None:
        g = scg.Graph()
        g.cost("c", g.sample("z", Normal, g.param("theta", 0.3), 1.0) ** 2)
        with pytest.raises(scg.EstimatorError, match="a Normal cannot be relaxed"):
            scg.compile(g, name, allow_biased=True)

    def test_second_derivatives(self, name: str) -> None:
        g = graph(quadratic, "logits", LOGITS)
        loss = scg.compile(g, name, allow_biased=True)(seed=0).loss
        with pytest.raises(scg.EstimatorError, match="what a biased estimator passes on"):
            torch.autograd.grad(loss, g["theta"].value, create_graph=True)


SLOPES = of(0.3, -1.0, 0.6)


def test_log_probabilities_are_linear_in_the_value() -> None:
    """A cost log p(b), differentiated in b as well."""
    g = scg.Graph()
    theta = g.param("theta", LOGITS.clone())
    z = g.sample("z", OneHotCategorical, logits=theta)
    g.cost("c", g.log_prob(z))
    program = scg.compile(g, "straight-through", allow_biased=True)
    noise = of(0.3, 0.6, 0.8)
    leaf = LOGITS.clone().requires_grad_()
    hard = torch.nn.functional.one_hot((leaf - torch.log(-torch.log(noise))).argmax(-1), 3)
    value = hard + leaf.softmax(-1) - leaf.softmax(-1).detach()
    (value * leaf.log_softmax(-1)).sum().backward()
    assert torch.allclose(gradient(program, z=noise), leaf.grad, rtol=1e-12)


def test_a_learned_temperature_descends_with_the_parameters() -> None:
    g = graph(quadratic, "logits", LOGITS)
    program = scg.compile(g, scg.StraightThrough(temperature="learned"), allow_biased=True)
    noise = of(0.3, 0.6, 0.8)
    gradient(program, z=noise)
    log = torch.tensor(0.5).double().log().requires_grad_()
    soft = ((LOGITS.log_softmax(-1) - torch.log(-torch.log(noise))) / log.exp()).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), 3).double()
    quadratic(hard + (soft - soft.detach())).backward()
    (found,) = program.control_parameters()
    assert torch.allclose(found.grad, log.grad, rtol=1e-12)


def test_it_is_told_to_be_biased_wherever_estimators_are_told() -> None:
    program = scg.compile(graph(quadratic, "logits", LOGITS), "straight-through", allow_biased=True)
    assert "    biased" in program.explain().splitlines()
    assert [str(f.claim) for f in program.assumptions() if "biased" in f.claim] == [
        "is estimated by 'straight-through', biased"
    ]
    assert "straight-through (biased)" in repr(program)
    assert "straight-through (biased)" in program._repr_svg_()
    found = scg.verify(program, draws=4096)
    assert found.declared == {"z": "straight-through"}
    assert "biased as declared: 'straight-through' at 'z'" in str(found)


def test_a_name_is_refused_with_what_to_write() -> None:
    with pytest.raises(scg.BiasedEstimatorError, match="compile with allow_biased=True .* or use"):
        scg.compile(graph(quadratic, "logits", LOGITS), "straight-through")
