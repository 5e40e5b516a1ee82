"""Second derivatives of expected costs of recorded episodes, enumerated over actions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scg
from scg.estimators.parts.memory import Memory
from tests.elsewhere import problems
from tests.elsewhere.problems import Actions
from tests.elsewhere.test_exact import graph_of, other_policy


def products(loss: Tensor, policy: nn.Module) -> Tensor:
    """The gradient of a loss, and the product of its Hessian with one vector."""
    leaves = list(policy.parameters())
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, leaves, create_graph=True)])
    vector = torch.cos(torch.arange(len(gradient), dtype=gradient.dtype))
    second = torch.autograd.grad((gradient * vector).sum(), leaves)
    return torch.cat([gradient.detach(), *(part.flatten() for part in second)])


def value(policy: Actions) -> Tensor:
    """The expected cost."""
    first, second = policy(problems.FIRST).probs, policy(problems.SECOND).probs
    later = second[0] * -0.5 + second[1] * 1.5
    return -(first[1] * 0.7 + first[0] * (0.2 + problems.DISCOUNT * later))


@pytest.mark.parametrize("baseline", [None, "moving-average"])
@pytest.mark.parametrize("is_other", [False, True], ids=["own", "other"])
def test_the_mean_over_episodes_is_exact(baseline: Any, is_other: bool) -> None:
    policy = Actions()
    acting = other_policy() if is_other else policy
    now: list[Tensor] = []

    def simulate(policy: Actions) -> dict[str, Tensor]:
        return problems.actions_of(acting, *now)

    now[:] = [torch.tensor([0]), torch.tensor([1])]
    g, _ = graph_of(policy, simulate, **({"behaviour": "log_prob"} if is_other else {}))
    program = scg.compile(g, scg.Score(baseline=baseline), order=2).eval()
    total = torch.zeros(())
    for one, other in itertools.product((0, 1), repeat=2):
        now[:] = [torch.tensor([one]), torch.tensor([other])]
        loss: Any = program().loss
        for module in program.controls.modules():
            if isinstance(module, Memory):
                module.first, module.mass = torch.tensor(0.9), torch.tensor(1.0)
                loss = program().loss
        mass = acting(problems.FIRST).probs[one] * acting(problems.SECOND).probs[other]
        total = total + mass.detach() * products(loss, policy)
    assert torch.allclose(total, products(value(policy), policy), rtol=1e-4, atol=1e-5)
