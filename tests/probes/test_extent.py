"""Extent: what would be large is told without running it, and what is not runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scg.probes.extent import is_large

X = torch.ones(50)


class Judged(TorchDispatchMode):
    """Runs what is not large."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_large(func, args, kwargs or {}):
            raise OverflowError
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "fn",
    [
        lambda: torch.zeros(5, 1_000_000, 64),
        lambda: torch.arange(1_000_000),
        lambda: torch.eye(1_000_000),
        lambda: X.repeat(1_000_000),
        lambda: torch.rand(1_000_000, 1_000_000),
        lambda: X[:, None].expand(50, 10**9) + 1,
        lambda: torch.linspace(0, 1, 10**12),
        lambda: X.repeat(100)[:, None] * X.repeat(100),
        lambda: torch.nn.functional.pad(X, (0, 10**9)),
        lambda: torch.nn.functional.one_hot(X.long(), 10**8),
    ],
)
def test_what_is_large_is_not_run(fn: Callable[[], object]) -> None:
    with pytest.raises(OverflowError), Judged():
        fn()


@pytest.mark.parametrize(
    "fn",
    [
        lambda: X * 1e12,
        lambda: X.clamp(max=1_000_000),
        lambda: torch.full_like(X, 1e30),
        lambda: X.nonzero(),
        lambda: torch.arange(1_000),
        lambda: X.repeat(100) + float("inf"),
        lambda: X[X > 1e9],
        lambda: torch.ones(300, 200) + torch.ones(200),
    ],
)
def test_what_is_not_large_runs(fn: Callable[[], object]) -> None:
    with Judged():
        fn()
