"""Leaves: the functions of the user as one call of a tape each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from scg.evaluation.vectorise import Mappable
from scg.export.tape import Outside

Fn = Callable[..., Any]


class Records(Protocol):
    """What writes down the calls of leaves."""

    def call(self, leaf: Leaf, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the user, and write down one call."""

    def mapped(self, outside: Outside, run: Fn, values: Any, dims: Any, given: Any) -> Any:
        """Call a function mapped over dimensions of some values, and write down one call."""


class Leaf(Mappable):
    """A function of the user that is one call of a tape."""

    def __init__(self, recorder: Records, outside: Outside, call: Fn | None = None) -> None:
        """Name the function that ``recorder`` writes down."""
        self.recorder = recorder
        self.outside = outside
        self.call = outside.call if call is None else call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and write down one call."""
        return self.recorder.call(self, args, kwargs)

    def mapped(
        self,
        run: Fn,
        values: tuple[Any, ...],
        dims: tuple[int | None, ...],
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
    ) -> Any:
        """Write down one call of the mapped function."""
        return self.recorder.mapped(self.outside, run, values, dims, given)
