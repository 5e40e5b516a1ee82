"""Names: which a node may have, and where in the user's code it was declared."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from scg.errors import GraphError

PACKAGES = (str(Path(__file__).parent.parent), str(Path(torch.__file__).parent))
PROGRAM_NAMES = frozenset(
    "self noise seed fx code explain evaluations assumptions draw export stages prepare draw_noise "
    "is_pending check_values model_parameters control_parameters controls captured constants policy "
    "samples keep points limit torch device inf nan NoneType".split()
)
RESERVED = frozenset(dir(nn.Module())) | PROGRAM_NAMES


def check_name(name: Any) -> None:
    """Refuse a name that is no identifier, or that a program uses for itself."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise GraphError(f"node names are Python identifiers, {name!r} is not")
    if name in RESERVED or name.startswith("_"):
        raise GraphError(f"'{name}' is reserved for the program: choose another name, such as '{name}_node'")


def caller() -> str:
    """Return ``file:line`` of the nearest frame outside this package."""
    frame = _outside()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def stack_level() -> int:
    """Return the ``stacklevel`` with which the calling function warns of the nearest line outside of scg."""
    frame, outside, level = sys._getframe(1), _outside(), 1
    while frame is not outside and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level


def _outside() -> FrameType:
    """Return the nearest frame outside this package, and outside torch on the way to it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGES):
        frame = frame.f_back
    return frame
