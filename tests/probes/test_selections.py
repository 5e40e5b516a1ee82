"""Selections: what they give has the owners of all that they read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scg.probes.dependence import Label
from scg.probes.provenance import Provenance

COUNT, WIDTH = 5, 3
SELECT: dict[str, Callable[[Tensor, int], Tensor]] = {
    "all": lambda x, dim: (x > 0).all(dim),
    "any": lambda x, dim: (x > 0).any(dim),
    "amax": lambda x, dim: x.amax(dim),
    "max": lambda x, dim: x.max(dim).values,
    "place of the smallest": lambda x, dim: x.min(dim).indices,
    "argmax": lambda x, dim: x.argmax(dim),
    "aminmax": lambda x, dim: torch.aminmax(x, dim=dim)[0],
    "count": lambda x, dim: (x > 0).count_nonzero(dim),
    "median": lambda x, dim: x.median(dim).values,
    "mode": lambda x, dim: x.round().mode(dim).values,
}


def owners(fn: Callable[[Tensor], Tensor], *, ordered: bool) -> list[int]:
    """Return whose the elements of a result are, where rows of what a function reads are told apart."""
    label, x = Label("batch", COUNT, ordered), torch.randn(COUNT, WIDTH)
    provenance = Provenance({label: [(x, 0)]}, given=[x])
    with torch.no_grad(), provenance:
        result = fn(x)
    found = provenance.owners(label, result)
    assert found is not None
    return [max(code, -1) for code in found.flatten().tolist()]


@pytest.mark.parametrize("name", SELECT)
@pytest.mark.parametrize("ordered", [False, True])
def test_within_rows_each_keeps_its_own(name: str, ordered: bool) -> None:
    assert owners(lambda x: SELECT[name](x, -1), ordered=ordered) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", SELECT)
def test_over_rows_they_join(name: str) -> None:
    assert owners(lambda x: SELECT[name](x, 0), ordered=False) == [-1] * WIDTH
    assert owners(lambda x: SELECT[name](x, 0), ordered=True) == [COUNT] * WIDTH


@pytest.mark.parametrize("fn", [lambda x: (x > 9).all(), lambda x: x.max(), lambda x: x.argmin()])
def test_over_everything_they_join(fn: Callable[[Tensor], Tensor]) -> None:
    assert owners(fn, ordered=False) == [-1]


def test_of_constants_there_is_no_owner() -> None:
    masked = owners(
        lambda x: x.masked_fill(torch.arange(COUNT)[:, None] != 2, -float("inf")).amax(0), ordered=False
    )
    assert masked == [3] * WIDTH
