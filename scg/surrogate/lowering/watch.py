"""Watching: what sees the calls of a program while it runs, so that a recording tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from scg.nodes.records import Record
from scg.surrogate.runtime.ops import on_copied_buffers

Fn = Callable[..., Any]


class Watch:
    """Leaves every call as it is."""

    def function(self, record: Record, fn: Fn) -> Fn:
        """Return the function that a user gave to a node, as the program calls it."""
        return fn

    def copied(self, module: nn.Module) -> Fn:
        """Return the call of a module that leaves its running statistics as they are."""
        return partial(on_copied_buffers, module)

    def part(self, label: str, fn: Fn) -> Fn:
        """Return what a law, a slice or an estimator computes, as the program calls it."""
        return fn

    def detail(self, label: str, fn: Fn) -> Fn:
        """Return what is done for an estimator before it computes, as the program calls it."""
        return fn


UNWATCHED = Watch()
