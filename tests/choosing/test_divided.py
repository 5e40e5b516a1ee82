"""Two estimators at one node, by automatic choice: where some costs allow for better than the score."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg


def step(z: Tensor) -> Tensor:
    return (z > 0.4).to(z)


def drawn() -> scg.Graph:
    """A number with a distance that is smooth in it, and a reward that jumps."""
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.tensor(0.3, dtype=torch.float64)), 1.0)
    g.cost("kl", (z - 2) ** 2)
    g.cost("reward", step, z)
    return g


def bits(count: int = 12) -> scg.Graph:
    """Bits with a divergence in closed form of each, and a cost that jumps in their sum."""
    g = scg.Graph()
    b = g.sample("b", Bernoulli, logits=g.param("w", torch.linspace(-1, 1, count, dtype=torch.float64)))
    g.cost("kl", g.log_prob(b) - g.log_prob(Bernoulli, b, logits=torch.zeros(count, dtype=torch.float64)))
    g.cost("reward", lambda b: (b.sum(-1) > 5).to(b), b)
    return g


def test_what_is_smooth_is_reparameterised_and_the_rest_is_scored() -> None:
    program = scg.compile(drawn())
    text = program.explain()
    assert "z: parts (automatic: kl is smooth in its value)" in text
    assert "kl: reparam" in text and "reward: score" in text
    assert scg.verify(program, resolution=0.05, noise=1).verdict == "unbiased"


def test_terms_of_log_probabilities_are_summed_one_element_at_a_time() -> None:
    program = scg.compile(bits())
    text = program.explain()
    assert "b: parts (automatic: kl is made of log-probabilities and arithmetic alone)" in text
    assert "kl: local" in text and "reward: score" in text
    assert scg.verify(program, resolution=0.05, noise=1).verdict == "unbiased"


def test_two_estimators_vary_less_than_the_score_of_all() -> None:
    for make, name in ((drawn, "m"), (bits, "w")):
        found = []
        for policy in ("auto", scg.Score(baseline="moving-average")):
            g = make()
            program = scg.compile(g, policy)
            rows = []
            for seed in range(200):
                program.zero_grad()
                program(seed=seed).loss.backward()
                rows.append(program.get_parameter(name).grad.clone())
            found.append(float(torch.stack(rows).var(0).sum()))
        assert found[0] < 0.7 * found[1]


@pytest.mark.parametrize("make", [drawn, bits])
def test_programs_that_were_divided_are_copied_and_prepared_again(make: object) -> None:
    program = scg.compile(make())  # type: ignore[operator]
    other = copy.deepcopy(program)
    for each in (program, other.double()):
        each(seed=3).loss.backward()
    one, two = (next(iter(p.parameters())).grad for p in (program, other))
    assert torch.equal(one, two)
    assert program.explain() == other.explain()


def test_examples_may_come_later() -> None:
    g = scg.Graph()
    x = g.input("x", plates="batch")
    z = g.sample("z", Normal, x * g.param("m", torch.tensor(0.3)), 1.0)
    g.cost("kl", 0.5 * z**2)
    g.cost("reward", step, z)
    program = scg.compile(g)
    for size in (3, 5):
        program(x=torch.linspace(-1, 1, size)).loss.backward()
    assert "kl: reparam" in program.explain() and "reward: score" in program.explain()


@pytest.mark.parametrize("samples", [2, 4])
@pytest.mark.parametrize("noise", ["antithetic", "sobol"])
def test_the_rest_is_scored_with_what_coupled_noise_allows(noise: str, samples: int) -> None:
    for make in (drawn, bits):
        program = scg.compile(make(), samples=samples, noise=noise)
        program(seed=0).loss.backward()
        assert "reward: score" in program.explain()


def test_what_is_warned_of_is_told_once() -> None:
    g = drawn()
    r = g.input("r", example=torch.tensor(0.4, dtype=torch.float64))
    g.cost("idle", lambda z, r: -r, g["z"], r)
    with pytest.warns(scg.GradientWarning) as told:
        program = scg.compile(g)
    texts = [str(one.message) for one in told]
    assert "reward: score" in program.explain() and len(texts) == len(set(texts))


@pytest.mark.parametrize("order", [2])
def test_higher_orders_keep_one_estimator(order: int) -> None:
    assert scg.compile(drawn(), order=order).policy["z"].name == "score"


def test_what_leads_to_both_keeps_the_score() -> None:
    """A function of the value that both costs read would have to be declared twice."""
    g = scg.Graph()
    z = g.sample("z", Normal, g.param("m", torch.tensor(0.3)), 1.0)
    h = g.det("h", lambda z: 2 * z, z)
    g.cost("smooth", h**2)
    g.cost("reward", step, h)
    assert scg.compile(g).policy["z"].name == "score"


def test_bits_that_are_summed_jointly_are_not_divided() -> None:
    assert scg.compile(bits(4)).policy["b"].name == "enumerate"


@pytest.mark.usefixtures("compiling")
def test_torch_compiles_what_was_divided() -> None:
    program = scg.compile(drawn())
    program(seed=0)
    whole = torch.compile(program, fullgraph=True, backend="aot_eager")
    for seed in (1, 2):
        assert torch.isfinite(whole(seed=seed).loss)
