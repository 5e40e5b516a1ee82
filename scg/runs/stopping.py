"""Stopping: the first Ctrl-C or SIGTERM asks for an end after the step, the second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run was asked to end, and was saved: the text says how to go on."""


@dataclass
class Stop:
    """Whether an end was asked for, and by which signal."""

    asked: signal.Signals | None = None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Take signals for a question, once; elsewhere than in the main thread, they stay what they are."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = signal.Signals(number)
        _restore(before)

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        _restore(before)


def _restore(before: Mapping[signal.Signals, object]) -> None:
    for number, handler in before.items():
        # None stands for a handler that Python did not set, and cannot set again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
