"""Spaces: what a batch of environments shows, as tensors, and what it takes, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from scg.errors import GraphError

_PLAIN = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


@dataclass(frozen=True)
class Actions:
    """A space of actions as the bounds, the shape and the dtype of an array."""

    space: Any
    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any

    @staticmethod
    def of(space: Any) -> Actions:
        """Return the bounds of a space that one tensor can be in, or refuse it."""
        if isinstance(space, spaces.Box):
            return Actions(space, space.low, space.high, space.shape, space.dtype)
        if isinstance(space, spaces.Discrete):
            return Actions(space, space.start, space.start + space.n - 1, (), space.dtype)
        if isinstance(space, spaces.MultiDiscrete):
            return Actions(space, space.start, space.start + space.nvec - 1, space.shape, space.dtype)
        if isinstance(space, spaces.MultiBinary):
            return Actions(space, 0, 1, space.shape, space.dtype)
        raise GraphError(
            f"episodes: actions are in {space}, and a distribution gives one tensor: wrap the environment so "
            "that it takes Box, Discrete, MultiDiscrete or MultiBinary"
        )

    def array(self, drawn: Tensor) -> np.ndarray | None:
        """Return actions [N, ...] as an array of their own, or None where one is outside the space."""
        found = drawn.cpu().numpy()
        if not ((found >= self.low) & (found <= self.high)).all():
            return None
        # Environments may change what they are given, which is not to change the record.
        taken: np.ndarray = found.astype(self.dtype)
        whole = found.dtype.kind != "f" or taken.dtype.kind == "f" or (found == taken).all()
        return taken if whole else None


def check_observations(space: Any) -> None:
    """Refuse a space whose observations are no tensors."""
    if isinstance(space, spaces.Dict):
        for inner in space.spaces.values():
            check_observations(inner)
    elif isinstance(space, spaces.Tuple):
        for inner in space.spaces:
            check_observations(inner)
    elif not isinstance(space, _PLAIN):
        raise GraphError(
            f"episodes: observations are in {space}, which are no tensors: wrap the environment so that "
            "it shows Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of these"
        )


def read(space: Any, found: Any, lead: tuple[int, ...]) -> Any:
    """Return observations as new tensors [N, ...], nested as the space is; ``lead`` is (N,), or () for 1."""
    if isinstance(space, spaces.Dict):
        return {key: read(inner, found[key], lead) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(read(inner, part, lead) for inner, part in zip(space.spaces, found, strict=True))
    array = np.asarray(found)
    if array.shape != lead + space.shape:
        raise GraphError(f"an observation has shape {array.shape}, and {space} needs {lead + space.shape}")
    dtype = torch.get_default_dtype() if isinstance(space, spaces.Box) else torch.int64
    # Environments may write the next observation into the same array.
    tensor = torch.tensor(array, dtype=dtype)
    return tensor if lead else tensor[None]


def stacked(states: Sequence[Any], place: Callable[[Tensor], Tensor]) -> Any:
    """Return states [N, ...] of every step as ``place`` of their stacks [S, N, ...], nested as they are."""
    if isinstance(states[0], dict):
        return {key: stacked([state[key] for state in states], place) for key in states[0]}
    if isinstance(states[0], tuple):
        return tuple(stacked(parts, place) for parts in zip(*states, strict=True))
    return place(torch.stack(list(states)))
