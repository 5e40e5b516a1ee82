"""The five graphs of Schulman et al. (2015), Figure 1: the emitted text, and the stated estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

import scg
from scg.examples import SCHULMAN
from scg.graph import Graph

GOLDEN = Path(__file__).parent / "golden"
Samples = Mapping[str, Tensor]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def slope(value: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, at)
    return gradient


def square(y: Tensor) -> Tensor:
    return (y - 0.3) ** 2


def by_hand_1(theta: Tensor, drawn: Samples) -> Tensor:
    x = theta.tanh().detach().requires_grad_()
    score = slope(Bernoulli(logits=x).log_prob(drawn["y"]), x)
    return slope(theta.tanh(), theta) * score * square(drawn["y"])


def by_hand_2(theta: Tensor, drawn: Samples) -> Tensor:
    return slope(Normal(theta, 0.8).log_prob(drawn["x"]), theta) * square(drawn["x"].sin())


def by_hand_3(theta: Tensor, drawn: Samples) -> Tensor:
    return slope(Bernoulli(logits=theta).log_prob(drawn["x"]), theta) * square(drawn["y"])


def by_hand_4(theta: Tensor, drawn: Samples) -> Tensor:
    y = drawn["y"]
    x = theta.exp().detach().requires_grad_()
    score = slope(Normal(x, 0.5).log_prob(y), x)
    return slope(theta.exp(), theta) * (score * x.detach() * y + y)


def by_hand_5(theta: Tensor, drawn: Samples) -> Tensor:
    x0, (x1, x2) = torch.tensor(1.0), (drawn["x1"], drawn["x2"])
    first = slope(Normal(theta * x0, 0.5).log_prob(x1), theta) * (square(x1) + square(x2))
    return first + slope(Normal(theta * x1, 0.5).log_prob(x2), theta) * square(x2)


BY_HAND = (by_hand_1, by_hand_2, by_hand_3, by_hand_4, by_hand_5)
GRAPHS = pytest.mark.parametrize("build", SCHULMAN, ids=lambda build: build.__name__)


@GRAPHS
def test_the_emitted_program_reads_as_it_did(build: Callable[[], Graph]) -> None:
    expected = (GOLDEN / f"{build.__name__}.py.txt").read_text(encoding="utf-8")
    assert scg.compile(build(), policy="score").code == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("build", "by_hand"), list(zip(SCHULMAN, BY_HAND, strict=True)), ids=[b.__name__ for b in SCHULMAN]
)
def test_one_backward_is_the_stated_estimator(
    build: Callable[[], Graph], by_hand: Callable[[Tensor, Samples], Tensor], seed: int
) -> None:
    g = build()
    inputs = g.freeze().store.examples
    program = scg.compile(g, policy="score")
    estimate = program(seed=seed, **inputs)
    assert estimate.loss is not None
    estimate.loss.backward()
    theta = torch.tensor(0.4, requires_grad=True)
    found, stated = g["theta"].value.grad, by_hand(theta, estimate.samples)
    assert found is not None and stated != 0
    assert torch.allclose(found, stated, rtol=1e-12, atol=0.0)


@GRAPHS
def test_the_loss_is_the_sum_of_the_costs(build: Callable[[], Graph]) -> None:
    g = build()
    estimate = scg.compile(g, policy="score")(seed=1, **g.freeze().store.examples)
    assert estimate.loss is not None
    assert torch.equal(estimate.loss.detach(), torch.stack(list(estimate.costs.values())).sum())
