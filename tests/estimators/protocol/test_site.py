"""What sites give estimators to compute with."""

from __future__ import annotations

import torch

from scg.estimators.protocol.site import left_out


def test_the_mean_over_the_others_is_exact() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, -1.0, 4.0]]).double()
    for row, found in zip(values, left_out(values, 1), strict=True):
        others = [torch.cat((row[:index], row[index + 1 :])).mean() for index in range(3)]
        assert torch.allclose(found, torch.stack(others))
    assert left_out(values.T, 0).equal(left_out(values, 1).T)


def test_a_single_element_has_the_baseline_0() -> None:
    assert left_out(torch.tensor([[3.0]])).equal(torch.zeros(1, 1))
