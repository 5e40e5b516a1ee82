"""Reinforcement learning: simulators of whole episodes, made from gymnasium's environments."""

from scg.rl.simulator import episodes

__all__ = ["episodes"]
