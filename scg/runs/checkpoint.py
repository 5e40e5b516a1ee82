"""Checkpoints: the states of all loops of a run, in one file that is whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from scg.errors import RunError
from scg.runs.files import write

FORMAT = 1
State = dict[str, Any]


def save(path: Path, parts: State) -> None:
    """Write the state of every loop by its name.

    torch writes into memory: where a disk is full, what it would raise does not say so.
    """
    sink = io.BytesIO()
    torch.save({"format": FORMAT, "parts": parts}, sink)
    write(path, sink.getvalue())


def load(path: Path) -> State:
    """Return the state of every loop by its name, none where no checkpoint was written yet."""
    if not path.exists():
        return {}
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"{path} is no checkpoint that can be read: {_first_line(error)}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RunError(f"{path} is no checkpoint of scg.runs that this version reads")
    return dict(found["parts"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
