"""The record: steps of all environments, as they came, put where they stand in [episode, time]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scg.rl.spaces import stacked
from scg.rl.turn import Turn


class Row(NamedTuple):
    """One step of all environments: every entry has leading dimension N."""

    turn: Turn
    state: Any
    action: Tensor
    log_prob: Tensor
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def record_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the episodes, in the order of rounds and then of environments, padded to the longest."""
    turns, states, actions, log_probs, rewards, terminated, truncated = zip(*rows, strict=True)
    played = np.stack([turn.playing for turn in turns])
    episode = np.stack([turn.episode for turn in turns]) * played.shape[1] + np.arange(played.shape[1])
    clock = np.stack([turn.clock for turn in turns])
    shape = (int(episode[played].max()) + 1, int(clock[played].max()) + 1)
    taken = torch.tensor(np.flatnonzero(played))
    to = torch.tensor((episode * shape[1] + clock)[played])

    def place(found: Tensor) -> Tensor:
        """Put [S, N, ...] where it belongs in [episode, time, ...]."""
        flat = found.flatten(0, 1)
        placed = flat.new_zeros(shape[0] * shape[1], *flat.shape[1:])
        placed[to] = flat[taken]
        return placed.reshape(*shape, *flat.shape[1:])

    return {
        "state": stacked(states, place),
        "action": place(torch.stack(actions)),
        "log_prob": place(torch.stack(log_probs)),
        "reward": place(torch.tensor(np.stack(rewards), dtype=torch.get_default_dtype())),
        "mask": place(torch.tensor(played)),
        "terminated": place(torch.tensor(np.stack(terminated))),
        "truncated": place(torch.tensor(np.stack(truncated))),
    }
