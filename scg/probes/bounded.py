"""Bounded: calls of functions at values that they were not made for, in which a loop may not end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import torch

MANY: Final = 50_000
"""Lines that a call may run where nobody knows how many it needs."""
ANY: Final = sys.maxsize
"""Lines that a call may run where it is known to end."""
_LIBRARIES: Final = tuple(
    f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parent.parent)
)


class RanOnError(RuntimeError):
    """A call that ran more lines than it may."""


class Bounded:
    """Counts the lines of Python that run in this context outside of libraries, and stops at a limit.

    What a debugger or a coverage tool sees is put back afterwards.
    """

    def __init__(self, limit: int | None) -> None:
        """Stop after ``limit`` lines; with None, there is no limit, and nothing is counted."""
        self.lines = 0
        self._limit = limit
        self._before: Any = None

    def __enter__(self) -> Self:
        if self._limit is not None:
            self._before = sys.gettrace()
            sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        if self._limit is not None:
            sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        return None if frame.f_code.co_filename.startswith(_LIBRARIES) else self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.lines += event == "line"
        if self._limit is not None and self.lines > self._limit:
            raise RanOnError(f"it ran on for more than {self._limit} lines")
        return self._line
