"""The flow of one call: what outputs are computed from, and what is found on the way."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Dirichlet, Gamma, Normal, Uniform

from scg.probes.flow import Flow, flow
from scg.probes.joint import Answer, Joint
from scg.probes.tape import Kind


def followed(fn: Callable[[Tensor, Tensor], object]) -> Flow:
    """The flow of a function of two learned tensors."""
    torch.manual_seed(0)
    p = torch.rand(3, 3).mul(0.8).add(0.1).requires_grad_()
    q = torch.rand(3, 3).requires_grad_()
    return flow(lambda: fn(p, q), [p, q])


def kinds(found: Flow) -> set[Kind]:
    return {finding.kind for leaf in found.leaves for finding in leaf.findings}


def test_outputs_know_their_sources() -> None:
    found = followed(lambda p, q: (p * 2, p + q, torch.ones(3), q.shape[0]))
    assert [set(leaf.sources) for leaf in found.leaves] == [{0}, {0, 1}, set(), set()]
    assert [leaf.is_attached for leaf in found.leaves] == [True, True, False, False]


def test_shapes_carry_nothing() -> None:
    found = followed(lambda p, q: torch.zeros_like(p) + p.new_ones(3) + torch.rand_like(q))
    assert found.leaves[0].sources == frozenset()
    assert [noise.operation for noise in found.leaves[0].noises] == ["rand_like"]


def written(p: Tensor, q: Tensor) -> Tensor:
    found = torch.zeros(3, 3)
    found[0] = p[1]
    found.view(-1)[4:] += q.reshape(-1)[4:]
    return found


def test_views_and_writes_are_followed() -> None:
    assert set(followed(written).leaves[0].sources) == {0, 1}


LOSSES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "detach": lambda p, q: p.detach() * q,
    "data": lambda p, q: p.data * q,
    "returned as it is": lambda p, q: p.detach(),
    "numpy and back": lambda p, q: torch.from_numpy(p.detach().numpy()) * q,
    "detached view": lambda p, q: p[0].detach().expand(3, 3).t() * q,
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_read_without_its_gradient_is_lost(name: str) -> None:
    found = followed(LOSSES[name])
    assert kinds(found) == {Kind.LOST}
    (finding,) = found.leaves[0].findings
    assert found.touched[finding] == {0}
    assert finding.where.startswith("test_flow.py:")


def test_what_is_detached_and_not_used_is_not_lost() -> None:
    def fn(p: Tensor, q: Tensor) -> Tensor:
        p.detach()
        torch.bernoulli(p)
        _ = (p > q).float().round()
        return p * q

    assert kinds(followed(fn)) == set()


def test_steps_are_found_and_comparisons_are_mild() -> None:
    (step,) = followed(lambda p, q: p.round() + q).leaves[0].findings
    assert (step.kind, step.operation, step.mild) == (Kind.STEP, "round", False)
    (step,) = followed(lambda p, q: p * (p > 0.5)).leaves[0].findings
    assert (step.kind, step.mild) == (Kind.STEP, True)
    assert kinds(followed(lambda p, q: p.max(-1).values)) == set()
    assert kinds(followed(lambda p, q: p.max(-1).indices)) == {Kind.STEP}


def test_draws_are_told_from_noise() -> None:
    assert kinds(followed(lambda p, q: torch.bernoulli(p))) == {Kind.DRAW}
    assert kinds(followed(lambda p, q: torch.rand(3, 3) < p)) == {Kind.DRAW}
    assert kinds(followed(lambda p, q: p + torch.rand(3, 3))) == set()
    assert kinds(followed(lambda p, q: p * (torch.rand(3, 3) < 0.5))) == set()
    assert kinds(followed(lambda p, q: F.dropout(p))) == set()
    assert kinds(followed(lambda p, q: Uniform(p, p + q).sample())) >= {Kind.DRAW}
    for fn in (
        lambda p, q: Normal(p, q).rsample(),
        lambda p, q: Gamma(p, q).rsample(),
        lambda p, q: Dirichlet(p).rsample(),
        lambda p, q: F.gumbel_softmax(p),
    ):
        assert kinds(followed(fn)) == set()


def test_draws_are_named_as_they_were_called() -> None:
    found = followed(lambda p, q: nn.Dropout()(p) * Bernoulli(p).sample())
    assert [finding.operation for finding in found.leaves[0].findings] == ["Bernoulli.sample"]
    assert found.leaves[0].findings[0].proven
    assert {noise.operation for noise in found.leaves[0].noises} == {"Dropout", "Bernoulli.sample"}


def test_noise_that_is_given_counts_as_noise() -> None:
    p, u = torch.full((3,), 0.4, requires_grad=True), torch.rand(3)
    assert kinds(flow(lambda: (u < p).float(), [p], [u])) == {Kind.DRAW}
    assert kinds(flow(lambda: (u < p).float(), [p])) == {Kind.STEP}


def test_numbers_that_python_reads_are_noted() -> None:
    found = followed(lambda p, q: p * q.sum().item())
    assert [finding.kind for finding in found.escaped] == [Kind.LEAVES]
    assert found.touched[found.escaped[0]] == {1}
    assert [f.kind for f in followed(lambda p, q: p if p.sum() > 1 else q).escaped] == [Kind.STEP]


def test_generators_that_move_are_named() -> None:
    assert followed(lambda p, q: p * random.random()).generators == ("Python",)
    assert followed(lambda p, q: p * float(np.random.rand())).generators == ("NumPy",)
    own = torch.Generator().manual_seed(1)
    (held, state), *others = followed(lambda p, q: p * torch.rand(3, generator=own)).own
    assert held is own and not others
    assert torch.equal(state, torch.Generator().manual_seed(1).get_state())


def test_captured_parameters_are_sources_and_own_leaves_are_not() -> None:
    w = nn.Parameter(torch.ones(3))

    def fn(p: Tensor, q: Tensor) -> Tensor:
        return p * w * torch.zeros(3, requires_grad=True)

    found = followed(fn)
    assert set(found.leaves[0].sources) == {0, 2}
    assert found.sources[2] is w


def test_joint_probes_put_others_in_the_place_of_captured_parameters() -> None:
    w = nn.Parameter(torch.tensor([0.5, -1.0]))

    def judged(fn: Callable[[Tensor], Tensor]) -> tuple[Answer, Answer]:
        joint = Joint(lambda at: fn(at["x"]), {"x": torch.randn(2)}, ["x"], [w])
        judgement = joint.judge(steps=True)
        return judgement.disagrees, judgement.jumps

    assert judged(lambda x: (x * w).sin()) == (Answer.NO, Answer.NO)
    assert judged(lambda x: x * w.detach())[0] is Answer.YES
    assert judged(lambda x: x + (w > 0)) == (Answer.NO, Answer.YES)
    assert judged(lambda x: x * w.relu()) == (Answer.NO, Answer.NO)
    assert torch.equal(w.detach(), torch.tensor([0.5, -1.0])) and w.grad is None
