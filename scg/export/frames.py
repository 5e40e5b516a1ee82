"""Frames: what the code that a program runs calls its values, read off the stack while it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path as File
from types import FrameType

import torch
from torch import Tensor

from scg.export.tape import Path, Ref, Tape

TORCH = str(File(torch.__file__).parent)
PART, BASE = "scg_part", "scg_run"
KEYED = ("parameters", "p", "given", "leaves")
NAMED = ("weighed",)
"""Dictionaries by the name of which their values are called."""
VAGUE = frozenset({"self", "leaf", "tensor", "found", "item", "result", "out", "detached", "attached", "_"})


def look(tape: Tape, known: Mapping[int, Ref], path: Path) -> None:
    """Note the names that functions under way have for known values, in the part that they belong to.

    Those around the part, where nothing goes on meanwhile, were looked at when it was entered.
    """
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_code.co_name not in (BASE, PART):
        if not frame.f_code.co_filename.startswith(TORCH):
            _note(frame, tape, known, path)
        frame = frame.f_back


def _note(frame: FrameType, tape: Tape, known: Mapping[int, Ref], path: Path) -> None:
    code = frame.f_code
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name, value in frame.f_locals.items():
        if type(value) is dict and name in NAMED:
            for key, item in value.items():
                ref = known.get(id(item))
                if ref is not None:
                    tape.names.setdefault((path, ref), name if len(value) == 1 else f"{name}_{key}")
        if type(value) is dict and name in KEYED:
            for key, item in value.items():
                ref = known.get(id(item))
                if ref is not None:
                    tape.given.setdefault((path, ref), str(key))
        ref = known.get(id(value)) if isinstance(value, Tensor) else None
        if ref is not None and name not in VAGUE and not name.startswith("_"):
            names = tape.given if name in arguments else tape.names
            names.setdefault((path, ref), name)
