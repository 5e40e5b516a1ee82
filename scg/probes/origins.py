"""Origins: what the user wrote that called an operation, and where, read off the stack."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Final

import torch
from torch import nn

_TORCH: Final = str(Path(torch.__file__).parent)
_SCG: Final = str(Path(__file__).parent.parent)
_OWN: Final = tuple(f"{_SCG}/{part}/" for part in ("probes", "analysis", "laws"))
_PLUMBING: Final = tuple(
    f"{_TORCH}/{part}"
    for part in (
        *("_tensor.py", "_ops.py", "_compile.py", "overrides.py", "_dynamo/", "utils/", "autograd/"),
        *("nn/modules/module.py", "nn/modules/container.py", "_functorch/"),
    )
)


def origin(fallback: str, within: FrameType) -> tuple[str, str]:
    """Return the name of the outermost torch function on the stack, and the line that called it.

    ``fallback`` is the name where the line calls the operation itself; frames outside ``within`` are not
    looked at, and the line is empty where nothing inside is the user's.
    """
    name = fallback
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not within:
        file = frame.f_code.co_filename
        if file.startswith(_TORCH):
            if not file.startswith(_PLUMBING):
                name = _called(frame)
        elif not file.startswith(_OWN) and not file.startswith(("<eval_with_key", "<frozen")):
            return name, f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return name, ""


def _called(frame: FrameType) -> str:
    name, owner = frame.f_code.co_name, frame.f_locals.get("self")
    if isinstance(owner, nn.Module) or (owner is not None and name == "__init__"):
        return type(owner).__name__
    return name if owner is None else f"{type(owner).__name__}.{name}"
