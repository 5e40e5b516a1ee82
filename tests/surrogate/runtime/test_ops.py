"""What emitted lines call, number by number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import scg
from scg.surrogate.runtime.ops import beside, first_order, on_copied_buffers, possible, to_go, undiscounted


def of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.double)


@pytest.mark.parametrize("rate, wanted", [(1.0, (7.0, 6.0, 4.0)), (0.5, (3.0, 4.0, 4.0))])
def test_costs_to_go_are_those_from_a_step_on_discounted_from_there(
    rate: float, wanted: tuple[float, ...]
) -> None:
    assert torch.allclose(to_go(of(1.0, 2.0, 4.0), 0, rate), of(*wanted))
    rows = torch.stack([of(1.0, 2.0, 4.0), of(0.0, 0.0, 1.0)])
    assert torch.allclose(to_go(rows, 1, rate)[0], of(*wanted))


def test_a_weight_that_has_vanished_leaves_nothing() -> None:
    value = undiscounted(torch.ones(400), 0, 400, 0.5)
    assert value[1] == 2
    assert value[-1] == 0
    assert bool(value.isfinite().all())


def test_what_cannot_happen_counts_for_nothing_and_what_can_is_told() -> None:
    found = possible(of(1.0, torch.inf, torch.inf), of(0.5, 0.0, 0.1))
    assert found.tolist() == [1.0, 0.0, torch.inf]


def test_scores_are_right_to_first_order_alone() -> None:
    x = torch.tensor(0.3, requires_grad=True)
    torch.autograd.grad(first_order(x**2), x)
    with pytest.raises(scg.EstimatorError, match="compiled with order=1"):
        torch.autograd.grad(first_order(x**2), x, create_graph=True)


def test_running_statistics_stay_as_they_are() -> None:
    norm, x = nn.BatchNorm1d(2), torch.randn(8, 2)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    beside([norm], lambda x: norm(x), x)
    on_copied_buffers(norm, x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    norm(x)
    assert not torch.equal(norm.running_mean, before["running_mean"])


@pytest.mark.parametrize("size", [5, 300])
def test_costs_to_go_are_the_same_by_a_product_and_by_sums(size: int) -> None:
    """A short plate that comes last is added up by one product, and others by running sums."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, size, dtype=torch.float64, generator=generator)
    wanted = torch.stack(
        [(0.9 ** torch.arange(size - t, dtype=torch.float64) * value[:, t:]).sum(1) for t in range(size)], 1
    )
    assert torch.allclose(to_go(value, 1, 0.9), wanted, rtol=1e-9)
    assert torch.allclose(to_go(value[..., None], 1, 0.9)[..., 0], wanted, rtol=1e-9)
    value[0, 1] = torch.inf
    found = to_go(value, 1, 0.9)
    assert bool(found[0, :2].isinf().all()) and bool(found[0, 2:].isfinite().all())
