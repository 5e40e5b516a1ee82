"""The turn: which episode each environment is in, at which step, before all of them take the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import AutoresetMode


@dataclass(frozen=True)
class Turn:
    """For each environment [N]: its episodes so far, steps of this one, and what keeps it from playing."""

    episode: np.ndarray
    clock: np.ndarray
    idle: np.ndarray
    """It has played its episodes, or was cut off and cannot be reset alone."""
    resets: np.ndarray
    """Its next step is a reset, which is no step of an episode."""

    @property
    def playing(self) -> np.ndarray:
        """Whether the next step of an environment is one of an episode."""
        playing: np.ndarray = ~(self.idle | self.resets)
        return playing

    def told(self) -> str:
        """Return where in the record the next step stands."""
        size = len(self.clock)
        playing = np.flatnonzero(self.playing)
        at = [f"episode {self.episode[i] * size + i}, step {self.clock[i]}" for i in playing[:4]]
        if len(at) < 2:
            return at[0] if at else "the reset of an episode that is over"
        return "one of " + "; ".join(at) + ("; ..." if len(playing) > 4 else "")


def first(size: int) -> Turn:
    """Return the turn after every environment was reset for the first time."""
    none = np.zeros(size, dtype=bool)
    zero = np.zeros(size, dtype=np.int64)
    return Turn(zero, zero, none, none)


def afresh(turn: Turn, rounds: int) -> Turn:
    """Return the turn after every environment was reset, whatever it was in."""
    none = np.zeros_like(turn.idle)
    return Turn(turn.episode, np.zeros_like(turn.clock), turn.episode >= rounds, none)


def after(turn: Turn, ended: np.ndarray, cut: np.ndarray, rounds: int, mode: AutoresetMode) -> Turn:
    """Return the turn after a step in which environments ended, and episodes were cut off."""
    playing, over = turn.playing, ended | cut
    if not (over.any() or turn.resets.any()):
        return Turn(turn.episode, turn.clock + playing, turn.idle, turn.resets)
    over = playing & over
    episode = turn.episode + over
    idle = turn.idle | (episode >= rounds)
    if mode is not AutoresetMode.DISABLED:
        idle = idle | (cut & ~ended)
    resets = ended & ~turn.resets if mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
    return Turn(episode, np.where(over, 0, turn.clock + playing), idle, resets)
