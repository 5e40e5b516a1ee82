"""The steps in other libraries, in the way that each documents."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.contest import Job


def peer(module: str, step: str, **options: Any) -> Callable[..., Job]:
    """Return what builds a step of ``benchmarks.peers.module``, imported then: its library may be missing."""

    def build(*arguments: Any, **further: Any) -> Job:
        made: Job = getattr(import_module(f"{__name__}.{module}"), step)(*arguments, **options, **further)
        return made

    return build
