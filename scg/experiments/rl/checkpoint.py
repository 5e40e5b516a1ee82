"""Checkpoints: what training reached, kept in a file to go on from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from scg.errors import ScgError
from scg.experiments.rl.problem import Setting

States = dict[str, Any]


def save(path: Path, setting: Setting, states: States) -> None:
    """Write the states of trainings by name; a file that is there stays whole until that is done."""
    beside = path.with_suffix(".part")
    torch.save({"setting": asdict(setting), "states": states}, beside)
    beside.replace(path)


def load(path: Path, setting: Setting) -> States:
    """Return the states of trainings by name, or name every setting in which they are of another."""
    if not path.is_file():
        raise ScgError(f"--resume: there is no {path}: leave --resume out to begin, or say --out")
    found = torch.load(path, weights_only=True)
    now = asdict(setting)
    differ = [
        f"--{name.replace('_', '-')} is {now[name]}, and was {before}"
        for name, before in found["setting"].items()
        if now[name] != before
    ]
    if differ:
        raise ScgError(f"--resume: {path} is of another setting: {'; '.join(differ)}")
    return dict(found["states"])
